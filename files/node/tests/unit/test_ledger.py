# SPDX-License-Identifier: Apache-2.0
"""What may be in a block, what it does, and that every node comes to the same verdict."""

import threading
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ledger_samples import (
    ACCOUNTS,
    ALICE,
    BOB,
    CAROL,
    FUNDS,
    GENESIS,
    START_MS,
    USERS,
    Clock,
    certify,
    code_of,
    commit,
    open_ledger,
    propose,
    transaction,
)

from holdfast_node.chain.crypto import ZERO_HASH, format_address
from holdfast_node.chain.genesis import Genesis
from holdfast_node.chain.transaction import MAX_AMOUNT, Put, Transfer, transaction_id
from holdfast_node.errors import RefusedError, StorageError
from holdfast_node.ledger import checking
from holdfast_node.ledger.checking import TransactionChecker
from holdfast_node.ledger.ledger import Ledger
from holdfast_node.storage.store import Location, Receipt

# Opening


def test_a_new_chain_starts_with_its_genesis(ledger: Ledger) -> None:
    assert (ledger.height, ledger.head_hash) == (0, GENESIS.hash)
    assert (ledger.head_time_ms, ledger.next_view) == (START_MS, 0)
    assert [ledger.account(account) for account in ACCOUNTS] == [(FUNDS, 0)] * 3
    assert ledger.account(bytes(20)) == (0, 0)


def test_reopening_changes_nothing(tmp_path: Path) -> None:
    ledger = open_ledger(tmp_path)
    commit(ledger, [transaction(ALICE, 0), transaction(BOB, 0, [Put("k", b"v")])])
    last = propose(ledger, [transaction(ALICE, 1)], view=7)
    ledger.commit(certify(last, view=9))
    seen = (ledger.height, ledger.head_hash, ledger.head_time_ms, ledger.state_root)
    ledger.store.close()
    again = open_ledger(tmp_path)
    assert (again.height, again.head_hash, again.head_time_ms, again.state_root) == seen
    assert again.next_view == 7  # the view of the header, which all nodes agree on
    assert again.account(ACCOUNTS[0]) == (FUNDS - 2, 2)
    assert again.value(ACCOUNTS[1], "k") == b"v"
    commit(again, [transaction(ALICE, 2)])
    again.store.close()


@pytest.mark.parametrize(
    "genesis",
    [
        msgspec.structs.replace(GENESIS, time_ms=1),
        msgspec.structs.replace(GENESIS, chain_id="other"),
        msgspec.structs.replace(GENESIS, accounts={}),
    ],
)
def test_another_genesis_is_refused(tmp_path: Path, genesis: Genesis) -> None:
    """Both hashes are named, and the data stays as it was."""
    ledger = open_ledger(tmp_path)
    commit(ledger, [transaction(ALICE, 0)])
    store = ledger.store
    with pytest.raises(StorageError) as caught:
        Ledger(store, genesis, Clock())
    assert GENESIS.hash.hex() in str(caught.value)
    assert genesis.hash.hex() in str(caught.value)
    store.close()
    again = open_ledger(tmp_path)
    assert again.height == 1
    again.store.close()


# Admission


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        (b"", "malformed"),
        (b"\x93\x01\x02\x03", "malformed"),
        (bytes(65_537), "oversized"),
        (transaction(ALICE, 0, chain_id="other"), "foreign_chain"),
        (transaction(ALICE, 0, expires_at_ms=START_MS + 999), "expired"),
        (transaction(ALICE, 0, expires_at_ms=START_MS + 86_401_001), "too_far"),
        (transaction(ALICE, 0)[:-1] + b"\x00", "bad_signature"),
    ],
)
def test_refused_transactions(ledger: Ledger, raw: bytes, code: str) -> None:
    assert code_of(lambda: ledger.check_transaction(raw)) == code


@pytest.mark.parametrize("expires", [START_MS + 1000, START_MS + 1000 + 86_400_000])
def test_limits_of_the_expiry_are_accepted(ledger: Ledger, expires: int) -> None:
    raw = transaction(ALICE, 3, expires_at_ms=expires)
    checked = ledger.check_transaction(raw)
    assert (checked.id, checked.raw) == (transaction_id(raw), raw)
    assert (checked.account, checked.nonce, checked.expires_at_ms) == (ACCOUNTS[0], 3, expires)


