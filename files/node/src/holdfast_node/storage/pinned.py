# SPDX-License-Identifier: Apache-2.0
"""The state as it was after one block, to be read while later blocks are committed.

SQLite's write-ahead log gives a reader the database as of its first read, however long it takes;
meanwhile the log cannot be started anew and grows.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import Final

from holdfast_node.chain.block import CertifiedBlock, CertifiedHeader
from holdfast_node.chain.codec import decode
from holdfast_node.errors import RefusedError, StorageError
from holdfast_node.storage.store import StateEntry

_BATCH_ENTRIES: Final = 256


class PinnedState:
    """The state after block `height`; to be closed. Used by one thread at a time.

    Raises `StorageError`, also when it is closed meanwhile.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = Lock()
        self.closed = False
        self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        try:
            self._connection.execute("PRAGMA query_only=ON")
            self._connection.execute("PRAGMA cache_size=-2048")
            self._connection.execute("BEGIN")
            row = self._connection.execute("SELECT max(height) FROM blocks").fetchone()
        except BaseException:
            self._connection.close()
            raise
        self.height: int = row[0] or 0

    def head(self) -> CertifiedHeader:
        """The header of the block, with its certificate."""
        rows = self._read("SELECT certified FROM blocks WHERE height = ?", self.height)
        try:
            block: CertifiedBlock = decode(rows[0][0], CertifiedBlock)
        except RefusedError as error:
            raise StorageError(f"{self._path}: block {self.height}: {error}") from error
        return CertifiedHeader(block.block.header, block.certificate)

    def size(self) -> int:
        """Bytes of all keys and values."""
        rows = self._read("SELECT coalesce(sum(length(key) + length(value)), 0) FROM state")
        total: int = rows[0][0]
        return total

    def entries(self) -> Iterator[list[StateEntry]]:
        """All entries by bucket, then by key, some at a time."""
        after = (-1, b"")
        while True:
            rows = self._read(
                "SELECT bucket, key, value, leaf FROM state WHERE (bucket, key) > (?, ?) "
                "ORDER BY bucket, key LIMIT ?",
                *after,
                _BATCH_ENTRIES,
            )
            if not rows:
                return
            yield [StateEntry(*row) for row in rows]
            after = rows[-1][:2]

    def _read(self, query: str, *values: object) -> list[tuple]:  # type: ignore[type-arg]  # of any columns
        with self._lock:
            if self.closed:
                raise StorageError(f"{self._path}: the store was closed meanwhile")
            try:
                return self._connection.execute(query, values).fetchall()
            except sqlite3.Error as error:
                raise StorageError(f"{self._path}: {error}: check the disk") from error

    def close(self) -> None:
        """End all reading, from whatever thread."""
        with self._lock:
            self.closed = True
            self._connection.close()


class PinKeeper:
    """Keeps the state of a store at multiples of `interval` (0: never), one at a time."""

    def __init__(self, path: Path) -> None:
        self.interval = 0
        self._path = path
        self._latest: PinnedState | None = None
        self._waits = False

    def committed(self, height: int) -> None:
        """A block was committed; called before the next one can be."""
        if not self.interval or height % self.interval:
            return
        if self._latest is None or self._latest.closed:
            # The block is final and stored, so this must not fail: there is no snapshot, then.
            with suppress(sqlite3.Error):
                self._latest = PinnedState(self._path)
                self._waits = True

    def take(self) -> PinnedState | None:
        """The state kept last, once."""
        waited, self._waits = self._waits, False
        return self._latest if waited else None

    def abandon(self) -> None:
        if self._latest is not None:
            self._latest.close()
