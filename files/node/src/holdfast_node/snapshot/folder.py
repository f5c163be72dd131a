# SPDX-License-Identifier: Apache-2.0
"""The snapshots that a node keeps for others: written beside consensus, complete or not there.

Each is a folder named after its height, with the file `manifest` (CRC-32, then the encoded
manifest) and the file `pages`, all pages of all chunks one after the other.
"""

import os
import shutil
import time
from binascii import crc32
from collections.abc import Callable
from dataclasses import dataclass
from itertools import accumulate, chain
from pathlib import Path
from typing import BinaryIO, Final

from holdfast_node.chain.block import CertifiedHeader
from holdfast_node.chain.codec import encode
from holdfast_node.chain.trail import TrailStep
from holdfast_node.errors import RefusedError, StorageError
from holdfast_node.ledger.state_tree import DEPTH
from holdfast_node.snapshot.manifest import (
    CHUNK_BYTES,
    PAGE_BYTES,
    Chunk,
    ChunkHasher,
    Manifest,
    demand_root,
    depth_for,
    encode_page,
    read_manifest,
    subtree,
)
from holdfast_node.storage.files import sync_directory
from holdfast_node.storage.pinned import PinnedState
from holdfast_node.storage.store import StateEntry

KEPT: Final = 2
FOLDER: Final = "snapshots"
_UNFINISHED: Final = ".new"
_MOST_PAUSE: Final = 0.1


@dataclass(frozen=True, slots=True)
class Kept:
    """A complete snapshot. `starts` are the first pages' numbers of the chunks."""

    path: Path
    height: int
    identity: bytes
    encoded: bytes
    starts: tuple[int, ...]
    offsets: tuple[int, ...]


class SnapshotFolder:
    """The folder `snapshots` in a data folder; what a crash left unfinished there is removed.

    `make` runs in a thread of its own; everything else in the event loop's.
    """

    def __init__(self, data_folder: Path, *, chunk_bytes: int = CHUNK_BYTES) -> None:
        self._path = data_folder / FOLDER
        self._chunk_bytes = chunk_bytes
        self._kept: list[Kept] = []
        if self._path.is_dir():
            for path in sorted(self._path.iterdir()):
                kept = None if path.suffix == _UNFINISHED else _load(path)
                if kept is None:
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    self._kept.append(kept)
            self._kept.sort(key=lambda kept: kept.height, reverse=True)

    @property
    def heights(self) -> list[int]:
        """Of the snapshots that are here, newest first."""
        return [kept.height for kept in self._kept]

    def offers(self) -> list[tuple[int, bytes]]:
        """Height and identity of each, newest first."""
        return [(kept.height, kept.identity) for kept in self._kept]

    def manifest(self, identity: bytes) -> bytes:
        """The encoded manifest; empty if that snapshot is not here."""
        kept = self._find(identity)
        return b"" if kept is None else kept.encoded

    def page(self, identity: bytes, chunk: int, page: int) -> bytes:
        """One page; empty if it is not here."""
        kept = self._find(identity)
        if kept is None or not 0 <= chunk < len(kept.starts) - 1:
            return b""
        number = kept.starts[chunk] + page
        if not kept.starts[chunk] <= number < kept.starts[chunk + 1]:
            return b""
        start, end = kept.offsets[number], kept.offsets[number + 1]
        try:
            with (kept.path / "pages").open("rb") as file:
                return os.pread(file.fileno(), end - start, start)
        except OSError:
            return b""  # somebody removed it: others have it, too

    def _find(self, identity: bytes) -> Kept | None:
        return next((kept for kept in self._kept if kept.identity == identity), None)

    def make(
        self, pinned: PinnedState, trail: Callable[[int], tuple[TrailStep, ...]]
    ) -> Kept | None:
        """Write the snapshot of `pinned`, durably and as a whole; None if it is here already.

        `trail(height)` proves who certified the block there. Takes about as long again as it needs,
        so that consensus has the processor when it wants it.

        Raises `StorageError`.
        """
        if pinned.height in self.heights:
            return None
        unfinished = self._path / f"{pinned.height}{_UNFINISHED}"
        final = self._path / str(pinned.height)
        try:
            unfinished.mkdir(mode=0o700, parents=True, exist_ok=True)
            shutil.rmtree(final, ignore_errors=True)
            with (unfinished / "pages").open("wb") as file:
                depth = depth_for(pinned.size(), self._chunk_bytes)
                chunks = _write_pages(file, pinned, depth)
                file.flush()
                os.fsync(file.fileno())
            manifest = _manifest(pinned.head(), trail(pinned.height), depth, chunks)
            encoded = encode(manifest)
            read_manifest(encoded)  # as others will
            with (unfinished / "manifest").open("wb") as file:
                file.write(crc32(encoded).to_bytes(4, "big") + encoded)
                file.flush()
                os.fsync(file.fileno())
            sync_directory(unfinished)
            unfinished.rename(final)
            sync_directory(self._path)
        except OSError as error:
            raise StorageError(f"{unfinished}: {error}: make room on the disk") from error
        except RefusedError as error:
            raise StorageError(
                f"{unfinished}: {error}; no snapshot can be made of this chain any more, and new "
                "nodes begin with its blocks"
            ) from error
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
        return _kept(final, manifest, encoded)

    def add(self, made: Kept) -> None:
        """Offer a snapshot that was made, and remove what is older than the newest two."""
        self._kept.insert(0, made)
        self._kept.sort(key=lambda kept: kept.height, reverse=True)
        for old in self._kept[KEPT:]:
            shutil.rmtree(old.path, ignore_errors=True)
        del self._kept[KEPT:]


