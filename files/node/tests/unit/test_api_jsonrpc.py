# SPDX-License-Identifier: Apache-2.0
"""JSON-RPC 2.0, to the letter of its specification, and the node's methods over it."""

import json
from base64 import b64encode
from contextlib import asynccontextmanager

import httpx
import pytest
from fake_service import ALICE, FakeService, transfer
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast_node.api.limits import Limits
from holdfast_node.api.server import create_app
from holdfast_node.chain.crypto import account_of, format_address
from holdfast_node.chain.transaction import transaction_id
from holdfast_node.observe.metrics import Metrics

ADDRESS = format_address(account_of(ALICE.public_key))
TX = b64encode(transfer(0)).decode()

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend():
    return "asyncio"


@asynccontextmanager
async def client(service=None, limits=None):
    metrics = Metrics(version="0.1.0", chain_id="demo", name="v1", role="validator")
    app = create_app(service or FakeService(3), metrics, limits)
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://node") as session:
        yield session


async def post(body, service=None, limits=None) -> httpx.Response:
    content = body if isinstance(body, str | bytes) else json.dumps(body)
    async with client(service, limits) as c:
        return await c.post("/rpc", content=content)


async def call(method, params=None, **options):
    """The answer to one well-formed call."""
    body = {"jsonrpc": "2.0", "id": 1, "method": method}
    if params is not None:
        body["params"] = params
    answer = (await post(body, **options)).json()
    assert answer["jsonrpc"] == "2.0"
    assert answer["id"] == 1
    assert ("result" in answer) != ("error" in answer)
    return answer


def outline(answer):
    """An answer without the wording: (id, error code or None)."""
    assert answer["jsonrpc"] == "2.0"
    assert answer.keys() - {"jsonrpc", "id"} in ({"result"}, {"error"})
    return answer["id"], answer["error"]["code"] if "error" in answer else None


INVALID = (None, -32600)

MIXED = (
    '[{"jsonrpc":"2.0","method":"status","id":"1"},{"jsonrpc":"2.0","method":"status"},'
    '{"jsonrpc":"2.0","method":"blocks","params":[1],"id":"2"},{"foo":"boo"},'
    '{"jsonrpc":"2.0","method":"foo.get","params":{"name":"me"},"id":"5"},'
    '{"jsonrpc":"2.0","method":"validators","id":"9"}]'
)

# The examples of section 7 of the specification, with methods of this node.
EXAMPLES = [
    ("positional", '{"jsonrpc":"2.0","method":"blocks","params":[1,2],"id":1}', (1, None)),
    ("other order", '{"id":2,"params":[2,1],"method":"blocks","jsonrpc":"2.0"}', (2, None)),
    (
        "named",
        '{"jsonrpc":"2.0","method":"blocks","params":{"limit":2,"from":1},"id":3}',
        (3, None),
    ),
    ("notification", '{"jsonrpc":"2.0","method":"status"}', None),
    ("notification of no method", '{"jsonrpc":"2.0","method":"foobar"}', None),
    ("no such method", '{"jsonrpc":"2.0","method":"foobar","id":"1"}', ("1", -32601)),
    ("invalid JSON", '{"jsonrpc":"2.0","method":"foobar,"params":"bar","baz]', (None, -32700)),
    ("invalid request", '{"jsonrpc":"2.0","method":1,"params":"bar"}', INVALID),
    (
        "batch, invalid JSON",
        '[{"jsonrpc":"2.0","method":"status","id":"1"},{"jsonrpc":"2.0","method"]',
        (None, -32700),
    ),
    ("empty batch", "[]", INVALID),
    ("invalid batch of one", "[1]", [INVALID]),
    ("invalid batch", "[1,2,3]", [INVALID] * 3),
    (
        "mixed batch",
        MIXED,
        [("1", None), ("2", None), INVALID, ("5", -32601), ("9", None)],
    ),
    (
        "batch of notifications",
        '[{"jsonrpc":"2.0","method":"status"},{"jsonrpc":"2.0","method":"blocks","params":[7]}]',
        None,
    ),
    # What the text of the specification says beyond its examples.
    ("null is an id", '{"jsonrpc":"2.0","method":"status","id":null}', (None, None)),
    ("fraction as id", '{"jsonrpc":"2.0","method":"status","id":1.5}', (1.5, None)),
    ("boolean as id", '{"jsonrpc":"2.0","method":"status","id":true}', INVALID),
    ("list as id", '{"jsonrpc":"2.0","method":"status","id":[1]}', INVALID),
    ("version 1.0", '{"method":"status","params":[],"id":4}', (4, -32600)),
    ("version as number", '{"jsonrpc":2.0,"method":"status","id":4}', (4, -32600)),
    ("no method", '{"jsonrpc":"2.0","id":4}', (4, -32600)),
    ("params is null", '{"jsonrpc":"2.0","method":"status","params":null,"id":4}', (4, -32600)),
    ("too many params", '{"jsonrpc":"2.0","method":"status","params":[1],"id":4}', (4, -32602)),
    ("wrong name", '{"jsonrpc":"2.0","method":"block","params":{"h":1},"id":4}', (4, -32602)),
    ("param missing", '{"jsonrpc":"2.0","method":"account","id":4}', (4, -32602)),
    ("bad value", '{"jsonrpc":"2.0","method":"block","params":["x"],"id":4}', (4, -32602)),
    ("private name", '{"jsonrpc":"2.0","method":"_submit","params":["x"],"id":4}', (4, -32601)),
    ("a text", '"status"', INVALID),
    ("nothing", "", (None, -32700)),
]


