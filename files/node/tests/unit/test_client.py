# SPDX-License-Identifier: Apache-2.0
"""The client: what it sends, what it makes of answers, and that it always ends."""

import json
import threading
from base64 import b64decode
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from holdfast_node import client as client_module
from holdfast_node.chain.crypto import PrivateKey, account_of, format_address
from holdfast_node.chain.transaction import Put, Transfer, decode_transaction, transaction_id
from holdfast_node.client import Client, Outcome, UnreachableError
from holdfast_node.errors import ConfigError, RefusedError

KEY = PrivateKey(bytes(32))
ADDRESS = format_address(account_of(KEY.public_key))
ACTION = Transfer(bytes(20), 5)


@contextmanager
def node(answers):
    """A stand-in for a node: `answers` maps "METHOD path" to (status, body) or a function."""
    seen = []

    class Handler(BaseHTTPRequestHandler):
        def answer(self):
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            seen.append((self.command, self.path, body))
            found = answers[f"{self.command} {self.path}"]
            status, content = found(body) if callable(found) else found
            data = content if isinstance(content, bytes) else json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = answer  # noqa: N815 -- names that the base class looks for

        def log_message(self, *arguments):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", seen
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def accepting(body):
    raw = b64decode(json.loads(body)["transaction"])
    return 202, {"results": [{"id": transaction_id(raw).hex(), "accepted": True}]}


def known(**more):
    return {
        "GET /v1/status": (200, {"chain_id": "demo"}),
        f"GET /v1/accounts/{ADDRESS}": (200, {"nonce": 3, "balance": 9}),
        "POST /v1/transactions": accepting,
        **more,
    }


class Statuses(dict):
    """Answers to any transaction's status: one after the other, the last one again and again."""

    def __init__(self, answers, *statuses):
        super().__init__(answers)
        self.left = list(statuses)

    def __missing__(self, request):
        assert request.startswith("GET /v1/transactions/")
        status = self.left.pop(0) if len(self.left) > 1 else self.left[0]
        return 200, status


def test_a_transaction_is_signed_for_the_chain_and_the_next_nonce():
    with node(known()) as (url, seen):
        outcome = Client(url).execute(KEY, [ACTION, Put("k", b"v")], wait_s=None)
    raw = b64decode(json.loads(seen[-1][2])["transaction"])
    transaction = decode_transaction(raw)
    assert transaction.verify_signature()
    assert (transaction.body.chain_id, transaction.body.nonce) == ("demo", 3)
    assert transaction.body.actions == (ACTION, Put("k", b"v"))
    assert outcome == Outcome(transaction_id(raw).hex(), "pending")


def test_what_the_caller_knows_is_not_asked():
    """So that nobody is made to sign for a chain that a stranger's node claims to be."""
    with node(known()) as (url, seen):
        Client(url).execute(KEY, [ACTION], wait_s=None, chain_id="mine", nonce=8)
    assert [request[:2] for request in seen] == [("POST", "/v1/transactions")]
    transaction = decode_transaction(b64decode(json.loads(seen[0][2])["transaction"]))
    assert (transaction.body.chain_id, transaction.body.nonce) == ("mine", 8)


def test_waiting_ends_with_the_commit_and_its_latency():
    answers = Statuses(
        known(), {"status": "unknown"}, {"status": "pending"}, {"status": "committed", "height": 9}
    )
    pauses = []
    with node(answers) as (url, _):
        outcome = Client(url, sleep=pauses.append).execute(KEY, [ACTION], wait_s=30)
    assert (outcome.status, outcome.height) == ("committed", 9)
    assert 0 < outcome.latency_ms < 30_000
    assert pauses == [0.005, 0.0075]


def test_a_transaction_without_effect_is_told_with_its_reason():
    answers = Statuses(known(), {"status": "failed", "height": 2, "reason": "insufficient_funds"})
    with node(answers) as (url, _):
        outcome = Client(url).execute(KEY, [ACTION], wait_s=30)
    assert (outcome.status, outcome.reason) == ("failed", "insufficient_funds")


