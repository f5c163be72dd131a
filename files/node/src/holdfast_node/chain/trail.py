# SPDX-License-Identifier: Apache-2.0
"""The way from the genesis to the validators of any height, for whoever has the genesis only.

A header names the set of its own height, which certifies it, and that of the next one. So every
change of the set is vouched for by a quorum of the set before it.
"""

from collections.abc import Iterable
from typing import Annotated, Final, TypeAlias

from msgspec import Meta

from holdfast_node.chain.block import CertifiedHeader
from holdfast_node.chain.codec import Value
from holdfast_node.chain.genesis import Genesis
from holdfast_node.chain.validators import (
    MAX_VALIDATORS,
    Validator,
    ValidatorHistory,
    ValidatorSet,
)
from holdfast_node.errors import RefusedError

MAX_CHANGES: Final = 4_096


class TrailStep(Value, frozen=True):
    """The last block that the old set certifies, and the set that takes over after it."""

    certified: CertifiedHeader
    next_set: Annotated[tuple[Validator, ...], Meta(max_length=MAX_VALIDATORS)]


Trail: TypeAlias = Annotated[tuple[TrailStep, ...], Meta(max_length=MAX_CHANGES)]


def history(genesis: Genesis, steps: Iterable[TrailStep]) -> ValidatorHistory:
    """The sets of all heights up to the last of `steps`, proved from the genesis.

    What lies above is the last set's, unless a step was kept back: compare the header's
    `validators_hash`, as `CertifiedHeader.check` does.

    Raises `RefusedError`.
    """
    proved = ValidatorHistory(genesis.validator_set)
    last = 0
    for step in steps:
        header = step.certified.header
        if header.height <= last:
            raise RefusedError("bad_trail", f"step {header.height} does not follow step {last}")
        step.certified.check(genesis.chain_id, proved.last)
        try:
            validators = ValidatorSet(step.next_set)
        except ValueError as error:
            raise RefusedError("bad_trail", f"step {header.height}: {error}") from error
        if validators.hash != header.next_validators_hash:
            raise RefusedError("bad_trail", f"block {header.height} names other successors")
        if validators.hash == header.validators_hash:
            raise RefusedError("bad_trail", f"block {header.height} changes nothing")
        proved = proved.extended(header.height + 1, validators)
        last = header.height
    return proved


def walk(genesis: Genesis, steps: Iterable[TrailStep]) -> ValidatorSet:
    """The set after all of `steps`, proved from the genesis. Raises `RefusedError`."""
    return history(genesis, steps).last
