# SPDX-License-Identifier: Apache-2.0
"""A snapshot on its way in: from pages of strangers to a database that can replace ours."""

import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import Final

from holdfast_node.chain.block import Header
from holdfast_node.chain.codec import encode
from holdfast_node.chain.genesis import Genesis
from holdfast_node.errors import RefusedError, StorageError
from holdfast_node.ledger.membership import read_history
from holdfast_node.ledger.state import StateView
from holdfast_node.ledger.state_tree import StateTree
from holdfast_node.snapshot.manifest import ChunkHasher, decode_page, demand_root, read_manifest
from holdfast_node.storage.files import sync_directory
from holdfast_node.storage.schema import APPLICATION_ID, SCHEMA, SCHEMA_VERSION, write_state

CANDIDATE: Final = "chain.db.snapshot"
# Indices and keys make the database larger than the pages.
_DISK_FACTOR: Final = 2


def remove_leftovers(folder: Path) -> None:
    """What a crash during an assembly left in the data folder."""
    for path in folder.glob(CANDIDATE + "*"):
        path.unlink()


class Assembly:
    """Collects the chunks of one snapshot in the file `chain.db.snapshot` of `folder`.

    `encoded` is a manifest from a peer, checked here. Chunks may come in any order and from threads
    of their own; each is checked by itself. In the end `finish`, or `discard`.

    Raises `RefusedError` for what peers are to blame for, `StorageError` for the disk.
    """

    def __init__(self, folder: Path, genesis: Genesis, encoded: bytes) -> None:
        manifest = read_manifest(encoded)
        manifest.check(genesis)
        self.manifest = manifest
        self._identity: bytes = manifest.identity
        self.path = folder / CANDIDATE
        self._genesis = genesis
        self._lock = Lock()
        remove_leftovers(folder)
        free, wanted = shutil.disk_usage(folder).free, self.manifest.size * _DISK_FACTOR
        if wanted > free:
            raise StorageError(
                f"{folder}: the snapshot of block {self.header.height} needs {wanted} bytes, "
                f"{free} are free: make room on the disk"
            )
        with self._reporting():
            self._connection = sqlite3.connect(
                self.path, isolation_level=None, check_same_thread=False
            )
            # Nothing of it counts before `finish`, and then it is one file; after an error there is
            # nothing to go back to. A journal would keep in memory what a false chunk had filled.
            self._connection.executescript(
                f"PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF; PRAGMA cache_size=-8192;"
                f"BEGIN; PRAGMA application_id={APPLICATION_ID};"
                f"PRAGMA user_version={SCHEMA_VERSION}; {SCHEMA}"
            )
            self._connection.execute(
                "INSERT INTO chain VALUES (?, ?)", (genesis.hash, genesis.chain_id)
            )
            steps = [step.certified for step in manifest.trail]
            self._connection.executemany(
                "INSERT INTO base VALUES (?, ?)",
                [(head.header.height, encode(head)) for head in (*steps, manifest.head)],
            )
            self._connection.execute("COMMIT")

    @property
    def header(self) -> Header:
        return self.manifest.header

    @property
    def height(self) -> int:
        return self.header.height

    @property
    def identity(self) -> bytes:
        return self._identity

    @property
    def chunks(self) -> int:
        return len(self.manifest.chunks)

    @contextmanager
    def _reporting(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise StorageError(f"{self.path}: {error}: check the disk") from error

    def chunk(self, index: int) -> "ChunkWriter":
        """Begin with a chunk; what an earlier attempt at it left is forgotten."""
        hasher = ChunkHasher(index, self.manifest.depth)
        with self._lock, self._reporting():
            self._connection.execute(
                "DELETE FROM state WHERE bucket BETWEEN ? AND ?", (hasher.first, hasher.last)
            )
        return ChunkWriter(self, index, hasher)

    def write(self, hasher: ChunkHasher, page: bytes) -> None:
        """Take in the next page of a chunk. Raises `RefusedError`."""
        entries = hasher.add(decode_page(page))
        with self._lock, self._reporting():
            self._connection.execute("BEGIN")
            write_state(self._connection, entries)
            self._connection.execute("COMMIT")

    def finish(self, bucket_leaves: Callable[[int], list[tuple[bytes, bytes]]]) -> StateTree:
        """Make the database durable; the tree of its state, whose root is the certified one.

        `bucket_leaves` is for the tree's later life, in the store. Raises `RefusedError` if the
        root is another one: a chunk is missing, or this program is at fault.
        """
        with self._lock, self._reporting():
            rows = self._connection.execute("SELECT bucket, leaf FROM state ORDER BY bucket, key")
            tree = StateTree(rows, bucket_leaves)
            demand_root(tree.root, self.header)
            self._demand_whole_trail()
            self._connection.close()
            descriptor = os.open(self.path, os.O_RDWR | os.O_CLOEXEC)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            sync_directory(self.path.parent)
        return tree

    def state_get(self, bucket: int, key: bytes) -> tuple[bytes, bytes] | None:
        """Value and leaf of an entry, as `Store.state_get`."""
        row: tuple[bytes, bytes] | None = self._connection.execute(
            "SELECT value, leaf FROM state WHERE bucket = ? AND key = ?", (bucket, key)
        ).fetchone()
        return row

    def _demand_whole_trail(self) -> None:
        """A set that came back hides that it was gone, but not from the state."""
        state = StateView(self)
        steps = {step.certified.header.height for step in self.manifest.trail}
        steps.add(self.header.height)
        for activation in read_history(state, self._genesis.validator_set).activations:
            if activation <= self.header.height + 1 and activation - 1 not in steps:
                raise RefusedError(
                    "bad_snapshot", f"the trail leaves out the change at block {activation}"
                )

    def discard(self) -> None:
        """Remove the file, if it has not become the node's."""
        with self._lock:
            self._connection.close()
            remove_leftovers(self.path.parent)


class ChunkWriter:
    """One chunk on its way in, page by page from one peer."""

    def __init__(self, assembly: Assembly, index: int, hasher: ChunkHasher) -> None:
        self._assembly = assembly
        self._chunk = assembly.manifest.chunks[index]
        self._hasher = hasher

    @property
    def pages(self) -> int:
        return len(self._chunk.pages)

    @property
    def size(self) -> int:
        """Bytes of all pages."""
        return sum(self._chunk.pages)

    def add(self, number: int, page: bytes) -> None:
        """Take in page `number`, each once and in order; the last one completes the chunk.

        Raises `RefusedError` if it is not what the state root covers.
        """
        if len(page) != self._chunk.pages[number]:
            raise RefusedError(
                "bad_snapshot",
                f"page of {len(page)} bytes: the manifest has {self._chunk.pages[number]}",
            )
        self._assembly.write(self._hasher, page)
        if number + 1 == self.pages and self._hasher.node() != self._chunk.node:
            raise RefusedError("bad_snapshot", "the chunk is not part of the certified state")
