# SPDX-License-Identifier: Apache-2.0
"""What waits, for how long, and in which order it is offered."""

from collections import Counter

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from holdfast_node.chain.transaction import Put, Transaction, TransactionBody
from holdfast_node.errors import RefusedError
from holdfast_node.ledger.checking import CheckedTransaction
from holdfast_node.mempool import Mempool

BIG = 1_000_000_000


def checked(
    sender: int, nonce: int, *, size: int = 100, expires: int = BIG, variant: int = 0
) -> CheckedTransaction:
    body = TransactionBody("unit", bytes(32), nonce, expires, (Put("k", b""),))
    identifier = b"%d/%d/%d" % (sender, nonce, variant)
    return CheckedTransaction(
        identifier, bytes(size), Transaction(body, bytes(64)), b"sender %d" % sender
    )


def account(sender: int) -> bytes:
    return b"sender %d" % sender


class Time:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def pool(max_bytes: int = BIG, max_transactions: int = BIG, max_per_sender: int = 10) -> Mempool:
    return Mempool(max_bytes, max_transactions, max_per_sender, Time())


def refused(mempool: Mempool, transaction: CheckedTransaction, next_nonce: int = 0) -> str:
    before = mempool.statistics()
    with pytest.raises(RefusedError) as caught:
        mempool.add(transaction, next_nonce)
    assert mempool.statistics() == before
    return caught.value.code


def offered(mempool: Mempool, count: int = BIG, size: int = BIG) -> list[tuple[int, int]]:
    return [(int(c.account.split()[1]), c.nonce) for c in mempool.candidates(size, count)]


def test_what_was_added_is_there() -> None:
    mempool = pool()
    transaction = checked(1, 0)
    mempool.add(transaction, 0)
    assert transaction.id in mempool
    assert mempool.get(transaction.id) is transaction
    assert mempool.get(b"other") is None
    assert len(mempool) == 1


def test_refusals() -> None:
    """Each reason has its code, and leaves the mempool as it was."""
    mempool = pool(max_per_sender=3)
    mempool.add(checked(1, 5), 5)
    assert refused(mempool, checked(1, 5), 5) == "already_known"
    assert refused(mempool, checked(1, 5, variant=1), 5) == "nonce_taken"
    assert refused(mempool, checked(1, 4), 5) == "nonce_used"
    assert refused(mempool, checked(1, 9), 5) == "nonce_gap"
    mempool.add(checked(1, 8), 5)
    mempool.add(checked(1, 7), 5)
    assert refused(mempool, checked(1, 6), 5) == "sender_limit"
    assert refused(mempool, checked(2, 2), 3) == "nonce_used"


@pytest.mark.parametrize("limits", [{"max_transactions": 3}, {"max_bytes": 399}])
def test_bounds(limits: dict[str, int]) -> None:
    mempool = pool(**limits)
    for sender in range(3):
        mempool.add(checked(sender, 0), 0)
    assert refused(mempool, checked(3, 0)) == "mempool_full"
    mempool.committed([b"0/0/0"], {account(0): 1}, 0)
    mempool.add(checked(3, 0), 0)


def test_senders_take_turns() -> None:
    """Nonces in order; nobody gets a second one before everybody had a first."""
    mempool = pool()
    for nonce in (2, 0, 1):
        mempool.add(checked(1, nonce), 0)
    for nonce in (7, 8):
        mempool.add(checked(2, nonce), 7)
    assert offered(mempool) == [(1, 0), (2, 7), (1, 1), (2, 8), (1, 2)]
    assert offered(mempool, count=3) == [(1, 0), (2, 7), (1, 1)]
    assert offered(mempool, size=250) == [(1, 0), (2, 7)]
    assert offered(mempool, count=0) == offered(mempool, size=0) == []
    assert len(mempool) == 5


def test_who_was_served_goes_to_the_end() -> None:
    """With more senders than fit into a block, everybody's turn comes."""
    mempool = pool()
    for sender in range(5):
        for nonce in range(10):
            mempool.add(checked(sender, nonce), 0)
    served: Counter[int] = Counter()
    for _ in range(5):
        block = mempool.candidates(BIG, 2)
        served.update(int(c.account.split()[1]) for c in block)
        mempool.committed([c.id for c in block], {c.account: c.nonce + 1 for c in block}, 0)
    assert served == dict.fromkeys(range(5), 2)


def test_adding_more_does_not_cost_the_place_in_the_queue() -> None:
    mempool = pool()
    mempool.add(checked(1, 0), 0)
    mempool.add(checked(2, 0), 0)
    mempool.add(checked(1, 1), 0)
    assert offered(mempool) == [(1, 0), (2, 0), (1, 1)]


def test_a_gap_parks_what_follows() -> None:
    mempool = pool()
    mempool.add(checked(1, 1), 0)
    mempool.add(checked(1, 3), 0)
    assert offered(mempool) == []
    mempool.add(checked(1, 0), 0)
    assert offered(mempool) == [(1, 0), (1, 1)]
    mempool.add(checked(1, 2), 0)
    assert offered(mempool) == [(1, n) for n in range(4)]


