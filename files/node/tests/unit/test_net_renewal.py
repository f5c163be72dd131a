# SPDX-License-Identifier: Apache-2.0
"""Sessions replaced before what they stand on ends, when identities are renewed or rolled over."""

import asyncio
import shutil
import socket
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from functools import partial

import anyio
import pytest
from net_support import FAST, Pki, Slow, pair, peer, running, settings, until

from holdfast_node.net import tls as tls_module
from holdfast_node.net.keeper import Keeper
from holdfast_node.net.session import Terms, accept, dial
from holdfast_node.net.wire import Bye, Consensus, PeerError, Renew, to_frame

pytestmark = pytest.mark.anyio


@pytest.fixture(
    params=[("asyncio", {"use_uvloop": False}), ("asyncio", {"use_uvloop": True})],
    ids=["asyncio", "uvloop"],
)
def anyio_backend(request):
    return request.param


@pytest.fixture
def pki(tmp_path):
    return Pki(tmp_path / "pki")


@pytest.fixture
def quick(monkeypatch):
    """Dropped trust has a short grace."""
    monkeypatch.setattr(tls_module, "GRACE_SECONDS", 1.0)


def session(node, name):
    return node.network._links[name].session


def both(v1, v2):
    return v1.connected("v2") and v2.connected("v1")


def end(node, name):
    link = session(node, name)
    return link.ends_at if link else 0.0


# Renewal: a session is replaced before its certificates end


def patient(renewal):
    return replace(FAST, renewal=renewal, silence=5.0, handshake=5.0)


@pytest.mark.parametrize("near", ["v1", "v2"], ids=["who dials", "who listens"])
async def test_a_session_is_replaced_before_its_end_and_nothing_is_lost(pki, near):
    """Messages go on in both directions, in order, and nobody notices a disconnection."""
    timing = {"timing": patient(1e6)}
    keepers = {}
    for name in ("v1", "v2"):
        life = {"lifetime": timedelta(seconds=30)} if name == near else {}
        keepers[name] = Keeper(pki.tls(name, **life))
    sides = [{**timing, "tls": keepers[name].tls} for name in ("v1", "v2")]
    async with pair(pki, first=sides[0], second=sides[1]) as (v1, v2):
        await until(partial(both, v1, v2))
        before = end(v1, "v2")
        assert before == pytest.approx(end(v2, "v1"))
        old = session(v1, "v2"), session(v2, "v1")
        sent = 0
        pki.issue(near, lifetime=timedelta(hours=1))
        await keepers[near].reload()
        with anyio.fail_after(10):
            while not (end(v1, "v2") > before and end(v2, "v1") > before):
                for _ in range(20):
                    assert v1.network.send("v2", Consensus(b"%d" % sent))
                    assert v2.network.send("v1", Consensus(b"%d" % sent))
                    sent += 1
                await anyio.sleep(0.002)
        await until(lambda: len(v1.handler.messages) == len(v2.handler.messages) == sent)
        for node, name in ((v1, "v2"), (v2, "v1")):
            assert node.handler.messages == [(name, Consensus(b"%d" % i)) for i in range(sent)]
            assert node.handler.events == [("connected", name, 0)]
            assert node.refused == []
        await until(lambda: all(each.is_closed for each in old))


async def test_a_peer_that_reads_slowly_loses_nothing_when_a_session_is_replaced(pki):
    """What was sent is still in our buffers when both have said farewell; it stays until read."""
    slow = Slow()
    keeper = Keeper(pki.tls("v2", lifetime=timedelta(seconds=30)))
    first, second = {"timing": patient(0.5)}, {"timing": patient(1e6), "tls": keeper.tls}
    async with pair(pki, first=first, second=second, handlers=(None, slow)) as (v1, v2):
        await until(partial(both, v1, v2))
        old = session(v1, "v2")
        sent = 0
        with anyio.fail_after(10):
            while old._writer.transport.get_write_buffer_size() < 2**16:
                v1.network.send("v2", Consensus(b"%d" % sent + bytes(2**15)))
                sent += 1
                await anyio.sleep(0.002)
        pki.issue("v2", lifetime=timedelta(minutes=30))
        assert await keeper.reload()
        await until(lambda: session(v1, "v2") is not old)
        await anyio.sleep(1.5)  # a moment longer than any other session takes to close
        assert not v2.handler.messages
        slow.gate.set()
        v1.network.send("v2", Consensus(b"last"))
        await until(lambda: len(slow.messages) == sent + 1)
        numbers = [int(message.payload.rstrip(b"\0")) for _, message in slow.messages[:-1]]
        assert numbers == list(range(sent))
        await until(lambda: old.is_closed)
        for node, name in ((v1, "v2"), (v2, "v1")):
            assert node.handler.events == [("connected", name, 0)]
            assert node.refused == []


