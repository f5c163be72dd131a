# SPDX-License-Identifier: Apache-2.0
"""Snapshots: what one node writes another can go on from, and nobody can put in what is false."""

import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ledger_samples import (
    ACCOUNTS,
    ALICE,
    GENESIS,
    certify,
    code_of,
    commit,
    open_ledger,
    propose,
    transaction,
)

from holdfast_node.chain.block import CertifiedHeader
from holdfast_node.chain.codec import decode, encode
from holdfast_node.chain.transaction import Put
from holdfast_node.errors import RefusedError, StorageError
from holdfast_node.ledger.ledger import Ledger
from holdfast_node.ledger.state_tree import DEPTH, StateTree, bucket_of, entry_leaf
from holdfast_node.net.wire import MANIFEST_PART_BYTES, MAX_MANIFEST_PARTS
from holdfast_node.snapshot.assembly import CANDIDATE, Assembly, remove_leftovers
from holdfast_node.snapshot.folder import KEPT, Kept, SnapshotFolder
from holdfast_node.snapshot.manifest import (
    MAX_CHUNKS_BYTES,
    MAX_MANIFEST_BYTES,
    MAX_PAGE_BYTES,
    MAX_TRAIL_BYTES,
    PAGE_BYTES,
    Chunk,
    ChunkHasher,
    Manifest,
    decode_page,
    depth_for,
    encode_page,
    read_manifest,
    subtree,
)

SMALL_CHUNKS = 400  # bytes: even a small state has several


def puts(height: int, count: int = 8) -> list[Put]:
    return [Put(f"{height} {i}", b"%d" % i * 20) for i in range(count)]


def grow(ledger: Ledger, blocks: int) -> None:
    for _ in range(blocks):
        commit(ledger, [transaction(ALICE, ledger.height, puts(ledger.height))])


@dataclass
class Origin:
    """A node with blocks, and its snapshot of the last one."""

    ledger: Ledger
    folder: SnapshotFolder
    kept: Kept
    manifest: Manifest

    def page(self, chunk: int, page: int = 0) -> bytes:
        return self.folder.page(self.kept.identity, chunk, page)


def write(ledger: Ledger, folder: SnapshotFolder) -> Kept | None:
    pinned = ledger.store.take_pin()
    assert pinned is not None
    try:
        made = folder.make(pinned, ledger.trail)
    finally:
        pinned.close()
    if made is not None:
        folder.add(made)
    return made


@pytest.fixture
def origin(tmp_path: Path):
    home = tmp_path / "origin"
    home.mkdir()
    ledger = open_ledger(home)
    ledger.store.pin_every(6)
    grow(ledger, 6)
    folder = SnapshotFolder(home, chunk_bytes=SMALL_CHUNKS)
    kept = write(ledger, folder)
    assert kept is not None
    manifest = decode(kept.encoded, Manifest)
    yield Origin(ledger, folder, kept, manifest)
    ledger.store.close()


def fill(assembly: Assembly, origin: Origin, order=None) -> None:
    for index in order or range(assembly.chunks):
        chunk = assembly.chunk(index)
        for number in range(chunk.pages):
            chunk.add(number, origin.page(index, number))


@pytest.fixture
def fresh(tmp_path: Path):
    home = tmp_path / "fresh"
    home.mkdir()
    ledger = open_ledger(home)
    yield ledger, home
    ledger.store.close()


def test_a_new_node_goes_on_from_a_snapshot(origin: Origin, fresh) -> None:
    """Same state, same head; blocks follow, and a restart finds it so."""
    ledger, home = fresh
    assembly = Assembly(home, GENESIS, origin.kept.encoded)
    assert assembly.chunks > 4
    fill(assembly, origin, random.sample(range(assembly.chunks), assembly.chunks))
    ledger.install(assembly)
    assembly.discard()
    assert (ledger.height, ledger.head_hash) == (6, origin.ledger.head_hash)
    assert ledger.state_root == origin.ledger.state_root
    assert ledger.account(ACCOUNTS[0]) == origin.ledger.account(ACCOUNTS[0])
    assert ledger.value(ACCOUNTS[0], "3 2") == b"2" * 20
    assert ledger.store.block(6) is None
    assert ledger.store.first_height() == 7
    assert not list(home.glob(CANDIDATE + "*"))
    block = commit(origin.ledger, [transaction(ALICE, 6, puts(6))])
    ledger.commit(certify(block))
    assert ledger.block(7) == certify(block)
    ledger.store.close()
    again = open_ledger(home)
    assert (again.height, again.state_root) == (7, origin.ledger.state_root)
    assert again.store.first_height() == 7
    assert again.store.encoded_blocks(1, 10, 10**6) == ()
    assert again.store.encoded_blocks(7, 10, 10**6) == (encode(certify(block)),)
    again.store.close()


