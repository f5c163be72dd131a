# SPDX-License-Identifier: Apache-2.0
"""The validator set and its arithmetic."""

from bisect import bisect_right
from collections.abc import Iterator
from functools import cached_property
from typing import Final

from holdfast_node.chain.codec import Value, encode
from holdfast_node.chain.crypto import digest, verify
from holdfast_node.chain.transaction import PublicKey

MAX_VALIDATORS: Final = 256


class Validator(Value, frozen=True):
    """A member that votes: `name` is the one in its certificate, the key signs its votes."""

    name: str
    public_key: PublicKey


class ValidatorSet:
    """An ordered set of validators; a validator's index is its place in it."""

    def __init__(self, validators: tuple[Validator, ...]) -> None:
        if not validators:
            raise ValueError("a validator set needs at least one validator")
        self.validators = validators
        self._index = {validator.name: i for i, validator in enumerate(validators)}
        self._index_of_key = {v.public_key: i for i, v in enumerate(validators)}
        if not len(self._index) == len(self._index_of_key) == len(validators):
            raise ValueError("validators must differ in name and in public key")

    def __len__(self) -> int:
        return len(self.validators)

    def __getitem__(self, index: int) -> Validator:
        return self.validators[index]

    def __iter__(self) -> Iterator[Validator]:
        return iter(self.validators)

    def index_of(self, name: str) -> int | None:
        """The index of the validator called `name`, or None."""
        return self._index.get(name)

    def index_of_key(self, public_key: bytes) -> int | None:
        """The index of the validator that votes with this key, or None."""
        return self._index_of_key.get(public_key)

    def verify(self, index: int, message: bytes, signature: bytes) -> bool:
        """Tell whether `signature` is the validator's of this index over `message`."""
        return verify(self.validators[index].public_key, message, signature)

    @cached_property
    def tolerated_faults(self) -> int:
        """f: how many validators may be Byzantine."""
        return (len(self) - 1) // 3

    @cached_property
    def quorum(self) -> int:
        """Votes that decide: any two quorums share an honest validator.

        For n = 3f + 1 this is 2f + 1. For other n, 2f + 1 would let two quorums share nothing but
        faulty validators (n = 5 or 6), so the general bound is used.
        """
        return (len(self) + self.tolerated_faults) // 2 + 1

    def leader(self, view: int) -> int:
        """The index of the validator that proposes in `view`."""
        return view % len(self.validators)

    @cached_property
    def hash(self) -> bytes:
        """32 bytes that every block header repeats."""
        return digest("holdfast/validators/1", encode(self.validators))


class ValidatorHistory:
    """Which set of validators has its turn at which height; immutable.

    `changes` are pairs of the height from which on a set votes, ascending, and the set; `first` is
    the one before all of them, the genesis'.
    """

    def __init__(
        self, first: ValidatorSet, changes: tuple[tuple[int, ValidatorSet], ...] = ()
    ) -> None:
        self.activations = tuple(height for height, _ in changes)
        self._sets = (first, *(validators for _, validators in changes))

    def at(self, height: int) -> ValidatorSet:
        """The set that decides the block at `height`, as far as is known."""
        return self._sets[bisect_right(self.activations, height)]

    @property
    def last(self) -> ValidatorSet:
        """The set with the latest activation, which may be to come."""
        return self._sets[-1]

    def extended(self, height: int, validators: ValidatorSet) -> "ValidatorHistory":
        """The same, with another set from `height` on, which is later than all activations."""
        changes = zip((*self.activations, height), (*self._sets[1:], validators), strict=True)
        return ValidatorHistory(self._sets[0], tuple(changes))
