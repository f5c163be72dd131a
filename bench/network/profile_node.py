# SPDX-License-Identifier: GPL-3.0-or-later
"""Where a node's time goes: py-spy samples it while it is under load."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections import Counter
from pathlib import Path

_SHOWN = 20
_HZ = 100
_IDLE = re.compile(r"(Condition\.)?wait \(threading\.py")  # a worker thread without work


def find() -> str | None:
    return shutil.which("py-spy")


def start(program: str, pid: int, seconds: float, output: Path) -> subprocess.Popen[bytes]:
    """Sample all threads of `pid` that do something, for so many seconds."""
    command = [program, "record", "--pid", str(pid), "--duration", str(round(seconds)), "--threads"]
    command += ["--rate", str(_HZ), "--format", "raw", "--function", "--output", str(output)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def summary(output: Path) -> str:
    """Functions by the share of samples in which they themselves ran, and with what they called.

    The event loop's own share includes its waiting for work; worker threads that wait are left out.
    """
    own: Counter[str] = Counter()
    within: Counter[str] = Counter()
    total = 0
    for line in output.read_text().splitlines():
        stack, _, count = line.rpartition(" ")
        frames = stack.split(";")
        if _IDLE.match(frames[-1]):
            continue
        total += int(count)
        own[frames[-1]] += int(count)
        for frame in set(frames):
            if "holdfast_node/" in frame:
                within[frame] += int(count)
    if not total:
        return "no samples: may this user trace other processes? (root may)"
    parts = [f"    {total} samples of threads at work"]
    for title, counter in (("itself", own), ("with callees", within)):
        parts += ["", f"     share  {title}"]
        parts += [f"    {n / total:6.1%}  {name}" for name, n in counter.most_common(_SHOWN)]
    return "\n".join(parts)
