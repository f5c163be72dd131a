# SPDX-License-Identifier: Apache-2.0
"""Bugs that people make in PBFT, put in on purpose; each must be found.

A mutation is a list of attributes to replace, and the kind of network in which it does harm.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from msgspec import structs

from holdfast_node.chain import membership as membership_module
from holdfast_node.chain.block import Certificate, CertifiedHeader
from holdfast_node.chain.membership import Council
from holdfast_node.chain.validators import ValidatorSet
from holdfast_node.consensus import height as height_module
from holdfast_node.consensus import patience as patience_module
from holdfast_node.consensus import replica as replica_module
from holdfast_node.consensus import rules as rules_module
from holdfast_node.consensus.buffers import FutureMessages, weight
from holdfast_node.consensus.effects import Persist, Send
from holdfast_node.consensus.messages import Anchored, Entered, NewView, PrePrepare, Vote
from holdfast_node.consensus.replica import Replica
from holdfast_node.consensus.votes import VoteBook
from holdfast_node.errors import RefusedError
from holdfast_node.simulation import adversary as adversary_module
from holdfast_node.simulation import machine as machine_module
from holdfast_node.simulation import snapshots as snapshots_module
from holdfast_node.simulation.disk import Disk
from holdfast_node.simulation.machine import Machine
from holdfast_node.simulation.scenario import Behaviour, Scenario
from holdfast_node.simulation.world import World

Patch = tuple[Any, str, Any]


@dataclass(frozen=True)
class Mutation:
    name: str
    patches: Callable[[], list[Patch]]
    scenario: Scenario


STORMY = Scenario(
    n=4, loss=0.3, delay=0.15, crash=0.02, partition_rate=0.3, sync=4.0, chaos=12.0, drift=0.1
)


def byzantine(*behaviours: Behaviour, base: Scenario = STORMY, leader: int = 0) -> Scenario:
    return replace(base, byzantine=((leader, frozenset(behaviours)),))


CALM = Scenario(n=4, delay=0.03, chaos=8.0)
STUCK = replace(STORMY, loss=0.0, delay=0.03, partition_rate=1.0, crash=0.0)
CHANGING = Scenario(n=4, candidates=2, change_rate=1.0, delay=0.03, loss=0.05, chaos=10.0)
CAMPAIGN_OUTSIDE = replace(CHANGING, byzantine=((4, frozenset({"campaign"})),))
CAMPAIGN_INSIDE = replace(CHANGING, byzantine=((2, frozenset({"campaign"})),))
EXPELLING = replace(
    CHANGING, n=5, loss=0.1, expels=True, chaos=14.0,
    byzantine=((0, frozenset({"equivocate", "clone", "campaign"})),),
)  # fmt: skip
POISONED = byzantine(
    "poison", base=replace(STORMY, snapshots=1, loss=0.1, delay=0.03, sync=2.0, chaos=24.0)
)
SLOW = replace(CALM, slow_disks=frozenset({0}))
JUMPING = replace(CALM, clock_jump_rate=0.5)
DISKS = replace(STORMY, disk_fault_rate=1.0, crash=0.005, loss=0.1)


def wrap(owner: Any, name: str, make: Callable[[Any], Any]) -> Patch:
    return owner, name, make(getattr(owner, name))


def speak_first() -> list[Patch]:
    def order(real):
        def mutated(self, *a, **k):
            return sorted(real(self, *a, **k), key=lambda effect: isinstance(effect, Persist))

        return mutated

    return [wrap(Replica, name, order) for name in ("receive", "timeout", "propose")]


def small_quorum() -> list[Patch]:
    return [(ValidatorSet, "quorum", property(lambda self: 2 * self.tolerated_faults))]


def unchecked_new_view() -> list[Patch]:
    def skip(real):
        def mutated(message, **k):
            return None if isinstance(message, NewView) else real(message, **k)

        return mutated

    return [wrap(replica_module, "check_message", skip)]


def unchecked_proof() -> list[Patch]:
    return [(rules_module, "check_proof", lambda *a, **k: None)]


def forgotten_lock() -> list[Patch]:
    def forget(real):
        def mutated(self):
            self._locked = None
            return real(self)

        return mutated

    return [wrap(Replica, "_view_change", forget)]


def unchecked_certificate() -> list[Patch]:
    return [(Certificate, "check", lambda *a, **k: None)]


def second_proposal() -> list[Patch]:
    def accept(real):
        def mutated(self, message, now):
            if message.view == self.view and self._proposal is not None:
                self._proposal = None
                self._cast.pop(("prepare", self.view), None)
            return real(self, message, now)

        return mutated

    return [wrap(Replica, "_on_pre_prepare", accept)]


def amnesia() -> list[Patch]:
    def forget(real):
        def mutated(self):
            records = real(self)
            return records and [r for r in records if isinstance(r, Anchored)]

        return mutated

    return [wrap(Disk, "open", forget)]


def uncut_tail() -> list[Patch]:
    def keep(real):
        def mutated(self):
            content = None if self.journal is None else bytes(self.journal)
            records = real(self)
            if content is not None:
                self.journal = bytearray(content)
            return records

        return mutated

    return [wrap(Disk, "open", keep)]


def unbounded_buffer() -> list[Patch]:
    def add(self, message):
        self._waiting.setdefault(message.validator, deque()).append((message, weight(message)))

    return [(FutureMessages, "add", add)]


def lost_watermark() -> list[Patch]:
    return [(height_module, "VIEWS_AHEAD", 2**62)]


def unchecked_signature() -> list[Patch]:
    def skip(real):
        def mutated(message, **k):
            return None if isinstance(message, Vote) else real(message, **k)

        return mutated

    return [wrap(replica_module, "check_message", skip)]


def stale_view() -> list[Patch]:
    """Votes for a proposal of a view that was given up."""

    def accept(real):
        def mutated(self, message):
            if isinstance(message, PrePrepare) and message.view < self.view and not self.active:
                self.view, self.active = message.view, True
            return real(self, message)

        return mutated

    return [wrap(Replica, "_is_moot", accept)]


def free_choice() -> list[Patch]:
    """A new leader, and those who check it, take no notice of what was prepared."""
    return [
        (replica_module, "required_block", lambda _changes: None),
        (replica_module, "required", lambda _changes: (None, None)),
    ]


def trusted_copy() -> list[Patch]:
    def trust(real):
        def mutated(records, *, anchor, new):
            kept = [r for r in records or () if not isinstance(r, Anchored)]
            return real(kept, anchor=anchor, new=new)

        return mutated

    return [wrap(machine_module, "judge", trust)]


def no_floor() -> list[Patch]:
    def forget(real):
        def mutated(records, *, anchor, new):
            standing = real(records, anchor=anchor, new=new)
            standing.floor = 0
            return standing

        return mutated

    return [wrap(machine_module, "judge", forget)]


def entered_not_written() -> list[Patch]:
    def drop(real):
        def mutated(self, *a, **k):
            return [
                e
                for e in real(self, *a, **k)
                if not (isinstance(e, Persist) and isinstance(e.record, Entered))
            ]

        return mutated

    return [wrap(Replica, "_change_view", drop)]


def second_view_change_not_written() -> list[Patch]:
    def drop(real):
        def mutated(self, *a, **k):
            again = self.view > self.first_view
            effects = real(self, *a, **k)
            return [
                e
                for e in effects
                if not (again and isinstance(e, Persist) and isinstance(e.record, Entered))
            ]

        return mutated

    return [wrap(Replica, "_change_view", drop)]


def new_view_not_followed() -> list[Patch]:
    """Writes that it gave up the view, and goes on in it."""

    def stay(real):
        def mutated(self, message, now):
            if message.view > self.view and self.active:
                return [Persist(Entered(self.height, message.view))]
            return real(self, message, now)

        return mutated

    return [wrap(Replica, "_on_new_view", stay)]


def votes_counted_twice() -> list[Patch]:
    """Two votes of one validator for two blocks count for both."""

    def add(self, view, block_hash, vote):
        known = self._by_view.setdefault(view, {})
        known[vote.validator, block_hash] = (block_hash, vote.signature)

    def of(self, view, block_hash):
        known = self._by_view.get(view, {})
        return tuple(
            replica_module.VoteSignature(validator, signature)
            for (validator, voted), (_, signature) in sorted(known.items())
            if voted == block_hash
        )

    def quorum_too_soon(self, size):
        for view in sorted(self._by_view):
            if len(self._by_view[view]) >= size:
                return view, next(iter(self._by_view[view].values()))[0]
        return None

    return [
        (VoteBook, "add", add),
        (VoteBook, "of", of),
        (VoteBook, "quorum", quorum_too_soon),
    ]


def doubtful_votes_known() -> list[Patch]:
    """A vote counts as verified as soon as its validator has voted in that view."""

    def has(self, view, _block_hash, validator, _signature):
        return validator in self._by_view.get(view, {})

    return [(VoteBook, "has", has)]


def no_timeout() -> list[Patch]:
    return [(Replica, "_view_seconds", lambda _self: float(10**9))]


def endless_patience() -> list[Patch]:
    return [(patience_module.Patience, "committed", lambda *a, **k: False)]


def lock_not_restored() -> list[Patch]:
    def forget(real):
        def mutated(self, record):
            if not isinstance(record, height_module.Locked):
                real(self, record)

        return mutated

    return [wrap(Replica, "_restore", forget)]


def other_body() -> list[Patch]:
    """The header is what was locked; the transactions come from whoever proposes it again."""

    def take(real):
        def mutated(self, message, now):
            lock = self._locked
            if lock is not None and lock.proof.block_hash == message.block.hash:
                self._locked = structs.replace(lock, block=message.block)
            return real(self, message, now)

        return mutated

    return [wrap(Replica, "_on_pre_prepare", take)]


def compacted_too_far() -> list[Patch]:
    return [(Replica, "records", lambda _self: [])]


def hasty_accusation() -> list[Patch]:
    """A proposal that is repeated counts as another one."""

    def accuse(real):
        def mutated(self, message):
            again = isinstance(message, PrePrepare) and self._proposal is not None
            return real(self, message) and not (again and message.view == self.view)

        return mutated

    return [wrap(Replica, "_is_moot", accuse)]


def old_set_at_activation() -> list[Patch]:
    """The block at which a change takes effect is still decided by the set before it."""
    return [(Machine, "validators_at", lambda self, height: self.history.at(height - 1))]


def early_on_one_node() -> list[Patch]:
    return [
        (Machine, "validators_at", lambda self, height: self.history.at(height + (self.id == 1)))
    ]


def outsiders_approve() -> list[Patch]:
    """Whoever is no validator counts as one of them all the same."""

    def anybody(self, public_key):
        index = self.members.index_of_key(public_key)
        return public_key[0] % len(self.members) if index is None else index

    return [(Council, "member", anybody)]


def one_approves_twice() -> list[Patch]:
    def count(proposals, number, member):
        for proposal in proposals:
            if proposal.number == number:
                return structs.replace(proposal, approvals=(*proposal.approvals, member))
        raise RefusedError("no_such_proposal", "")

    return [(membership_module, "_approved", count)]


def half_approves() -> list[Patch]:
    """A change that half of the members want is agreed on."""

    def agree(real):
        def mutated(before, action, sender, council):
            after, change = real(before, action, sender, council)
            last = after.proposals[-1] if after.proposals else None
            if change is None and 2 * len(last.approvals) >= len(council.members):
                return membership_module._agreed(before, last, after.made, council)
            return after, change

        return mutated

    return [wrap(machine_module, "act", agree)]


def evidence_unchecked() -> list[Patch]:
    return [(membership_module, "_convicts", lambda _change, _council: "something")]


def evidence_against_anybody() -> list[Patch]:
    """True evidence, whoever it is brought against."""

    def any_name(real):
        def mutated(change, council):
            for validator in council.members:
                try:
                    return real(structs.replace(change, name=validator.name), council)
                except RefusedError:
                    continue
            raise RefusedError("bad_evidence", "")

        return mutated

    return [wrap(membership_module, "_convicts", any_name)]


def snapshot_root_unchecked() -> list[Patch]:
    return [(snapshots_module, "demand_root", lambda _root, _header: None)]


def snapshot_header_unchecked() -> list[Patch]:
    """The state fits the header, which anybody may have made."""

    def forged(real):
        def mutated(world, offer, *, forge):
            offer = real(world, offer, forge=forge)
            scratch = Machine(0, 0, world.keys, world.machines[0].first)
            snapshots_module.put(scratch, offer)
            scratch.restore()
            header = structs.replace(offer.head.header, state_root=scratch.root)
            head = structs.replace(offer.head, header=header)
            return replace(offer, head=head)

        return mutated

    return [
        (CertifiedHeader, "check", lambda *_: None),
        wrap(adversary_module, "poison", forged),
    ]


def slow_write_not_awaited() -> list[Patch]:
    """What follows a write to a slow disk does not wait for it."""

    def hurry(real):
        def mutated(self, machine, effects):
            if machine.index in self.scenario.slow_disks and not machine.backlog:
                for effect in effects:
                    if isinstance(effect, Send):
                        self._send(machine, effect.message)
                effects = [effect for effect in effects if not isinstance(effect, Send)]
            real(self, machine, effects)

        return mutated

    return [wrap(World, "carry_out", hurry)]


def time_of_proposals_unchecked() -> list[Patch]:
    return [(machine_module, "TOLERATED_MS", 10**12)]


MUTATIONS = [
    Mutation("a snapshot whose root was not checked", snapshot_root_unchecked, POISONED),
    Mutation("a snapshot of a header nobody certified", snapshot_header_unchecked, POISONED),
    Mutation("a vote before its persist", speak_first, STORMY),
    Mutation("a quorum of 2f", small_quorum, byzantine("equivocate", base=CALM)),
    Mutation("NEW-VIEW not checked", unchecked_new_view, byzantine("lie", leader=1)),
    Mutation("prepared proof not checked", unchecked_proof, byzantine("lie", leader=1)),
    Mutation("a lock forgotten in the view change", forgotten_lock, STORMY),
    Mutation("a certificate not checked", unchecked_certificate, byzantine("forge", base=CALM)),
    Mutation(
        "two proposals accepted in one view", second_proposal, byzantine("equivocate", "clone")
    ),
    Mutation("the journal not read after a crash", amnesia, STORMY),
    Mutation("the torn end of a journal left there", uncut_tail, STORMY),
    Mutation(
        "future messages kept without bound", unbounded_buffer, byzantine("flood", base=STUCK)
    ),
    Mutation("no watermark on views", lost_watermark, byzantine("flood", base=STUCK)),
    Mutation("signatures not checked", unchecked_signature, byzantine("forge", base=CALM)),
    Mutation("a stale view accepted", stale_view, STORMY),
    Mutation("what was prepared not proposed again", free_choice, STORMY),
    Mutation("a copied folder trusted", trusted_copy, DISKS),
    Mutation("votes below the journal's height", no_floor, replace(DISKS, n=7)),
    Mutation("a view given up without a record", entered_not_written, STORMY),
    Mutation("a second view given up without one", second_view_change_not_written, STUCK),
    Mutation("a NEW-VIEW written and not followed", new_view_not_followed, STORMY),
    Mutation("votes for anything count", votes_counted_twice, byzantine("equivocate", base=CALM)),
    Mutation("a second vote not verified", doubtful_votes_known, byzantine("forge")),
    Mutation("no timeout", no_timeout, replace(STORMY, stopped=frozenset({0}))),
    Mutation("a censor never suspected", endless_patience, byzantine("censor", base=CALM)),
    Mutation("a lock not restored", lock_not_restored, STORMY),
    Mutation("the body of a locked block taken anew", other_body, byzantine("lie", leader=1)),
    Mutation("a journal shortened too far", compacted_too_far, STORMY),
    Mutation("evidence of what was said twice", hasty_accusation, STORMY),
    Mutation("the block at activation decided by the old set", old_set_at_activation, CHANGING),
    Mutation("a change one height early on one node", early_on_one_node, CHANGING),
    Mutation("approvals of others than validators count", outsiders_approve, CAMPAIGN_OUTSIDE),
    Mutation("one approval counts twice", one_approves_twice, CAMPAIGN_INSIDE),
    Mutation("half of the members are enough for a change", half_approves, CHANGING),
    Mutation("speaking before a slow write is over", slow_write_not_awaited, SLOW),
    Mutation("a block from the future accepted", time_of_proposals_unchecked, JUMPING),
    Mutation("evidence not checked", evidence_unchecked, EXPELLING),
    Mutation("evidence convicts whoever is named", evidence_against_anybody, EXPELLING),
]
