# SPDX-License-Identifier: Apache-2.0
"""What Byzantine validators do. They run the protocol, and lie on the way out.

They share what they know and hold the keys of all of them, and of nobody else.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

from msgspec.structs import replace

from holdfast_node.chain.block import (
    Block,
    Certificate,
    CertifiedBlock,
    VoteSignature,
)
from holdfast_node.chain.codec import encode
from holdfast_node.chain.crypto import ZERO_HASH
from holdfast_node.chain.transaction import Approve, ProposeJoin, ProposeLeave
from holdfast_node.consensus.buffers import stripped
from holdfast_node.consensus.messages import (
    Message,
    NewView,
    PreparedProof,
    PrePrepare,
    ViewChange,
    Vote,
)
from holdfast_node.consensus.rules import required_block
from holdfast_node.consensus.speaker import Speaker
from holdfast_node.simulation.ballots import cast
from holdfast_node.simulation.machine import CHAIN_ID, MAX_BLOCK_BYTES, Machine
from holdfast_node.simulation.snapshots import Offer, poison

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from holdfast_node.chain.membership import MemberAction
    from holdfast_node.chain.validators import ValidatorSet
    from holdfast_node.simulation.scenario import Behaviour
    from holdfast_node.simulation.world import World

_REMEMBERED: Final = 300


class Adversary:
    """Decides for every faulty validator what it does; `behaviour` by validator."""

    def __init__(self, world: World, behaviour: Mapping[int, frozenset[Behaviour]]) -> None:
        self._world = world
        self._random = world.random
        self._behaviour = behaviour
        self._forgers = {index for index, does in behaviour.items() if "forge" in does}
        self._heard: deque[Message] = deque(maxlen=_REMEMBERED)
        self._others: dict[tuple[int, int], Block] = {}  # the second block of a height and view
        self._seen: dict[tuple[int, int], list[bytes]] = {}  # what was proposed there

    def _members(self, height: int) -> ValidatorSet:
        """The validators of a height, as whoever of them knows most has it."""
        known = max((self._world.machines[i] for i in self._behaviour), key=lambda m: m.height)
        return known.validators_at(height)

    def _voice(self, number: int, height: int) -> Speaker:
        """Speaks with the key of `v{number}`; in another's place, if it has none of its own."""
        machine = self._world.machines[number]
        members = self._members(height)
        place = members.index_of_key(machine.key.public_key)
        return Speaker(
            CHAIN_ID, number % len(members) if place is None else place, machine.key.sign
        )

    def _accomplices(self, height: int) -> list[tuple[int, Speaker]]:
        """The faulty among the validators of a height: place and voice, in their order."""
        members = self._members(height)
        keys = self._world.keys
        owners = [keys.owner(validator.public_key) for validator in members]
        return [
            (place, self._voice(number, height))
            for place, number in enumerate(owners)
            if number is not None and number in self._behaviour
        ]

    def _does(self, machine: Machine, what: Behaviour) -> bool:
        return what in self._behaviour.get(machine.index, ())

    def censors(self, machine: Machine) -> bool:
        return self._does(machine, "censor")

    def pretends(self, machine: Machine) -> bool:
        """Whether it offers blocks that it made up."""
        return machine.index in self._forgers

    # What its machines say.

    def overhears(self, message: Message) -> None:
        """Remember what was said: to repeat it later, and to know which blocks compete."""
        if not self._behaviour:
            return
        self._heard.append(message)
        if isinstance(message, PrePrepare):
            seen = self._seen.setdefault((message.height, message.view), [])
            if message.block.hash not in seen:
                seen.append(message.block.hash)

    def twist(self, sender: Machine, to: Machine, message: Message) -> Iterable[Message]:
        """What `to` hears when the replica of the faulty `sender` wants to say `message`."""
        self.overhears(message)
        if self._does(sender, "withhold") and self._random.random() < 0.5:
            return ()
        if self._does(sender, "equivocate"):
            message = self._equivocate(sender, to, message)
        if self._does(sender, "lie"):
            message = self._lie(sender, message)
        return (message,)

    def _equivocate(self, sender: Machine, to: Machine, message: Message) -> Message:
        """Half of the others hear of another block, and of other votes."""
        voice = self._voice(sender.index, message.height)
        match message:
            case PrePrepare() if to.index % 2:
                other = self._other_block(sender, message)
                self.overhears(message)
                twisted = voice.pre_prepare(message.view, other, other.hash)
                self.overhears(twisted)
                return twisted
            case Vote():
                competing = self._seen.get((message.height, message.view), [message.block_hash])
                known = to.index % len(competing) if self._random.random() < 0.8 else 0
                return voice.vote(message.kind, message.height, message.view, competing[known])
            case _:
                return message

    def _other_block(self, sender: Machine, message: PrePrepare) -> Block:
        key = (message.height, message.view)
        if key not in self._others:
            transactions = (b"of v%d at %d/%d" % (sender.index, *key),)
            if message.height == sender.height + 1:
                block = sender.block_of(transactions, self._world.now, message.view)
            else:
                block = message.block
            self._others[key] = block
        return self._others[key]

    def _lie(self, sender: Machine, message: Message) -> Message:
        """In a view change: hide what was prepared, choose whom to believe, propose anything."""
        voice = self._voice(sender.index, message.height)
        match message:
            case ViewChange() if self._random.random() < 0.7:
                if self._random.random() < 0.4 and sender.height + 1 == message.height:
                    return self._false_proof(sender, message)
                return voice.view_change(message.height, message.view, None, None)
            case NewView():
                return self._false_new_view(sender, message)
            case PrePrepare() if message.block.header.view != message.view:
                if self._random.random() < 0.5:  # the header that is required, another body
                    body = (b"instead",)
                    return replace(message, block=Block(message.block.header, body))
                if message.height == sender.height + 1:
                    other = sender.block_of((b"instead",), self._world.now, message.view)
                    return voice.pre_prepare(message.view, other, other.hash)
        return message

    def _false_proof(self, sender: Machine, message: ViewChange) -> ViewChange:
        """Claim that a block of its own was prepared in the view before."""
        view, voice = message.view - 1, self._voice(sender.index, message.height)
        validators = self._members(message.height)
        block = sender.block_of((b"never prepared",), self._world.now, view)
        leading = validators.leader(view)
        members = [i for i in range(len(validators)) if i != leading]
        votes = tuple(
            VoteSignature(i, voice.vote("prepare", message.height, view, block.hash).signature)
            for i in members[: validators.quorum - 1]
        )
        proposal = VoteSignature(leading, voice.pre_prepare(view, block, block.hash).signature)
        proof = PreparedProof(view, block.hash, proposal, votes)
        return voice.view_change(message.height, message.view, proof, block)

    def _false_new_view(self, sender: Machine, message: NewView) -> NewView:
        """Leave out what obliges, or make up what is missing."""
        voice = self._voice(sender.index, message.height)
        changes = list(message.view_changes)
        if required_block(changes) is not None:
            free = [c for c in changes if c.prepared is None]
            mine = [
                accomplice.view_change(message.height, message.view, None, None)
                for _, accomplice in self._accomplices(message.height)
            ]
            held = {change.validator for change in mine}
            changes = [*mine, *(c for c in free if c.validator not in held)]
            if self._random.random() < 0.5:  # signatures that nobody made
                held = {change.validator for change in changes}
                changes += [
                    ViewChange(message.height, message.view, None, c.validator, c.signature)
                    for c in message.view_changes
                    if c.validator not in held
                ]
        changes.sort(key=lambda change: change.validator)
        return voice.new_view(message.height, message.view, stripped(changes))

    # What they do of their own accord.

    def act(self) -> None:
        """Called at intervals."""
        world = self._world
        for machine in world.machines:
            if machine.index not in self._behaviour or not machine.up:
                continue
            others = [m for m in world.machines if m.index not in self._behaviour]
            target = self._random.choice(others)
            if self._does(machine, "replay") and self._heard:
                for _ in range(6):
                    world.says(machine, target, self._random.choice(self._heard))
            if self._does(machine, "flood"):
                self._flood(machine, others[0])
            if self._does(machine, "forge"):
                self._forge(machine, target)
            if self._does(machine, "equivocate") and self._heard:
                self._vote_for_all(machine)
            # Seldom: mempools are bounded by sender in a node, and not here.
            if self._does(machine, "campaign") and self._random.random() < 0.15:
                self._campaign(machine, target)

    def _campaign(self, machine: Machine, target: Machine) -> None:
        """Propose to throw out the honest, agree to anything, and that as if it were others."""
        world, random = self._world, self._random
        keys, height = world.keys, target.height + 1
        number = random.randrange(world.scenario.machines)
        until = height + random.choice([0, 1, 10, 1000])
        validator = keys.validator(number)
        stranger = random.getrandbits(256).to_bytes(32, "big")
        actions: list[MemberAction] = [
            Approve(random.randrange(target.membership.made + 1), unprobed=True),
            Approve(max(0, target.membership.made - 1), unprobed=True),
            ProposeLeave(f"v{number}", "because", b"", below_four=True, until=until),
            ProposeLeave(f"v{number}", "proved", b"proof", below_four=True, until=until),
            ProposeJoin(validator.name, validator.public_key, "a:1", "a:2", until),
            ProposeJoin("stranger", stranger, "a:1", "a:2", until),
        ]
        action = random.choice(actions)
        if world.evidence and random.random() < 0.5:  # true, but of somebody else, perhaps
            proof = encode(random.choice(list(world.evidence.values())))
            action = ProposeLeave(f"v{number}", "proved", proof, below_four=True, until=until)
        ballot = cast(machine.key, action, random.getrandbits(40))
        if random.random() < 0.2:  # signed by somebody else
            ballot = ballot.replace(machine.key.public_key, validator.public_key)
        world.submit(target, ballot)
        for outsider in sorted(self._behaviour):  # whether or not they are members
            key = keys.all[outsider]
            world.submit(target, cast(key, action, random.getrandbits(40)))

    def _vote_for_all(self, machine: Machine) -> None:
        """Vote for every block that competes at the last height heard of."""
        height, view = max(self._seen, default=(0, 0))
        voice = self._voice(machine.index, height)
        for block_hash in self._seen.get((height, view), ()):
            for to in self._world.machines:
                if to.index not in self._behaviour:
                    for kind in ("prepare", "commit"):
                        vote = voice.vote(kind, height, view, block_hash)
                        self._world.says(machine, to, vote)

    def _flood(self, machine: Machine, target: Machine) -> None:
        """Everything that might be kept: the next height, far views, as large as may be."""
        random = self._random
        height = target.height + random.choice([1, 2])
        voice = self._voice(machine.index, height)
        n = len(self._members(height))
        for _ in range(60):
            view = random.choice([0, random.randrange(40), random.randrange(2**40)])
            anything = random.getrandbits(256).to_bytes(32, "big")
            vote = voice.vote(random.choice(["prepare", "commit"]), height, view, anything)
            self._world.says(machine, target, vote)
        led = random.randrange(20) * n + voice.index
        filling = bytes(random.choice([100, MAX_BLOCK_BYTES, 40 * MAX_BLOCK_BYTES]))
        block = machine.block_of((filling, b"%d" % led), self._world.now, led)
        moved = Block(replace(block.header, height=height), block.transactions)
        self._world.says(machine, target, voice.pre_prepare(led, moved, moved.hash))
        self._world.says(
            machine, target, voice.view_change(height, random.getrandbits(40), None, None)
        )

    def _forge(self, machine: Machine, target: Machine) -> None:
        """Speak in the name of others, without their keys."""
        random = self._random
        height = target.height + 1
        voice = self._voice(machine.index, height)
        members = self._members(height)
        mine = {place for place, _ in self._accomplices(height)}
        victims = [i for i in range(len(members)) if i not in mine]
        if not self._seen:
            return
        seen_height, view = max(self._seen)
        for victim in victims:
            if seen_height == height:
                block_hash = random.choice(self._seen[height, view])
            else:
                block_hash = ZERO_HASH
            forged = voice.vote("commit", height, view, block_hash)
            alien = Vote("commit", height, view, block_hash, victim, forged.signature)
            self._world.says(machine, target, alien)
            change = voice.view_change(height, view + 1, None, None)
            self._world.says(
                machine, target, ViewChange(height, view + 1, None, victim, change.signature)
            )
        stranger = Vote("commit", height, view, ZERO_HASH, 200, bytes(64))
        self._world.says(machine, target, stranger)

    def served(self, peer: Machine, to: Machine) -> list[CertifiedBlock]:
        """The blocks that `peer` hands to `to` in block sync."""
        honest = peer.disk.chain[to.height :] if to.height >= peer.disk.base else []
        if not self.pretends(peer) or self._random.random() < 0.5:
            return honest
        return [self._made_up(peer, to)]

    def poisoned(self, peer: Machine, offer: Offer) -> Offer:
        """The snapshot that `peer` hands out where it should hand out `offer`."""
        if not self._does(peer, "poison") or self._random.random() < 0.2:
            return offer
        return poison(self._world, offer, forge=self._random.random() < 0.5)

    def _made_up(self, peer: Machine, to: Machine) -> CertifiedBlock:
        """A block that extends the victim's chain, certified by whoever could be had."""
        block = to.block_of((b"made up by v%d" % peer.index,), self._world.now, 0)
        mine = [
            (place, voice.vote("commit", block.height, 0, block.hash).signature)
            for place, voice in self._accomplices(block.height)
        ]
        size = self._members(block.height).quorum
        held = {place for place, _ in mine}
        others = [(i, bytes(64)) for i in range(size + len(mine)) if i not in held]
        votes = sorted([*mine, *others])[:size]
        signatures = tuple(VoteSignature(i, signature) for i, signature in votes)
        return CertifiedBlock(block, Certificate(block.height, 0, block.hash, signatures))
