# SPDX-License-Identifier: Apache-2.0
"""Snapshots of a chain whose validators have changed, and drivers that go on from one."""

import time
from pathlib import Path

import anyio
import msgspec
import pytest
from ledger_samples import (
    ALICE,
    BOB,
    GENESIS,
    certify,
    code_of,
    commit,
    open_ledger,
    propose,
    transaction,
)
from test_driver import Node, run_until
from test_membership import KEYS, agree_to_join, certify_by
from test_snapshot import SMALL_CHUNKS, puts, write

from holdfast_node.chain.block import (
    Certificate,
    CertifiedHeader,
    Header,
    VoteSignature,
    vote_bytes,
)
from holdfast_node.chain.codec import decode, encode
from holdfast_node.chain.crypto import ZERO_HASH, PrivateKey, account_of
from holdfast_node.chain.genesis import Genesis, GenesisValidator
from holdfast_node.chain.membership import ACTIVATION_DISTANCE
from holdfast_node.chain.trail import MAX_CHANGES, TrailStep
from holdfast_node.chain.transaction import Approve, ProposeLeave
from holdfast_node.chain.validators import ValidatorSet
from holdfast_node.config import Snapshots as SnapshotSettings
from holdfast_node.doctor import examine
from holdfast_node.errors import RefusedError
from holdfast_node.ledger.ledger import Ledger
from holdfast_node.ledger.state_tree import DEPTH, StateTree
from holdfast_node.rejoin import Rejoin
from holdfast_node.snapshot.assembly import CANDIDATE, Assembly
from holdfast_node.snapshot.folder import Kept, SnapshotFolder
from holdfast_node.snapshot.manifest import (
    MAX_TRAIL_BYTES,
    Chunk,
    Manifest,
    read_manifest,
    subtree,
)
from holdfast_node.snapshots import Snapshots
from holdfast_node.vote_log import VoteLog

FOUR = dict(enumerate(KEYS[:4]))
THREE = dict(enumerate(KEYS[:3]))


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def there_and_back(ledger: Ledger) -> tuple[int, int]:
    """v4 joins and leaves again; the heights at which it does."""
    first = agree_to_join(ledger, 4)
    while ledger.height < first - 1:
        commit(ledger)
    leave = ProposeLeave("v4", "because", b"", below_four=False, until=ledger.height + 100)
    for member, action in (
        (0, leave),
        (1, Approve(1, unprobed=False)),
        (2, Approve(1, unprobed=False)),
        (3, Approve(1, unprobed=False)),
    ):
        nonce = ledger.next_nonce(account_of(KEYS[member].public_key))
        raws = [transaction(KEYS[member], nonce, [action])]
        ledger.commit(certify_by(propose(ledger, raws), FOUR))
    second = ledger.height + ACTIVATION_DISTANCE
    while ledger.height < second - 1:
        ledger.commit(certify_by(propose(ledger), FOUR))
    return first, second


@pytest.fixture
def changed(tmp_path: Path):
    """A ledger above both changes, its snapshot there, and the heights of the changes."""
    home = tmp_path / "changed"
    home.mkdir()
    ledger = open_ledger(home)
    first, second = there_and_back(ledger)
    ledger.store.pin_every(second + 1)
    commit(ledger)
    commit(ledger)
    folder = SnapshotFolder(home, chunk_bytes=SMALL_CHUNKS)
    kept = write(ledger, folder)
    assert kept is not None
    yield ledger, folder, kept, (first, second)
    ledger.store.close()


def assembled(home: Path, folder: SnapshotFolder, kept: Kept, encoded: bytes) -> Assembly:
    assembly = Assembly(home, GENESIS, encoded)
    for index in range(assembly.chunks):
        chunk = assembly.chunk(index)
        for number in range(chunk.pages):
            chunk.add(number, folder.page(kept.identity, index, number))
    return assembly


def test_the_trail_comes_with_the_snapshot(changed, tmp_path: Path) -> None:
    """Whoever began with it can prove to others what it was shown itself."""
    source, folder, kept, (first, second) = changed
    home = tmp_path / "new"
    home.mkdir()
    ledger = open_ledger(home)
    ledger.install(assembled(home, folder, kept, kept.encoded))
    assert ledger.trail(ledger.height) == source.trail(source.height)
    assert [step.certified.header.height + 1 for step in ledger.trail(10**6)] == [first, second]
    for height in range(1, second + 2):
        assert ledger.validators_at(height).hash == source.validators_at(height).hash
    ledger.store.pin_every(1)
    ledger.commit(certify(propose(ledger)))
    again = write(ledger, SnapshotFolder(home))  # and make a snapshot of its own
    assert again is not None
    decode(again.encoded, Manifest).check(GENESIS)
    ledger.store.close()
    found = {f.grade: f.text for f in examine(home, GENESIS, validator=False)}
    assert set(found) == {"ok"}


