# SPDX-License-Identifier: Apache-2.0
"""What a client can ask for, the same over REST and JSON-RPC.

Arguments arrive as whatever the client sent; each operation checks them and raises `RefusedError`
naming the argument, its value and what was expected. Code "pruned" means a block that exists, and
that this node does not have since it began with a snapshot; "not_found" a well-formed question
about something that does not exist.
"""

import binascii
from base64 import b64decode, b64encode
from collections.abc import Sequence
from typing import Any

import anyio.to_thread
import msgspec

from holdfast_node.api.limits import Limits
from holdfast_node.api.service import (
    AccountView,
    BlockSummary,
    ChangeView,
    EvidenceView,
    LatencySample,
    MembersView,
    NodeStatus,
    Service,
    TransactionStatus,
    ValidatorView,
    Verdict,
)
from holdfast_node.api.views import BlockView, block_view, text_or_base64
from holdfast_node.chain.codec import encode
from holdfast_node.chain.crypto import format_address, parse_address
from holdfast_node.chain.proof import MAX_HEADERS, ChainProof, prove_transaction
from holdfast_node.chain.transaction import MAX_KEY_LENGTH, MAX_TRANSACTION_BYTES
from holdfast_node.errors import RefusedError
from holdfast_node.observe.metrics import Metrics

MAX_HEIGHT = 2**63 - 1
_MAX_BASE64 = (MAX_TRANSACTION_BYTES + 2) // 3 * 4
_SMALL_BLOCK = 50  # transactions that are rendered faster than handed to a thread


class Verdicts(msgspec.Struct, frozen=True):
    """One verdict for each submitted transaction, in order."""

    results: list[Verdict]


class BlockList(msgspec.Struct, frozen=True):
    """`height` is that of the last committed block, `first_height` of the lowest one here."""

    height: int
    first_height: int
    blocks: list[BlockSummary]


class ValidatorList(msgspec.Struct, frozen=True):
    tolerated_faults: int
    quorum: int
    validators: list[ValidatorView]


class LatencyList(msgspec.Struct, frozen=True):
    samples: list[LatencySample]


class ValueView(msgspec.Struct, frozen=True):
    """As of block `height`. `value` is Base64; `text` the same as text if UTF-8, else None."""

    address: str
    key: str
    height: int
    value: str | None
    text: str | None


class EvidenceList(msgspec.Struct, frozen=True):
    evidence: list[EvidenceView]


class ChangeList(msgspec.Struct, frozen=True):
    changes: list[ChangeView]


class ProofView(msgspec.Struct, frozen=True):
    """`proof` is Base64 of an encoded `chain.proof` value; `holdfast-node verify` checks it."""

    proof: str


