# SPDX-License-Identifier: Apache-2.0
"""The REST API: every answer of the contract."""

from base64 import b64decode

import anyio
import pytest
from fake_service import ALICE, BOB, START_MS, FakeService, transfer
from rest_support import client, new_metrics, refused, text

from holdfast_node.api.limits import Limits
from holdfast_node.chain.codec import decode
from holdfast_node.chain.crypto import account_of, format_address
from holdfast_node.chain.proof import ChainProof, TransactionProof
from holdfast_node.chain.transaction import MAX_TRANSACTION_BYTES, transaction_id

ADDRESS = format_address(account_of(ALICE.public_key))


@pytest.fixture
def anyio_backend():
    return "asyncio"


pytestmark = pytest.mark.anyio


async def test_status_has_every_field_of_the_contract():
    async with client() as c:
        status = (await c.get("/v1/status")).json()
    expected = (
        "chain_id name role version height block_hash state_root view leader ready reason peers "
        "validators tolerated_faults quorum mempool genesis_hash uptime_s commit_latency_ms"
    )
    assert set(expected.split()) <= status.keys()
    assert status["height"] == 3
    assert {"name", "role", "connected", "height"} <= status["peers"][0].keys()
    assert status["commit_latency_ms"].keys() == {"p50", "p99"}


async def test_readiness_follows_the_service_and_health_does_not():
    service = FakeService()
    async with client(service) as c:
        answer = await c.get("/readyz")
        assert (answer.status_code, answer.json()) == (200, {"ready": True})
        service.ready = (False, "12 blocks behind")
        answer = await c.get("/readyz")
        assert answer.status_code == 503
        assert answer.json() == {"ready": False, "reason": "12 blocks behind"}
        assert (await c.get("/healthz")).status_code == 200


async def test_block_by_height_latest_and_hash_is_the_same_block():
    service = FakeService(3)
    head = service.chain[-1].block
    async with client(service) as c:
        answers = [
            (await c.get(f"/v1/blocks/{ref}")).json() for ref in ("3", "latest", head.hash.hex())
        ]
    assert answers[0] == answers[1] == answers[2]
    block = answers[0]
    assert block["hash"] == head.hash.hex()
    assert block["previous"] == service.chain[-2].block.hash.hex()
    assert block["proposer"] == "v3"
    assert block["signers"] == ["v1", "v2", "v4"]
    [transaction] = block["transactions"]
    assert transaction["id"] == transaction_id(transfer(2)).hex()
    assert transaction["sender"] == ADDRESS
    assert transaction["nonce"] == 2
    assert transaction["error"] is None
    assert transaction["actions"] == [
        {"type": "transfer", "to": format_address(account_of(BOB.public_key)), "amount": 5},
        {"type": "put", "key": "note", "value": "/wA=", "text": None},
    ]


async def test_failed_transaction_says_why_in_its_block():
    async with client() as c:
        block = (await c.get("/v1/blocks/2")).json()
    assert [t["error"] for t in block["transactions"]] == ["insufficient_funds"]


async def test_large_block_is_rendered_whole():
    service = FakeService()
    raws = tuple(transfer(n) for n in range(60))
    service.extend(raws)
    async with client(service) as c:
        block = (await c.get("/v1/blocks/1")).json()
    assert [t["id"] for t in block["transactions"]] == [transaction_id(raw).hex() for raw in raws]


async def test_blocks_are_the_last_ones_or_a_range():
    async with client(FakeService(30)) as c:
        last = (await c.get("/v1/blocks")).json()
        some = (await c.get("/v1/blocks?from=5&limit=3")).json()
        beyond = (await c.get("/v1/blocks?from=31")).json()
    assert last["height"] == 30
    assert [b["height"] for b in last["blocks"]] == list(range(11, 31))
    assert [b["height"] for b in some["blocks"]] == [5, 6, 7]
    assert some["blocks"][0]["time_ms"] == START_MS + 250 * 5
    assert some["blocks"][0]["transactions"] == 1
    assert beyond["blocks"] == []