@pytest.mark.parametrize(
    ("body", "expected"), [e[1:] for e in EXAMPLES], ids=[e[0] for e in EXAMPLES]
)
async def test_specification(body, expected):
    response = await post(body)
    if expected is None:
        assert (response.status_code, response.content) == (204, b"")
        return
    assert response.status_code == 200
    answer = response.json()
    got = [outline(a) for a in answer] if isinstance(answer, list) else outline(answer)
    assert got == expected


@settings(deadline=None, max_examples=60)
@given(st.integers(-(10**30), 10**30) | st.text())
async def test_the_id_comes_back_as_it_was(identifier):
    answer = (await post({"jsonrpc": "2.0", "method": "status", "id": identifier})).json()
    assert answer["id"] == identifier
    assert type(answer["id"]) is type(identifier)


@pytest.mark.parametrize(
    ("method", "params", "path"),
    [
        ("status", None, "/v1/status"),
        ("validators", {}, "/v1/validators"),
        ("block", {"block": 2}, "/v1/blocks/2"),
        ("block", ["latest"], "/v1/blocks/latest"),
        ("blocks", {"limit": 2}, "/v1/blocks?limit=2"),
        ("account", [ADDRESS], f"/v1/accounts/{ADDRESS}"),
        ("value", [ADDRESS, "greeting"], f"/v1/values/{ADDRESS}/greeting"),
        ("transaction", ["ab" * 32], f"/v1/transactions/{'ab' * 32}"),
    ],
)
async def test_methods_answer_what_rest_answers(method, params, path):
    service = FakeService(3)
    async with client(service) as c:
        rest = (await c.get(path)).json()
    assert (await call(method, params, service=service))["result"] == rest


async def test_submit_returns_the_verdict_and_refusal_is_an_error():
    service = FakeService()
    accepted = await call("submit", [TX], service=service)
    assert accepted["result"]["id"] == transaction_id(transfer(0)).hex()
    assert service.submitted == [transfer(0)]
    error = (await call("submit", {"transaction": "AAAA"}))["error"]
    assert error["code"] == -32000
    assert error["data"] == {"code": "malformed", "id": None}


async def test_submit_batch_has_a_verdict_for_each():
    results = (await call("submit_batch", {"transactions": [TX, "AAAA"]}))["result"]["results"]
    assert [r["accepted"] for r in results] == [True, False]


async def test_what_does_not_exist_has_its_own_code():
    error = (await call("block", [99]))["error"]
    assert error["code"] == -32001
    assert error["data"] == {"code": "not_found"}


async def test_notified_transactions_are_submitted():
    service = FakeService()
    response = await post({"jsonrpc": "2.0", "method": "submit", "params": [TX]}, service=service)
    assert response.status_code == 204
    assert service.submitted == [transfer(0)]


async def test_batch_has_a_limit():
    calls = [{"jsonrpc": "2.0", "method": "status", "id": i} for i in range(4)]
    answer = (await post(calls, limits=Limits(rpc_calls=3))).json()
    assert outline(answer) == (None, -32600)
    assert "1 to 3" in answer["error"]["message"]
    assert len((await post(calls, limits=Limits(rpc_calls=4))).json()) == 4


async def test_answers_of_a_batch_are_bounded_together():
    """A few bytes must not make the node build an answer of any size."""
    calls = [{"jsonrpc": "2.0", "method": "block", "params": [1], "id": i} for i in range(20)]
    answers = (await post(calls, limits=Limits(response_bytes=3_000))).json()
    codes = [outline(answer)[1] for answer in answers]
    answered = codes.count(None)
    assert 1 <= answered <= 5
    assert codes[answered:] == [-32002] * (20 - answered)


async def test_a_fault_of_the_node_spoils_no_other_call(caplog):
    class Broken(FakeService):
        def status(self):
            raise RuntimeError("secret detail")

    calls = [{"jsonrpc": "2.0", "method": m, "id": m} for m in ("status", "validators")]
    response = await post(calls, service=Broken())
    assert [outline(a) for a in response.json()] == [("status", -32603), ("validators", None)]
    assert "secret" not in response.text
    assert "secret detail" in caplog.text
