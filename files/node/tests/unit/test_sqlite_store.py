# SPDX-License-Identifier: Apache-2.0
"""The database file: complete or absent, ours or refused, damaged and said so."""

import os
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from ledger_samples import (
    ACCOUNTS,
    ALICE,
    GENESIS,
    Clock,
    certify,
    commit,
    open_ledger,
    propose,
    transaction,
)

from holdfast_node.chain.codec import encode
from holdfast_node.chain.transaction import Put, Transfer, transaction_id
from holdfast_node.errors import StorageError
from holdfast_node.ledger.ledger import Ledger
from holdfast_node.storage.sqlite import SqliteStore
from holdfast_node.storage.store import Location, Receipt

PAGE = bytes(range(1, 251)) * 12  # no zeros, so that zeros are damage


@pytest.fixture
def filled(tmp_path: Path) -> Path:
    """A data folder with five blocks, cleanly closed."""
    ledger = open_ledger(tmp_path)
    for nonce in range(5):
        commit(ledger, [transaction(ALICE, nonce, [Put(f"key {nonce}", PAGE)])])
    ledger.store.close()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["chain.db"]
    return tmp_path


def test_everything_can_be_found_again(tmp_path: Path) -> None:
    ledger = open_ledger(tmp_path)
    failing = transaction(ALICE, 1, [Transfer(ACCOUNTS[1], 2**62)])
    blocks = [commit(ledger, [transaction(ALICE, 0), failing]), commit(ledger)]
    ledger.store.close()
    store = SqliteStore(tmp_path / "chain.db")
    assert store.genesis_hash() == GENESIS.hash
    assert store.height() == 2
    first = store.block(1)
    assert first is not None
    assert first.block == blocks[0]
    assert store.encoded_blocks(1, 10, 10**9) == tuple(encode(store.block(h)) for h in (1, 2))
    summary = store.summary(1)
    assert summary is not None
    assert (summary.header, summary.hash, summary.transactions) == (
        blocks[0].header,
        blocks[0].hash,
        2,
    )
    assert store.block_height(blocks[1].hash) == 2
    assert store.receipts(1) == (Receipt(None), Receipt("insufficient_funds"))
    assert store.receipts(2) == ()
    assert store.transaction(transaction_id(failing)) == Location(1, 1, "insufficient_funds")
    assert store.statistics().database_bytes > 0
    store.close()


def test_what_is_not_there_is_none(filled: Path) -> None:
    store = SqliteStore(filled / "chain.db")
    for height in (-1, 0, 6, 2**63, 2**80):
        assert store.block(height) is None
        assert store.summary(height) is None
        assert store.receipts(height) is None
    assert store.block_height(bytes(32)) is None
    assert store.transaction(bytes(32)) is None
    assert store.state_get(0, b"nothing") is None
    assert store.encoded_blocks(6, 10, 10**9) == ()
    store.close()


def test_pages_of_blocks_are_bounded(filled: Path) -> None:
    """By count and by bytes, but never empty while there are blocks."""
    store = SqliteStore(filled / "chain.db")
    size = len(encode(store.block(1)))
    assert len(store.encoded_blocks(1, 3, 10**9)) == 3
    assert len(store.encoded_blocks(0, 100, 10**9)) == 5
    assert len(store.encoded_blocks(1, 100, size * 2 + 10)) == 2
    assert len(store.encoded_blocks(4, 100, 1)) == 1
    assert store.encoded_blocks(1, 0, 10**9) == ()
    store.close()


def test_a_block_must_follow_the_last_one(filled: Path) -> None:
    ledger = open_ledger(filled)
    again = ledger.store.block(5)
    assert again is not None
    with pytest.raises(StorageError, match="block 5 cannot follow stored block 5"):
        ledger.store.commit(again, [], [], [])
    assert ledger.store.height() == 5
    ledger.store.close()


