# Copyright: (c) 2026, Holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a mutual TLS listener proves to be the one of an identity on this host.

The module firewall_rules installs this very file as a program, so it stands on the standard library
alone. It says what is wrong on standard error and ends with 1, or with 0.
"""

from __future__ import annotations

import argparse
import contextlib
import socket
import ssl
import sys
from typing import Any, Sequence

PROGRAM = "/usr/local/sbin/holdfast-handshake"


def handshake(options: argparse.Namespace) -> str:
    """Shake hands with a mutual TLS listener; why it is not the one of an identity, or nothing.

    The listener has to prove, with a certificate of the identity's CA, the very names that the
    identity has, and to accept the identity as a client. Which certificate of these names is in use
    does not matter: a renewed one may not have been read yet.
    """
    host, _colon, port = options.address.rpartition(":")
    try:
        client = _context(ssl.PROTOCOL_TLS_CLIENT, options.identity)
        server = _context(ssl.PROTOCOL_TLS_SERVER, options.identity)
        own = _names_of_own(server, client)
        where = (host.strip("[]"), int(port))
        plain = socket.create_connection(where, options.timeout)
        with plain, client.wrap_socket(plain) as secured:
            served = _names(secured.getpeercert())
            # TLS 1.3 refuses a client after its handshake: what comes next tells
            secured.settimeout(0.3)
            with contextlib.suppress(socket.timeout, ConnectionError):
                secured.recv(1)
    except (OSError, ValueError) as error:
        return f"{options.address}: {error}"
    if served != own:
        return f"{options.address} proves {served}: expected {own}, as in {options.identity}"
    return ""


def _context(protocol: Any, identity: str) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False  # all names are compared, not one of them
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(cafile=identity + "/ca.pem")
    context.load_cert_chain(identity + "/chain.pem", identity + "/key.pem", password=lambda: "")
    return context


def _names(certificate: Any) -> list[str]:
    return sorted(":".join(name) for name in (certificate or {}).get("subjectAltName", ()))


def _names_of_own(server: ssl.SSLContext, client: ssl.SSLContext) -> list[str]:
    """The names in an identity, by a handshake with itself in memory."""
    one, other = ssl.MemoryBIO(), ssl.MemoryBIO()
    sides = [client.wrap_bio(other, one), server.wrap_bio(one, other, server_side=True)]
    for _flight in range(2):
        for side in sides:
            with contextlib.suppress(ssl.SSLWantReadError):
                side.do_handshake()
    return _names(sides[0].getpeercert())


def parser() -> argparse.ArgumentParser:
    """The command line."""
    options = argparse.ArgumentParser(prog="holdfast-handshake")
    options.add_argument("--address", required=True, help="HOST:PORT of the listener")
    options.add_argument("--identity", required=True, help="folder: chain.pem, key.pem, ca.pem")
    options.add_argument("--timeout", type=float, default=5, help="seconds")
    return options


def main(arguments: Sequence[str]) -> int:
    """The program; its exit code."""
    fault = handshake(parser().parse_args(arguments))
    if fault:
        sys.stderr.write(fault + "\n")
    return 1 if fault else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
