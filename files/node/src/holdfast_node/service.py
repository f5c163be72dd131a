# SPDX-License-Identifier: Apache-2.0
"""What the API answers from: a view over the parts of a running node, and the way in."""

import os
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from statistics import quantiles
from typing import Final, TypeVar

from anyio import CapacityLimiter, Event, to_thread

from holdfast_node import __version__
from holdfast_node.api.service import (
    AccountView,
    BlockRecord,
    BlockSummary,
    ChangeView,
    EvidenceView,
    LatencySample,
    MembersView,
    MempoolView,
    NodeStatus,
    PeerView,
    Quantiles,
    TransactionStatus,
    ValidatorView,
    ValueRecord,
    Verdict,
)
from holdfast_node.chain.block import Header
from holdfast_node.chain.crypto import format_address
from holdfast_node.chain.trail import TrailStep
from holdfast_node.chain.transaction import transaction_id
from holdfast_node.chain.validators import ValidatorSet
from holdfast_node.config import Config
from holdfast_node.driver import Driver
from holdfast_node.errors import RefusedError
from holdfast_node.evidence_log import evidence_view
from holdfast_node.ledger.checking import CheckedTransaction
from holdfast_node.ledger.ledger import Ledger
from holdfast_node.members import IN_STEP_BLOCKS, Members
from holdfast_node.mempool import Mempool
from holdfast_node.net.network import Network, PeerStatus
from holdfast_node.net.sync import BlockSync

T = TypeVar("T")

REJECTED_REMEMBERED: Final = 10_000
# The head may be this much older than a new block should be before the network counts as halted.
HALT_VIEWS: Final = 3