async def test_a_chain_at_genesis_has_no_block():
    async with client(FakeService()) as c:
        assert (await c.get("/v1/blocks")).json() == {"height": 0, "first_height": 1, "blocks": []}
        for reference in ("latest", "0", "1"):
            assert "genesis" in refused(await c.get(f"/v1/blocks/{reference}"), 404, "not_found")


async def test_transaction_status_is_known_or_unknown():
    known = transaction_id(transfer(1)).hex()
    async with client() as c:
        status = (await c.get(f"/v1/transactions/{known}")).json()
        other = (await c.get(f"/v1/transactions/{'ab' * 32}")).json()
    assert status == {
        "id": known,
        "status": "committed",
        "height": 2,
        "index": 0,
        "reason": None,
        "committed_at_ms": START_MS + 500,
    }
    assert other["status"] == "unknown"


async def test_balances_keep_all_their_digits():
    async with client() as c:
        answer = await c.get(f"/v1/accounts/{ADDRESS}")
    assert answer.json() == {"address": ADDRESS, "balance": 2**63 - 1, "nonce": 7, "height": 3}


async def test_value_is_given_as_base64_and_as_text_if_it_is_text():
    async with client() as c:
        answer = (await c.get(f"/v1/values/{ADDRESS}/greeting")).json()
        binary = (await c.get(f"/v1/values/{ADDRESS}/a/b")).json()
        refused(await c.get(f"/v1/values/{ADDRESS}/other"), 404, "not_found")
    assert answer == {
        "address": ADDRESS,
        "key": "greeting",
        "height": 3,
        "value": "aGVsbG8=",
        "text": "hello",
    }
    assert (binary["key"], binary["value"], binary["text"]) == ("a/b", "/w==", None)


async def test_validators_come_with_their_arithmetic():
    async with client() as c:
        answer = (await c.get("/v1/validators")).json()
    assert (answer["tolerated_faults"], answer["quorum"]) == (1, 3)
    assert [v["name"] for v in answer["validators"]] == ["v1", "v2", "v3", "v4"]


async def test_submit_accepts_one_or_many():
    service = FakeService()
    async with client(service) as c:
        one = await c.post("/v1/transactions", json={"transaction": text(transfer(0))})
        many = await c.post(
            "/v1/transactions", json={"transactions": [text(transfer(n)) for n in (1, 2)]}
        )
    assert one.status_code == many.status_code == 202
    assert one.json()["results"] == [
        {"id": transaction_id(transfer(0)).hex(), "accepted": True, "code": None, "reason": None}
    ]
    assert len(many.json()["results"]) == 2
    assert service.submitted == [transfer(0), transfer(1), transfer(2)]


async def test_a_refused_transaction_does_not_spoil_its_neighbours():
    service = FakeService()
    metrics = new_metrics()
    batch = [
        "no base64!",
        text(transfer(0)),
        7,
        text(b"junk"),
        "A" * (MAX_TRANSACTION_BYTES * 2),
        text(bytes(MAX_TRANSACTION_BYTES + 1)),
        "é",
    ]
    async with client(service, metrics=metrics) as c:
        answer = await c.post("/v1/transactions", json={"transactions": batch})
    assert answer.status_code == 400
    codes = [result["code"] for result in answer.json()["results"]]
    assert codes == [
        "malformed", None, "malformed", "malformed", "oversized", "oversized", "malformed",
    ]  # fmt: skip
    assert service.submitted == [transfer(0)]
    rendered = metrics.render()[0].decode()
    assert 'transactions_submitted_total{verdict="accepted"} 1.0' in rendered
    assert 'transactions_submitted_total{verdict="malformed"} 4.0' in rendered