def test_a_rejected_transaction_is_an_error():
    answers = Statuses(known(), {"status": "rejected", "reason": "expired"})
    with node(answers) as (url, _), pytest.raises(RefusedError, match="expired"):
        Client(url).execute(KEY, [ACTION], wait_s=30)


def test_waiting_ends_in_time():
    with (
        node(Statuses(known(), {"status": "pending"})) as (url, _),
        pytest.raises(UnreachableError, match=r"is pending after 0\.2 s"),
    ):
        Client(url).execute(KEY, [ACTION], wait_s=0.2)


def test_a_refusal_keeps_its_code():
    refusal = {"id": None, "accepted": False, "code": "nonce_used", "reason": "nonce 3 is used"}
    with (
        node(known(**{"POST /v1/transactions": (400, {"results": [refusal]})})) as (url, _),
        pytest.raises(RefusedError, match="nonce 3 is used") as raised,
    ):
        Client(url).execute(KEY, [ACTION], wait_s=None)
    assert raised.value.code == "nonce_used"


def test_an_error_of_the_api_keeps_its_code():
    error = {"error": {"code": "not_found", "message": "no block 9"}}
    with (
        node({"GET /v1/blocks/9": (404, error)}) as (url, _),
        pytest.raises(RefusedError, match="no block 9") as raised,
    ):
        Client(url).block(9)
    assert raised.value.code == "not_found"


def test_readiness_is_read_from_either_answer():
    with node({"GET /readyz": (503, {"ready": False, "reason": "syncing"})}) as (url, _):
        assert Client(url).is_ready() == (False, "syncing")
    with node({"GET /readyz": (200, {"ready": True})}) as (url, _):
        assert Client(url).is_ready() == (True, None)


@pytest.mark.parametrize(
    "answer",
    [
        (200, b"<html>"),
        (200, b"\xff"),
        (200, [1]),
        (200, b"[" * 100_000),
        (502, b"bad gateway"),
        (302, {}),
        (200, {}),
        (200, {"chain_id": 7}),
    ],
)
def test_what_is_no_node_is_said_to_be_none(answer):
    with (
        node({"GET /v1/status": answer}) as (url, _),
        pytest.raises(UnreachableError, match="not as a node does"),
    ):
        Client(url).execute(KEY, [ACTION], wait_s=None)


@pytest.mark.parametrize(
    "results", [None, [], [{}, {}], [7], [{"accepted": True}], [{"accepted": True, "id": 7}]]
)
def test_odd_verdicts_are_no_acceptance(results):
    answers = known(**{"POST /v1/transactions": (200, {"results": results})})
    with node(answers) as (url, _), pytest.raises(UnreachableError, match="not as a node does"):
        Client(url).execute(KEY, [ACTION], wait_s=None)


def test_an_answer_without_end_is_not_read_to_its_end(monkeypatch):
    monkeypatch.setattr(client_module, "MAX_ANSWER_BYTES", 1_000)
    with (
        node({"GET /v1/status": (200, b'"' + b"x" * 2_000 + b'"')}) as (url, _),
        pytest.raises(UnreachableError),
    ):
        Client(url).status()


def test_nobody_there_is_said_with_the_way_out():
    with node({}) as (url, _):
        pass
    with pytest.raises(UnreachableError, match="Connection refused: expected a running node"):
        Client(url).status()


def test_a_path_before_the_api_is_kept():
    """The API may live behind a proxy, under a path."""
    with node({"GET /chain/v1/status": (200, {"height": 1})}) as (url, _):
        assert Client(f"{url}/chain/").status() == {"height": 1}


@pytest.mark.parametrize(
    "url",
    ["", "127.0.0.1:8545", "file:///etc/passwd", "http://", "http://h:x", "http://h:99999",
     "http://h/?q=1", "http://user:secret@h", "http://[::1"],
)  # fmt: skip
def test_urls_of_another_form_are_refused(url):
    with pytest.raises(ConfigError, match="expected the API of a node"):
        Client(url)
