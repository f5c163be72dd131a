# SPDX-License-Identifier: Apache-2.0
"""Four drivers with real ledgers and journals on disk, linked in memory."""

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import anyio
import msgspec
import pytest
from ledger_samples import (
    ACCOUNTS,
    ALICE,
    CAROL,
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
from structlog.testing import capture_logs

from holdfast_node.chain.block import Block, CertifiedBlock, vote_bytes
from holdfast_node.chain.merkle import merkle_root
from holdfast_node.chain.transaction import transaction_id
from holdfast_node.config import Consensus
from holdfast_node.consensus import Message, Record, Replica, Send, Timeouts
from holdfast_node.consensus.messages import (
    NewView,
    PrePrepare,
    ViewChange,
    Vote,
    new_view_bytes,
    view_change_bytes,
)
from holdfast_node.consensus.patience import Patience
from holdfast_node.driver import Driver
from holdfast_node.errors import RefusedError, StorageError
from holdfast_node.evidence_log import EvidenceLog
from holdfast_node.inbox import Adoption
from holdfast_node.ledger.outcome import Committed
from holdfast_node.mempool import Mempool
from holdfast_node.observe.metrics import Metrics
from holdfast_node.rejoin import Rejoin
from holdfast_node.vote_log import VoteLog

SETTINGS = Consensus(block_interval_ms=10, empty_block_interval_ms=200)
DEADLINE = 20


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Node:
    """A driver and what it thinks is outside: the other drivers."""

    def __init__(self, folder: Path, index: int, world: "list[Node]") -> None:
        folder.mkdir(exist_ok=True)
        self.folder = folder
        self.index = index
        self.world = world
        self.up = True
        self.clock = Clock()
        self.clock.now = START_MS + 1000
        self.ledger = open_ledger(folder, clock=self.clock)
        self.votes = VoteLog(folder)
        self.mempool = Mempool(1 << 20, 1000, 100, time.monotonic)
        self.sent: list[Message] = []
        self.announced = 0
        replica = self.make_replica(
            self.ledger.height + 1, self.ledger.next_view, self.votes.standing.records
        )
        self.driver = Driver(
            ledger=self.ledger,
            mempool=self.mempool,
            replica=replica,
            votes=self.votes,
            settings=SETTINGS,
            outside=self,
            metrics=Metrics(version="0", chain_id=CHAIN_ID, name=f"v{index}", role="validator"),
            clock=time.monotonic,
            evidence=EvidenceLog(folder / "evidence.journal"),
        )

    def make_replica(self, height: int, view: int, records: list[Record]) -> Replica:
        index = self.index
        return Replica(
            chain_id=CHAIN_ID,
            validators_at=self.ledger.validators_at,
            public_key=VALIDATORS[index].public_key,
            sign=VALIDATORS[index].sign,
            check_proposal=self.ledger.process_proposal,
            timeouts=Timeouts(view=0.4, view_max=2.0, resend=0.1),
            height=height,
            view=view,
            records=records,
        )

    def send(self, message: Message) -> None:
        self.sent.append(message)
        for node in self.world:
            if node is not self and node.up and self.up:
                with suppress(anyio.ClosedResourceError):  # the test is over for that one
                    node.driver._inbox.send_nowait(message)

    def announce(self) -> None:
        self.announced += 1

    def in_step(self) -> bool:
        return self.up

    def newest(self) -> bool:
        return self.up

    def stalled(self) -> None: ...

    def offer(self, raw: bytes) -> None:
        checked = self.ledger.check_transaction(raw)
        self.mempool.add(checked, self.ledger.next_nonce(checked.account))
        self.driver.wake()

    def close(self) -> None:
        self.driver.close()
        self.driver.evidence.close()
        self.votes.close()
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


async def hear(driver: Driver, messages: list[Message]) -> None:
    """Have the driver take `messages` of one peer, as the network hands them over."""

    async def read() -> None:
        for message in messages:
            await driver.receive(message)
        tasks.cancel_scope.cancel()

    async def drive() -> None:
        while True:
            await driver._step()

    with anyio.fail_after(DEADLINE):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(read)
            tasks.start_soon(drive)


def watch_execution(node: Node) -> list[tuple[bytes, bool]]:
    """What `node` executes from now on: the block, and whether on the event loop's thread."""
    executed: list[tuple[bytes, bool]] = []
    real, loop = node.ledger._execute_anew, threading.get_ident()

    def execute(block: Block) -> object:
        executed.append((block.hash, threading.get_ident() == loop))
        return real(block)

    node.ledger._execute_anew = execute  # type: ignore[method-assign]
    return executed


def pre_prepare(node: Node, proposed: Block, view: int) -> PrePrepare:
    """The proposal of `node` in `view`, whether or not that view ever comes."""
    signed = vote_bytes("pre-prepare", CHAIN_ID, proposed.height, view, proposed.hash)
    return PrePrepare(view, proposed, node.index, VALIDATORS[node.index].sign(signed))


@pytest.mark.anyio
async def test_nothing_is_executed_that_the_replica_would_not_look_at(network: list[Node]) -> None:
    """Proposals for far views, other heights, or after the first cost no execution."""
    leader, node = network[0], network[2]
    sound = propose(leader.ledger)
    executed = watch_execution(node)
    # Distinct blocks that the leader of views 0, 4, 8 … signed.
    far = [
        pre_prepare(leader, propose(leader.ledger, [transaction(ALICE, 0)], view=view), view)
        for view in (4, 40, 4000)
    ]
    await hear(node.driver, [*far, pre_prepare(leader, sound, 0)])
    assert executed == [(sound.hash, False)]
    second = propose(leader.ledger, [transaction(ALICE, 0)])
    await hear(node.driver, [pre_prepare(leader, second, 0)])
    assert len(executed) == 1


@pytest.mark.anyio
@pytest.mark.parametrize("fault", ["state root", "signature"])
async def test_an_unsound_proposal_is_executed_once(network: list[Node], fault: str) -> None:
    """Off the event loop, however often the leader of the view repeats it."""
    leader, node = network[0], network[2]
    sound = propose(leader.ledger, [transaction(ALICE, 0)])
    raws, changes = sound.transactions, {"state_root": bytes(32)}
    if fault == "signature":
        raws = (raws[0][:-1] + bytes([raws[0][-1] ^ 1]),)
        changes = {"transactions_root": merkle_root(raws)}
    unsound = Block(msgspec.structs.replace(sound.header, **changes), raws)
    executed = watch_execution(node)
    for _ in range(3):
        await hear(node.driver, [pre_prepare(leader, unsound, 0)])
    assert executed == [(unsound.hash, False)]
    await hear(node.driver, [pre_prepare(leader, sound, 0)])
    assert executed[1:] == [(sound.hash, False)]


@pytest.mark.anyio
async def test_transactions_are_not_verified_before_their_root_is(network: list[Node]) -> None:
    """A header that has nothing to do with its transactions, or too many of them, is free."""
    leader, node = network[0], network[2]
    verified: list[bytes] = []
    node.ledger.verify_transactions = verified.extend  # type: ignore[method-assign]
    other = Block(propose(leader.ledger).header, (transaction(ALICE, 0),))
    limit = GENESIS.parameters.max_block_bytes
    large = (b"x" * (limit + 1),)
    heavy = Block(
        msgspec.structs.replace(other.header, transactions_root=merkle_root(large)), large
    )
    await hear(node.driver, [pre_prepare(leader, other, 0), pre_prepare(leader, heavy, 0)])
    assert verified == []


@pytest.mark.anyio
async def test_a_peer_has_one_heavy_message_in_the_queue(network: list[Node]) -> None:
    """Its next one is not read before that was handled; votes of others are."""
    leader, driver = network[0], network[2].driver
    far = pre_prepare(leader, propose(leader.ledger, view=4), 4)
    vote = Vote("prepare", 1, 0, bytes(32), 1, bytes(64))
    read: list[Message] = []

    async def peer(messages: list[Message]) -> None:
        for message in messages:
            await driver.receive(message)
            read.append(message)

    with anyio.fail_after(DEADLINE):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(peer, [far] * 3)
            tasks.start_soon(peer, [vote] * 5)
            await anyio.wait_all_tasks_blocked()
            assert read == [vote] * 5
            assert driver._queue.statistics().current_buffer_used == 6
            for handled in range(1, 4):
                await driver._step()
                await anyio.wait_all_tasks_blocked()
                assert read.count(far) == handled


@pytest.mark.anyio
async def test_no_peer_waits_for_a_driver_that_has_stopped(network: list[Node]) -> None:
    """What lies in the queue at the end is let go; an observer's driver hears and drops it."""
    leader, stopped, observer = network[0], network[2].driver, network[3].driver
    observer.replica = None
    far = pre_prepare(leader, propose(leader.ledger, view=4), 4)
    with anyio.fail_after(DEADLINE):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(stopped.receive, far)
            tasks.start_soon(observer.receive, far)
            await anyio.wait_all_tasks_blocked()
            await observer._step()
            stopped.close()


@pytest.mark.anyio
async def test_a_driver_that_has_stopped_is_left_in_peace(network: list[Node]) -> None:
    """The network's tasks end after it does, and tell it of peers and blocks until then."""
    leader, stopped = network[0], network[2].driver
    stopped.close()
    with anyio.fail_after(DEADLINE):
        stopped.wake()
        block = propose(leader.ledger)
        await stopped.receive(pre_prepare(leader, block, 0))
        await stopped.adopt(certify(block))
    assert network[2].ledger.height == 0


@pytest.mark.anyio
async def test_a_proposal_that_waited_is_executed_off_the_event_loop(network: list[Node]) -> None:
    """It came before the block below it was final; peers are heard while it is executed."""
    leader, node = network[0], network[2]
    below = certify(propose(leader.ledger))
    leader.ledger.commit(below)
    following = propose(leader.ledger, [transaction(ALICE, 0)])
    executed = watch_execution(node)
    await hear(node.driver, [pre_prepare(leader, following, 0)])
    assert executed == []
    await node.driver._commit(below, synced=True)
    assert executed == [(below.block.hash, False), (following.hash, False)]
    assert [type(message) for message in node.sent] == [Vote]


@pytest.mark.anyio
async def test_an_early_proposal_is_executed_off_the_event_loop(network: list[Node]) -> None:
    """It came before the NEW-VIEW that makes it acceptable; a forged NEW-VIEW does not."""
    leader, node = network[1], network[2]
    changes = tuple(
        ViewChange(1, 1, None, i, VALIDATORS[i].sign(view_change_bytes(CHAIN_ID, 1, 1, None, i)))
        for i in (0, 1, 3)
    )
    signature = VALIDATORS[1].sign(new_view_bytes(CHAIN_ID, 1, 1, changes))
    proposed = propose(leader.ledger, view=1)
    executed = watch_execution(node)
    forged = NewView(1, 1, changes, 1, bytes(64))
    await hear(node.driver, [pre_prepare(leader, proposed, 1), forged])
    assert executed == []
    await hear(node.driver, [NewView(1, 1, changes, 1, signature)])
    assert executed == [(proposed.hash, False)]


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
    assert all(n.ledger.next_view % 4 for n in others)  # view 1, or on a busy machine a later one


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

    leader.votes.append = fail  # type: ignore[method-assign]
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


@pytest.mark.anyio
@pytest.mark.parametrize("fetched", [False, True])
async def test_a_refused_decision_is_told_and_ends_in_silence(
    network: list[Node], *, fetched: bool
) -> None:
    """By height and reason, also if it follows from a block that was fetched, whose peer is right.

    The block is what three others have executed, so the fault is here: the node votes no more on
    that height, serves what it has, and does not end.
    """
    leader, node = network[0], network[3]
    below = certify(propose(leader.ledger))
    decided = below
    if fetched:
        leader.ledger.commit(below)
        decided = certify(propose(leader.ledger))
    real = node.ledger.commit

    def commit(certified: CertifiedBlock) -> Committed:
        if certified.block.hash == decided.block.hash:
            raise RefusedError("bad_block", "not the state that it was")
        return real(certified)

    node.ledger.commit = commit  # type: ignore[method-assign]
    height, block_hash = decided.block.height, decided.block.hash
    messages: list[Message] = [pre_prepare(leader, decided.block, 0)]
    messages += [
        Vote("commit", height, 0, block_hash, vote.validator, vote.signature)
        for vote in decided.certificate.signatures
    ]
    with capture_logs() as logs:
        await node.driver._take(list(messages))
        if fetched:
            adoption = Adoption(below, anyio.Event())
            await node.driver._adopt(adoption)
            assert adoption.error is None
    (told,) = [entry for entry in logs if entry["event"] == "certified_block_refused"]
    assert (told["height"], told["code"]) == (height, "bad_block")
    assert told["error"] == "not the state that it was"
    assert node.driver.replica.decided
    assert node.ledger.height == height - 1
    node.sent.clear()
    await node.driver._take(list(messages))
    await node.driver._carry_out(node.driver.replica.timeout(time.monotonic() + 60))
    assert node.sent == []


def leave_in_doubt(node: Node, world: list[Node]) -> None:
    """As after a start from a copied folder: no replica until a mark is final."""
    node.votes.doubt("for this test")
    node.driver.replica = None

    async def mark() -> bytes:
        raw = transaction(CAROL, world[0].ledger.next_nonce(ACCOUNTS[2]))
        for other in world[:3]:
            with suppress(RefusedError):
                other.offer(raw)
        return transaction_id(raw)

    node.driver.rejoin = Rejoin(
        node.votes,
        make=node.make_replica,
        is_member=lambda _height: True,
        mark=mark,
        is_marked=lambda: node.ledger.next_nonce(ACCOUNTS[2]) > 0,
    )


async def follow(node: Node, source: Node) -> None:
    """What block sync does."""
    while node.ledger.height < source.ledger.height:
        await node.driver.adopt(source.ledger.block(node.ledger.height + 1))
    await anyio.sleep(0.01)


@pytest.mark.anyio
async def test_in_doubt_it_follows_in_silence_until_its_mark_is_final(network: list[Node]) -> None:
    """Not a word before a block that did not exist at the start; then it votes like the others."""
    node = network[3]
    leave_in_doubt(node, network)
    with anyio.fail_after(DEADLINE):
        async with anyio.create_task_group() as tasks:
            for each in network:
                tasks.start_soon(each.driver.run)
            while node.driver.replica is None:
                assert node.sent == []
                await follow(node, network[0])
            marked = node.votes.standing.floor
            while not node.sent:
                await follow(node, network[0])
            tasks.cancel_scope.cancel()
    location = network[0].ledger.transaction(transaction_id(transaction(CAROL, 0)))
    assert location is not None
    assert marked >= location.height
    assert min(message.height for message in node.sent) > marked


@pytest.mark.anyio
async def test_evidence_is_kept_once(network: list[Node]) -> None:
    """Two proposals of one leader in one view are on disk, and counted once."""
    leader, node = network[0], network[1]
    raw = transaction(ALICE, 0)
    one = leader.driver.replica.propose(propose(leader.ledger), 0)
    other = leader.make_replica(1, 0, []).propose(propose(leader.ledger, [raw]), 0)
    messages = [e.message for e in (*one, *other) if isinstance(e, Send)]
    await hear(node.driver, [*messages, messages[1]])
    [evidence] = node.driver.evidence.all()
    evidence.check(CHAIN_ID, GENESIS.validator_set)
    assert (evidence.validator, evidence.kind) == (0, "pre-prepare")
    metrics = node.driver._metrics.render()[0]
    assert b'consensus_misbehaviour_total{kind="pre-prepare"} 1.0' in metrics
    again = EvidenceLog(node.folder / "evidence.journal")
    assert again.all() == [evidence]
    assert not again.add(evidence)
    again.close()


@pytest.mark.anyio
async def test_a_leader_that_passes_over_a_transaction_is_replaced(network: list[Node]) -> None:
    """It goes on making blocks, without the transaction that everybody else has."""
    leader = network[0]
    leader.mempool.candidates = lambda *_: []  # type: ignore[method-assign]
    for node in network[1:]:
        node.driver._patience = Patience(0.3)
        node.offer(transaction(ALICE, 0))
    others = network[1:]
    await run_until(network, lambda: all(n.ledger.next_nonce(ACCOUNTS[0]) for n in others))
    assert others[0].ledger.next_view % 4 != 0
