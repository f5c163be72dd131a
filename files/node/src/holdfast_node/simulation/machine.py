# SPDX-License-Identifier: Apache-2.0
"""One simulated validator: replica, disk, clocks and a small application."""

from hashlib import sha256
from typing import Final

from holdfast_node.chain.block import Block, CertifiedBlock, Header
from holdfast_node.chain.codec import encode
from holdfast_node.chain.crypto import ZERO_HASH
from holdfast_node.chain.membership import Council, Membership, act
from holdfast_node.chain.merkle import merkle_root
from holdfast_node.chain.validators import ValidatorHistory, ValidatorSet
from holdfast_node.consensus import Effect, Replica, Timeouts
from holdfast_node.consensus.messages import Anchored, Doubted, Floor, JournalRecord
from holdfast_node.consensus.patience import Patience
from holdfast_node.consensus.probation import Standing, judge
from holdfast_node.errors import RefusedError
from holdfast_node.simulation.ballots import is_sound, read_ballot
from holdfast_node.simulation.disk import Disk
from holdfast_node.simulation.keys import Keys, SimulatedValidators

CHAIN_ID: Final = "sim"
EPOCH_MS: Final = 1_000_000
TOLERATED_MS: Final = 1_000  # how far a block's time may be ahead, as the ledger has it
BLOCK_TRANSACTIONS: Final = 4
MAX_TRANSACTION_BYTES: Final = 2_048  # a ballot with evidence is the largest there is
MAX_BLOCK_BYTES: Final = BLOCK_TRANSACTIONS * MAX_TRANSACTION_BYTES
TIMEOUTS: Final = Timeouts(view=1.0, view_max=8.0, resend=0.3)


