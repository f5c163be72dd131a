# SPDX-License-Identifier: Apache-2.0
"""A block is final only with votes of a quorum, about this very block."""

from collections.abc import Callable

import msgspec
import pytest

from holdfast_node.chain.block import (
    Block,
    Certificate,
    CertifiedBlock,
    Header,
    VoteSignature,
    vote_bytes,
)
from holdfast_node.chain.codec import decode, encode
from holdfast_node.chain.crypto import ZERO_HASH, PrivateKey
from holdfast_node.chain.merkle import merkle_root
from holdfast_node.chain.validators import Validator, ValidatorSet
from holdfast_node.errors import RefusedError

KEYS = [PrivateKey(bytes([i]) * 32) for i in range(1, 5)]
MEMBERS = ValidatorSet(tuple(Validator(f"v{i}", k.public_key) for i, k in enumerate(KEYS)))


def make_block(transactions: tuple[bytes, ...] = (b"one", b"two")) -> Block:
    root = merkle_root(transactions)
    return Block(
        Header("unit", 7, 3, 1000, b"\x01" * 32, root, b"\x02" * 32, MEMBERS.hash, MEMBERS.hash),
        transactions,
    )


def votes(block: Block, who: tuple[int, ...], view: int = 3) -> tuple[VoteSignature, ...]:
    message = vote_bytes("commit", "unit", 7, view, block.hash)
    return tuple(VoteSignature(i, KEYS[i % 4].sign(message)) for i in who)


def certified(who: tuple[int, ...] = (0, 1, 3), view: int = 3) -> CertifiedBlock:
    block = make_block()
    return CertifiedBlock(block, Certificate(7, view, block.hash, votes(block, who, view)))


@pytest.mark.parametrize("who", [(0, 1, 2), (0, 1, 3), (1, 2, 3), (0, 1, 2, 3)])
def test_a_quorum_certifies(who: tuple[int, ...]) -> None:
    certified(who).check("unit", MEMBERS)
    certified(who, view=9).check("unit", MEMBERS)  # decided in a later view than proposed


def test_encoding_comes_back() -> None:
    assert decode(encode(certified()), CertifiedBlock) == certified()


@pytest.mark.parametrize("who", [(), (0,), (0, 1), (0, 0, 1), (1, 0, 2), (0, 1, 1, 1), (0, 1, 4)])
def test_no_quorum(who: tuple[int, ...]) -> None:
    """Too few, one twice, out of order, or no member."""
    with pytest.raises(RefusedError) as caught:
        certified(who).check("unit", MEMBERS)
    assert caught.value.code == "bad_certificate"


def with_certificate(**changes: object) -> Callable[[CertifiedBlock], CertifiedBlock]:
    return lambda good: msgspec.structs.replace(
        good, certificate=msgspec.structs.replace(good.certificate, **changes)
    )


def with_header(**changes: object) -> Callable[[CertifiedBlock], CertifiedBlock]:
    def change(good: CertifiedBlock) -> CertifiedBlock:
        header = msgspec.structs.replace(good.block.header, **changes)
        block = Block(header, good.block.transactions)
        certificate = Certificate(header.height, 3, block.hash, votes(block, (0, 1, 2)))
        return CertifiedBlock(block, certificate)

    return change


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (with_certificate(view=4), "bad_certificate"),
        (with_certificate(height=8), "bad_certificate"),
        (with_certificate(block_hash=ZERO_HASH), "bad_certificate"),
        (with_certificate(signatures=votes(make_block((b"x",)), (0, 1, 2))), "bad_certificate"),
        (with_header(validators_hash=ZERO_HASH), "bad_certificate"),
        (with_header(chain_id="other"), "foreign_chain"),
        (with_header(transactions_root=ZERO_HASH), "bad_block"),
        (
            lambda good: msgspec.structs.replace(
                good, block=Block(good.block.header, (b"two", b"one"))
            ),
            "bad_block",
        ),
    ],
)
def test_a_certificate_is_about_one_block(
    change: Callable[[CertifiedBlock], CertifiedBlock], code: str
) -> None:
    with pytest.raises(RefusedError) as caught:
        change(certified()).check("unit", MEMBERS)
    assert caught.value.code == code


def test_votes_of_another_kind_do_not_count() -> None:
    """A prepare vote shown as a commit vote would decide too early."""
    block = make_block()
    prepares = tuple(
        VoteSignature(i, KEYS[i].sign(vote_bytes("prepare", "unit", 7, 3, block.hash)))
        for i in range(3)
    )
    with pytest.raises(RefusedError, match="wrong signature of v0"):
        CertifiedBlock(block, Certificate(7, 3, block.hash, prepares)).check("unit", MEMBERS)


def test_every_header_field_is_covered_by_the_hash() -> None:
    header = make_block().header
    changed = {
        "chain_id": "x",
        "height": 8,
        "view": 4,
        "time_ms": 1001,
        "previous": ZERO_HASH,
        "transactions_root": ZERO_HASH,
        "state_root": ZERO_HASH,
        "validators_hash": ZERO_HASH,
        "next_validators_hash": ZERO_HASH,
    }
    assert set(changed) == set(header.__struct_fields__)
    hashes = {
        msgspec.structs.replace(header, **{name: value}).hash for name, value in changed.items()
    }
    assert len(hashes | {header.hash}) == len(changed) + 1
