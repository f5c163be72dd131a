# SPDX-License-Identifier: Apache-2.0
"""Transactions: what a client signs.

A transaction is an ordered list of actions by one account. It is bound to one chain, takes effect
once (nonces of an account count up from 0 without a gap) and is void after `expires_at_ms`.
"""

from collections.abc import Sequence
from typing import Annotated, Final, TypeAlias

from msgspec import Meta

from holdfast_node.chain.codec import Value, decode, encode
from holdfast_node.chain.crypto import PrivateKey, account_of, digest, verify
from holdfast_node.errors import RefusedError

MAX_TRANSACTION_BYTES: Final = 65_536
MAX_ACTIONS: Final = 64
MAX_KEY_LENGTH: Final = 256
MAX_VALUE_BYTES: Final = 32_768
MAX_AMOUNT: Final = 2**63 - 1
MAX_EVIDENCE_BYTES: Final = 32_768

Account: TypeAlias = Annotated[bytes, Meta(min_length=20, max_length=20)]
PublicKey: TypeAlias = Annotated[bytes, Meta(min_length=32, max_length=32)]
Signature: TypeAlias = Annotated[bytes, Meta(min_length=64, max_length=64)]
Natural: TypeAlias = Annotated[int, Meta(ge=0, le=MAX_AMOUNT)]


class Transfer(Value, frozen=True, tag="transfer"):
    """Move `amount` (smallest units) from the sender to account `to`."""

    to: Account
    amount: Annotated[int, Meta(gt=0, le=MAX_AMOUNT)]


class Put(Value, frozen=True, tag="put"):
    """Set `key` in the sender's own name space to `value`."""

    key: Annotated[str, Meta(min_length=1, max_length=MAX_KEY_LENGTH)]
    value: Annotated[bytes, Meta(max_length=MAX_VALUE_BYTES)]


Name: TypeAlias = Annotated[str, Meta(min_length=1, max_length=63)]
# Host and port; that a port is at most 65535 is checked where it is proposed.
Address: TypeAlias = Annotated[
    str,
    Meta(
        max_length=259,
        pattern=r"\A([A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})*|\[[0-9A-Fa-f:.]{2,45}\]):[1-9][0-9]{0,4}\Z",
    ),
]


class ProposeJoin(Value, frozen=True, tag="propose-join"):
    """A validator proposes another: its name, voting key, and where it is reached.

    `until` is the last height at which the proposal can be approved.
    """

    name: Name
    public_key: PublicKey
    address: Address
    sync_address: Address
    until: Natural


class ProposeLeave(Value, frozen=True, tag="propose-leave"):
    """A validator proposes that one, perhaps itself, leaves.

    `evidence` is an encoded `Evidence` against it, or empty. `below_four` agrees to a set in which
    no validator may fail.
    """

    name: Name
    reason: Annotated[str, Meta(min_length=1, max_length=200)]
    evidence: Annotated[bytes, Meta(max_length=MAX_EVIDENCE_BYTES)]
    below_four: bool
    until: Natural


class Approve(Value, frozen=True, tag="approve"):
    """A validator approves a proposal; `unprobed`: without having looked at the candidate."""

    proposal: Natural
    unprobed: bool


Action: TypeAlias = Transfer | Put | ProposeJoin | ProposeLeave | Approve


class TransactionBody(Value, frozen=True):
    """What is signed. `expires_at_ms` is compared with the time of the block, Unix milliseconds."""

    chain_id: Annotated[str, Meta(min_length=1, max_length=64)]
    sender: PublicKey
    nonce: Natural
    expires_at_ms: Natural
    actions: Annotated[tuple[Action, ...], Meta(min_length=1, max_length=MAX_ACTIONS)]


class Transaction(Value, frozen=True):
    body: TransactionBody
    signature: Signature

    @property
    def sender(self) -> bytes:
        """The sender's 20-byte account identifier."""
        return account_of(self.body.sender)

    def verify_signature(self) -> bool:
        return verify(self.body.sender, _signing_bytes(self.body), self.signature)


def _signing_bytes(body: TransactionBody) -> bytes:
    return b"holdfast/transaction/1\x00" + encode(body)


def transaction_id(raw: bytes) -> bytes:
    """The 32-byte identifier of an encoded transaction, signature included."""
    return digest("holdfast/transaction-id/1", raw)


def sign_transaction(
    key: PrivateKey, *, chain_id: str, nonce: int, expires_at_ms: int, actions: Sequence[Action]
) -> bytes:
    """Build, sign and encode a transaction; returns the bytes a node accepts."""
    body = TransactionBody(chain_id, key.public_key, nonce, expires_at_ms, tuple(actions))
    return encode(Transaction(body, key.sign(_signing_bytes(body))))


def decode_transaction(raw: bytes) -> Transaction:
    """Decode a transaction without checking its signature.

    Raises `RefusedError` with code "oversized" or "malformed".
    """
    if len(raw) > MAX_TRANSACTION_BYTES:
        raise RefusedError(
            "oversized", f"transaction of {len(raw)} bytes: at most {MAX_TRANSACTION_BYTES}"
        )
    return decode(raw, Transaction)
