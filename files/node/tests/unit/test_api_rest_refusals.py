# SPDX-License-Identifier: Apache-2.0
"""The REST API: every refusal in its form, before anything is taken."""

import anyio
import pytest
from fake_service import ALICE, FakeService
from rest_support import client, new_metrics, refused

from holdfast_node.api.limits import Limits
from holdfast_node.api.server import create_app
from holdfast_node.chain.crypto import account_of, format_address

ADDRESS = format_address(account_of(ALICE.public_key))


@pytest.fixture
def anyio_backend():
    return "asyncio"


pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    ("path", "status", "code", "named"),
    [
        ("/v1/blocks/tomorrow", 400, "bad_argument", "'tomorrow'"),
        ("/v1/blocks/-1", 400, "bad_argument", "'-1'"),
        ("/v1/blocks/99999999999999999999", 400, "bad_argument", "height"),
        ("/v1/blocks/" + "g" * 64, 400, "bad_argument", "hexadecimal"),
        ("/v1/blocks/" + "a" * 64, 404, "not_found", "3 blocks"),
        ("/v1/blocks/٣", 400, "bad_argument", "height"),
        ("/v1/blocks?limit=101", 400, "bad_argument", "1 to 100"),
        ("/v1/blocks?limit=0", 400, "bad_argument", "limit = 0:"),
        ("/v1/blocks?from=x", 400, "bad_argument", "from = 'x'"),
        ("/v1/blocks?form=3", 400, "bad_argument", "did you mean 'from'"),
        ("/v1/status?x=1", 400, "bad_argument", "expected none"),
        ("/v1/transactions/ab", 400, "bad_argument", "id = 'ab'"),
        ("/v1/transactions/" + "a b " * 16, 400, "bad_argument", "64 hexadecimal"),
        ("/v1/accounts/hfNoSuch", 400, "bad_address", "hfNoSuch"),
        (f"/v1/values/{ADDRESS}/{'k' * 257}", 400, "bad_argument", "256"),
        ("/v2/status", 404, "not_found", ""),
        ("/v1/status/", 404, "not_found", ""),
    ],
)
async def test_bad_questions_are_refused_with_what_was_expected(path, status, code, named):
    async with client() as c:
        message = refused(await c.get(path), status, code)
    assert named in message


async def test_wrong_method_names_the_right_one():
    async with client() as c:
        answer = await c.delete("/v1/status")
        refused(answer, 405, "method_not_allowed")
        assert "GET" in answer.headers["allow"]
        refused(await c.get("/v1/transactions"), 405, "method_not_allowed")


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "malformed"),
        (b"{", "malformed"),
        (b"\xff\xfe", "malformed"),
        (b"[" * 100_000, "malformed"),
        (b'{"transactions": 1' + b"0" * 5_000 + b"}", "malformed"),
        (b"[]", "bad_argument"),
        (b"null", "bad_argument"),
        (b'{"tx": "AA=="}', "bad_argument"),
        (b'{"transaction": "AA==", "transactions": []}', "bad_argument"),
        (b'{"transactions": []}', "bad_argument"),
        (b'{"transactions": "AA=="}', "bad_argument"),
        (b'{"transactions": {"0": "AA=="}}', "bad_argument"),
    ],
)
async def test_bad_bodies_are_refused(body, code):
    service = FakeService()
    async with client(service) as c:
        refused(await c.post("/v1/transactions", content=body), 400, code)
    assert service.submitted == []


async def test_too_many_transactions_are_refused_as_a_whole():
    service = FakeService()
    async with client(service, Limits(transactions=2)) as c:
        answer = await c.post("/v1/transactions", json={"transactions": ["AA=="] * 3})
    assert "1 to 2" in refused(answer, 400, "bad_argument")
    assert service.submitted == []


async def test_a_large_body_is_refused_before_it_is_read():
    """Neither a declared length nor an endless stream without one makes the node hold it."""
    taken = 0

    async def endless():
        nonlocal taken
        while True:
            taken += 1
            yield b" " * 1000

    async with client(limits=Limits(body_bytes=10_000)) as c:
        answer = await c.post("/v1/transactions", content=b" " * 10_001)
        assert "10000 bytes" in refused(answer, 413, "body_too_large")
        refused(await c.post("/rpc", content=b" " * 10_001), 413, "body_too_large")

    sent = []

    async def receive():
        return {"type": "http.request", "body": await anext(stream), "more_body": True}

    async def send(message):
        sent.append(message)

    stream = endless()
    app = create_app(FakeService(), new_metrics(), Limits(body_bytes=10_000))
    await app(post_scope("/v1/transactions"), receive, send)
    assert sent[0]["status"] == 413
    assert taken == 11


async def test_a_body_that_does_not_arrive_is_not_waited_for():
    sent = []

    async def send(message):
        sent.append(message)

    app = create_app(FakeService(), new_metrics(), Limits(body_s=0.05))
    with anyio.fail_after(5):
        await app(post_scope("/v1/transactions"), anyio.sleep_forever, send)
    assert sent[0]["status"] == 408
    assert b"request_timeout" in sent[1]["body"]


def post_scope(path: str):
    return {
        "type": "http", "method": "POST", "path": path, "query_string": b"", "headers": [],
        "http_version": "1.1", "scheme": "http", "server": ("node", 80), "root_path": "",
    }  # fmt: skip


class Broken(FakeService):
    def status(self):
        raise RuntimeError("secret detail")


async def test_a_fault_of_the_node_is_logged_and_not_told(caplog):
    async with client(Broken()) as c:
        answer = await c.get("/v1/status")
    refused(answer, 500, "internal_error")
    assert "secret" not in answer.text
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "secret detail" in caplog.text