class NodeService:
    """Implements `api.service.Service`; `gossip` hands accepted transactions to the validators."""

    def __init__(
        self,
        *,
        config: Config,
        ledger: Ledger,
        mempool: Mempool,
        driver: Driver,
        network: Network,
        sync: BlockSync,
        gossip: Callable[[list[bytes]], None],
        clock: Callable[[], float],
    ) -> None:
        self._config = config
        self._ledger = ledger
        self._mempool = mempool
        self._driver = driver
        self._network = network
        self._sync = sync
        self._gossip = gossip
        self._clock = clock
        self._started = clock()
        self.membership = Members(ledger, config.name, network.peers)
        self._rejected: OrderedDict[bytes, str] = OrderedDict()
        # Fewer threads than cores: the event loop and consensus must not queue behind admission.
        self._checkers = CapacityLimiter(max(1, (os.cpu_count() or 1) // 2))
        self._nonces: dict[bytes, int] = {}  # as of height `_nonces_at`
        self._nonces_at = -1
        self._committed = Event()

    # State

    def height(self) -> int:
        return self._ledger.height

    def first_height(self) -> int:
        return self._ledger.store.first_height()

    def validator_set(self, height: int | None = None) -> ValidatorSet:
        return self._ledger.validators if height is None else self._ledger.validators_at(height)

    def is_validator(self) -> bool:
        """Whether this node has a key to vote with, and the set of the next height its name."""
        named = self.validator_set().index_of(self._config.name) is not None
        return named and self._driver.rejoin is not None

    def trail(self, height: int) -> tuple[TrailStep, ...]:
        return self._ledger.trail(height)

    def view(self) -> int:
        """The view this node is in; an observer is in the last block's."""
        replica = self._driver.replica
        return self._ledger.next_view if replica is None else replica.view

    def missing_validators(self, peers: Sequence[PeerStatus]) -> int:
        """How many other validators are not connected or have fallen behind."""
        least = self._ledger.height - IN_STEP_BLOCKS
        here = {peer.name for peer in peers if peer.connected and peer.height >= least}
        here.add(self._config.name)
        return sum(validator.name not in here for validator in self.validator_set())

    def readiness(self) -> tuple[bool, str | None]:
        validators = self.validator_set()
        here = {peer.name for peer in self._network.peers() if peer.connected}
        member = self.is_validator()
        if member:
            here.add(self._config.name)
        connected = sum(validator.name in here for validator in validators)
        needed = validators.quorum if member else validators.tolerated_faults + 1
        others = [each.name for each in validators if each.name != self._config.name]
        # One more than may lie: a single claim, which anybody can make, says nothing.
        target = self._sync.claimed_by(others, validators.tolerated_faults + 1)
        height = self._ledger.height
        settings = self._config.consensus
        allowed = settings.empty_block_interval_ms + HALT_VIEWS * settings.view_timeout_ms
        last = self._driver.last_commit
        if connected < needed:
            return False, f"connected to {connected} validators, needs {needed} (itself included)"
        if target > height + 1:
            return False, f"catching up: at block {height} of {target}"
        if member and self._driver.rejoin is not None and self._driver.replica is None:
            return False, f"follows without a vote: {self._driver.rejoin.reason}"
        if last is None:
            return False, "no block was committed since the start"
        age = self._clock() - last
        if age > allowed / 1000:
            return False, f"the network makes no progress: last block {age:.0f} s ago"
        return True, None

    def status(self) -> NodeStatus:
        ready, reason = self.readiness()
        ledger, validators, view = self._ledger, self.validator_set(), self.view()
        pool = self._mempool.statistics()
        return NodeStatus(
            chain_id=self._config.chain_id,
            name=self._config.name,
            role="validator" if self.is_validator() else "observer",
            version=__version__,
            height=ledger.height,
            block_hash=ledger.head_hash.hex(),
            block_time_ms=ledger.head_time_ms,
            state_root=ledger.state_root.hex(),
            view=view,
            leader=validators[validators.leader(view)].name,
            ready=ready,
            reason=reason,
            peers=[self._peer_view(peer) for peer in self._network.peers()],
            validators=len(validators),
            tolerated_faults=validators.tolerated_faults,
            quorum=validators.quorum,
            mempool=MempoolView(
                transactions=pool.transactions, bytes=pool.bytes, oldest_age_s=pool.oldest_age_s
            ),
            genesis_hash=ledger.genesis.hash.hex(),
            uptime_s=self._clock() - self._started,
            commit_latency_ms=self._quantiles(),
            first_height=self.first_height(),
        )

    def _peer_view(self, peer: PeerStatus) -> PeerView:
        return PeerView(
            name=peer.name,
            role=peer.role,
            connected=peer.connected,
            height=peer.height if peer.connected else None,
            view=peer.view if peer.connected else None,
            latency_ms=None if peer.latency_s is None else peer.latency_s * 1000,
            connected_s=max(0.0, time.time() - peer.since) if peer.connected else None,
            last_error=peer.last_error,
        )

    def _quantiles(self) -> Quantiles:
        latencies = [sample.latency_ms for sample in self._driver.latencies]
        if not latencies:
            return Quantiles()
        if len(latencies) == 1:
            return Quantiles(p50=latencies[0], p99=latencies[0])
        cuts = quantiles(latencies, n=100, method="inclusive")
        return Quantiles(p50=cuts[49], p99=cuts[98])

    def validators(self) -> list[ValidatorView]:
        validators = self.validator_set()
        leader = validators.leader(self.view())
        connected = {peer.name for peer in self._network.peers() if peer.connected}
        connected.add(self._config.name)
        return [
            ValidatorView(
                index=i,
                name=validator.name,
                public_key=validator.public_key.hex(),
                leader=i == leader,
                connected=validator.name in connected,
            )
            for i, validator in enumerate(validators)
        ]

    def latency_series(self) -> list[LatencySample]:
        return list(self._driver.latencies)

    # Blocks, transactions, accounts

    def block(self, reference: int | bytes) -> BlockRecord | None:
        height = (
            reference if isinstance(reference, int) else self._ledger.store.block_height(reference)
        )
        certified = None if height is None else self._ledger.block(height)
        if height is None or certified is None:
            return None
        receipts = self._ledger.receipts(height) or ()
        failures = {
            i: receipt.failed_reason
            for i, receipt in enumerate(receipts)
            if receipt.failed_reason is not None
        }
        return BlockRecord(certified, failures)

    def blocks(self, first: int, limit: int) -> list[BlockSummary]:
        found = []
        for height in range(max(1, first), min(first + limit - 1, self._ledger.height) + 1):
            summary = self._ledger.store.summary(height)
            if summary is None:
                break
            header = summary.header
            validators = self.validator_set(height)
            found.append(
                BlockSummary(
                    height=height,
                    hash=summary.hash.hex(),
                    time_ms=header.time_ms,
                    view=header.view,
                    proposer=validators[validators.leader(header.view)].name,
                    transactions=summary.transactions,
                )
            )
        return found

    def headers(self, first: int, last: int) -> list[Header]:
        found = []
        for height in range(max(1, first), min(last, self._ledger.height) + 1):
            summary = self._ledger.store.summary(height)
            if summary is None:
                break
            found.append(summary.header)
        return found

    def members(self) -> MembersView:
        return self.membership.view()

    def member_history(self) -> list[ChangeView]:
        return self.membership.history()

    def evidence(self) -> list[EvidenceView]:
        log = self._driver.evidence
        kept = [] if log is None else log.all()
        return [evidence_view(each, self.validator_set(each.height)) for each in kept]

    def committed(self) -> None:
        """There is a new block: to be called after every one."""
        self._committed.set()
        self._committed = Event()

    async def reached(self, height: int) -> None:
        while self._ledger.height < height:
            await self._committed.wait()

    def account(self, account: bytes) -> AccountView:
        height, (balance, nonce) = self._as_of(lambda: self._ledger.account(account))
        address = format_address(account)
        return AccountView(address=address, balance=balance, nonce=nonce, height=height)

    def value(self, account: bytes, key: str) -> ValueRecord:
        return ValueRecord(*self._as_of(lambda: self._ledger.value(account, key)))

    def _as_of(self, read: Callable[[], T]) -> tuple[int, T]:
        """What `read` finds, with its height: a commit in another thread may come in between."""
        height = self._ledger.store.height()
        while True:
            found = read()
            after = self._ledger.store.height()
            if after == height:
                return height, found
            height = after

    def transaction(self, transaction_id: bytes) -> TransactionStatus:
        identifier = transaction_id.hex()
        location = self._ledger.transaction(transaction_id)
        if location is not None:
            summary = self._ledger.store.summary(location.height)
            return TransactionStatus(
                id=identifier,
                status="committed" if location.failed_reason is None else "failed",
                height=location.height,
                index=location.index,
                reason=location.failed_reason,
                committed_at_ms=None if summary is None else summary.header.time_ms,
            )
        if transaction_id in self._mempool:
            return TransactionStatus(id=identifier, status="pending")
        reason = self._rejected.get(transaction_id)
        if reason is not None:
            return TransactionStatus(id=identifier, status="rejected", reason=reason)
        first = self.first_height()
        pruned = f"blocks below {first} are not here, and may hold it" if first > 1 else None
        return TransactionStatus(id=identifier, status="unknown", reason=pruned)

    # The way in

    async def submit(self, raws: Sequence[bytes]) -> list[Verdict]:
        checked = await to_thread.run_sync(self._check, raws, limiter=self._checkers)
        verdicts, accepted = [], []
        for raw, result in zip(raws, checked, strict=True):
            error = result if isinstance(result, RefusedError) else self._admit_from_client(result)
            identifier = transaction_id(raw)
            if error is None:
                accepted.append(raw)
                self._rejected.pop(identifier, None)
                verdicts.append(Verdict(id=identifier.hex(), accepted=True))
                continue
            readable = error.code not in {"malformed", "oversized"}
            if readable:
                self._remember_rejected(identifier, error)
            verdicts.append(
                Verdict(
                    id=identifier.hex() if readable else None,
                    accepted=False,
                    code=error.code,
                    reason=error.message,
                )
            )
        if accepted:
            self._gossip(accepted)
            self._driver.wake()
        return verdicts

    async def admit_from_peer(self, raws: Sequence[bytes]) -> None:
        """Take in transactions that a member passes on; those that do not fit are dropped."""
        unknown = [raw for raw in raws if transaction_id(raw) not in self._mempool]
        checked = await to_thread.run_sync(self._check, unknown, limiter=self._checkers)
        if [self._admit(r) for r in checked if isinstance(r, CheckedTransaction)].count(None):
            self._driver.wake()

    def _check(self, raws: Sequence[bytes]) -> list[CheckedTransaction | RefusedError]:
        results: list[CheckedTransaction | RefusedError] = []
        for raw in raws:
            try:
                results.append(self._ledger.check_transaction(raw))
            except RefusedError as error:
                results.append(error)
        return results

    def _admit_from_client(self, checked: CheckedTransaction) -> RefusedError | None:
        try:
            self.membership.refuse_unprobed(checked.transaction.body.actions)
        except RefusedError as error:
            return error
        return self._admit(checked)

    def _admit(self, checked: CheckedTransaction) -> RefusedError | None:
        try:
            self._mempool.add(checked, self._next_nonce(checked.account))
        except RefusedError as error:
            return error
        return None

    def _next_nonce(self, account: bytes) -> int:
        """Look an account's nonce up once per block, not once per transaction."""
        height = self._ledger.height
        if height != self._nonces_at:
            self._nonces.clear()
            self._nonces_at = height
        nonce = self._nonces.get(account)
        if nonce is None:
            nonce = self._nonces[account] = self._ledger.next_nonce(account)
        return nonce

    def _remember_rejected(self, identifier: bytes, error: RefusedError) -> None:
        if identifier in self._mempool or self._ledger.transaction(identifier) is not None:
            return  # a repeated submission: its own state says more
        if error.code == "nonce_used" and self.first_height() > 1:
            return  # it may be final, in a block that is not here
        self._rejected[identifier] = f"{error.code}: {error.message}"
        while len(self._rejected) > REJECTED_REMEMBERED:
            self._rejected.popitem(last=False)