def test_restart_without_a_block_above_the_snapshot(origin: Origin, fresh) -> None:
    ledger, home = fresh
    assembly = Assembly(home, GENESIS, origin.kept.encoded)
    fill(assembly, origin)
    ledger.install(assembly)
    ledger.store.close()
    again = open_ledger(home)
    assert (again.height, again.head_hash) == (6, origin.ledger.head_hash)
    assert again.head_time_ms == origin.ledger.head_time_ms
    assert again.next_view == origin.ledger.next_view
    again.store.close()


def test_what_was_final_below_the_snapshot_cannot_come_again(origin: Origin, fresh) -> None:
    """The nonces are in the state; where the transaction was is not known any more."""
    old = origin.ledger.block(3)
    assert old is not None
    raw = old.block.transactions[0]
    ledger, home = fresh
    assembly = Assembly(home, GENESIS, origin.kept.encoded)
    fill(assembly, origin)
    ledger.install(assembly)
    assert propose(ledger, [raw]).transactions == ()
    forged = propose(ledger)
    header = msgspec.structs.replace(
        forged.header, transactions_root=old.block.header.transactions_root
    )
    replayed = msgspec.structs.replace(forged, header=header, transactions=(raw,))
    assert code_of(lambda: ledger.process_proposal(replayed)) == "bad_block"
    assert ledger.transaction(ledger.check_transaction(raw).id) is None


def test_a_far_behind_node_loses_the_blocks_below(origin: Origin, fresh) -> None:
    """Its own old blocks go as well: there is no gap in what it has."""
    ledger, home = fresh
    for height in (1, 2):
        certified = origin.ledger.block(height)
        assert certified is not None
        ledger.commit(certified)
    assembly = Assembly(home, GENESIS, origin.kept.encoded)
    fill(assembly, origin)
    ledger.install(assembly)
    assert ledger.height == 6
    assert ledger.block(1) is None
    assert ledger.store.head() == origin.manifest.head
    assert ledger.store.certified_header(6) == origin.manifest.head
    assert ledger.store.certified_header(2) is None
    # What it knew of the state is forgotten, too.
    block = commit(origin.ledger, [transaction(ALICE, 6, puts(6))])
    ledger.commit(certify(block))
    assert ledger.state_root == origin.ledger.state_root


def test_an_older_snapshot_is_not_installed(origin: Origin, fresh) -> None:
    _, home = fresh
    grow(origin.ledger, 1)
    assembly = Assembly(home, GENESIS, origin.kept.encoded)
    fill(assembly, origin)
    assert code_of(lambda: origin.ledger.install(assembly)) == "old_snapshot"
    assert origin.ledger.height == 7
    assembly.discard()
    assert not list(home.glob(CANDIDATE + "*"))


def poisoned(manifest: Manifest, chunk: int = 0, **changes) -> bytes:
    chunks = list(manifest.chunks)
    chunks[chunk] = msgspec.structs.replace(chunks[chunk], **changes)
    return encode(msgspec.structs.replace(manifest, chunks=tuple(chunks)))


def manifests(origin: Origin) -> dict[str, bytes]:
    manifest = origin.manifest
    head = manifest.head
    change = msgspec.structs.replace
    other_root = change(head, header=change(head.header, state_root=b"r" * 32))
    unsigned = change(head, certificate=change(head.certificate, signatures=()))
    full = next(i for i, chunk in enumerate(manifest.chunks) if chunk.pages)
    return {
        "node of a chunk": poisoned(manifest, node=b"n" * 32),
        "chunk left out": encode(change(manifest, chunks=manifest.chunks[:-1])),
        "another depth": encode(change(manifest, depth=manifest.depth - 1)),
        "no pages": poisoned(manifest, full, pages=()),
        "many small pages": poisoned(manifest, full, pages=(MAX_PAGE_BYTES, PAGE_BYTES - 1, 1)),
        "another state root": encode(change(manifest, head=other_root)),
        "without signatures": encode(change(manifest, head=unsigned)),
        "certificate of another block": encode(
            change(manifest, head=CertifiedHeader(head.header, certificate_of(origin, 5)))
        ),
        "garbage": b"\xc1" * 40,
        "nothing": b"",
    }


