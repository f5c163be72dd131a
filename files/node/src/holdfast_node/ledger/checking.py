# SPDX-License-Identifier: Apache-2.0
"""Checks of a transaction that need no state, each signature verified once."""

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from threading import Lock
from typing import Final

from holdfast_node.chain.transaction import (
    Transaction,
    decode_transaction,
    transaction_id,
)
from holdfast_node.errors import RefusedError

MAX_LIFETIME_MS: Final = 24 * 3600 * 1000

# What a cached transaction costs beyond twice its encoded bytes (encoded and decoded), roughly.
_ENTRY_BYTES: Final = 1024


@dataclass(frozen=True, slots=True, eq=False)
class CheckedTransaction:
    """A well-formed transaction of this chain with a valid signature.

    `id` 32 bytes, `raw` as it was received, `account` the sender's 20-byte identifier.
    """

    id: bytes
    raw: bytes
    transaction: Transaction
    account: bytes

    @property
    def nonce(self) -> int:
        return self.transaction.body.nonce

    @property
    def expires_at_ms(self) -> int:
        return self.transaction.body.expires_at_ms


class TransactionChecker:
    """Checks transactions and remembers, within `cache_bytes`, those that passed. Thread-safe.

    Failures are not remembered: an attacker has as many of them as he likes.
    """

    def __init__(self, chain_id: str, cache_bytes: int = 128 * 1024 * 1024) -> None:
        self._chain_id = chain_id
        self._cache_bytes = cache_bytes
        self._cached_bytes = 0
        self._cache: OrderedDict[bytes, CheckedTransaction] = OrderedDict()
        self._lock = Lock()

    def check(self, raw: bytes) -> CheckedTransaction:
        """Check form, chain and signature.

        Raises `RefusedError`: oversized, malformed, foreign_chain, bad_signature.
        """
        identifier = transaction_id(raw)
        with self._lock:
            known = self._cache.get(identifier)
            if known is not None:
                self._cache.move_to_end(identifier)
                return known
        return self._verify(identifier, raw, self._decode(raw))

    def admit(self, raw: bytes, now_ms: int) -> CheckedTransaction:
        """As `check`, and the expiry against the clock, before the signature is paid for.

        Raises `RefusedError` also with expired, too_far.
        """
        identifier = transaction_id(raw)
        with self._lock:
            known = self._cache.get(identifier)
        if known is not None:
            _check_expiry(known.transaction, now_ms)
            return known
        transaction = self._decode(raw)
        _check_expiry(transaction, now_ms)
        return self._verify(identifier, raw, transaction)

    def forget(self, identifiers: Iterable[bytes]) -> None:
        """Drop what is not going to be asked for again; unknown identifiers are passed over."""
        with self._lock:
            for identifier in identifiers:
                checked = self._cache.pop(identifier, None)
                if checked is not None:
                    self._cached_bytes -= _cost(checked)

    def _decode(self, raw: bytes) -> Transaction:
        transaction = decode_transaction(raw)
        if transaction.body.chain_id != self._chain_id:
            raise RefusedError(
                "foreign_chain",
                f"transaction for chain {transaction.body.chain_id!r}: this is {self._chain_id!r}",
            )
        return transaction

    def _verify(
        self, identifier: bytes, raw: bytes, transaction: Transaction
    ) -> CheckedTransaction:
        if not transaction.verify_signature():
            raise RefusedError(
                "bad_signature", "the signature does not fit the transaction and its sender"
            )
        checked = CheckedTransaction(identifier, raw, transaction, transaction.sender)
        with self._lock:
            if identifier not in self._cache:
                self._cache[identifier] = checked
                self._cached_bytes += _cost(checked)
            while self._cached_bytes > self._cache_bytes:
                self._cached_bytes -= _cost(self._cache.popitem(last=False)[1])
        return checked


def _cost(checked: CheckedTransaction) -> int:
    return 2 * len(checked.raw) + _ENTRY_BYTES


def _check_expiry(transaction: Transaction, now_ms: int) -> None:
    expires = transaction.body.expires_at_ms
    if expires < now_ms:
        raise RefusedError(
            "expired", f"expires_at_ms = {expires}: expected a time after now, {now_ms}"
        )
    if expires > now_ms + MAX_LIFETIME_MS:
        raise RefusedError(
            "too_far",
            f"expires_at_ms = {expires}: expected at most 24 hours from now, "
            f"{now_ms + MAX_LIFETIME_MS}",
        )
