# SPDX-License-Identifier: Apache-2.0
"""The state root: a Merkle tree over buckets of state entries, kept up to date incrementally.

An entry belongs to one of 65,536 buckets by the first two bytes of SHA-256 of its key. An entry's
leaf is `leaf_hash(encode((key, value)))`, a bucket's data the leaves of its entries joined in the
order of their keys. The state root is `merkle_root` over the data of all buckets.

Hashing leaves instead of entries keeps the cost of a change independent of the size of the values
that share its bucket.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from itertools import groupby
from operator import itemgetter
from typing import Final

from holdfast_node.chain.codec import encode
from holdfast_node.chain.merkle import leaf_hash, node_hash
from holdfast_node.storage.store import StateEntry

DEPTH: Final = 16
BUCKETS: Final = 1 << DEPTH


def bucket_of(key: bytes) -> int:
    """The bucket of a state key, from 0."""
    return int.from_bytes(sha256(key).digest()[:2], "big")


def entry_leaf(key: bytes, value: bytes) -> bytes:
    """The 32-byte hash of a state entry."""
    return leaf_hash(encode((key, value)))


@dataclass(frozen=True, slots=True)
class TreeUpdate:
    """The tree after some changes, relative to the tree before them."""

    root: bytes
    entries: tuple[StateEntry, ...]
    levels: tuple[Mapping[int, bytes], ...]


class StateTree:
    """The inner nodes in memory; buckets are read through `bucket_leaves` when they change.

    `leaves` gives (bucket, leaf) of every entry, sorted by bucket, then by key;
    `bucket_leaves(bucket)` the (key, leaf) pairs of one bucket, sorted by key.
    """

    def __init__(
        self,
        leaves: Iterable[tuple[int, bytes]],
        bucket_leaves: Callable[[int], list[tuple[bytes, bytes]]],
    ) -> None:
        self._bucket_leaves = bucket_leaves
        # Level 0 holds the buckets, the last one the root. Subtrees without entries share their
        # nodes, so an empty tree costs references only.
        node = leaf_hash(b"")
        self._levels: list[list[bytes]] = []
        for depth in range(DEPTH, -1, -1):
            self._levels.append([node] * (1 << depth))
            node = node_hash(node, node)
        self._write(
            self._propagate(
                {
                    bucket: leaf_hash(b"".join(leaf for _, leaf in entries))
                    for bucket, entries in groupby(leaves, itemgetter(0))
                }
            )
        )

    @property
    def root(self) -> bytes:
        return self._levels[-1][0]

    def update(self, changes: Mapping[bytes, bytes]) -> TreeUpdate:
        """What `changes` (key to value) make of the tree, which itself stays as it is."""
        entries = []
        touched: dict[int, dict[bytes, bytes]] = {}
        for key, value in changes.items():
            entry = StateEntry(bucket_of(key), key, value, entry_leaf(key, value))
            entries.append(entry)
            touched.setdefault(entry.bucket, {})[key] = entry.leaf
        hashes = {}
        for bucket, leaves in touched.items():
            merged = dict(self._bucket_leaves(bucket)) | leaves
            hashes[bucket] = leaf_hash(b"".join(merged[key] for key in sorted(merged)))
        levels = self._propagate(hashes)
        root = levels[-1].get(0, self.root)
        return TreeUpdate(root, tuple(entries), levels)

    def apply(self, update: TreeUpdate) -> None:
        """Make `update`, computed from this very tree, its content."""
        self._write(update.levels)

    def _propagate(self, hashes: Mapping[int, bytes]) -> tuple[Mapping[int, bytes], ...]:
        levels = [hashes]
        for nodes in self._levels[:-1]:
            below = levels[-1]
            above = {}
            for index in {index >> 1 for index in below}:
                left = index << 1
                above[index] = node_hash(
                    below[left] if left in below else nodes[left],
                    below[left + 1] if left + 1 in below else nodes[left + 1],
                )
            levels.append(above)
        return tuple(levels)

    def _write(self, levels: tuple[Mapping[int, bytes], ...]) -> None:
        for nodes, changed in zip(self._levels, levels, strict=True):
            for index, node in changed.items():
                nodes[index] = node
