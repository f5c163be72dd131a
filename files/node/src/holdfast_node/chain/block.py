# SPDX-License-Identifier: Apache-2.0
"""Blocks, votes and commit certificates."""

from functools import cached_property
from typing import Annotated, Final, Literal, TypeAlias

from msgspec import Meta

from holdfast_node.chain.codec import Value, encode
from holdfast_node.chain.crypto import digest
from holdfast_node.chain.merkle import merkle_root
from holdfast_node.chain.transaction import Natural, Signature
from holdfast_node.chain.validators import MAX_VALIDATORS, ValidatorSet
from holdfast_node.errors import RefusedError

Hash: TypeAlias = Annotated[bytes, Meta(min_length=32, max_length=32)]
VoteKind: TypeAlias = Literal["pre-prepare", "prepare", "commit"]

MAX_BLOCK_TRANSACTIONS: Final = 100_000


class Header(Value, frozen=True, dict=True):
    """What a block's hash covers.

    `view` is the view in which the block was first proposed; the next height starts in it.
    `time_ms` is the proposer's clock, Unix milliseconds, later than the parent's.
    `state_root` is the state after this block. `validators_hash` names the set that certifies this
    block, `next_validators_hash` that of the next height.
    """

    chain_id: str
    height: Natural
    view: Natural
    time_ms: Natural
    previous: Hash
    transactions_root: Hash
    state_root: Hash
    validators_hash: Hash
    next_validators_hash: Hash

    @cached_property
    def hash(self) -> bytes:
        return digest("holdfast/block/1", encode(self))


class Block(Value, frozen=True, dict=True):
    """A header and the encoded transactions it commits to, in execution order."""

    header: Header
    transactions: Annotated[tuple[bytes, ...], Meta(max_length=MAX_BLOCK_TRANSACTIONS)]

    @property
    def hash(self) -> bytes:
        return self.header.hash

    @property
    def height(self) -> int:
        return self.header.height

    def has_valid_transactions_root(self) -> bool:
        return self._transactions_root == self.header.transactions_root

    @cached_property
    def _transactions_root(self) -> bytes:
        return merkle_root(self.transactions)


def vote_bytes(kind: VoteKind, chain_id: str, height: int, view: int, block_hash: bytes) -> bytes:
    """The bytes a validator signs to vote for a block."""
    return encode((f"holdfast/{kind}/1", chain_id, height, view, block_hash))


class VoteSignature(Value, frozen=True):
    """A vote as part of a proof: the validator's index and its signature."""

    validator: Annotated[int, Meta(ge=0, lt=MAX_VALIDATORS)]
    signature: Signature


class Certificate(Value, frozen=True):
    """Proof that a block is final: a quorum of commit votes in one view."""

    height: Natural
    view: Natural
    block_hash: Hash
    signatures: Annotated[tuple[VoteSignature, ...], Meta(max_length=MAX_VALIDATORS)]

    def check(self, chain_id: str, validators: ValidatorSet) -> None:
        """Raise `RefusedError("bad_certificate")` unless a quorum of `validators` signed."""
        if len(self.signatures) < validators.quorum:
            raise RefusedError(
                "bad_certificate",
                f"{len(self.signatures)} votes for block {self.height}: expected a quorum of "
                f"{validators.quorum}",
            )
        subject = (self.height, self.view, self.block_hash)
        check_votes("commit", chain_id, subject, self.signatures, validators)


class CertifiedHeader(Value, frozen=True):
    """A header that is final: what a proof needs of a block."""

    header: Header
    certificate: Certificate

    def check(self, chain_id: str, validators: ValidatorSet) -> None:
        """Raise `RefusedError` unless `validators`, those of its height, made it final."""
        _check_subject(self.header, self.certificate, chain_id, validators)
        self.certificate.check(chain_id, validators)


class CertifiedBlock(Value, frozen=True):
    block: Block
    certificate: Certificate

    def check(self, chain_id: str, validators: ValidatorSet) -> None:
        """Raise `RefusedError` unless the certificate is valid and about this very block.

        `validators` are those of its height.
        """
        _check_subject(self.block.header, self.certificate, chain_id, validators)
        if not self.block.has_valid_transactions_root():
            raise RefusedError("bad_block", "the transactions do not match their root")
        self.certificate.check(chain_id, validators)


def _check_subject(
    header: Header, certificate: Certificate, chain_id: str, validators: ValidatorSet
) -> None:
    if header.chain_id != chain_id:
        raise RefusedError("foreign_chain", f"block of chain {header.chain_id!r}")
    if certificate.block_hash != header.hash:
        raise RefusedError("bad_certificate", "the certificate is about another block")
    if certificate.height != header.height:
        raise RefusedError("bad_certificate", "the certificate is about another height")
    if header.validators_hash != validators.hash:
        raise RefusedError("bad_certificate", "the block names another validator set")


def check_votes(
    kind: VoteKind,
    chain_id: str,
    subject: tuple[int, int, bytes],
    signatures: tuple[VoteSignature, ...],
    validators: ValidatorSet,
) -> None:
    """Check that `signatures` are valid votes of different validators, sorted by index.

    `subject` is what they are about: height, view and block hash.

    Raises `RefusedError("bad_certificate")`.
    """
    indexes = [vote.validator for vote in signatures]
    if indexes != sorted(set(indexes)) or (indexes and indexes[-1] >= len(validators)):
        raise RefusedError("bad_certificate", "votes must be sorted, distinct and of members")
    message = vote_bytes(kind, chain_id, *subject)
    for vote in signatures:
        if not validators.verify(vote.validator, message, vote.signature):
            raise RefusedError(
                "bad_certificate", f"wrong signature of {validators[vote.validator].name}"
            )
