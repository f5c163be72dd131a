# SPDX-License-Identifier: Apache-2.0
"""What validators say to one another, and what each writes down before it speaks."""

from typing import Annotated, Literal, TypeAlias

from msgspec import Meta

from holdfast_node.chain.block import Block, Hash, VoteSignature
from holdfast_node.chain.codec import Value, encode
from holdfast_node.chain.transaction import Natural, Signature
from holdfast_node.chain.validators import MAX_VALIDATORS

ValidatorIndex: TypeAlias = Annotated[int, Meta(ge=0, lt=MAX_VALIDATORS)]
Votes: TypeAlias = Annotated[tuple[VoteSignature, ...], Meta(max_length=MAX_VALIDATORS)]


class PrePrepare(Value, frozen=True, tag="pre-prepare"):
    """The leader of `view` proposes a block; counts as its prepare vote."""

    view: Natural
    block: Block
    validator: ValidatorIndex
    signature: Signature

    @property
    def height(self) -> int:
        return self.block.header.height


class Vote(Value, frozen=True, tag="vote"):
    """A prepare or a commit vote."""

    kind: Literal["prepare", "commit"]
    height: Natural
    view: Natural
    block_hash: Hash
    validator: ValidatorIndex
    signature: Signature


class PreparedProof(Value, frozen=True):
    """A quorum backed this block in `view`: the leader's proposal and the others' prepares."""

    view: Natural
    block_hash: Hash
    leader: VoteSignature
    prepares: Votes


class ViewChange(Value, frozen=True, tag="view-change"):
    """A validator gives up every view below `view` at this height.

    `prepared` is the proof with the highest view that it holds; `block` is that proof's block. The
    block is not signed, since the proof names its hash, so that a NEW-VIEW can leave it out.
    """

    height: Natural
    view: Natural
    prepared: PreparedProof | None
    validator: ValidatorIndex
    signature: Signature
    block: Block | None = None


class NewView(Value, frozen=True, tag="new-view"):
    """The leader of `view` shows a quorum of view changes, which say what it has to propose."""

    height: Natural
    view: Natural
    view_changes: Annotated[tuple[ViewChange, ...], Meta(max_length=MAX_VALIDATORS)]
    validator: ValidatorIndex
    signature: Signature


Message: TypeAlias = PrePrepare | Vote | ViewChange | NewView


def view_change_bytes(
    chain_id: str, height: int, view: int, prepared: PreparedProof | None, validator: int
) -> bytes:
    """Return what a validator signs to ask for `view`."""
    return encode(("holdfast/view-change/1", chain_id, height, view, prepared, validator))


def new_view_bytes(
    chain_id: str, height: int, view: int, view_changes: tuple[ViewChange, ...]
) -> bytes:
    """Return what the leader of `view` signs to start it."""
    signatures = [change.signature for change in view_changes]
    return encode(("holdfast/new-view/1", chain_id, height, view, signatures))


class Voted(Value, frozen=True, tag="voted"):
    """Journal: a prepare vote was cast."""

    height: Natural
    view: Natural
    block_hash: Hash


class Proposed(Value, frozen=True, tag="proposed"):
    """Journal: this validator, as leader of `view`, proposed the block."""

    height: Natural
    view: Natural
    block: Block


class Locked(Value, frozen=True, tag="locked"):
    """Journal: the block is prepared, and the commit vote in the proof's view was cast."""

    height: Natural
    proof: PreparedProof
    block: Block


class Entered(Value, frozen=True, tag="entered"):
    """Journal: views below `view` were given up."""

    height: Natural
    view: Natural


Record: TypeAlias = Voted | Proposed | Locked | Entered


class Anchored(Value, frozen=True, tag="anchored"):
    """Journal: the file beside it that a copy cannot bring along (see `storage.anchor`)."""

    inode: Natural
    changed_ns: Natural


class Doubted(Value, frozen=True, tag="doubted"):
    """Journal: votes may have been forgotten; none is cast until a `Floor` follows."""

    reason: Annotated[str, Meta(max_length=1000)]


class Floor(Value, frozen=True, tag="floor"):
    """Journal: what was said at `height` and below is not kept; nothing is said there any more."""

    height: Natural


JournalRecord: TypeAlias = Record | Anchored | Doubted | Floor