class Machine:
    """`index` is the number of its key; a clone has that of another machine and its own `id`.

    It is a validator while the set of a height has its key, from there on or no longer. The index
    by which messages name it is its `place` in that set.
    """

    def __init__(self, ident: int, index: int, keys: Keys, validators: SimulatedValidators) -> None:
        self.id = ident
        self.index = index
        self.keys = keys
        self.key = keys.all[index]
        self.first = validators
        self.membership = Membership()
        self.history = ValidatorHistory(validators)
        self.disk = Disk()
        self.backup: Disk | None = None
        self.offset = 0.0  # of the monotonic clock, seconds
        self.rate = 1.0
        self.skew = 0.0  # of the wall clock, seconds
        self.jump = 0.0  # the same, while the clock is set wrong by hours
        self.up = False
        self.life = 0  # counts starts: what was meant for an earlier life never arrives
        self.frozen_until = 0.0
        self.busy_until = 0.0  # with a write to a slow disk; `backlog` begins with what is written
        self.backlog: list[Effect] = []
        self.timer_at: float | None = None
        self.replica: Replica | None = None
        self.standing = Standing(None, 0)
        self.marks: set[bytes] = set()
        self.patience = Patience(2 * TIMEOUTS.view)
        self.mempool: dict[bytes, float] = {}
        self.done: set[bytes] = set()
        self.root = ZERO_HASH

    def __str__(self) -> str:
        return f"v{self.index}" if self.id == self.index else f"v{self.index}'"

    # Clocks.

    def clock(self, now: float) -> float:
        """Its monotonic clock when the world's says `now`."""
        return now * self.rate + self.offset

    def world_time(self, local: float) -> float:
        return (local - self.offset) / self.rate

    def wall_ms(self, now: float) -> int:
        return max(0, EPOCH_MS + int((now + self.skew + self.jump) * 1000))

    @property
    def idle_at(self) -> float:
        """When it takes messages, and looks at its timers."""
        return max(self.frozen_until, self.busy_until)

    # The application: a chain of hashes over the transactions, each of which counts once.

    @property
    def height(self) -> int:
        return len(self.disk.chain)

    @property
    def head_hash(self) -> bytes:
        return self.disk.chain[-1].block.hash if self.disk.chain else ZERO_HASH

    @property
    def head_time_ms(self) -> int:
        return self.disk.chain[-1].block.header.time_ms if self.disk.chain else 0

    def validators_at(self, height: int) -> ValidatorSet:
        return self.history.at(height)

    def place(self, height: int) -> int | None:
        """Its index among the validators of a height; None if it is not one of them."""
        return self.validators_at(height).index_of_key(self.key.public_key)

    def meet(self, transactions: tuple[bytes, ...]) -> tuple[Membership, ValidatorHistory]:
        """The membership after the next block, if it has these transactions."""
        membership, history = self.membership, self.history
        for transaction in transactions:
            ballot = read_ballot(transaction)
            if ballot is None:
                continue
            council = Council(CHAIN_ID, self.height + 1, history)
            try:
                membership, change = act(membership, ballot.action, ballot.sender, council)
            except RefusedError:
                continue  # without effect
            if change is not None:
                validators = SimulatedValidators(change.validators, self.keys)
                history = history.extended(membership.activations[-1], validators)
        return membership, history

    def state_after(self, transactions: tuple[bytes, ...]) -> bytes:
        return self._root_with(transactions, self.meet(transactions)[0])

    def _root_with(self, transactions: tuple[bytes, ...], membership: Membership) -> bytes:
        return sha256(self.root + merkle_root(transactions) + encode(membership)).digest()

    def new_block(self, now: float, view: int, *, censored: bool = False) -> Block:
        """The next block, of what waits; with `censored` some transactions never get in."""
        waiting = [t for t in self.mempool if not (censored and t.endswith(b"!"))]
        return self.block_of(tuple(waiting[:BLOCK_TRANSACTIONS]), now, view)

    def block_of(self, transactions: tuple[bytes, ...], now: float, view: int) -> Block:
        header = Header(
            CHAIN_ID,
            self.height + 1,
            view,
            max(self.wall_ms(now), self.head_time_ms + 1),
            self.head_hash,
            merkle_root(transactions),
            self.state_after(transactions),
            self.validators_at(self.height + 1).hash,
            self.validators_at(self.height + 2).hash,
        )
        return Block(header, transactions)

    def check_proposal(self, block: Block, now: float) -> None:
        """Raise `RefusedError` for a block that must not be voted for."""
        header = block.header
        if header.height != self.height + 1 or header.previous != self.head_hash:
            raise RefusedError("bad_block", "does not extend this chain")
        if not self.head_time_ms < header.time_ms <= self.wall_ms(now) + TOLERATED_MS:
            raise RefusedError("early_block", "its time is not between its parent's and now")
        if not block.has_valid_transactions_root() or self.done.intersection(block.transactions):
            raise RefusedError("bad_block", "transactions")
        if not all(is_sound(transaction, self.keys) for transaction in block.transactions):
            raise RefusedError("bad_block", "a ballot that nobody signed")
        sets = self.validators_at(self.height + 1).hash, self.validators_at(self.height + 2).hash
        if (header.validators_hash, header.next_validators_hash) != sets:
            raise RefusedError("bad_block", "names other validators")
        if header.state_root != self.state_after(block.transactions):
            raise RefusedError("bad_block", "state root")

    def store(self, certified: CertifiedBlock) -> None:
        """Execute and store a final block."""
        transactions = certified.block.transactions
        self.membership, self.history = self.meet(transactions)
        self.root = self._root_with(transactions, self.membership)
        self.disk.chain.append(certified)
        self.done.update(transactions)
        for transaction in transactions:
            self.mempool.pop(transaction, None)

    def oldest(self) -> bytes | None:
        return next(iter(self.mempool), None)

    # Life and death.

    def crash(self) -> None:
        self.up = False
        self.replica = None
        self.life += 1
        self.timer_at = None
        self.backlog.clear()
        self.busy_until = 0.0
        self.mempool.clear()

    def start(self, mark: bytes) -> list[JournalRecord]:
        """Open the disk and judge it, as a node does; returns the records that were found."""
        records = self.disk.open()
        self.standing = judge(records, anchor=(self.disk.anchor, 0), new=False)
        if self.standing.doubt is not None:
            self.disk.reset([Anchored(self.disk.anchor, 0), Doubted(self.standing.doubt)])
            self.marks = {mark}
        self.restore()
        self.up = True
        self.life += 1
        self.timer_at = None
        self.patience = Patience(2 * TIMEOUTS.view)
        return list(records or ())

    def restore(self) -> None:
        """Work out the state from what is on disk."""
        self.root, self.done = ZERO_HASH, set()
        self.membership, self.history = Membership(), ValidatorHistory(self.first)
        chain, self.disk.chain = self.disk.chain, []
        for certified in chain:
            self.store(certified)

    def clear_doubt(self) -> None:
        """The last block has this start's mark in it."""
        self.standing.cleared(self.height)
        self.disk.reset([Anchored(self.disk.anchor, 0), Floor(self.height)])
        self.marks = set()

    def vote(self, replica: Replica) -> None:
        self.replica = replica
        self.timer_at = None


def most_buffered(n: int) -> int:
    """What n - 1 others may make a validator keep, in bytes: `PROTOCOL.md` has the terms."""
    proof = 512 * (n + 4)
    message = MAX_BLOCK_BYTES + 64 * 64 + 2 * proof  # a block of small transactions
    next_height = 2 * message
    votes = 2 * 25 * 512  # both kinds, views from 16 below to 8 above the present one
    return (n - 1) * (next_height + message + votes) + message + n * proof
