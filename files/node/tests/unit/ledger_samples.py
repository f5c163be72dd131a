# SPDX-License-Identifier: Apache-2.0
"""A chain of four validators and three accounts, and blocks for it, without any network."""

from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import pytest

from holdfast_node.chain.block import Block, Certificate, CertifiedBlock, VoteSignature, vote_bytes
from holdfast_node.chain.crypto import PrivateKey, account_of, format_address
from holdfast_node.chain.genesis import Genesis, GenesisValidator, Parameters
from holdfast_node.chain.transaction import Action, Transfer, sign_transaction
from holdfast_node.errors import RefusedError
from holdfast_node.ledger.ledger import Ledger
from holdfast_node.storage.sqlite import SqliteStore

CHAIN_ID = "unit"
START_MS = 1_700_000_000_000
FUNDS = 1_000_000
VALIDATORS = [PrivateKey(bytes([100 + i]) * 32) for i in range(4)]
USERS = [PrivateKey(bytes([1 + i]) * 32) for i in range(3)]
ACCOUNTS = [account_of(key.public_key) for key in USERS]
ALICE, BOB, CAROL = USERS

GENESIS = Genesis(
    chain_id=CHAIN_ID,
    time_ms=START_MS,
    validators=[GenesisValidator(f"v{i}", k.public_key.hex()) for i, k in enumerate(VALIDATORS)],
    accounts={format_address(account): FUNDS for account in ACCOUNTS},
)


class Clock:
    """A wall clock in milliseconds that stands still."""

    def __init__(self) -> None:
        self.now = START_MS + 1000

    def __call__(self) -> int:
        return self.now


def open_ledger(folder: Path, genesis: Genesis = GENESIS, clock: Clock | None = None) -> Ledger:
    return Ledger(SqliteStore(folder / "chain.db"), genesis, clock or Clock())


def transaction(
    key: PrivateKey,
    nonce: int,
    actions: Sequence[Action] = (Transfer(ACCOUNTS[1], 1),),
    *,
    chain_id: str = CHAIN_ID,
    expires_at_ms: int = START_MS + 3_600_000,
) -> bytes:
    return sign_transaction(
        key, chain_id=chain_id, nonce=nonce, expires_at_ms=expires_at_ms, actions=actions
    )


def certify(block: Block, view: int | None = None) -> CertifiedBlock:
    view = block.header.view if view is None else view
    message = vote_bytes("commit", CHAIN_ID, block.height, view, block.hash)
    signatures = tuple(VoteSignature(i, VALIDATORS[i].sign(message)) for i in range(3))
    return CertifiedBlock(block, Certificate(block.height, view, block.hash, signatures))


def propose(ledger: Ledger, raws: Sequence[bytes] = (), view: int = 0) -> Block:
    return ledger.prepare_proposal([ledger.check_transaction(raw) for raw in raws], view=view)


def commit(ledger: Ledger, raws: Sequence[bytes] = ()) -> Block:
    block = propose(ledger, raws)
    assert len(block.transactions) == len(raws)
    ledger.commit(certify(block))
    return block


def small(**limits: int) -> Genesis:
    return msgspec.structs.replace(GENESIS, parameters=Parameters(**limits))


def code_of(call: Callable[[], object]) -> str:
    with pytest.raises(RefusedError) as caught:
        call()
    return caught.value.code
