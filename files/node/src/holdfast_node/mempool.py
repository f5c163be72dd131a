# SPDX-License-Identifier: Apache-2.0
"""Transactions that wait for a block: bounded by bytes, count and sender."""

from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush
from typing import Final

from holdfast_node.errors import RefusedError
from holdfast_node.ledger.checking import CheckedTransaction

# The expiry heap keeps entries of transactions that left before they expired; it is rebuilt when
# there are more of those than of the others, and at least this many.
_MIN_STALE_EXPIRIES: Final = 1024


@dataclass(frozen=True, slots=True)
class MempoolStatistics:
    transactions: int
    bytes: int
    oldest_age_s: float


@dataclass(slots=True)
class _Sender:
    """Waiting transactions of one account by nonce.

    `next` is the account's next nonce, `ready_end` the first nonce from there on that is missing:
    those before it can be executed, those after it are parked.
    """

    next: int
    ready_end: int
    waiting: dict[int, CheckedTransaction] = field(default_factory=dict)


class Mempool:
    """Not thread-safe: it lives on the event loop.

    A transaction that cannot be executed yet, because a nonce before it is missing, is parked. When
    the mempool is full, parked ones make room for one that can be executed: otherwise anybody could
    close it for a day with transactions that never apply.

    `clock` is monotonic, in seconds, and only measures ages.
    """

    def __init__(
        self,
        max_bytes: int,
        max_transactions: int,
        max_per_sender: int,
        clock: Callable[[], float],
    ) -> None:
        self._max_bytes = max_bytes
        self._max_transactions = max_transactions
        self._max_per_sender = max_per_sender
        self._clock = clock
        self._bytes = 0
        # Ordered dictionaries, because a plain one gets slow when its oldest entries go first.
        self._arrived: OrderedDict[bytes, float] = OrderedDict()
        self._by_id: dict[bytes, CheckedTransaction] = {}
        self._parked: OrderedDict[bytes, CheckedTransaction] = OrderedDict()
        self._senders: dict[bytes, _Sender] = {}
        self._ready: OrderedDict[bytes, None] = OrderedDict()
        self._expiries: list[tuple[int, bytes]] = []

    def __len__(self) -> int:
        return len(self._by_id)

    def __contains__(self, transaction_id: bytes) -> bool:
        return transaction_id in self._by_id

    def accounts(self) -> list[bytes]:
        """Of whom transactions are waiting."""
        return list(self._senders)

    def get(self, transaction_id: bytes) -> CheckedTransaction | None:
        return self._by_id.get(transaction_id)

    def newest_arrival(self, transaction_ids: Iterable[bytes]) -> float | None:
        """When the youngest of those that wait here came, by `clock`; None if none waits."""
        arrived = self._arrived
        return max((arrived[i] for i in transaction_ids if i in arrived), default=None)

    def add(self, checked: CheckedTransaction, next_nonce: int) -> None:
        """Take in a transaction; `next_nonce` is its sender's according to the ledger.

        Raises `RefusedError`: already_known (this very transaction waits), nonce_used (a replay),
        nonce_taken (another transaction with this nonce waits), nonce_gap (too far ahead),
        sender_limit, mempool_full.
        """
        if checked.id in self._by_id:
            raise RefusedError("already_known", "this transaction is waiting already")
        nonce = checked.nonce
        if nonce < next_nonce:
            raise RefusedError(
                "nonce_used", f"nonce {nonce}: the account's next nonce is {next_nonce}"
            )
        if nonce > next_nonce + self._max_per_sender:
            raise RefusedError(
                "nonce_gap",
                f"nonce {nonce}: expected {next_nonce}, or at most {self._max_per_sender} more",
            )
        sender = self._senders.get(checked.account)
        if sender is not None:
            self._advance(checked.account, sender, next_nonce)
            if nonce in sender.waiting:
                raise RefusedError(
                    "nonce_taken", f"another transaction with nonce {nonce} is waiting"
                )
            if len(sender.waiting) >= self._max_per_sender:
                raise RefusedError(
                    "sender_limit",
                    f"{len(sender.waiting)} transactions of this account are waiting: at most "
                    f"{self._max_per_sender}",
                )
        ready_end = next_nonce if sender is None else sender.ready_end
        self._make_room(checked, may_evict=nonce == ready_end)
        self._insert(checked, next_nonce)

    def _make_room(self, checked: CheckedTransaction, *, may_evict: bool) -> None:
        excess_bytes = self._bytes + len(checked.raw) - self._max_bytes
        excess_count = len(self._by_id) + 1 - self._max_transactions
        if excess_bytes <= 0 and excess_count <= 0:
            return
        victims = []
        if may_evict:
            for victim in reversed(self._parked.values()):
                if excess_bytes <= 0 and excess_count <= 0:
                    break
                # The newcomer may be what this one has been waiting for.
                if victim.account != checked.account:
                    victims.append(victim)
                    excess_bytes -= len(victim.raw)
                    excess_count -= 1
        if excess_bytes > 0 or excess_count > 0:
            raise RefusedError(
                "mempool_full",
                f"{len(self)} transactions, {self._bytes} bytes are waiting: try again later",
            )
        for victim in victims:
            self._remove(victim)

    def _insert(self, checked: CheckedTransaction, next_nonce: int) -> None:
        sender = self._senders.setdefault(checked.account, _Sender(next_nonce, next_nonce))
        sender.waiting[checked.nonce] = checked
        self._by_id[checked.id] = checked
        self._arrived[checked.id] = self._clock()
        self._bytes += len(checked.raw)
        heappush(self._expiries, (checked.expires_at_ms, checked.id))
        if checked.nonce == sender.ready_end:
            self._extend(checked.account, sender)
        else:
            self._parked[checked.id] = checked

    def _extend(self, account: bytes, sender: _Sender) -> None:
        """Count as ready what follows without a gap."""
        while (follower := sender.waiting.get(sender.ready_end)) is not None:
            self._parked.pop(follower.id, None)
            sender.ready_end += 1
        if sender.ready_end > sender.next:
            self._ready.setdefault(account)

    def _advance(self, account: bytes, sender: _Sender, next_nonce: int) -> None:
        """Adopt the ledger's next nonce, drop what is behind it, and go to the end of the queue."""
        if next_nonce <= sender.next:
            return
        for nonce in range(sender.next, min(next_nonce, sender.ready_end)):
            self._forget(sender.waiting.pop(nonce))
        if next_nonce > sender.ready_end:
            for nonce in [nonce for nonce in sender.waiting if nonce < next_nonce]:
                self._forget(sender.waiting.pop(nonce))
        sender.next = next_nonce
        sender.ready_end = max(sender.ready_end, next_nonce)
        self._ready.pop(account, None)
        self._extend(account, sender)
        if not sender.waiting:
            del self._senders[account]

    def _remove(self, checked: CheckedTransaction) -> None:
        """Take out one transaction; those that needed it are parked."""
        account, nonce = checked.account, checked.nonce
        sender = self._senders[account]
        del sender.waiting[nonce]
        self._forget(checked)
        for later in range(nonce + 1, sender.ready_end):
            follower = sender.waiting[later]
            self._parked[follower.id] = follower
        sender.ready_end = min(sender.ready_end, max(nonce, sender.next))
        if sender.ready_end == sender.next:
            self._ready.pop(account, None)
        if not sender.waiting:
            del self._senders[account]

    def _forget(self, checked: CheckedTransaction) -> None:
        del self._by_id[checked.id]
        del self._arrived[checked.id]
        self._parked.pop(checked.id, None)
        self._bytes -= len(checked.raw)

    def candidates(self, max_bytes: int, max_count: int) -> list[CheckedTransaction]:
        """What could be in the next block: nonces in order per sender, senders in turn.

        Stops before `max_bytes` (of encoded transactions) or `max_count` is exceeded; removes
        nothing.
        """
        chosen: list[CheckedTransaction] = []
        size = 0
        accounts = iter(self._ready)
        turns: deque[tuple[_Sender, int]] = deque()
        while len(chosen) < max_count:
            account = next(accounts, None)
            if account is not None:
                sender = self._senders[account]
                nonce = sender.next
            elif turns:
                sender, nonce = turns.popleft()
            else:
                break
            checked = sender.waiting.get(nonce)
            if checked is None:
                continue
            size += len(checked.raw)
            if size > max_bytes:
                break
            chosen.append(checked)
            turns.append((sender, nonce + 1))
        return chosen

    def committed(
        self, transaction_ids: Iterable[bytes], next_nonces: Mapping[bytes, int], time_ms: int
    ) -> None:
        """Drop what a block made void: committed, nonce used up, or expired at the block's time."""
        for account, next_nonce in next_nonces.items():
            sender = self._senders.get(account)
            if sender is not None:
                self._advance(account, sender, next_nonce)
        for transaction_id in transaction_ids:
            checked = self._by_id.get(transaction_id)
            if checked is not None:
                self._remove(checked)
        while self._expiries and self._expiries[0][0] < time_ms:
            checked = self._by_id.get(heappop(self._expiries)[1])
            if checked is not None:
                self._remove(checked)
        if len(self._expiries) > 2 * len(self._by_id) + _MIN_STALE_EXPIRIES:
            self._expiries = [(waiting.expires_at_ms, id_) for id_, waiting in self._by_id.items()]
            heapify(self._expiries)

    def statistics(self) -> MempoolStatistics:
        oldest = next(iter(self._arrived.values()), None)
        age = 0.0 if oldest is None else self._clock() - oldest
        return MempoolStatistics(len(self._by_id), self._bytes, age)
