# SPDX-License-Identifier: GPL-3.0-or-later
"""`holdfast-node`, whose clock is off: ``python edge.py MILLISECONDS run --config ...``.

What Python's `time.time` and `time.time_ns` answer is moved before the node is imported: the
times of blocks, and what it takes for expired. Its timers (monotonic) and OpenSSL are as they were.
"""

from __future__ import annotations

import sys
import time


def main() -> None:
    offset_ms = int(sys.argv.pop(1))
    real = time.time_ns
    time.time_ns = lambda: real() + offset_ms * 1_000_000
    time.time = lambda: time.time_ns() / 1e9
    from holdfast_node.cli import main as node  # noqa: PLC0415 -- after the clock was moved

    sys.exit(node())


if __name__ == "__main__":
    main()
