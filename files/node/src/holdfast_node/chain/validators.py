# SPDX-License-Identifier: Apache-2.0
"""The validator set and its arithmetic."""

from collections.abc import Iterator
from functools import cached_property

from holdfast_node.chain.codec import Value, encode
from holdfast_node.chain.crypto import digest, verify
from holdfast_node.chain.transaction import PublicKey


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
        keys = {validator.public_key for validator in validators}
        if len(self._index) != len(validators) or len(keys) != len(validators):
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

    def verify(self, index: int, message: bytes, signature: bytes) -> bool:
        """Tell whether `signature` is the validator's of this index over `message`."""
        return verify(self.validators[index].public_key, message, signature)

    @property
    def tolerated_faults(self) -> int:
        """f: how many validators may be Byzantine."""
        return (len(self) - 1) // 3

    @property
    def quorum(self) -> int:
        """Votes that decide: any two quorums share an honest validator.

        For n = 3f + 1 this is 2f + 1. For other n, 2f + 1 would let two quorums share nothing but
        faulty validators (n = 5 or 6), so the general bound is used.
        """
        return (len(self) + self.tolerated_faults) // 2 + 1

    def leader(self, view: int) -> int:
        """The index of the validator that proposes in `view`."""
        return view % len(self)

    @cached_property
    def hash(self) -> bytes:
        """32 bytes that every block header repeats."""
        return digest("holdfast/validators/1", encode(self.validators))
