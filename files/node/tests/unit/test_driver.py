# SPDX-License-Identifier: Apache-2.0
"""Four drivers with real ledgers and journals on disk, linked in memory."""

import time
from collections.abc import Callable
from pathlib import Path

import anyio
import pytest
from ledger_samples import (
    ACCOUNTS,
    ALICE,
    CHAIN_ID,
    GENESIS,
    START_MS,
    VALIDATORS,
    Clock,
    certify,
    open_ledger,
    propose,
    transaction,
)

from holdfast_node.chain.codec import decode
from holdfast_node.config import Consensus
from holdfast_node.consensus import Message, Record, Replica, Timeouts
from holdfast_node.driver import Driver
from holdfast_node.errors import RefusedError, StorageError
from holdfast_node.mempool import Mempool
from holdfast_node.observe.metrics import Metrics
from holdfast_node.storage.journal import Journal

SETTINGS = Consensus(block_interval_ms=10, empty_block_interval_ms=200)
DEADLINE = 20


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Node:
    """A driver and what it thinks is outside: the other drivers."""

    def __init__(self, folder: Path, index: int, world: "list[Node]") -> None:
        folder.mkdir(exist_ok=True)
        self.index = index
        self.world = world
        self.up = True
        self.clock = Clock()
        self.clock.now = START_MS + 1000
        self.ledger = open_ledger(folder, clock=self.clock)
        self.journal = Journal(folder / "votes.journal")
        self.mempool = Mempool(1 << 20, 1000, 100, time.monotonic)
        self.sent: list[Message] = []
        self.announced = 0
        replica = Replica(
            chain_id=CHAIN_ID,
            validators=GENESIS.validator_set,
            index=index,
            sign=VALIDATORS[index].sign,
            check_proposal=self.ledger.process_proposal,
            timeouts=Timeouts(view=0.4, view_max=2.0, resend=0.1),
            height=self.ledger.height + 1,
            view=self.ledger.next_view,
            records=[decode(record, Record) for record in self.journal.replay()],
        )
        self.driver = Driver(
            ledger=self.ledger,
            mempool=self.mempool,
            replica=replica,
            journal=self.journal,
            settings=SETTINGS,
            outside=self,
            metrics=Metrics(version="0", chain_id=CHAIN_ID, name=f"v{index}", role="validator"),
            clock=time.monotonic,
        )

    def send(self, message: Message) -> None:
        self.sent.append(message)
        for node in self.world:
            if node is not self and node.up and self.up:
                node.driver._inbox.send_nowait(message)

    def announce(self) -> None:
        self.announced += 1

    def in_step(self) -> bool:
        return self.up

    def stalled(self) -> None: ...

    def offer(self, raw: bytes) -> None:
        checked = self.ledger.check_transaction(raw)
        self.mempool.add(checked, self.ledger.next_nonce(checked.account))
        self.driver.wake()

    def close(self) -> None:
        self.driver.close()
        self.journal.close()
        self.ledger.store.close()


@pytest.fixture
def network(tmp_path: Path):
    world: list[Node] = []
    world.extend(Node(tmp_path / f"v{i}", i, world) for i in range(4))
    yield world
    for node in world:
        node.close()


async def run_until(nodes: list[Node], reached: Callable[[], bool]) -> None:
    """Drive `nodes` until the condition holds; fails after `DEADLINE` seconds."""
    with anyio.fail_after(DEADLINE):
        async with anyio.create_task_group() as tasks:
            for node in nodes:
                tasks.start_soon(node.driver.run)
            while not reached():  # noqa: ASYNC110  # the condition is about many drivers' disks
                await anyio.sleep(0.01)
            tasks.cancel_scope.cancel()


@pytest.mark.anyio
async def test_transactions_become_final_on_all(network: list[Node]) -> None:
    """What is in the mempools is soon in one block, the same everywhere, and gone from them."""
    raw = transaction(ALICE, 0)
    for node in network:
        node.offer(raw)
    await run_until(network, lambda: all(n.ledger.next_nonce(ACCOUNTS[0]) for n in network))
    assert all(len(node.mempool) == 0 for node in network)
    heights = min(node.ledger.height for node in network)
    for height in range(1, heights + 1):
        hashes = {node.ledger.block(height).block.hash for node in network}
        assert len(hashes) == 1


@pytest.mark.anyio
async def test_empty_blocks_come_at_their_interval(network: list[Node]) -> None:
    """An idle network shows that it lives, but not faster than configured."""
    began = time.monotonic()
    await run_until(network, lambda: min(n.ledger.height for n in network) >= 4)
    assert time.monotonic() - began >= 3 * SETTINGS.empty_block_interval_ms / 1000 * 0.9


@pytest.mark.anyio
async def test_silent_leader_is_replaced_without_any_transaction(network: list[Node]) -> None:
    """The first leader is not there; the others notice by the empty block that does not come."""
    network[0].up = False
    others = network[1:]
    await run_until(others, lambda: min(n.ledger.height for n in others) >= 3)
    assert {n.ledger.next_view for n in others} == {1}


@pytest.mark.anyio
async def test_a_deadline_in_the_past_starves_nothing(network: list[Node]) -> None:
    """Messages are taken even while something is overdue."""
    driver = network[1].driver
    driver._next_deadline = lambda: driver._clock() - 1  # type: ignore[method-assign]
    await run_until(network, lambda: min(n.ledger.height for n in network) >= 2)


@pytest.mark.anyio
async def test_nothing_is_sent_when_the_journal_fails(network: list[Node]) -> None:
    """A vote that could not be written is not cast; the node stops instead."""
    leader = network[0]

    def fail(_records: object) -> None:
        raise StorageError("disk full")

    leader.journal.append = fail  # type: ignore[method-assign]
    with pytest.raises(StorageError):
        await leader.driver.run()
    assert leader.sent == []


@pytest.mark.anyio
async def test_restart_continues_from_disk(network: list[Node], tmp_path: Path) -> None:
    """Ledger and journal of all are closed and opened again in the middle; blocks go on."""
    await run_until(network, lambda: min(n.ledger.height for n in network) >= 2)
    for node in network:
        node.close()
    world: list[Node] = []
    world.extend(Node(tmp_path / f"v{i}", i, world) for i in range(4))
    # One may be a block ahead of the others; block sync is not part of this test.
    highest = max(world, key=lambda n: n.ledger.height).ledger
    for node in world:
        for height in range(node.ledger.height + 1, highest.height + 1):
            node.ledger.commit(highest.block(height))
            node.driver.replica.advance(height, node.ledger.next_view, time.monotonic())
    goal = highest.height + 2
    try:
        await run_until(world, lambda: min(n.ledger.height for n in world) >= goal)
    finally:
        for node in world:
            node.close()


@pytest.mark.anyio
async def test_fetched_blocks_are_adopted_in_order_only(network: list[Node]) -> None:
    """A block that fits is committed and announced; one that does not is refused."""
    node = network[3]
    node.driver.replica = None  # an observer
    block = certify(propose(network[0].ledger))
    network[0].ledger.commit(block)
    after = certify(propose(network[0].ledger))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(node.driver.run)
        with pytest.raises(RefusedError):
            await node.driver.adopt(after)
        await node.driver.adopt(block)
        await node.driver.adopt(block)
        tasks.cancel_scope.cancel()
    assert (node.ledger.height, node.announced) == (1, 1)
