# SPDX-License-Identifier: Apache-2.0
"""Catching up by snapshot over real connections: quick, from several peers, and from no liar."""

import math
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace

import anyio
import pytest
from ledger_samples import ALICE, GENESIS, commit, open_ledger, transaction
from msgspec.structs import replace as replace_struct
from net_support import FAST, Pki, peer, settings, until

from holdfast_node.chain.block import CertifiedBlock
from holdfast_node.chain.codec import decode, encode
from holdfast_node.chain.transaction import Put
from holdfast_node.errors import StorageError
from holdfast_node.net.session import Terms, dial
from holdfast_node.net.snapshot_sync import SnapshotSync
from holdfast_node.net.sources import Sources
from holdfast_node.net.sync import BlockSync, SyncServer
from holdfast_node.net.wire import (
    MAX_MANIFEST_PARTS,
    Blocks,
    GetBlocks,
    GetManifest,
    GetPage,
    GetSnapshots,
    ManifestPart,
    PeerError,
    SnapshotPart,
    Snapshots,
    to_frame,
)
from holdfast_node.snapshot.assembly import Assembly
from holdfast_node.snapshot.folder import SnapshotFolder
from holdfast_node.snapshot.manifest import MAX_PAGE_BYTES, Manifest

pytestmark = pytest.mark.anyio
INTERVAL = 20
BLOCKS = 50
NEWEST = 40


@pytest.fixture
def anyio_backend():
    return "asyncio"


@pytest.fixture(scope="module")
def pki(tmp_path_factory):
    return Pki(tmp_path_factory.mktemp("pki"))


@pytest.fixture(scope="module")
def origin(tmp_path_factory):
    """A chain with history and snapshots, at (INTERVAL) checkpoints."""
    home = tmp_path_factory.mktemp("origin")
    ledger = open_ledger(home)
    ledger.store.pin_every(INTERVAL)
    folder = SnapshotFolder(home, chunk_bytes=600)
    for height in range(1, BLOCKS + 1):
        puts = [Put(f"{height} {i}", b"%d" % i * 40) for i in range(4)]
        commit(ledger, [transaction(ALICE, height - 1, puts)])
        pinned = ledger.store.take_pin()
        if pinned is not None:
            folder.add(folder.make(pinned, ledger.trail))
            pinned.close()
    assert folder.heights == [NEWEST, INTERVAL]
    yield ledger, folder
    ledger.store.close()


class Peer:
    """What one peer serves, and what it was asked."""

    def __init__(self, ledger, folder):
        self.ledger = ledger
        self.folder = folder
        self.blocks = []
        self.pages = []
        self.manifests = []
        self.first = 1
        self.refused = []
        self.port = 0

    def read(self, start, limit, max_bytes):
        self.blocks.append(start)
        if start < self.first:
            return ()
        return self.ledger.store.encoded_blocks(start, limit, max_bytes)

    def offers(self):
        return self.folder.offers()

    def manifest(self, identity):
        self.manifests.append(identity)
        return self.folder.manifest(identity)

    def page(self, identity, chunk, page):
        self.pages.append((chunk, page))
        return self.folder.page(identity, chunk, page)


class PoisonedPages(Peer):
    def page(self, identity, chunk, page):
        good = super().page(identity, chunk, page)
        return good[:-1] + bytes([good[-1] ^ 1]) if good else good


class PoisonedManifest(Peer):
    def manifest(self, identity):
        good = super().manifest(identity)
        return good[:-40] + bytes(33) + good[-7:] if good else good


class OtherManifest(Peer):
    """The true manifest of an older snapshot under the name of the newest."""

    def manifest(self, identity):
        return self.folder.manifest(self.folder.offers()[-1][1])


class Boaster(Peer):
    def offers(self):
        return [(10**9, b"x" * 32), *super().offers()]


class OldUnderGreatHeight(Peer):
    def offers(self):
        return [(10**9, self.folder.offers()[-1][1])]


def inflated(encoded):
    """The same snapshot, but as if each chunk with entries had 64 MiB."""
    manifest = decode(encoded, Manifest)
    chunks = [replace_struct(c, pages=c.pages and (MAX_PAGE_BYTES,) * 64) for c in manifest.chunks]
    return replace_struct(manifest, chunks=tuple(chunks))


