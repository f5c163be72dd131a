# SPDX-License-Identifier: Apache-2.0
"""`holdfast-node members` against the API of a node, on a real socket, with a real ledger behind.

Only consensus is missing: what is submitted is in a block at once.
"""

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest
from anyio.from_thread import start_blocking_portal
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from fake_service import FakeService
from ledger_samples import CHAIN_ID, VALIDATORS, Clock, commit, open_ledger
from rest_support import new_metrics

from holdfast_node import cli
from holdfast_node.api.server import create_app, serve
from holdfast_node.api.service import AccountView, TransactionStatus, Verdict
from holdfast_node.chain.block import vote_bytes
from holdfast_node.chain.crypto import PrivateKey, format_address
from holdfast_node.chain.evidence import Evidence, Statement
from holdfast_node.chain.transaction import transaction_id
from holdfast_node.evidence_log import EvidenceLog, evidence_view
from holdfast_node.ledger.ledger import Ledger
from holdfast_node.members import Members


class OneNode(FakeService):
    """v0 of the sample chain, on `ledger`, with what it holds against the others."""

    def __init__(self, ledger: Ledger, evidence: EvidenceLog) -> None:
        super().__init__()
        self.ledger = ledger
        self.log = evidence

    def status(self):
        return msgspec.structs.replace(super().status(), chain_id=CHAIN_ID, height=self.height())

    def height(self) -> int:
        return self.ledger.height

    def account(self, account: bytes) -> AccountView:
        return AccountView(format_address(account), *self.ledger.account(account), self.height())

    def members(self):
        return Members(self.ledger, "v0", list).view()

    def evidence(self):
        validators = self.ledger.validators_at
        return [evidence_view(each, validators(each.height)) for each in self.log.all()]

    async def submit(self, raws) -> list[Verdict]:
        commit(self.ledger, raws)
        return [Verdict(transaction_id(raw).hex(), accepted=True) for raw in raws]

    def transaction(self, transaction_id_: bytes) -> TransactionStatus:
        found = self.ledger.transaction(transaction_id_)
        assert found is not None
        failed = found.failed_reason
        status = "committed" if failed is None else "failed"
        return TransactionStatus(
            transaction_id_.hex(), status, found.height, found.index, failed, 0
        )


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    clock = Clock()
    clock.now = time.time_ns() // 1_000_000  # by which the client says until when it means it
    opened = open_ledger(tmp_path, clock=clock)
    commit(opened)
    yield opened
    opened.store.close()


@contextmanager
def serving(ledger: Ledger, evidence: EvidenceLog) -> Iterator[str]:
    """The URL of its API."""
    app = create_app(OneNode(ledger, evidence), new_metrics())
    with start_blocking_portal() as portal:
        running, port = portal.start_task(serve, app, "127.0.0.1", 0)
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            running.cancel()


@pytest.fixture
def log(tmp_path: Path) -> Iterator[EvidenceLog]:
    opened = EvidenceLog(tmp_path / "evidence.journal")
    yield opened
    opened.close()


@pytest.fixture
def run(ledger, log, tmp_path, capsys, monkeypatch):
    """Runs `members ...`, as v0 where it signs; returns exit code, standard output and error."""
    key = tmp_path / "v0.key"
    key.touch(mode=0o600)
    form = Ed25519PrivateKey.from_private_bytes(VALIDATORS[0].seed)
    key.write_bytes(form.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))

    def call(*arguments: str, signs: bool = True):
        with serving(ledger, log) as url:
            signing = ["--key", str(key)] if signs else []
            line = ["holdfast-node", "members", *arguments, "--url", url, *signing]
            monkeypatch.setattr(sys, "argv", line)
            with pytest.raises(SystemExit) as raised:
                cli.main()
        out, err = capsys.readouterr()
        return raised.value.code or 0, out, err

    return call


def votes_twice(index: int, height: int, key: PrivateKey) -> Evidence:
    """`key` has signed COMMITs for two blocks, as validator `index`."""
    bodies = [vote_bytes("commit", CHAIN_ID, height, 3, bytes([i]) * 32) for i in (1, 2)]
    return Evidence(index, "commit", height, 3, *(Statement(b, key.sign(b)) for b in bodies))


LEAVE = ["propose-leave", "--name", "v2", "--reason", "it lies", "--below-four"]


def test_evidence_of_the_node_goes_with_the_proposal(run, ledger, log) -> None:
    """From the node's journal over its API into a transaction that all nodes check."""
    log.add(votes_twice(3, 1, VALIDATORS[3]))  # of another one
    log.add(votes_twice(2, 1, VALIDATORS[2]))
    code, out, err = run(*LEAVE, "--evidence", "--blocks", "50")
    assert (code, err) == (0, "")
    said = json.loads(out)
    assert (said["status"], said["height"]) == ("committed", 2)
    (proposal,) = ledger.membership().proposals
    assert proposal.change.name == "v2"
    assert (proposal.proved, proposal.change.evidence) == ("commit at 1/3", b"")
    assert (proposal.change.reason, proposal.change.until) == ("it lies", 51)
    code, out, _ = run("list", signs=False)
    assert code == 0
    assert "convicted: commit at 1/3" in out


def test_without_the_option_nothing_is_attached(run, ledger, log) -> None:
    """It is a proposal like any other, for people to judge by its reason."""
    log.add(votes_twice(2, 1, VALIDATORS[2]))
    assert run(*LEAVE)[0] == 0
    (proposal,) = ledger.membership().proposals
    assert proposal.proved == ""
    assert "it lies" in run("list", signs=False)[1]


def test_nothing_is_proposed_where_the_node_holds_nothing(run, ledger, log) -> None:
    """Said before anything is signed."""
    log.add(votes_twice(3, 1, VALIDATORS[3]))
    code, out, err = run(*LEAVE, "--evidence")
    assert (code, out) == (1, "")
    assert "the node holds nothing against v2" in err
    assert ledger.height == 1


def test_evidence_that_does_not_convict_fails_in_the_block(run, ledger, log) -> None:
    """The node may have been given it: the signature is somebody else's."""
    log.add(votes_twice(2, 1, VALIDATORS[1]))
    code, out, _ = run(*LEAVE, "--evidence")
    assert code == 1
    said = json.loads(out)
    assert (said["status"], said["reason"]) == ("failed", "bad_evidence")
    assert ledger.membership().proposals == ()