def test_the_clock_is_asked_again_for_a_known_transaction(ledger: Ledger, clock: Clock) -> None:
    raw = transaction(ALICE, 0, expires_at_ms=START_MS + 2000)
    ledger.check_transaction(raw)
    clock.now = START_MS + 2001
    assert code_of(lambda: ledger.check_transaction(raw)) == "expired"


def test_a_signature_is_verified_once(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """Admission, verification of the block, proposal and commit: one verification in all."""
    verified = []
    original = checking.Transaction.verify_signature

    def count(self: checking.Transaction) -> bool:
        verified.append(self)
        return original(self)

    monkeypatch.setattr(checking.Transaction, "verify_signature", count)
    raws = [transaction(ALICE, 0), transaction(BOB, 0)]
    for raw in raws:
        ledger.check_transaction(raw)
        ledger.check_transaction(raw)
    ledger.verify_transactions(raws)
    block = propose(ledger, raws)
    ledger.process_proposal(block)
    ledger.commit(certify(block))
    assert len(verified) == 2


def test_the_cache_is_bounded_by_bytes() -> None:
    """The least recently used leave; failures never enter."""
    checker = TransactionChecker("unit", cache_bytes=10_000)
    raws = [transaction(ALICE, nonce) for nonce in range(20)]
    first = checker.check(raws[0])
    for raw in raws[1:]:
        checker.check(raw)
        assert checker.check(raws[0]) is first
        assert checker._cached_bytes <= 10_000
    assert len(checker._cache) < 10
    for nonce in range(20):
        assert code_of(lambda n=nonce: checker.check(transaction(BOB, n)[:-1] + b"\x00"))
    assert checker.check(raws[0]) is first


def test_settled_transactions_leave_the_cache(ledger: Ledger) -> None:
    """A long chain costs no memory; what has just been committed is not verified again."""
    raws = [transaction(ALICE, nonce) for nonce in range(40)]
    for raw in raws:
        commit(ledger, [raw])
        assert transaction_id(raw) in ledger._checker._cache
    assert len(ledger._checker._cache) < 20
    assert ledger._checker._cached_bytes == sum(
        map(checking._cost, ledger._checker._cache.values())
    )
    ledger._checker.forget([transaction_id(raws[0]), ZERO_HASH])  # gone, never there


def test_checking_from_many_threads(ledger: Ledger) -> None:
    """Batches are verified in worker threads while blocks are made."""
    raws = [transaction(USERS[i % 3], i) for i in range(60)]
    faults = []

    def work(offset: int) -> None:
        try:
            ledger.verify_transactions(raws[offset:] + raws[:offset])
        except RefusedError as error:
            faults.append(error)

    threads = [threading.Thread(target=work, args=(i * 15,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not faults
    assert len(ledger._checker._cache) == 60


# Execution


def receipts_of(ledger: Ledger, raws: list[bytes]) -> list[str | None]:
    block = propose(ledger, raws)
    assert len(block.transactions) == len(raws)
    return [receipt.failed_reason for receipt in ledger.commit(certify(block)).receipts]


def test_transfers_and_values(ledger: Ledger) -> None:
    raws = [
        transaction(ALICE, 0, [Transfer(ACCOUNTS[1], 100), Put("a", b"1"), Put("a", b"2")]),
        transaction(BOB, 0, [Transfer(ACCOUNTS[2], FUNDS + 100)]),  # what just arrived, too
        transaction(CAROL, 0, [Transfer(ACCOUNTS[2], 5), Transfer(bytes(20), 1)]),  # to herself
        transaction(BOB, 1, [Put("a", b"bob's")]),
    ]
    assert receipts_of(ledger, raws) == [None] * 4
    assert [ledger.account(a)[0] for a in ACCOUNTS] == [FUNDS - 100, 0, 2 * FUNDS + 99]
    assert [ledger.next_nonce(a) for a in ACCOUNTS] == [1, 2, 1]
    assert ledger.account(bytes(20)) == (1, 0)
    assert ledger.value(ACCOUNTS[0], "a") == b"2"
    assert ledger.value(ACCOUNTS[1], "a") == b"bob's"
    assert ledger.value(ACCOUNTS[2], "a") is None
    assert ledger.value(ACCOUNTS[0], "\ud800") is None


def test_a_failing_action_undoes_the_whole_transaction(ledger: Ledger) -> None:
    """No effect but the nonce, and the block stays valid."""
    raws = [
        transaction(
            ALICE, 0, [Put("a", b"1"), Transfer(ACCOUNTS[1], 7), Transfer(bytes(20), FUNDS)]
        ),
        transaction(ALICE, 1, [Transfer(ACCOUNTS[0], FUNDS + 1)]),
        transaction(ALICE, 2, [Transfer(ACCOUNTS[1], FUNDS)]),
    ]
    assert receipts_of(ledger, raws) == ["insufficient_funds", "insufficient_funds", None]
    assert ledger.value(ACCOUNTS[0], "a") is None
    assert ledger.account(ACCOUNTS[0]) == (0, 3)
    assert ledger.account(ACCOUNTS[1]) == (2 * FUNDS, 0)
    assert ledger.transaction(transaction_id(raws[1])) == Location(1, 1, "insufficient_funds")
    assert ledger.transaction(transaction_id(raws[2])) == Location(1, 2, None)
    assert ledger.receipts(1) == (
        Receipt("insufficient_funds"),
        Receipt("insufficient_funds"),
        Receipt(None),
    )


def test_a_balance_never_overflows(tmp_path: Path) -> None:
    """A genesis file cannot have such balances; money must not rest on that alone."""
    rich = {format_address(ACCOUNTS[0]): 10, format_address(ACCOUNTS[1]): MAX_AMOUNT}
    ledger = open_ledger(tmp_path, msgspec.structs.replace(GENESIS, accounts=rich))
    assert receipts_of(ledger, [transaction(ALICE, 0, [Transfer(ACCOUNTS[1], 1)])]) == ["overflow"]
    assert ledger.account(ACCOUNTS[0]) == (10, 1)
    ledger.store.close()


action = st.one_of(
    st.builds(
        Transfer,
        st.sampled_from([*ACCOUNTS, bytes(20)]),
        st.one_of(st.integers(1, 10), st.integers(FUNDS // 2, 2 * FUNDS), st.just(MAX_AMOUNT)),
    ),
    st.builds(Put, st.sampled_from("ab"), st.binary(max_size=3)),
)
blocks = st.lists(
    st.lists(st.tuples(st.integers(0, 2), st.lists(action, min_size=1, max_size=4)), max_size=5),
    max_size=4,
)


@settings(max_examples=40, deadline=None)
@given(blocks)
def test_supply_is_conserved_and_nodes_agree(
    tmp_path_factory: pytest.TempPathFactory, content: list[list[tuple[int, list[Transfer | Put]]]]
) -> None:
    """Any transactions in any blocks: no money made or lost, and a second node, that only receives
    the blocks, has the same state, before and after a restart."""
    folders = [tmp_path_factory.mktemp("a"), tmp_path_factory.mktemp("b")]
    leader, follower = (open_ledger(folder) for folder in folders)
    nonces = [0, 0, 0]
    try:
        for transactions in content:
            raws = []
            for user, actions in transactions:
                raws.append(transaction(USERS[user], nonces[user], actions))
                nonces[user] += 1
            block = propose(leader, raws)
            assert list(block.transactions) == raws
            follower.process_proposal(block)
            committed = leader.commit(certify(block))
            assert follower.commit(certify(block)).receipts == committed.receipts
            assert committed.next_nonces == {
                ACCOUNTS[user]: nonces[user] for user, _ in transactions
            }
            assert follower.state_root == leader.state_root == block.header.state_root
            supply = sum(follower.account(a)[0] for a in [*ACCOUNTS, bytes(20)])
            assert supply == 3 * FUNDS
        assert [follower.next_nonce(account) for account in ACCOUNTS] == nonces
        follower.store.close()
        follower = open_ledger(folders[1])
        assert follower.head_hash == leader.head_hash
    finally:
        leader.store.close()
        follower.store.close()
