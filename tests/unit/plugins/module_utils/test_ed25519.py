# Copyright: (c) 2026, Holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ed25519 as verified on hosts: the RFC's own examples, another library's signatures, forgeries."""

from __future__ import annotations

import hashlib

import pytest
from ansible_collections.holdfast.chain.plugins.module_utils import ed25519
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

# RFC 8032, section 7.1: public key, message, signature.
EXAMPLES = {
    "1": (
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e06522490155"
        "5fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
    ),
    "2": (
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
        "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
    ),
    "3": (
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "af82",
        "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac"
        "18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a",
    ),
}
ORDER = 2**252 + 27742317777372353535851937790883648493
KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PUBLIC = KEY.public_key().public_bytes_raw()
# Encodings of points of order 1, 2, 4 and 8 (two of them not canonical).
SMALL = (
    "0100000000000000000000000000000000000000000000000000000000000000",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "0000000000000000000000000000000000000000000000000000000000000080",
    "0000000000000000000000000000000000000000000000000000000000000000",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "0100000000000000000000000000000000000000000000000000000000000080",
)


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_rfc_s_examples(name):
    key, message, signature = (bytes.fromhex(text) for text in EXAMPLES[name])
    assert ed25519.verify(key, signature, message)
    assert not ed25519.verify(key, signature, message + b"x")


@settings(max_examples=25, deadline=None)
@given(seed=st.binary(min_size=32, max_size=32), message=st.binary(max_size=200), data=st.data())
def test_what_another_library_signed_and_any_one_bit_of_it_changed(seed, message, data):
    key = Ed25519PrivateKey.from_private_bytes(seed)
    parts = [key.public_key().public_bytes_raw(), key.sign(message), message]
    assert ed25519.verify(*parts)
    which = data.draw(st.sampled_from([index for index, part in enumerate(parts) if part]))
    bit = data.draw(st.integers(0, len(parts[which]) * 8 - 1))
    changed = bytearray(parts[which])
    changed[bit // 8] ^= 1 << bit % 8
    parts[which] = bytes(changed)
    assert not ed25519.verify(*parts)


@pytest.mark.parametrize(("key", "signature"), [(31, 64), (33, 64), (32, 63), (32, 65), (0, 0)])
def test_other_sizes_are_no_signature(key, signature):
    assert not ed25519.verify(bytes(key), bytes(signature), b"")


def test_a_second_form_of_a_signature_is_refused():
    """S + L verifies the same equation; whoever could send it could make two of one signature."""
    signature = KEY.sign(b"message")
    scalar = int.from_bytes(signature[32:], "little") + ORDER
    assert not ed25519.verify(PUBLIC, signature[:32] + scalar.to_bytes(32, "little"), b"message")


@pytest.mark.parametrize("point", SMALL)
def test_points_of_small_order_vouch_for_nothing(point):
    """With such a key, R = the neutral point and S = 0 would be a signature of many messages."""
    neutral = bytes.fromhex(SMALL[0]) + bytes(32)
    for number in range(16):
        message = hashlib.sha256(bytes([number])).digest()
        assert not ed25519.verify(bytes.fromhex(point), neutral, message)
        assert not ed25519.verify(PUBLIC, bytes.fromhex(point) + bytes(32), message)
