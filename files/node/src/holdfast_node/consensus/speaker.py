# SPDX-License-Identifier: Apache-2.0
"""Signs what one validator says."""

from collections.abc import Callable
from typing import Literal

from holdfast_node.chain.block import Block, vote_bytes
from holdfast_node.consensus.messages import (
    NewView,
    PreparedProof,
    PrePrepare,
    ViewChange,
    Vote,
    new_view_bytes,
    view_change_bytes,
)


class Speaker:
    """`index` is the validator's at the height that it speaks about."""

    def __init__(self, chain_id: str, index: int, sign: Callable[[bytes], bytes]) -> None:
        self._chain_id = chain_id
        self.index = index
        self._sign = sign

    def pre_prepare(self, view: int, block: Block, block_hash: bytes) -> PrePrepare:
        signed = vote_bytes("pre-prepare", self._chain_id, block.height, view, block_hash)
        return PrePrepare(view, block, self.index, self._sign(signed))

    def vote(
        self, kind: Literal["prepare", "commit"], height: int, view: int, block_hash: bytes
    ) -> Vote:
        signed = vote_bytes(kind, self._chain_id, height, view, block_hash)
        return Vote(kind, height, view, block_hash, self.index, self._sign(signed))

    def view_change(
        self, height: int, view: int, prepared: PreparedProof | None, block: Block | None
    ) -> ViewChange:
        signed = view_change_bytes(self._chain_id, height, view, prepared, self.index)
        return ViewChange(height, view, prepared, self.index, self._sign(signed), block)

    def new_view(self, height: int, view: int, changes: tuple[ViewChange, ...]) -> NewView:
        signed = new_view_bytes(self._chain_id, height, view, changes)
        return NewView(height, view, changes, self.index, self._sign(signed))
