# SPDX-License-Identifier: Apache-2.0
"""The state as the ledger sees it: accounts and values over a Store, with changes on top."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Protocol

from holdfast_node.chain.codec import Value, decode, encode
from holdfast_node.chain.transaction import Natural
from holdfast_node.errors import RefusedError, StorageError
from holdfast_node.ledger.state_tree import bucket_of, entry_leaf


class AccountState(Value, frozen=True):
    """`nonce` is the one that the account's next transaction must have."""

    balance: Natural
    nonce: Natural


EMPTY_ACCOUNT = AccountState(0, 0)


def account_key(account: bytes) -> bytes:
    """The state key of a 20-byte account identifier."""
    return b"a" + account


def value_key(account: bytes, key: str) -> bytes:
    """The state key of what `account` stores under `key`."""
    # A query may ask for a string that UTF-8 cannot express: no such key exists, no error.
    return b"v" + account + key.encode(errors="surrogatepass")


class Readable(Protocol):
    """What a view needs of a store."""

    def state_get(self, bucket: int, key: bytes) -> tuple[bytes, bytes] | None:
        """As of `Store`."""


class StateView:
    """Reads from the store, keeps what is set to itself."""

    def __init__(self, store: Readable) -> None:
        self._store = store
        self._changes: dict[bytes, bytes] = {}
        self._accounts: dict[bytes, AccountState] = {}

    @property
    def changes(self) -> Mapping[bytes, bytes]:
        """State key to value, for everything set so far, in the order in which it was first set."""
        return MappingProxyType(self._changes)

    def get(self, key: bytes) -> bytes | None:
        """The value of a state key, or None.

        Raises `StorageError` if the stored value is not the one that was stored.
        """
        value = self._changes.get(key)
        if value is not None:
            return value
        stored = self._store.state_get(bucket_of(key), key)
        if stored is None:
            return None
        value, leaf = stored
        if entry_leaf(key, value) != leaf:
            raise StorageError(
                f"state entry {key.hex()} does not match its hash: the database is damaged; "
                "remove the data folder's database and let the node fetch the chain from its peers"
            )
        return value

    def set(self, key: bytes, value: bytes) -> None:
        self._changes[key] = value

    def account(self, account: bytes) -> AccountState:
        """The account's state; an empty one if it was never used."""
        state = self._accounts.get(account)
        if state is None:
            stored = self.get(account_key(account))
            state = EMPTY_ACCOUNT if stored is None else _decode_account(account, stored)
            self._accounts[account] = state
        return state

    def set_account(self, account: bytes, state: AccountState) -> None:
        self._accounts[account] = state
        self._changes[account_key(account)] = encode(state)


def _decode_account(account: bytes, stored: bytes) -> AccountState:
    try:
        return decode(stored, AccountState)
    except RefusedError as error:
        raise StorageError(f"account {account.hex()} in the state: {error}") from error
