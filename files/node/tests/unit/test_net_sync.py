# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: SIM117  # the second network needs the first one's port: nesting shows it
"""Block sync: whoever is behind has the missing blocks at once, and nobody can feed it others."""

import time
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import anyio
import msgspec
import pytest
from net_blocks import KEYS, VALIDATORS, certify, chain, serving
from net_support import FAST, Pki, peer, settings, until

from holdfast_node.chain.block import Block, CertifiedBlock, VoteSignature
from holdfast_node.errors import RefusedError, StorageError
from holdfast_node.net.sync import BlockSync
from holdfast_node.net.sync_server import PAGE_BYTES
from holdfast_node.node import Node

pytestmark = pytest.mark.anyio


@pytest.fixture(
    params=[("asyncio", {"use_uvloop": False}), ("asyncio", {"use_uvloop": True})],
    ids=["asyncio", "uvloop"],
)
def anyio_backend(request):
    return request.param


@pytest.fixture(scope="module")
def pki(tmp_path_factory):
    return Pki(tmp_path_factory.mktemp("pki"))


class Follower:
    """A node that is behind; remembers what it adopted, and when."""

    def __init__(self, start=()):
        self.blocks = list(start)
        self.times = []
        self.faults = []
        self.adopting = None

    def height(self):
        return len(self.blocks)

    async def adopt(self, certified):
        assert certified.block.height == len(self.blocks) + 1
        if self.adopting is not None:
            raise self.adopting
        self.blocks.append(certified)
        self.times.append(time.perf_counter())


@asynccontextmanager
async def following(pki, *sources, role="observer", start=(), timing=FAST):
    """`sources` are (name, port) of the peers' sync servers."""
    follower = Follower(start)
    peers = [peer(name, sync_port=port) for name, port in sources]
    sync = BlockSync(
        settings(pki, "v1", *peers, role=role, timing=timing),
        lambda _height: VALIDATORS,
        height=follower.height,
        adopt=follower.adopt,
        on_fault=lambda peer, reason: follower.faults.append((peer, reason)),
    )
    async with anyio.create_task_group() as tasks:
        await tasks.start(sync.run)
        yield follower, sync
        tasks.cancel_scope.cancel()


async def test_a_new_node_gets_the_whole_chain_in_pages(pki):
    blocks = chain(40, 200_000)  # 8 MB: several pages
    async with serving(pki, "v2", blocks) as v2:
        async with following(pki, ("v2", v2.port)) as (follower, sync):
            sync.on_status("v2", 40)
            assert sync.target_height == 40
            await until(lambda: sync.in_progress)
            await until(lambda: follower.height() == 40, 10)
            assert follower.blocks == blocks
            assert len(v2.asked) == 4
            await until(lambda: not sync.in_progress)


async def test_a_block_larger_than_a_page_comes_alone(pki):
    blocks = chain(2, PAGE_BYTES + 1000)
    async with serving(pki, "v2", blocks) as v2:
        async with following(pki, ("v2", v2.port)) as (follower, sync):
            sync.on_status("v2", 2)
            await until(lambda: follower.blocks == blocks)