def _write_pages(file: BinaryIO, pinned: PinnedState, depth: int) -> list[Chunk]:
    shift = DEPTH - depth
    chunks: list[Chunk] = []
    hasher = ChunkHasher(0, depth)
    sizes: list[int] = []
    page: list[tuple[bytes, bytes]] = []
    page_bytes = 0

    def end_page() -> None:
        nonlocal page, page_bytes
        if page:
            sizes.append(file.write(encode_page(page)))
            page, page_bytes = [], 0

    def end_chunk() -> None:
        nonlocal hasher, sizes
        end_page()
        chunks.append(Chunk(hasher.node(), tuple(sizes)))
        hasher, sizes = ChunkHasher(len(chunks), depth), []

    def add(entry: StateEntry) -> None:
        nonlocal page_bytes
        while entry.bucket >> shift > len(chunks):
            end_chunk()
        hasher.add([(entry.key, entry.value)])
        page.append((entry.key, entry.value))
        page_bytes += len(entry.key) + len(entry.value)
        if page_bytes >= PAGE_BYTES:
            end_page()

    began = time.monotonic()
    for batch in pinned.entries():
        for entry in batch:
            add(entry)
        took = time.monotonic() - began
        time.sleep(min(_MOST_PAUSE, took))  # as long: a snapshot takes half a core at most
        began = time.monotonic()
    while len(chunks) < 1 << depth:
        end_chunk()
    return chunks


def _manifest(
    head: CertifiedHeader, trail: tuple[TrailStep, ...], depth: int, chunks: list[Chunk]
) -> Manifest:
    try:
        demand_root(subtree({i: c.node for i, c in enumerate(chunks)}, 0, depth), head.header)
    except RefusedError as error:
        raise StorageError(
            f"{error}: the database is damaged; see 'holdfast-node doctor'"
        ) from error
    return Manifest(head, trail, depth, tuple(chunks))


def _kept(path: Path, manifest: Manifest, encoded: bytes) -> Kept:
    starts = accumulate((len(chunk.pages) for chunk in manifest.chunks), initial=0)
    sizes = chain.from_iterable(chunk.pages for chunk in manifest.chunks)
    height = manifest.header.height
    offsets = tuple(accumulate(sizes, initial=0))
    return Kept(path, height, manifest.identity, encoded, tuple(starts), offsets)


def _load(path: Path) -> Kept | None:
    """A snapshot that an earlier start wrote; None if it is none, or damaged."""
    try:
        data = (path / "manifest").read_bytes()
        if crc32(data[4:]).to_bytes(4, "big") != data[:4]:
            return None
        manifest = read_manifest(data[4:])
        whole = (path / "pages").stat().st_size == manifest.size
    except (OSError, RefusedError):
        return None
    if not whole or path.name != str(manifest.header.height):
        return None
    return _kept(path, manifest, data[4:])