class Inflater(Peer):
    """Offers a snapshot with a true header, and sizes that fit on no disk."""

    def offers(self):
        height, identity = self.folder.offers()[0]
        return [(height, inflated(self.folder.manifest(identity)).identity)]

    def manifest(self, identity):
        super().manifest(identity)
        return encode(inflated(self.folder.manifest(self.folder.offers()[0][1])))


class HiddenInflater(Inflater):
    """The same under the name of the true one."""

    def offers(self):
        return self.folder.offers()


class Old(Peer):
    """Has the older snapshot only."""

    def offers(self):
        return self.folder.offers()[-1:]


class Forgetful(Peer):
    """Its snapshots go while they are fetched."""

    def page(self, identity, chunk, page):
        return b""


@asynccontextmanager
async def serving(pki, name, host, timing=FAST):
    mine = replace(
        settings(pki, name, peer("v1"), timing=timing),
        chain_id=GENESIS.chain_id,
        genesis_hash=GENESIS.hash,
    )
    server = SyncServer(
        mine,
        blocks=host.read,
        height=lambda: host.ledger.height,
        first_height=lambda: host.first,
        snapshots=host,
        on_refused=host.refused.append,
    )
    async with anyio.create_task_group() as tasks:
        host.port = await tasks.start(server.run)
        yield host
        tasks.cancel_scope.cancel()


class Newcomer:
    def __init__(self, home):
        self.home = home
        self.ledger = open_ledger(home)
        self.faults = []
        self.installed = 0

    def begin(self, encoded):
        return Assembly(self.home, GENESIS, encoded)

    async def adopt(self, found):
        if isinstance(found, CertifiedBlock):
            await anyio.to_thread.run_sync(self.ledger.commit, found)
        else:
            await anyio.to_thread.run_sync(self.ledger.install, found)
            self.installed += 1


@asynccontextmanager
async def joining(pki, newcomer, hosts, *, threshold=10, timing=FAST):
    mine = settings(
        pki, "v1", *(peer(n, sync_port=h.port) for n, h in hosts.items()),
        role="observer", timing=timing,
    )  # fmt: skip
    mine = replace(mine, chain_id=GENESIS.chain_id, genesis_hash=GENESIS.hash)
    snapshots = None
    if threshold:
        snapshots = SnapshotSync(
            threshold=threshold,
            validators=lambda: newcomer.ledger.validators_at(newcomer.ledger.height + 1),
            begin=newcomer.begin,
            install=newcomer.adopt,
        )
    sync = BlockSync(
        mine,
        newcomer.ledger.validators_at,
        height=lambda: newcomer.ledger.height,
        adopt=newcomer.adopt,
        snapshots=snapshots,
        on_fault=lambda name, reason: newcomer.faults.append((name, reason)),
    )
    async with anyio.create_task_group() as tasks:
        await tasks.start(sync.run)
        yield sync
        tasks.cancel_scope.cancel()


@asynccontextmanager
async def network(pki, tmp_path, origin, kinds, **options):
    """`kinds` by name of the peers; yields the newcomer, its sync and the peers, all running."""
    newcomer = Newcomer(tmp_path)
    async with AsyncExitStack() as stack:
        hosts = {}
        for name, kind in kinds.items():
            hosts[name] = await stack.enter_async_context(serving(pki, name, kind(*origin)))
        sync = await stack.enter_async_context(joining(pki, newcomer, hosts, **options))
        yield newcomer, sync, hosts
    newcomer.ledger.store.close()


def announce(sync, *names):
    for name in names:
        sync.on_status(name, BLOCKS)


async def in_step(newcomer, origin):
    await until(lambda: newcomer.ledger.height == BLOCKS, 15)
    assert newcomer.ledger.head_hash == origin[0].head_hash
    assert newcomer.ledger.state_root == origin[0].state_root


