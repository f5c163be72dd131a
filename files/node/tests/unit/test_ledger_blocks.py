# SPDX-License-Identifier: Apache-2.0
"""Which blocks are proposed, accepted and stored."""

import threading
from pathlib import Path

import msgspec
import pytest
from ledger_samples import (
    ACCOUNTS,
    ALICE,
    BOB,
    CAROL,
    FUNDS,
    START_MS,
    USERS,
    Clock,
    certify,
    code_of,
    commit,
    open_ledger,
    propose,
    small,
    transaction,
)

from holdfast_node.chain.block import Block
from holdfast_node.chain.crypto import ZERO_HASH
from holdfast_node.chain.merkle import merkle_root
from holdfast_node.chain.transaction import MAX_AMOUNT, Put
from holdfast_node.errors import RefusedError, StorageError
from holdfast_node.ledger.execution import fault
from holdfast_node.ledger.ledger import Ledger
from holdfast_node.ledger.state import AccountState, StateView


def test_a_proposal_leaves_out_what_does_not_apply(ledger: Ledger, clock: Clock) -> None:
    soon = transaction(CAROL, 0, expires_at_ms=START_MS + 1500)
    raws = [
        transaction(ALICE, 1),  # before its turn
        transaction(ALICE, 0),
        transaction(ALICE, 0, [Put("another with nonce", b"0")]),
        transaction(BOB, 1),
        soon,
        transaction(ALICE, 1, [Put("a", b"")]),
    ]
    candidates = [ledger.check_transaction(raw) for raw in raws]
    clock.now = START_MS + 1501
    block = ledger.prepare_proposal(candidates, view=3)
    assert list(block.transactions) == [raws[1], raws[5]]
    assert (block.header.view, block.header.time_ms) == (3, clock.now)
    ledger.process_proposal(block)


def test_a_proposal_keeps_the_limits(tmp_path: Path) -> None:
    ledger = open_ledger(tmp_path, small(max_block_transactions=3))
    raws = [transaction(ALICE, nonce) for nonce in range(5)]
    assert list(propose(ledger, raws).transactions) == raws[:3]
    ledger.store.close()


def test_a_proposal_keeps_the_bytes(tmp_path: Path) -> None:
    """What does not fit is passed over, what follows may fit."""
    ledger = open_ledger(tmp_path, small(max_block_bytes=65_536))
    big = [transaction(key, 0, [Put("k", bytes(32_000))]) for key in USERS]
    raws = [*big, transaction(ALICE, 1)]
    block = propose(ledger, raws)
    assert list(block.transactions) == [big[0], big[1], raws[3]]
    ledger.process_proposal(block)
    ledger.store.close()


def test_time_goes_on_when_the_clock_does_not(ledger: Ledger, clock: Clock) -> None:
    first = commit(ledger)
    assert commit(ledger).header.time_ms == first.header.time_ms + 1
    clock.now -= 500
    assert commit(ledger).header.time_ms == first.header.time_ms + 2


def test_a_proposal_changes_nothing(ledger: Ledger) -> None:
    """Several views may propose for one height; only the committed one has an effect."""
    root = ledger.state_root
    candidates = [transaction(ALICE, 0, [Put("k", b"%d" % view)]) for view in range(12)]
    blocks = [propose(ledger, [raw], view=view) for view, raw in enumerate(candidates)]
    assert (ledger.height, ledger.state_root) == (0, root)
    assert ledger.account(ACCOUNTS[0]) == (FUNDS, 0)
    assert len(ledger._executions) <= 8
    for block in blocks:
        ledger.process_proposal(block)
    ledger.commit(certify(blocks[3]))
    assert ledger.value(ACCOUNTS[0], "k") == b"3"
    assert not ledger._executions


def change(block: Block, **header: object) -> Block:
    """The same block with other header fields and, if given, other transactions."""
    raws = header.pop("transactions", block.transactions)
    if "transactions_root" not in header:
        header["transactions_root"] = merkle_root(raws)
    return Block(msgspec.structs.replace(block.header, **header), raws)


ALICE_0, ALICE_1 = transaction(ALICE, 0), transaction(ALICE, 1)
DAMAGED = ALICE_0[:-1] + bytes([ALICE_0[-1] ^ 1])


@pytest.mark.parametrize(
    ("header", "code"),
    [
        ({"height": 1}, "wrong_height"),
        ({"height": 3}, "wrong_height"),
        ({"chain_id": "other"}, "bad_block"),
        ({"previous": ZERO_HASH}, "bad_block"),
        ({"validators_hash": ZERO_HASH}, "bad_block"),
        ({"next_validators_hash": ZERO_HASH}, "bad_block"),
        ({"state_root": ZERO_HASH}, "bad_block"),
        ({"transactions_root": ZERO_HASH}, "bad_block"),
        ({"time_ms": START_MS + 1000}, "bad_block"),  # the parent's
        ({"time_ms": START_MS + 2001}, "early_block"),
        ({"time_ms": MAX_AMOUNT}, "early_block"),
        ({"transactions": ()}, "bad_block"),  # the state root is that of the transactions
        ({"transactions": (ALICE_1, ALICE_0)}, "bad_block"),
        ({"transactions": (ALICE_0, ALICE_0)}, "bad_block"),
        ({"transactions": (ALICE_1,)}, "bad_block"),
        ({"transactions": (DAMAGED,)}, "bad_block"),
        ({"transactions": (b"", ALICE_0)}, "bad_block"),
        ({"transactions": (transaction(ALICE, 0, chain_id="other"),)}, "bad_block"),
        ({"transactions": (transaction(ALICE, 0, expires_at_ms=START_MS + 1000),)}, "bad_block"),
        ({"transactions": tuple(transaction(ALICE, n) for n in range(6))}, "bad_block"),
    ],
)
def test_bad_blocks(tmp_path: Path, header: dict[str, object], code: str) -> None:
    """Refused as a proposal and as a certified block, and nothing changes."""
    ledger = open_ledger(tmp_path, small(max_block_transactions=5))
    commit(ledger)
    good = propose(ledger, [ALICE_0])
    bad = change(good, **header)
    before = (ledger.height, ledger.head_hash, ledger.state_root)
    assert code_of(lambda: ledger.process_proposal(bad)) == code
    if code != "early_block":
        assert code_of(lambda: ledger.commit(certify(bad))) == code
    assert (ledger.height, ledger.head_hash, ledger.state_root) == before
    ledger.process_proposal(good)
    ledger.commit(certify(good))
    ledger.store.close()


