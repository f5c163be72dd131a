# SPDX-License-Identifier: Apache-2.0
"""What may be asked of the last state and of the blocks, from any thread at any time."""

from holdfast_node.chain.block import CertifiedBlock
from holdfast_node.chain.membership import Change, Membership
from holdfast_node.ledger.membership import read_change, read_membership
from holdfast_node.ledger.state import StateView, value_key
from holdfast_node.storage.store import Location, Receipt, Store


class Queries:
    """Reads of a `Store`, as it is when they are made."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def membership(self) -> Membership:
        """Open proposals, and when the set of validators changed or will."""
        return read_membership(StateView(self.store))

    def change(self, activation: int) -> Change:
        """The change that takes effect at `activation`, one of `Membership.activations`."""
        return read_change(StateView(self.store), activation)

    def account(self, account: bytes) -> tuple[int, int]:
        """(balance, next nonce) of a 20-byte account identifier; (0, 0) if never used."""
        state = StateView(self.store).account(account)
        return state.balance, state.nonce

    def next_nonce(self, account: bytes) -> int:
        return self.account(account)[1]

    def value(self, account: bytes, key: str) -> bytes | None:
        """The value that `account` put under `key`, or None."""
        return StateView(self.store).get(value_key(account, key))

    def transaction(self, transaction_id: bytes) -> Location | None:
        return self.store.transaction(transaction_id)

    def block(self, height: int) -> CertifiedBlock | None:
        return self.store.block(height)

    def receipts(self, height: int) -> tuple[Receipt, ...] | None:
        return self.store.receipts(height)