async def test_a_newcomer_does_not_replay_the_chain(pki, tmp_path, origin):
    """Chunks from all three peers, then the blocks above the snapshot, and none below."""
    kinds = dict.fromkeys(("v2", "v3", "v4"), Peer)
    async with network(pki, tmp_path, origin, kinds) as (newcomer, sync, hosts):
        announce(sync, *hosts)
        await in_step(newcomer, origin)
        assert newcomer.installed == 1
        assert newcomer.faults == []
        assert min(start for h in hosts.values() for start in h.blocks) == NEWEST + 1
        assert newcomer.ledger.block(NEWEST) is None
        assert sum(bool(h.pages) for h in hosts.values()) >= 2
        pages = [page for h in hosts.values() for page in h.pages]
        assert len(pages) == len(set(pages))


async def test_whoever_is_hardly_behind_fetches_blocks(pki, tmp_path, origin):
    async with network(pki, tmp_path, origin, {"v2": Peer}, threshold=45) as (newcomer, sync, _):
        announce(sync, "v2")
        await in_step(newcomer, origin)
        assert newcomer.installed == 0
        assert newcomer.ledger.block(1) is not None


async def test_snapshots_can_be_declined(pki, tmp_path, origin):
    async with network(pki, tmp_path, origin, {"v2": Peer}, threshold=0) as (newcomer, sync, _):
        announce(sync, "v2")
        await in_step(newcomer, origin)
        assert newcomer.installed == 0


@pytest.mark.parametrize(
    "liar", [PoisonedPages, PoisonedManifest, OtherManifest, OldUnderGreatHeight]
)
async def test_a_poisoner_is_dropped_and_another_used(pki, tmp_path, origin, liar):
    kinds = {"v2": liar, "v3": Peer}
    async with network(pki, tmp_path, origin, kinds) as (newcomer, sync, hosts):
        announce(sync, "v2")
        await until(lambda: ("v2", "malformed") in newcomer.faults, 10)
        assert sync._sources["v2"].claim == 0
        assert newcomer.installed == 0
        announce(sync, "v3")
        await in_step(newcomer, origin)
        assert hosts["v3"].pages or newcomer.ledger.block(1)


@pytest.mark.parametrize(
    "liar", [PoisonedPages, PoisonedManifest, Boaster, OldUnderGreatHeight, Forgetful]
)
async def test_one_liar_among_three(pki, tmp_path, origin, liar):
    """Whoever is asked first: the newcomer gets the true state, without the early blocks."""
    kinds = {"v2": liar, "v3": Peer, "v4": Peer}
    async with network(pki, tmp_path, origin, kinds) as (newcomer, sync, hosts):
        announce(sync, *hosts)
        await in_step(newcomer, origin)
        assert newcomer.installed == 1
        assert min(start for h in hosts.values() for start in h.blocks) == NEWEST + 1
        assert {name for name, _ in newcomer.faults} <= {"v2"}


async def test_a_peer_that_stalls_is_left(pki, tmp_path, origin):
    """It answers offers and manifest, and then nothing any more."""

    class Staller(Peer):
        stalled = anyio.Event()

        def page(self, identity, chunk, page):
            anyio.from_thread.run(self.stalled.wait)
            return b""

    kinds = {"v2": Staller, "v3": Peer}
    async with network(pki, tmp_path, origin, kinds) as (newcomer, sync, hosts):
        announce(sync, *hosts)
        await in_step(newcomer, origin)
        assert newcomer.installed == 1
        assert newcomer.faults == [("v2", "timeout")]
        Staller.stalled.set()


@pytest.mark.parametrize("boasters", [("v3",), ("v4", "v5", "v6")])
async def test_what_more_offer_than_can_be_faulty_comes_first(pki, tmp_path, origin, boasters):
    """One validator of four, or any number of observers: their greater height is not looked at."""
    kinds = {"v0": Peer, "v2": Peer, **dict.fromkeys(boasters, Boaster)}
    async with network(pki, tmp_path, origin, kinds) as (newcomer, sync, hosts):
        announce(sync, *hosts)
        await in_step(newcomer, origin)
        assert newcomer.installed == 1
        assert newcomer.faults == []
        assert {i for h in hosts.values() for i in h.manifests} == {origin[1].offers()[0][1]}


class _Usage:
    free = 100 * 2**20