def test_a_failed_commit_leaves_nothing(filled: Path) -> None:
    """The transaction that fails half-way is rolled back, and the next one succeeds."""
    ledger = open_ledger(filled)
    block = propose(ledger, [transaction(ALICE, 5)])
    known = transaction_id(transaction(ALICE, 0, [Put("key 0", PAGE)]))
    with pytest.raises(StorageError, match="UNIQUE"):
        ledger.store.commit(certify(block), [known], [Receipt(None)], [])
    assert ledger.store.height() == 5
    assert ledger.store.block_height(block.hash) is None
    ledger.commit(certify(block))
    assert ledger.store.block_height(block.hash) == 6
    ledger.store.close()


def test_a_closed_store_says_so(filled: Path) -> None:
    store = SqliteStore(filled / "chain.db")
    store.close()
    store.close()
    for use in (lambda: store.block(1), store.checkpoint, lambda: list(store.leaves())):
        with pytest.raises(StorageError, match="closed"):
            use()


def test_an_existing_chain_is_not_overwritten(filled: Path) -> None:
    store = SqliteStore(filled / "chain.db")
    with pytest.raises(StorageError, match="exists already"):
        store.initialise(bytes(32), "other", [])
    assert store.genesis_hash() == GENESIS.hash
    store.close()


def test_checkpoint_empties_the_log_off_the_commit_path(tmp_path: Path) -> None:
    ledger = open_ledger(tmp_path)
    for nonce in range(20):
        commit(ledger, [transaction(ALICE, nonce, [Put("k", bytes(30_000))])])
    before = ledger.store.statistics()
    assert before.write_ahead_log_bytes > 20 * 30_000
    ledger.store.checkpoint()
    assert ledger.store.statistics().database_bytes > before.database_bytes
    commit(ledger)
    # The log starts again from its beginning, so it does not grow.
    assert ledger.store.statistics().write_ahead_log_bytes == before.write_ahead_log_bytes
    assert ledger.height == 21
    ledger.store.close()


def test_an_unfinished_creation_is_started_again(tmp_path: Path) -> None:
    """A kill during the first start leaves another name behind, which counts for nothing."""
    (tmp_path / "chain.db.new").write_bytes(b"half")
    (tmp_path / "chain.db.new-journal").write_bytes(b"half")
    ledger = open_ledger(tmp_path)
    assert ledger.height == 0
    ledger.store.close()
    assert [p.name for p in tmp_path.iterdir()] == ["chain.db"]


def open_refused(folder: Path, pattern: str) -> None:
    """Opening fails with a way out, and leaves no open file behind."""
    descriptors = set(Path("/proc/self/fd").iterdir())
    with pytest.raises(StorageError, match=pattern):
        everything(folder)
    assert set(Path("/proc/self/fd").iterdir()) == descriptors


def everything(folder: Path) -> list[object]:
    """All that can be read from a data folder."""
    store = SqliteStore(folder / "chain.db")
    try:
        ledger = Ledger(store, GENESIS, Clock())
        found: list[object] = [ledger.height, *map(ledger.account, ACCOUNTS)]
        for height in range(1, ledger.height + 1):
            block = ledger.block(height)
            assert block is not None
            assert store.block_height(block.block.hash) == height
            found += [block, store.summary(height), ledger.receipts(height)]
            found += [ledger.transaction(transaction_id(r)) for r in block.block.transactions]
            found.append(ledger.value(ACCOUNTS[0], f"key {height - 1}"))
        return found
    finally:
        store.close()


def refused_or_complete(folder: Path, complete: list[object]) -> bool:
    """Tell whether damage is reported; nothing but the whole truth is the alternative."""
    try:
        assert everything(folder) == complete
    except StorageError:
        return True
    return False


@pytest.mark.parametrize("fraction", [0, 0.0001, 0.02, 0.3, 0.5, 0.9])
def test_truncated_file(filled: Path, fraction: float) -> None:
    path = filled / "chain.db"
    os.truncate(path, int(path.stat().st_size * fraction))
    open_refused(filled, r"chain\.db.*move it away")


