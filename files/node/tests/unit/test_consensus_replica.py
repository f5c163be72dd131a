# SPDX-License-Identifier: Apache-2.0
"""One replica, fed by hand: what it accepts, refuses, remembers and repeats."""

from collections.abc import Callable, Iterable

import pytest

from holdfast_node.chain.block import Block, Header, VoteSignature, vote_bytes
from holdfast_node.chain.codec import decode, encode
from holdfast_node.chain.crypto import ZERO_HASH, PrivateKey
from holdfast_node.chain.merkle import merkle_root
from holdfast_node.chain.validators import Validator, ValidatorSet
from holdfast_node.consensus import (
    Commit,
    Effect,
    Evidence,
    Message,
    Persist,
    PrePrepare,
    Record,
    Refused,
    Replica,
    Send,
    Timeouts,
)
from holdfast_node.consensus.buffers import FUTURE_MESSAGES
from holdfast_node.consensus.messages import (
    Entered,
    Locked,
    NewView,
    PreparedProof,
    ViewChange,
    Vote,
    new_view_bytes,
    view_change_bytes,
)
from holdfast_node.errors import RefusedError

CHAIN = "unit"
KEYS = [PrivateKey(bytes([i + 1]) * 32) for i in range(4)]
VALIDATORS = ValidatorSet(tuple(Validator(f"v{i}", k.public_key) for i, k in enumerate(KEYS)))


def block(height: int = 1, view: int = 0, text: bytes = b"tx") -> Block:
    header = Header(
        CHAIN, height, view, 1, ZERO_HASH, merkle_root((text,)), ZERO_HASH, VALIDATORS.hash,
        VALIDATORS.hash,
    )  # fmt: skip
    return Block(header, (text,))


def pre_prepare(proposed: Block, view: int = 0, signer: int | None = None) -> PrePrepare:
    leader = VALIDATORS.leader(view)
    signed = vote_bytes("pre-prepare", CHAIN, proposed.height, view, proposed.hash)
    return PrePrepare(
        view, proposed, leader, KEYS[leader if signer is None else signer].sign(signed)
    )


def vote(kind: str, validator: int, voted: Block, view: int = 0) -> Vote:
    signed = vote_bytes(kind, CHAIN, voted.height, view, voted.hash)
    return Vote(kind, voted.height, view, voted.hash, validator, KEYS[validator].sign(signed))


def view_change(validator: int, view: int, prepared: Block | None = None) -> ViewChange:
    proof = None if prepared is None else proof_of(prepared)
    signed = view_change_bytes(CHAIN, 1, view, proof, validator)
    return ViewChange(1, view, proof, validator, KEYS[validator].sign(signed), prepared)


def proof_of(prepared: Block, view: int = 0, voters: Iterable[int] = (1, 2)) -> PreparedProof:
    leader = VALIDATORS.leader(view)
    signed = vote_bytes("prepare", CHAIN, prepared.height, view, prepared.hash)
    proposed = vote_bytes("pre-prepare", CHAIN, prepared.height, view, prepared.hash)
    return PreparedProof(
        view,
        prepared.hash,
        VoteSignature(leader, KEYS[leader].sign(proposed)),
        tuple(VoteSignature(i, KEYS[i].sign(signed)) for i in voters),
    )


def new_view(view: int, changes: list[ViewChange]) -> NewView:
    leader = VALIDATORS.leader(view)
    stripped = tuple(
        ViewChange(c.height, c.view, c.prepared, c.validator, c.signature) for c in changes
    )
    signed = new_view_bytes(CHAIN, 1, view, stripped)
    return NewView(1, view, stripped, leader, KEYS[leader].sign(signed))


