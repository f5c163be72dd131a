# SPDX-License-Identifier: Apache-2.0
"""The rules by which validators change their set, and what the ledger makes of them."""

from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ledger_samples import (
    ALICE,
    CHAIN_ID,
    GENESIS,
    VALIDATORS,
    certify,
    code_of,
    commit,
    open_ledger,
    propose,
    small,
    transaction,
)

from holdfast_node.chain.block import VoteSignature, vote_bytes
from holdfast_node.chain.codec import decode, encode
from holdfast_node.chain.crypto import PrivateKey, account_of
from holdfast_node.chain.evidence import Evidence, Offence, Statement
from holdfast_node.chain.genesis import GenesisValidator
from holdfast_node.chain.membership import (
    ACTIVATION_DISTANCE,
    MAX_PROPOSAL_BLOCKS,
    MEMBERSHIP_KEY,
    Change,
    Council,
    Membership,
    act,
    change_key,
)
from holdfast_node.chain.proof import ChainProof, TransactionProof, prove_transaction
from holdfast_node.chain.trail import history, walk
from holdfast_node.chain.transaction import Approve, ProposeJoin, ProposeLeave, Put
from holdfast_node.chain.validators import Validator, ValidatorHistory, ValidatorSet
from holdfast_node.errors import RefusedError
from holdfast_node.ledger.ledger import Ledger

KEYS = [*VALIDATORS, *(PrivateKey(bytes([200 + i]) * 32) for i in range(4))]
FIVE = ValidatorSet(tuple(Validator(f"v{i}", k.public_key) for i, k in enumerate(KEYS[:5])))


def join(number: int = 5, **changes: object) -> ProposeJoin:
    key = KEYS[number].public_key
    action = ProposeJoin(f"v{number}", key, "v.example:30303", "v.example:30304", 1_000)
    return msgspec.structs.replace(action, **changes)


def leave(number: int = 4, **changes: object) -> ProposeLeave:
    action = ProposeLeave(f"v{number}", "gone", b"", below_four=False, until=1_000)
    return msgspec.structs.replace(action, **changes)


class Assembly:
    """The rules without a ledger: five members at first, one height per act unless said."""

    def __init__(self, members: ValidatorSet = FIVE) -> None:
        self.state = Membership()
        self.sets = ValidatorHistory(members)
        self.height = 10

    def act(self, number: int, action: object) -> Change | None:
        council = Council(CHAIN_ID, self.height, self.sets)
        self.state, change = act(self.state, action, KEYS[number].public_key, council)
        if change is not None:
            added = ValidatorSet(change.validators)
            self.sets = self.sets.extended(self.state.activations[-1], added)
        return change

    def refused(self, number: int, action: object) -> str:
        before = self.state
        code = code_of(lambda: self.act(number, action))
        assert self.state == before
        return code


def test_a_quorum_agrees() -> None:
    """Four of five; the change takes effect a fixed distance after, the rest lapses."""
    meeting = Assembly()
    assert meeting.act(0, join()) is None
    assert meeting.act(1, leave(2)) is None
    for member in (1, 2):
        assert meeting.act(member, Approve(0, unprobed=False)) is None
    change = meeting.act(4, Approve(0, unprobed=False))
    assert change is not None
    assert change.approved_by == ("v0", "v1", "v2", "v4")
    assert [v.name for v in change.validators] == ["v0", "v1", "v2", "v3", "v4", "v5"]
    at = 10 + ACTIVATION_DISTANCE
    assert meeting.state == Membership((at,), (), 2)
    assert len(meeting.sets.at(at - 1)) == 5
    assert len(meeting.sets.at(at)) == 6


def test_one_change_at_a_time() -> None:
    """Nothing is proposed or approved until the set has changed; then by the new set."""
    meeting = Assembly()
    meeting.act(0, join())
    for member in (1, 2, 3):
        meeting.act(member, Approve(0, unprobed=False))
    for meeting.height in range(10, 10 + ACTIVATION_DISTANCE):
        assert meeting.refused(0, leave(1)) == "change_in_flight"
        assert meeting.refused(4, Approve(0, unprobed=False)) == "change_in_flight"
        assert meeting.refused(5, leave(1)) == "not_validator"
    meeting.height = 10 + ACTIVATION_DISTANCE
    assert meeting.refused(4, Approve(0, unprobed=False)) == "no_such_proposal"
    assert meeting.act(5, leave(1)) is None
    assert meeting.state.proposals[0].number == 1
    assert meeting.state.proposals[0].approvals == (5,)


