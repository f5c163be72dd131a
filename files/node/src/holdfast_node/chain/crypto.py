# SPDX-License-Identifier: Apache-2.0
"""Hashes, Ed25519 signatures and addresses.

All validators must agree on which signatures are valid, and libraries differ at the edges of
Ed25519; hence one backend (libsodium) for all of them, which refuses small-order keys and
non-canonical signatures.
"""

from hashlib import sha256
from typing import Final

import nacl.bindings
import nacl.exceptions

from holdfast_node.errors import RefusedError

HASH_BYTES: Final = 32
PUBLIC_KEY_BYTES: Final = 32
SIGNATURE_BYTES: Final = 64
ADDRESS_BYTES: Final = 20
ZERO_HASH: Final = bytes(HASH_BYTES)

_ADDRESS_PREFIX: Final = "hf"
_ADDRESS_VERSION: Final = b"\x01"
_BASE58: Final = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"


def digest(domain: str, data: bytes) -> bytes:
    """SHA-256 of `data`, separated by `domain` so that no two kinds of value share a hash."""
    return sha256(domain.encode() + b"\x00" + data).digest()


class PrivateKey:
    """An Ed25519 signing key; its representation never shows the secret."""

    __slots__ = ("_secret", "public_key")

    def __init__(self, seed: bytes) -> None:
        self.public_key, self._secret = nacl.bindings.crypto_sign_seed_keypair(seed)

    def __repr__(self) -> str:
        return f"PrivateKey(public_key={self.public_key.hex()})"

    @property
    def seed(self) -> bytes:
        """The 32 secret bytes, for writing a key file."""
        return nacl.bindings.crypto_sign_ed25519_sk_to_seed(self._secret)

    def sign(self, message: bytes) -> bytes:
        """Return the 64-byte signature of `message`."""
        return nacl.bindings.crypto_sign(message, self._secret)[:SIGNATURE_BYTES]


def verify(public_key: bytes, message: bytes, signature: bytes) -> bool:
    """Tell whether `signature` (64 bytes) is `public_key`'s (32 bytes) over `message`."""
    if len(signature) != SIGNATURE_BYTES or len(public_key) != PUBLIC_KEY_BYTES:
        return False
    try:
        nacl.bindings.crypto_sign_open(signature + message, public_key)
    except nacl.exceptions.BadSignatureError:
        return False
    return True


def account_of(public_key: bytes) -> bytes:
    """The 20-byte account identifier of a public key."""
    return digest("holdfast/account/1", public_key)[:ADDRESS_BYTES]


def format_address(account: bytes) -> str:
    """Write an account identifier for people: `hf` and Base58Check, so that a typo is noticed."""
    payload = _ADDRESS_VERSION + account
    payload += sha256(sha256(payload).digest()).digest()[:4]
    number = int.from_bytes(payload, "big")
    digits = ""
    while number:
        number, remainder = divmod(number, 58)
        digits = _BASE58[remainder] + digits
    return _ADDRESS_PREFIX + digits


def parse_address(text: str) -> bytes:
    """Read an address; the inverse of `format_address`.

    Raises `RefusedError("bad_address")` for another prefix, length, alphabet or checksum.
    """
    fault = RefusedError(
        "bad_address", f"{text[:80]!r} is not an address: expected 'hf' and Base58Check digits"
    )
    digits = text.removeprefix(_ADDRESS_PREFIX)
    if digits == text or len(digits) > 40:
        raise fault
    number = 0
    for digit in digits:
        value = _BASE58.find(digit)
        if value < 0:
            raise fault
        number = number * 58 + value
    if number.bit_length() > 25 * 8:
        raise fault
    payload = number.to_bytes(25, "big")
    body, checksum = payload[:-4], payload[-4:]
    if sha256(sha256(body).digest()).digest()[:4] != checksum or body[:1] != _ADDRESS_VERSION:
        raise fault
    if format_address(body[1:]) != text:  # leading zeros: one account has one spelling
        raise fault
    return body[1:]
