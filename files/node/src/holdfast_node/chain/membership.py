# SPDX-License-Identifier: Apache-2.0
"""How the validators change their set: proposals, approvals, and when a change takes effect.

Pure rules over what the ledger keeps in its state. The transaction's sender speaks: who signs with
the voting key of a validator of the block's height is that member. What is agreed by a quorum of
that set takes effect `ACTIVATION_DISTANCE` blocks later; until then nothing else is proposed or
approved, and all that was open lapses, so that every approval counts in exactly one set.
"""

from dataclasses import dataclass
from typing import Annotated, Final, TypeAlias

from msgspec import Meta
from msgspec.structs import replace

from holdfast_node.chain.codec import Value, decode
from holdfast_node.chain.evidence import Evidence
from holdfast_node.chain.names import NODE_NAME
from holdfast_node.chain.trail import MAX_CHANGES
from holdfast_node.chain.transaction import Approve, Natural, ProposeJoin, ProposeLeave
from holdfast_node.chain.validators import (
    MAX_VALIDATORS,
    Validator,
    ValidatorHistory,
    ValidatorSet,
)
from holdfast_node.errors import RefusedError

# At least 2: a replica that decides a height takes messages of the next, and knows both sets.
ACTIVATION_DISTANCE: Final = 4
MAX_PROPOSAL_BLOCKS: Final = 1_000_000
LEAST_VALIDATORS: Final = 4
MAX_PORT: Final = 65_535

MEMBERSHIP_KEY: Final = b"m"

ChangeAction: TypeAlias = ProposeJoin | ProposeLeave
MemberAction: TypeAlias = ProposeJoin | ProposeLeave | Approve


class Proposal(Value, frozen=True):
    """An open proposal. `approvals` are indices in the present set, the proposer's first.

    `change` is what was proposed, its evidence left out; `proved` says what that was about, and is
    empty if there was none.
    """

    number: Natural
    height: Natural
    change: ChangeAction
    proved: Annotated[str, Meta(max_length=100)]
    approvals: Annotated[tuple[Natural, ...], Meta(max_length=MAX_VALIDATORS)]


class Membership(Value, frozen=True):
    """What the state holds under `MEMBERSHIP_KEY`.

    `activations` are the heights at which the set changed, ascending; the last may be to come.
    `made` counts the proposals that were ever made.
    """

    activations: Annotated[tuple[Natural, ...], Meta(max_length=MAX_CHANGES)] = ()
    proposals: Annotated[tuple[Proposal, ...], Meta(max_length=MAX_VALIDATORS)] = ()
    made: Natural = 0

    def in_flight(self, height: int) -> int | None:
        """The activation that is still to come for the block at `height`."""
        return self.activations[-1] if self.activations and self.activations[-1] > height else None

    def open(self, height: int) -> tuple[Proposal, ...]:
        """The proposals that can still be approved in the block at `height`."""
        return tuple(p for p in self.proposals if p.change.until >= height)


class Change(Value, frozen=True):
    """What the state holds under `change_key(activation)`: the set that votes from there on.

    `approved_by` names those who agreed, in their order, in the block at `height`.
    """

    validators: Annotated[tuple[Validator, ...], Meta(max_length=MAX_VALIDATORS)]
    proposal: Proposal
    approved_by: Annotated[tuple[str, ...], Meta(max_length=MAX_VALIDATORS)]
    height: Natural


def change_key(activation: int) -> bytes:
    """The state key of the change that takes effect at the height `activation`."""
    return MEMBERSHIP_KEY + activation.to_bytes(8, "big")


@dataclass(frozen=True, slots=True)
class Council:
    """Who decides in the block at `height`."""

    chain_id: str
    height: int
    history: ValidatorHistory

    @property
    def members(self) -> ValidatorSet:
        return self.history.at(self.height)

    def member(self, public_key: bytes) -> int:
        """The index of whoever signs with `public_key`."""
        index = self.members.index_of_key(public_key)
        if index is None:
            raise RefusedError("not_validator", "only validators propose and approve")
        return index