async def test_a_new_block_is_fetched_over_the_same_connection(pki):
    """Announced one by one, as they are committed: an observer's life."""
    blocks = chain(30)
    async with serving(pki, "v2", blocks[:1]) as v2:
        async with following(pki, ("v2", v2.port)) as (follower, sync):
            sync.on_status("v2", 1)
            await until(lambda: follower.height() == 1)
            session = sync._sources["v2"].session
            delays = []
            for certified in blocks[1:]:
                v2.blocks.append(certified)
                announced = time.perf_counter()
                sync.on_status("v2", certified.block.height)
                await until(lambda height=certified.block.height: follower.height() == height)
                delays.append(follower.times[-1] - announced)
            assert sync._sources["v2"].session is session
            assert sorted(delays)[len(delays) // 2] < 0.05


async def test_a_validator_one_behind_waits_before_it_fetches(pki):
    """It commits that block itself in a moment; fetching would be waste."""
    blocks = chain(3)
    async with serving(pki, "v2", blocks) as v2:
        running = following(pki, ("v2", v2.port), role="validator", start=blocks[:1])
        async with running as (follower, sync):
            for height in (2, 3):
                sync.on_status("v2", height)
                await anyio.sleep(FAST.sync_grace / 3)
                follower.blocks.append(blocks[height - 1])
            await anyio.sleep(FAST.sync_grace * 1.5)
            assert v2.asked == []
        started = time.perf_counter()
        running = following(pki, ("v2", v2.port), role="validator", start=blocks[:2])
        async with running as (follower, sync):
            sync.on_status("v2", 3)
            await until(lambda: follower.height() == 3)
            assert time.perf_counter() - started >= FAST.sync_grace


async def test_a_peer_is_not_blamed_for_a_block_it_never_announced(pki):
    """Consensus brought the block while the peer was being chosen."""
    blocks = chain(3)
    async with serving(pki, "v2", blocks) as v2:
        async with following(pki, ("v2", v2.port), start=blocks) as (follower, sync):
            source = sync._sources["v2"]
            source.height = 3
            with anyio.fail_after(5):
                assert await sync._peers.attempt(source, partial(sync._fetch, source))
            assert (source.failures, follower.faults) == (0, [])


async def test_a_validator_two_behind_fetches_at_once(pki):
    blocks = chain(2)
    patient = replace(FAST, sync_grace=30.0)
    async with serving(pki, "v2", blocks) as v2:
        running = following(pki, ("v2", v2.port), role="validator", timing=patient)
        async with running as (follower, sync):
            sync.on_status("v2", 1)
            await anyio.sleep(0.05)
            assert v2.asked == []
            sync.on_status("v2", 2)
            await until(lambda: follower.height() == 2)


def forged():
    """Blocks that no quorum has signed, by what is wrong with them."""
    good = chain(3)[0]
    votes = good.certificate.signatures
    other = chain(3)[1]
    return {
        "too few votes": certify(good.block, KEYS[:2]),
        "other's votes": CertifiedBlock(good.block, other.certificate),
        "swapped votes": msgspec.structs.replace(
            good,
            certificate=msgspec.structs.replace(
                good.certificate,
                signatures=tuple(
                    VoteSignature(i, v.signature) for i, v in enumerate(reversed(votes))
                ),
            ),
        ),
        "other transactions": CertifiedBlock(
            Block(good.block.header, (b"forged",)), good.certificate
        ),
        "another height": other,
        "garbage": b"\xc1garbage",
    }


@pytest.mark.parametrize("lie", list(forged()))
async def test_a_forged_block_is_never_adopted_and_its_sender_left(pki, lie):
    """v2 lies; the block comes from v3, and v2's claim counts no more."""
    async with (
        serving(pki, "v2", [forged()[lie]]) as v2,
        serving(pki, "v3", chain(3)) as v3,
        following(pki, ("v2", v2.port), ("v3", v3.port)) as (follower, sync),
    ):
        sync.on_status("v2", 1)
        await until(lambda: follower.faults == [("v2", "malformed")])
        assert follower.blocks == []
        assert sync.target_height == 0
        sync.on_status("v2", 9)
        assert sync.target_height == 0
        sync.on_status("v3", 3)
        await until(lambda: follower.blocks == chain(3))
        assert len(v2.asked) == 1


async def test_a_claim_without_blocks_costs_its_author_belief(pki):
    async with serving(pki, "v2", chain(1)) as v2:
        async with following(pki, ("v2", v2.port)) as (follower, sync):
            v2.claimed = 10**15
            sync.on_status("v2", v2.claimed)
            await until(lambda: follower.faults)
            assert follower.faults == [("v2", "malformed")]
            assert follower.height() == sync.target_height == 1
            await anyio.sleep(FAST.sync_ban * 1.1)
            v2.claimed = 0  # it may come back to the truth
            v2.blocks.append(chain(2)[1])
            sync.on_status("v2", 2)
            await until(lambda: follower.height() == 2)


async def test_a_peer_that_is_down_is_no_liar(pki):
    """It is asked again and again, with pauses, and its claim stands."""
    async with serving(pki, "v2", []) as gone:
        port = gone.port
    async with following(pki, ("v2", port)) as (follower, sync):
        sync.on_status("v2", 1)
        await until(lambda: len(follower.faults) == 3)
        assert set(follower.faults) == {("v2", "aborted")}
        assert sync.target_height == 1


async def test_a_peer_that_does_not_answer_is_replaced(pki):
    async with serving(pki, "v2", chain(1)) as v2, serving(pki, "v3", chain(2)) as v3:
        async with following(pki, ("v2", v2.port), ("v3", v3.port)) as (follower, sync):
            sync.on_status("v2", 1)
            await until(lambda: follower.height() == 1)
            v2.blocks.append(chain(2)[1])
            sync._sources["v2"].session._reader.feed_data = lambda _data: None
            sync.on_status("v2", 2)
            await until(lambda: sync.in_progress)
            sync.on_status("v3", 2)
            await until(lambda: follower.height() == 2)
            assert follower.faults == [("v2", "timeout")]


async def test_a_restarted_server_is_dialled_anew(pki):
    blocks = chain(2)
    async with serving(pki, "v3", blocks) as v3:
        async with serving(pki, "v2", blocks[:1]) as v2:
            async with following(pki, ("v2", v2.port), ("v3", v3.port)) as (follower, sync):
                sync.on_status("v2", 1)
                await until(lambda: follower.height() == 1)
                # The old connection ends as it does when the process is stopped.
                sync._sources["v2"].session.abort()
                v2.blocks.append(blocks[1])
                sync.on_status("v2", 2)
                await until(lambda: follower.height() == 2)
                assert v3.asked == []
                assert follower.faults == []


async def test_a_block_that_the_ledger_refuses_is_reported_and_tried_again(pki):
    """A quorum signed it, so the announcement stays believed: we are the ones out of step."""
    async with serving(pki, "v2", chain(1)) as v2:
        async with following(pki, ("v2", v2.port)) as (follower, sync):
            follower.adopting = RefusedError("bad_block", "state root differs")
            sync.on_status("v2", 1)
            await until(lambda: len(follower.faults) >= 2)
            assert set(follower.faults) == {("v2", "internal")}
            assert sync.target_height == 1
            follower.adopting = None
            await until(lambda: follower.height() == 1)


async def test_a_storage_error_ends_the_node(pki):
    async with serving(pki, "v2", chain(1)) as v2:
        with pytest.RaisesGroup(
            pytest.RaisesExc(StorageError, match="disk full"), flatten_subgroups=True
        ):
            async with following(pki, ("v2", v2.port)) as (follower, sync):
                follower.adopting = StorageError("disk full")
                sync.on_status("v2", 1)
                await anyio.sleep(5)


async def test_a_peer_that_left_is_not_asked(pki):
    async with serving(pki, "v2", chain(1)) as v2:
        running = following(pki, ("v2", v2.port), role="validator")
        async with running as (_, sync):
            sync.on_status("v2", 1)
            sync.on_disconnected("v2")
            sync.on_disconnected("unknown")
            sync.on_status("unknown", 7)
            assert sync.target_height == 0
            await anyio.sleep(FAST.sync_grace * 1.5)
            assert v2.asked == []


class Stranger:
    """As much of a node as decides whether it is in step; v1 of four, all connected."""

    def __init__(self, sync, height):
        self.config = SimpleNamespace(name="v1")
        self.ledger = SimpleNamespace(height=height, validators=VALIDATORS)
        others = [SimpleNamespace(connected=True, name=f"v{i}") for i in (2, 3, 4)]
        self.network = SimpleNamespace(peers=lambda: others)
        self.sync = sync
        self.driver = SimpleNamespace(wake=lambda: self.woken.append(True))
        self.woken = []

    _quorate = Node._quorate


async def test_one_liar_takes_nobody_out_of_step(pki):
    """A height that f validators, or an observer, never serve does not stop the chain."""
    names = [validator.name for validator in VALIDATORS]
    assert len(names) == 4
    peers = [peer(name) for name in names if name != "v1"]
    observer = peer("watcher", role="observer")
    sync = BlockSync(
        settings(pki, "v1", *peers, observer),
        lambda _height: VALIDATORS,
        height=lambda: 5,
        adopt=None,
    )
    node = Stranger(sync, 5)
    assert Node.in_step(node)
    sync.on_status("watcher", 2**40)
    sync.on_status(peers[0].name, 2**40)
    assert Node.in_step(node)
    assert not Node.newest(node)  # for a new folder one voice is enough
    sync.on_status(peers[1].name, 6)
    assert not Node.in_step(node)
    assert sync.claimed_by(names, 2) == 6
    assert sync.claimed_by(names, 1) == 2**40
    assert sync.claimed_by(names, 4) == sync.claimed_by([], 1) == 0


async def test_a_claim_that_ends_wakes_the_driver(pki):
    """The peer leaves, or is not believed any more: the node may be in step again."""
    mine = settings(pki, "v1", peer("v2"))
    sync = BlockSync(mine, lambda _height: VALIDATORS, height=lambda: 5, adopt=None)
    node = Stranger(sync, 5)
    sync.on_status("v2", 2**40)
    assert not Node.newest(node)
    Node.on_disconnected(node, "v2")
    assert Node.newest(node)
    assert node.woken == [True]
    Node._sync_failed(node, "v2", "malformed")
    assert node.woken == [True, True]