@pytest.mark.parametrize(
    ("member", "action", "code"),
    [
        (5, join(), "not_validator"),
        (0, join(4), "already_validator"),
        (0, join(5, name="v1"), "already_validator"),
        (0, join(5, public_key=KEYS[1].public_key), "already_validator"),
        (0, join(5, name="No Label"), "bad_name"),
        (0, join(5, sync_address="v.example:65536"), "bad_address"),
        (0, leave(5), "not_member"),
        (0, leave(until=9), "bad_expiry"),
        (0, leave(until=10 + MAX_PROPOSAL_BLOCKS + 1), "bad_expiry"),
        (0, leave(evidence=b"nothing"), "bad_evidence"),
        (0, Approve(0, unprobed=False), "no_such_proposal"),
    ],
)
def test_refusals(member: int, action: object, code: str) -> None:
    assert Assembly().refused(member, action) == code


def test_an_approval_counts_once() -> None:
    meeting = Assembly()
    meeting.act(0, join())
    assert meeting.refused(0, Approve(0, unprobed=False)) == "already_approved"
    assert meeting.refused(0, leave()) == "proposal_open"


def test_proposals_expire_by_height() -> None:
    """The last height counts; after that the proposer may make another."""
    meeting = Assembly()
    meeting.act(0, join(until=12))
    meeting.height = 12
    meeting.act(1, Approve(0, unprobed=False))
    meeting.height = 13
    assert meeting.refused(2, Approve(0, unprobed=False)) == "no_such_proposal"
    meeting.act(0, join())
    assert [p.number for p in meeting.state.proposals] == [1]


def test_never_below_four_without_saying_so() -> None:
    """And never to nobody."""
    four = ValidatorSet(FIVE.validators[:4])
    assert Assembly(four).refused(0, leave(3)) == "too_few"
    meeting = Assembly(four)
    assert meeting.act(0, leave(3, below_four=True)) is None
    alone = Assembly(ValidatorSet(FIVE.validators[:1]))
    assert alone.refused(0, leave(0, below_four=True)) == "too_few"
    change = alone.act(0, join(1))
    assert change is not None  # the proposal alone is the quorum of one


def evidence_against(key: PrivateKey, index: int, height: int) -> Evidence:
    bodies = [vote_bytes("commit", CHAIN_ID, height, 0, bytes([i]) * 32) for i in (1, 2)]
    first, second = (Statement(body, key.sign(body)) for body in bodies)
    return Evidence(index, "commit", height, 0, first, second)


@pytest.mark.parametrize("kind", ["commit", "view-change"])
@pytest.mark.parametrize("depth", [1, 50, 900, 1000, 3000, 30_000])
def test_nested_evidence_gets_the_same_verdict_everywhere(kind: Offence, depth: int) -> None:
    """How deep a decoder can follow depends on the machine; the verdict must not."""
    subject = encode((f"holdfast/{kind}/1", CHAIN_ID, 7, 0))[1:]
    bodies = [b"\x95" + subject + b"\x91" * depth + end for end in (b"\xc0", b"\xc2")]
    first, second = (Statement(body, KEYS[4].sign(body)) for body in bodies)
    proof = encode(Evidence(4, kind, 7, 0, first, second))
    assert Assembly().refused(0, leave(4, evidence=proof)) == "bad_evidence"


def test_evidence_is_verified() -> None:
    """By the set of its own height, whatever index the accused has now."""
    meeting = Assembly()
    proof = encode(evidence_against(KEYS[4], 4, 7))
    assert meeting.refused(0, leave(3, evidence=proof)) == "bad_evidence"
    late = encode(evidence_against(KEYS[4], 4, 11))
    assert meeting.refused(0, leave(4, evidence=late)) == "bad_evidence"
    forged = encode(evidence_against(KEYS[3], 4, 7))
    assert meeting.refused(0, leave(4, evidence=forged)) == "bad_evidence"
    meeting.sets = meeting.sets.extended(9, ValidatorSet(FIVE.validators[1:]))  # v4 moved to 3
    meeting.act(1, leave(4, evidence=proof, below_four=True))
    proposal = meeting.state.proposals[0]
    assert proposal.proved == "commit at 7/0"
    assert proposal.change.evidence == b""


@settings(max_examples=200)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 7),
            st.one_of(
                st.builds(join, st.integers(0, 7), until=st.integers(5, 40)),
                st.builds(
                    leave, st.integers(0, 7), until=st.integers(5, 40), below_four=st.booleans()
                ),
                st.builds(Approve, st.integers(0, 12), st.booleans()),
            ),
            st.integers(0, 2),
        ),
        max_size=80,
    )
)
def test_no_set_without_a_quorum_of_the_one_before(acts: list[tuple[int, object, int]]) -> None:
    """Whatever members and strangers try: one by one, by a quorum, never overlapping."""
    meeting = Assembly()
    for number, action, blocks in acts:
        before = meeting.sets.at(meeting.height)
        try:
            change = meeting.act(number, action)
        except RefusedError:
            change = None
        if change is not None:
            after = ValidatorSet(change.validators)
            assert abs(len(after) - len(before)) == 1
            assert len(set(change.approved_by)) >= before.quorum
            assert all(before.index_of(name) is not None for name in change.approved_by)
            assert meeting.state.proposals == ()
        assert len(meeting.state.proposals) <= len(before)
        encoded = encode(meeting.state)
        assert decode(encoded, Membership) == meeting.state
        meeting.height += blocks
    steps = meeting.state.activations
    assert all(b - a >= ACTIVATION_DISTANCE for a, b in pairwise(steps))


