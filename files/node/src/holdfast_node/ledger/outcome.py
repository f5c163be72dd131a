# SPDX-License-Identifier: Apache-2.0
"""What the execution of a block gives, and its commit."""

from collections.abc import Mapping
from dataclasses import dataclass

from holdfast_node.chain.block import Block
from holdfast_node.ledger.checking import CheckedTransaction
from holdfast_node.ledger.state import StateView
from holdfast_node.ledger.state_tree import TreeUpdate
from holdfast_node.storage.store import Receipt


@dataclass(frozen=True, slots=True)
class Committed:
    """What a commit did. `next_nonces` has an entry for every sender in the block.

    `duration_s` is the time of the commit, with execution if the block was not executed before.
    """

    block: Block
    receipts: tuple[Receipt, ...]
    transaction_ids: tuple[bytes, ...]
    next_nonces: Mapping[bytes, int]
    duration_s: float


@dataclass(frozen=True, slots=True)
class Execution:
    block: Block
    transaction_ids: tuple[bytes, ...]
    receipts: tuple[Receipt, ...]
    next_nonces: Mapping[bytes, int]
    update: TreeUpdate


def execution_of(
    block: Block,
    transactions: list[CheckedTransaction],
    receipts: list[Receipt],
    state: StateView,
    update: TreeUpdate,
) -> Execution:
    return Execution(
        block,
        tuple(checked.id for checked in transactions),
        tuple(receipts),
        {checked.account: state.account(checked.account).nonce for checked in transactions},
        update,
    )