def certificate_of(origin: Origin, height: int):
    certified = origin.ledger.block(height)
    assert certified is not None
    return certified.certificate


KINDS = (
    "node of a chunk", "chunk left out", "another depth", "no pages", "many small pages",
    "another state root", "without signatures", "certificate of another block", "garbage",
    "nothing",
)  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_a_false_manifest_is_refused_before_any_chunk(origin: Origin, fresh, kind: str) -> None:
    _, home = fresh
    kinds = manifests(origin)
    assert set(kinds) == set(KINDS)
    with pytest.raises(RefusedError):
        Assembly(home, GENESIS, kinds[kind])
    assert not list(home.glob(CANDIDATE + "*"))


def test_a_chunk_of_many_pages(tmp_path: Path, fresh) -> None:
    """All pages but the last are as large as a manifest has to say."""
    source, (ledger, home) = open_ledger(tmp_path), fresh
    source.store.pin_every(32)
    for nonce in range(32):
        values = [Put(f"{nonce} {i}", random.randbytes(30_000)) for i in range(2)]
        commit(source, [transaction(ALICE, nonce, values)])
    folder = SnapshotFolder(tmp_path, chunk_bytes=2**30)
    kept = write(source, folder)
    assert kept is not None
    manifest = decode(kept.encoded, Manifest)
    assert [len(chunk.pages) for chunk in manifest.chunks] == [4]
    assert manifest.chunks[0].pages[-1] < PAGE_BYTES <= min(manifest.chunks[0].pages[:-1])
    assembly = Assembly(home, GENESIS, kept.encoded)
    fill(assembly, Origin(source, folder, kept, manifest))
    ledger.install(assembly)
    assert ledger.state_root == source.state_root
    source.store.close()


def test_a_large_false_chunk_is_forgotten_without_a_journal(origin: Origin, fresh) -> None:
    """What goes is neither kept in memory to be brought back, nor does it do harm."""
    ledger, home = fresh
    assembly = Assembly(home, GENESIS, origin.kept.encoded)
    mode = assembly._connection.execute("PRAGMA journal_mode").fetchone()
    assert mode == ("off",)
    depth = origin.manifest.depth
    keys = [b"%d" % i for i in range(40_000) if bucket_of(b"%d" % i) >> (DEPTH - depth) == 0]
    keys.sort(key=lambda key: (bucket_of(key), key))
    hasher = ChunkHasher(0, depth)
    for at in range(0, len(keys), 100):
        page = encode_page([(key, bytes(5000)) for key in keys[at : at + 100]])
        assembly.write(hasher, page)
    fill(assembly, origin)
    ledger.install(assembly)
    assert ledger.state_root == origin.ledger.state_root
    assert ledger.account(ACCOUNTS[0]) == origin.ledger.account(ACCOUNTS[0])


def test_a_snapshot_of_another_chain_is_refused(origin: Origin, fresh) -> None:
    _, home = fresh
    other = msgspec.structs.replace(GENESIS, chain_id="other")
    with pytest.raises(RefusedError):
        Assembly(home, other, origin.kept.encoded)


def test_a_false_chunk_is_found_by_itself(origin: Origin, fresh) -> None:
    """A value changed, an entry left out, added or moved: that chunk is refused, others count."""
    ledger, home = fresh
    assembly = Assembly(home, GENESIS, origin.kept.encoded)
    index = max(range(assembly.chunks), key=lambda i: sum(origin.manifest.chunks[i].pages))
    good = decode_page(origin.page(index))
    key, value = good[0]
    false = {
        "value": [(key, bytes(len(value))), *good[1:]],
        "moved": [*good[1:], good[0]],
        "twice": [good[0], good[0], *good[2:]],
    }
    for what, entries in false.items():
        page = encode_page(entries)
        assert len(page) == len(origin.page(index)), what
        chunk = assembly.chunk(index)
        assert code_of(lambda c=chunk, p=page: c.add(0, p)) == "bad_snapshot"
    for page in (encode_page(good[1:]), b"", b"\xc1" * 5, origin.page(index) + b"\x00"):
        chunk = assembly.chunk(index)
        with pytest.raises(RefusedError):
            chunk.add(0, page)
    fill(assembly, origin)  # nothing of all that is left
    ledger.install(assembly)
    assert ledger.state_root == origin.ledger.state_root