async def test_a_session_is_not_replaced_without_gain_or_need(pki):
    """Far from its end, or with nothing newer to show, it stays."""
    async with pair(pki, first={"timing": patient(1e6)}, second={"timing": patient(1.0)}) as (
        v1,
        v2,
    ):
        await until(partial(both, v1, v2))
        kept = session(v1, "v2")
        await anyio.sleep(1)
        assert session(v1, "v2") is kept
        assert v2.handler.events == [("connected", "v1", 0)]


async def test_a_connection_ends_with_the_peers_certificate(pki):
    tls = pki.tls("v1", lifetime=timedelta(seconds=2))
    async with pair(pki, first={"tls": tls}) as (v1, v2):
        await until(lambda: v2.connected("v1"))
        await until(lambda: v2.refused and not v2.connected("v1"))
        seen = len(v2.refused)
        await until(lambda: len(v2.refused) > seen)  # closed, then refused for ever
        # Its own side knows as well; where that closes first, the other sees a handshake end early.
        assert "expired" in v2.refused
        assert set(v2.refused) <= {"expired", "aborted"}
        assert v1.status("v2").last_error


@pytest.mark.parametrize("message", [Bye(), Renew()], ids=["bye", "renew"])
async def test_a_peer_that_announces_a_session_and_brings_none(pki, message):
    """A farewell without a successor ends the connection; a request alone changes nothing."""
    async with pair(pki) as (v1, v2):
        await until(partial(both, v1, v2))
        v1.network._links["v2"].outbox.put(to_frame(message), bulk=False)
        if isinstance(message, Bye):
            await until(lambda: v2.refused == ["unexpected"])
            await until(lambda: len(v2.handler.events) == 3)
            return
        v1.network.send("v2", Consensus(b"on"))
        await until(lambda: v2.handler.messages)
        assert v2.handler.events == [("connected", "v1", 0)]


async def test_a_twin_cannot_take_the_place_of_a_live_peer(pki):
    """Only the present session can announce its successor."""
    async with pair(pki) as (v1, v2):
        await until(partial(both, v1, v2))
        async with running(settings(pki, "v1", peer("v2", v2.port))) as twin:
            await until(lambda: v2.refused.count("duplicate") >= 2)
            assert twin.handler.events == []
        assert v2.handler.events == [("connected", "v1", 0)]


# Rollover: both roots are trusted, then one


@pytest.mark.usefixtures("quick")
async def test_a_rollover_of_the_authority_is_not_noticed(pki, tmp_path):
    """Trust both, issue anew one after the other, drop the old: no disconnection in any phase."""
    new = Pki(tmp_path / "new")
    keepers = {name: Keeper(pki.tls(name)) for name in ("v1", "v2")}
    sides = [{"tls": k.tls, "timing": patient(0.5)} for k in keepers.values()]
    async with pair(pki, first=sides[0], second=sides[1]) as (v1, v2):

        async def reload(name):
            assert await keepers[name].reload()
            sent = Consensus(name.encode())
            v1.network.send("v2", sent)
            await until(lambda: ("v1", sent) in v2.handler.messages)

        await until(partial(both, v1, v2))
        old = session(v1, "v2"), session(v2, "v1")
        pki.trust(pki, new)
        for name in keepers:
            await reload(name)
        for name in keepers:
            folder, _ = new.issue(name)
            shutil.copytree(folder, pki.folder / name, dirs_exist_ok=True)
            await reload(name)
        assert (session(v1, "v2"), session(v2, "v1")) == old  # until their certificates end
        pki.trust(new)
        for name in keepers:
            await reload(name)
        await until(lambda: session(v1, "v2") is not old[0] and session(v2, "v1") is not old[1])
        for node, name in ((v1, "v2"), (v2, "v1")):
            assert node.handler.events == [("connected", name, 0)]
            assert node.refused == []
            assert new.key.public_key() == issuer_of(session(node, name), new)


