# SPDX-License-Identifier: GPL-3.0-or-later
"""Does a validator's memory grow with the time that it works? An hour of load in virtual time.

    .venv/bin/python bench/node/hour.py

See README.md beside this file for what is measured, and how.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import selectors
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable

import anyio
from anyio.abc import TaskGroup
from holdfast_node.chain.codec import decode, encode
from holdfast_node.chain.crypto import PrivateKey, account_of, format_address
from holdfast_node.chain.genesis import Genesis, GenesisValidator
from holdfast_node.chain.transaction import Put, Transfer, sign_transaction
from holdfast_node.config import Consensus
from holdfast_node.consensus import Message, Replica, Timeouts
from holdfast_node.driver import Driver
from holdfast_node.evidence_log import EvidenceLog
from holdfast_node.ledger.ledger import Ledger
from holdfast_node.mempool import Mempool
from holdfast_node.observe.logs import configure_logs
from holdfast_node.observe.metrics import Metrics
from holdfast_node.storage.sqlite import SqliteStore
from holdfast_node.vote_log import VoteLog

CHAIN_ID = "hour"
START_MS = 1_700_000_000_000
KEYS = [PrivateKey(bytes([100 + i]) * 32) for i in range(4)]
CLIENTS = [PrivateKey(bytes([1 + i]) * 32) for i in range(10)]
NAMES_PER_CLIENT = 50  # keys that a client writes, again and again: the state does not grow
DELAY_S = 0.002
CHECKPOINT_S = 5.0  # of SQLite's log, as the node does
SAMPLES = 12
VALIDITY_MS = 600_000
GENESIS = Genesis(
    chain_id=CHAIN_ID,
    time_ms=START_MS,
    validators=[GenesisValidator(f"v{i + 1}", k.public_key.hex()) for i, k in enumerate(KEYS)],
    accounts={format_address(account_of(key.public_key)): 10**9 for key in CLIENTS},
)


class VirtualClock(selectors.SelectSelector):
    """Where the event loop would wait for time to pass, time passes."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list[Any]:
        ready = super().select(0)
        if not ready:
            assert timeout is not None, "nothing will ever happen"
            self.now += timeout
        return ready


class Validator:
    """A node's driver, replica, ledger, mempool, vote journal: no TLS, no API, no threads.

    What it says arrives at the others after `DELAY_S`, in order.
    """

    def __init__(
        self,
        folder: Path,
        index: int,
        world: list[Validator],
        clock: VirtualClock,
        *,
        pace_ms: int,
        cache_kib: int,
    ) -> None:
        folder.mkdir()
        self.folder = folder
        self.world = world
        self.ledger = Ledger(
            SqliteStore(folder / "chain.db"), GENESIS, lambda: START_MS + int(clock.now * 1000)
        )
        for connection in self.ledger.store._connections:
            connection.execute(f"PRAGMA cache_size=-{cache_kib}")
            connection.execute("PRAGMA synchronous=OFF")
        self.votes = VoteLog(folder)
        self.evidence = EvidenceLog(folder / "evidence.journal")
        self.mempool = Mempool(64 * 2**20, 50_000, 1_000, lambda: clock.now)
        key = KEYS[index]
        replica = Replica(
            chain_id=CHAIN_ID,
            validators_at=self.ledger.validators_at,
            public_key=key.public_key,
            sign=key.sign,
            check_proposal=self.ledger.process_proposal,
            timeouts=Timeouts(),
            height=1,
            view=0,
            records=[],
        )
        self.driver = Driver(
            ledger=self.ledger,
            mempool=self.mempool,
            replica=replica,
            votes=self.votes,
            settings=Consensus(block_interval_ms=pace_ms, empty_block_interval_ms=5_000),
            outside=self,
            metrics=Metrics(version="0", chain_id=CHAIN_ID, name=f"v{index + 1}", role="validator"),
            clock=lambda: clock.now,
            evidence=self.evidence,
        )
        self._lines = {
            other: anyio.create_memory_object_stream[bytes](1_000)
            for other in range(len(KEYS))
            if other != index
        }
        self._index = index

    # driver.Outside

    def send(self, message: Message) -> None:
        data = encode(message)
        for other in self.world:
            if other is not self:
                other._lines[self._index][0].send_nowait(data)

    def announce(self) -> None: ...

    def stalled(self) -> None: ...

    def in_step(self) -> bool:
        return True

    newest = in_step

    async def run(self, tasks: TaskGroup) -> None:
        for _, line in self._lines.values():
            tasks.start_soon(self._listen, line)
        tasks.start_soon(self._checkpoint)
        await self.driver.run()

    async def _listen(self, line: Any) -> None:
        async for data in line:
            await anyio.sleep(DELAY_S)
            await self.driver.receive(decode(data, Message))

    async def _checkpoint(self) -> None:
        while True:
            await anyio.sleep(CHECKPOINT_S)
            self.ledger.store.checkpoint()

    def take(self, raw: bytes) -> None:
        checked = self.ledger.check_transaction(raw)
        self.mempool.add(checked, self.ledger.next_nonce(checked.account))
        self.driver.wake()

    def close(self) -> None:
        self.driver.close()
        self.evidence.close()
        self.votes.close()
        self.ledger.store.close()


