# SPDX-License-Identifier: Apache-2.0
"""Whatever a client sends, the fault is its own: no input makes the node answer 5xx."""

import json
from base64 import b64encode
from functools import cache

import httpx
import pytest
from fake_service import ALICE, FakeService, transfer
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast_node.api.server import create_app
from holdfast_node.chain.crypto import account_of, format_address
from holdfast_node.observe.metrics import Metrics

ADDRESS = format_address(account_of(ALICE.public_key))
TX = b64encode(transfer(0)).decode()

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend():
    return "asyncio"


@cache
def transport():
    metrics = Metrics(version="0.1.0", chain_id="demo", name="v1", role="validator")
    return httpx.ASGITransport(app=create_app(FakeService(3), metrics))


def client():
    return httpx.AsyncClient(transport=transport(), base_url="http://node")


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
PATHS = st.sampled_from(
    ["/v1/blocks/", "/v1/transactions/", "/v1/accounts/", f"/v1/values/{ADDRESS}/", "/v1/", "/"]
)


@settings(max_examples=150, deadline=None)
@given(body=st.binary() | JSON.map(lambda v: json.dumps(v).encode()))
async def test_no_body_makes_the_node_fail(body):
    async with client() as c:
        for path in ("/v1/transactions", "/rpc"):
            assert (await c.post(path, content=body)).status_code < 500


@settings(max_examples=150, deadline=None)
@given(prefix=PATHS, rest=st.binary(max_size=80), query=st.binary(max_size=40))
async def test_no_path_makes_the_node_fail(prefix, rest, query):
    path = prefix + "".join(f"%{byte:02x}" for byte in rest)
    arguments = "".join(f"%{byte:02x}" for byte in query)
    async with client() as c:
        for target in (path, f"/v1/blocks?{arguments}", f"/v1/blocks?from={arguments}"):
            assert (await c.get(target)).status_code < 500


METHODS = [
    "submit",
    "submit_batch",
    "transaction",
    "block",
    "blocks",
    "account",
    "value",
    "status",
    "validators",
]
ARGUMENTS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
    | st.sampled_from([ADDRESS, TX, "latest", "ab" * 32, [TX], [None], {}, [], 1])
)


@settings(deadline=None, max_examples=200)
@given(
    st.sampled_from(METHODS),
    st.lists(ARGUMENTS, max_size=3)
    | st.dictionaries(
        st.sampled_from(
            ["transaction", "transactions", "id", "block", "from", "limit", "address", "key"]
        ),
        ARGUMENTS,
        max_size=3,
    ),
)
async def test_no_arguments_make_a_method_fail(method, params):
    body = {"jsonrpc": "2.0", "method": method, "params": params, "id": 1}
    async with client() as c:
        answer = (await c.post("/rpc", content=json.dumps(body))).json()
    assert answer["id"] == 1
    assert answer.get("error", {"code": None})["code"] in {None, -32602, -32000, -32001}
