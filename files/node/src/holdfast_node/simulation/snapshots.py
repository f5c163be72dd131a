# SPDX-License-Identifier: Apache-2.0
"""Catching up by a snapshot: true ones, and what Byzantine validators make of them.

The simulated state is what all transactions so far lead to, so a snapshot of it is their list: the
state root in the certified header covers it, and nothing else does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from msgspec.structs import replace

from holdfast_node.chain.block import Block, CertifiedBlock, CertifiedHeader, Header, VoteSignature
from holdfast_node.chain.trail import TrailStep
from holdfast_node.errors import RefusedError
from holdfast_node.simulation.keys import Keys, SimulatedValidators
from holdfast_node.simulation.machine import CHAIN_ID, Machine
from holdfast_node.snapshot.manifest import demand_root

if TYPE_CHECKING:
    from holdfast_node.simulation.world import World

DISTRUST: Final = 2.0  # seconds for which a liar is not asked again
CRASH: Final = 0.3  # the chance to die of an installation, where machines die at all


@dataclass(frozen=True)
class Offer:
    """The state after the block of `head`: the transactions of each block up to there."""

    head: CertifiedHeader
    trail: tuple[TrailStep, ...]
    content: tuple[tuple[bytes, ...], ...]

    @property
    def height(self) -> int:
        return self.head.header.height


class Snapshots:
    """What a machine far behind does instead of fetching all blocks."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._distrust: dict[tuple[int, int], float] = {}

    def catch_up(self, machine: Machine, ahead: list[Machine]) -> bool:
        """Begin with a snapshot if the machine is far behind; True if so, or if it died of it."""
        world = self._world
        interval = world.scenario.snapshots
        if not interval:
            return False
        peer = world.random.choice(ahead)
        height = self._newest(peer)
        # Blocks that the peer has itself from a snapshot are to be had in no other way.
        least = machine.height if peer.disk.base > machine.height else machine.height + interval
        if height <= least or self._distrust.get((machine.id, peer.id), 0.0) > world.now:
            return False
        offer = world.adversary.poisoned(peer, offer_of(peer, height))
        try:
            check(offer, machine)
        except RefusedError as error:
            world.note(f"{machine} refuses a snapshot of {peer}: {error.code}")
            self._distrust[machine.id, peer.id] = world.now + DISTRUST
            return False
        return self._install(machine, peer, offer)

    def _newest(self, peer: Machine) -> int:
        """The last multiple of the interval at which the peer has a snapshot, or 0."""
        interval = self._world.scenario.snapshots
        height = peer.height - peer.height % interval
        # The oracle follows the chain in order, by what an honest validator executed.
        known = self._world.oracle.final.get(height, (b"", b""))[1]
        return height if known and height >= peer.disk.base else 0

    def _install(self, machine: Machine, peer: Machine, offer: Offer) -> bool:
        world = self._world
        if world.scenario.crash and world.random.random() < CRASH:
            world.crash(machine, "in an installation")
            if world.random.random() < 0.5:  # before the one step, or after it
                return True
            put(machine, offer)
            return True
        put(machine, offer)
        machine.restore()
        world.note(f"{machine} has the state of block {offer.height}, from {peer}")
        if machine.standing.doubt is not None and not machine.marks.isdisjoint(machine.done):
            machine.clear_doubt()  # its mark is in the state
        if machine.index not in world.faulty:
            world.oracle.installed(machine.index, offer.head.header, machine.root)
        world.go_on(machine, offer.head.header)
        return True


def offer_of(peer: Machine, height: int) -> Offer:
    """The snapshot that `peer` has of the state at `height`."""
    chain = peer.disk.chain
    steps = []
    for activation in peer.history.activations:
        if activation <= height:
            known = {step.certified.header.height: step.certified for step in peer.disk.trail}
            last = known.get(activation - 1) or _head(chain[activation - 2])
            steps.append(TrailStep(last, peer.validators_at(activation).validators))
    content = tuple(certified.block.transactions for certified in chain[:height])
    return Offer(_head(chain[height - 1]), tuple(steps), content)


def _head(certified: CertifiedBlock) -> CertifiedHeader:
    return CertifiedHeader(certified.block.header, certified.certificate)


def check(offer: Offer, machine: Machine) -> None:
    """Raise `RefusedError` unless a quorum certified this very state, as a node does."""
    validators = _walk(offer.trail, machine.first, machine.keys)
    offer.head.check(CHAIN_ID, validators)
    scratch = Machine(machine.id, machine.index, machine.keys, machine.first)
    if len(offer.content) != offer.height:
        raise RefusedError("bad_snapshot", "blocks are missing")
    put(scratch, offer)
    scratch.restore()
    demand_root(scratch.root, offer.head.header)


def _walk(
    trail: tuple[TrailStep, ...], first: SimulatedValidators, keys: Keys
) -> SimulatedValidators:
    """As `chain.trail.walk`, with simulated keys."""
    validators = first
    for step in trail:
        step.certified.check(CHAIN_ID, validators)
        validators = SimulatedValidators(step.next_set, keys)
        if validators.hash != step.certified.header.next_validators_hash:
            raise RefusedError("bad_trail", "names other successors")
    return validators


def put(machine: Machine, offer: Offer) -> None:
    """On disk, in one step: blocks without headers of their own up to the snapshot's."""
    disk = machine.disk
    header, certificate = offer.head.header, offer.head.certificate
    disk.chain = [CertifiedBlock(Block(header, t), certificate) for t in offer.content]
    disk.base, disk.trail = offer.height, offer.trail


def poison(world: World, offer: Offer, *, forge: bool) -> Offer:
    """Another state: under the true header, or under one that nobody certified."""
    random = world.random
    content = list(offer.content)
    at = random.randrange(len(content))
    content[at] = (*content[at][1:], b"poison %d" % world.events)
    head = offer.head
    if forge:
        header: Header = replace(head.header, state_root=random.randbytes(32))
        votes = tuple(VoteSignature(v.validator, bytes(64)) for v in head.certificate.signatures)
        certificate = replace(head.certificate, block_hash=header.hash, signatures=votes)
        head = CertifiedHeader(header, certificate)
    return Offer(head, offer.trail, tuple(content))