@pytest.mark.parametrize("steps", [0, 1])
def test_a_trail_with_gaps_is_refused(changed, tmp_path: Path, steps: int) -> None:
    """Without both steps the header's certificate is good: the set that it names is the first."""
    _, folder, kept, _ = changed
    home = tmp_path / "new"
    home.mkdir()
    manifest = decode(kept.encoded, Manifest)
    false = msgspec.structs.replace(manifest, trail=manifest.trail[:steps])
    ledger = open_ledger(home)
    if steps:
        with pytest.raises(RefusedError):
            Assembly(home, GENESIS, encode(false))
    else:
        assembly = assembled(home, folder, kept, encode(false))
        assert assembly.identity == kept.identity
        assert code_of(lambda: ledger.install(assembly)) == "bad_snapshot"
        assembly.discard()
    assert ledger.height == 0
    assert not list(home.glob(CANDIDATE + "*"))
    ledger.store.close()


def many_changes(count: int, members: int, name: str = "v") -> tuple[Genesis, bytes]:
    """A chain on which the last of `members` left and came back, `count` changes in all, and the
    manifest of the (empty) state above them."""
    keys = [PrivateKey(bytes([i]) * 32) for i in range(members)]
    genesis = Genesis(
        chain_id="long",
        time_ms=1,
        validators=[GenesisValidator(f"{name}{i}", k.public_key.hex()) for i, k in enumerate(keys)],
        accounts={},
    )
    full = genesis.validator_set
    less = ValidatorSet(full.validators[:-1])
    root = StateTree((), lambda _bucket: []).root

    def certified(height: int, present: ValidatorSet, following: ValidatorSet) -> CertifiedHeader:
        header = Header(
            "long", height, 0, height, ZERO_HASH, ZERO_HASH, root, present.hash, following.hash
        )
        signed = vote_bytes("commit", "long", height, 0, header.hash)
        votes = (VoteSignature(i, keys[i].sign(signed)) for i in range(present.quorum))
        return CertifiedHeader(header, Certificate(height, 0, header.hash, tuple(votes)))

    sets = [full if i % 2 == 0 else less for i in range(count + 1)]
    steps = tuple(
        TrailStep(certified(5 * i + 4, sets[i], sets[i + 1]), sets[i + 1].validators)
        for i in range(count)
    )
    head = certified(5 * count + 9, sets[-1], sets[-1])
    chunk = Chunk(subtree({}, 0, DEPTH), ())
    return genesis, encode(Manifest(head, steps, 0, (chunk,)))


def test_five_hundred_changes_of_sixteen_validators(tmp_path: Path) -> None:
    """Each is proved by the set before it; one that is left out, or false, breaks the trail."""
    genesis, encoded = many_changes(500, 16)
    assert len(encoded) < MAX_TRAIL_BYTES / 8  # so all 4,096 of so many fit
    assembly = Assembly(tmp_path, genesis, encoded)
    assert assembly.height == 2509
    rows = assembly._connection.execute("SELECT count(*) FROM base").fetchone()
    assert rows == (501,)
    assembly.discard()
    manifest = read_manifest(encoded)
    gap = manifest.trail[:250] + manifest.trail[251:]
    with pytest.raises(RefusedError):
        Assembly(tmp_path, genesis, encode(msgspec.structs.replace(manifest, trail=gap)))
    step = manifest.trail[400]
    votes = step.certified.certificate.signatures
    false = msgspec.structs.replace(
        step,
        certified=CertifiedHeader(
            step.certified.header,
            msgspec.structs.replace(
                step.certified.certificate,
                signatures=(*votes[:-1], VoteSignature(votes[-1].validator, bytes(64))),
            ),
        ),
    )
    trail = (*manifest.trail[:400], false, *manifest.trail[401:])
    with pytest.raises(RefusedError):
        Assembly(tmp_path, genesis, encode(msgspec.structs.replace(manifest, trail=trail)))


@pytest.mark.parametrize(("members", "changes"), [(256, 440), (26, MAX_CHANGES)])
def test_the_bounds_of_a_trail_are_as_stated(members: int, changes: int) -> None:
    """For names as long as may be, from the sizes of a few changes."""
    sizes = [len(many_changes(count, members, "n" * 60)[1]) for count in (1, 3)]
    step = (sizes[1] - sizes[0]) / 2
    assert changes * step < MAX_TRAIL_BYTES < 1.1 * changes * step


