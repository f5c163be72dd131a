# SPDX-License-Identifier: Apache-2.0
"""What a snapshot says of itself, and how much of it has to be believed: nothing.

The state root in a certified header is a Merkle root over 65,536 buckets of entries. A snapshot
cuts that tree at a depth: each subtree there is a *chunk*, and the manifest lists their nodes. So a
false list is noticed before a chunk is fetched, and a false chunk by itself, whoever sent it. A
chunk's entries come in pages, of which only the sizes are the sender's word: that they are small
enough, and large enough for not too many of them, is all that can be seen.
"""

from collections.abc import Iterable, Mapping
from hashlib import sha256
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from holdfast_node.chain.block import CertifiedHeader, Hash, Header
from holdfast_node.chain.codec import Value, decode, encode
from holdfast_node.chain.crypto import digest
from holdfast_node.chain.genesis import Genesis
from holdfast_node.chain.merkle import leaf_hash, node_hash
from holdfast_node.chain.trail import Trail, history
from holdfast_node.errors import RefusedError
from holdfast_node.ledger.state_tree import DEPTH, bucket_of, entry_leaf
from holdfast_node.storage.store import StateEntry

# A page is closed when it has this many bytes of keys and values, so it has one entry more at most.
PAGE_BYTES: Final = 512 * 1024
MAX_PAGE_BYTES: Final = 2**20
CHUNK_BYTES: Final = 2**20
MAX_PAGES: Final = 2**20
# The chunks of some 90 GiB of state.
MAX_CHUNKS_BYTES: Final = 4 * 2**20 - 64
# All `MAX_CHANGES` of a set of 26 validators, whatever their names; 440 of one of 256.
MAX_TRAIL_BYTES: Final = 16 * 2**20 - 64 * 1024
MAX_MANIFEST_BYTES: Final = MAX_CHUNKS_BYTES + MAX_TRAIL_BYTES + 64 * 1024


class Chunk(Value, frozen=True):
    """A subtree of the state: its node, and the encoded size of each of its pages."""

    node: Hash
    pages: Annotated[
        tuple[Annotated[int, Meta(ge=1, le=MAX_PAGE_BYTES)], ...], Meta(max_length=MAX_PAGES)
    ]


class Manifest(Value, frozen=True):
    """A snapshot of the state after the block of `head`, cut at `depth` into 2^`depth` chunks."""

    head: CertifiedHeader
    trail: Trail
    depth: Annotated[int, Meta(ge=0, le=DEPTH)]
    chunks: Annotated[tuple[Chunk, ...], Meta(max_length=1 << DEPTH)]

    @property
    def header(self) -> Header:
        return self.head.header

    @property
    def identity(self) -> bytes:
        """32 bytes, the same at all who have it; certificates of one block differ."""
        return digest("holdfast/snapshot/1", encode((self.header.hash, self.depth, self.chunks)))

    @property
    def size(self) -> int:
        """Bytes of all pages."""
        return sum(sum(chunk.pages) for chunk in self.chunks)

    def check(self, genesis: Genesis) -> None:
        """Raise `RefusedError` unless the block is final and the chunks are those of its state."""
        height = self.header.height
        if height < 1 or (self.trail and self.trail[-1].certified.header.height >= height):
            raise RefusedError("bad_snapshot", "the trail leads beyond the block")
        proved = history(genesis, self.trail)
        self.head.check(genesis.chain_id, proved.last)
        if len(self.chunks) != 1 << self.depth:
            raise RefusedError(
                "bad_snapshot", f"{len(self.chunks)} chunks: expected {1 << self.depth}"
            )
        without = subtree({}, 0, DEPTH - self.depth)
        for i, chunk in enumerate(self.chunks):
            if not chunk.pages and chunk.node != without:
                raise RefusedError("bad_snapshot", f"chunk {i} has entries, but no pages")
            if any(size < PAGE_BYTES for size in chunk.pages[:-1]):
                raise RefusedError(
                    "bad_snapshot",
                    f"chunk {i}: all pages but the last have {PAGE_BYTES} bytes or more",
                )
        nodes = {i: chunk.node for i, chunk in enumerate(self.chunks)}
        demand_root(subtree(nodes, 0, self.depth), self.header)


