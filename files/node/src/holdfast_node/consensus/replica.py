# SPDX-License-Identifier: Apache-2.0
"""One validator's part in agreeing on one block after the other: PBFT without I/O.

`PROTOCOL.md` beside this file states the protocol as built; the names are the same.
"""

from collections.abc import Callable, Iterable
from typing import Literal

from holdfast_node.chain.block import Block, Certificate, CertifiedBlock, VoteKind, VoteSignature
from holdfast_node.chain.validators import ValidatorSet
from holdfast_node.consensus.buffers import required, stripped
from holdfast_node.consensus.effects import Commit, Effect, Persist, Refused, Send
from holdfast_node.consensus.evidence import two_view_changes, two_votes
from holdfast_node.consensus.height import HeightState, Proposal
from holdfast_node.consensus.messages import (
    Entered,
    Locked,
    Message,
    NewView,
    PreparedProof,
    PrePrepare,
    Proposed,
    Record,
    ViewChange,
    Vote,
    Voted,
)
from holdfast_node.consensus.rules import check_message, check_size, required_block
from holdfast_node.consensus.speaker import Speaker
from holdfast_node.consensus.timeouts import Timeouts
from holdfast_node.consensus.votes import VIEWS_BEHIND
from holdfast_node.errors import RefusedError