def test_what_half_a_chunk_left_is_forgotten(origin: Origin, fresh) -> None:
    """A liar sends one of two pages and goes away: its entries are not in the state."""
    ledger, home = fresh
    assembly = Assembly(home, GENESIS, origin.kept.encoded)
    chunk = assembly.chunk(0)
    intruder = next(
        b"v" + b"%d" % i for i in range(10**6)
        if bucket_of(b"v%d" % i) >> (DEPTH - origin.manifest.depth) == 0
    )  # fmt: skip
    assembly.write(ChunkHasher(0, origin.manifest.depth), encode_page([(intruder, b"mine")]))
    del chunk
    fill(assembly, origin)
    ledger.install(assembly)
    assert ledger.state_root == origin.ledger.state_root


def test_a_missing_chunk_is_noticed_in_the_end(origin: Origin, fresh) -> None:
    ledger, home = fresh
    assembly = Assembly(home, GENESIS, origin.kept.encoded)
    full = [i for i, chunk in enumerate(origin.manifest.chunks) if chunk.pages]
    fill(assembly, origin, full[1:])
    assert code_of(lambda: ledger.install(assembly)) == "bad_snapshot"
    assert ledger.height == 0
    assembly.discard()


def test_a_snapshot_that_does_not_fit_on_the_disk(origin: Origin, fresh, monkeypatch) -> None:
    _, home = fresh
    monkeypatch.setattr("shutil.disk_usage", lambda _path: _Usage)
    with pytest.raises(StorageError, match="make room"):
        Assembly(home, GENESIS, origin.kept.encoded)
    assert not list(home.glob(CANDIDATE + "*"))


class _Usage:
    free = 10


# The folder.


def test_the_snapshot_is_of_its_height_whatever_comes_meanwhile(tmp_path: Path) -> None:
    """Blocks that are committed while it is written are not in it."""
    ledger = open_ledger(tmp_path)
    ledger.store.pin_every(3)
    grow(ledger, 3)
    root = ledger.state_root
    pinned = ledger.store.take_pin()
    assert pinned is not None
    grow(ledger, 2)
    folder = SnapshotFolder(tmp_path)
    made = folder.make(pinned, ledger.trail)
    pinned.close()
    assert made is not None
    manifest = decode(made.encoded, Manifest)
    assert (manifest.header.height, manifest.header.state_root) == (3, root)
    manifest.check(GENESIS)
    ledger.store.close()


def test_two_are_kept_and_found_again(tmp_path: Path) -> None:
    """Older ones go; a restart offers the same; half-written and damaged ones go, too."""
    ledger = open_ledger(tmp_path)
    ledger.store.pin_every(2)
    folder = SnapshotFolder(tmp_path)
    for _ in range(4):
        grow(ledger, 2)
        assert write(ledger, folder) is not None
    assert folder.heights == [8, 6]
    assert len(folder.heights) == KEPT
    assert sorted(p.name for p in (tmp_path / "snapshots").iterdir()) == ["6", "8"]
    (tmp_path / "snapshots" / "10.new").mkdir()
    again = SnapshotFolder(tmp_path)
    assert again.offers() == folder.offers()
    identity = again.offers()[0][1]
    assert again.manifest(identity) == folder.manifest(identity)
    assert again.page(identity, 0, 0) == folder.page(identity, 0, 0) != b""
    assert not (tmp_path / "snapshots" / "10.new").exists()
    manifest = tmp_path / "snapshots" / "8" / "manifest"
    manifest.write_bytes(manifest.read_bytes()[:-1] + b"x")
    pages = tmp_path / "snapshots" / "6" / "pages"
    pages.write_bytes(pages.read_bytes()[:-1])
    assert SnapshotFolder(tmp_path).heights == []
    assert list((tmp_path / "snapshots").iterdir()) == []
    ledger.store.close()


def test_nothing_is_served_that_is_not_there(origin: Origin) -> None:
    folder, identity = origin.folder, origin.kept.identity
    assert folder.manifest(b"x" * 32) == b""
    assert folder.page(b"x" * 32, 0, 0) == b""
    assert folder.page(identity, len(origin.manifest.chunks), 0) == b""
    for chunk in range(len(origin.manifest.chunks)):
        assert folder.page(identity, chunk, len(origin.manifest.chunks[chunk].pages)) == b""
        assert folder.page(identity, chunk, 2**32) == b""
    (origin.kept.path / "pages").unlink()
    assert origin.page(0) == b""


