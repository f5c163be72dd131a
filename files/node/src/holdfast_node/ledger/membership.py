# SPDX-License-Identifier: Apache-2.0
"""The membership in the ledger's state; `chain/membership.py` has the rules."""

from typing import Any

from holdfast_node.chain.codec import decode, encode
from holdfast_node.chain.membership import (
    MEMBERSHIP_KEY,
    Change,
    Council,
    MemberAction,
    Membership,
    act,
    change_key,
)
from holdfast_node.chain.validators import ValidatorHistory, ValidatorSet
from holdfast_node.errors import RefusedError, StorageError
from holdfast_node.ledger.state import StateView


class Meeting:
    """The membership while one transaction is executed: nothing is set before `close`."""

    def __init__(self, state: StateView, council: Council) -> None:
        self._state = state
        self._council = council
        self._membership = read_membership(state)
        self._changes: dict[int, Change] = {}

    def hear(self, action: MemberAction, sender: bytes) -> None:
        """Raise `RefusedError` if the action is not the sender's to take now."""
        self._membership, change = act(self._membership, action, sender, self._council)
        if change is not None:
            self._changes[self._membership.activations[-1]] = change

    def close(self) -> None:
        """Write down what was agreed."""
        self._state.set(MEMBERSHIP_KEY, encode(self._membership))
        for activation, change in self._changes.items():
            self._state.set(change_key(activation), encode(change))


def read_membership(state: StateView) -> Membership:
    """Raises `StorageError`."""
    stored = state.get(MEMBERSHIP_KEY)
    if stored is None:
        return Membership()
    membership: Membership = _decoded(stored, Membership)
    return membership


def read_change(state: StateView, activation: int) -> Change:
    """The change that takes effect at `activation`. Raises `StorageError`."""
    stored = state.get(change_key(activation))
    if stored is None:
        raise StorageError(f"the state lacks the validators from block {activation} on")
    change: Change = _decoded(stored, Change)
    return change


def read_history(state: StateView, first: ValidatorSet) -> ValidatorHistory:
    """The sets of all heights; `first` is the genesis'. Raises `StorageError`."""
    activations = read_membership(state).activations
    return ValidatorHistory(
        first, tuple((a, ValidatorSet(read_change(state, a).validators)) for a in activations)
    )


def _decoded(stored: bytes, type_: Any) -> Any:
    try:
        return decode(stored, type_)
    except RefusedError as error:
        raise StorageError(f"membership in the state: {error}") from error
