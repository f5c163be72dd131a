# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: SIM117  # the second network needs the first one's port: nesting shows it
"""Who is not let in, and why: every refusal has its reason, and costs a member nothing."""

import asyncio
import gc
import ssl
import struct
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import anyio
import pytest
import uvloop
from net_support import CHAIN, DOMAIN, FAST, GENESIS, Pki, pair, peer, running, settings, until

from holdfast_node.net.listener import HALF_OPEN_PER_ADDRESS
from holdfast_node.net.tls import spiffe_id
from holdfast_node.net.wire import Consensus, Hello, to_frame

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


@pytest.fixture(scope="module")
def strangers(tmp_path_factory):
    return Pki(tmp_path_factory.mktemp("strangers"))


def descriptors():
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.fixture(autouse=True)
def no_descriptor_is_left():
    """Whatever came in was closed."""
    warm_up = uvloop.new_event_loop()  # the first loop opens what all later ones share
    warm_up.run_until_complete(asyncio.sleep(0))
    warm_up.close()
    before = descriptors()
    yield
    gc.collect()
    assert descriptors() <= before


def client_context(pki, name=None, **issue):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if name is not None:
        folder, _ = pki.issue(name, **issue)
        context.load_cert_chain(folder / "chain.pem", folder / "key.pem")
    return context


@asynccontextmanager
async def connection(port, context=None):
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()
        await anyio.sleep(0.02)


async def read_to_end(reader):
    """What the node says before it closes; it must close."""
    data = b""
    with anyio.fail_after(3):
        try:
            while piece := await reader.read(65_536):
                data += piece
        except OSError:
            pass
    return data


HELLO = Hello(1, CHAIN, GENESIS, "v1", 0)


@asynccontextmanager
async def listening(pki, **changes):
    async with running(settings(pki, "v2", peer("v1"), **changes)) as v2:
        yield v2
        assert v2.handler.messages == []


@pytest.mark.parametrize(
    ("issue", "reason"),
    [
        ({}, "not_member"),
        ({"uris": [spiffe_id(DOMAIN, "other", "v1")]}, "other_chain"),
        ({"uris": [spiffe_id("other.example", CHAIN, "v1")]}, "not_member"),
        ({"uris": []}, "not_member"),
        ({"lifetime": timedelta(seconds=-1)}, "expired"),
    ],
    ids=["no member", "other chain", "other domain", "no name", "expired"],
)
async def test_a_certificate_of_our_ca_is_not_enough(pki, issue, reason):
    """And the node says nothing about itself to whom it refuses."""
    async with listening(pki) as v2:
        async with connection(v2.port, client_context(pki, "x1", **issue)) as (reader, _):
            assert await read_to_end(reader) == b""
        assert v2.refused == [reason]
        assert v2.handler.events == []


async def test_a_strangers_ca_is_refused(pki, strangers):
    async with listening(pki) as v2:
        async with connection(v2.port, client_context(strangers, "v1")) as (reader, _):
            assert await read_to_end(reader) == b""
        assert v2.refused == ["wrong_ca"]


async def test_no_certificate_is_refused(pki):
    async with listening(pki) as v2:
        async with connection(v2.port, client_context(pki)) as (reader, _):
            assert await read_to_end(reader) == b""
        assert v2.refused == ["tls"]


async def test_tls_1_2_is_refused(pki):
    context = client_context(pki, "v1")
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    async with listening(pki) as v2:
        with pytest.raises((ConnectionError, ssl.SSLError)):
            async with connection(v2.port, context):
                pass
        await until(lambda: v2.refused == ["tls"])


async def test_plain_text_is_refused(pki):
    async with listening(pki) as v2:
        async with connection(v2.port) as (reader, writer):
            writer.write(b"GET / HTTP/1.1\r\n\r\n")
            await read_to_end(reader)
        await until(lambda: v2.refused == ["tls"])


async def test_a_dialled_stranger_is_refused(pki, strangers):
    """The one who dials checks as much as the one who listens."""
    async with running(settings(strangers, "v2", peer("v1"))) as v2:
        async with running(settings(pki, "v1", peer("v2", v2.port))) as v1:
            await until(lambda: "wrong_ca" in v1.refused)
            assert v1.handler.events == v2.handler.events == []


