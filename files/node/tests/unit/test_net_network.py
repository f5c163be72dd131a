# SPDX-License-Identifier: Apache-2.0
"""Connections between members over real TLS on loopback."""

import socket
from dataclasses import replace

import anyio
import anyio.lowlevel
import pytest
from net_support import FAST, Pki, Recorder, Slow, pair, peer, running, settings, until

from holdfast_node.errors import ConfigError, RefusedError, StorageError
from holdfast_node.net.wire import Consensus, Status, Transactions

pytestmark = pytest.mark.anyio
HASH = b"\x02" * 32


@pytest.fixture(
    params=[("asyncio", {"use_uvloop": False}), ("asyncio", {"use_uvloop": True})],
    ids=["asyncio", "uvloop"],
)
def anyio_backend(request):
    return request.param


@pytest.fixture(scope="module")
def pki(tmp_path_factory):
    return Pki(tmp_path_factory.mktemp("pki"))


async def test_messages_go_both_ways_in_order(pki):
    async with pair(pki) as (v1, v2):
        await until(lambda: v1.connected("v2") and v2.connected("v1"))
        for i in range(500):
            assert v1.network.send("v2", Consensus(b"%d" % i))
        assert v2.network.broadcast(Status(9, HASH, 4), to="all") == 1
        assert v2.network.broadcast(Transactions((b"t",)), to="validators") == 1
        await until(lambda: len(v2.handler.messages) == 500 and len(v1.handler.messages) == 2)
        assert v2.handler.messages == [("v1", Consensus(b"%d" % i)) for i in range(500)]
        assert ("v2", Status(9, HASH, 4)) in v1.handler.messages
        await until(lambda: v1.status("v2").latency_s is not None)
        status = v1.status("v2")
        assert (status.height, status.view, status.dropped) == (9, 4, 0)


async def test_the_hello_tells_the_height(pki):
    async with pair(pki, handlers=(Recorder(3), Recorder(5))) as (v1, v2):
        await until(lambda: v1.connected("v2") and v2.connected("v1"))
        assert v1.handler.events == [("connected", "v2", 5)]
        assert v2.handler.events == [("connected", "v1", 3)]


async def test_large_messages_arrive(pki):
    async with pair(pki) as (v1, v2):
        await until(lambda: v1.connected("v2"))
        payload = bytes(range(256)) * 12_000
        v1.network.send("v2", Consensus(payload))
        v1.network.send("v2", Consensus(b"after"))
        await until(lambda: len(v2.handler.messages) == 2)
        assert v2.handler.messages[0][1].payload == payload


async def test_a_peer_that_is_away_gets_nothing(pki):
    async with running(settings(pki, "v2", peer("v1"))) as v2:
        assert not v2.network.send("v1", Consensus(b"x"))
        assert not v2.network.send("nobody", Consensus(b"x"))
        assert v2.network.broadcast(Consensus(b"x"), to="all") == 0
        assert v2.status("v1").queued_bytes == 0


