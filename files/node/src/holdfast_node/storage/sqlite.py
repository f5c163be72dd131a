# SPDX-License-Identifier: Apache-2.0
"""The Store on SQLite: write-ahead log, synchronous=FULL, one writer, one reader beside it."""

import sqlite3
from binascii import crc32
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Lock, RLock
from typing import Any, Final

from holdfast_node.chain.block import CertifiedBlock, CertifiedHeader, Header
from holdfast_node.chain.codec import decode, encode
from holdfast_node.errors import RefusedError, StorageError
from holdfast_node.storage.files import sync_directory
from holdfast_node.storage.pinned import PinKeeper, PinnedState
from holdfast_node.storage.schema import (
    APPLICATION_ID,
    SCHEMA,
    SCHEMA_VERSION,
    WAY_OUT,
    check_file,
    write_state,
)
from holdfast_node.storage.store import (
    BlockSummary,
    Location,
    Receipt,
    StateEntry,
    Store,
    StoreStatistics,
)

# Checking every page reads the whole file, so beyond this size only what the ledger starts from is
# checked when the store is opened; a damaged page elsewhere is reported when it is read.
FULL_CHECK_BYTES: Final = 64 * 1024 * 1024

# The log is moved into the database by `checkpoint`; if nobody calls it, SQLite does so itself
# within a commit when the log has this many pages of 4 KiB.
_LAST_RESORT_CHECKPOINT_PAGES: Final = 16_384