@dataclass(frozen=True)
class Sample:
    """At a moment of virtual time; sizes in MiB, of all four validators together."""

    minutes: float
    blocks: int
    transactions: int
    resident: float
    objects: float  # thousands of Python's blocks of memory
    disk: float


def resident_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


async def load(world: list[Validator], clock: VirtualClock, rate: int) -> None:
    """So many transactions a second: half of them transfers, half writes."""
    sent = 0
    while True:
        await anyio.sleep(1.0)
        for _ in range(rate):
            client, nonce = sent % len(CLIENTS), sent // len(CLIENTS)
            name = f"name {nonce % NAMES_PER_CLIENT}"
            to = account_of(CLIENTS[client - 1].public_key)
            raw = sign_transaction(
                CLIENTS[client],
                chain_id=CHAIN_ID,
                nonce=nonce,
                expires_at_ms=START_MS + int(clock.now * 1000) + VALIDITY_MS,
                actions=[Put(name, b"%064d" % nonce) if nonce % 2 else Transfer(to, 1)],
            )
            for validator in world:
                validator.take(raw)
            sent += 1


async def hour(
    world: list[Validator], clock: VirtualClock, seconds: int, rate: int
) -> list[Sample]:
    samples = []
    async with anyio.create_task_group() as tasks:
        for validator in world:
            tasks.start_soon(validator.run, tasks)
        tasks.start_soon(load, world, clock, rate)
        for number in range(1, SAMPLES + 1):
            await anyio.sleep(seconds * number / SAMPLES - clock.now)
            ledger = world[0].ledger
            files = [path for v in world for path in v.folder.iterdir()]
            samples.append(
                Sample(
                    clock.now / 60,
                    ledger.height,
                    sum(ledger.next_nonce(account_of(key.public_key)) for key in CLIENTS),
                    resident_mib(),
                    sys.getallocatedblocks() / 1000,
                    sum(path.stat().st_size for path in files) / 2**20,
                )
            )
            print(f"  minute {clock.now / 60:.0f}", file=sys.stderr, flush=True)
        tasks.cancel_scope.cancel()
    heights = [validator.ledger.height for validator in world]
    if max(heights) - min(heights) > 1:
        raise SystemExit(f"they are not in step: {heights}")
    return samples


def table(samples: list[Sample], cpu_s: float) -> str:
    lines = ["minute  blocks  transactions  resident  Python's blocks      disk"]
    lines += [
        f"{s.minutes:6.0f}  {s.blocks:6}  {s.transactions:12}  {s.resident:4.0f} MiB  "
        f"{s.objects:11.0f} 000  {s.disk:4.0f} MiB"
        for s in samples
    ]
    middle, last = samples[len(samples) // 2 - 1], samples[-1]
    lines.append(
        f"second half: resident {last.resident - middle.resident:+.1f} MiB, Python's blocks "
        f"{last.objects - middle.objects:+.1f} thousand, for four validators; {cpu_s:.0f} s of CPU"
    )
    return "\n".join(lines)


async def _inline(function: Callable[..., Any], *arguments: Any, **_options: Any) -> Any:
    """In place of a worker thread: virtual time does not pass while something is computed."""
    await anyio.lowlevel.checkpoint()
    return function(*arguments)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=int, default=3600, help="of virtual time (3600)")
    parser.add_argument("--rate", type=int, default=10, help="transactions a second (10)")
    parser.add_argument("--interval-ms", type=int, default=2000, help="of blocks (2000)")
    parser.add_argument(
        "--cache-kib", type=int, default=2048, help="of each SQLite connection (2048)"
    )
    parser.add_argument("--dir", type=Path, default=Path("/var/tmp"), help="for data (/var/tmp)")  # noqa: S108 -- a new folder in it
    options = parser.parse_args()
    anyio.to_thread.run_sync = _inline
    os.fdatasync = lambda _descriptor: None  # disks take no time
    configure_logs("error", "json")
    gc.freeze()
    gc.set_threshold(10_000, 20, 50)  # as `holdfast-node run` does
    clock = VirtualClock()
    loop = asyncio.SelectorEventLoop(clock)
    loop.time = lambda: clock.now  # type: ignore[method-assign]
    with tempfile.TemporaryDirectory(prefix="holdfast-hour-", dir=options.dir) as folder:
        world: list[Validator] = []
        world.extend(
            Validator(
                Path(folder) / f"v{i + 1}",
                i,
                world,
                clock,
                pace_ms=options.interval_ms,
                cache_kib=options.cache_kib,
            )
            for i in range(len(KEYS))
        )
        began = time.process_time()
        try:
            samples = loop.run_until_complete(hour(world, clock, options.seconds, options.rate))
        finally:
            for validator in world:
                validator.close()
    print(table(samples, time.process_time() - began))


if __name__ == "__main__":
    main()
