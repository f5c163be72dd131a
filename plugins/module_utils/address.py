# Copyright: (c) 2026, Holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Addresses of accounts, for what the controller must know of them.

The node's own ``chain/crypto.py`` defines the form; a unit test compares the two.
"""

from __future__ import annotations

import hashlib

_PREFIX = "hf"
_VERSION = b"\x01"
_BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_BYTES = 25  # version, 20 bytes of account, 4 of checksum


def address_of(public_key: bytes) -> str:
    """The address of an Ed25519 public key of 32 bytes."""
    account = hashlib.sha256(b"holdfast/account/1\x00" + public_key).digest()[:20]
    payload = _VERSION + account
    number = int.from_bytes(payload + _checksum(payload), "big")
    digits = ""
    while number:
        number, remainder = divmod(number, 58)
        digits = _BASE58[remainder] + digits
    return _PREFIX + digits


def is_address(text: str) -> bool:
    """Whether text is an address; a mistyped character makes it none."""
    digits = text[len(_PREFIX) :]
    if not text.startswith(_PREFIX) or not digits or len(digits) > 40:
        return False
    number = 0
    for digit in digits:
        value = _BASE58.find(digit)
        if value < 0:
            return False
        number = number * 58 + value
    if number.bit_length() > _BYTES * 8:
        return False
    payload = number.to_bytes(_BYTES, "big")
    return payload[:1] == _VERSION and _checksum(payload[:-4]) == payload[-4:]


def _checksum(payload: bytes) -> bytes:
    return hashlib.sha256(hashlib.sha256(payload).digest()).digest()[:4]