def act(
    before: Membership, action: MemberAction, sender: bytes, council: Council
) -> tuple[Membership, Change | None]:
    """What `action`, signed with the public key `sender`, makes of the membership.

    A change that is agreed now comes with it. Raises `RefusedError`; its code is the receipt's.
    """
    member = council.member(sender)
    height = council.height
    if before.in_flight(height) is not None:
        raise RefusedError("change_in_flight", "one change at a time: wait for its activation")
    proposals = before.open(height)
    if isinstance(action, Approve):
        proposal = _approved(proposals, action.proposal, member)
        made = before.made
    else:
        proposal = _proposed(proposals, action, member, before.made, council)
        made = before.made + 1
    if len(proposal.approvals) >= council.members.quorum:
        return _agreed(before, proposal, made, council)
    others = tuple(p for p in proposals if p.number != proposal.number)
    return Membership(before.activations, (*others, proposal), made), None


def _approved(proposals: tuple[Proposal, ...], number: int, member: int) -> Proposal:
    proposal = next((p for p in proposals if p.number == number), None)
    if proposal is None:
        raise RefusedError("no_such_proposal", f"no proposal {number} is open")
    if member in proposal.approvals:
        raise RefusedError("already_approved", f"proposal {number}: approved already")
    return replace(proposal, approvals=(*proposal.approvals, member))


def _proposed(
    proposals: tuple[Proposal, ...],
    change: ChangeAction,
    member: int,
    number: int,
    council: Council,
) -> Proposal:
    if any(p.approvals[0] == member for p in proposals):
        raise RefusedError("proposal_open", "a validator has one open proposal at a time")
    if not council.height <= change.until <= council.height + MAX_PROPOSAL_BLOCKS:
        raise RefusedError("bad_expiry", f"until = {change.until}: at {council.height}")
    successors(council.members, change)
    proved = ""
    if isinstance(change, ProposeLeave) and change.evidence:
        proved = _convicts(change, council)
        change = replace(change, evidence=b"")
    return Proposal(number, council.height, change, proved, (member,))


def _convicts(change: ProposeLeave, council: Council) -> str:
    """What the evidence proves; raises `RefusedError("bad_evidence")` if it is nothing."""
    try:
        evidence: Evidence = decode(change.evidence, Evidence)
    except RefusedError as error:
        raise RefusedError("bad_evidence", str(error)) from error
    if evidence.height > council.height:
        raise RefusedError("bad_evidence", f"about height {evidence.height}, which is to come")
    then = council.history.at(evidence.height)
    evidence.check(council.chain_id, then)
    guilty = then[evidence.validator].public_key
    if council.members.index_of_key(guilty) != council.members.index_of(change.name):
        raise RefusedError("bad_evidence", f"it does not convict {change.name}")
    return f"{evidence.kind} at {evidence.height}/{evidence.view}"


def _agreed(
    before: Membership, proposal: Proposal, made: int, council: Council
) -> tuple[Membership, Change]:
    if len(before.activations) >= MAX_CHANGES:
        raise RefusedError("too_many_changes", f"at most {MAX_CHANGES} in the life of a chain")
    members = council.members
    validators = successors(members, proposal.change).validators
    names = tuple(members[i].name for i in proposal.approvals)
    change = Change(validators, proposal, names, council.height)
    activation = council.height + ACTIVATION_DISTANCE
    return Membership((*before.activations, activation), (), made), change


def successors(members: ValidatorSet, change: ChangeAction) -> ValidatorSet:
    """The set after `change`: who joins comes last, who leaves makes those after it move up.

    Raises `RefusedError`: bad_name, bad_address, already_validator, too_many, not_member, too_few.
    """
    if isinstance(change, ProposeJoin):
        if not NODE_NAME.fullmatch(change.name):
            raise RefusedError("bad_name", f"name = {change.name!r}: expected a host label")
        for address in (change.address, change.sync_address):
            if int(address.rsplit(":", 1)[1]) > MAX_PORT:
                raise RefusedError("bad_address", f"{address}: ports go up to {MAX_PORT}")
        known = members.index_of(change.name), members.index_of_key(change.public_key)
        if known != (None, None):
            raise RefusedError("already_validator", f"{change.name}: name or key is in use")
        if len(members) >= MAX_VALIDATORS:
            raise RefusedError("too_many", f"at most {MAX_VALIDATORS} validators")
        return ValidatorSet((*members.validators, Validator(change.name, change.public_key)))
    if members.index_of(change.name) is None:
        raise RefusedError("not_member", f"no validator is called {change.name}")
    least = 2 if change.below_four else LEAST_VALIDATORS + 1
    if len(members) < least:
        raise RefusedError(
            "too_few", f"{len(members) - 1} validators would be left: below {LEAST_VALIDATORS} none"
            " may fail; below_four overrides that, and one has to stay"
        )  # fmt: skip
    return ValidatorSet(tuple(v for v in members if v.name != change.name))
