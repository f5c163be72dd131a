# SPDX-License-Identifier: Apache-2.0
"""Signatures that nobody in the simulation can forge, for a fiftieth of the time of real ones."""

from hashlib import blake2b, sha256
from hmac import compare_digest

from holdfast_node.chain.validators import Validator, ValidatorSet


class SimulatedKey:
    """A keyed hash in place of Ed25519; only the oracle and the owner know the key."""

    def __init__(self, index: int) -> None:
        self._secret = sha256(b"simulated key %d" % index).digest()
        self.public_key = sha256(b"public" + self._secret).digest()

    def sign(self, message: bytes) -> bytes:
        return blake2b(message, key=self._secret, digest_size=64).digest()


class SimulatedValidators(ValidatorSet):
    def __init__(self, keys: list[SimulatedKey]) -> None:
        super().__init__(tuple(Validator(f"v{i}", key.public_key) for i, key in enumerate(keys)))
        self._keys = keys

    def verify(self, index: int, message: bytes, signature: bytes) -> bool:
        return compare_digest(self._keys[index].sign(message), signature)
