# SPDX-License-Identifier: Apache-2.0
"""What a node shows of the membership, and whose approval it does not hand in."""

from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest
from ledger_samples import CHAIN_ID, VALIDATORS, code_of, commit, open_ledger, transaction

from holdfast_node.chain.block import vote_bytes
from holdfast_node.chain.crypto import PrivateKey, account_of
from holdfast_node.chain.evidence import Evidence, Statement
from holdfast_node.chain.membership import ACTIVATION_DISTANCE
from holdfast_node.chain.transaction import Approve, ProposeJoin, ProposeLeave, Put
from holdfast_node.cli.members import render
from holdfast_node.evidence_log import MOST_PER_VALIDATOR, EvidenceLog
from holdfast_node.members import IN_STEP_BLOCKS, Members

CANDIDATE = PrivateKey(bytes([200]) * 32)
JOIN = ProposeJoin("v4", CANDIDATE.public_key, "[2001:db8::4]:30303", "v4.example:30304", 1000)


@pytest.fixture
def ledger(tmp_path: Path):
    opened = open_ledger(tmp_path)
    yield opened
    opened.store.close()


def say(ledger, key, *actions):
    nonce = ledger.next_nonce(account_of(key.public_key))
    commit(ledger, [transaction(key, nonce, actions)])


def peer(height, *, connected=True, name="v4"):
    return SimpleNamespace(name=name, connected=connected, height=height)


def seen_from(ledger, *peers) -> Members:
    return Members(ledger, "v0", lambda: peers)


def test_a_candidate_has_to_be_in_step(ledger) -> None:
    """Known, connected, near the head, and in possession of its key."""
    say(ledger, VALIDATORS[0], JOIN)
    approval = [Approve(0, unprobed=False)]

    def reason(*peers):
        members = seen_from(ledger, *peers)
        (proposal,) = members.view().proposals
        if not proposal.candidate.in_step:
            assert code_of(lambda: members.refuse_unprobed(approval)) == "candidate_not_in_step"
        members.refuse_unprobed([Approve(0, unprobed=True), Put("k", b"v")])
        members.refuse_unprobed([Approve(7, unprobed=False)])  # for execution to judge
        return proposal.candidate.reason

    assert "not among the peers" in reason()
    assert "not connected" in reason(peer(1, connected=False))
    assert "signed nothing" in reason(peer(1))
    say(ledger, CANDIDATE, Put("mark", b"1"))
    assert reason(peer(ledger.height)) is None
    for _ in range(IN_STEP_BLOCKS + 1):
        commit(ledger)
    assert "is at block 0 of" in reason(peer(0))
    members = seen_from(ledger, peer(ledger.height))
    members.refuse_unprobed(approval)
    assert "in step" in render(as_json(members.view()))


def as_json(view):
    return msgspec.to_builtins(view)


def test_view_history_and_who_joined(ledger) -> None:
    """A proposal, then the change to come, then history; addresses for the network."""
    members = seen_from(ledger)
    say(ledger, VALIDATORS[3], JOIN)
    (proposal,) = members.view().proposals
    assert (proposal.name, proposal.approved_by, proposal.missing) == ("v4", ["v3"], 2)
    assert (members.open_proposals(), members.next_activation()) == (1, 0)
    assert members.joined() == []
    for key in VALIDATORS[:2]:
        say(ledger, key, Approve(0, unprobed=False))
    at = ledger.height + ACTIVATION_DISTANCE
    view = members.view()
    assert view.proposals == []
    assert view.next_change is not None
    assert (view.next_change.activation, members.next_activation()) == (at, at)
    assert f"from block {at} on: v4 joins" in render(as_json(view))
    (joined,) = members.joined()  # before it votes: it has to be connected by then
    assert (joined.name, joined.host, joined.port) == ("v4", "2001:db8::4", 30303)
    assert (joined.sync_host, joined.sync_port) == ("v4.example", 30304)
    while ledger.height < at - 1:
        commit(ledger)
    assert members.view().next_change is None
    (change,) = members.history()
    assert change.approved_by == ["v3", "v0", "v1"]
    assert change.validators == ["v0", "v1", "v2", "v3", "v4"]


def agree(ledger, number: int, action) -> None:
    """A change is proposed, approved by all others and comes into effect."""
    say(ledger, VALIDATORS[0], action)
    for key in VALIDATORS[1:]:
        if ledger.membership().open(ledger.height + 1):
            say(ledger, key, Approve(number, unprobed=True))
    for _ in range(ACTIVATION_DISTANCE):
        commit(ledger)


def test_who_joins_again_is_where_it_joined_last(ledger) -> None:
    """Its first address is history, also after a restart."""
    members = seen_from(ledger)
    agree(ledger, 0, JOIN)
    agree(ledger, 1, ProposeLeave("v4", "moves", b"", below_four=False, until=1000))
    assert members.joined() == []
    again = msgspec.structs.replace(JOIN, address="192.0.2.4:30303")
    agree(ledger, 2, again)
    (joined,) = members.joined()
    assert joined.host == "192.0.2.4"


def test_a_leave_says_why(ledger) -> None:
    say(ledger, VALIDATORS[0], ProposeLeave("v2", "moved out", b"", below_four=True, until=99))
    view = seen_from(ledger).view()
    assert view.proposals[0].candidate is None
    assert "moved out" in render(as_json(view))


def evidence(index: int, height: int) -> Evidence:
    bodies = [vote_bytes("commit", CHAIN_ID, height, 0, bytes([i]) * 32) for i in (1, 2)]
    key = VALIDATORS[index]
    return Evidence(index, "commit", height, 0, *(Statement(b, key.sign(b)) for b in bodies))


def test_evidence_is_counted_by_who_it_is_about(tmp_path: Path) -> None:
    """The index of one who left says nothing about who has it now."""
    log = EvidenceLog(tmp_path / "evidence.journal")
    for height in range(MOST_PER_VALIDATOR):
        assert log.add(evidence(3, height))
    assert not log.wants(evidence(3, 99))
    log.accused = lambda found: 3 if found.height < 50 else 4
    assert log.wants(evidence(3, 99))
    log.close()
