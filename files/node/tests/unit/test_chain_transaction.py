# SPDX-License-Identifier: Apache-2.0
"""What a client signs, and what is refused before any signature is looked at."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast_node.chain.codec import encode
from holdfast_node.chain.crypto import PrivateKey, account_of
from holdfast_node.chain.transaction import (
    MAX_ACTIONS,
    MAX_AMOUNT,
    MAX_TRANSACTION_BYTES,
    MAX_VALUE_BYTES,
    Put,
    Transaction,
    TransactionBody,
    Transfer,
    decode_transaction,
    sign_transaction,
    transaction_id,
)
from holdfast_node.errors import RefusedError

KEY = PrivateKey(b"\x05" * 32)
TO = bytes(20)

actions = st.one_of(
    st.builds(Transfer, st.binary(min_size=20, max_size=20), st.integers(1, MAX_AMOUNT)),
    st.builds(Put, st.text(min_size=1, max_size=256), st.binary(max_size=100)),
)


def signed(*acts: Transfer | Put, nonce: int = 0, chain_id: str = "unit") -> bytes:
    return sign_transaction(KEY, chain_id=chain_id, nonce=nonce, expires_at_ms=1, actions=acts)


@given(st.lists(actions, min_size=1, max_size=5), st.integers(0, MAX_AMOUNT))
def test_signed_transactions_verify(acts: list[Transfer | Put], nonce: int) -> None:
    """What a client builds decodes to the same and verifies."""
    raw = signed(*acts, nonce=nonce)
    transaction = decode_transaction(raw)
    assert transaction.verify_signature()
    assert transaction.body == TransactionBody("unit", KEY.public_key, nonce, 1, tuple(acts))
    assert transaction.sender == account_of(KEY.public_key)
    assert len(transaction_id(raw)) == 32


@given(st.data())
def test_no_byte_can_be_changed(data: st.DataObject) -> None:
    """Every byte is covered by form or signature."""
    raw = bytearray(signed(Transfer(TO, 5), Put("name", b"value")))
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        valid = decode_transaction(bytes(raw)).verify_signature()
    except RefusedError:
        valid = False
    assert not valid


def test_another_chain_or_nonce_is_another_signature() -> None:
    """Replay on another chain, or a second time, does not verify."""
    transaction = decode_transaction(signed(Transfer(TO, 5)))
    for other in (signed(Transfer(TO, 5), chain_id="other"), signed(Transfer(TO, 5), nonce=1)):
        moved = Transaction(decode_transaction(other).body, transaction.signature)
        assert not moved.verify_signature()


@pytest.mark.parametrize(
    "body",
    [
        ("unit", KEY.public_key, 0, 1, ()),
        ("unit", KEY.public_key, 0, 1, (Put("k", b""),) * (MAX_ACTIONS + 1)),
        ("unit", KEY.public_key, 0, 1, (("transfer", TO, 0),)),
        ("unit", KEY.public_key, 0, 1, (("transfer", TO, -1),)),
        ("unit", KEY.public_key, 0, 1, (("transfer", TO, MAX_AMOUNT + 1),)),
        ("unit", KEY.public_key, 0, 1, (("transfer", TO, 1.0),)),
        ("unit", KEY.public_key, 0, 1, (("transfer", TO + b"\x00", 1),)),
        ("unit", KEY.public_key, 0, 1, (("transfer", TO),)),
        ("unit", KEY.public_key, 0, 1, (("transfer", TO, 1, 1),)),
        ("unit", KEY.public_key, 0, 1, (("steal", TO, 1),)),
        ("unit", KEY.public_key, 0, 1, (("put", "", b""),)),
        ("unit", KEY.public_key, 0, 1, (("put", "k" * 257, b""),)),
        ("unit", KEY.public_key, 0, 1, (("put", "k", bytes(MAX_VALUE_BYTES + 1)),)),
        ("unit", KEY.public_key[:-1], 0, 1, (Put("k", b""),)),
        ("unit", KEY.public_key, -1, 1, (Put("k", b""),)),
        ("unit", KEY.public_key, MAX_AMOUNT + 1, 1, (Put("k", b""),)),
        ("unit", KEY.public_key, True, 1, (Put("k", b""),)),
        ("", KEY.public_key, 0, 1, (Put("k", b""),)),
        ("c" * 65, KEY.public_key, 0, 1, (Put("k", b""),)),
        ("unit", KEY.public_key, 0, 1, (Put("k", b""),), 0),
    ],
)
def test_values_out_of_range_are_refused(body: tuple[object, ...]) -> None:
    with pytest.raises(RefusedError) as caught:
        decode_transaction(encode((body, bytes(64))))
    assert caught.value.code == "malformed"


def test_size_is_checked_first() -> None:
    """The largest size passes, one byte more is oversized, however well formed."""
    two = (Put("a", bytes(MAX_VALUE_BYTES - 300)), Put("b", bytes(MAX_VALUE_BYTES)))
    room = MAX_TRANSACTION_BYTES - len(signed(*two))
    fitting = (Put("a", bytes(MAX_VALUE_BYTES - 300 + room)), two[1])
    assert len(signed(*fitting)) == MAX_TRANSACTION_BYTES
    assert decode_transaction(signed(*fitting)).verify_signature()
    larger = (Put("ab", fitting[0].value), two[1])
    with pytest.raises(RefusedError) as caught:
        decode_transaction(signed(*larger))
    assert caught.value.code == "oversized"
