# SPDX-License-Identifier: GPL-3.0-or-later
"""The phases of load, and what they measured.

Clients only submit. One watcher per validator looks for new blocks and then reads the next nonce of
each account that is served there: exact to the transaction, and far cheaper than to ask for each.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any, Callable, Coroutine, Mapping, Sequence

from chain import Payer, accounts_request
from connection import BenchError, Connection
from machine import Cost, Meter

DRAIN_S = 30.0


@dataclass(frozen=True)
class Phase:
    """What happened in `seconds`, counted by the clients.

    `latencies_ms` (ascending) also has the operations that ended after the phase, the last of them
    `settled` seconds after its start. `timeline` has operations per second of the phase.
    `poll_ms` are the times between two looks at the same server (empty if it answers by itself).
    """

    name: str
    seconds: float
    operations: int
    latencies_ms: Sequence[float]
    settled: float
    timeline: Sequence[int]
    poll_ms: Sequence[float]
    cost: Cost

    @property
    def rate(self) -> float:
        return self.operations / self.seconds


@dataclass
class _Span:
    """When counting begins and ends; clients that have nothing left to send end it early."""

    start: float
    end: float

    def over(self) -> bool:
        return asyncio.get_running_loop().time() >= self.end


async def saturate(
    name: str,
    payers: Sequence[Payer],
    pids: Mapping[str, int],
    *,
    seconds: float,
    ramp_s: float,
    window: int,
    poll_s: float,
) -> Phase:
    """Each client keeps up to `window` transactions in flight.

    That first fills the mempools, for `ramp_s` seconds, and then counts for `seconds`.
    """

    async def drive(payer: Payer, span: _Span) -> None:
        clock = asyncio.get_running_loop().time
        while not span.over():
            if not payer.ready:
                span.end = min(span.end, clock())
            elif payer.submitted - payer.seen + len(payer.ready[0]) <= window:
                await payer.submit(clock())
            else:
                payer.progress.clear()
                await payer.progress.wait()

    return await _phase(name, drive, payers, pids, seconds=seconds, ramp_s=ramp_s, poll_s=poll_s)


async def pace(
    name: str,
    payers: Sequence[Payer],
    pids: Mapping[str, int],
    *,
    seconds: float,
    rate: float,
    poll_s: float,
) -> Phase:
    """All clients together submit `rate` transactions a second, evenly, whatever comes back.

    Latency counts from the moment a batch is due: a client that is held up does not hide it.
    """

    async def drive(payer: Payer, span: _Span) -> None:
        clock = asyncio.get_running_loop().time
        period = len(payer.ready[0]) * len(payers) / rate
        due = span.start + period * payers.index(payer) / len(payers)
        while due < span.end and payer.ready:
            await asyncio.sleep(due - clock())
            await payer.submit(due)
            due += period

    return await _phase(name, drive, payers, pids, seconds=seconds, poll_s=poll_s)


async def _phase(
    name: str,
    drive: Callable[[Payer, _Span], Coroutine[Any, Any, None]],
    payers: Sequence[Payer],
    pids: Mapping[str, int],
    *,
    seconds: float,
    poll_s: float,
    ramp_s: float = 0.0,
) -> Phase:
    """Run `drive` for every client; afterwards wait until all that was submitted is committed."""
    clock = asyncio.get_running_loop().time
    for payer in payers:
        payer.sightings.clear()
    gaps: list[float] = []
    try:
        async with asyncio.timeout(ramp_s + seconds + DRAIN_S), asyncio.TaskGroup() as tasks:
            watchers = [
                tasks.create_task(_watch(url, own, poll_s, gaps))
                for url, own in _by_server(payers).items()
            ]
            span = _Span(clock() + ramp_s, clock() + ramp_s + seconds)
            drives = [tasks.create_task(drive(payer, span)) for payer in payers]
            await asyncio.sleep(ramp_s)
            meter = Meter(pids)
            while not span.over():
                await asyncio.sleep(0.05)
            cost, looks = meter.read(), len(gaps)
            await asyncio.gather(*drives)
            while any(payer.seen < payer.submitted for payer in payers):
                await asyncio.sleep(poll_s)
            for watcher in watchers:
                watcher.cancel()
    except TimeoutError:
        missing = sum(payer.submitted - payer.seen for payer in payers)
        fault = f"{missing} transactions not committed {DRAIN_S:g} s after the phase {name}"
        raise BenchError(f"{fault}; see the logs") from None
    sightings = [sighting for payer in payers for sighting in payer.sightings]
    poll_ms = [1000 * gap for gap in gaps[:looks]]
    return summarise(name, sightings, cost, start=span.start, end=span.end, poll_ms=poll_ms)


def summarise(
    name: str,
    sightings: Sequence[tuple[float, int, float]],
    cost: Cost,
    *,
    start: float,
    end: float,
    poll_ms: Sequence[float] = (),
) -> Phase:
    """Put (when, how many, latency in seconds) into a phase from `start` to `end`.

    Operations count while it lasts; latencies also of those that end later.
    """
    timeline = [0] * max(1, round(end - start))
    operations = 0
    latencies: list[float] = []
    for when, count, latency in sightings:
        if when < start:
            continue
        latencies += [latency * 1000] * count
        if when <= end:
            operations += count
            timeline[min(int(when - start), len(timeline) - 1)] += count
    settled = max((when for when, _, _ in sightings), default=end) - start
    latencies.sort()
    return Phase(name, end - start, operations, latencies, settled, timeline, poll_ms, cost)


def _by_server(payers: Sequence[Payer]) -> dict[str, list[Payer]]:
    servers: dict[str, list[Payer]] = {}
    for payer in payers:
        servers.setdefault(payer.connection.url, []).append(payer)
    return servers


async def _watch(url: str, payers: Sequence[Payer], poll_s: float, gaps: list[float]) -> None:
    """Tell clients of a server what is committed; adds the times between two looks, in seconds."""
    connection = Connection(url)
    clock = asyncio.get_running_loop().time
    accounts = accounts_request(connection, [payer.address for payer in payers])
    height, looked = 0, clock()
    try:
        while True:
            look = connection.render("GET", f"/v1/blocks?from={height + 1}&limit=1")
            found = (await connection.fetch(look))["height"]
            if found > height:
                height = found
                for payer, answer in zip(payers, await connection.fetch(accounts)):
                    payer.observe(answer["result"]["nonce"], clock())
            now = clock()
            gaps.append(now - looked)
            looked = now
            await asyncio.sleep(poll_s)
    finally:
        connection.close()
