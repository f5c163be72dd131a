# SPDX-License-Identifier: Apache-2.0
"""Merkle tree hash as in RFC 9162, section 2.1.1: leaves and inner nodes have their own prefix."""

from collections.abc import Sequence
from hashlib import sha256


def leaf_hash(data: bytes) -> bytes:
    return sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    return sha256(b"\x01" + left + right).digest()


def merkle_root(entries: Sequence[bytes]) -> bytes:
    """Root over `entries` in their order; the root of none is the hash of the empty string."""
    if not entries:
        return sha256(b"").digest()
    level = [leaf_hash(entry) for entry in entries]
    while len(level) > 1:
        # A node without a sibling moves up unchanged: the same tree as the RFC's split at 2^k.
        pairs = [node_hash(level[i], level[i + 1]) for i in range(0, len(level) - 1, 2)]
        level = pairs + level[len(pairs) * 2 :]
    return level[0]


def audit_path(entries: Sequence[bytes], index: int) -> tuple[bytes, ...]:
    """The hashes beside the way from entry `index` to the root, from the leaf up."""
    level = [leaf_hash(entry) for entry in entries]
    path = []
    while len(level) > 1:
        sibling = index ^ 1
        if sibling < len(level):
            path.append(level[sibling])
        pairs = [node_hash(level[i], level[i + 1]) for i in range(0, len(level) - 1, 2)]
        level = pairs + level[len(pairs) * 2 :]
        index //= 2
    return tuple(path)


def root_of_path(entry: bytes, index: int, count: int, path: Sequence[bytes]) -> bytes | None:
    """The root of a tree of `count` entries with `entry` at `index` and `path` beside its way.

    None if a path of such a tree has another length (RFC 9162, section 2.1.3.2).
    """
    if not 0 <= index < count:
        return None
    value, beside = leaf_hash(entry), iter(path)
    while count > 1:
        if index ^ 1 < count:
            sibling = next(beside, None)
            if sibling is None:
                return None
            value = node_hash(sibling, value) if index & 1 else node_hash(value, sibling)
        index, count = index // 2, (count + 1) // 2
    return value if next(beside, None) is None else None
