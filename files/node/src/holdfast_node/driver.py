# SPDX-License-Identifier: Apache-2.0
"""Runs the replica: feeds it messages and time, and carries out its effects in order.

One task owns the replica and the ledger's head; everything that blocks (signatures, execution,
disk) happens in worker threads while that task waits. On an observer there is no replica: blocks
come from block sync only.
"""

from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from math import inf
from typing import Final, Protocol

import structlog
from anyio import to_thread

from holdfast_node.api.service import LatencySample
from holdfast_node.chain.block import Block, CertifiedBlock
from holdfast_node.chain.transaction import MAX_TRANSACTION_BYTES
from holdfast_node.config import Consensus as ConsensusSettings
from holdfast_node.consensus import (
    Commit,
    Effect,
    Entered,
    Evidence,
    Locked,
    Message,
    NewView,
    Persist,
    PrePrepare,
    Record,
    Refused,
    Replica,
    Send,
)
from holdfast_node.consensus.patience import Patience
from holdfast_node.errors import RefusedError
from holdfast_node.evidence_log import EvidenceLog
from holdfast_node.examiner import Examiner
from holdfast_node.inbox import Adoption, Heavy, Inbox, Item
from holdfast_node.ledger.ledger import Candidate, Ledger
from holdfast_node.mempool import Mempool
from holdfast_node.observe.metrics import Metrics
from holdfast_node.rejoin import Rejoin
from holdfast_node.vote_log import VoteLog

JOURNAL_BYTES: Final = 16 * 2**20
LATENCY_SAMPLES: Final = 240
PROPOSALS_TIMED: Final = 16
# A leader has to pass a transaction over for this many view timeouts before it is suspected.
PATIENCE_VIEWS: Final = 2

log = structlog.get_logger()


class Outside(Protocol):
    """What the driver needs of the rest of the node."""

    def send(self, message: Message) -> None:
        """Send to all connected validators."""

    def announce(self) -> None:
        """Tell all peers the new height."""

    def in_step(self) -> bool:
        """Whether a quorum is connected and at most f validators claim to have more blocks."""

    def newest(self) -> bool:
        """Whether a quorum is connected and no peer at all claims to have more blocks."""

    def stalled(self) -> None:
        """A view failed: others may lack the transactions that this node waits for."""