def test_all_who_have_a_state_make_the_same_snapshot(origin: Origin, tmp_path: Path) -> None:
    """Otherwise chunks could not come from several peers."""
    home = tmp_path / "other"
    home.mkdir()
    ledger = open_ledger(home)
    ledger.store.pin_every(6)
    for height in range(1, 7):
        certified = origin.ledger.block(height)
        assert certified is not None
        ledger.commit(certified)
    made = write(ledger, SnapshotFolder(home, chunk_bytes=SMALL_CHUNKS))
    assert made is not None
    assert made.identity == origin.kept.identity
    ledger.store.close()


def test_one_at_a_time_and_none_without_an_interval(tmp_path: Path) -> None:
    """A state that nobody fetched, or that is being read, is not replaced."""
    ledger = open_ledger(tmp_path)
    grow(ledger, 2)
    assert ledger.store.take_pin() is None
    ledger.store.pin_every(2)
    grow(ledger, 4)
    pinned = ledger.store.take_pin()
    assert pinned is not None
    assert pinned.height == 4
    assert ledger.store.take_pin() is None
    grow(ledger, 2)
    assert ledger.store.take_pin() is None
    pinned.close()
    grow(ledger, 2)
    pinned = ledger.store.take_pin()
    assert pinned is not None
    assert pinned.height == 10
    ledger.store.close()
    with pytest.raises(StorageError, match="closed meanwhile"):
        pinned.size()


def test_a_damaged_state_is_not_offered(tmp_path: Path) -> None:
    ledger = open_ledger(tmp_path)
    ledger.store.pin_every(1)
    ledger.store._writer.execute(
        "UPDATE state SET value = X'00' WHERE bucket = (SELECT max(bucket) FROM state)"
    )
    commit(ledger)
    pinned = ledger.store.take_pin()
    assert pinned is not None
    with pytest.raises(StorageError, match="damaged"):
        SnapshotFolder(tmp_path).make(pinned, ledger.trail)
    pinned.close()
    assert list((tmp_path / "snapshots").iterdir()) == []
    ledger.store.close()


# Algebra.

ENTRIES = st.dictionaries(st.binary(min_size=1, max_size=8), st.binary(max_size=20), max_size=40)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(ENTRIES, st.sampled_from([0, 1, 4, 9, 16]))
def test_chunks_add_up_to_the_state_root(entries: dict[bytes, bytes], depth: int) -> None:
    """Whatever the entries and the depth: the nodes of the chunks lead to the tree's root."""
    ordered = sorted(entries.items(), key=lambda item: (bucket_of(item[0]), item[0]))
    tree = StateTree(
        ((bucket_of(key), entry_leaf(key, value)) for key, value in ordered), lambda _bucket: []
    )
    nodes = {}
    for index in {bucket_of(key) >> (DEPTH - depth) for key, _ in ordered}:
        hasher = ChunkHasher(index, depth)
        for key, value in ordered:
            if bucket_of(key) >> (DEPTH - depth) == index:
                hasher.add([(key, value)])
        nodes[index] = hasher.node()
    empty = subtree({}, 0, DEPTH - depth)
    full = {index: nodes.get(index, empty) for index in range(1 << depth)}
    assert subtree(full, 0, depth) == tree.root


@given(st.integers(0, 10**13), st.integers(1, 10**7))
def test_depth_keeps_chunks_small(size: int, chunk_bytes: int) -> None:
    depth = depth_for(size, chunk_bytes)
    assert 0 <= depth <= DEPTH
    assert depth == DEPTH or size <= chunk_bytes << depth
    assert depth == 0 or size > chunk_bytes << (depth - 1)


