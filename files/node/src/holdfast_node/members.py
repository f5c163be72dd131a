# SPDX-License-Identifier: Apache-2.0
"""The membership as this node sees it: what is open, what was changed, and who is fit to join."""

from collections.abc import Callable, Iterable

from holdfast_node.api.service import (
    CandidateView,
    ChangeView,
    MembersView,
    ProposalView,
)
from holdfast_node.api.views import change_view
from holdfast_node.chain.crypto import account_of
from holdfast_node.chain.membership import ChangeAction, Proposal
from holdfast_node.chain.transaction import Action, Approve, ProposeJoin
from holdfast_node.chain.validators import ValidatorSet
from holdfast_node.errors import RefusedError
from holdfast_node.ledger.ledger import Ledger
from holdfast_node.net.network import PeerStatus
from holdfast_node.net.settings import PeerSettings

# A candidate that is this many blocks behind is in step: blocks go on while it is looked at.
IN_STEP_BLOCKS = 3
HISTORY_CHANGES = 200


class Members:
    """`name` is this node's; `peers()` are the others, as they are now."""

    def __init__(
        self, ledger: Ledger, name: str, peers: Callable[[], Iterable[PeerStatus]]
    ) -> None:
        self._ledger = ledger
        self._name = name
        self._peers = peers

    def view(self) -> MembersView:
        """Open proposals, and the change that is to come."""
        ledger = self._ledger
        height = ledger.height + 1
        membership, validators = ledger.membership(), ledger.validators
        coming = membership.in_flight(height)
        return MembersView(
            height=ledger.height,
            validators=[validator.name for validator in validators],
            quorum=validators.quorum,
            proposals=[self._proposal(p, validators) for p in membership.open(height)],
            next_change=None if coming is None else self._change(coming),
        )

    def history(self) -> list[ChangeView]:
        """The changes that were agreed on, the latest last; at most the last 200."""
        activations = self._ledger.membership().activations
        return [self._change(activation) for activation in activations[-HISTORY_CHANGES:]]

    def joined(self) -> list[PeerSettings]:
        """The validators that joined, or are to, as the network layer knows members."""
        now = {validator.name for validator in self._ledger.last_validators}
        found = {}
        for activation in self._ledger.membership().activations:
            change = self._ledger.change(activation).proposal.change
            if isinstance(change, ProposeJoin) and change.name in now - {self._name}:
                host, port = change.address.rsplit(":", 1)
                sync_host, sync_port = change.sync_address.rsplit(":", 1)
                found[change.name] = PeerSettings(  # the last time it joined counts
                    change.name,
                    "validator",
                    host.strip("[]"),
                    int(port),
                    sync_host.strip("[]"),
                    int(sync_port),
                )
        return list(found.values())

    def open_proposals(self) -> int:
        return len(self._ledger.membership().open(self._ledger.height + 1))

    def next_activation(self) -> int:
        """0 if no change is agreed on."""
        return self._ledger.membership().in_flight(self._ledger.height + 1) or 0

    def refuse_unprobed(self, actions: Iterable[Action]) -> None:
        """Raise `RefusedError` for an approval of a candidate that is not fit to join.

        What does not exist, or is for others to judge, is left to execution.
        """
        for action in actions:
            if not isinstance(action, Approve) or action.unprobed:
                continue
            for proposal in self._ledger.membership().open(self._ledger.height + 1):
                if proposal.number != action.proposal:
                    continue
                found = self._candidate(proposal.change)
                if found is not None and not found.in_step:
                    raise RefusedError(
                        "candidate_not_in_step",
                        f"proposal {proposal.number}: {found.reason}; put that right, or approve "
                        "unprobed",
                    )

    def _proposal(self, proposal: Proposal, validators: ValidatorSet) -> ProposalView:
        approvals = [validators[i].name for i in proposal.approvals]
        return ProposalView(
            number=proposal.number,
            kind="join" if isinstance(proposal.change, ProposeJoin) else "leave",
            name=proposal.change.name,
            change=change_view(proposal.change),
            proved=proposal.proved or None,
            proposed_at=proposal.height,
            until=proposal.change.until,
            approved_by=approvals,
            missing=max(0, validators.quorum - len(approvals)),
            candidate=self._candidate(proposal.change),
        )

    def _change(self, activation: int) -> ChangeView:
        change = self._ledger.change(activation)
        proposal = change.proposal
        return ChangeView(
            activation=activation,
            number=proposal.number,
            kind="join" if isinstance(proposal.change, ProposeJoin) else "leave",
            name=proposal.change.name,
            change=change_view(proposal.change),
            proved=proposal.proved or None,
            agreed_at=change.height,
            approved_by=list(change.approved_by),
            validators=[validator.name for validator in change.validators],
        )

    def _candidate(self, change: ChangeAction) -> CandidateView | None:
        if not isinstance(change, ProposeJoin):
            return None
        peer = next((peer for peer in self._peers() if peer.name == change.name), None)
        reason = self._unfit(change, peer)
        connected = change.name == self._name or (peer is not None and peer.connected)
        height = None if peer is None or not peer.connected else peer.height
        return CandidateView(connected, height, reason is None, reason)

    def _unfit(self, change: ProposeJoin, peer: PeerStatus | None) -> str | None:
        """Why the candidate must not vote yet; None if it is connected and in step."""
        height = self._ledger.height
        if change.name != self._name:
            if peer is None:
                return f"{change.name} is not among the peers of this node"
            if not peer.connected:
                return f"{change.name} is not connected to this node"
            if peer.height + IN_STEP_BLOCKS < height:
                return f"{change.name} is at block {peer.height} of {height}"
        if self._ledger.next_nonce(account_of(change.public_key)) == 0:
            return f"{change.name}'s voting key has signed nothing on this chain: start it with it"
        return None
