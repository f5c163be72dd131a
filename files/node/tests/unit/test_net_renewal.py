# SPDX-License-Identifier: Apache-2.0
"""Sessions replaced before what they stand on ends, when identities are renewed or rolled over."""

import shutil
from dataclasses import replace
from datetime import timedelta
from functools import partial

import anyio
import pytest
from net_support import FAST, Pki, pair, peer, running, settings, until

from holdfast_node.net import tls as tls_module
from holdfast_node.net.keeper import Keeper
from holdfast_node.net.wire import Bye, Consensus, Renew, to_frame

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
        assert set(v2.refused) == {"expired"}
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


@pytest.mark.usefixtures("quick")
async def test_a_session_under_a_dropped_root_ends_after_its_grace(pki, tmp_path):
    """A peer that was not issued anew has no way back."""
    new = Pki(tmp_path / "new")
    folder, _ = new.issue("v2")
    tls = pki.load("v2", shutil.copytree(folder, tmp_path / "v2"), of=trusting(pki, new))
    bare = Pki(tmp_path / "bare")
    bare.trust(pki, new)
    one = pki.load("v1", pki.issue("v1")[0], of=bare)
    async with pair(pki, first={"tls": one}, second={"tls": tls}) as (v1, v2):
        await until(partial(both, v1, v2))
        pki.trust(new)
        assert await Keeper(tls).reload()
        assert v2.connected("v1")
        await until(lambda: not v2.connected("v1"))
        assert v2.refused[0] == "wrong_ca"
        await until(lambda: v2.refused.count("wrong_ca") > 1)


def trusting(pki, *others):
    pki.trust(pki, *others)
    return pki
