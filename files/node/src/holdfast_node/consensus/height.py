# SPDX-License-Identifier: Apache-2.0
"""What a replica knows of the height it decides, and how it gets that back from its journal."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from holdfast_node.chain.block import Block, VoteKind
from holdfast_node.chain.validators import ValidatorSet
from holdfast_node.consensus.buffers import FutureMessages, ViewChangeBook, weight
from holdfast_node.consensus.messages import (
    Entered,
    Locked,
    Message,
    NewView,
    PrePrepare,
    Proposed,
    Record,
    ViewChange,
    Vote,
    Voted,
)
from holdfast_node.consensus.votes import VIEWS_AHEAD, VIEWS_BEHIND, VoteBook

VOTE_BYTES: Final = 512  # a vote in a book, in memory, about


@dataclass(frozen=True, slots=True)
class Proposal:
    """A block that was accepted in a view; `signature` is its leader's on the pre-prepare."""

    block: Block
    hash: bytes
    signature: bytes


class HeightState:
    """The state of one height, replaced as a whole when the next one starts.

    `records` is what the journal holds of the height at the start. `validators_at(height)` is the
    set that decides a height: asked for this one and the next, so a change has to be known two
    heights ahead. Which of them this validator is, if any, follows from its `public_key`.
    """

    def __init__(
        self,
        *,
        validators_at: Callable[[int], ValidatorSet],
        public_key: bytes,
        height: int,
        view: int,
        records: Iterable[Record],
        max_block_bytes: int,
    ) -> None:
        self.public_key = public_key
        self._validators_at = validators_at
        self._max_block_bytes = max_block_bytes
        self._future = FutureMessages(0)
        self._start_height(height, view, records)

    def is_member(self, height: int) -> bool:
        """Whether this validator has a vote at `height`."""
        return self._validators_at(height).index_of_key(self.public_key) is not None

    def _start_height(self, height: int, view: int, records: Iterable[Record] = ()) -> None:
        self.validators = self._validators_at(height)
        index = self.validators.index_of_key(self.public_key)
        if index is None:
            raise ValueError(f"this validator has no vote at height {height}")
        self.index = index
        # Whose messages are kept for later: those of the set of the next height.
        self._successors = self._validators_at(height + 1)
        margin = VOTE_BYTES * (max(len(self.validators), len(self._successors)) + 4)
        self._future.max_bytes = 2 * (self._max_block_bytes + margin)
        self.height = height
        self.first_view = view
        self.view = view
        self.active = True  # False while changing view
        self.decided = False
        self._expecting = False
        self._view_deadline: float | None = None
        self._resend_at: float | None = None
        self._required: bytes | None = None  # what a new view obliges its leader to propose
        self._proposal: Proposal | None = None  # accepted in the current view
        self._prepares = VoteBook()
        self._commits = VoteBook()
        self._cast: dict[tuple[VoteKind, int], bytes] = {}
        self._locked: Locked | None = None
        self._proposed: Proposed | None = None  # by this validator, in its last view as leader
        self._changes = ViewChangeBook()
        self._new_view: NewView | None = None
        self._early: PrePrepare | None = None
        for record in records:
            if record.height == height:
                self._restore(record)
        lock = self._locked
        if lock is not None and lock.proof.view == self.view:  # was active there, and is again
            proof = lock.proof
            self._proposal = Proposal(lock.block, proof.block_hash, proof.leader.signature)
        self.active = self.view == view or self._proposal is not None

    def _restore(self, record: Record) -> None:
        match record:
            case Voted():
                self._cast["prepare", record.view] = record.block_hash
                self.view = max(self.view, record.view)
            case Proposed():
                self._cast["pre-prepare", record.view] = record.block.hash
                self._proposed = record
                self.view = max(self.view, record.view)
            case Locked():
                self._locked = record
                self._cast["commit", record.proof.view] = record.proof.block_hash
                self.view = max(self.view, record.proof.view)
            case Entered():
                self.view = max(self.view, record.view)

    def records(self) -> list[Record]:
        """All that the journal has to hold, instead of everything that was ever persisted."""
        kept: list[Record] = [] if self._locked is None else [self._locked]
        if self.view != self.first_view:
            kept.append(Entered(self.height, self.view))
        if self._proposed is not None and self._proposed.view == self.view:
            kept.append(self._proposed)
        voted = self._cast.get(("prepare", self.view))
        if voted is not None:
            kept.append(Voted(self.height, self.view, voted))
        return kept

    def awaits_proposal(self, view: int) -> bool:
        """Whether a proposal of `view` would be judged now."""
        idle = self.active and not self.decided and self._proposal is None
        return idle and view == self.view

    def _is_moot(self, message: Message) -> bool:
        """Whether a message of this height would change nothing, whoever has signed it.

        Said before signatures are looked at: a NEW-VIEW has as many as a quorum squared, and each
        message is repeated until its height is decided, or as long as somebody likes.
        """
        view = message.view
        match message:
            case PrePrepare():
                return self._is_moot_proposal(message)
            case Vote():
                lowest = max(self.first_view, self.view - VIEWS_BEHIND)
                return not lowest <= view <= self.view + VIEWS_AHEAD
            case ViewChange():
                known = self._changes.of(message.validator)
                return view <= self.first_view or (
                    known is not None
                    and (
                        known.view > view
                        or (known.view, known.prepared) == (view, message.prepared)
                    )
                )
            case NewView():
                return view <= self.first_view or view < self.view + self.active

    def _is_moot_proposal(self, message: PrePrepare) -> bool:
        if not self.view <= message.view <= self.view + VIEWS_AHEAD:
            return True
        if message.view > self.view or not self.active:
            early = self._early  # the one of the lowest view that may still come
            return early is not None and self.view <= early.view <= message.view
        return self._proposal is not None and self._proposal.hash == message.block.hash

    def _is_known(self, message: Message) -> bool:
        """Whether this very vote was verified before, and counts."""
        if not isinstance(message, Vote):
            return False
        book = self._prepares if message.kind == "prepare" else self._commits
        return book.has(message.view, message.block_hash, message.validator, message.signature)

    def waiting_proposals(self, view: int) -> list[Block]:
        """The blocks that are looked at when the next height begins, in `view`."""
        return self._future.proposals(view)

    def early_proposals(self, view: int) -> list[Block]:
        """The blocks that are looked at when a NEW-VIEW for `view` comes."""
        early = self._early
        return [] if early is None or early.view != view else [early.block]

    @property
    def leader(self) -> int:
        """The index of the current view's leader."""
        return self.validators.leader(self.view)

    def next_timer(self) -> float | None:
        """When `timeout` wants to be called, or None."""
        deadline, resend = self._view_deadline, self._resend_at
        if deadline is None or resend is None:
            return resend if deadline is None else deadline
        return min(deadline, resend)

    def missing_voters(self) -> list[int]:
        """Validators that have neither proposed nor prepared in the current view."""
        seen = self._prepares.voters(self.view) | {self.leader if self._proposal else -1}
        return [i for i in range(len(self.validators)) if i not in seen]

    @property
    def buffered_bytes(self) -> int:
        """Memory kept because of what others sent, about; `PROTOCOL.md` says how it is bounded."""
        kept = self._future.bytes + self._changes.bytes
        kept += (len(self._prepares) + len(self._commits)) * VOTE_BYTES
        if self._early is not None:
            kept += weight(self._early)
        return kept if self._new_view is None else kept + weight(self._new_view)

    def _known_block(self, block_hash: bytes) -> Block | None:
        if self._proposal is not None and self._proposal.hash == block_hash:
            return self._proposal.block
        if self._locked is not None and self._locked.proof.block_hash == block_hash:
            return self._locked.block
        return None
