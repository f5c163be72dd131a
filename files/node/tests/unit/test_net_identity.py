# SPDX-License-Identifier: Apache-2.0
"""Identities that change while the node runs: what is taken, and what becomes of the revoked."""

import hashlib
import shutil
import ssl
from dataclasses import replace
from datetime import timedelta
from functools import partial

import anyio
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from net_blocks import chain, serving
from net_support import FAST, Pki, pair, peer, settings, until
from structlog.testing import capture_logs

from holdfast_node.errors import ConfigError
from holdfast_node.net import keeper as keeper_module
from holdfast_node.net.keeper import Keeper
from holdfast_node.net.session import Terms, dial
from holdfast_node.net.wire import Blocks, Consensus, GetBlocks, to_frame

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
    """Files are looked at often."""
    monkeypatch.setattr(keeper_module, "LOOK_SECONDS", 0.02)


def both(v1, v2):
    return v1.connected("v2") and v2.connected("v1")


# The keeper: what is on disk comes into use, or does not and everybody learns why


async def test_reload_takes_a_new_certificate(pki):
    keeper = Keeper(pki.tls("v1"))
    before, contexts = keeper.tls.not_after, (keeper.tls.loaded.server, keeper.tls.loaded.client)
    pki.issue("v1", lifetime=timedelta(hours=2))
    assert await keeper.reload()
    assert keeper.tls.not_after > before
    assert keeper.tls.loaded.server is not contexts[0]
    assert keeper.tls.loaded.client is not contexts[1]
    assert keeper.reloads == {"accepted": 1, "refused": 0}


async def test_what_is_in_use_can_be_compared_with_the_files(pki):
    """As a playbook does that has published a list or a root."""
    folder, leaf = pki.issue("v1")
    keeper = Keeper(pki.load("v1", folder))
    root = hashlib.sha256(pki.root.public_bytes(Encoding.DER)).hexdigest()
    before = {"serial": f"{leaf.serial_number:x}", "roots": root, "crls": ""}
    assert keeper.tls.loaded.summary == before
    crl = x509.load_pem_x509_crl(pki.revoke().read_bytes())
    assert keeper.tls.loaded.summary == before
    assert await keeper.reload()
    published = hashlib.sha256(crl.public_bytes(Encoding.DER)).hexdigest()
    assert keeper.tls.loaded.summary == {**before, "crls": published}


def mix(pki, folder):
    """The key of another pair."""
    other, _ = pki.issue("v6")
    shutil.copy(other / "key.pem", folder / "key.pem")


def expire(pki, _folder):
    pki.issue("v1", lifetime=timedelta(seconds=-1))


def rename(pki, folder):
    other, _ = pki.issue("v6")
    shutil.copytree(other, folder, dirs_exist_ok=True)


def remove(_pki, folder):
    (folder / "key.pem").unlink()


def distrust(pki, folder):
    Pki(folder / "other").trust()  # an authority of its own, whose roots are not ours
    shutil.copy(folder / "other/ca.pem", pki.folder / "ca.pem")


def garble(pki, _folder):
    pki.crl.write_text("rubbish")


def revoke(pki, _folder):
    _, leaf = pki.issue("v1")
    pki.revoke(leaf)


def outdo(pki, folder):
    """A root of a version of X.509 that there is not, which OpenSSL takes."""
    der = pki.root.public_bytes(Encoding.DER).replace(
        b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x09"
    )
    with (pki.folder / "ca.pem").open("a") as file:
        file.write(ssl.DER_cert_to_PEM_cert(der))


def circle(_pki, folder):
    (folder / "key.pem").unlink()
    (folder / "key.pem").symlink_to("key.pem")


@pytest.mark.parametrize(
    "damage", [outdo, circle, mix, expire, rename, remove, distrust, garble, revoke]
)
async def test_bad_files_are_refused_and_the_old_identity_stays(pki, damage):
    """Said with a way out, counted, visible as long as it lasts; right files end it."""
    folder, _ = pki.issue("v1")
    keeper = Keeper(pki.load("v1", folder))
    before = keeper.tls.loaded
    damage(pki, folder)
    with capture_logs() as logs:
        assert not await keeper.reload()
    (entry,) = [log for log in logs if log["event"] == "tls_reload_refused"]
    assert "tls." in entry["faults"][0]
    assert "stays in use" in entry["way_out"]
    assert keeper.tls.loaded is before
    assert keeper.refused
    assert keeper.reloads == {"accepted": 0, "refused": 1}
    (folder / "key.pem").unlink(missing_ok=True)
    pki.issue("v1")
    pki.trust(pki)
    pki.crl.unlink(missing_ok=True)
    assert await keeper.reload()
    assert not keeper.refused


