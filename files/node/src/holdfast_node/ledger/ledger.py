# SPDX-License-Identifier: Apache-2.0
"""The application behind the consensus, in ABCI's shape: checks, proposes, executes, commits."""

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from time import perf_counter
from typing import Final, Protocol, TypeVar

from holdfast_node.chain.block import Block, CertifiedBlock, Header
from holdfast_node.chain.codec import encode
from holdfast_node.chain.crypto import parse_address
from holdfast_node.chain.genesis import Genesis
from holdfast_node.chain.membership import MEMBERSHIP_KEY, Council
from holdfast_node.chain.merkle import merkle_root
from holdfast_node.chain.trail import TrailStep
from holdfast_node.chain.validators import ValidatorSet
from holdfast_node.errors import RefusedError, StorageError
from holdfast_node.ledger.checking import CheckedTransaction, TransactionChecker
from holdfast_node.ledger.execution import execute, fault
from holdfast_node.ledger.membership import read_history
from holdfast_node.ledger.outcome import Committed, Execution, execution_of
from holdfast_node.ledger.queries import Queries
from holdfast_node.ledger.recent import RecentState
from holdfast_node.ledger.state import AccountState, StateView, account_key
from holdfast_node.ledger.state_tree import StateTree, TreeUpdate
from holdfast_node.storage.store import Store

_T = TypeVar("_T")

# Blocks that compete for one height, one per view, whose execution is remembered.
_MAX_EXECUTIONS: Final = 8
# A transaction may come once more, from a slower peer, shortly after the block that had it.
_BLOCKS_REMEMBERED: Final = 16


@dataclass(frozen=True, slots=True)
class _Head:
    height: int
    hash: bytes
    time_ms: int
    view: int


class Candidate(Protocol):
    """A database made from a snapshot, with the state after the final block of `header`."""

    path: Path

    @property
    def header(self) -> Header: ...

    def finish(self, bucket_leaves: Callable[[int], list[tuple[bytes, bytes]]]) -> StateTree:
        """Make it durable; the tree of its state, whose root is the header's.

        Raises `RefusedError` if it is another one.
        """


