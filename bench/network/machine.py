# SPDX-License-Identifier: GPL-3.0-or-later
"""What this machine is and does: cores, disk, signature checks; CPU and memory of processes."""

from __future__ import annotations

import os
import platform
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Mapping

from holdfast_node.chain.crypto import PrivateKey, verify

_TICKS = os.sysconf("SC_CLK_TCK")
_FSYNCS = 50
_BUSY = slice(1, 4), slice(6, 9)  # of /proc/stat: user, nice, system; irq, softirq, steal


def cores() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0))


def describe(folder: Path) -> dict[str, object]:
    """The machine, and the disk below `folder`."""
    cpus = _field(Path("/proc/cpuinfo").read_text(), "model name", "unknown processor")
    memory = _field(Path("/proc/meminfo").read_text(), "MemTotal", "0 kB")
    return {
        "processor": cpus,
        "cores": cores(),
        "memory_bytes": int(memory.split()[0]) * 1024,
        "kernel": platform.release(),
        "python": platform.python_version(),
        "file_system": _file_system(folder),
        "fsync_ms": fsync_ms(folder),
    }


def _field(text: str, name: str, default: str) -> str:
    for line in text.splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return default


def _file_system(folder: Path) -> str:
    """The type of the file system that holds `folder`."""
    mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    holding = [m for m in mounts if folder.resolve().is_relative_to(m[1])]
    return max(holding, key=lambda mount: len(mount[1]))[2] if holding else "unknown"


def fsync_ms(folder: Path) -> float:
    """Median time to append 4 KiB to a file in `folder` and have it on disk."""
    path, times = folder / "fsync", []
    with path.open("wb", buffering=0) as file:
        for _ in range(_FSYNCS):
            start = time.perf_counter()
            file.write(bytes(4096))
            os.fsync(file.fileno())
            times.append((time.perf_counter() - start) * 1000)
    path.unlink()
    return median(times)


def verify_rate(message_bytes: int, seconds: float = 1.0) -> float:
    """Signatures that the node's own function checks in a second of one core.

    By CPU time, so that what else runs here matters little.
    """
    key = PrivateKey(os.urandom(32))
    message = os.urandom(message_bytes)
    signature = key.sign(message)
    count, start = 0, time.thread_time()
    while (spent := time.thread_time() - start) < seconds:
        for _ in range(100):
            assert verify(key.public_key, message, signature)
        count += 100
    return count / spent


def find_process(argument: str) -> int:
    """The process id of this program's own child that has `argument` on its command line."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            arguments = (folder / "cmdline").read_bytes().split(b"\0")
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
        except (FileNotFoundError, ProcessLookupError):
            continue  # ended while we looked
        if parent == os.getpid() and argument.encode() in arguments:
            return int(folder.name)
    raise ProcessLookupError(f"no child process has {argument} on its command line")


def resident_bytes(pid: int) -> int:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def _cpu_s(pid: int) -> float:
    """CPU time of a process with all its threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def _machine_cpu_s() -> float:
    """CPU time of everything on this machine."""
    fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()
    return sum(int(ticks) for part in _BUSY for ticks in fields[part]) / _TICKS


@dataclass(frozen=True)
class Cost:
    """Mean numbers of cores in use during `seconds`. `others` is whatever is not ours."""

    seconds: float
    load_average: tuple[float, float, float]
    client_cores: float
    server_cores: Mapping[str, float]
    others_cores: float


class Meter:
    """Measures from its making until `read`; `pids` by name are the servers under test."""

    def __init__(self, pids: Mapping[str, int]) -> None:
        self._pids = pids
        self._load = os.getloadavg()
        self._start = self._now()

    def _now(self) -> tuple[float, float, float, dict[str, float]]:
        servers = {name: _cpu_s(pid) for name, pid in self._pids.items()}
        return time.perf_counter(), _machine_cpu_s(), time.process_time(), servers

    def read(self) -> Cost:
        (t0, machine0, client0, servers0), (t1, machine1, client1, servers1) = (
            self._start,
            self._now(),
        )
        seconds = t1 - t0
        servers = {name: (servers1[name] - servers0[name]) / seconds for name in self._pids}
        client = (client1 - client0) / seconds
        others = (machine1 - machine0) / seconds - client - sum(servers.values())
        return Cost(seconds, self._load, client, servers, max(0.0, others))