@given(st.binary(max_size=300))
def test_any_bytes_as_a_page_or_manifest(data: bytes) -> None:
    """Refused, or exactly what it says; nothing else is raised."""
    for type_, read in ((list, decode_page), (Manifest, read_manifest)):
        try:
            value = read(data)
        except RefusedError:
            continue
        assert isinstance(value, type_)
        assert encode(value) == data


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.data())
def test_a_manifest_with_any_byte_changed(origin: Origin, data: st.DataObject) -> None:
    """Refused, unless only the page sizes or signatures beyond a quorum changed."""
    raw = bytearray(origin.kept.encoded)
    at = data.draw(st.integers(0, len(raw) - 1))
    raw[at] ^= data.draw(st.integers(1, 255))
    try:
        manifest: Manifest = decode(bytes(raw), Manifest)
        manifest.check(GENESIS)
    except RefusedError:
        return
    assert manifest.head == origin.manifest.head
    assert [c.node for c in manifest.chunks] == [c.node for c in origin.manifest.chunks]


@pytest.mark.parametrize(
    ("bound", "what"),
    [
        ("MAX_MANIFEST_BYTES", "manifest"),
        ("MAX_CHUNKS_BYTES", "list of chunks"),
        ("MAX_TRAIL_BYTES", "trail of validator sets"),
    ],
)
def test_a_manifest_that_is_too_large(
    origin: Origin, tmp_path: Path, monkeypatch, bound: str, what: str
) -> None:
    """It is not read, and not made; what is too large is told, and what comes of it."""
    monkeypatch.setattr(f"holdfast_node.snapshot.manifest.{bound}", 0)
    with pytest.raises(RefusedError, match=rf"^{what} of \d+ bytes: at most 0$"):
        read_manifest(origin.kept.encoded)
    ledger = open_ledger(tmp_path)
    ledger.store.pin_every(1)
    commit(ledger)
    with pytest.raises(StorageError, match=f"{what} of .*new nodes begin with its blocks"):
        write(ledger, SnapshotFolder(tmp_path))
    assert list((tmp_path / "snapshots").iterdir()) == []
    ledger.store.close()


def test_a_manifest_fits_in_its_parts() -> None:
    """Whatever may be made can be sent."""
    assert MAX_CHUNKS_BYTES + MAX_TRAIL_BYTES < MAX_MANIFEST_BYTES
    assert MAX_MANIFEST_BYTES <= MANIFEST_PART_BYTES * MAX_MANIFEST_PARTS


def test_bounds() -> None:
    with pytest.raises(RefusedError):
        decode_page(bytes(MAX_PAGE_BYTES + 1))
    with pytest.raises(RefusedError):
        decode(encode(Chunk(b"n" * 32, (MAX_PAGE_BYTES + 1,))), Chunk)
    assert 2 * PAGE_BYTES <= MAX_PAGE_BYTES


# Killed in the middle.


def install_for_ever(home: Path, source: Path) -> None:
    """Install the snapshot of `source`, again and again, over the state before the first block."""
    folder = SnapshotFolder(source, chunk_bytes=SMALL_CHUNKS)
    _, identity = folder.offers()[0]
    while True:
        for path in home.glob("chain.db*"):
            path.unlink()
        ledger = open_ledger(home)
        sys.stdout.write("begun\n")
        sys.stdout.flush()
        assembly = Assembly(home, GENESIS, folder.manifest(identity))
        for index in range(assembly.chunks):
            chunk = assembly.chunk(index)
            for number in range(chunk.pages):
                chunk.add(number, folder.page(identity, index, number))
        ledger.install(assembly)
        assembly.discard()
        sys.stdout.write("installed\n")
        sys.stdout.flush()
        ledger.store.close()


def test_killed_in_the_middle_of_an_installation(origin: Origin, tmp_path: Path) -> None:
    """The node has the old state or the new one, and starts with either."""
    home = tmp_path / "killed"
    home.mkdir()
    rng = random.Random()  # the moments are random by nature; the outcome must not depend on them
    heights = set()
    for _ in range(6):
        process = subprocess.Popen(
            [sys.executable, __file__, home, tmp_path / "origin"],
            stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parent,
        )  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        time.sleep(rng.uniform(0.0, 0.15))  # killed at any point of its work
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        if not (home / "chain.db").exists():
            continue  # it had just begun the next round
        remove_leftovers(home)
        ledger = open_ledger(home)  # compares the state root with the head's
        heights.add(ledger.height)
        assert ledger.height in {0, 6}
        if ledger.height:
            assert ledger.state_root == origin.ledger.state_root
            assert ledger.store.first_height() == 7
        commit(ledger)
        ledger.store.close()
    assert heights


if __name__ == "__main__":
    install_for_ever(Path(sys.argv[1]), Path(sys.argv[2]))