def replica(
    index: int = 1,
    records: Iterable[Record] = (),
    check: Callable[[Block], None] = lambda _block: None,
) -> Replica:
    return Replica(
        chain_id=CHAIN,
        validators_at=lambda _height: VALIDATORS,
        public_key=KEYS[index].public_key,
        sign=KEYS[index].sign,
        check_proposal=check,
        timeouts=Timeouts(view=1.0, view_max=4.0, resend=0.5),
        height=1,
        view=0,
        records=records,
    )


def sent(effects: list[Effect]) -> list[Message]:
    return [effect.message for effect in effects if isinstance(effect, Send)]


def records(effects: list[Effect]) -> list[Record]:
    return [effect.record for effect in effects if isinstance(effect, Persist)]


class CountingValidators(ValidatorSet):
    """Counts the signatures that are verified."""

    verified = 0

    def verify(self, index: int, message: bytes, signature: bytes) -> bool:
        self.verified += 1
        return super().verify(index, message, signature)


def test_what_is_repeated_or_late_costs_no_signature_check(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each message as often as somebody likes: verified once, or not at all if it is of the past.

    A different one, or one signed otherwise, is verified all the same.
    """
    counting = CountingValidators(VALIDATORS.validators)
    me, proposed = replica(), block()
    monkeypatch.setattr(me, "validators", counting)
    monkeypatch.setattr(me, "_successors", counting)

    def cost(message: Message) -> int:
        before = counting.verified
        me.receive(message, 0)
        return counting.verified - before

    early = pre_prepare(block(height=2))
    for message in (pre_prepare(proposed), vote("prepare", 3, proposed), early):
        assert [cost(message) for _ in range(3)] == [1, 0, 0], message
    assert [cost(view_change(0, 1, proposed)) for _ in range(3)] == [4, 0, 0]
    forged = Vote("prepare", 1, 0, proposed.hash, 3, bytes(64))
    assert [cost(forged) for _ in range(2)] == [1, 1]
    assert cost(pre_prepare(block(text=b"other"))) == 1  # there may be evidence in it
    assert cost(vote("prepare", 3, block(text=b"other"))) == 1
    assert cost(view_change(0, 1)) == 1
    following = new_view(2, [view_change(i, 2) for i in (0, 2, 3)])
    assert [cost(following) for _ in range(3)] == [4, 0, 0]
    assert cost(new_view(1, [view_change(i, 1) for i in (0, 2, 3)])) == 0
    assert cost(pre_prepare(proposed)) == 0
    assert me.view == 2


def test_three_phases_lead_to_a_certified_block() -> None:
    """Pre-prepare, 2f prepares, 2f + 1 commits: the block is final and its certificate holds."""
    me, proposed = replica(), block()
    [prepare] = sent(me.receive(pre_prepare(proposed), 0))
    assert prepare == vote("prepare", 1, proposed)
    [commit] = sent(me.receive(vote("prepare", 2, proposed), 0))
    assert commit == vote("commit", 1, proposed)
    assert me.receive(vote("commit", 2, proposed), 0) == []
    [effect] = me.receive(vote("commit", 3, proposed), 0)
    assert isinstance(effect, Commit)
    effect.certified.check(CHAIN, VALIDATORS)
    assert me.advance(1, 0, 0) == []
    assert me.height == 2


def test_every_message_survives_the_wire() -> None:
    """Encoded and decoded, each message is the same."""
    messages = [
        pre_prepare(block()),
        vote("commit", 2, block()),
        view_change(3, 1, block()),
        new_view(1, [view_change(i, 1, block()) for i in (1, 2, 3)]),
    ]
    assert [decode(encode(message), Message) for message in messages] == messages


@pytest.mark.parametrize(
    ("message", "code"),
    [
        (pre_prepare(block(), signer=2), "bad_signature"),
        (PrePrepare(0, block(), 2, b"x" * 64), "not_leader"),
        (PrePrepare(0, block(), 9, b"x" * 64), "not_member"),
        (Vote("commit", 1, 0, ZERO_HASH, 2, b"x" * 64), "bad_signature"),
        (pre_prepare(block(view=3)), "bad_proposal"),
        (ViewChange(1, 1, None, 2, b"x" * 64), "bad_signature"),
        (NewView(1, 1, (), 2, b"x" * 64), "not_leader"),
        (new_view(5, [view_change(2, 5), view_change(3, 5)]), "bad_new_view"),
        (new_view(5, [view_change(2, 5), view_change(3, 5), view_change(3, 5)]), "bad_new_view"),
        (new_view(5, [view_change(i, 4) for i in (0, 2, 3)]), "bad_new_view"),
    ],
)
def test_wrong_messages_are_refused(message: Message, code: str) -> None:
    """Each is refused with its own code, and nothing is said or written."""
    me = replica(index=1 if not isinstance(message, NewView) else 0)
    [effect] = me.receive(message, 0)
    assert isinstance(effect, Refused)
    assert effect.code == code


@pytest.mark.parametrize(
    "proof",
    [
        proof_of(block(), voters=(1,)),
        proof_of(block(), voters=(0, 1)),
        proof_of(block(), view=1, voters=(2, 3)),
        proof_of(block(height=2)),
    ],
    ids=["no quorum", "leader counted twice", "not before the new view", "another height"],
)
def test_view_change_with_a_wrong_proof_is_refused(proof: PreparedProof) -> None:
    """A proof has to show a quorum, for this height, before the view asked for."""
    signed = view_change_bytes(CHAIN, 1, 1, proof, 2)
    message = ViewChange(1, 1, proof, 2, KEYS[2].sign(signed), block())
    [effect] = replica(index=0).receive(message, 0)
    assert isinstance(effect, Refused)
    assert effect.code in {"bad_proof", "bad_certificate"}


def test_view_change_must_bring_the_block_it_proves() -> None:
    """A proof whose block nobody has would stop the network."""
    message = view_change(2, 1, block())
    without = ViewChange(1, 1, message.prepared, 2, message.signature, None)
    other = ViewChange(1, 1, message.prepared, 2, message.signature, block(text=b"other"))
    for wrong in (without, other):
        [effect] = replica(index=0).receive(wrong, 0)
        assert isinstance(effect, Refused)


def test_unacceptable_block_gets_no_vote() -> None:
    """If the application refuses a proposal nothing is persisted or sent."""

    def refuse(_block: Block) -> None:
        raise RefusedError("bad_block", "no")

    [effect] = replica(check=refuse).receive(pre_prepare(block()), 0)
    assert isinstance(effect, Refused)


def test_second_proposal_in_a_view_is_evidence() -> None:
    """The first one counts; the second is proof against the leader."""
    me = replica()
    me.receive(pre_prepare(block()), 0)
    [effect] = me.receive(pre_prepare(block(text=b"other")), 0)
    assert isinstance(effect, Evidence)
    assert effect.validator == 0


def test_second_vote_of_a_validator_does_not_count() -> None:
    """Votes for two blocks are evidence; only the first is counted."""
    me = replica()
    me.receive(pre_prepare(block()), 0)
    me.receive(vote("prepare", 2, block(text=b"other")), 0)
    [effect] = me.receive(vote("prepare", 2, block()), 0)
    assert isinstance(effect, Evidence)


def test_silent_leader_is_replaced() -> None:
    """After the timeout a quorum changes view, and its leader proposes."""
    me = replica(index=1)
    me.expect(0)
    assert sent(me.timeout(0.9)) == []
    [mine] = [m for m in sent(me.timeout(1.0)) if isinstance(m, ViewChange)]
    assert mine.view == 1
    me.receive(view_change(2, 1), 1.1)
    effects = me.receive(view_change(3, 1), 1.1)
    assert [type(m) for m in sent(effects)] == [NewView]
    assert me.wants_proposal
    proposal = sent(me.propose(block(view=1), 1.2))[0]
    assert isinstance(proposal, PrePrepare)
    assert proposal.view == 1


def test_new_leader_must_propose_what_was_prepared() -> None:
    """A block that may be final comes again; another one is refused."""
    prepared = block()
    leader = replica(index=1)
    effects = [e for i in (0, 2) for e in leader.receive(view_change(i, 1, prepared), 0)]
    [again] = [m for m in sent(effects) if isinstance(m, PrePrepare)]
    assert (again.view, again.block) == (1, prepared)
    follower = replica(index=2)
    changes = [view_change(0, 1, prepared), view_change(2, 1), view_change(3, 1)]
    follower.receive(new_view(1, changes), 0)
    [effect] = follower.receive(pre_prepare(block(view=1, text=b"other"), view=1), 0)
    assert isinstance(effect, Refused)
    [prepare] = sent(follower.receive(pre_prepare(prepared, view=1), 0))
    assert isinstance(prepare, Vote)
    assert prepare.block_hash == prepared.hash


def test_proposal_may_overtake_the_new_view() -> None:
    """A proposal that arrives before its NEW-VIEW is taken up when that comes."""
    follower = replica(index=2)
    assert follower.receive(pre_prepare(block(view=1), view=1), 0) == []
    effects = follower.receive(new_view(1, [view_change(i, 1) for i in (0, 1, 3)]), 0)
    assert [type(m) for m in sent(effects)] == [Vote]


def test_f_plus_one_view_changes_are_followed() -> None:
    """One validator cannot start a view change; f + 1 can."""
    me = replica(index=1)
    assert me.receive(view_change(2, 7), 0) == []
    assert me.view == 0
    me.receive(view_change(3, 5), 0)
    assert me.view == 5
    assert not me.active


def test_timeouts_double_within_bounds_and_fall_back() -> None:
    """1, 2, 4, 4 … seconds; the next height starts with 1 again."""
    me = replica(index=3)
    me.expect(0)
    now, lengths = 0.0, []
    for view in range(1, 5):
        now = now + 10
        me.timeout(now)
        for other in (0, 1):
            me.receive(view_change(other, view), now)
        due = me._view_deadline
        assert due is not None
        lengths.append(due - now)
    assert lengths == [2.0, 4.0, 4.0, 4.0]
    me.advance(1, 4, now)
    me.expect(now)
    assert me._view_deadline == now + 1.0


@pytest.mark.parametrize("after", range(4))
def test_restart_never_contradicts_the_journal(after: int) -> None:
    """Restarted after any record, the replica does not vote for another block in that view."""
    first = replica()
    effects = first.receive(pre_prepare(block()), 0) + first.receive(vote("prepare", 2, block()), 0)
    written = records(effects)[:after]
    again = replica(records=written)
    other = block(text=b"other")
    said = sent(again.receive(pre_prepare(other), 0)) + sent(again.repeat())
    votes = [m for m in said if isinstance(m, Vote) and m.kind == "prepare"]
    assert {m.block_hash for m in votes} == ({block().hash} if written else {other.hash})


def test_restarted_leader_proposes_the_same_block_or_none() -> None:
    """A leader that proposed before a crash does not propose another block in that view."""
    leader = replica(index=0)
    written = records(leader.propose(block(), 0))
    again = replica(index=0, records=written)
    assert not again.wants_proposal


def test_prepared_block_survives_a_restart() -> None:
    """The proof is in the journal, and comes with the view change after the restart."""
    first = replica()
    effects = first.receive(pre_prepare(block()), 0) + first.receive(vote("prepare", 2, block()), 0)
    again = replica(records=records(effects))
    again.expect(0)
    [change] = [m for m in sent(again.timeout(2)) if isinstance(m, ViewChange)]
    assert change.prepared is not None
    assert change.block == block()


def test_a_view_that_was_given_up_stays_given_up() -> None:
    """After a restart there is no vote in a view below the one asked for."""
    first = replica(index=2)
    first.expect(0)
    written = records(first.timeout(1.0))
    again = replica(index=2, records=written)
    assert again.view == 1
    assert sent(again.receive(pre_prepare(block()), 2)) == []


def test_messages_of_the_next_height_wait_within_bounds() -> None:
    """They are kept for one height ahead, a few per validator, and used after `advance`."""
    me, following = replica(), block(height=2)
    me.receive(pre_prepare(following), 0)
    for text in range(50):
        me.receive(vote("prepare", 2, block(height=2, text=b"%d" % text)), 0)
    me.receive(vote("prepare", 3, block(height=3)), 0)
    assert len(me._future) <= 2 * FUTURE_MESSAGES
    assert [type(m) for m in sent(me.advance(1, 0, 0))] == [Vote]


def test_unsent_words_are_repeated_while_undecided() -> None:
    """Lost messages come again at intervals, and stop when the height is decided."""
    me = replica()
    me.receive(pre_prepare(block()), 0)
    assert sent(me.timeout(0.5)) == [vote("prepare", 1, block())]
    me.receive(vote("prepare", 2, block()), 0.6)
    assert len(sent(me.timeout(1.01))) >= 1
    me.receive(vote("commit", 2, block()), 1.1)
    me.receive(vote("commit", 3, block()), 1.1)
    assert me.timeout(9) == []
    assert me.next_timer() is None


def test_propose_out_of_turn_is_our_own_error() -> None:
    """The driver has to ask first."""
    with pytest.raises(RuntimeError):
        replica(index=1).propose(block(), 0)


@pytest.mark.parametrize("views", [1, 2])
def test_a_validator_alone_goes_on_after_a_restart_in_a_view_change(views: int) -> None:
    """Nobody else will ever say a word: what it finds in its journal is the whole quorum."""
    alone = ValidatorSet((VALIDATORS[0],))

    def start(records: Iterable[Record]) -> Replica:
        return Replica(
            chain_id=CHAIN,
            validators_at=lambda _height: alone,
            public_key=KEYS[0].public_key,
            sign=KEYS[0].sign,
            check_proposal=lambda _block: None,
            timeouts=Timeouts(view=1.0, view_max=4.0, resend=0.5),
            height=1,
            view=0,
            records=records,
        )

    again = start([Entered(1, view) for view in range(1, views + 1)])
    said = sent(again.resume(0))
    assert {type(message) for message in said} == {NewView}
    assert again.wants_proposal
    effects = again.propose(block(view=views), 0)
    [decided] = [effect for effect in effects if isinstance(effect, Commit)]
    assert [vote.validator for vote in decided.certified.certificate.signatures] == [0]


def test_a_locked_block_keeps_the_body_that_was_checked() -> None:
    """A header that comes again in the next view brings no other transactions with it."""

    def check(proposed: Block) -> None:
        if not proposed.has_valid_transactions_root():
            raise RefusedError("bad_block", "transactions")

    node, proposed = replica(2, check=check), block()
    node.receive(pre_prepare(proposed), 0)
    effects = node.receive(vote("prepare", 1, proposed), 0)
    assert [type(record) for record in records(effects)] == [Locked]
    effects = node.receive(view_change(1, 1, proposed), 1)
    effects += node.receive(view_change(3, 1, proposed), 1)
    own = next(message for message in sent(effects) if isinstance(message, ViewChange))
    changes = [view_change(1, 1, proposed), own, view_change(3, 1, proposed)]
    node.receive(new_view(1, changes), 1)
    effects = node.receive(pre_prepare(Block(proposed.header, (b"other",)), 1), 1)
    for kind in ("prepare", "commit"):
        for other in (0, 3):
            effects += node.receive(vote(kind, other, proposed, 1), 1)
    locks = [record for record in records(effects) if isinstance(record, Locked)]
    commits = [effect for effect in effects if isinstance(effect, Commit)]
    assert [lock.block for lock in locks] == [proposed]
    assert [commit.certified.block for commit in commits] == [proposed]