async def test_no_room_for_one_offer_is_not_the_end(pki, tmp_path, origin, monkeypatch):
    """The newest has invented sizes; what another peer has is taken."""
    monkeypatch.setattr("shutil.disk_usage", lambda _path: _Usage)
    kinds = {"v2": Inflater, "v3": Old}
    async with network(pki, tmp_path, origin, kinds) as (newcomer, sync, hosts):
        announce(sync, *hosts)
        await in_step(newcomer, origin)
        assert newcomer.installed == 1
        assert hosts["v2"].manifests
        assert min(start for h in hosts.values() for start in h.blocks) == INTERVAL + 1


async def test_no_room_for_one_manifest_is_not_the_end(pki, tmp_path, origin, monkeypatch):
    """Whoever is asked first answers with another manifest than it offered: it is one of two."""
    monkeypatch.setattr("shutil.disk_usage", lambda _path: _Usage)
    monkeypatch.setattr("random.shuffle", lambda some: some.sort(key=lambda s: s.peer.name))
    kinds = {"v2": HiddenInflater, "v3": Peer}
    async with network(pki, tmp_path, origin, kinds) as (newcomer, sync, hosts):
        announce(sync, *hosts)
        await in_step(newcomer, origin)
        assert newcomer.installed == 1
        assert hosts["v2"].manifests
        assert min(start for h in hosts.values() for start in h.blocks) == NEWEST + 1


class _Chunk:
    def __init__(self, pages, size):
        self.pages, self.size, self.added = pages, size, 0

    def add(self, _number, _page):
        self.added += 1


class _Sink:
    identity = b"i" * 32

    def __init__(self, chunk):
        self.chunk = lambda _index: chunk


@pytest.mark.parametrize(
    ("shape", "most", "whole"),
    [
        ((20, 20), math.inf, False),  # so few bytes must not take that long
        ((20, 10**12), 0.3, False),  # nobody vouches for that many
        ((20, 10**12), math.inf, True),
        ((2, 20), math.inf, True),
    ],
)
async def test_a_chunk_has_its_time(pki, monkeypatch, shape, most, whole):
    """Each page comes soon enough, a twentieth of a second; all of them may not."""
    sources = Sources(settings(pki, "v1", peer("v2")), lambda: 0, lambda _name, _reason: None)

    async def ask(_source, request, _type, *, seconds):
        with anyio.move_on_after(seconds):
            await anyio.sleep(0.05)
            return SnapshotPart(b"%d" % request.page)
        raise PeerError("timeout", "no answer")

    monkeypatch.setattr(sources, "ask", ask)
    chunk = _Chunk(*shape)
    snapshots = SnapshotSync(threshold=1, validators=None, begin=None, install=None)
    fetch = snapshots._chunk(sources, sources.by_name["v2"], _Sink(chunk), 0, most)
    if whole:
        await fetch
        assert chunk.added == chunk.pages
    else:
        with pytest.raises(PeerError) as caught:
            await fetch
        assert caught.value.reason == "timeout"
        assert 0 < chunk.added < chunk.pages


async def test_less_patience_for_what_nobody_vouches_for(pki, tmp_path, origin, monkeypatch):
    """An offer of one who is no validator."""
    monkeypatch.setattr("holdfast_node.net.snapshot_sync._UNBACKED_SECONDS", 0.3)

    class Staller(Peer):
        stalled = anyio.Event()

        def page(self, identity, chunk, page):
            anyio.from_thread.run(self.stalled.wait)
            return b""

    patient = replace(FAST, sync_reply=60.0)
    kinds = {"v4": Staller}
    async with network(pki, tmp_path, origin, kinds, timing=patient) as (newcomer, sync, _):
        announce(sync, "v4")
        await until(lambda: newcomer.faults == [("v4", "timeout")], 10)
        Staller.stalled.set()


async def test_blocks_that_nobody_has_any_more(pki, tmp_path, origin):
    """The peers began with snapshots themselves: less than the threshold behind or not."""

    class Pruned(Peer):
        def __init__(self, *where):
            super().__init__(*where)
            self.first = 31

    kinds = {"v2": Pruned, "v3": Pruned}
    async with network(pki, tmp_path, origin, kinds, threshold=1000) as (newcomer, sync, _):
        announce(sync, "v2", "v3")
        await in_step(newcomer, origin)
        assert newcomer.installed == 1
        assert newcomer.faults == []  # whoever lacks old blocks is no liar