class Operations:
    """The operations on a service, within limits."""

    def __init__(self, service: Service, metrics: Metrics, limits: Limits) -> None:
        self._service = service
        self._metrics = metrics
        self._limits = limits
        self._rendering = anyio.CapacityLimiter(1)  # large blocks take a core, and megabytes each
        self._waits: set[anyio.CancelScope] = set()  # for a block
        self._stopping = False

    def stop(self) -> None:
        """Let no read wait for a block any more: the node ends, and none will come."""
        self._stopping = True
        for scope in self._waits:
            scope.cancel()

    def status(self) -> NodeStatus:
        return self._service.status()

    def validators(self) -> ValidatorList:
        members = self._service.validator_set()
        return ValidatorList(members.tolerated_faults, members.quorum, self._service.validators())

    def latency(self) -> LatencyList:
        return LatencyList(self._service.latency_series())

    async def submit(self, transactions: Any) -> Verdicts:
        """Submit a list of Base64 texts; one of them that cannot be read spoils no other."""
        limit = self._limits.transactions
        if not isinstance(transactions, list) or not 1 <= len(transactions) <= limit:
            raise RefusedError(
                "bad_argument",
                f"transactions = {shown(transactions)}: expected a list of 1 to {limit} texts "
                "(Base64 of encoded transactions)",
            )
        verdicts: list[Verdict | None] = []
        raws: list[bytes] = []
        for text in transactions:
            try:
                raws.append(_read_base64(text))
                verdicts.append(None)
            except RefusedError as error:
                verdicts.append(Verdict(None, False, error.code, error.message))  # noqa: FBT003 (the struct's order)
        answers = iter(await self._service.submit(raws) if raws else ())
        results = [verdict or next(answers) for verdict in verdicts]
        for verdict in results:
            self._metrics.transaction_submitted(verdict.code or "accepted")
        return Verdicts(results)

    def transaction(self, transaction_id: Any) -> TransactionStatus:
        return self._service.transaction(_read_hash("id", transaction_id))

    async def block(self, reference: Any) -> BlockView:
        """A height from 1, "latest", or a block hash; heights may come as text."""
        key = self._read_reference(reference)
        record = self._service.block(key) if key else None
        if record is None and isinstance(key, int) and key:
            self._refuse_pruned(key)
        if record is None:
            raise RefusedError(
                "not_found",
                f"block {shown(reference)}: not among the {self._service.height()} blocks of this "
                "node (heights count from 1; 0 is genesis)",
            )
        members = self._service.validator_set(record.certified.block.height)
        if len(record.certified.block.transactions) <= _SMALL_BLOCK:
            return block_view(record, members)
        return await anyio.to_thread.run_sync(block_view, record, members, limiter=self._rendering)

    def blocks(self, first: Any = None, limit: Any = None) -> BlockList:
        """Blocks ascending from height `first`; the last `limit` (default 20) without it."""
        count = 20 if limit is None else _read_integer("limit", limit, 1, self._limits.blocks)
        height = self._service.height()
        lowest = self._service.first_height()
        if first is None:
            start = max(lowest, height - count + 1)
        else:
            start = _read_integer("from", first, 1, MAX_HEIGHT)
            self._refuse_pruned(start)
        blocks = self._service.blocks(start, count) if start <= height else []
        return BlockList(height, lowest, blocks)

    def _refuse_pruned(self, height: int) -> None:
        lowest = self._service.first_height()
        if height < lowest:
            raise RefusedError(
                "pruned",
                f"block {height}: this node began with a snapshot and has the blocks from "
                f"{lowest} on; ask one that has them all",
            )

    def members(self) -> MembersView:
        return self._service.members()

    def member_history(self) -> ChangeList:
        return ChangeList(self._service.member_history())

    def evidence(self) -> EvidenceList:
        return EvidenceList(self._service.evidence())

    async def transaction_proof(self, transaction_id: Any) -> ProofView:
        """Proof that a committed transaction is in its block, for whoever has the genesis."""
        status = self.transaction(transaction_id)
        record = None if status.height is None else self._service.block(status.height)
        if record is None or status.index is None:
            known = status.reason or "in no block that is here"
            raise RefusedError("not_found", f"transaction {shown(transaction_id)}: {known}")
        trail = self._service.trail(status.height or 0)
        proof = await anyio.to_thread.run_sync(
            prove_transaction, record.certified, status.index, trail, limiter=self._rendering
        )
        return ProofView(b64encode(encode(proof)).decode())

    def block_proof(self, height: Any, to: Any = None) -> ProofView:
        """Proof that a block is final, or leads to the later block `to`, which is."""
        first = _read_integer("height", height, 1, MAX_HEIGHT)
        last = first if to is None else _read_integer("to", to, first, first + MAX_HEADERS - 1)
        self._refuse_pruned(first)
        record = self._service.block(last) if last <= self._service.height() else None
        headers = [] if record is None else self._service.headers(first, last)
        if record is None or len(headers) != last - first + 1:
            raise RefusedError(
                "not_found", f"block {last}: not among the {self._service.height()} of this node"
            )
        proof = ChainProof(tuple(headers), record.certified.certificate, self._service.trail(last))
        return ProofView(b64encode(encode(proof)).decode())

    async def account(self, address: Any, min_height: Any = None) -> AccountView:
        """As of the last block here; one at `min_height` or above, which is waited for."""
        account = _read_address(address)
        await self._reach(min_height)
        return self._service.account(account)

    async def value(self, address: Any, key: Any, min_height: Any = None) -> ValueView:
        """As of the last block here; one at `min_height` or above, which is waited for."""
        account = _read_address(address)
        if not isinstance(key, str) or not 1 <= len(key) <= MAX_KEY_LENGTH:
            raise RefusedError(
                "bad_argument",
                f"key = {shown(key)}: expected a text of 1 to {MAX_KEY_LENGTH} characters",
            )
        await self._reach(min_height)
        height, value = self._service.value(account, key)
        if value is None:
            raise RefusedError(
                "not_found",
                f"{address} has put nothing under key {shown(key)}, as of block {height}",
            )
        return ValueView(
            address=format_address(account), key=key, height=height, **text_or_base64(value)
        )

    async def _reach(self, min_height: Any) -> None:
        """Wait for the block of a height, within limits."""
        least = 0 if min_height is None else _read_integer("min_height", min_height, 0, MAX_HEIGHT)
        if self._service.height() >= least:
            return
        if len(self._waits) >= self._limits.waiting:
            raise RefusedError(
                "overloaded", f"{len(self._waits)} requests wait for a block: try again in a moment"
            )
        if not self._stopping:
            with anyio.move_on_after(self._limits.wait_s) as scope:
                self._waits.add(scope)
                try:
                    await self._service.reached(least)
                    return
                finally:
                    self._waits.discard(scope)
        here = f"min_height = {least}: this node is at block {self._service.height()}"
        if self._stopping:
            raise RefusedError("stopping", f"{here} and stops: ask another node")
        raise RefusedError(
            "not_reached",
            f"{here} after {self._limits.wait_s:g} s; try again, or ask another node",
        )

    def _read_reference(self, reference: Any) -> int | bytes:
        if reference == "latest":
            return self._service.height()
        try:
            if isinstance(reference, str) and len(reference) == 64:
                return _read_hash("block", reference)
            return _read_integer("block", reference, 0, MAX_HEIGHT)
        except RefusedError as error:
            raise RefusedError(
                "bad_argument",
                f"block = {shown(reference)}: expected a height, 'latest' or 64 hexadecimal digits",
            ) from error