def test_parked_transactions_make_room() -> None:
    """A mempool filled with nonces that never come stays open, the newest parked one leaves."""
    mempool = pool(max_transactions=3)
    for sender in range(3):
        mempool.add(checked(sender, 1), 0)
    assert refused(mempool, checked(9, 1)) == "mempool_full"
    mempool.add(checked(9, 0), 0)
    assert [c in mempool for c in (b"0/1/0", b"1/1/0", b"2/1/0")] == [True, True, False]
    mempool.add(checked(1, 0), 0)
    assert offered(mempool) == [(9, 0), (1, 0), (1, 1)]
    assert refused(mempool, checked(8, 0)) == "mempool_full"


def test_an_unfitting_newcomer_evicts_nobody() -> None:
    mempool = pool(max_bytes=300)
    mempool.add(checked(1, 1, size=100), 0)
    mempool.add(checked(2, 0, size=150), 0)
    assert refused(mempool, checked(3, 0, size=200)) == "mempool_full"
    assert b"1/1/0" in mempool


def test_a_commit_drops_what_is_void() -> None:
    """Committed, replaced by another with its nonce, or expired at the block's time."""
    mempool = pool()
    for nonce in range(4):
        mempool.add(checked(1, nonce), 0)
    mempool.add(checked(2, 0), 0)
    mempool.add(checked(3, 0, expires=50), 0)
    mempool.add(checked(3, 1, expires=90), 0)
    mempool.add(checked(4, 0, expires=60), 0)
    mempool.committed([b"1/0/0", b"2/0/9"], {account(1): 2, account(2): 1}, time_ms=60)
    assert offered(mempool) == [(4, 0), (1, 2), (1, 3)]
    assert len(mempool) == 4  # 3/1 waits for another 3/0
    assert b"3/1/0" in mempool
    mempool.add(checked(3, 0, variant=1), 0)
    assert (3, 1) in offered(mempool)


def test_a_commit_beyond_a_gap() -> None:
    """Other nodes may know transactions that this one never saw."""
    mempool = pool()
    mempool.add(checked(1, 3), 0)
    mempool.add(checked(1, 5), 0)
    mempool.add(checked(1, 6), 0)
    mempool.committed([], {account(1): 5}, 0)
    assert offered(mempool) == [(1, 5), (1, 6)]
    assert refused(mempool, checked(1, 3, variant=1), 5) == "nonce_used"


def test_age_of_the_oldest() -> None:
    clock = Time()
    mempool = Mempool(BIG, BIG, 10, clock)
    assert mempool.statistics().oldest_age_s == 0
    mempool.add(checked(1, 0), 0)
    clock.now = 3.0
    mempool.add(checked(1, 1), 0)
    clock.now = 5.0
    assert mempool.statistics().oldest_age_s == 5
    mempool.committed([], {account(1): 1}, 0)
    assert mempool.statistics().oldest_age_s == 2


def test_memory_of_expiries_is_bounded() -> None:
    """What leaves before it expires is not remembered until then."""
    mempool = pool()
    for nonce in range(10_000):
        mempool.add(checked(1, nonce), nonce)
        mempool.committed([], {account(1): nonce + 1}, 0)
    assert len(mempool) == 0
    assert len(mempool._expiries) < 2000
    assert not mempool._senders
    assert not mempool._ready


class Model(RuleBasedStateMachine):
    """Whatever happens: within its bounds, consistent, and nothing but executable offers."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = Mempool(1500, 12, 5, Time())
        self.next = dict.fromkeys(range(4), 0)
        self.time = 0

    @rule(
        sender=st.integers(0, 3),
        ahead=st.integers(-1, 7),
        size=st.integers(50, 400),
        lifetime=st.integers(1, 30),
        variant=st.integers(0, 1),
    )
    def add(self, sender: int, ahead: int, size: int, lifetime: int, variant: int) -> None:
        nonce = max(0, self.next[sender] + ahead)
        transaction = checked(
            sender, nonce, size=size, expires=self.time + lifetime, variant=variant
        )
        try:
            self.pool.add(transaction, self.next[sender])
        except RefusedError:
            return
        assert self.pool.get(transaction.id) is transaction

    @rule(count=st.integers(0, 6), elapsed=st.integers(0, 8))
    def commit_candidates(self, count: int, elapsed: int) -> None:
        self.time += elapsed
        block = self.pool.candidates(1000, count)
        touched = {}
        for c in block:
            touched[c.account] = c.nonce + 1
            self.next[int(c.account.split()[1])] = c.nonce + 1
        self.pool.committed([c.id for c in block], touched, self.time)
        assert not any(c.id in self.pool for c in block)

    @rule(sender=st.integers(0, 3), count=st.integers(1, 4))
    def commit_unknown(self, sender: int, count: int) -> None:
        self.next[sender] += count
        self.pool.committed([b"elsewhere"], {account(sender): self.next[sender]}, self.time)

    @invariant()
    def holds(self) -> None:
        pool_ = self.pool
        waiting = list(pool_._by_id.values())
        assert len(waiting) <= 12
        assert pool_._bytes == sum(len(c.raw) for c in waiting) <= 1500
        assert all(c.expires_at_ms >= self.time for c in waiting)
        assert set(pool_._arrived) == set(pool_._by_id)
        offers = pool_.candidates(BIG, BIG)
        expected = dict(self.next)
        for c in offers:
            sender = int(c.account.split()[1])
            assert c.nonce == expected[sender]
            expected[sender] += 1
        # Offered and parked are all there is.
        assert {c.id for c in offers} | set(pool_._parked) == set(pool_._by_id)
        assert len(offers) + len(pool_._parked) == len(waiting)


Model.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestModel = Model.TestCase