@given(st.binary(max_size=400))
def test_bytes_that_are_no_membership(data: bytes) -> None:
    """Decoding gives a value or `RefusedError`, for everything that is stored or sent."""
    for type_ in (Membership, Change, Evidence, TransactionProof, ChainProof):
        try:
            value = decode(data, type_)
        except RefusedError:
            continue
        assert encode(value) == data


@given(st.data())
def test_damaged_values_are_refused_or_others(data: st.DataObject) -> None:
    meeting = Assembly()
    meeting.act(0, join())
    good = encode(meeting.state)
    at = data.draw(st.integers(0, len(good) - 1))
    bad = good[:at] + bytes([data.draw(st.integers(0, 255))]) + good[at + 1 :]
    with suppress(RefusedError):
        assert encode(decode(bad, Membership)) == bad


# In the ledger.


def certify_by(block, keys):
    """A commit certificate with the votes of `keys`, by index."""
    message = vote_bytes("commit", CHAIN_ID, block.height, 0, block.hash)
    votes = tuple(VoteSignature(i, key.sign(message)) for i, key in sorted(keys.items()))
    good = certify(block)
    return msgspec.structs.replace(
        good, certificate=msgspec.structs.replace(good.certificate, signatures=votes)
    )


@pytest.fixture
def ledger(tmp_path: Path):
    opened = open_ledger(tmp_path)
    yield opened
    opened.store.close()


def say(ledger: Ledger, number: int, *actions: object, key: PrivateKey | None = None) -> str | None:
    """One block with one transaction of a validator; returns why it failed."""
    signer = key or KEYS[number]
    nonce = ledger.next_nonce(_account(signer))
    block = commit(ledger, [transaction(signer, nonce, actions)])
    receipts = ledger.receipts(block.height)
    assert receipts is not None
    return receipts[0].failed_reason


def _account(key: PrivateKey) -> bytes:
    return account_of(key.public_key)


def agree_to_join(ledger: Ledger, number: int = 4) -> int:
    """Three of the four agree; returns the activation."""
    made = ledger.membership().made
    assert say(ledger, 0, join(number)) is None
    assert say(ledger, 1, Approve(made, unprobed=False)) is None
    assert say(ledger, 2, Approve(made, unprobed=True)) is None
    return ledger.height + ACTIVATION_DISTANCE


def test_the_boundary(ledger: Ledger) -> None:
    """Block a - 1 names the next set and is certified by the old one, block a by the new one."""
    at = agree_to_join(ledger)
    old = ledger.validators
    while ledger.height < at - 2:
        commit(ledger)
        assert ledger.validators is old or ledger.validators.hash == old.hash
    last = propose(ledger)
    new = ledger.validators_at(at)
    assert (last.header.height, len(new)) == (at - 1, 5)
    assert (last.header.validators_hash, last.header.next_validators_hash) == (old.hash, new.hash)
    ledger.commit(certify(last))
    first = propose(ledger)
    assert first.header.validators_hash == first.header.next_validators_hash == new.hash
    by_old = certify_by(first, dict(enumerate(KEYS[:3])))
    assert code_of(lambda: by_old.check(CHAIN_ID, ledger.validators)) == "bad_certificate"
    assert code_of(lambda: by_old.check(CHAIN_ID, old)) == "bad_certificate"
    by_new = certify_by(first, {0: KEYS[0], 1: KEYS[1], 2: KEYS[2], 4: KEYS[4]})
    by_new.check(CHAIN_ID, ledger.validators)
    ledger.commit(by_new)


def test_blocks_that_name_other_sets_are_refused(ledger: Ledger) -> None:
    """One height too early, or too late."""
    at = agree_to_join(ledger)
    old, new = ledger.validators.hash, ledger.validators_at(at).hash
    while ledger.height < at - 2:
        block = propose(ledger)
        early = msgspec.structs.replace(block.header, next_validators_hash=new)
        wrong = msgspec.structs.replace(block, header=early)
        assert code_of(lambda wrong=wrong: ledger.process_proposal(wrong)) == "bad_block"
        ledger.commit(certify(block))
    block = propose(ledger)
    late = msgspec.structs.replace(block.header, next_validators_hash=old)
    wrong = msgspec.structs.replace(block, header=late)
    assert code_of(lambda: ledger.process_proposal(wrong)) == "bad_block"


