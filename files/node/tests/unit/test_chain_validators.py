# SPDX-License-Identifier: Apache-2.0
"""Quorum arithmetic, by counting instead of by formula."""

import pytest

from holdfast_node.chain.crypto import PrivateKey
from holdfast_node.chain.validators import Validator, ValidatorSet


def members(n: int) -> ValidatorSet:
    return ValidatorSet(
        tuple(Validator(f"v{i}", PrivateKey(bytes([i + 1]) * 32).public_key) for i in range(n))
    )


@pytest.mark.parametrize("n", range(1, 21))
def test_two_quorums_share_an_honest_validator(n: int) -> None:
    """Safety and liveness: any two quorums meet in more than f, and n - f suffice for one."""
    validators = members(n)
    f, q = validators.tolerated_faults, validators.quorum
    # Two sets of q out of n share at least 2q - n members.
    assert 2 * q - n > f
    assert q <= n - f
    # f is the largest number for which that can be had, q the smallest quorum.
    assert n > 3 * f
    assert n <= 3 * (f + 1)
    assert 2 * (q - 1) - n <= f


@pytest.mark.parametrize(("n", "f", "q"), [(1, 0, 1), (3, 0, 2), (4, 1, 3), (6, 1, 4), (7, 2, 5)])
def test_known_sizes(n: int, f: int, q: int) -> None:
    assert (members(n).tolerated_faults, members(n).quorum) == (f, q)


def test_everybody_leads_in_turn() -> None:
    assert [members(4).leader(view) for view in range(6)] == [0, 1, 2, 3, 0, 1]


def test_members_are_distinct() -> None:
    one, two = members(2)
    for wrong in ((), (one, one), (one, Validator("v9", one.public_key)), (one, two, one)):
        with pytest.raises(ValueError, match="validator"):
            ValidatorSet(wrong)


def test_lookup_and_hash() -> None:
    validators = members(4)
    assert validators.index_of("v2") == 2
    assert validators.index_of("v4") is None
    assert list(validators) == [validators[i] for i in range(len(validators))]
    assert members(4).hash == validators.hash
    assert ValidatorSet(validators.validators[::-1]).hash != validators.hash
