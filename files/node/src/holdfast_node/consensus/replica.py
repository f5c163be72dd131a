# SPDX-License-Identifier: Apache-2.0
"""One validator's part in agreeing on one block after the other: PBFT without I/O.

Heights are decided one at a time. At each height the protocol of Castro and Liskov runs in views;
the leader of a view is validator `view mod n`.

========== =====================================================================================
state      meaning
========== =====================================================================================
waiting    active in a view, no proposal yet
voting     a proposal was accepted; prepare votes are counted
locked     a quorum prepared it; the proof is in the journal, the commit vote is out
decided    a quorum committed; nothing more is said until `advance`
changing   the view timed out; a VIEW-CHANGE is out, waiting for the NEW-VIEW
========== =====================================================================================

Where this differs from the paper:

* A view change concerns one height. The next height starts in the view in which its parent was
  first proposed (it is in the header, hence agreed), so a working leader stays, and a validator
  that timed out alone is back in step with the next block instead of stuck in a view of its own.
* NEW-VIEW carries the view changes only; what must be proposed again follows from them, and comes
  in an ordinary PRE-PREPARE. The block travels with the VIEW-CHANGE that proves it, so whoever
  leads has it.
* A quorum is `ValidatorSet.quorum`, which is 2f + 1 for n = 3f + 1 and safe for other n as well.
* Messages may be lost: while a height is undecided its own messages are sent again at intervals.

Timers: `view` runs while progress is expected (there is work, or a quorum changes view) and doubles
with every view of the height, within bounds; `resend` runs as long as there is something to repeat.

Invariants, with the place that keeps them:

* one vote per kind, height and view, across restarts: `_cast`, written by `Persist` before `Send`;
* no vote in a view that was given up: `Entered` is persisted before VIEW-CHANGE leaves, and
  `_accept_proposal` takes only the current view;
* a block that may be final is proposed again: `rules.required_block`;
* buffers hold one vote per validator, kind and view, one view change per validator, one early
  proposal, and per validator `FUTURE_MESSAGES` messages of the next height.
"""

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from holdfast_node.chain.block import (
    Block,
    Certificate,
    CertifiedBlock,
    VoteKind,
    VoteSignature,
    vote_bytes,
)
from holdfast_node.chain.validators import ValidatorSet
from holdfast_node.consensus.effects import Commit, Effect, Evidence, Persist, Refused, Send
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
    new_view_bytes,
    view_change_bytes,
)
from holdfast_node.consensus.rules import check_message, required_block, wanted_view
from holdfast_node.consensus.votes import VIEWS_AHEAD, VoteBook
from holdfast_node.errors import RefusedError

