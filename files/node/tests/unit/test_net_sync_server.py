# SPDX-License-Identifier: Apache-2.0
"""The sync server gives members blocks, and nobody more than a share of the node."""

import time
from dataclasses import replace

import anyio
import pytest
from net_blocks import chain, serving
from net_support import FAST, Pki, peer, settings, until

from holdfast_node.errors import ConfigError
from holdfast_node.net.session import Terms, dial
from holdfast_node.net.sync import SyncServer
from holdfast_node.net.sync_server import PAGE_BYTES, Budget
from holdfast_node.net.wire import Blocks, GetBlocks, PeerError, to_frame


@pytest.fixture(
    params=[("asyncio", {"use_uvloop": False}), ("asyncio", {"use_uvloop": True})],
    ids=["asyncio", "uvloop"],
)
def anyio_backend(request):
    return request.param


@pytest.fixture(scope="module")
def pki(tmp_path_factory):
    return Pki(tmp_path_factory.mktemp("pki"))


async def ask(session, *request):
    await session.send(to_frame(GetBlocks(*request)))
    return await session.receive(Blocks)


def client(pki, port):
    terms = Terms(settings(pki, "v1", peer("v2")), 2**23, lambda: 0)
    return dial(("127.0.0.1", port), peer("v2"), terms)


@pytest.mark.anyio
async def test_the_server_bounds_what_is_asked(pki):
    async with serving(pki, "v2", chain(3)) as v2:
        session = await client(pki, v2.port)
        assert len((await ask(session, 1, 2, 2**20)).blocks) == 2
        assert (await ask(session, 9, 2, 2**20)) == Blocks((), 3, 1)
        assert len((await ask(session, 0, 1, 2**26)).blocks) == 1
        assert v2.asked == [(1, 2, 2**20), (9, 2, 2**20), (1, 1, PAGE_BYTES)]
        await session.send(to_frame(GetBlocks(1, 1, 2**27)))
        await until(lambda: v2.refused == ["malformed"])
        await session.close()


@pytest.mark.anyio
async def test_a_large_request_is_refused(pki):
    async with serving(pki, "v2", chain(1)) as v2:
        session = await client(pki, v2.port)
        await session.send(b"\0\1\0\0" + b"x" * 100)
        await until(lambda: v2.refused == ["oversized"])
        await session.close()


@pytest.mark.anyio
async def test_a_member_has_two_sync_sessions_at_most(pki):
    """The oldest yields: it is the one that died unnoticed."""
    async with serving(pki, "v2", chain(1)) as v2:
        sessions = [await client(pki, v2.port) for _ in range(3)]
        assert len((await ask(sessions[1], 1, 1, 100)).blocks) == 1
        assert len((await ask(sessions[2], 1, 1, 100)).blocks) == 1
        with pytest.raises(ConnectionError):
            await ask(sessions[0], 1, 1, 100)
        for session in sessions:
            await session.close()


@pytest.mark.anyio
async def test_an_idle_session_is_closed(pki):
    async with serving(pki, "v2", [], timing=replace(FAST, sync_idle=0.1)) as v2:
        session = await client(pki, v2.port)
        with pytest.raises(ConnectionError), anyio.fail_after(3):
            await session.receive(Blocks)
        await session.close()
        assert v2.refused == []


@pytest.mark.anyio
async def test_no_member_no_blocks(pki):
    async with serving(pki, "v2", chain(1), members=("v3",)) as v2:
        with pytest.raises(PeerError) as caught:
            await client(pki, v2.port)
        assert caught.value.reason == "aborted"
        await until(lambda: v2.refused == ["not_member"])


@pytest.mark.anyio
async def test_an_occupied_port_is_an_error_with_a_way_out(pki):
    async with serving(pki, "v2", []) as v2:
        mine = settings(pki, "v3", sync_port=v2.port)
        server = SyncServer(mine, blocks=v2.read, height=v2.height)
        with pytest.raises(ConfigError, match=r"sync_listen = 127\.0\.0\.1:\d+: Address .*another"):
            await server.run(task_status=anyio.TASK_STATUS_IGNORED)


def test_a_budget_lets_a_burst_through_and_then_its_rate(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    budget = Budget(rate=100, burst=1000)
    assert budget.spend(1000) == 0
    assert budget.spend(50) == pytest.approx(0.5)
    now[0] = 1.0
    assert budget.spend(50) == 0
    now[0] = 1000.0
    assert budget.spend(1100) == pytest.approx(1.0)
