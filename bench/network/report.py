# SPDX-License-Identifier: GPL-3.0-or-later
"""Results as a table for people and as JSON for programs."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import mean
from typing import Any, Mapping, Sequence

from load import Phase

PERCENTILES = (50, 90, 99, 99.9)


@dataclass(frozen=True)
class Etcd:
    version: str
    puts: Phase
    memory: Mapping[str, Sequence[tuple[float, int]]]


@dataclass(frozen=True)
class Result:
    """A whole run. `memory` has (seconds since the start, resident bytes) of each server.

    `ceiling` is how many transfers a second this machine's cores could check for all validators if
    they did nothing else. `etcd` is None if it was not run, `why_no_etcd` then says why.
    """

    started: str
    commit: str
    version: str
    machine: Mapping[str, Any]
    options: Mapping[str, Any]
    transaction_bytes: int
    verifies_per_core: float
    ceiling: float
    saturation: Phase
    half_rate: Phase
    offered: float
    blocks: Sequence[Mapping[str, int]]
    view_changes: int
    memory: Mapping[str, Sequence[tuple[float, int]]]
    etcd: Etcd | None
    why_no_etcd: str | None


def percentile(ascending: Sequence[float], percent: float) -> float:
    """By the nearest rank; NaN of nothing."""
    if not ascending:
        return float("nan")
    return ascending[min(len(ascending) - 1, int(len(ascending) * percent / 100))]


def _both(phase: Phase) -> str:
    return f"{percentile(phase.latencies_ms, 50):.0f} / {percentile(phase.latencies_ms, 99):.0f} ms"


def _peak(memory: Mapping[str, Sequence[tuple[float, int]]]) -> str:
    peak = max(size for samples in memory.values() for _, size in samples)
    return f"{peak / 2**20:.0f} MiB"


def _cost(phase: Phase) -> tuple[str, str, str]:
    """CPU of the servers, the load generator and everybody else: cores and time per operation."""
    servers = sum(phase.cost.server_cores.values())
    return (
        f"{servers:.2f} cores, {_per_operation(servers, phase)}",
        f"{phase.cost.client_cores:.2f} cores, {_per_operation(phase.cost.client_cores, phase)}",
        f"{phase.cost.others_cores:.2f} cores",
    )


def _per_operation(used: float, phase: Phase) -> str:
    if not phase.operations:
        return "-"
    return f"{used * phase.cost.seconds / phase.operations * 1e6:.0f} us each"


def table(result: Result) -> str:
    """What the terminal and the README show."""
    full, half, etcd = result.saturation, result.half_rate, result.etcd
    puts = etcd.puts if etcd else None
    absent = "not run"
    rows: list[tuple[str, str, str]] = [
        ("", "holdfast", f"etcd {etcd.version}" if etcd else "etcd"),
        ("servers", f"{len(result.memory)} validators",
         f"{len(etcd.memory)} members" if etcd else absent),
        ("clients", f"{result.options['clients']}, batches of {result.options['batch']}",
         f"{result.options['clients']}, single puts" if etcd else absent),
        (f"SATURATION, {full.seconds:.0f} S", "", ""),
        ("committed", f"{full.rate:.0f} tx/s", f"{puts.rate:.0f} put/s" if puts else absent),
        ("latency p50 / p99", _both(full), _both(puts) if puts else absent),
        ("servers' CPU", _cost(full)[0], _cost(puts)[0] if puts else absent),
        ("load generator's CPU", _cost(full)[1], _cost(puts)[1] if puts else absent),
        ("everybody else's CPU", _cost(full)[2], _cost(puts)[2] if puts else absent),
        ("load average before", _load(full), _load(puts) if puts else absent),
        (f"HALF THAT RATE, {half.seconds:.0f} S", "", ""),
        ("offered", f"{result.offered:.0f} tx/s", ""),
        ("committed", f"{half.rate:.0f} tx/s", ""),
        ("latency p50 / p99", _both(half), ""),
        ("its resolution p50 / p99", _resolution(half), ""),
        ("servers' CPU", _cost(half)[0], ""),
        ("load generator's CPU", _cost(half)[1], ""),
        ("everybody else's CPU", _cost(half)[2], ""),
        ("load average before", _load(half), ""),
        ("BOTH PHASES", "", ""),
        ("largest resident memory", _peak(result.memory), _peak(etcd.memory) if etcd else absent),
        ("blocks, mean transactions", _blocks(result.blocks), ""),
        ("view changes", str(result.view_changes), ""),
    ]  # fmt: skip
    widths = [max(len(row[i]) for row in rows) for i in range(3)]
    lines = [_machine(result), ""]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths))
        lines.append(("" if row[0].isupper() else "  ") + "  ".join(cells).rstrip())
    return "\n".join([*lines, "", *_ratios(result)])


def _machine(result: Result) -> str:
    machine = result.machine
    return (
        f"Holdfast {result.version} ({result.commit}), {result.started}\n"
        f"{machine['processor']}, {machine['cores']} cores, "
        f"{machine['memory_bytes'] / 2**30:.0f} GiB, Linux {machine['kernel']}, "
        f"Python {machine['python']}; {machine['file_system']}, fsync {machine['fsync_ms']:.2f} ms"
    )


def _load(phase: Phase) -> str:
    return " ".join(f"{load:.1f}" for load in phase.cost.load_average)


def _resolution(phase: Phase) -> str:
    polls = sorted(phase.poll_ms)
    return f"{percentile(polls, 50):.0f} / {percentile(polls, 99):.0f} ms"


def _blocks(blocks: Sequence[Mapping[str, int]]) -> str:
    full = [block["transactions"] for block in blocks if block["transactions"]]
    return f"{len(full)}, {mean(full):.0f}" if full else "none"


def _ratios(result: Result) -> list[str]:
    rate = result.saturation.rate
    lines = [
        f"to the ceiling of signature checks: {rate / result.ceiling:.1%} of "
        f"{result.ceiling:.0f} tx/s ({result.verifies_per_core:.0f} checks/s per core, "
        f"{result.machine['cores']} cores, {len(result.memory)} validators)"
    ]
    if result.etcd:
        lines.append(f"to etcd's single puts: {rate / result.etcd.puts.rate:.2f}")
    else:
        lines.append(f"to etcd's single puts: not run: {result.why_no_etcd}")
    return lines


def as_json(result: Result) -> dict[str, Any]:
    """Everything measured; the latencies as percentiles."""
    etcd = result.etcd
    return {
        **{
            name: getattr(result, name)
            for name in (
                "started", "commit", "version", "machine", "options", "transaction_bytes",
                "verifies_per_core", "ceiling", "offered", "view_changes", "memory",
            )
        },
        "saturation": _phase(result.saturation),
        "half_rate": _phase(result.half_rate),
        "blocks": [
            {key: block[key] for key in ("height", "time_ms", "view", "transactions")}
            for block in result.blocks
        ],
        "etcd": {"not_run": result.why_no_etcd}
        if etcd is None
        else {"version": etcd.version, "puts": _phase(etcd.puts), "memory": etcd.memory},
    }  # fmt: skip


def _phase(phase: Phase) -> dict[str, Any]:
    return {
        "seconds": phase.seconds,
        "operations": phase.operations,
        "rate": phase.rate,
        "latency_ms": {str(p): percentile(phase.latencies_ms, p) for p in PERCENTILES},
        "resolution_ms": {str(p): percentile(sorted(phase.poll_ms), p) for p in PERCENTILES}
        if phase.poll_ms
        else None,
        "timeline": phase.timeline,
        "cpu_cores": {
            "servers": phase.cost.server_cores,
            "load_generator": phase.cost.client_cores,
            "others": phase.cost.others_cores,
        },
        "load_average_before": phase.cost.load_average,
    }