async def test_a_full_disk_ends_the_try_and_not_the_node(pki, tmp_path, origin):
    async with network(pki, tmp_path, origin, {"v2": Peer}) as (newcomer, sync, _):

        def begin(_encoded):
            raise StorageError("no room")

        newcomer.begin = begin
        sync._snapshots._begin = begin
        announce(sync, "v2")
        await in_step(newcomer, origin)  # by blocks
        assert newcomer.installed == 0


async def test_a_failed_installation_leaves_everything(pki, tmp_path, origin):
    """Overtaken by blocks meanwhile: the snapshot is thrown away."""
    async with network(pki, tmp_path, origin, {"v2": Peer}) as (newcomer, sync, _):
        blocks = [origin[0].block(h) for h in range(1, NEWEST + 1)]

        async def adopt(found):
            if not isinstance(found, CertifiedBlock):
                for block in blocks:
                    newcomer.ledger.commit(block)
            await Newcomer.adopt(newcomer, found)

        sync._snapshots._install = adopt
        announce(sync, "v2")
        await in_step(newcomer, origin)
        assert newcomer.installed == 0
        assert not list(tmp_path.glob("chain.db.snapshot*"))


class GoneInBetween(Peer):
    """Its snapshot goes while the manifest is fetched."""

    def manifest(self, identity):
        super().manifest(identity)
        return self.folder.manifest(identity) if len(self.manifests) < 3 else b""


async def test_a_long_manifest_comes_in_parts(pki, tmp_path, origin, monkeypatch):
    """From the peer that it was begun with; if it goes meanwhile, nobody lied."""
    monkeypatch.setattr("holdfast_node.net.sync_server.MANIFEST_PART_BYTES", 300)
    size = len(origin[1].manifest(origin[1].offers()[0][1]))
    assert 300 * 4 < size < 300 * MAX_MANIFEST_PARTS
    kinds = {"v2": GoneInBetween}
    async with network(pki, tmp_path, origin, kinds) as (newcomer, sync, hosts):
        announce(sync, "v2")
        await until(lambda: newcomer.faults == [("v2", "aborted")])
        assert newcomer.installed == 0
        assert len(hosts["v2"].manifests) == 3
        await in_step(newcomer, origin)  # by its blocks
    home = tmp_path / "other"
    home.mkdir()
    async with network(pki, home, origin, {"v2": Peer}) as (newcomer, sync, hosts):
        announce(sync, "v2")
        await in_step(newcomer, origin)
        assert (newcomer.installed, newcomer.faults) == (1, [])
        assert len(hosts["v2"].manifests) == -(-size // 300)


async def test_the_server_answers_what_is_asked(pki, tmp_path, origin):
    async with serving(pki, "v2", Peer(*origin)) as host:
        mine = replace(
            settings(pki, "v1", peer("v2")), chain_id=GENESIS.chain_id, genesis_hash=GENESIS.hash
        )
        session = await dial(("127.0.0.1", host.port), peer("v2"), Terms(mine, 2**23, lambda: 0))

        async def ask(request, type_):
            await session.send(to_frame(request))
            return await session.receive(type_)

        offers = (await ask(GetSnapshots(), Snapshots)).offers
        assert [offer.height for offer in offers] == [NEWEST, INTERVAL]
        identity = offers[0].identity
        whole = ManifestPart(host.manifest(identity), 1)
        assert await ask(GetManifest(identity, 0), ManifestPart) == whole
        assert await ask(GetManifest(identity, 1), ManifestPart) == ManifestPart(b"", 1)
        assert await ask(GetManifest(b"x" * 32, 0), ManifestPart) == ManifestPart(b"", 0)
        assert (await ask(GetPage(identity, 2**32, 0), SnapshotPart)).data == b""
        page = await ask(GetPage(identity, 0, 0), SnapshotPart)
        assert page.data == host.page(identity, 0, 0)
        host.first = 31
        assert await ask(GetBlocks(3, 1, 10), Blocks) == Blocks((), BLOCKS, 31)
        await session.send(b"\x00\x00\x00\x01\xc1")
        await until(lambda: host.refused == ["malformed"])
        await session.close()
