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