class Replica(HeightState):
    """Feed it messages and time; carry out the effects it returns, in order.

    `validators_at` is as for `HeightState`. `check_proposal(block)` raises `RefusedError` for a
    block that must not be voted for; `sign` signs with this validator's key, `public_key`. `now` is
    seconds of any monotonic clock. `records` is what the journal holds of this height; call
    `resume` before anything else if there may be any.
    """

    def __init__(
        self,
        *,
        chain_id: str,
        validators_at: Callable[[int], ValidatorSet],
        public_key: bytes,
        sign: Callable[[bytes], bytes],
        check_proposal: Callable[[Block], None],
        timeouts: Timeouts,
        height: int,
        view: int,
        records: Iterable[Record] = (),
        max_block_bytes: int = 1_048_576,
    ) -> None:
        self.chain_id = chain_id
        self._check_proposal = check_proposal
        self._timeouts = timeouts
        super().__init__(
            validators_at=validators_at,
            public_key=public_key,
            height=height,
            view=view,
            records=records,
            max_block_bytes=max_block_bytes,
        )
        self._speaker = Speaker(chain_id, self.index, sign)

    # What the driver may ask.

    @property
    def wants_proposal(self) -> bool:
        """Whether this validator should call `propose` with a new block."""
        return (
            self.active
            and not self.decided
            and self.leader == self.index
            and self._required is None
            and self._proposal is None
            and ("pre-prepare", self.view) not in self._cast
        )

    # What the driver tells.

    def resume(self, now: float) -> list[Effect]:
        """Go on where a restart interrupted: say again what the journal says was said."""
        effects: list[Effect] = []
        if not self.active:
            self._changes.add(self._view_change())  # it counts for the quorum, here as elsewhere
            effects += self._follow_view_change(now)  # alone, it is the quorum
        elif self.leader == self.index and self._proposal is None:
            effects += self._propose_again(now)
        return effects + self.repeat()

    def expect(self, now: float) -> None:
        """There is work to decide: the leader is given a view's time to make progress."""
        self._expecting = True
        if self.active and not self.decided and self._view_deadline is None:
            self._view_deadline = now + self._view_seconds()
        if self._resend_at is None and not self.decided:
            self._resend_at = now + self._timeouts.resend

    def propose(self, block: Block, now: float) -> list[Effect]:
        """Propose a new block; only when `wants_proposal`."""
        if not self.wants_proposal:
            raise RuntimeError("propose() called while no proposal is wanted")
        return self._propose(block, now)

    def suspect(self, now: float) -> list[Effect]:
        """Give up the current leader, who speaks but does not do its work."""
        if self.decided or not self.active:
            return []
        return self._change_view(self.view + 1, now)

    def advance(self, parent_height: int, parent_view: int, now: float) -> list[Effect]:
        """Go on after a block that is stored now; `parent_view` is its header's.

        Only while this validator has a vote at the next height (`is_member`).
        """
        if parent_height < self.height:
            return []
        self._start_height(parent_height + 1, parent_view)
        self._speaker.index = self.index
        effects: list[Effect] = []
        for message in self._future.take():
            effects += self._receive(message, now, trusted=True)
        return effects

    def receive(self, message: Message, now: float) -> list[Effect]:
        """Take one message from the network."""
        return self._receive(message, now, trusted=False)

    def timeout(self, now: float) -> list[Effect]:
        """Act on every timer that is due."""
        effects: list[Effect] = []
        if self._view_deadline is not None and now >= self._view_deadline and not self.decided:
            effects += self._change_view(self.view + 1, now)
        if self._resend_at is not None and now >= self._resend_at:
            effects += self.repeat()
            self._resend_at = now + self._timeouts.resend
        return effects

    def repeat(self) -> list[Effect]:
        """Say again what was said at this height, for peers that missed it."""
        if self.decided:
            return []
        messages: list[Message] = []
        if not self.active:
            messages.append(self._changes.of(self.index) or self._view_change())
        elif self.leader == self.index:
            if self._new_view is not None:
                messages.append(self._new_view)
            mine = self._proposal
            if mine is not None:
                messages.append(PrePrepare(self.view, mine.block, self.index, mine.signature))
        if self.active and ("prepare", self.view) in self._cast:
            messages.append(self._vote("prepare", self.view))
        effects: list[Effect] = [Send(message) for message in messages]
        if self._locked is not None:
            effects += self._cast_vote("commit", self._locked.proof.view)
        return effects

    # Receiving.

    def _receive(self, message: Message, now: float, *, trusted: bool) -> list[Effect]:
        ahead = message.height - self.height
        if ahead not in {0, 1} or (ahead == 0 and self.decided):
            return []
        validators = self._successors if ahead else self.validators
        if message.validator == validators.index_of_key(self.public_key):
            return []
        if message in self._future if ahead else self._is_moot(message):
            return []
        try:
            if not trusted and (ahead or not self._is_known(message)):
                check_message(message, chain_id=self.chain_id, validators=validators)
            check_size(message, self._max_block_bytes)
            if ahead:
                self._future.add(message)
                return []
            return self._dispatch(message, now)
        except RefusedError as error:
            return [Refused(message.validator, error.code, error.message)]

    def _dispatch(self, message: Message, now: float) -> list[Effect]:
        """A message that is not moot, from who says it."""
        match message:
            case PrePrepare():
                return self._on_pre_prepare(message, now)
            case Vote():
                return self._on_vote(message)
            case ViewChange():
                return self._on_view_change(message, now)
            case NewView():
                return self._on_new_view(message, now)

    def _on_pre_prepare(self, message: PrePrepare, now: float) -> list[Effect]:
        if message.view > self.view or not self.active:
            self._early = message
            return []
        known = self._proposal
        block_hash = message.block.hash
        if known is not None:
            return self._compare("pre-prepare", message, (known.hash, known.signature), block_hash)
        expected = self._required or block_hash
        if block_hash != expected:
            raise RefusedError("bad_proposal", "another block was prepared and must come again")
        if self._required is None and message.block.header.view != message.view:
            raise RefusedError("bad_proposal", "a new block must name the view it is proposed in")
        block, lock = message.block, self._locked
        if lock is not None and lock.proof.block_hash == block_hash:
            block = lock.block  # the hash is the header's: only this body was ever checked
        else:
            self._check_proposal(block)
        return self._accept_proposal(Proposal(block, block_hash, message.signature), now)

    def _accept_proposal(self, proposal: Proposal, now: float) -> list[Effect]:
        self._proposal = proposal
        self.expect(now)
        effects: list[Effect] = []
        if self.leader != self.index:
            cast = self._cast.setdefault(("prepare", self.view), proposal.hash)
            if cast != proposal.hash:
                return []  # voted for another one before a restart: stay silent in this view
            effects.append(Persist(Voted(self.height, self.view, proposal.hash)))
            effects += self._cast_vote("prepare", self.view)
        return effects + self._progress()

    def _on_vote(self, message: Vote) -> list[Effect]:
        book = self._prepares if message.kind == "prepare" else self._commits
        other = book.add(message.view, message.block_hash, _signature(message))
        if other is not None:
            return self._compare(message.kind, message, other, message.block_hash)
        return self._progress()

    def _compare(
        self,
        kind: VoteKind,
        message: PrePrepare | Vote,
        known: tuple[bytes, bytes],
        block_hash: bytes,
    ) -> list[Effect]:
        subject = (message.validator, self.height, message.view)
        said = (block_hash, message.signature)
        return [two_votes(kind, self.chain_id, subject, known, said)]

    def _on_view_change(self, message: ViewChange, now: float) -> list[Effect]:
        known = self._changes.add(message)
        if known is not None:
            evidence = two_view_changes(self.chain_id, known, message)
            return [] if evidence is None else [evidence]
        target = self._changes.target(self.view, self.validators.tolerated_faults)
        if target is not None:
            return self._change_view(target, now)
        return self._follow_view_change(now)

    def _on_new_view(self, message: NewView, now: float) -> list[Effect]:
        effects: list[Effect] = []
        if message.view > self.view:
            effects.append(Persist(Entered(self.height, message.view)))
        self._leave_view(message.view)
        return effects + self._enter_view(required_block(message.view_changes), None, now)

    # Voting.

    def _propose(self, block: Block, now: float) -> list[Effect]:
        block_hash = block.hash
        cast = self._cast.setdefault(("pre-prepare", self.view), block_hash)
        if cast != block_hash:
            return []  # proposed another one before a restart: the next view's leader goes on
        message = self._speaker.pre_prepare(self.view, block, block_hash)
        self._proposed = Proposed(self.height, self.view, block)
        proposal = Proposal(block, block_hash, message.signature)
        return [Persist(self._proposed), Send(message), *self._accept_proposal(proposal, now)]

    def _propose_again(self, now: float) -> list[Effect]:
        """As leader of the view, propose what was proposed in it before a restart."""
        mine = self._proposed
        if mine is None or mine.view != self.view:
            return []
        return self._propose(mine.block, now)

    def _vote(self, kind: Literal["prepare", "commit"], view: int) -> Vote:
        return self._speaker.vote(kind, self.height, view, self._cast[kind, view])

    def _cast_vote(self, kind: Literal["prepare", "commit"], view: int) -> list[Effect]:
        vote = self._vote(kind, view)
        book = self._prepares if kind == "prepare" else self._commits
        book.add(view, vote.block_hash, _signature(vote))
        return [Send(vote)]

    def _progress(self) -> list[Effect]:
        """Lock if a quorum prepared the proposal, decide if a quorum committed."""
        effects: list[Effect] = []
        proposal = self._proposal
        if self.active and proposal is not None and ("commit", self.view) not in self._cast:
            votes = self._prepares.of(self.view, proposal.hash)
            prepares = tuple(vote for vote in votes if vote.validator != self.leader)
            if len(prepares) + 1 >= self.validators.quorum:
                effects += self._lock(proposal, prepares)
        decision = self._commits.quorum(self.validators.quorum)
        if decision is None or self.decided:
            return effects
        view, block_hash = decision
        block = self._known_block(block_hash)
        if block is not None:  # otherwise block sync brings it
            self.decided = True
            self._view_deadline = self._resend_at = None
            certificate = Certificate(
                self.height, view, block_hash, self._commits.of(view, block_hash)
            )
            effects.append(Commit(CertifiedBlock(block, certificate)))
        return effects

    def _lock(self, proposal: Proposal, prepares: tuple[VoteSignature, ...]) -> list[Effect]:
        leader = VoteSignature(self.leader, proposal.signature)
        proof = PreparedProof(self.view, proposal.hash, leader, prepares)
        self._locked = Locked(self.height, proof, proposal.block)
        self._cast["commit", self.view] = proposal.hash
        return [Persist(self._locked), *self._cast_vote("commit", self.view)]

    # Changing view.

    def _view_seconds(self) -> float:
        return self._timeouts.of_view(self.view - self.first_view)

    def _view_change(self) -> ViewChange:
        lock = self._locked
        return self._speaker.view_change(
            self.height, self.view, lock.proof if lock else None, lock.block if lock else None
        )

    def _change_view(self, view: int, now: float) -> list[Effect]:
        self._leave_view(view)
        self.active = False
        self._expecting = True
        self._resend_at = now + self._timeouts.resend
        change = self._view_change()
        self._changes.add(change)
        effects: list[Effect] = [Persist(Entered(self.height, view)), Send(change)]
        return effects + self._follow_view_change(now)

    def _leave_view(self, view: int) -> None:
        self.view = view
        self._proposal = self._required = self._new_view = self._view_deadline = None
        self._prepares.forget(view)
        self._commits.forget(view - VIEWS_BEHIND)

    def _follow_view_change(self, now: float) -> list[Effect]:
        if self.active:
            return []
        quorum = self.validators.quorum
        if self._view_deadline is None and self._changes.asking(self.view) >= quorum:
            # Only now: while too few ask, racing on to later views would leave them behind.
            self._view_deadline = now + self._view_seconds()
        requests = self._changes.requests(self.view)
        if self.leader != self.index or len(requests) < quorum:
            return []
        self._new_view = self._speaker.new_view(self.height, self.view, stripped(requests))
        return [Send(self._new_view), *self._enter_view(*required(requests), now)]

    def _enter_view(
        self, required_hash: bytes | None, block: Block | None, now: float
    ) -> list[Effect]:
        """Be active in `self.view`, bound to propose or accept `required_hash` if there is one."""
        self.active = True
        self._required = required_hash
        self._view_deadline = None
        self.expect(now)
        if self.leader == self.index:
            if required_hash is None:
                return self._propose_again(now)
            return [] if block is None else self._propose(block, now)
        early, self._early = self._early, None
        if early is not None and early.view == self.view:
            return self._on_pre_prepare(early, now)
        return []


def _signature(vote: Vote) -> VoteSignature:
    return VoteSignature(vote.validator, vote.signature)