async def test_a_peer_is_dialled_until_it_is_there_and_again_after_a_restart(pki):
    """Both see the loss, and the connection comes back by itself."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    two = settings(pki, "v2", peer("v1"), port=port)
    async with running(settings(pki, "v1", peer("v2", port))) as v1:
        await until(lambda: v1.status("v2").last_error)
        async with running(two) as v2:
            await until(lambda: v1.connected("v2") and v2.connected("v1"))
            assert v1.status("v2").last_error is None
        await until(lambda: not v1.connected("v2"))
        async with running(two) as v2:
            await until(lambda: v1.connected("v2") and v2.connected("v1"))
            v1.network.send("v2", Consensus(b"hello again"))
            await until(lambda: v2.handler.messages)
    kinds = [event[0] for event in v1.handler.events]
    assert kinds == ["connected", "disconnected", "connected", "disconnected"]


async def test_a_member_that_joins_again_is_dialled_where_it_is_now(pki):
    """The chain names it with its new address; the configured ones stay as they are."""
    async with running(settings(pki, "v2", peer("v1"))) as v2:
        port = v2.port
        with socket.create_server(("127.0.0.1", 0)) as elsewhere:
            gone = elsewhere.getsockname()[1]
        async with running(settings(pki, "v1")) as v1:
            v1.network.learn(peer("v2", gone))
            await until(lambda: v1.status("v2").last_error)
            v1.network.learn(peer("v2", port))
            await until(lambda: v1.connected("v2") and v2.connected("v1"))
            assert [status.name for status in v1.network.peers()] == ["v2"]


async def test_observers_dial_validators_and_not_each_other(pki):
    one = settings(pki, "v9", peer("o1", role="observer"), peer("o2", role="observer"))
    async with running(one) as v9:
        peers = (peer("v9", v9.port), peer("o2", v9.port, role="observer"))
        async with running(settings(pki, "o1", *peers, role="observer")) as o1:
            await until(lambda: v9.connected("o1") and o1.connected("v9"))
            assert [p.name for p in o1.network.peers()] == ["v9"]
            assert v9.network.broadcast(Consensus(b"x"), to="validators") == 0
            assert v9.network.broadcast(Status(1, HASH, 0), to="all") == 1
            await until(lambda: o1.handler.messages)


async def test_a_slow_handler_holds_back_its_peer_only(pki):
    """Back-pressure: what is not read stays with the sender, bounded, and the link stays up."""

    slow = Slow()
    async with pair(pki, handlers=(None, slow), first={"outbox_bytes": 2**20}) as (v1, v2):
        await until(lambda: v1.connected("v2") and v2.connected("v1"))
        for _ in range(400):
            v1.network.send("v2", Transactions((bytes(60_000),)))
            await anyio.lowlevel.checkpoint()
        await anyio.sleep(FAST.silence * 2)
        status = v1.status("v2")
        assert status.connected
        assert status.queued_bytes <= 2**20
        assert status.dropped > 0
        v1.network.send("v2", Consensus(b"vote"))
        slow.gate.set()
        await until(lambda: ("v1", Consensus(b"vote")) in slow.messages)
        # What was not dropped arrives, all of it.
        await until(lambda: len(slow.messages) + v1.status("v2").dropped == 401)


@pytest.mark.parametrize(
    ("error", "reason"),
    [(RefusedError("bad_vote", "no"), "malformed"), (ZeroDivisionError("oops"), "internal")],
)
async def test_a_message_that_cannot_be_handled_closes_that_connection_only(pki, error, reason):
    class Strict(Recorder):
        async def on_message(self, peer, message):
            if message == Consensus(b"bad"):
                raise error
            await super().on_message(peer, message)

    async with pair(pki, handlers=(None, Strict())) as (v1, v2):
        await until(lambda: v1.connected("v2"))
        v1.network.send("v2", Consensus(b"bad"))
        await until(lambda: reason in v2.refused)
        await until(lambda: v1.handler.events.count(("connected", "v2", 0)) == 2)
        v1.network.send("v2", Consensus(b"good"))
        await until(lambda: ("v1", Consensus(b"good")) in v2.handler.messages)


async def test_a_storage_error_is_not_swallowed(pki):
    """A node whose disk fails must not go on, whoever's message showed it."""

    class Failing(Recorder):
        async def on_message(self, peer, message):
            raise StorageError("disk full")

    with pytest.RaisesGroup(
        pytest.RaisesExc(StorageError, match="disk full"), flatten_subgroups=True
    ):
        async with pair(pki, handlers=(None, Failing())) as (v1, _):
            await until(lambda: v1.connected("v2"))
            v1.network.send("v2", Consensus(b"x"))
            await anyio.sleep(5)


async def test_a_silent_peer_is_dropped(pki):
    """A host that vanished without closing: no byte for `silence` seconds."""
    deaf = replace(FAST, heartbeat=30.0)
    async with pair(pki, first={"timing": deaf}) as (v1, v2):
        # v1 sends a ping at once and then none; v2's pings are answered, so v1 must be made deaf.
        await until(lambda: v2.connected("v1"))
        v1.network._links["v2"].outbox.put = lambda *_args, **_kwargs: None
        await until(lambda: "timeout" in v2.refused)
        await until(lambda: ("disconnected", "v1") in v2.handler.events)


async def test_a_second_connection_of_a_live_peer_is_refused(pki):
    async with pair(pki) as (v1, v2):
        await until(lambda: v1.connected("v2") and v2.connected("v1"))
        async with running(settings(pki, "v1", peer("v2", v2.port))) as twin:
            await until(lambda: "duplicate" in v2.refused)
            assert twin.handler.events == []
        v1.network.send("v2", Consensus(b"still here"))
        await until(lambda: v2.handler.messages)
        assert v2.handler.events == [("connected", "v1", 0)]


async def test_a_second_connection_replaces_a_dead_one(pki):
    """The peer's host lost power; it is back before we have noticed."""
    patient = replace(FAST, silence=60.0)
    async with pair(pki, second={"timing": patient}) as (v1, v2):
        await until(lambda: v1.connected("v2") and v2.connected("v1"))
        v1.network._links["v2"].outbox.put = lambda *_args, **_kwargs: None
        await anyio.sleep(FAST.heartbeat * 2)
        async with running(settings(pki, "v1", peer("v2", v2.port))) as twin:
            await until(lambda: twin.connected("v2"))
            twin.network.send("v2", Consensus(b"back"))
            await until(lambda: ("v1", Consensus(b"back")) in v2.handler.messages)
            kinds = [event[0] for event in v2.handler.events]
            assert kinds == ["connected", "disconnected", "connected"]


async def test_a_peer_that_we_dial_must_not_dial_us(pki):
    """One connection per pair, always from the same side."""
    async with running(settings(pki, "v1", peer("v2"))) as v1:
        # A v2 that believes to be a validator facing an observer named v1's place: it dials.
        wrong = settings(pki, "v2", peer("v1", v1.port), role="observer")
        async with running(wrong):
            await until(lambda: "unexpected" in v1.refused)
        assert v1.handler.events == []


async def test_an_occupied_port_is_an_error_with_a_way_out(pki):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        occupied = settings(pki, "v2", port=taken.getsockname()[1])
        expected = pytest.RaisesExc(
            ConfigError, match=r"p2p\.listen = 127\.0\.0\.1:\d+: Address already in use: .*another"
        )
        with pytest.RaisesGroup(expected, flatten_subgroups=True):
            async with running(occupied):
                pass