def test_a_block_with_too_many_bytes(tmp_path: Path) -> None:
    ledger = open_ledger(tmp_path, small(max_block_bytes=65_536))
    raws = tuple(transaction(key, 0, [Put("k", bytes(32_000))]) for key in USERS)
    bad = change(propose(ledger), transactions=raws)
    with pytest.raises(RefusedError, match="bytes of transactions: at most 65536"):
        ledger.process_proposal(bad)
    ledger.store.close()


def test_a_remembered_verdict_is_about_the_same_transactions(ledger: Ledger) -> None:
    """The header alone does not carry its transactions: others under the same hash are refused."""
    good = propose(ledger, [ALICE_0])
    ledger.process_proposal(good)
    swapped = Block(good.header, (DAMAGED,))
    assert swapped.hash == good.hash
    assert code_of(lambda: ledger.process_proposal(swapped)) == "bad_block"
    assert code_of(lambda: ledger.commit(certify(swapped))) == "bad_block"
    ledger.commit(certify(good))


def test_a_certified_block_of_the_future_is_committed(ledger: Ledger, other: Ledger) -> None:
    """A quorum accepted its time; a node whose clock is behind must follow all the same."""
    ledger._now_ms = lambda: START_MS + 60_000
    block = propose(ledger, [ALICE_0])
    assert code_of(lambda: other.process_proposal(block)) == "early_block"
    other.commit(certify(block))
    assert other.head_hash == block.hash


def test_a_certificate_of_another_block_is_refused(ledger: Ledger) -> None:
    block, another = propose(ledger, [ALICE_0]), propose(ledger)
    mixed = msgspec.structs.replace(certify(block), certificate=certify(another).certificate)
    assert code_of(lambda: ledger.commit(mixed)) == "bad_block"
    assert ledger.height == 0


def test_a_committed_transaction_cannot_come_again(ledger: Ledger) -> None:
    """Replay: neither proposed nor accepted."""
    commit(ledger, [ALICE_0])
    assert propose(ledger, [ALICE_0]).transactions == ()
    replayed = change(propose(ledger), transactions=(ALICE_0,))
    with pytest.raises(RefusedError, match="nonce 0: expected 1"):
        ledger.process_proposal(replayed)


def test_a_failed_write_leaves_the_ledger_where_it_was(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk: the commit fails, and succeeds when there is room."""
    block = propose(ledger, [ALICE_0])
    before = (ledger.height, ledger.head_hash, ledger.state_root)

    def fails(*args: object) -> None:
        raise StorageError("disk is full")

    with monkeypatch.context() as patched:
        patched.setattr(ledger.store, "commit", fails)
        with pytest.raises(StorageError, match="disk is full"):
            ledger.commit(certify(block))
    assert (ledger.height, ledger.head_hash, ledger.state_root) == before
    ledger.commit(certify(block))
    assert ledger.account(ACCOUNTS[0]) == (FUNDS - 1, 1)


def test_reading_while_another_thread_commits(ledger: Ledger) -> None:
    """Readers see the state before or after a block: the supply is the same at every moment."""
    stop = threading.Event()
    seen: list[int] = []

    def read() -> None:
        while not stop.is_set():
            height = ledger.height
            balance, nonce = ledger.account(ACCOUNTS[0])
            assert balance == FUNDS - nonce
            assert nonce >= height
            seen.append(nonce)

    errors: list[BaseException] = []

    def guarded() -> None:
        try:
            read()
        except BaseException as error:  # noqa: BLE001  # handed to the test's own thread
            errors.append(error)

    reader = threading.Thread(target=guarded)
    reader.start()
    for nonce in range(60):
        commit(ledger, [transaction(ALICE, nonce)])
        if nonce % 20 == 0:
            ledger.store.checkpoint()
    stop.set()
    reader.join()
    assert not errors
    assert seen == sorted(seen)
    assert seen


def test_an_account_with_no_nonce_left(ledger: Ledger) -> None:
    """The last nonce cannot be used, as there would be none after it."""
    state = StateView(ledger.store)
    state.set_account(ACCOUNTS[0], AccountState(FUNDS, MAX_AMOUNT))
    last = ledger.check_transaction(transaction(ALICE, MAX_AMOUNT))
    assert "used up" in str(fault(last, state, START_MS))