FUTURE_MESSAGES: Final = 6


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds. A view lasts `view`, doubled for each view of a height, at most `view_max`."""

    view: float = 2.0
    view_max: float = 30.0
    resend: float = 0.5


@dataclass(frozen=True, slots=True)
class _Proposal:
    block: Block
    hash: bytes
    signature: bytes


class Replica:
    """Feed it messages and time; carry out the effects it returns, in order.

    `check_proposal(block)` raises `RefusedError` for a block that must not be voted for; `sign`
    signs with this validator's key. `now` is seconds of any monotonic clock.
    """

    def __init__(
        self,
        *,
        chain_id: str,
        validators: ValidatorSet,
        index: int,
        sign: Callable[[bytes], bytes],
        check_proposal: Callable[[Block], None],
        timeouts: Timeouts,
        height: int,
        view: int,
        records: Iterable[Record] = (),
    ) -> None:
        self.chain_id = chain_id
        self.validators = validators
        self.index = index
        self._sign = sign
        self._check_proposal = check_proposal
        self._timeouts = timeouts
        self._future: dict[int, deque[Message]] = {}
        self._start_height(height, view)
        for record in records:
            self._restore(record)

    def _start_height(self, height: int, view: int) -> None:
        self.height = height
        self.first_view = view
        self.view = view
        self.active = True  # False while changing view
        self.decided = False
        self._expecting = False
        self._view_deadline: float | None = None
        self._resend_at: float | None = None
        self._required: bytes | None = None  # what a new view obliges its leader to propose
        self._proposals: dict[int, _Proposal] = {}
        self._blocks: dict[bytes, Block] = {}
        self._prepares = VoteBook()
        self._commits = VoteBook()
        self._cast: dict[tuple[VoteKind, int], bytes] = {}
        self._locked: Locked | None = None
        self._changes: dict[int, ViewChange] = {}
        self._new_view: NewView | None = None
        self._early: PrePrepare | None = None
        self._restored_proposals: dict[int, Block] = {}

    def _restore(self, record: Record) -> None:
        if record.height != self.height:
            return
        match record:
            case Voted():
                self._cast["prepare", record.view] = record.block_hash
            case Proposed():
                self._cast["pre-prepare", record.view] = record.block.hash
                self._restored_proposals[record.view] = record.block
            case Locked():
                self._locked = record
                self._blocks[record.proof.block_hash] = record.block
                self._cast["commit", record.proof.view] = record.proof.block_hash
                self._cast_vote("commit", record.proof.view)
            case Entered():
                self.view = max(self.view, record.view)
                self.active = self.view == self.first_view

    # What the driver may ask.

    @property
    def leader(self) -> int:
        """The index of the current view's leader."""
        return self.validators.leader(self.view)

    @property
    def wants_proposal(self) -> bool:
        """Whether this validator should call `propose` with a new block."""
        return (
            self.active
            and not self.decided
            and self.leader == self.index
            and self._required is None
            and self.view not in self._proposals
            and ("pre-prepare", self.view) not in self._cast
        )

    def next_timer(self) -> float | None:
        """When `timeout` wants to be called, or None."""
        deadlines = [at for at in (self._view_deadline, self._resend_at) if at is not None]
        return min(deadlines, default=None)

    def missing_voters(self) -> list[int]:
        """Validators that have neither proposed nor prepared in the current view."""
        seen = self._prepares.voters(self.view) | {self.leader if self._proposals else -1}
        return [i for i in range(len(self.validators)) if i not in seen]

    # What the driver tells.

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

    def advance(self, parent_height: int, parent_view: int, now: float) -> list[Effect]:
        """Go on after a block that is stored now; `parent_view` is its header's."""
        if parent_height < self.height:
            return []
        self._start_height(parent_height + 1, parent_view)
        waiting, self._future = self._future, {}
        effects: list[Effect] = []
        for sender in sorted(waiting):
            for message in waiting[sender]:
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
            messages.append(self._changes.get(self.index) or self._view_change())
        elif self.leader == self.index:
            if self._new_view is not None:
                messages.append(self._new_view)
            proposal = self._proposals.get(self.view)
            if proposal is not None:
                messages.append(
                    PrePrepare(self.view, proposal.block, self.index, proposal.signature)
                )
        if self.active and ("prepare", self.view) in self._cast:
            messages.append(self._vote("prepare", self.view))
        if self._locked is not None:
            messages.append(self._vote("commit", self._locked.proof.view))
        return [Send(message) for message in messages]

    # Receiving.

    def _receive(self, message: Message, now: float, *, trusted: bool) -> list[Effect]:
        ahead = message.height - self.height
        if ahead not in {0, 1} or (ahead == 0 and self.decided) or message.validator == self.index:
            return []
        try:
            if not trusted:
                check_message(message, chain_id=self.chain_id, validators=self.validators)
            if ahead:
                queue = self._future.setdefault(message.validator, deque(maxlen=FUTURE_MESSAGES))
                if message not in queue:
                    queue.append(message)
                return []
            return self._dispatch(message, now)
        except RefusedError as error:
            return [Refused(message.validator, error.code, error.message)]

    def _dispatch(self, message: Message, now: float) -> list[Effect]:
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
        if message.view < self.view:
            return []
        if message.view > self.view or not self.active:
            if self._early is None or message.view > self._early.view:
                self._early = message
            return []
        known = self._proposals.get(message.view)
        block_hash = message.block.hash
        if known is not None:
            if known.hash == block_hash:
                return []
            return [
                Evidence(
                    message.validator,
                    "pre-prepare",
                    self.height,
                    message.view,
                    known.hash,
                    block_hash,
                )
            ]
        expected = self._required or block_hash
        if block_hash != expected:
            raise RefusedError("bad_proposal", "another block was prepared and must come again")
        if self._required is None and message.block.header.view != message.view:
            raise RefusedError("bad_proposal", "a new block must name the view it is proposed in")
        if block_hash not in self._blocks:
            self._check_proposal(message.block)
        return self._accept_proposal(_Proposal(message.block, block_hash, message.signature), now)

    def _accept_proposal(self, proposal: _Proposal, now: float) -> list[Effect]:
        self._proposals[self.view] = proposal
        self._blocks[proposal.hash] = proposal.block
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
        if message.view > self.view + VIEWS_AHEAD or message.view < self.first_view:
            return []
        book = self._prepares if message.kind == "prepare" else self._commits
        other = book.add(
            message.view,
            message.block_hash,
            VoteSignature(message.validator, message.signature),
        )
        if other is not None:
            return [
                Evidence(
                    message.validator,
                    message.kind,
                    self.height,
                    message.view,
                    other,
                    message.block_hash,
                )
            ]
        return self._progress()

    def _on_view_change(self, message: ViewChange, now: float) -> list[Effect]:
        known = self._changes.get(message.validator)
        if message.view <= self.first_view or (known and known.view >= message.view):
            return []
        self._changes[message.validator] = message
        higher = (change.view for change in self._changes.values() if change.view > self.view)
        target = wanted_view(higher, self.validators.tolerated_faults)
        if target is not None:
            return self._change_view(target, now)
        return self._follow_view_change(now)

    def _on_new_view(self, message: NewView, now: float) -> list[Effect]:
        if message.view < self.view or message.view <= self.first_view:
            return []
        if message.view == self.view and self.active:
            return []
        effects: list[Effect] = []
        if message.view > self.view:
            effects.append(Persist(Entered(self.height, message.view)))
        self.view = message.view
        self._new_view = None
        return effects + self._enter_view(required_block(message.view_changes), now)

    # Voting.

    def _propose(self, block: Block, now: float) -> list[Effect]:
        block_hash = block.hash
        cast = self._cast.setdefault(("pre-prepare", self.view), block_hash)
        if cast != block_hash:
            return []  # proposed another one before a restart: the next view's leader goes on
        signature = self._sign(
            vote_bytes("pre-prepare", self.chain_id, self.height, self.view, block_hash)
        )
        effects: list[Effect] = [
            Persist(Proposed(self.height, self.view, block)),
            Send(PrePrepare(self.view, block, self.index, signature)),
        ]
        return effects + self._accept_proposal(_Proposal(block, block_hash, signature), now)

    def _vote(self, kind: VoteKind, view: int) -> Vote:
        block_hash = self._cast[kind, view]
        signature = self._sign(vote_bytes(kind, self.chain_id, self.height, view, block_hash))
        if kind == "pre-prepare":
            raise ValueError("a proposal is no vote")
        return Vote(kind, self.height, view, block_hash, self.index, signature)

    def _cast_vote(self, kind: VoteKind, view: int) -> list[Effect]:
        vote = self._vote(kind, view)
        book = self._prepares if kind == "prepare" else self._commits
        book.add(view, vote.block_hash, VoteSignature(self.index, vote.signature))
        return [Send(vote)]

    def _progress(self) -> list[Effect]:
        """Lock if a quorum prepared the proposal, decide if a quorum committed."""
        effects: list[Effect] = []
        proposal = self._proposals.get(self.view)
        if self.active and proposal is not None and ("commit", self.view) not in self._cast:
            leader = self.leader
            prepares = tuple(
                vote
                for vote in self._prepares.of(self.view, proposal.hash)
                if vote.validator != leader
            )
            if len(prepares) + 1 >= self.validators.quorum:
                effects += self._lock(proposal, prepares)
        decision = self._commits.quorum(self.validators.quorum)
        if decision is not None and not self.decided:
            view, block_hash = decision
            block = self._blocks.get(block_hash)
            if block is not None:  # otherwise block sync brings it
                self.decided = True
                self._view_deadline = self._resend_at = None
                votes = self._commits.of(view, block_hash)
                certificate = Certificate(self.height, view, block_hash, votes)
                effects.append(Commit(CertifiedBlock(block, certificate)))
        return effects

    def _lock(self, proposal: _Proposal, prepares: tuple[VoteSignature, ...]) -> list[Effect]:
        leader = VoteSignature(self.leader, proposal.signature)
        proof = PreparedProof(self.view, proposal.hash, leader, prepares)
        self._locked = Locked(self.height, proof, proposal.block)
        self._cast["commit", self.view] = proposal.hash
        return [Persist(self._locked), *self._cast_vote("commit", self.view)]

    # Changing view.

    def _view_seconds(self) -> float:
        doublings = min(self.view - self.first_view, 16)
        return min(self._timeouts.view * (1 << doublings), self._timeouts.view_max)

    def _view_change(self) -> ViewChange:
        prepared = self._locked.proof if self._locked else None
        signature = self._sign(
            view_change_bytes(self.chain_id, self.height, self.view, prepared, self.index)
        )
        block = self._locked.block if self._locked else None
        return ViewChange(self.height, self.view, prepared, self.index, signature, block)

    def _change_view(self, view: int, now: float) -> list[Effect]:
        self.view = view
        self.active = False
        self._expecting = True
        self._required = None
        self._new_view = None
        self._view_deadline = None
        self._resend_at = now + self._timeouts.resend
        change = self._changes[self.index] = self._view_change()
        effects: list[Effect] = [Persist(Entered(self.height, view)), Send(change)]
        return effects + self._follow_view_change(now)

    def _follow_view_change(self, now: float) -> list[Effect]:
        if self.active:
            return []
        quorum = self.validators.quorum
        asking = [change for change in self._changes.values() if change.view >= self.view]
        if len(asking) >= quorum and self._view_deadline is None:
            # Only now: while too few ask, racing on to later views would leave them behind.
            self._view_deadline = now + self._view_seconds()
        here = sorted(
            (change for change in asking if change.view == self.view),
            key=lambda change: change.validator,
        )
        if self.leader != self.index or len(here) < quorum:
            return []
        stripped = tuple(
            ViewChange(c.height, c.view, c.prepared, c.validator, c.signature) for c in here
        )
        signature = self._sign(new_view_bytes(self.chain_id, self.height, self.view, stripped))
        self._new_view = NewView(self.height, self.view, stripped, self.index, signature)
        for change in here:
            if change.block is not None:
                self._blocks.setdefault(change.block.hash, change.block)
        effects: list[Effect] = [Send(self._new_view)]
        return effects + self._enter_view(required_block(here), now)

    def _enter_view(self, required: bytes | None, now: float) -> list[Effect]:
        self.active = True
        self._required = required
        self._view_deadline = None
        self.expect(now)
        if self.leader == self.index:
            block = self._blocks.get(required) if required is not None else None
            block = block or self._restored_proposals.get(self.view)
            if block is not None and (required is None or block.hash == required):
                return self._propose(block, now)
            return []
        early, self._early = self._early, None
        if early is not None and early.view == self.view:
            return self._on_pre_prepare(early, now)
        return []