def shown(value: Any) -> str:
    """`value` for an error message, shortened."""
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return f"a list of {len(value)}"
    if isinstance(value, dict):
        return f"an object of {len(value)}"
    # The representation is ASCII, so no control characters or surrogates come back to the client.
    text = ascii(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _read_base64(text: Any) -> bytes:
    if not isinstance(text, str):
        raise RefusedError("malformed", f"{shown(text)}: expected a text (Base64)")
    if len(text) > _MAX_BASE64:
        raise RefusedError(
            "oversized",
            f"{len(text)} Base64 characters: expected at most {MAX_TRANSACTION_BYTES} bytes",
        )
    try:
        return b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise RefusedError("malformed", f"{shown(text)} is not Base64: {error}") from error


def _read_hash(name: str, text: Any) -> bytes:
    if isinstance(text, str) and len(text) == 64 and text.isascii() and text.isalnum():
        try:
            return bytes.fromhex(text)
        except ValueError:
            pass  # told below, with what was expected
    raise RefusedError("bad_argument", f"{name} = {shown(text)}: expected 64 hexadecimal digits")


def _read_integer(name: str, value: Any, least: int, most: int) -> int:
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 19:
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool) and least <= value <= most:
        return value
    raise RefusedError(
        "bad_argument", f"{name} = {shown(value)}: expected a whole number from {least} to {most}"
    )


def _read_address(text: Any) -> bytes:
    if not isinstance(text, str):
        raise RefusedError("bad_address", f"address = {shown(text)}: expected 'hf...'")
    return parse_address(text)