def read_manifest(data: bytes) -> Manifest:
    """Decode a manifest, which is still to be checked. Raises `RefusedError`.

    Before objects are made of them, its parts are measured: a short encoding can be a large list.
    """
    _demand_size("manifest", len(data), MAX_MANIFEST_BYTES)
    try:
        outline = msgspec.msgpack.decode(data, type=_Outline)
    except (msgspec.DecodeError, RecursionError) as error:
        raise RefusedError("malformed", f"not a manifest: {error}") from error
    _demand_size("list of chunks", len(outline.chunks), MAX_CHUNKS_BYTES)
    _demand_size("trail of validator sets", len(outline.trail), MAX_TRAIL_BYTES)
    return decode(data, Manifest)


class _Outline(msgspec.Struct, array_like=True):
    """The fields of a `Manifest`, as bytes."""

    head: msgspec.Raw
    trail: msgspec.Raw
    depth: msgspec.Raw
    chunks: msgspec.Raw


def _demand_size(what: str, size: int, most: int) -> None:
    if size > most:
        raise RefusedError("oversized", f"{what} of {size} bytes: at most {most}")


def demand_root(root: bytes, header: Header) -> None:
    """Raise `RefusedError` unless `root` is the state's that `header` commits to."""
    if root != header.state_root:
        raise RefusedError(
            "bad_snapshot",
            f"state root {root.hex()}: block {header.height} has {header.state_root.hex()}",
        )


def depth_for(size: int, chunk_bytes: int = CHUNK_BYTES) -> int:
    """The least depth at which chunks of a state of `size` bytes have `chunk_bytes` on average."""
    return min(DEPTH, max(0, -(-size // chunk_bytes) - 1).bit_length())


def subtree(nodes: Mapping[int, bytes], first: int, height: int) -> bytes:
    """The node over 2^`height` others, those from index `first` on.

    Where `nodes` has none there is a bucket without entries.
    """
    empty = leaf_hash(b"")
    level = {index - first: node for index, node in nodes.items()}
    for _ in range(height):
        level = {
            index: node_hash(level.get(2 * index, empty), level.get(2 * index + 1, empty))
            for index in {index >> 1 for index in level}
        }
        empty = node_hash(empty, empty)
    return level.get(0, empty)


class ChunkHasher:
    """Takes the entries of chunk `index` at `depth` in order, and says what its node is."""

    def __init__(self, index: int, depth: int) -> None:
        self._height = DEPTH - depth
        self.first = index << self._height
        self.last = self.first + (1 << self._height) - 1
        self._nodes: dict[int, bytes] = {}
        self._bucket = -1
        self._key = b""
        self._leaves = sha256(b"\x00")

    def add(self, entries: Iterable[tuple[bytes, bytes]]) -> list[StateEntry]:
        """The next entries, as (key, value); raises `RefusedError` if they are out of place."""
        added = []
        for key, value in entries:
            bucket = bucket_of(key)
            if not self.first <= bucket <= self.last or (bucket, key) <= (self._bucket, self._key):
                raise RefusedError("bad_snapshot", f"entry {key.hex()[:80]} is out of place")
            if bucket != self._bucket:
                self._close_bucket()
            self._bucket, self._key = bucket, key
            leaf = entry_leaf(key, value)
            self._leaves.update(leaf)
            added.append(StateEntry(bucket, key, value, leaf))
        return added

    def _close_bucket(self) -> None:
        if self._bucket >= 0:
            self._nodes[self._bucket] = self._leaves.digest()
        self._leaves = sha256(b"\x00")

    def node(self) -> bytes:
        """The node over all that was added."""
        self._close_bucket()
        return subtree(self._nodes, self.first, self._height)


def encode_page(entries: list[tuple[bytes, bytes]]) -> bytes:
    return encode(entries)


def decode_page(data: bytes) -> list[tuple[bytes, bytes]]:
    """Key and value of each entry; raises `RefusedError`."""
    if len(data) > MAX_PAGE_BYTES:
        raise RefusedError("oversized", f"page of {len(data)} bytes: at most {MAX_PAGE_BYTES}")
    entries: list[tuple[bytes, bytes]] = decode(data, list[tuple[bytes, bytes]])
    return entries
