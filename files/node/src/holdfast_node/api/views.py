# SPDX-License-Identifier: Apache-2.0
"""Blocks and transactions in the form the API shows. Pure functions."""

from base64 import b64encode
from typing import Any

import msgspec

from holdfast_node.api.service import BlockRecord, BlockSummary
from holdfast_node.chain.block import CertifiedBlock
from holdfast_node.chain.crypto import format_address
from holdfast_node.chain.transaction import (
    Action,
    Approve,
    ProposeJoin,
    ProposeLeave,
    Put,
    Transfer,
    decode_transaction,
    transaction_id,
)
from holdfast_node.chain.validators import ValidatorSet


class TransactionView(msgspec.Struct, frozen=True):
    """A transaction in a block. `error` is why it had no effect, None if it took effect."""

    id: str
    sender: str
    nonce: int
    expires_at_ms: int
    actions: list[dict[str, Any]]
    error: str | None


class BlockView(msgspec.Struct, frozen=True):
    """A committed block; `signers` are the validators whose votes made it final."""

    height: int
    hash: str
    previous: str
    chain_id: str
    time_ms: int
    view: int
    proposer: str
    transactions_root: str
    state_root: str
    validators_hash: str
    next_validators_hash: str
    commit_view: int
    signers: list[str]
    transactions: list[TransactionView]


def block_summary(certified: CertifiedBlock, validators: ValidatorSet) -> BlockSummary:
    """The line of a block in a list."""
    header = certified.block.header
    return BlockSummary(
        height=header.height,
        hash=certified.block.hash.hex(),
        time_ms=header.time_ms,
        view=header.view,
        proposer=validators[validators.leader(header.view)].name,
        transactions=len(certified.block.transactions),
    )


def block_view(record: BlockRecord, validators: ValidatorSet) -> BlockView:
    """The whole block, its transactions decoded: about 20 µs for each of them."""
    certified, failures = record
    header = certified.block.header
    certificate = certified.certificate
    return BlockView(
        height=header.height,
        hash=certified.block.hash.hex(),
        previous=header.previous.hex(),
        chain_id=header.chain_id,
        time_ms=header.time_ms,
        view=header.view,
        proposer=validators[validators.leader(header.view)].name,
        transactions_root=header.transactions_root.hex(),
        state_root=header.state_root.hex(),
        validators_hash=header.validators_hash.hex(),
        next_validators_hash=header.next_validators_hash.hex(),
        commit_view=certificate.view,
        signers=[validators[vote.validator].name for vote in certificate.signatures],
        transactions=[
            transaction_view(raw, failures.get(i))
            for i, raw in enumerate(certified.block.transactions)
        ],
    )


def transaction_view(raw: bytes, error: str | None) -> TransactionView:
    """A transaction of a committed block; `error` from its receipt."""
    transaction = decode_transaction(raw)
    body = transaction.body
    actions: list[dict[str, Any]] = [action_view(action) for action in body.actions]
    return TransactionView(
        id=transaction_id(raw).hex(),
        sender=format_address(transaction.sender),
        nonce=body.nonce,
        expires_at_ms=body.expires_at_ms,
        actions=actions,
        error=error,
    )


def action_view(action: Action) -> dict[str, Any]:
    """One action as JSON: its tag as `type`, and its fields."""
    match action:
        case Put():
            return {"type": "put", "key": action.key, **text_or_base64(action.value)}
        case Transfer():
            to = format_address(action.to)
            return {"type": "transfer", "to": to, "amount": action.amount}
        case ProposeJoin():
            return {"type": "propose-join", **change_view(action)}
        case ProposeLeave():
            return {"type": "propose-leave", **change_view(action)}
        case Approve():
            return {"type": "approve", "proposal": action.proposal, "unprobed": action.unprobed}


def change_view(change: ProposeJoin | ProposeLeave) -> dict[str, Any]:
    """The fields of a proposed change; evidence only by its size."""
    if isinstance(change, ProposeJoin):
        return {**msgspec.structs.asdict(change), "public_key": change.public_key.hex()}
    return {**msgspec.structs.asdict(change), "evidence": len(change.evidence)}


def text_or_base64(value: bytes) -> dict[str, str | None]:
    """`value` in Base64, and as `text` for people if it is UTF-8."""
    try:
        text = value.decode()
    except UnicodeDecodeError:
        text = None
    return {"value": b64encode(value).decode(), "text": text}