def test_the_doctor_checks_what_the_chain_begins_with(changed, tmp_path: Path) -> None:
    """The base's certificate, and that the first block follows it."""
    source, folder, kept, _ = changed
    home = tmp_path / "new"
    home.mkdir()
    ledger = open_ledger(home)
    ledger.install(assembled(home, folder, kept, kept.encoded))
    ledger.commit(certify(propose(ledger)))
    ledger.store.close()
    found = [(f.grade, f.text) for f in examine(home, GENESIS, validator=False)]
    assert ("ok", "block log: 1 blocks, linked and certified") in found
    assert any(f"above the snapshot of block {source.height}" in text for _, text in found)
    ledger = open_ledger(home)
    head = decode(kept.encoded, Manifest).head
    votes = head.certificate.signatures
    lame = msgspec.structs.replace(head.certificate, signatures=votes[:1])
    bad = encode(msgspec.structs.replace(head, certificate=lame))
    ledger.store._writer.execute("UPDATE base SET head = ? WHERE height = ?", (bad, source.height))
    ledger.store.close()
    found = [(f.grade, f.text) for f in examine(home, GENESIS, validator=False)]
    assert [grade for grade, _ in found] == ["fault"]
    assert "that the chain begins with" in found[0][1]


@pytest.mark.anyio
async def test_a_validator_far_behind_goes_on_from_a_snapshot(tmp_path: Path) -> None:
    """It votes at the next height; what waited and is void now is dropped; nobody waits in vain."""
    world: list[Node] = []
    world.extend(Node(tmp_path / f"v{i}", i, world) for i in range(4))
    home = tmp_path / "source"
    home.mkdir()
    source = open_ledger(home)
    source.store.pin_every(9)
    raws = [transaction(ALICE, nonce, puts(nonce)) for nonce in range(9)]
    for raw in raws:
        commit(source, [raw])
    folder = SnapshotFolder(home, chunk_bytes=SMALL_CHUNKS)
    kept = write(source, folder)
    assert kept is not None
    for node in world:
        for raw in [*raws[:2], transaction(BOB, 0)]:
            node.offer(raw)
        assembly = assembled(node.folder, folder, kept, kept.encoded)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(node.driver.adopt, assembly)
            while node.announced == 0:
                await node.driver._step()
        assert node.ledger.height == 9
        assert len(node.mempool) == 1  # Bob's
        assert node.driver.replica is not None
        assert node.driver.replica.height == 10
    await run_until(world, lambda: all(node.ledger.height >= 10 for node in world))
    late = assembled(world[0].folder, folder, kept, kept.encoded)
    assert code_of(lambda: world[0].ledger.install(late)) == "old_snapshot"
    late.discard()
    for node in world:
        assert node.ledger.next_nonce(account_of(BOB.public_key)) == 1
        node.close()
    source.store.close()


@pytest.mark.anyio
async def test_a_mark_that_is_final_below_the_snapshot_counts(tmp_path: Path) -> None:
    """It is in the state; one that is not there leaves the doubt."""
    votes = VoteLog(tmp_path)
    votes.doubt("for this test")
    marked = False

    async def mark() -> bytes:
        return b"m" * 32

    rejoin = Rejoin(
        votes,
        make=lambda *_: pytest.fail("no vote is safe"),
        is_member=lambda _height: True,
        mark=mark,
        is_marked=lambda: marked,
    )
    assert await rejoin.replica(5, 0, newest=True, now=1.0) is None
    await rejoin.committed(7)
    assert votes.standing.doubt is not None
    marked = True
    await rejoin.committed(9)
    assert (votes.standing.doubt, votes.standing.floor) == (None, 9)
    votes.close()


async def never(_assembly: Assembly) -> None:
    raise AssertionError("nothing is installed here")


@pytest.mark.anyio
async def test_the_keeper_writes_while_blocks_come(tmp_path: Path) -> None:
    """One after the other; a full disk costs a snapshot, not the node."""
    ledger = open_ledger(tmp_path)
    leftover = tmp_path / (CANDIDATE + "-journal")
    leftover.touch()  # of an installation that a crash ended
    settings = SnapshotSettings(checkpoint_interval=3, fetch_threshold=0)
    keeper = Snapshots(tmp_path, settings, store=ledger.store, ledger=ledger, install=never)
    assert keeper.sync is None
    assert not leftover.exists()
    broken = tmp_path / "snapshots"
    broken.touch()  # no folder can be made there
    deadline = time.monotonic() + 20
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(keeper.run)
        for nonce in range(40):
            await anyio.to_thread.run_sync(commit, ledger, [transaction(ALICE, nonce)])
            keeper.committed()
            if nonce == 10:
                broken.unlink()
        while len(keeper.kept.heights) < 2:
            assert time.monotonic() < deadline
            await anyio.to_thread.run_sync(commit, ledger, [transaction(ALICE, ledger.height)])
            keeper.committed()
            await anyio.sleep(0.01)
        tasks.cancel_scope.cancel()
    assert all(height % 3 == 0 for height in keeper.kept.heights)
    ledger.store.close()
