# SPDX-License-Identifier: GPL-3.0-or-later
"""`holdfast-node` with a wrong clock and a slow disk: ``python edge.py FILE run --config ...``.

FILE holds two numbers of 8 bytes, little endian, which may change while the node runs (`tamper`):
how many milliseconds its clock is off, and how many each write to its disk takes. What is moved
is what Python asks of the system, before the node is imported:

* the answers of `time.time` and `time.time_ns`, so the times of blocks, and what is taken for
  expired; timers (monotonic) and OpenSSL are as they were;
* the time that `os.fsync`, `os.fdatasync` and a COMMIT of SQLite take, so each vote, block and
  anchor; nothing is lost or torn by it.
"""

from __future__ import annotations

import mmap
import os
import sqlite3
import struct
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any, Callable

FORM = struct.Struct("<qq")


def tamper(path: Path, *, clock_ms: int = 0, write_ms: int = 0) -> None:
    """Set clock and disk of the node that was, or will be, started with `path`."""
    with path.open("r+b" if path.exists() else "xb") as file:  # in place: the node has it mapped
        file.write(FORM.pack(clock_ms, write_ms))


def main() -> None:
    with Path(sys.argv.pop(1)).open("rb") as file:
        settings = mmap.mmap(file.fileno(), FORM.size, access=mmap.ACCESS_READ)
    real = time.time_ns
    time.time_ns = lambda: real() + FORM.unpack_from(settings)[0] * 1_000_000
    time.time = lambda: time.time_ns() / 1e9

    def written() -> None:
        time.sleep(FORM.unpack_from(settings)[1] / 1000)

    def slow(write: Callable[[int], None], descriptor: int) -> None:
        write(descriptor)
        written()

    class Connection(sqlite3.Connection):
        def execute(self, sql: str, *parameters: Any) -> sqlite3.Cursor:
            done = super().execute(sql, *parameters)
            if sql == "COMMIT":
                written()
            return done

    os.fsync, os.fdatasync = partial(slow, os.fsync), partial(slow, os.fdatasync)
    sqlite3.connect = partial(sqlite3.connect, factory=Connection)
    from holdfast_node.cli import main as node  # noqa: PLC0415 -- after all was moved

    sys.exit(node())


if __name__ == "__main__":
    main()
