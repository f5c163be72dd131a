# SPDX-License-Identifier: Apache-2.0
"""Makes evidence of what one validator said twice; `chain/evidence.py` has what it is."""

from holdfast_node.chain.block import VoteKind, vote_bytes
from holdfast_node.chain.evidence import Evidence, Statement
from holdfast_node.consensus.messages import ViewChange, view_change_bytes

__all__ = ["Evidence", "Statement", "two_view_changes", "two_votes"]


def two_votes(
    kind: VoteKind,
    chain_id: str,
    subject: tuple[int, int, int],
    first: tuple[bytes, bytes],
    second: tuple[bytes, bytes],
) -> Evidence:
    """Evidence from two votes; `subject` is validator, height and view.

    A vote is given by its block hash and its signature.
    """
    validator, height, view = subject
    statements = (
        Statement(vote_bytes(kind, chain_id, height, view, block_hash), signature)
        for block_hash, signature in (first, second)
    )
    return Evidence(validator, kind, height, view, *statements)


def two_view_changes(chain_id: str, first: ViewChange, second: ViewChange) -> Evidence | None:
    """Evidence from two requests of one validator for one view; None if they say the same.

    An honest validator locks on nothing while it waits for a view, so it has one proof to show.
    """
    if first.prepared == second.prepared:
        return None
    statements = (
        Statement(
            view_change_bytes(chain_id, c.height, c.view, c.prepared, c.validator), c.signature
        )
        for c in (first, second)
    )
    return Evidence(first.validator, "view-change", first.height, first.view, *statements)