class SqliteStore(Store):
    """A `Store` in the file `path`; the folder must exist, and be this process's own.

    Raises `StorageError` if the file is damaged, foreign or of a newer version. A missing file is
    made by `initialise`.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._write_lock = Lock()
        self._read_lock = RLock()
        self._checkpoint_lock = Lock()
        self._connections: list[sqlite3.Connection] = []
        self._height = 0
        self._base: CertifiedHeader | None = None
        self._pins = PinKeeper(path)
        try:
            if path.exists():
                self._open()
            else:
                self._refuse_orphaned_log()
        except BaseException:
            self.close()
            raise

    @property
    def _log_path(self) -> Path:
        return self._path.with_name(self._path.name + "-wal")

    def _refuse_orphaned_log(self) -> None:
        # SQLite would write what it holds into the next database of this name.
        if self._log_path.exists():
            raise StorageError(
                f"{self._path} is missing but its write-ahead log {self._log_path} is there: put "
                "the database back, or move the log away too and let the node fetch the chain"
            )

    def _open(self) -> None:
        with self._reporting():
            check_file(self._path)
            self._writer = self._connect()
            if self._writer.execute("PRAGMA journal_mode=WAL").fetchone()[0] != "wal":
                raise StorageError(f"{self._path}: the file system does not support SQLite's WAL")
            self._writer.execute("PRAGMA synchronous=FULL")
            self._writer.execute(f"PRAGMA wal_autocheckpoint={_LAST_RESORT_CHECKPOINT_PAGES}")
            self._check_integrity()
            self._reader = self._connect()
            self._reader.execute("PRAGMA query_only=ON")
            self._checkpointer = self._connect()
            self._checkpointer.execute("PRAGMA synchronous=FULL")
            self._base = self._read_base()
            below = 0 if self._base is None else self._base.header.height
            self._height = self._one("SELECT coalesce(max(height), ?) FROM blocks", below)[0]

    def _read_base(self) -> CertifiedHeader | None:
        row = self._one("SELECT head FROM base ORDER BY height DESC LIMIT 1")
        return None if row is None else decode(row[0], CertifiedHeader)

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self._path, isolation_level=None, check_same_thread=False, cached_statements=64
        )
        self._connections.append(connection)
        connection.execute("PRAGMA busy_timeout=5000")
        connection.execute("PRAGMA cache_size=-16384")
        return connection

    def _check_integrity(self) -> None:
        if self._path.stat().st_size <= FULL_CHECK_BYTES:
            result = self._writer.execute("PRAGMA quick_check(1)").fetchone()[0]
            if result != "ok":
                raise StorageError(f"{self._path} is damaged ({result}): {WAY_OUT}")

    @contextmanager
    def _reporting(self) -> Iterator[None]:
        """Turn errors of SQLite, the disk and stored values into `StorageError`."""
        try:
            yield
        except sqlite3.Error as error:
            raise self._translated(error) from error
        except RefusedError as error:
            raise StorageError(f"{self._path}: stored value: {error}: {WAY_OUT}") from error
        except OSError as error:
            raise StorageError(f"{self._path}: {error}: check the folder and its owner") from error

    def _translated(self, error: sqlite3.Error) -> StorageError:
        name = getattr(error, "sqlite_errorname", type(error).__name__)  # Python 3.11
        if "FULL" in name or "is full" in str(error):
            way_out = "make room on the disk"
        else:
            way_out = f"check the disk and the file's owner; if it is damaged, {WAY_OUT}"
        return StorageError(f"{self._path}: {error} ({name}): {way_out}")

    def _refuse_unusable(self) -> None:
        if not self._connections:
            raise StorageError(f"{self._path}: the store is closed, or not initialised")

    def _all(self, query: str, *values: Any) -> list[Any]:
        # Written out, because `_reporting` costs as much as a short query.
        try:
            with self._read_lock:
                self._refuse_unusable()
                return self._reader.execute(query, values).fetchall()
        except sqlite3.Error as error:
            raise self._translated(error) from error

    def _one(self, query: str, *values: Any) -> Any:
        rows = self._all(query, *values)
        return rows[0] if rows else None

    def _of_block(self, height: int, columns: str) -> Any:
        if not 0 < height <= self._height:  # also: SQLite integers have 64 bits
            return None
        return self._one(f"SELECT {columns} FROM blocks WHERE height = ?", height)  # noqa: S608  # columns are ours

    def genesis_hash(self) -> bytes | None:
        if not self._connections:
            return None
        row = self._one("SELECT genesis_hash FROM chain")
        if row is None:
            raise StorageError(f"{self._path} does not say which chain it holds: {WAY_OUT}")
        return bytes(row[0])

    def initialise(self, genesis_hash: bytes, chain_id: str, state: Sequence[StateEntry]) -> None:
        if self._path.exists():
            raise StorageError(f"{self._path} exists already: it belongs to a chain")
        # Under another name first: a file called `path` is always complete.
        unfinished = self._path.with_name(self._path.name + ".new")
        with self._reporting():
            for leftover in self._path.parent.glob(unfinished.name + "*"):
                leftover.unlink()
            connection = sqlite3.connect(unfinished, isolation_level=None)
            try:
                connection.execute("PRAGMA synchronous=FULL")
                connection.executescript(
                    f"BEGIN; PRAGMA application_id={APPLICATION_ID};"
                    f"PRAGMA user_version={SCHEMA_VERSION}; {SCHEMA}"
                )
                connection.execute("INSERT INTO chain VALUES (?, ?)", (genesis_hash, chain_id))
                write_state(connection, state)
                connection.execute("COMMIT")
            finally:
                connection.close()
            unfinished.rename(self._path)
            sync_directory(self._path.parent)
        self._open()

    def height(self) -> int:
        with self._read_lock:
            if not self._connections:
                return 0
            # Not `_height`: a reader sees a block a moment before `commit` returns.
            base = 0 if self._base is None else self._base.header.height
            height: int = self._one("SELECT coalesce(max(height), ?) FROM blocks", base)[0]
            return height

    def base(self) -> CertifiedHeader | None:
        return self._base

    def first_height(self) -> int:
        return 1 if self._base is None else self._base.header.height + 1

    def head(self) -> CertifiedHeader | None:
        return self.certified_header(self._height)

    def certified_header(self, height: int) -> CertifiedHeader | None:
        certified = self.block(height)
        if certified is not None:
            return CertifiedHeader(certified.block.header, certified.certificate)
        row = self._one("SELECT head FROM base WHERE height = ?", height)
        with self._reporting():
            return None if row is None else decode(row[0], CertifiedHeader)

    def pin_every(self, interval: int) -> None:
        """Keep the state after each block whose height is a multiple of this, until it is taken.

        One at a time: while one is kept or being read, later ones are passed over. 0: none.
        """
        self._pins.interval = interval

    def take_pin(self) -> PinnedState | None:
        """The state that was kept, as of its height, for the caller to read and close."""
        return self._pins.take()

    def block(self, height: int) -> CertifiedBlock | None:
        data = self._encoded_block(height)
        if data is None:
            return None
        with self._reporting():
            certified: CertifiedBlock = decode(data, CertifiedBlock)
        return certified

    def _encoded_block(self, height: int) -> bytes | None:
        row = self._of_block(height, "certified, checksum")
        if row is None:
            return None
        data, checksum = row
        # SQLite does not notice damage inside a value, and peers would take us for a liar.
        if crc32(data) != checksum:
            raise StorageError(f"{self._path}: block {height} is damaged: {WAY_OUT}")
        return bytes(data)

    def encoded_blocks(self, from_height: int, limit: int, max_bytes: int) -> tuple[bytes, ...]:
        blocks: list[bytes] = []
        size = 0
        # One by one, so that no more is read than is returned, but for the last.
        for height in range(max(from_height, 1), min(from_height + limit, self._height + 1)):
            data = self._encoded_block(height)
            if data is None or (blocks and size + len(data) > max_bytes):
                break
            blocks.append(data)
            size += len(data)
        return tuple(blocks)

    def summary(self, height: int) -> BlockSummary | None:
        row = self._of_block(height, "header, hash, transactions")
        if row is None:
            return None
        with self._reporting():
            return BlockSummary(decode(row[0], Header), row[1], row[2])

    def block_height(self, block_hash: bytes) -> int | None:
        row = self._one("SELECT height FROM blocks WHERE hash = ?", block_hash)
        return None if row is None else row[0]

    def receipts(self, height: int) -> tuple[Receipt, ...] | None:
        row = self._of_block(height, "receipts")
        if row is None:
            return None
        with self._reporting():
            receipts: tuple[Receipt, ...] = decode(row[0], tuple[Receipt, ...])
        return receipts

    def transaction(self, transaction_id: bytes) -> Location | None:
        row = self._one(
            "SELECT height, position, receipts FROM transactions JOIN blocks USING (height) "
            "WHERE id = ?",
            transaction_id,
        )
        if row is None:
            return None
        height, index, receipts = row
        with self._reporting():
            receipt: Receipt = decode(receipts, tuple[Receipt, ...])[index]
        return Location(height, index, receipt.failed_reason)

    def state_get(self, bucket: int, key: bytes) -> tuple[bytes, bytes] | None:
        row: tuple[bytes, bytes] | None = self._one(
            "SELECT value, leaf FROM state WHERE bucket = ? AND key = ?", bucket, key
        )
        return row

    def bucket_leaves(self, bucket: int) -> list[tuple[bytes, bytes]]:
        return self._all("SELECT key, leaf FROM state WHERE bucket = ? ORDER BY key", bucket)

    def leaves(self) -> Iterator[tuple[int, bytes]]:
        with self._reporting(), self._read_lock:
            self._refuse_unusable()
            yield from self._reader.execute("SELECT bucket, leaf FROM state ORDER BY bucket, key")

    def commit(
        self,
        certified: CertifiedBlock,
        transaction_ids: Sequence[bytes],
        receipts: Sequence[Receipt],
        state: Sequence[StateEntry],
    ) -> None:
        block, data = certified.block, encode(certified)
        row = (
            block.height,
            block.hash,
            encode(block.header),
            len(block.transactions),
            encode(tuple(receipts)),
            crc32(data),
            data,
        )
        with self._reporting(), self._write_lock:
            self._refuse_unusable()
            if block.height != self._height + 1:
                raise StorageError(
                    f"block {block.height} cannot follow stored block {self._height}"
                )
            connection = self._writer
            try:
                connection.execute("BEGIN IMMEDIATE")
                connection.execute("INSERT INTO blocks VALUES (?, ?, ?, ?, ?, ?, ?)", row)
                # Sorted, so that neighbours in the index are written together.
                connection.executemany(
                    "INSERT INTO transactions VALUES (?, ?, ?)",
                    sorted((id_, block.height, i) for i, id_ in enumerate(transaction_ids)),
                )
                write_state(connection, state)
                connection.execute("COMMIT")
            except BaseException:
                with suppress(sqlite3.Error):  # the error that counts is the first one
                    connection.execute("ROLLBACK")
                raise
            self._height = block.height
            self._pins.committed(block.height)

    def install(self, candidate: Path) -> None:
        """Put the complete database `candidate`, of the same file system, in place of this one.

        After a crash there is the old one or the new one. What reads meanwhile waits.
        """
        with self._checkpoint_lock, self._write_lock, self._reporting():
            self._refuse_unusable()
            self._pins.abandon()
            self._checkpointer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            with self._read_lock:
                # The last one to close moves the log into the database and deletes it. A log that
                # stayed would be replayed into the new database.
                self._close_connections()
                if self._log_path.exists():
                    raise StorageError(f"{self._log_path} is in use by another program: end it")
                sync_directory(self._path.parent)  # nor may it come back with a power cut
                candidate.replace(self._path)
                sync_directory(self._path.parent)
                self._open()

    def checkpoint(self) -> None:
        with self._reporting(), self._checkpoint_lock:
            self._refuse_unusable()
            self._checkpointer.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()

    def statistics(self) -> StoreStatistics:
        def size(path: Path) -> int:
            return path.stat().st_size if path.exists() else 0

        return StoreStatistics(size(self._path), size(self._log_path))

    def close(self) -> None:
        self._pins.abandon()
        with self._checkpoint_lock, self._write_lock, self._read_lock:
            # The last to be closed moves the log into the database.
            self._close_connections()

    def _close_connections(self) -> None:
        while self._connections:
            self._connections.pop().close()