def issuer_of(link, authority):
    link.identity.certificate.verify_directly_issued_by(authority.intermediate)
    return authority.intermediate.public_key()


@pytest.fixture
def new(tmp_path):
    return Pki(tmp_path / "new")


@pytest.fixture
def halfway(pki, new, tmp_path):
    """v1 under the old root and v2 under the new one, both trusting both."""
    pki.trust(pki, new)
    folder, _ = new.issue("v2")
    two = pki.load("v2", shutil.copytree(folder, tmp_path / "v2"))
    bare = Pki(tmp_path / "bare")
    bare.trust(pki, new)
    return pki.load("v1", pki.issue("v1")[0], of=bare), two


@pytest.mark.usefixtures("quick")
async def test_a_session_under_a_dropped_root_ends_after_its_grace(pki, new, halfway):
    """A peer that was not issued anew has no way back."""
    one, tls = halfway
    async with pair(pki, first={"tls": one}, second={"tls": tls}) as (v1, v2):
        await until(partial(both, v1, v2))
        pki.trust(new)
        assert await Keeper(tls).reload()
        assert v2.connected("v1")
        await until(lambda: not v2.connected("v1"))
        assert v2.refused[0] == "wrong_ca"
        await until(lambda: v2.refused.count("wrong_ca") > 1)


def terms(pki, name, other, tls):
    changes = {"tls": tls, "timing": patient(0.5)}
    return Terms(settings(pki, name, peer(other), **changes), 2**23, lambda: 0)


@asynccontextmanager
async def begun(dials, pki, tls):
    """v2's handshake with v1, begun, in a task, and v1's end of the TCP connection."""
    mine = terms(pki, "v2", "v1", tls)
    loop = asyncio.get_running_loop()
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket() as client:
        server.setblocking(False)
        address = server.getsockname()
        if dials:
            task = loop.create_task(dial(address, peer("v1"), mine))
            end, _ = await loop.sock_accept(server)
        else:
            client.setblocking(False)
            await loop.sock_connect(client, address)
            accepted, _ = await loop.sock_accept(server)
            task = loop.create_task(accept(accepted, "v1", mine, lambda _name: None))
            end = client
        await anyio.wait_all_tasks_blocked()
        yield task, end


@pytest.mark.parametrize("dials", [True, False], ids=["dials", "listens"])
async def test_a_root_dropped_during_a_handshake_counts(pki, new, halfway, dials):
    """The session is not up yet when the others are judged: nothing later would end it."""
    one, tls = halfway
    async with begun(dials, pki, tls) as (handshake, end):
        pki.trust(new)
        tls.adopt(tls.load())
        other = asyncio.StreamReaderProtocol(asyncio.StreamReader())
        loop = asyncio.get_running_loop()
        if dials:
            shake = loop.connect_accepted_socket(lambda: other, end, ssl=one.loaded.server)
        else:
            shake = loop.create_connection(
                lambda: other, sock=end, ssl=one.loaded.client, server_hostname="v2"
            )
        transport, _ = await shake
        try:
            with pytest.raises(PeerError, match="a root was dropped") as caught:
                await handshake
        finally:
            transport.abort()
        assert caught.value.reason == "wrong_ca"


async def test_a_certificate_renewed_during_a_handshake_does_not_count_for_it(pki):
    """The session ends with what was shown."""
    tls = pki.tls("v2")
    shown = tls.loaded.identity
    async with begun(True, pki, tls) as (handshake, end):
        pki.issue("v2", lifetime=timedelta(hours=2))
        tls.adopt(tls.load())
        theirs = await accept(end, "v2", terms(pki, "v1", "v2", pki.tls("v1")), lambda _name: None)
        ours = await handshake
        await ours.close()
        await theirs.close()
        assert ours.own == theirs.identity == shown
        assert ours.ends_at <= shown.not_after < tls.not_after
