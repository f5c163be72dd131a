# SPDX-License-Identifier: Apache-2.0
"""What makes a message acceptable, and what a view change obliges to: pure functions."""

from collections.abc import Iterable

from holdfast_node.chain.block import VoteKind, check_votes, vote_bytes
from holdfast_node.chain.validators import ValidatorSet
from holdfast_node.consensus.messages import (
    Message,
    NewView,
    PreparedProof,
    PrePrepare,
    ViewChange,
    Vote,
    new_view_bytes,
    view_change_bytes,
)
from holdfast_node.errors import RefusedError


def check_message(message: Message, *, chain_id: str, validators: ValidatorSet) -> None:
    """Check membership and signatures: nothing that fails this is ever buffered.

    Raises `RefusedError`.
    """
    if message.validator >= len(validators):
        raise RefusedError("not_member", f"no validator has index {message.validator}")
    match message:
        case ViewChange():
            check_view_change(message, chain_id=chain_id, validators=validators, with_block=True)
            return
        case NewView():
            check_new_view(message, chain_id=chain_id, validators=validators)
            return
        case PrePrepare():
            if validators.leader(message.view) != message.validator:
                raise RefusedError("not_leader", f"proposal in view {message.view}")
            kind: VoteKind = "pre-prepare"
            block_hash = message.block.hash
        case Vote():
            kind = message.kind
            block_hash = message.block_hash
    signed = vote_bytes(kind, chain_id, message.height, message.view, block_hash)
    if not validators.verify(message.validator, signed, message.signature):
        raise RefusedError("bad_signature", f"wrong signature on a {kind}")


def check_size(message: Message, max_block_bytes: int) -> None:
    """Raise `RefusedError("oversized")` for a block that no validator would accept."""
    if isinstance(message, PrePrepare | ViewChange) and message.block is not None:
        size = sum(map(len, message.block.transactions))
        if size > max_block_bytes:
            raise RefusedError("oversized", f"a block of {size} bytes: at most {max_block_bytes}")


def check_proof(
    proof: PreparedProof, *, chain_id: str, height: int, below: int, validators: ValidatorSet
) -> None:
    """Raise `RefusedError("bad_proof")` unless a quorum prepared the block before view `below`."""
    if proof.view >= below:
        raise RefusedError("bad_proof", f"prepared in view {proof.view}, not before view {below}")
    leader = validators.leader(proof.view)
    voters = {vote.validator for vote in proof.prepares}
    if proof.leader.validator != leader or leader in voters:
        raise RefusedError("bad_proof", "the proposal is not the leader's of that view")
    if len(voters) + 1 < validators.quorum:
        raise RefusedError("bad_proof", f"{len(voters) + 1} validators: expected a quorum")
    message = vote_bytes("pre-prepare", chain_id, height, proof.view, proof.block_hash)
    if not validators.verify(leader, message, proof.leader.signature):
        raise RefusedError("bad_proof", "wrong signature on the proposal")
    subject = (height, proof.view, proof.block_hash)
    check_votes("prepare", chain_id, subject, proof.prepares, validators)


def check_view_change(
    change: ViewChange, *, chain_id: str, validators: ValidatorSet, with_block: bool
) -> None:
    """Raise `RefusedError` unless `change` is signed and its proof holds.

    `with_block`: it comes from its author, so a proof must have its block with it.
    """
    if change.validator >= len(validators):
        raise RefusedError("not_member", f"no validator has index {change.validator}")
    signed = view_change_bytes(
        chain_id, change.height, change.view, change.prepared, change.validator
    )
    if not validators.verify(change.validator, signed, change.signature):
        raise RefusedError("bad_signature", "wrong signature on a view change")
    if change.prepared is None:
        if change.block is not None:
            raise RefusedError("bad_proof", "a block without a proof")
        return
    check_proof(
        change.prepared,
        chain_id=chain_id,
        height=change.height,
        below=change.view,
        validators=validators,
    )
    if change.block is None:
        if with_block:
            raise RefusedError("bad_proof", "a proof without its block")
    elif (
        change.block.hash != change.prepared.block_hash
        or change.block.height != change.height
        or not change.block.has_valid_transactions_root()
    ):
        raise RefusedError("bad_proof", "the block is not the proof's")


def check_new_view(new_view: NewView, *, chain_id: str, validators: ValidatorSet) -> None:
    """Raise `RefusedError` unless the view's leader shows a quorum of sound view changes."""
    leader = validators.leader(new_view.view)
    if new_view.validator != leader:
        raise RefusedError("not_leader", f"view {new_view.view} is not this validator's to lead")
    signed = new_view_bytes(chain_id, new_view.height, new_view.view, new_view.view_changes)
    if not validators.verify(leader, signed, new_view.signature):
        raise RefusedError("bad_signature", "wrong signature on a new view")
    authors = [change.validator for change in new_view.view_changes]
    if authors != sorted(set(authors)) or len(authors) < validators.quorum:
        raise RefusedError("bad_new_view", "view changes must be a quorum, sorted and distinct")
    for change in new_view.view_changes:
        if (change.height, change.view) != (new_view.height, new_view.view):
            raise RefusedError("bad_new_view", "a view change is about another height or view")
        check_view_change(change, chain_id=chain_id, validators=validators, with_block=False)


def required_block(changes: Iterable[ViewChange]) -> bytes | None:
    """The hash that the new leader has to propose again, or None if it is free to choose.

    A block that may be final somewhere was prepared by a quorum, which shares an honest validator
    with every quorum of view changes; the proof with the highest view is therefore decisive.
    """
    proofs = [change.prepared for change in changes if change.prepared is not None]
    if not proofs:
        return None
    return max(proofs, key=lambda proof: (proof.view, proof.block_hash)).block_hash


def wanted_view(views: Iterable[int], faults: int) -> int | None:
    """The highest view that more validators ask for than can be faulty; None if there is none."""
    ranked = sorted(views, reverse=True)
    return ranked[faults] if len(ranked) > faults else None
