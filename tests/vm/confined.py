#!/usr/bin/python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""A daemon that tells whoever connects what it may do. Runs on the machine, as root."""

import json
import os
import socket
import subprocess
from pathlib import Path

KEY, DATA, PORT = Path("/etc/probe/key"), Path("/var/lib/probe/data"), 7070


def tried(action):
    """What came of it: a value, or the name of the error."""
    try:
        return action()
    except OSError as error:
        return type(error).__name__


def bound(port):
    """Listen on a port, for a moment."""
    with socket.create_server(("127.0.0.1", port)):
        return "bound"


def bound_and_connected(port):
    """Listen on a port, and connect to it."""
    with socket.create_server(("127.0.0.1", port)):
        return connected(port)


def ran():
    """Run a shell that does nothing."""
    return subprocess.run(["/bin/sh", "-c", "true"], check=False).returncode


def connected(port):
    """Connect to a port of this machine."""
    with socket.create_connection(("127.0.0.1", port), 5):
        return "connected"


def told():
    """Everything it tries."""
    return {
        "domain": Path("/proc/self/attr/current").read_text().split(":")[2],
        "read its key": tried(KEY.read_text),
        "read its credential": tried(Path(os.environ["CREDENTIALS_DIRECTORY"], "token").read_text),
        "write its data": tried(lambda: DATA.write_text("fresh") and "written"),
        "bind and connect to its second port": tried(lambda: bound_and_connected(PORT + 1)),
        "bind another port": tried(lambda: bound(PORT + 2)),
        "connect to another port": tried(lambda: connected(22)),
        "write its key": tried(lambda: KEY.write_text("mine")),
        "read passwords": tried(Path("/etc/shadow").read_text),
        "read what is root's": tried(Path("/root/secret").read_text),
        "run a shell": tried(ran),
    }


with socket.create_server(("127.0.0.1", PORT)) as server:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.sendto(b"READY=1", os.environ["NOTIFY_SOCKET"])
    while True:
        peer, _address = server.accept()
        with peer:
            peer.sendall(json.dumps(told()).encode())