class Ledger(Queries):
    """State machine over a `Store`.

    Deterministic except for `now_ms` (Unix milliseconds). `check_transaction`,
    `verify_transactions` and the queries may be called from any thread at any time. The methods
    about blocks exclude each other: called from two threads, one waits for the other.
    """

    def __init__(
        self,
        store: Store,
        genesis: Genesis,
        now_ms: Callable[[], int],
        max_clock_drift_ms: int = 1000,
    ) -> None:
        """Raise `StorageError` if the store belongs to another genesis or contradicts itself."""
        super().__init__(store)
        self.genesis = genesis
        self._now_ms = now_ms
        self._max_clock_drift_ms = max_clock_drift_ms
        self._checker = TransactionChecker(genesis.chain_id)
        self._lock = Lock()
        self._executions: dict[bytes, Execution] = {}
        self._unsound: dict[bytes, tuple[Block, RefusedError]] = {}
        self._settled: deque[tuple[bytes, ...]] = deque()
        stored_genesis = store.genesis_hash()
        if stored_genesis is None:
            store.initialise(genesis.hash, genesis.chain_id, _opening_state(genesis).entries)
        elif stored_genesis != genesis.hash:
            raise StorageError(
                f"the stored chain has genesis {stored_genesis.hex()}, the configured genesis of "
                f"chain {genesis.chain_id!r} is {genesis.hash.hex()}: configure the genesis that "
                "belongs to this data folder, or an empty data folder for this genesis"
            )
        self._recent = RecentState(store)  # for what `_lock` protects
        self._tree = StateTree(store.leaves(), self._recent.bucket_leaves)
        self._history = read_history(StateView(store), genesis.validator_set)
        self._head = self._load_head()

    def _load_head(self) -> _Head:
        height = self.store.height()
        if height == 0:
            head = _Head(0, self.genesis.hash, self.genesis.time_ms, 0)
            state_root = _opening_state(self.genesis).root
        else:
            certified = self.store.head()  # without a block, right after a snapshot
            assert certified is not None
            try:
                certified.check(self.genesis.chain_id, self.validators_at(height))
            except RefusedError as error:
                raise StorageError(f"stored block {height}: {error}; {_WAY_OUT}") from error
            header = certified.header
            if header.height != height:
                raise StorageError(f"stored block {height} is block {header.height}; {_WAY_OUT}")
            head = _Head(height, header.hash, header.time_ms, header.view)
            state_root = header.state_root
        if self._tree.root != state_root:
            raise StorageError(
                f"the stored state has root {self._tree.root.hex()}, block {height} says "
                f"{state_root.hex()}; {_WAY_OUT}"
            )
        return head

    @property
    def height(self) -> int:
        return self._head.height

    @property
    def head_hash(self) -> bytes:
        """32 bytes; the genesis hash at height 0."""
        return self._head.hash

    @property
    def head_time_ms(self) -> int:
        return self._head.time_ms

    @property
    def next_view(self) -> int:
        """The view in which the next height starts: that of the last block, 0 at height 0."""
        return self._head.view

    @property
    def state_root(self) -> bytes:
        return self._tree.root

    @property
    def validators(self) -> ValidatorSet:
        """The set that decides the next height."""
        return self._history.at(self._head.height + 1)

    @property
    def last_activation(self) -> int:
        """The height of the latest change of the validators, which may be to come; 0 if none."""
        return self._history.activations[-1] if self._history.activations else 0

    @property
    def last_validators(self) -> ValidatorSet:
        """The set from there on."""
        return self._history.last

    def validators_at(self, height: int) -> ValidatorSet:
        """The set that decides `height`; known for all up to two above the last block."""
        return self._history.at(height)

    def trail(self, up_to: int) -> tuple[TrailStep, ...]:
        """What proves, from the genesis, which set certifies the block at `up_to`."""
        steps = []
        for activation in self._history.activations:
            if activation > min(up_to, self.height + 1):
                break
            certified = self.store.certified_header(activation - 1)
            assert certified is not None  # a store made from a snapshot keeps its trail
            steps.append(TrailStep(certified, self._history.at(activation).validators))
        return tuple(steps)

    # Transactions

    def check_transaction(self, raw: bytes) -> CheckedTransaction:
        """Admit a transaction from a client or a peer.

        Raises `RefusedError`: oversized, malformed, foreign_chain, expired, too_far, bad_signature.
        """
        return self._checker.admit(raw, self._now_ms())

    def verify_transactions(self, raws: Iterable[bytes]) -> None:
        """Decode and verify the transactions of a block ahead of `process_proposal`.

        Raises `RefusedError`: oversized, malformed, foreign_chain, bad_signature.
        """
        for raw in raws:
            self._checker.check(raw)

    # Blocks

    def prepare_proposal(self, candidates: Iterable[CheckedTransaction], *, view: int) -> Block:
        """Build the next block from those `candidates` that apply now, in their order.

        Left out: wrong nonce, expired, and what would exceed the limits of the genesis.
        """
        with self._lock:
            head = self._head
            time_ms = max(self._now_ms(), head.time_ms + 1)
            state, council = StateView(self._recent), self._council()
            limits = self.genesis.parameters
            chosen: list[CheckedTransaction] = []
            receipts = []
            size = 0
            for checked in candidates:
                if len(chosen) == limits.max_block_transactions:
                    break
                if size + len(checked.raw) > limits.max_block_bytes:
                    continue
                if fault(checked, state, time_ms) is not None:
                    continue
                size += len(checked.raw)
                chosen.append(checked)
                receipts.append(execute(checked, state, council))
            update = self._tree.update(state.changes)
            raws = tuple(checked.raw for checked in chosen)
            header = Header(
                chain_id=self.genesis.chain_id,
                height=head.height + 1,
                view=view,
                time_ms=time_ms,
                previous=head.hash,
                transactions_root=merkle_root(raws),
                state_root=update.root,
                validators_hash=self.validators.hash,
                next_validators_hash=self.validators_at(head.height + 2).hash,
            )
            block = Block(header, raws)
            execution = execution_of(block, chosen, receipts, state, update)
            _keep_last(self._executions, header.hash, execution)
            return block

    def process_proposal(self, block: Block) -> None:
        """Tell whether `block` may be the next one.

        Raises `RefusedError`: "wrong_height" (not head + 1), "early_block" (its time is ahead of
        this clock by more than the tolerated drift; may be acceptable later), else "bad_block".
        """
        with self._lock:
            self._check_header(block.header)
            latest = self._now_ms() + self._max_clock_drift_ms
            if block.header.time_ms > latest:
                raise RefusedError(
                    "early_block", f"time_ms = {block.header.time_ms}: expected at most {latest}"
                )
            self._execute(block)

    def commit(self, certified: CertifiedBlock) -> Committed:
        """Execute and store the next block; durable when it returns.

        The caller has verified the signatures of the certificate (`CertifiedBlock.check`).
        Raises `RefusedError` as `process_proposal` does, except "early_block"; then nothing
        changed. After a `StorageError` the ledger is as before; the disk may be ahead of it.
        """
        start = perf_counter()
        with self._lock:
            block, header = certified.block, certified.block.header
            self._check_header(header)
            if (certified.certificate.height, certified.certificate.block_hash) != (
                header.height,
                header.hash,
            ):
                raise _bad_block("the certificate is about another block")
            done = self._execute(block)
            self.store.commit(certified, done.transaction_ids, done.receipts, done.update.entries)
            self._tree.apply(done.update)
            self._recent.committed(done.update.entries)
            if any(entry.key == MEMBERSHIP_KEY for entry in done.update.entries):
                self._history = read_history(StateView(self.store), self._history.at(0))
            self._head = _Head(header.height, header.hash, header.time_ms, header.view)
            self._executions.clear()
            self._unsound.clear()
            self._settled.append(done.transaction_ids)
            if len(self._settled) > _BLOCKS_REMEMBERED:
                self._checker.forget(self._settled.popleft())
        duration = perf_counter() - start
        return Committed(block, done.receipts, done.transaction_ids, done.next_nonces, duration)

    def install(self, candidate: Candidate) -> None:
        """Go on from a snapshot, whose state takes the place of this one; durable on return.

        Raises `RefusedError`: "bad_snapshot" (its state has not the root that its header says),
        "old_snapshot" (not above the last block). Nothing changed then.
        """
        with self._lock:
            if candidate.header.height <= self._head.height:
                raise RefusedError(
                    "old_snapshot",
                    f"snapshot of block {candidate.header.height}: expected one above block "
                    f"{self._head.height}",
                )
            tree = candidate.finish(self._recent.bucket_leaves)
            self.store.install(candidate.path)
            self._recent.forget()
            self._tree = tree
            self._history = read_history(StateView(self.store), self.genesis.validator_set)
            self._head = self._load_head()
            self._executions.clear()
            self._unsound.clear()

    def _council(self) -> Council:
        return Council(self.genesis.chain_id, self._head.height + 1, self._history)

    def _check_header(self, header: Header) -> None:
        head = self._head
        if header.chain_id != self.genesis.chain_id:
            raise _bad_block(f"chain {header.chain_id!r}: expected {self.genesis.chain_id!r}")
        if header.height != head.height + 1:
            raise RefusedError(
                "wrong_height", f"block {header.height}: expected block {head.height + 1}"
            )
        if header.previous != head.hash:
            raise _bad_block(f"follows {header.previous.hex()}: expected {head.hash.hex()}")
        if header.validators_hash != self.validators.hash:
            raise _bad_block("names another validator set")
        if header.next_validators_hash != self.validators_at(header.height + 1).hash:
            raise _bad_block("names another validator set for the next height")
        if header.time_ms <= head.time_ms:
            raise _bad_block(f"time_ms = {header.time_ms}: expected more than {head.time_ms}")

    def _execute(self, block: Block) -> Execution:
        """Execute a block whose header fits the head; at most once per block, sound or not."""
        block_hash = block.hash
        known = self._executions.get(block_hash)
        # The hash covers the transactions by their root only, which must not be taken on trust.
        if known is not None and known.block == block:
            return known
        unsound = self._unsound.get(block_hash)
        if unsound is not None and unsound[0] == block:
            raise RefusedError(unsound[1].code, unsound[1].message)
        try:
            execution = self._execute_anew(block)
        except RefusedError as error:
            _keep_last(self._unsound, block_hash, (block, error))
            raise
        _keep_last(self._executions, block_hash, execution)
        return execution

    def _execute_anew(self, block: Block) -> Execution:
        limits = self.genesis.parameters
        if len(block.transactions) > limits.max_block_transactions:
            raise _bad_block(
                f"{len(block.transactions)} transactions: at most {limits.max_block_transactions}"
            )
        size = sum(map(len, block.transactions))
        if size > limits.max_block_bytes:
            raise _bad_block(f"{size} bytes of transactions: at most {limits.max_block_bytes}")
        if not block.has_valid_transactions_root():
            raise _bad_block("the transactions do not match their root")
        state, council = StateView(self._recent), self._council()
        checked_transactions = []
        receipts = []
        for index, raw in enumerate(block.transactions):
            try:
                checked = self._checker.check(raw)
            except RefusedError as error:
                raise _bad_block(f"transaction {index}: {error.code}: {error}") from error
            reason = fault(checked, state, block.header.time_ms)
            if reason is not None:
                raise _bad_block(f"transaction {index}: {reason}")
            checked_transactions.append(checked)
            receipts.append(execute(checked, state, council))
        update = self._tree.update(state.changes)
        if update.root != block.header.state_root:
            raise _bad_block(
                f"state root {block.header.state_root.hex()}: expected {update.root.hex()}"
            )
        return execution_of(block, checked_transactions, receipts, state, update)


_WAY_OUT: Final = (
    "the database is damaged: move it away and let the node fetch the chain from its peers"
)


def _keep_last(verdicts: dict[bytes, _T], block_hash: bytes, verdict: _T) -> None:
    if len(verdicts) >= _MAX_EXECUTIONS:
        del verdicts[next(iter(verdicts))]
    verdicts[block_hash] = verdict


def _bad_block(message: str) -> RefusedError:
    return RefusedError("bad_block", message)


def _opening_state(genesis: Genesis) -> TreeUpdate:
    accounts = {
        account_key(parse_address(address)): encode(AccountState(balance, 0))
        for address, balance in genesis.accounts.items()
    }
    return StateTree((), lambda _bucket: []).update(accounts)
