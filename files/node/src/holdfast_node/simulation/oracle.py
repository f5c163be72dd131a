# SPDX-License-Identifier: Apache-2.0
"""The invariants: an observer outside of the network that sees everything and forgets nothing."""

from typing import TypeAlias

from holdfast_node.chain.block import CertifiedBlock, Header
from holdfast_node.chain.validators import ValidatorSet
from holdfast_node.consensus.evidence import Evidence
from holdfast_node.consensus.messages import (
    Entered,
    JournalRecord,
    Locked,
    Message,
    NewView,
    PreparedProof,
    PrePrepare,
    Proposed,
    ViewChange,
    Vote,
    Voted,
)
from holdfast_node.errors import RefusedError
from holdfast_node.simulation.electorate import Electorate

Step: TypeAlias = tuple[int, str, int, int]  # validator, what, height, view


class ViolationError(AssertionError):
    """An invariant is broken."""


class Oracle:
    """`faulty` may do anything; of the others nothing wrong is tolerated.

    It has its own arithmetic and its own memory, so that no fault of the code under test can hide
    in both. A validator is the number of its key here, whatever its index at some height is.
    """

    def __init__(
        self, *, electorate: Electorate, faulty: frozenset[int], most_buffered: int
    ) -> None:
        self.electorate = electorate
        self._faulty = faulty
        self._most_buffered = most_buffered
        self._said: dict[Step, bytes] = {}
        self._written: set[tuple[int, str, int, int, bytes]] = set()
        self._entered: dict[tuple[int, int], int] = {}
        self._committed_in: dict[tuple[int, int], int] = {}
        self._commit_votes: dict[tuple[int, int, bytes], set[int]] = {}
        self._prepare_votes: dict[tuple[int, int, bytes], set[int]] = {}
        self.final: dict[int, tuple[bytes, bytes]] = {}  # height: block hash, state root
        self.acknowledged: dict[bytes, int] = {}  # transaction: height

    def demand(self, holds: bool, what: str) -> None:  # noqa: FBT001 -- like assert
        if not holds:
            raise ViolationError(what)

    # What validators write and say.

    def persisted(self, validator: int, record: JournalRecord) -> None:
        """A record is on disk: it was written as a whole, or found there after a crash."""
        match record:
            case Voted():
                entry = ("prepare", record.height, record.view, record.block_hash)
            case Proposed():
                entry = ("pre-prepare", record.height, record.view, record.block.hash)
            case Locked():
                proof = record.proof
                entry = ("commit", record.height, proof.view, proof.block_hash)
                if (validator, *entry) not in self._written and validator not in self._faulty:
                    self._judge_proof(validator, record.height, proof)
                    self._first(validator, *entry)  # binds from now on, sent or not
            case Entered():
                entry = ("entered", record.height, record.view, b"")
                key = (validator, record.height)  # binds whether it is told to others or not
                self._entered[key] = max(self._entered.get(key, 0), record.view)
            case _:
                return
        self._written.add((validator, *entry))

    def sent(self, validator: int, message: Message) -> None:
        """Judge a message by what its sender wrote down and said before, in all of its lives."""
        match message:
            case Vote(kind="commit"):
                self._count_commit(validator, message)
            case Vote():
                self._count_prepare(validator, message.height, message.view, message.block_hash)
            case PrePrepare():
                self._count_prepare(validator, message.height, message.view, message.block.hash)
        if validator in self._faulty:
            return
        match message:
            case PrePrepare():
                said = ("pre-prepare", message.height, message.view, message.block.hash)
                self._judge(validator, *said)
            case Vote():
                said = (message.kind, message.height, message.view, message.block_hash)
                self._judge(validator, *said)
            case ViewChange():
                self._judge_view_change(validator, message)
            case NewView():
                for change in message.view_changes:
                    if change.prepared is not None:
                        self._judge_proof(validator, message.height, change.prepared)

    def _judge(self, validator: int, what: str, height: int, view: int, said: bytes) -> None:
        where = f"v{validator}: {what} at {height}/{view}"
        self.demand(
            (validator, what, height, view, said) in self._written,
            f"{where} was sent before it was in the journal",
        )
        step = (validator, what, height, view)
        first = self._said.get(step)
        if first is None:
            self._first(validator, what, height, view, said)
        else:
            self.demand(first == said, f"{where} for two different blocks")

    def _first(self, validator: int, what: str, height: int, view: int, said: bytes) -> None:
        given_up = self._entered.get((validator, height), 0)
        where = f"v{validator}: {what} at {height}/{view}"
        self.demand(view >= given_up, f"{where}, after it had given up views below {given_up}")
        first = self._said.setdefault((validator, what, height, view), said)
        self.demand(first == said, f"{where} for two different blocks")
        if what == "commit":
            key = (validator, height)
            self._committed_in[key] = max(self._committed_in.get(key, -1), view)

    def _judge_view_change(self, validator: int, message: ViewChange) -> None:
        height, view = message.height, message.view
        where = f"v{validator}: view change to {height}/{view}"
        self.demand(
            (validator, "entered", height, view, b"") in self._written,
            f"{where} was sent before it was in the journal",
        )
        locked = self._committed_in.get((validator, height), -1)
        shown = -1 if message.prepared is None else message.prepared.view
        self.demand(shown >= locked, f"{where} hides its lock of view {locked}, shows {shown}")

    def _judge_proof(self, validator: int, height: int, proof: PreparedProof) -> None:
        """An honest validator relies on a proof: each honest validator in it said what it says.

        A faulty one may have signed what it never sent to anybody, or only within this proof.
        """
        said = self._prepare_votes.get((height, proof.view, proof.block_hash), set())
        places = {proof.leader.validator, *(vote.validator for vote in proof.prepares)}
        signers = {self.electorate.number(height, place) for place in places}
        sound = {i for i in signers if i in said or i in self._faulty}
        self.demand(
            len(sound) >= self.electorate.quorum(height),
            f"v{validator} takes a block at {height}/{proof.view} for prepared by {len(sound)}",
        )

    def _count_prepare(self, validator: int, height: int, view: int, block_hash: bytes) -> None:
        self._prepare_votes.setdefault((height, view, block_hash), set()).add(validator)

    def _count_commit(self, validator: int, vote: Vote) -> None:
        key = (vote.height, vote.view, vote.block_hash)
        votes = self._commit_votes.setdefault(key, set())
        votes.add(validator)
        members = votes.intersection(self.electorate.at(vote.height))
        # Whether or not anybody has put it together yet.
        if len(members) == self.electorate.quorum(vote.height):
            self._finalised(vote.height, vote.block_hash)

    def _finalised(self, height: int, block_hash: bytes) -> None:
        known = self.final.get(height)
        if known is None:
            self.final[height] = (block_hash, b"")
            return
        self.demand(known[0] == block_hash, f"two blocks are certified at height {height}")

    # What validators do.

    def committed(self, validator: int, certified: CertifiedBlock, state_root: bytes) -> None:
        """A validator took a block for final and executed it; clients are told so."""
        header, height = certified.block.header, certified.block.height
        fault = self.electorate.certified_by(certified)
        self.demand(fault is None, f"v{validator}: {fault}")
        self._finalised(height, certified.block.hash)
        _, root = self.final[height]
        if not root:
            self.electorate.follow(height, certified.block.transactions)
        self.demand(
            not root or root == state_root, f"v{validator}: another state at height {height}"
        )
        self.demand(header.state_root == state_root, f"v{validator}: not the state of its block")
        self.final[height] = (certified.block.hash, state_root)
        for transaction in certified.block.transactions:
            first = self.acknowledged.setdefault(transaction, height)
            self.demand(first == height, f"a transaction is in blocks {first} and {height}")

    def timely(self, validator: int, header: Header, latest_ms: int) -> None:
        """Chain time is never ahead of a true clock by more than what all tolerate."""
        self.demand(
            header.time_ms <= latest_ms,
            f"v{validator}: block {header.height} is of {header.time_ms}, now it is {latest_ms}",
        )

    def accused(self, evidence: Evidence, validators: ValidatorSet) -> None:
        try:
            evidence.check("sim", validators)
        except RefusedError as error:
            raise ViolationError(f"evidence that proves nothing: {error}") from error
        accused = self.electorate.number(evidence.height, evidence.validator)
        self.demand(
            accused in self._faulty,
            f"v{accused} is honest, and there is evidence of {evidence.kind}",
        )

    def buffered(self, validator: int, size: int) -> None:
        most = self._most_buffered
        if size > most:  # asked at every message: no words before they are needed
            raise ViolationError(f"v{validator} buffers {size} bytes: at most {most}")

    def installed(self, validator: int, header: Header, state_root: bytes) -> None:
        """A validator took over the state after a block, without the blocks up to there."""
        where = f"v{validator}: snapshot of block {header.height}"
        final = (header.hash, state_root)
        self.demand(header.state_root == state_root, f"{where}: not the state of its block")
        self.demand(self.final.get(header.height) == final, f"{where}, which is not final")

    def all_there(self, validator: int, chain: list[CertifiedBlock], base: int) -> None:
        """In the end: a chain without a gap above `base`, with every acknowledged transaction."""
        previous = None
        held: set[bytes] = set()
        for height, certified in enumerate(chain, 1):
            header = certified.block.header
            self.demand(
                header.height == max(height, base), f"v{validator}: block {height} is out of place"
            )
            if previous is not None and height > base:
                self.demand(header.previous == previous, f"v{validator}: a gap below {height}")
            previous = certified.block.hash
            held.update(certified.block.transactions)
        lost = [t for t, height in self.acknowledged.items() if height <= len(chain)]
        lost = [transaction for transaction in lost if transaction not in held]
        self.demand(not lost, f"v{validator} has lost {len(lost)} acknowledged transactions")
