# SPDX-License-Identifier: Apache-2.0
"""Proofs that anybody can check who has the genesis: of a transaction, and of a stretch of chain.

Nothing in a proof is taken on trust but the validators' public keys in the genesis. A certificate
makes its block final, a trail leads to those who may sign it; a block's header commits to its
transactions by a Merkle root and to its parent by a hash, down to the genesis.
"""

from typing import Annotated, Final

from msgspec import Meta

from holdfast_node.chain.block import (
    MAX_BLOCK_TRANSACTIONS,
    Certificate,
    CertifiedBlock,
    CertifiedHeader,
    Hash,
    Header,
)
from holdfast_node.chain.codec import Value
from holdfast_node.chain.genesis import Genesis
from holdfast_node.chain.merkle import audit_path, root_of_path
from holdfast_node.chain.trail import Trail, walk
from holdfast_node.errors import RefusedError

MAX_HEADERS: Final = 1_000


class TransactionProof(Value, frozen=True):
    """`transaction` (encoded) is in the final block with `header`.

    `index` and `count` tell where `path` turns left and right. They are the prover's word, since a
    header does not say how many transactions its root covers; that the transaction is there does
    not depend on them. Whether its actions took effect follows from executing the chain, and is
    not part of the header.
    """

    transaction: bytes
    index: Annotated[int, Meta(ge=0, lt=MAX_BLOCK_TRANSACTIONS)]
    count: Annotated[int, Meta(ge=1, le=MAX_BLOCK_TRANSACTIONS)]
    path: Annotated[tuple[Hash, ...], Meta(max_length=64)]
    header: Header
    certificate: Certificate
    trail: Trail = ()

    def check(self, genesis: Genesis) -> None:
        """Raise `RefusedError` unless the proof holds."""
        root = root_of_path(self.transaction, self.index, self.count, self.path)
        if root != self.header.transactions_root:
            raise RefusedError("bad_proof", "the transaction is not under the block's Merkle root")
        _check_final(self.header, self.certificate, self.trail, genesis)


class ChainProof(Value, frozen=True):
    """Consecutive headers, each the parent of the next; the last is final by `certificate`."""

    headers: Annotated[tuple[Header, ...], Meta(min_length=1, max_length=MAX_HEADERS)]
    certificate: Certificate
    trail: Trail = ()

    def check(self, genesis: Genesis) -> None:
        """Raise `RefusedError` unless every header is an ancestor of a final block."""
        first = self.headers[0]
        if first.height == 1 and first.previous != genesis.hash:
            raise RefusedError("bad_proof", "block 1 does not follow this genesis")
        for parent, child in zip(self.headers, self.headers[1:], strict=False):
            if child.height != parent.height + 1 or child.previous != parent.hash:
                raise RefusedError(
                    "bad_proof", f"block {child.height} does not follow block {parent.height}"
                )
        _check_final(self.headers[-1], self.certificate, self.trail, genesis)


def _check_final(header: Header, certificate: Certificate, trail: Trail, genesis: Genesis) -> None:
    if trail and trail[-1].certified.header.height >= header.height:
        raise RefusedError("bad_proof", "the trail leads beyond the block")
    CertifiedHeader(header, certificate).check(genesis.chain_id, walk(genesis, trail))


def prove_transaction(certified: CertifiedBlock, index: int, trail: Trail = ()) -> TransactionProof:
    """Prove that the block's transaction `index` is in it; `trail` leads to its height."""
    block = certified.block
    return TransactionProof(
        block.transactions[index],
        index,
        len(block.transactions),
        audit_path(block.transactions, index),
        block.header,
        certified.certificate,
        trail,
    )
