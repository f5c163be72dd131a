# SPDX-License-Identifier: Apache-2.0
"""Signatures that nobody in the simulation can forge, for a fiftieth of the time of real ones."""

from hashlib import blake2b, sha256
from hmac import compare_digest

from holdfast_node.chain.validators import Validator, ValidatorSet


class SimulatedKey:
    """A keyed hash in place of Ed25519; only the oracle and the owner know the key."""

    def __init__(self, index: int) -> None:
        self.index = index
        self._secret = sha256(b"simulated key %d" % index).digest()
        self.public_key = sha256(b"public" + self._secret).digest()

    def sign(self, message: bytes) -> bytes:
        return blake2b(message, key=self._secret, digest_size=64).digest()


class Keys:
    """All keys of a run: number `index` is that of the validator `v{index}`."""

    def __init__(self, count: int) -> None:
        self.all = [SimulatedKey(i) for i in range(count)]
        self._by_public_key = {k.public_key: k for k in self.all}
        self._genuine: set[tuple[bytes, bytes, bytes]] = set()  # everybody checks the same ones

    def validator(self, index: int) -> Validator:
        return Validator(f"v{index}", self.all[index].public_key)

    def owner(self, public_key: bytes) -> int | None:
        """Whose key it is."""
        key = self._by_public_key.get(public_key)
        return None if key is None else key.index

    def verify(self, public_key: bytes, message: bytes, signature: bytes) -> bool:
        triple = (public_key, message, signature)
        if triple in self._genuine:
            return True
        key = self._by_public_key.get(public_key)
        if key is None or not compare_digest(key.sign(message), signature):
            return False
        self._genuine.add(triple)
        return True


class SimulatedValidators(ValidatorSet):
    def __init__(self, validators: tuple[Validator, ...], keys: Keys) -> None:
        super().__init__(validators)
        self._keys = keys

    def verify(self, index: int, message: bytes, signature: bytes) -> bool:
        return self._keys.verify(self.validators[index].public_key, message, signature)
