# SPDX-License-Identifier: Apache-2.0
"""Signatures against the vectors of RFC 8032, and addresses a person can mistype."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast_node.chain.crypto import (
    PrivateKey,
    account_of,
    digest,
    format_address,
    parse_address,
    verify,
)
from holdfast_node.errors import RefusedError

# RFC 8032, section 7.1, tests 1 to 3: seed, public key, message, signature.
RFC_8032 = [
    (
        "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        (
            "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46b"
            "d25bf5f0595bbe24655141438e7a100b"
        ),
    ),
    (
        "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        (
            "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c"
            "387b2eaeb4302aeeb00d291612bb0c00"
        ),
    ),
    (
        "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "af82",
        (
            "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc659"
            "4a7c15e9716ed28dc027beceea1ec40a"
        ),
    ),
]
GROUP_ORDER = 2**252 + 27742317777372353535851937790883648493


@pytest.mark.parametrize(("seed", "public", "message", "signature"), RFC_8032)
def test_ed25519_vectors(seed: str, public: str, message: str, signature: str) -> None:
    key = PrivateKey(bytes.fromhex(seed))
    assert key.public_key.hex() == public
    assert key.sign(bytes.fromhex(message)).hex() == signature
    assert key.seed.hex() == seed
    assert verify(key.public_key, bytes.fromhex(message), bytes.fromhex(signature))


def test_wrong_signatures_do_not_verify() -> None:
    """A bit anywhere, another message, another key, another length."""
    key = PrivateKey(bytes(32))
    signature = key.sign(b"message")
    for bit in range(0, 512, 37):
        changed = bytearray(signature)
        changed[bit // 8] ^= 1 << bit % 8
        assert not verify(key.public_key, b"message", bytes(changed))
    assert not verify(key.public_key, b"other", signature)
    assert not verify(PrivateKey(b"\x01" * 32).public_key, b"message", signature)
    assert not verify(key.public_key, b"message", signature[:-1])
    assert not verify(key.public_key, b"message", signature + b"\x00")
    assert not verify(key.public_key[:-1], b"message", signature)


def test_malleated_signature_does_not_verify() -> None:
    """s + L solves the same equation; accepting it gives one transaction two identifiers."""
    key = PrivateKey(bytes(32))
    signature = key.sign(b"message")
    s = int.from_bytes(signature[32:], "little") + GROUP_ORDER
    assert not verify(key.public_key, b"message", signature[:32] + s.to_bytes(32, "little"))


@pytest.mark.parametrize(
    "point",
    [
        bytes(32),  # order 4
        b"\x01" + bytes(31),  # the neutral element
        b"\xec" + b"\xff" * 30 + b"\x7f",  # order 2
        b"\xee" + b"\xff" * 30 + b"\x7f",  # the neutral element, not canonical
        bytes.fromhex(
            "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"
        ),  # order 8
    ],
)
def test_small_order_keys_verify_nothing(point: bytes) -> None:
    """With such a key R = A, s = 0 would pass for a signature of about any message."""
    for r in (point, b"\x01" + bytes(31)):
        assert not any(verify(point, bytes([i]), r + bytes(32)) for i in range(16))


def test_the_secret_is_not_shown() -> None:
    key = PrivateKey(b"\x07" * 32)
    assert "07" * 8 not in repr(key)
    assert key.public_key.hex() in repr(key)


def test_domains_separate_hashes() -> None:
    assert digest("a", b"bc") != digest("ab", b"c")


@given(st.binary(min_size=20, max_size=20))
def test_addresses_come_back(account: bytes) -> None:
    address = format_address(account)
    assert parse_address(address) == account
    assert address.startswith("hf")


@given(st.binary(min_size=20, max_size=20), st.data())
def test_a_typo_in_an_address_is_noticed(account: bytes, data: st.DataObject) -> None:
    """Another digit in one place, or two neighbours swapped, is no address."""
    address = format_address(account)
    i = data.draw(st.integers(2, len(address) - 2))
    letter = data.draw(
        st.sampled_from("123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz")
    )
    swapped = address[:i] + address[i + 1] + address[i] + address[i + 2 :]
    for typo in (address[:i] + letter + address[i + 1 :], swapped):
        if typo != address:
            with pytest.raises(RefusedError) as caught:
                parse_address(typo)
            assert caught.value.code == "bad_address"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "hf",
        "hf1",
        "HF" + format_address(bytes(20))[2:],
        format_address(bytes(20))[2:],
        format_address(bytes(20)) + "1",
        format_address(bytes(20))[:-1],
        "hf1" + format_address(bytes(20))[2:],
        " " + format_address(bytes(20)),
        format_address(bytes(20)) + "\n",
        "hf" + "z" * 40,
        "hf" + "z" * 1_000_000,
        "hf0OIl",
        "hf\u0661\u0662",
    ],
)
def test_what_is_no_address_is_refused(text: str) -> None:
    """Also a second spelling of an address: the same account must not appear twice."""
    with pytest.raises(RefusedError) as caught:
        parse_address(text)
    assert caught.value.code == "bad_address"
    assert len(caught.value.message) < 300


def test_account_is_20_bytes_of_the_public_key() -> None:
    key = PrivateKey(bytes(32))
    assert account_of(key.public_key) == digest("holdfast/account/1", key.public_key)[:20]