class Driver(Inbox):
    """`clock` is monotonic, in seconds; an observer has no `replica`, `votes` and `evidence`.

    With `rejoin` there is no replica until it says that a vote is safe; until then the node follows
    like an observer.
    """

    def __init__(
        self,
        *,
        ledger: Ledger,
        mempool: Mempool,
        replica: Replica | None,
        votes: VoteLog | None,
        settings: ConsensusSettings,
        outside: Outside,
        metrics: Metrics,
        clock: Callable[[], float],
        evidence: EvidenceLog | None = None,
        rejoin: Rejoin | None = None,
    ) -> None:
        super().__init__()
        self.ledger = ledger
        self.mempool = mempool
        self.replica = replica
        self.votes = votes
        self.evidence = evidence
        self.rejoin = rejoin
        self.latencies: deque[LatencySample] = deque(maxlen=LATENCY_SAMPLES)
        self.last_commit: float | None = None
        self._settings = settings
        self._outside = outside
        self._metrics = metrics
        self._clock = clock
        self._started = clock()
        self._proposal_seen: OrderedDict[bytes, float] = OrderedDict()
        self._step_began = self._started
        self._examiner = Examiner(ledger, metrics, clock, self._note_proposal)
        self._patience = Patience(PATIENCE_VIEWS * settings.view_timeout_ms / 1000)

    # The one task.

    async def run(self) -> None:
        """Drive until cancelled. Raises `StorageError` when a vote or a block cannot be stored."""
        try:
            if self.replica is not None:
                await self._carry_out(self.replica.resume(self._clock()))
            while True:
                await self._step()
        finally:
            self.close()

    async def _step(self) -> None:
        burst = await self._burst(lambda: max(0.0, self._next_deadline() - self._clock()))
        try:
            await self._take(burst)
        finally:
            for item in burst:
                if isinstance(item, Heavy | Adoption):
                    item.done.set()  # nobody waits for what an error left undone
        if self.replica is None and self.rejoin is not None:
            await self._join(self.rejoin)
        if self.replica is not None:
            await self._carry_out(self.replica.timeout(self._clock()))
        if self.replica is not None:  # the last block may have ended the membership
            await self._work(self.replica)

    async def _take(self, burst: list[Item]) -> None:
        effects: list[Effect] = []
        for item in burst:
            match item:
                case None:
                    self._awake = False
                case Adoption():
                    await self._carry_out(effects)
                    effects = []
                    await self._adopt(item)
                case Heavy():
                    effects += await self._hear(item.message)
                    item.done.set()
                case _:
                    effects += await self._hear(item)
        await self._carry_out(effects)

    async def _hear(self, message: Message) -> list[Effect]:
        if self.replica is None:
            return []
        if isinstance(message, PrePrepare):
            await self._examiner.proposal(self.replica, message)
        elif isinstance(message, NewView):
            await self._examiner.new_view(self.replica, message)
        return self.replica.receive(message, self._clock())

    async def _join(self, rejoin: Rejoin) -> None:
        """Vote from now on, if that is safe; otherwise do what makes it so."""
        ledger = self.ledger
        self.replica = await rejoin.replica(
            ledger.height, ledger.next_view, newest=self._outside.newest(), now=self._clock()
        )
        if self.replica is not None:
            log.info("votes from now on", height=self.replica.height, view=self.replica.view)
            await self._carry_out(self.replica.resume(self._clock()))

    def _next_deadline(self) -> float:
        if self.replica is None:
            return inf if self.rejoin is None else self.rejoin.next_try
        timer = self.replica.next_timer()
        due = self._due()
        return min(inf if timer is None else timer, inf if due is None else due)

    def _due(self) -> float | None:
        """When to propose, or to begin to expect a proposal; None if that is up to others."""
        if self.replica is None or self.replica.decided or not self._outside.in_step():
            return None
        mine = self.replica.wants_proposal
        if mine and (self.last_commit is None or self.replica.view != self.replica.first_view):
            return self._started
        due = (self.last_commit or self._started) + self._interval()
        return due if mine or due > self._clock() else None

    def _interval(self) -> float:
        """Seconds from one block to the next."""
        if self._has_work():
            return self._settings.block_interval_ms / 1000
        return self._settings.empty_block_interval_ms / 1000

    def _has_work(self) -> bool:
        return bool(self.mempool.candidates(self._settings.max_block_bytes, 1))

    async def _work(self, replica: Replica) -> None:
        """Propose if it is this validator's turn; otherwise expect the leader to."""
        if replica.decided or not self._outside.in_step():
            return
        now = self._clock()
        self._watch()
        if self._has_work() or now >= (self.last_commit or self._started) + self._interval():
            replica.expect(now)
        due = self._due()
        if not replica.wants_proposal or due is None or due > now:
            return
        height, view = replica.height, replica.view
        candidates = self.mempool.candidates(
            self._settings.max_block_bytes, self._settings.max_block_transactions
        )
        block = await to_thread.run_sync(
            lambda: self.ledger.prepare_proposal(candidates, view=view)
        )
        self._metrics.step("propose", self._clock() - now)
        if replica.wants_proposal and (replica.height, replica.view) == (height, view):
            self._note_proposal(block.hash, now)
            await self._carry_out(replica.propose(block, self._clock()))

    def _note_proposal(self, block_hash: bytes, now: float) -> None:
        self._proposal_seen.setdefault(block_hash, now)
        while len(self._proposal_seen) > PROPOSALS_TIMED:
            self._proposal_seen.popitem(last=False)

    async def _adopt(self, adoption: Adoption) -> None:
        try:
            found = adoption.found
            if not isinstance(found, CertifiedBlock):
                await self._install(found)
            elif found.block.height > self.ledger.height:
                await self._commit(found, synced=True)
        except RefusedError as error:
            adoption.error = error
        finally:
            adoption.done.set()

    async def _install(self, candidate: Candidate) -> None:
        ledger = self.ledger
        await to_thread.run_sync(ledger.install, candidate)
        self.last_commit = self._clock()
        nonces = {account: ledger.next_nonce(account) for account in self.mempool.accounts()}
        self.mempool.committed((), nonces, ledger.head_time_ms)
        self._outside.announce()
        if self.replica is not None:
            await self._advance(self.replica, ledger.height, ledger.next_view)
        elif self.rejoin is not None:
            await self.rejoin.committed(ledger.height)

    async def _carry_out(self, effects: list[Effect]) -> None:
        records = [effect.record for effect in effects if isinstance(effect, Persist)]
        await self._persist(records)
        if records and self.replica is not None:
            await self._shorten_journal(self.replica)
        for effect in effects:
            match effect:
                case Send():
                    self._outside.send(effect.message)
                case Commit():
                    self._metrics.quorum_reached("commit", self._clock() - self._step_began)
                    self._metrics.step("commit", self._clock() - self._step_began)
                    await self._decided(effect.certified)
                case Evidence():
                    await self._report(effect)
                case Refused():
                    log.warning(
                        "consensus message refused",
                        validator=effect.validator,
                        code=effect.code,
                        reason=effect.reason,
                    )
                case Persist():
                    pass

    async def _persist(self, records: list[Record]) -> None:
        if not records or self.votes is None:
            return
        began = self._clock()
        await to_thread.run_sync(self.votes.append, records)
        now = self._clock()
        self._metrics.step("persist", now - began)
        for record in records:
            if isinstance(record, Locked):
                self._metrics.quorum_reached("prepare", began - self._step_began)
                self._metrics.step("prepare", began - self._step_began)
            elif isinstance(record, Entered):
                self._metrics.view_changed()
                self._outside.stalled()
        self._step_began = now

    async def _decided(self, certified: CertifiedBlock) -> None:
        """Commit what the replica found final.

        If the ledger refuses it, the state here is not that of the quorum which executed it. Then
        the replica stays as it is, decided, and says nothing more, as long as block sync, which
        reports the same, finds no block that fits.
        """
        try:
            await self._commit(certified, synced=False)
        except RefusedError as error:
            log.error(  # noqa: TRY400 -- where it was raised says nothing that its code does not
                "certified_block_refused",
                height=certified.block.height,
                block=certified.certificate.block_hash.hex(),
                code=error.code,
                error=str(error),
            )

    async def _commit(self, certified: CertifiedBlock, *, synced: bool) -> None:
        """Raises `RefusedError` if the block does not fit; then nothing has changed."""
        committed = await to_thread.run_sync(self.ledger.commit, certified)
        now = self.last_commit = self._clock()
        header = certified.block.header
        newest = self.mempool.newest_arrival(committed.transaction_ids)
        self.mempool.committed(committed.transaction_ids, committed.next_nonces, header.time_ms)
        seen = self._proposal_seen.pop(certified.certificate.block_hash, None)
        latency = None if seen is None or synced else now - seen
        if latency is not None:
            sample = LatencySample(header.height, latency * 1000, len(certified.block.transactions))
            self.latencies.append(sample)
        self._metrics.step("persist", committed.duration_s)
        self._metrics.block_committed(
            transactions=len(committed.receipts),
            failed=sum(receipt.failed_reason is not None for receipt in committed.receipts),
            latency_s=latency,
            synced=synced,
        )
        self._outside.announce()
        if self.replica is not None:
            replica = self.replica
            await self._advance(replica, header.height, header.view)
            if self.replica is not None:
                await self._judge_leader(
                    replica, certified.block, committed.transaction_ids, newest
                )
        elif self.rejoin is not None:
            await self.rejoin.committed(header.height)

    async def _advance(self, replica: Replica, height: int, view: int) -> None:
        """Go on above the stored block at `height`; as an observer, if that ends a membership."""
        if not replica.is_member(height + 1):
            log.warning("is a validator no longer", height=height + 1)
            self.replica = None
            return
        await self._examiner.first_of(replica.waiting_proposals(view))
        await self._carry_out(replica.advance(height, view, self._clock()))

    async def _judge_leader(
        self, replica: Replica, block: Block, ids: Sequence[bytes], newest: float | None
    ) -> None:
        """Suspect a leader whose blocks pass over what has waited long."""
        settings, now = self._settings, self._clock()
        size = sum(map(len, block.transactions))
        room = (
            len(block.transactions) < settings.max_block_transactions
            and size + MAX_TRANSACTION_BYTES <= settings.max_block_bytes
        )
        view = block.header.view
        if self._patience.committed(ids, room=room, newest=newest, view=view, now=now):
            leader = replica.validators[replica.leader].name
            log.warning("the leader passes over a transaction", leader=leader, view=replica.view)
            await self._carry_out(replica.suspect(now))
        self._watch()

    def _watch(self) -> None:
        waiting = self.mempool.candidates(self._settings.max_block_bytes, 1)
        self._patience.watch(waiting[0].id if waiting else None, self._clock())

    async def _shorten_journal(self, replica: Replica) -> None:
        """Keep the journal to what binds, also while a height takes many views."""
        if self.votes is not None and self.votes.size > JOURNAL_BYTES:
            floor, records = replica.height - 1, replica.records()
            await to_thread.run_sync(self.votes.compact, floor, records)

    async def _report(self, evidence: Evidence) -> None:
        if self.replica is None or self.evidence is None or not self.evidence.wants(evidence):
            return
        await to_thread.run_sync(self.evidence.add, evidence)
        self._metrics.misbehaviour(evidence.kind)
        log.error(
            "a validator signed two statements that contradict each other",
            validator=self.ledger.validators_at(evidence.height)[evidence.validator].name,
            step=evidence.kind,
            height=evidence.height,
            view=evidence.view,
        )
