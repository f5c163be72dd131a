# SPDX-License-Identifier: GPL-3.0-or-later
"""Throughput and latency of four validators on this machine, with etcd beside them.

    .venv/bin/python bench/network/run.py

See README.md beside this file for what is measured, and how.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, AsyncIterator, Callable, Iterator, Mapping, Sequence

import chain
import chart
import etcd
import load
import machine
import profile_node
import report
import uvloop
from connection import BenchError
from holdfast_node import __version__
from holdfast_node.devnet import Devnet
from holdfast_node.errors import HoldfastError

RESULTS = Path(__file__).parent / "results"
DATA = Path("/var/tmp")  # noqa: S108 -- on a disk, as /tmp may not be; a new folder in it is used
INSTALL = (
    "no etcd: apt-get install --no-install-recommends etcd-server (Debian starts it as a service: "
    "systemctl disable --now etcd), or name the program with --etcd"
)
SAMPLE_S = 0.5
SATURATED_POLL_S = 0.1
RAMP_S = 3.0
HEADROOM = 2.0  # of transfers signed ahead, over what the rate of the warm-up would need

Memory = dict[str, list[tuple[float, int]]]


@dataclass(frozen=True)
class _Chain:
    """What the part with the validators gives to the result."""

    transaction_bytes: int
    verifies_per_core: float
    ceiling: float
    saturation: load.Phase
    half_rate: load.Phase
    offered: float
    blocks: list[dict[str, int]]
    view_changes: int
    memory: Memory


def say(text: str) -> None:
    print(text, flush=True)


def main() -> int:
    options = _parser().parse_args()
    if options.window < options.batch:
        _parser().error(f"--window {options.window}: expected at least --batch, {options.batch}")
    if not os.access(options.dir, os.W_OK | os.X_OK):
        _parser().error(f"--dir {options.dir}: expected a folder to write to, on a real disk")
    try:
        uvloop.run(_run(options))
    except BaseException as error:  # task groups wrap what ends them
        causes = list(_leaves(error))
        if any(isinstance(cause, (KeyboardInterrupt, asyncio.CancelledError)) for cause in causes):
            say("stopped")
            return 130
        if not all(isinstance(cause, (BenchError, HoldfastError)) for cause in causes):
            raise
        for cause in causes:
            print(f"error: {cause}", file=sys.stderr)
        return 1
    return 0


def _leaves(error: BaseException) -> Iterator[BaseException]:
    for inner in getattr(error, "exceptions", ()):
        yield from _leaves(inner)
    if not hasattr(error, "exceptions"):
        yield error


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    whole, number = _at_least(int, 1), _at_least(float, 1.0)
    parser.add_argument("--seconds", type=number, default=20.0, help="of each phase (20)")
    parser.add_argument("--clients", type=whole, default=16, help="at once, on each system (16)")
    parser.add_argument("--batch", type=whole, default=50, help="transfers in a submission (50)")
    parser.add_argument(
        "--window", type=whole, default=400, help="transfers in flight per client, saturated (400)"
    )
    parser.add_argument(
        "--poll-ms", type=whole, default=20, help="pause between two looks for commits (20)"
    )
    parser.add_argument("--base-port", type=whole, default=27600, help="first of 50 ports (27600)")
    parser.add_argument("--etcd", default="etcd", help="the etcd server (etcd, on PATH)")
    parser.add_argument("--dir", type=Path, default=DATA, help=f"for all data ({DATA})")
    parser.add_argument(
        "--profile", action="store_true", help="sample the leader with py-spy while saturated"
    )
    return parser


def _at_least(kind: Callable[[str], float], least: float) -> Callable[[str], float]:
    def read(text: str) -> float:
        value = kind(text)
        if not value >= least:
            raise argparse.ArgumentTypeError(f"{text}: expected at least {least}")
        return value

    read.__name__ = kind.__name__  # argparse names it when the text is no number
    return read


async def _run(options: argparse.Namespace) -> None:
    # As Ctrl-C: every process that was started is ended on the way out.
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    RESULTS.mkdir(exist_ok=True)
    stem = RESULTS / time.strftime("%Y%m%d-%H%M%S")
    started = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
    with tempfile.TemporaryDirectory(prefix="holdfast-bench-", dir=options.dir) as name:
        folder = Path(name)
        described = machine.describe(folder)
        ours = await _measure_chain(options, folder / "chain", stem)
        program = etcd.find(options.etcd)
        theirs = program and await _measure_etcd(options, program, folder, ours.transaction_bytes)
    result = report.Result(
        started=started,
        commit=_commit(),
        version=__version__,
        machine=described,
        options={key: str(v) if isinstance(v, Path) else v for key, v in vars(options).items()},
        **vars(ours),
        etcd=theirs or None,
        why_no_etcd=None if theirs else INSTALL,
    )
    stem.with_suffix(".json").write_text(json.dumps(report.as_json(result), indent=1) + "\n")
    stem.with_suffix(".svg").write_text(chart.draw(result))
    say(f"\n{report.table(result)}\n\n{stem}.json\n{stem}.svg")


def _commit() -> str:
    """The short hash of the checkout, with a mark if files differ from it."""
    said = subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        cwd=RESULTS,
        capture_output=True,
        text=True,
        check=False,
    )
    return said.stdout.strip() or "no commit"


async def _measure_chain(options: argparse.Namespace, folder: Path, stem: Path) -> _Chain:
    with chain.running(folder, options.base_port) as devnet:
        await asyncio.to_thread(devnet.wait_until_ready)
        say(f"--> {chain.VALIDATORS} validators run; funding {options.clients} clients")
        pids = {
            member.name: machine.find_process(str(member.config))
            for member in devnet.layout.members
        }
        payers = await asyncio.to_thread(chain.fund, devnet.layout, options.clients)
        async with _sampling(pids, devnet) as memory:
            found = await _phases(options, devnet, pids, payers, stem)
        return _Chain(memory=memory, **found)


async def _phases(
    options: argparse.Namespace,
    devnet: Devnet,
    pids: Mapping[str, int],
    payers: Sequence[chain.Payer],
    stem: Path,
) -> dict[str, Any]:
    """All fields of `_Chain` but the memory."""
    clients, batch, to = options.clients, options.batch, chain.payees()
    url = devnet.layout.members[0].url
    size = await asyncio.to_thread(chain.sign, payers, to, 1, batch)
    verifies = await asyncio.to_thread(machine.verify_rate, size)
    ceiling = verifies * machine.cores() / chain.VALIDATORS
    say(f"--> warm-up ({verifies:.0f} signature checks/s on one core)")

    async def saturate(name: str, seconds: float, ramp_s: float, rate: float) -> load.Phase:
        each = round(rate * (ramp_s + seconds) / clients) + options.window
        await asyncio.to_thread(chain.sign, payers, to, each, batch)
        return await load.saturate(
            name,
            payers,
            pids,
            seconds=seconds,
            ramp_s=ramp_s,
            window=options.window,
            poll_s=SATURATED_POLL_S,
        )

    warm_up = await saturate("warm-up", RAMP_S, 0.0, ceiling)
    estimate = len(warm_up.latencies_ms) / warm_up.settled
    say(f"--> saturation, {options.seconds:g} s (warm-up: {estimate:.0f} tx/s)")
    before = await asyncio.to_thread(devnet.heights)
    profiler = options.profile and await _profile(devnet, pids, RAMP_S + options.seconds, stem)
    saturation = await saturate("saturation", options.seconds, RAMP_S, HEADROOM * estimate)
    if profiler:
        await asyncio.to_thread(profiler.wait)
        say(profile_node.summary(stem.with_suffix(".profile")))

    rate = saturation.rate / 2
    say(f"--> half that rate, {options.seconds:g} s ({saturation.rate:.0f} tx/s committed)")
    await asyncio.to_thread(
        chain.sign, payers, to, round(rate * options.seconds / clients) + batch, batch
    )
    half = await load.pace(
        "half rate",
        payers,
        pids,
        seconds=options.seconds,
        rate=rate,
        poll_s=options.poll_ms / 1000,
    )
    height = await chain.audit(devnet, to, sum(payer.seen for payer in payers))
    say(f"--> all validators agree on block {height}, and every transfer arrived")
    first = min(own for own in before.values() if own is not None)
    blocks = await chain.blocks_since(url, first)
    return {
        "transaction_bytes": size,
        "verifies_per_core": verifies,
        "ceiling": ceiling,
        "saturation": saturation,
        "half_rate": half,
        "offered": rate,
        "blocks": blocks,
        "view_changes": blocks[-1]["view"] - blocks[0]["view"],
    }


async def _profile(
    devnet: Devnet, pids: Mapping[str, int], seconds: float, stem: Path
) -> subprocess.Popen[bytes] | None:
    program = profile_node.find()
    if program is None:
        say("    profile: not run: no py-spy on PATH (pip install py-spy)")
        return None
    client = chain.NodeClient(devnet.layout.members[0].url)
    leader = (await asyncio.to_thread(client.status))["leader"]
    say(f"    sampling the leader {leader}, which costs it some speed")
    output = stem.with_suffix(".profile")
    return profile_node.start(program, pids[leader], seconds, output)


async def _measure_etcd(
    options: argparse.Namespace, program: str, folder: Path, value_bytes: int
) -> report.Etcd:
    version = await asyncio.to_thread(etcd.version, program)
    say(f"--> etcd {version}, {options.seconds:g} s")
    (folder / "etcd").mkdir()
    with etcd.running(program, folder / "etcd", options.base_port + 40) as members:
        await etcd.wait_until_ready(members)
        pids = {member.name: member.process.pid for member in members}
        async with _sampling(pids) as memory:
            for name, seconds in (("warm-up", 2.0), ("puts", options.seconds)):
                puts = await etcd.put(
                    name,
                    members,
                    pids,
                    clients=options.clients,
                    seconds=seconds,
                    value_bytes=value_bytes,
                )
    return report.Etcd(version, puts, memory)


@asynccontextmanager
async def _sampling(pids: Mapping[str, int], devnet: Devnet | None = None) -> AsyncIterator[Memory]:
    """Resident memory of the processes until the context ends; fails if a validator ends."""
    memory: Memory = {name: [] for name in pids}
    start = time.monotonic()

    async def sample() -> None:
        while True:
            if devnet is not None:
                devnet.pause(0)
            for name, pid in pids.items():
                memory[name].append((time.monotonic() - start, machine.resident_bytes(pid)))
            await asyncio.sleep(SAMPLE_S)

    async with asyncio.TaskGroup() as tasks:
        sampler = tasks.create_task(sample())
        yield memory
        sampler.cancel()


if __name__ == "__main__":
    sys.exit(main())