def test_truncated_anywhere(filled: Path) -> None:
    """At page boundaries, where every remaining page is intact, and between them.

    Nothing is lost where the missing part of the last page was not in use.
    """
    path = filled / "chain.db"
    content, complete = path.read_bytes(), everything(filled)
    for size in range(0, len(content), 1024):
        path.write_bytes(content[:size])
        assert refused_or_complete(filled, complete) or size > len(content) - 4096


def test_zeroed_file(filled: Path) -> None:
    path = filled / "chain.db"
    path.write_bytes(bytes(path.stat().st_size))
    open_refused(filled, "empty or zeroed")


def test_zeroed_pages(filled: Path) -> None:
    """Any one of them: refused when the file is opened, or when what was in it is read."""
    path = filled / "chain.db"
    content, complete = path.read_bytes(), everything(filled)
    for start in range(0, len(content), 4096):
        path.write_bytes(content[:start] + bytes(4096) + content[start + 4096 :])
        assert refused_or_complete(filled, complete), start


ALIENS: dict[str, Callable[[Path], object]] = {
    "text": lambda path: path.write_text("not a database " * 100),
    "short": lambda path: path.write_bytes(b"SQLite format 3\x00"),
    "folder": lambda path: path.mkdir(),
    "foreign database": lambda path: sqlite3.connect(path).executescript("CREATE TABLE t (x)"),
    "newer": lambda path: sqlite3.connect(path).executescript(
        "PRAGMA application_id = 0x48464C44; PRAGMA user_version = 2; CREATE TABLE t (x)"
    ),
    "no tables": lambda path: sqlite3.connect(path).executescript(
        "PRAGMA application_id = 0x48464C44; PRAGMA user_version = 1; CREATE TABLE t (x)"
    ),
}


@pytest.mark.parametrize(
    ("alien", "pattern"),
    [
        ("text", "no database but another kind of file"),
        ("short", "no database"),
        ("folder", "no regular file"),
        ("foreign database", "of another application"),
        ("newer", "schema version 2, this release knows 1"),
        ("no tables", "no such table"),
    ],
)
def test_alien_files(tmp_path: Path, alien: str, pattern: str) -> None:
    path = tmp_path / "chain.db"
    ALIENS[alien](path)
    before = None if path.is_dir() else path.read_bytes()
    open_refused(tmp_path, pattern)
    if alien != "no tables":
        assert before is None or path.read_bytes() == before


def test_a_log_without_its_database_is_refused(filled: Path) -> None:
    """SQLite would write the old log into the new database."""
    (filled / "chain.db").rename(filled / "elsewhere")
    (filled / "chain.db-wal").write_bytes(b"x" * 100)
    open_refused(filled, "missing but its write-ahead log")


def change_database(folder: Path, statement: str) -> None:
    connection = sqlite3.connect(folder / "chain.db", isolation_level=None)
    assert connection.execute(statement).rowcount > 0
    connection.close()


@pytest.mark.parametrize(
    ("statement", "pattern"),
    [
        ("DELETE FROM blocks WHERE height = 5", "the stored state has root"),
        ("DELETE FROM state WHERE bucket = (SELECT min(bucket) FROM state)", "has root"),
        ("UPDATE state SET leaf = randomblob(32)", "has root"),
        ("UPDATE state SET bucket = bucket + 1", "has root"),
        ("UPDATE blocks SET certified = substr(certified, 2)", "block 5 is damaged"),
        ("UPDATE OR REPLACE blocks SET height = 5 WHERE height = 4", "stored block 5 is block 4"),
        ("DELETE FROM chain", "which chain"),
    ],
)
def test_contradictions_are_found_at_start(filled: Path, statement: str, pattern: str) -> None:
    change_database(filled, statement)
    open_refused(filled, pattern)


def test_a_changed_state_value_is_found_when_read(filled: Path) -> None:
    """No balance is taken from a row that is not the one that was stored."""
    change_database(
        filled, "UPDATE state SET value = randomblob(2) WHERE substr(key, 1, 1) = X'61'"
    )
    ledger = open_ledger(filled)
    with pytest.raises(StorageError, match="does not match its hash"):
        ledger.account(ACCOUNTS[0])
    ledger.store.close()
