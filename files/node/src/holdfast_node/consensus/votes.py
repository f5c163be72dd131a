# SPDX-License-Identifier: Apache-2.0
"""Votes of one kind at one height: one per validator and view, whatever it sends."""

from typing import Final

from holdfast_node.chain.block import VoteSignature

# Votes this far above the replica's own view are kept; those of later views are sent again anyway.
VIEWS_AHEAD: Final = 8


class VoteBook:
    def __init__(self) -> None:
        self._by_view: dict[int, dict[int, tuple[bytes, bytes]]] = {}

    def add(self, view: int, block_hash: bytes, vote: VoteSignature) -> bytes | None:
        """Enter a vote; returns the other block's hash if this validator voted for another."""
        known = self._by_view.setdefault(view, {})
        first, _ = known.setdefault(vote.validator, (block_hash, vote.signature))
        return first if first != block_hash else None

    def of(self, view: int, block_hash: bytes) -> tuple[VoteSignature, ...]:
        """The votes for `block_hash` in `view`, sorted by validator."""
        known = self._by_view.get(view, {})
        return tuple(
            VoteSignature(validator, known[validator][1])
            for validator in sorted(known)
            if known[validator][0] == block_hash
        )

    def voters(self, view: int) -> frozenset[int]:
        """Who voted in `view`, for whatever block."""
        return frozenset(self._by_view.get(view, {}))

    def quorum(self, size: int) -> tuple[int, bytes] | None:
        """The first view and block with `size` votes, lowest view first."""
        for view in sorted(self._by_view):
            counts: dict[bytes, int] = {}
            for block_hash, _ in self._by_view[view].values():
                counts[block_hash] = counts.get(block_hash, 0) + 1
                if counts[block_hash] >= size:
                    return view, block_hash
        return None
