# SPDX-License-Identifier: Apache-2.0
"""Reads of a state that is at least as new as a height: they wait for it, within limits."""

import anyio
import pytest
from fake_service import BOB, FakeService
from rest_support import client, new_metrics, refused

from holdfast_node.api.limits import Limits
from holdfast_node.api.operations import Operations
from holdfast_node.chain.crypto import account_of, format_address
from holdfast_node.client import Client
from holdfast_node.errors import RefusedError
from holdfast_node.service import NodeService

pytestmark = pytest.mark.anyio

ADDRESS = format_address(account_of(BOB.public_key))
PATHS = (f"/v1/accounts/{ADDRESS}", f"/v1/values/{ADDRESS}/greeting")


@pytest.fixture
def anyio_backend():
    return "asyncio"


@pytest.mark.parametrize("path", PATHS)
async def test_a_height_that_is_reached_is_answered_at_once(path):
    async with client(FakeService(3), Limits(wait_s=0)) as c:
        for least in (0, 3):
            answer = await c.get(path, params={"min_height": least})
            assert (answer.status_code, answer.json()["height"]) == (200, 3)


@pytest.mark.parametrize("path", PATHS)
async def test_a_block_to_come_is_waited_for(path):
    service = FakeService(3)
    async with client(service) as c, anyio.create_task_group() as tasks:

        async def read() -> None:
            answer = await c.get(path, params={"min_height": 5})
            assert (answer.status_code, answer.json()["height"]) == (200, 5)

        tasks.start_soon(read)
        for _ in range(2):
            await anyio.wait_all_tasks_blocked()
            service.extend()


@pytest.mark.parametrize("path", PATHS)
async def test_a_block_that_does_not_come_is_said_with_the_height_here(path):
    async with client(FakeService(3), Limits(wait_s=0.01)) as c:
        answer = await c.get(path, params={"min_height": 4})
    assert "at block 3" in refused(answer, 503, "not_reached")


@pytest.mark.parametrize("least", ["-1", "x", "", str(2**63)])
async def test_what_is_no_height_is_refused(least):
    async with client() as c:
        answer = await c.get(PATHS[0], params={"min_height": least})
    assert "min_height" in refused(answer, 400, "bad_argument")


async def test_no_more_than_some_requests_wait():
    service = FakeService(3)
    operations = Operations(service, new_metrics(), Limits(waiting=2))
    async with anyio.create_task_group() as tasks:
        for _ in range(2):
            tasks.start_soon(operations.account, ADDRESS, 4)
        await anyio.wait_all_tasks_blocked()
        with pytest.raises(RefusedError) as refusal:
            await operations.value(ADDRESS, "greeting", 4)
        assert refusal.value.code == "overloaded"
        service.extend()
    with anyio.fail_after(1):  # those that waited make room
        service.extend()
        await operations.account(ADDRESS, 5)


async def test_a_node_that_stops_lets_none_wait_and_still_reads():
    operations = Operations(FakeService(3), new_metrics(), Limits())
    refusals = []

    async def read() -> None:
        with pytest.raises(RefusedError, match="at block 3 and stops") as refusal:
            await operations.account(ADDRESS, 4)
        refusals.append(refusal.value.code)

    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(read)
            await anyio.wait_all_tasks_blocked()
            operations.stop()
        await read()  # one that comes late
        assert (await operations.account(ADDRESS, 3)).height == 3
    assert refusals == ["stopping"] * 2


async def test_a_batch_of_reads_waits_no_longer_than_a_request_may_take():
    calls = [
        {"jsonrpc": "2.0", "id": i, "method": "account", "params": [ADDRESS, 9]} for i in range(5)
    ]
    async with client(FakeService(3), Limits(wait_s=0.3, request_s=0.8)) as c:
        answers = (await c.post("/rpc", json=calls)).json()
    codes = [answer["error"]["data"]["code"] for answer in answers]
    assert codes == ["not_reached"] * 2 + ["too_slow"] * 3


async def test_json_rpc_reads_at_a_height_by_name():
    call = {"jsonrpc": "2.0", "id": 1, "method": "value"}
    call["params"] = {"address": ADDRESS, "key": "greeting", "min_height": 3}
    async with client(FakeService(3)) as c:
        assert (await c.post("/rpc", json=call)).json()["result"]["height"] == 3


class Racing:
    """A ledger and its store, to which a block comes within a read, as often as told."""

    def __init__(self, blocks: int) -> None:
        self.store = self
        self._blocks = blocks
        self._height = 7

    def height(self) -> int:
        return self._height

    def value(self, _account: bytes, _key: str) -> bytes:
        found = b"as of %d" % self._height
        if self._blocks:
            self._blocks -= 1
            self._height += 1
        return found


@pytest.mark.parametrize("blocks", [0, 1, 3])
async def test_value_and_height_belong_together_while_blocks_come(blocks):
    service = NodeService.__new__(NodeService)
    service._ledger = Racing(blocks)
    assert service.value(bytes(20), "key") == (7 + blocks, b"as of %d" % (7 + blocks))


def answering(script: list[tuple[int, dict]], asked: list[str]) -> Client:
    """A client whose node answers what the script says."""
    spoken = Client("http://node:1")

    def request(_method: str, path: str, _body: str | None = None) -> tuple[int, dict]:
        asked.append(path)
        return script.pop(0)

    spoken._request = request
    return spoken


async def test_the_client_asks_for_a_height_and_knows_an_absent_value():
    asked: list[str] = []
    absent = {"error": {"code": "not_found", "message": "nothing"}}
    late = {"error": {"code": "not_reached", "message": "at block 3"}}
    c = answering([(200, {"height": 9, "value": "eA=="}), (404, absent), (503, late)], asked)
    assert c.value(ADDRESS, "a/b", min_height=9) == {"height": 9, "value": "eA=="}
    assert c.value(ADDRESS, "a") is None
    with pytest.raises(RefusedError, match="at block 3"):
        c.account(ADDRESS, min_height=12)
    assert asked == [
        f"/v1/values/{ADDRESS}/a%2Fb?min_height=9",
        f"/v1/values/{ADDRESS}/a",
        f"/v1/accounts/{ADDRESS}?min_height=12",
    ]
