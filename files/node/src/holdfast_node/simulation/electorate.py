# SPDX-License-Identifier: Apache-2.0
"""Who votes at which height, worked out by the oracle for itself from the final blocks."""

from collections.abc import Iterable
from typing import Any, Final, TypeAlias

from holdfast_node.chain.block import CertifiedBlock, vote_bytes
from holdfast_node.chain.codec import decode
from holdfast_node.chain.evidence import Evidence
from holdfast_node.chain.membership import ChangeAction
from holdfast_node.chain.transaction import Approve, ProposeJoin
from holdfast_node.errors import RefusedError
from holdfast_node.simulation.ballots import read_ballot
from holdfast_node.simulation.keys import Keys, SimulatedValidators

_BLOCKS_UNTIL_ACTIVE: Final = 4

# The set that is proposed, who approves, the last height that counts, and who proposed it.
_Open: TypeAlias = tuple[tuple[int, ...], set[int], int, int]


class Electorate:
    """Sets are tuples of the numbers of their members' keys, in the order of the set.

    Written down as simply as can be, and not by the code under test: a set changes when more
    members than any two halves can share agree, four blocks later.
    """

    def __init__(self, keys: Keys, first: Iterable[int]) -> None:
        self._keys = keys
        self._sets: list[tuple[int, tuple[int, ...]]] = [(0, tuple(first))]
        self._open: dict[int, _Open] = {}
        self._hashes: dict[tuple[int, ...], bytes] = {}  # of sets
        self._made = 0

    def at(self, height: int) -> tuple[int, ...]:
        """The members at `height`, as far as the final blocks say."""
        for since, members in reversed(self._sets):
            if since <= height:
                return members
        raise ValueError(f"height {height}")

    def quorum(self, height: int) -> int:
        """The least number of which any two share an honest validator."""
        n = len(self.at(height))
        return (n + (n - 1) // 3) // 2 + 1

    def number(self, height: int, index: int) -> int | None:
        """Whose index it is at that height."""
        members = self.at(height)
        return members[index] if index < len(members) else None

    @property
    def latest(self) -> tuple[int, ...]:
        """The set with the latest activation, which may be to come."""
        return self._sets[-1][1]

    def is_settled(self, height: int) -> bool:
        """Whether no change is to come after `height`."""
        return self._sets[-1][0] <= height

    def certified_by(self, certified: CertifiedBlock) -> str | None:
        """What is wrong with the certificate, or with the sets that the block names."""
        header, certificate = certified.block.header, certified.certificate
        height = header.height
        named_sets = (header.validators_hash, height), (header.next_validators_hash, height + 1)
        for named, at in named_sets:
            if named != self._hash(self.at(at)):
                return f"block {height} names other members for height {at} than agreed"
        block_hash = certified.block.hash
        signed = vote_bytes("commit", header.chain_id, height, certificate.view, block_hash)
        voters = set()
        for vote in certificate.signatures:
            number = self.number(height, vote.validator)
            if number is not None and self._keys.all[number].sign(signed) == vote.signature:
                voters.add(number)
        if len(voters) < self.quorum(height):
            return f"block {height} is certified by {len(voters)} of its members"
        return None

    def _hash(self, members: tuple[int, ...]) -> bytes:
        if members not in self._hashes:
            validators = tuple(self._keys.validator(i) for i in members)
            self._hashes[members] = SimulatedValidators(validators, self._keys).hash
        return self._hashes[members]

    def follow(self, height: int, transactions: Iterable[bytes]) -> None:
        """Take in a final block; each height once, in order."""
        for transaction in transactions:
            ballot = read_ballot(transaction)
            sender = None if ballot is None else self._keys.owner(ballot.sender)
            if ballot is None or sender is None or sender not in self.at(height):
                continue
            if not self.is_settled(height):
                continue
            for number in [n for n, found in self._open.items() if found[2] < height]:
                del self._open[number]
            if isinstance(ballot.action, Approve):
                number = ballot.action.proposal
                found = self._open.get(number)
            else:
                number, found = self._made, self._proposed(height, sender, ballot.action)
                self._made += found is not None
            if found is None or sender in found[1]:
                continue
            found[1].add(sender)
            self._open[number] = found
            if len(found[1]) >= self.quorum(height):
                self._sets.append((height + _BLOCKS_UNTIL_ACTIVE, found[0]))
                self._open.clear()

    def _convicts(self, proof: bytes, name: str, height: int) -> bool:
        """Whether `name` signed two statements of one kind about one height and view."""
        try:
            found: Evidence = decode(proof, Evidence)
            bodies = found.first.body, found.second.body
            statements: list[list[Any]] = [decode(body, list[Any]) for body in bodies]
        except RefusedError:
            return False
        number = self.number(found.height, found.validator) if found.height <= height else None
        if number is None or name != f"v{number}" or statements[0] == statements[1]:
            return False
        about = [f"holdfast/{found.kind}/1", "sim", found.height, found.view]
        key = self._keys.all[number]
        return all(
            said[:4] == about and key.sign(each.body) == each.signature
            for said, each in zip(statements, (found.first, found.second), strict=True)
        )

    def _proposed(self, height: int, sender: int, change: ChangeAction) -> _Open | None:
        members = self.at(height)
        waits = any(by == sender for _, _, _, by in self._open.values())
        if waits or not height <= change.until <= height + 1_000_000:
            return None
        if isinstance(change, ProposeJoin):
            number = self._keys.owner(change.public_key)
            if number in members or change.name in {f"v{i}" for i in members}:
                return None
            # A key that nobody has is never agreed on: the honest know whom they let in.
            return (*members, -1 if number is None else number), set(), change.until, sender
        left = tuple(i for i in members if f"v{i}" != change.name)
        least = 1 if change.below_four else 4
        if len(left) == len(members) or len(left) < least:
            return None
        if change.evidence and not self._convicts(change.evidence, change.name, height):
            return None
        return left, set(), change.until, sender
