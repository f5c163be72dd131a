# SPDX-License-Identifier: Apache-2.0
"""Transactions about the membership, in the simulation's small application."""

from functools import lru_cache
from typing import Final

from holdfast_node.chain.codec import Value, decode, encode
from holdfast_node.chain.membership import MemberAction
from holdfast_node.chain.transaction import Natural, PublicKey, Signature
from holdfast_node.errors import RefusedError
from holdfast_node.simulation.keys import Keys, SimulatedKey

_PREFIX: Final = b"ballot "


class Ballot(Value, frozen=True):
    """`number` makes it one of its own, as a nonce does."""

    action: MemberAction
    sender: PublicKey
    number: Natural
    signature: Signature

    def signed(self) -> bytes:
        return _signed(self.action, self.sender, self.number)


def _signed(action: MemberAction, sender: bytes, number: int) -> bytes:
    return encode(("ballot", action, sender, number))


def cast(key: SimulatedKey, action: MemberAction, number: int) -> bytes:
    """The transaction with which the owner of `key` proposes or approves."""
    signature = key.sign(_signed(action, key.public_key, number))
    return _PREFIX + encode(Ballot(action, key.public_key, number, signature))


@lru_cache(maxsize=4096)  # every machine reads every ballot, several times
def read_ballot(transaction: bytes) -> Ballot | None:
    """None if the transaction is about something else. Raises `RefusedError`."""
    if not transaction.startswith(_PREFIX):
        return None
    ballot: Ballot = decode(transaction.removeprefix(_PREFIX), Ballot)
    return ballot


def is_sound(transaction: bytes, keys: Keys) -> bool:
    """Whether it may be in a block: signed by its sender, if it is a ballot at all."""
    try:
        ballot = read_ballot(transaction)
    except RefusedError:
        return False
    return ballot is None or keys.verify(ballot.sender, ballot.signed(), ballot.signature)