async def test_a_dialled_member_must_be_the_one_expected(pki):
    """v2's address leads to v3."""
    async with running(settings(pki, "v3", peer("v1"), peer("v2"))) as v3:
        one = settings(pki, "v1", peer("v2", v3.port), peer("v3"))
        async with running(one) as v1:
            await until(lambda: "not_member" in v1.refused)
            assert "'v3', not 'v2'" in v1.status("v2").last_error
            assert v1.handler.events == []


@pytest.mark.parametrize(
    ("first", "reason"),
    [
        (to_frame(Hello(2, CHAIN, GENESIS, "v1", 0)), "version"),
        (to_frame(Hello(1, "other", GENESIS, "v1", 0)), "other_chain"),
        (to_frame(Hello(1, CHAIN, b"\x08" * 32, "v1", 0)), "other_genesis"),
        (to_frame(Hello(1, CHAIN, GENESIS, "v3", 0)), "not_member"),
        (to_frame(Consensus(b"x")), "malformed"),
        (struct.pack(">I", 5) + b"\xff" * 5, "malformed"),
        (struct.pack(">I", 0), "malformed"),
        (struct.pack(">I", 5000), "oversized"),
        (b"\xff" * 4, "oversized"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_a_wrong_hello_is_refused(pki, first, reason):
    async with listening(pki) as v2:
        async with connection(v2.port, client_context(pki, "v1")) as (reader, writer):
            writer.write(first)
            assert await read_to_end(reader) == to_frame(Hello(1, CHAIN, GENESIS, "v2", 0))
        assert v2.refused == [reason]
        assert v2.handler.events == []


@pytest.mark.parametrize(
    ("then", "reason"),
    [
        (to_frame(HELLO), "unexpected"),
        (struct.pack(">I", 4 * 2**20 + 1), "oversized"),
        (struct.pack(">I", 3) + b"\x93\x01\x02", "malformed"),
    ],
    ids=["second hello", "oversized", "garbage"],
)
async def test_a_member_that_breaks_the_protocol_is_cut_off(pki, then, reason):
    async with listening(pki) as v2:
        async with connection(v2.port, client_context(pki, "v1")) as (reader, writer):
            writer.write(to_frame(HELLO) + then)
            await read_to_end(reader)
        assert v2.refused == [reason]
        assert v2.handler.events == [("connected", "v1", 0), ("disconnected", "v1")]


@pytest.mark.parametrize("stage", ["before TLS", "before hello", "within hello"])
async def test_a_slow_handshake_is_cut_off(pki, stage):
    async with listening(pki) as v2:
        context = None if stage == "before TLS" else client_context(pki, "v1")
        async with connection(v2.port, context) as (reader, writer):
            if stage == "within hello":
                writer.write(to_frame(HELLO)[:-1])
            await read_to_end(reader)
        assert v2.refused == ["timeout"]


async def test_unfinished_handshakes_are_bounded_per_address(pki):
    """The ninth is turned away at once; there is room again when the others have run out."""
    async with listening(pki) as v2, anyio.create_task_group() as tasks:

        async def dawdle():
            async with connection(v2.port) as (reader, _):
                await read_to_end(reader)

        for _ in range(HALF_OPEN_PER_ADDRESS + 3):
            tasks.start_soon(dawdle)
        await until(lambda: v2.refused == ["busy"] * 3)
        await until(lambda: v2.refused.count("timeout") == HALF_OPEN_PER_ADDRESS)
        async with connection(v2.port, client_context(pki, "v1")) as (_, writer):
            writer.write(to_frame(HELLO))
            await until(lambda: v2.connected("v1"))


async def test_a_flood_of_strangers_does_not_disturb_members(pki, strangers):
    context = client_context(strangers, "v1")
    patient = {"timing": replace(FAST, silence=30.0)}
    async with pair(pki, first=patient, second=patient) as (v1, v2):
        await until(lambda: v1.connected("v2") and v2.connected("v1"))
        for _ in range(40):
            async with connection(v2.port, context) as (reader, _):
                await read_to_end(reader)
        assert v2.refused == ["wrong_ca"] * 40
        v1.network.send("v2", Consensus(b"through"))
        await until(lambda: v2.handler.messages)
        assert len(v2.handler.events) == 1
