# SPDX-License-Identifier: Apache-2.0
"""The state transition: what a transaction does to accounts and values. Deterministic."""

from typing import Final

from holdfast_node.chain.membership import Council
from holdfast_node.chain.transaction import MAX_AMOUNT, Put, Transfer
from holdfast_node.errors import RefusedError
from holdfast_node.ledger.checking import CheckedTransaction
from holdfast_node.ledger.membership import Meeting
from holdfast_node.ledger.state import AccountState, StateView, value_key
from holdfast_node.storage.store import Receipt

EXECUTED: Final = Receipt(None)
INSUFFICIENT_FUNDS: Final = Receipt("insufficient_funds")
OVERFLOW: Final = Receipt("overflow")


def fault(checked: CheckedTransaction, state: StateView, time_ms: int) -> str | None:
    """Why the transaction cannot be in a block at `time_ms` on this state; None if it can."""
    if checked.expires_at_ms < time_ms:
        return f"expired at {checked.expires_at_ms}, before {time_ms}"
    expected = state.account(checked.account).nonce
    if checked.nonce != expected:
        return f"nonce {checked.nonce}: expected {expected}"
    if expected == MAX_AMOUNT:
        return f"nonce {expected}: the account has used up all its nonces"
    return None


def execute(checked: CheckedTransaction, state: StateView, council: Council) -> Receipt:
    """Apply a transaction that has no `fault`: all of its actions or none; the nonce is used up."""
    sender = checked.account
    account = state.account(sender)
    balances: dict[bytes, int] = {sender: account.balance}
    values: dict[bytes, bytes] = {}
    meeting: Meeting | None = None
    receipt = EXECUTED
    for action in checked.transaction.body.actions:
        if isinstance(action, Transfer):
            receipt = _transfer(sender, action, balances, state)
            if receipt is not EXECUTED:
                break
        elif isinstance(action, Put):
            values[value_key(sender, action.key)] = action.value
        else:
            meeting = meeting or Meeting(state, council)
            try:
                meeting.hear(action, checked.transaction.body.sender)
            except RefusedError as error:
                receipt = Receipt(error.code)
                break
    if receipt is not EXECUTED:
        state.set_account(sender, AccountState(account.balance, account.nonce + 1))
        return receipt
    state.set_account(sender, AccountState(balances.pop(sender), account.nonce + 1))
    for other, balance in balances.items():
        state.set_account(other, AccountState(balance, state.account(other).nonce))
    for key, value in values.items():
        state.set(key, value)
    if meeting is not None:
        meeting.close()
    return EXECUTED


def _transfer(
    sender: bytes, action: Transfer, balances: dict[bytes, int], state: StateView
) -> Receipt:
    if balances[sender] < action.amount:
        return INSUFFICIENT_FUNDS
    balances[sender] -= action.amount
    if action.to not in balances:
        balances[action.to] = state.account(action.to).balance
    if balances[action.to] > MAX_AMOUNT - action.amount:
        return OVERFLOW
    balances[action.to] += action.amount
    return EXECUTED