def test_membership_survives_a_restart(tmp_path: Path) -> None:
    """With the state root over it."""
    ledger = open_ledger(tmp_path)
    at = agree_to_join(ledger)
    before, root = ledger.membership(), ledger.state_root
    ledger.store.close()
    ledger = open_ledger(tmp_path)
    assert (ledger.membership(), ledger.state_root) == (before, root)
    assert len(ledger.validators_at(at)) == 5
    assert ledger.change(at).approved_by == ("v0", "v1", "v2")
    ledger.store.close()


def test_failed_actions_have_no_effect(ledger: Ledger) -> None:
    """All of a transaction or nothing; the receipt says why."""
    assert say(ledger, 0, join(), key=ALICE) == "not_validator"
    assert say(ledger, 0, Put("k", b"v"), join(), leave(9)) == "proposal_open"
    assert ledger.membership() == Membership()
    assert ledger.value(_account(KEYS[0]), "k") is None
    root = ledger.state_root
    assert say(ledger, 3, Approve(5, unprobed=False)) == "no_such_proposal"
    assert ledger.state_root != root  # the nonce is used up


def test_nobody_writes_reserved_keys(ledger: Ledger) -> None:
    """No account and no value shares a key with the membership."""
    say(ledger, 0, Put("m", b"x"), Put(MEMBERSHIP_KEY.decode(), b"y"))
    assert ledger.membership() == Membership()
    assert change_key(7)[:1] == MEMBERSHIP_KEY
    assert change_key(7) != MEMBERSHIP_KEY


def test_trail_leads_from_the_genesis(ledger: Ledger) -> None:
    """Proofs of blocks after a change need it, and no step of it can be left out or bent."""
    first = agree_to_join(ledger, 4)
    while ledger.height < first - 1:
        commit(ledger)
    keys = {0: KEYS[0], 1: KEYS[1], 2: KEYS[2], 3: KEYS[3]}
    raws = [transaction(KEYS[0], ledger.next_nonce(_account(KEYS[0])), [leave(3)])]
    ledger.commit(certify_by(propose(ledger, raws), keys))
    for member in (1, 2, 4):
        nonce = ledger.next_nonce(_account(KEYS[member]))
        raws = [transaction(KEYS[member], nonce, [Approve(1, unprobed=False)])]
        ledger.commit(certify_by(propose(ledger, raws), keys))
    second = ledger.height + ACTIVATION_DISTANCE
    while ledger.height < second - 1:
        ledger.commit(certify_by(propose(ledger), keys))
    final = {0: KEYS[0], 1: KEYS[1], 2: KEYS[2]}
    raws = [transaction(ALICE, 0)]
    certified = certify_by(propose(ledger, raws), final)
    ledger.commit(certified)

    trail = ledger.trail(second)
    assert [step.certified.header.height for step in trail] == [first - 1, second - 1]
    assert ledger.trail(second - 1) == trail[:1]
    assert ledger.trail(first - 1) == ()
    assert walk(GENESIS, trail).hash == ledger.validators.hash
    proved = history(GENESIS, trail)
    for height in range(1, second + 1):
        assert proved.at(height).hash == ledger.validators_at(height).hash
    proof = prove_transaction(certified, 0, trail)
    decode(encode(proof), TransactionProof).check(GENESIS)
    ChainProof((certified.block.header,), certified.certificate, trail).check(GENESIS)
    other = msgspec.structs.replace(trail[0], next_set=trail[1].next_set)
    for false in ((), trail[:1], trail[1:], trail[::-1], (*trail, trail[1]), (other, trail[1])):
        with pytest.raises(RefusedError):
            msgspec.structs.replace(proof, trail=false).check(GENESIS)


def test_a_trail_does_not_lead_beyond_the_block(ledger: Ledger) -> None:
    """A later set cannot vouch for an earlier block."""
    at = agree_to_join(ledger)
    while ledger.height < at - 1:
        commit(ledger)
    block = ledger.block(at - 1)
    assert block is not None
    trail = ledger.trail(at)
    proof = ChainProof((block.block.header,), block.certificate, trail)
    assert code_of(lambda: proof.check(GENESIS)) == "bad_proof"


def test_alone_on_a_chain(tmp_path: Path) -> None:
    """A single validator lets another in: its proposal is the quorum."""
    one = GenesisValidator("v0", KEYS[0].public_key.hex())
    ledger = open_ledger(tmp_path, msgspec.structs.replace(small(), validators=[one]))
    raws = [transaction(KEYS[0], 0, [join(1)])]
    block = propose(ledger, raws)
    ledger.commit(certify_by(block, {0: KEYS[0]}))
    assert ledger.membership().activations == (1 + ACTIVATION_DISTANCE,)
    ledger.store.close()
