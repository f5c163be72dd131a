# SPDX-License-Identifier: GPL-3.0-or-later
"""A time server that is wrong by some seconds: ``stray_server.py 0.2`` (SNTP, RFC 4330).

It keeps its own time from its start on: whoever sets the clock of its host does not change it.
"""

from __future__ import annotations

import socket
import struct
import sys
import time

EPOCH = 2208988800  # 1970 in seconds since 1900, where NTP begins
# Leap and mode of an answer, stratum 1, precision of a microsecond, no delay, no dispersion.
HEAD = struct.pack("!BBbb II 4s", 0o44, 1, 6, -20, 0, 0, b"GPS\0")


def timestamp(seconds: float) -> bytes:
    """A time in NTP's 64 bits."""
    whole = int(seconds)
    return struct.pack("!II", whole + EPOCH, int((seconds - whole) * 2**32))


def serve(ahead: float) -> None:
    """Answer for ever, with a clock that is that many seconds ahead of the host's at the start."""
    steady = time.CLOCK_MONOTONIC_RAW  # neither stepped nor slewed
    start = time.time() + ahead - time.clock_gettime(steady)
    listener = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    listener.bind(("0.0.0.0", 123))  # noqa: S104 -- of a host that is there for this test
    while True:
        request, client = listener.recvfrom(1024)
        now = timestamp(start + time.clock_gettime(steady))
        # the client's own time of sending comes back to it
        listener.sendto(HEAD + now + request[40:48] + now + now, client)


if __name__ == "__main__":
    serve(float(sys.argv[1]))