async def test_every_answer_carries_the_security_headers():
    async with client() as c:
        for path in ("/", "/v1/status", "/nowhere", "/metrics", "/v1/blocks?x=1"):
            headers = (await c.get(path)).headers
            assert "default-src 'none'" in headers["content-security-policy"]
            assert headers["x-content-type-options"] == "nosniff"
            assert headers["cache-control"] == "no-store"
            assert headers["referrer-policy"] == "no-referrer"
            assert "access-control-allow-origin" not in headers


async def test_a_crowd_is_turned_away_but_watchers_are_answered():
    entered = anyio.Event()
    release = anyio.Event()

    class Slow(FakeService):
        async def submit(self, raws):
            entered.set()
            await release.wait()
            return await super().submit(raws)

    async with client(Slow(), Limits(requests=1)) as c, anyio.create_task_group() as tasks:
        tasks.start_soon(
            lambda: c.post("/v1/transactions", json={"transaction": text(transfer(0))})
        )
        with anyio.fail_after(5):
            await entered.wait()
        refused(await c.get("/v1/status"), 503, "overloaded")
        assert (await c.get("/healthz")).status_code == 200
        assert (await c.get("/metrics")).status_code == 200
        release.set()
    async with client(Slow(), Limits(requests=1)) as c:
        assert (await c.get("/v1/status")).status_code == 200


async def test_requests_are_counted_by_route_not_by_path():
    metrics = new_metrics()
    async with client(metrics=metrics) as c:
        for height in ("1", "2", "99"):
            await c.get(f"/v1/blocks/{height}")
        for path in ("/a", "/b"):
            await c.get(path)
        rendered = (await c.get("/metrics")).text
    assert 'http_requests_total{route="/v1/blocks/{reference}",status="200"} 2.0' in rendered
    assert 'http_requests_total{route="/v1/blocks/{reference}",status="404"} 1.0' in rendered
    assert 'http_requests_total{route="other",status="404"} 2.0' in rendered


async def test_evidence_and_proofs() -> None:
    """What is held against validators, and proofs that somebody else can check."""
    service = FakeService(3)
    async with client(service) as c:
        evidence = (await c.get("/v1/evidence")).json()["evidence"]
        assert evidence[0]["validator"] == "v2"
        assert len(evidence[0]["statements"]) == 2
        raw = service.chain[1].block.transactions[0]
        answer = await c.get(f"/v1/proofs/transactions/{transaction_id(raw).hex()}")
        proof = decode(b64decode(answer.json()["proof"]), TransactionProof)
        assert (proof.transaction, proof.header.height) == (raw, 2)
        answer = await c.get("/v1/proofs/blocks/1?to=3")
        proof = decode(b64decode(answer.json()["proof"]), ChainProof)
        assert [header.height for header in proof.headers] == [1, 2, 3]
        for path, code in (
            (f"transactions/{'00' * 32}", 404),
            ("transactions/zz", 400),
            ("blocks/9", 404),
            ("blocks/2?to=1", 400),
            ("blocks/1?to=9999999", 400),
            ("blocks/1?form=2", 400),
        ):
            assert (await c.get(f"/v1/proofs/{path}")).status_code == code, path


async def test_blocks_below_a_snapshot_are_gone_and_not_unknown():
    """Whoever asks is told from where on the node has blocks."""
    service = FakeService(height=30)
    service.first = 21
    async with client(service) as c:
        for path in ("blocks/20", "blocks?from=20", "proofs/blocks/20", "proofs/blocks/5?to=25"):
            refused_as = refused(await c.get(f"/v1/{path}"), 410, "pruned")
            assert "the blocks from 21 on" in refused_as, path
        assert (await c.get("/v1/blocks/21")).status_code == 200
        listed = (await c.get("/v1/blocks?limit=50")).json()
        assert (listed["first_height"], listed["height"]) == (21, 30)
        assert [block["height"] for block in listed["blocks"]] == list(range(21, 31))