@pytest.mark.usefixtures("quick")
async def test_changed_files_are_noticed_once_they_rest(pki):
    """No signal is needed; half-written files are not taken, and good ones only once."""
    folder, _ = pki.issue("v1")
    keeper = Keeper(pki.load("v1", folder))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(keeper.run)
        _, leaf = pki.issue("v1")
        await until(lambda: keeper.tls.loaded.identity.certificate == leaf)
        assert keeper.reloads["accepted"] == 1
        mix(pki, folder)
        await until(lambda: keeper.refused)
        pki.issue("v1")
        await until(lambda: not keeper.refused)
        assert keeper.reloads == {"accepted": 2, "refused": 1}
        pki.revoke()
        await until(lambda: keeper.tls.loaded.revocations.next_update)
        tasks.cancel_scope.cancel()


@pytest.mark.usefixtures("quick")
async def test_what_was_refused_is_tried_again(pki, monkeypatch):
    """Without another change of the files: the clock may have been wrong."""
    monkeypatch.setattr(keeper_module, "RETRY_SECONDS", 0.1)
    folder, _ = pki.issue("v1")
    keeper = Keeper(pki.load("v1", folder))
    mix(pki, folder)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(keeper.run)
        await until(lambda: keeper.reloads["refused"] >= 3)
        tasks.cancel_scope.cancel()


# Revocation


async def test_a_revoked_peer_is_refused_in_both_directions(pki):
    """By the one who listens and by the one who dials; the other one has no list."""
    other, leaf = pki.issue("v1")
    bare = replace_crl(pki.load("v1", other))
    pki.revoke(leaf)
    async with pair(pki, first={"tls": bare}) as (v1, v2):
        await until(lambda: "revoked" in v2.refused)
        assert v2.handler.events == v1.handler.events == []
    folder, leaf = pki.issue("v2")
    bare = replace_crl(pki.load("v2", folder))
    pki.revoke(leaf)
    async with pair(pki, second={"tls": bare}) as (v1, v2):
        await until(lambda: "revoked" in v1.refused)
        assert "is revoked" in v1.status("v2").last_error
        assert v2.handler.events == v1.handler.events == []


def replace_crl(tls):
    """As it would be without a list."""
    tls._crl = None
    tls.adopt(tls.load())
    return tls


@pytest.mark.parametrize("left", [timedelta(hours=1), timedelta(hours=-1)], ids=["fresh", "stale"])
async def test_sessions_of_a_revoked_peer_end_with_the_reload(pki, left):
    """At once, whatever they are doing; a list that is out of date goes on counting."""
    folder, leaf = pki.issue("v1")
    tls = pki.load("v2", pki.issue("v2")[0])
    first = {"tls": replace_crl(pki.load("v1", folder))}
    async with pair(pki, first=first, second={"tls": tls}) as (v1, v2):
        await until(partial(both, v1, v2))
        pki.revoke(leaf, left=left)
        with capture_logs() as logs:
            assert await Keeper(tls).reload()
        assert ("crl_stale" in [log["event"] for log in logs]) == (left < timedelta())
        with anyio.fail_after(1):
            await until(lambda: not v2.connected("v1"))
        assert v2.refused[0] == "revoked"
        assert "is revoked" in v2.status("v1").last_error
        await until(lambda: v2.refused.count("revoked") > 1)  # it tries again, for ever in vain


