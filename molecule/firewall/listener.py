# SPDX-License-Identifier: GPL-3.0-or-later
"""The daemon behind the firewall: mutual TLS on 30303, greetings on other ports.

While /run/wrong-identity exists it proves another identity than its own.
"""

import contextlib
import selectors
import socket
import ssl
from pathlib import Path

IDENTITY = Path("/etc/listener")
PLAIN = (30304, 8545, 7777, 9999)


def context() -> ssl.SSLContext:
    """The listener's side of the handshake."""
    folder = IDENTITY / ("wrong" if Path("/run/wrong-identity").exists() else "own")
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.minimum_version = ssl.TLSVersion.TLSv1_3
    made.verify_mode = ssl.CERT_REQUIRED
    made.load_verify_locations(folder / "ca.pem")
    made.load_cert_chain(folder / "chain.pem", folder / "key.pem")
    return made


selector = selectors.DefaultSelector()
for port in (30303, *PLAIN):
    selector.register(socket.create_server(("", port)), selectors.EVENT_READ, port)
while True:
    for key, _events in selector.select():
        connection, _address = key.fileobj.accept()
        connection.settimeout(1)
        with connection, contextlib.suppress(OSError):
            if key.data == 30303:
                connection = context().wrap_socket(connection, server_side=True)
            connection.sendall(b"here")
