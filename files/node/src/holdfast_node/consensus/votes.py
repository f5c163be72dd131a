# SPDX-License-Identifier: Apache-2.0
"""Votes of one height and kind: one per validator and view, whatever it sends."""

from typing import Final

from holdfast_node.chain.block import VoteSignature

# Votes this far from the replica's own view are kept. Those of later views are sent again anyway;
# what a quorum committed in an earlier one comes back by view change or block sync.
VIEWS_AHEAD: Final = 8
VIEWS_BEHIND: Final = 16


class VoteBook:
    def __init__(self) -> None:
        self._by_view: dict[int, dict[int, tuple[bytes, bytes]]] = {}

    def add(self, view: int, block_hash: bytes, vote: VoteSignature) -> tuple[bytes, bytes] | None:
        """Enter a vote; returns block hash and signature of another vote that was there first."""
        known = self._by_view.setdefault(view, {})
        first = known.setdefault(vote.validator, (block_hash, vote.signature))
        return first if first[0] != block_hash else None

    def has(self, view: int, block_hash: bytes, validator: int, signature: bytes) -> bool:
        """Whether this very vote was entered."""
        return self._by_view.get(view, {}).get(validator) == (block_hash, signature)

    def of(self, view: int, block_hash: bytes) -> tuple[VoteSignature, ...]:
        """The votes for `block_hash` in `view`, sorted by validator."""
        known = self._by_view.get(view)
        if known is None:
            return ()
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
            known = self._by_view[view]
            if len(known) < size:
                continue
            counts: dict[bytes, int] = {}
            for block_hash, _ in known.values():
                counts[block_hash] = counts.get(block_hash, 0) + 1
                if counts[block_hash] >= size:
                    return view, block_hash
        return None

    def forget(self, below: int) -> None:
        """Drop the votes of views below `below`."""
        for view in [view for view in self._by_view if view < below]:
            del self._by_view[view]

    def __len__(self) -> int:
        """How many votes are kept."""
        return sum(map(len, self._by_view.values()))