async def test_sessions_of_a_revoked_peer_end_within_three_seconds_of_the_list(pki):
    """Without a signal: two looks at the files, the second to see that they rest, and a reload."""
    folder, leaf = pki.issue("v1")
    tls = pki.load("v2", pki.issue("v2")[0])
    first = {"tls": replace_crl(pki.load("v1", folder))}
    async with (
        pair(pki, first=first, second={"tls": tls}) as (v1, v2),
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(Keeper(tls).run)
        await until(partial(both, v1, v2))
        pki.revoke(leaf)
        with anyio.fail_after(3):
            await until(lambda: not v2.connected("v1"))
            await until(lambda: not v1.connected("v2"))
        assert v2.refused[0] == "revoked"
        tasks.cancel_scope.cancel()


async def test_peers_that_are_not_revoked_stay(pki):
    _, other = pki.issue("v9")
    tls = pki.tls("v2")
    async with pair(pki, second={"tls": tls}) as (v1, v2):
        await until(partial(both, v1, v2))
        pki.revoke(other)
        assert await Keeper(tls).reload()
        v1.network.send("v2", Consensus(b"still here"))
        await until(lambda: v2.handler.messages)
        assert v2.refused == []
        assert len(v2.handler.events) == 1


async def test_sync_sessions_of_a_revoked_peer_end(pki):
    """On the side that serves blocks; an idle one, too."""
    folder, leaf = pki.issue("v1")
    tls = pki.tls("v2")
    terms = Terms(
        settings(pki, "v1", peer("v2"), tls=replace_crl(pki.load("v1", folder))), 2**23, lambda: 0
    )
    async with serving(pki, "v2", chain(1), tls=tls) as v2:
        client = await dial(("127.0.0.1", v2.port), peer("v2"), terms)
        await client.send(to_frame(GetBlocks(1, 1, 100)))
        await client.receive(Blocks)
        pki.revoke(leaf)
        assert await Keeper(tls).reload()
        with pytest.raises(ConnectionError), anyio.fail_after(1):
            await client.receive(Blocks)
        await until(lambda: v2.refused == ["revoked"])
        await client.close()


async def test_sync_is_not_served_after_the_end_of_a_certificate(pki):
    """A connection that idles over the end gets nothing more."""
    folder, _ = pki.issue("v1", lifetime=timedelta(seconds=2))
    terms = Terms(settings(pki, "v1", peer("v2"), tls=pki.load("v1", folder)), 2**23, lambda: 0)
    async with serving(pki, "v2", chain(1), timing=replace(FAST, sync_idle=9.0)) as v2:
        client = await dial(("127.0.0.1", v2.port), peer("v2"), terms)
        await until(lambda: client.overdue)
        assert str(client.overdue) == "the own certificate has run out"
        await client.send(to_frame(GetBlocks(1, 1, 100)))
        with pytest.raises(ConnectionError), anyio.fail_after(2):
            await client.receive(Blocks)
        assert v2.refused == ["expired"]
        assert v2.asked == []
        await client.close()


async def test_own_revocation_is_said_and_does_not_stop_the_node(pki):
    """The list is true; peers see to it that it counts."""
    folder, leaf = pki.issue("v1")
    keeper = Keeper(pki.load("v1", folder))
    pki.revoke(leaf)
    with capture_logs() as logs:
        assert await keeper.reload()
    assert "own_certificate_revoked" in [log["event"] for log in logs]
    with pytest.raises(ConfigError, match=r"revoked by .*crl\.pem"):
        pki.load("v1", folder)  # a start with it would be in vain


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"signed_by": ec.generate_private_key(ec.SECP256R1())}, "bad signature"),
        ({"extension": x509.DeltaCRLIndicator(1)}, r"critical extensions 2\.5\.29\.27"),
        ({"identified": False}, "the list of CN=inter does not say which key signed it"),
    ],
    ids=["forged", "delta", "anonymous"],
)
async def test_a_list_that_cannot_be_relied_on_is_refused(pki, how, said):
    folder, _ = pki.issue("v1")
    pki.revoke(**how)
    with pytest.raises(ConfigError, match=said):
        pki.load("v1", folder)


async def test_lists_of_two_authorities_each_count_for_their_own(pki, tmp_path):
    """The same serial number under another authority is another certificate."""
    other = Pki(tmp_path / "other")
    _, ours = pki.issue("v1")
    _, theirs = other.issue("v1")
    lists = other.revoke(ours, theirs).read_bytes() + pki.revoke().read_bytes()
    pki.crl.write_bytes(lists)
    revocations = pki.tls("v2").loaded.revocations
    assert revocations.covers(theirs)
    assert not revocations.covers(ours)
