# SPDX-License-Identifier: Apache-2.0
"""What happens at intervals while all is well: clients, block sync, leaders at work."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from holdfast_node.consensus.messages import Anchored, Floor
from holdfast_node.errors import RefusedError
from holdfast_node.simulation.machine import CHAIN_ID, Machine

if TYPE_CHECKING:
    from holdfast_node.simulation.world import World

BLOCK_INTERVAL: Final = 0.15
COMPACT_BYTES: Final = 4_000


class Routine:
    """`begin` has it go on for as long as `world` runs."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._submitted = 0

    def begin(self) -> None:
        world = self._world
        world.every(world.scenario.sync, self._sync_all)
        world.every(BLOCK_INTERVAL, self._work_all)
        world.every(0.25, self._submit)

    def _submit(self) -> None:
        """A client hands a transaction to some validator; those in doubt hand in their marks."""
        world = self._world
        ready = [m for m in world.machines if m.up and m.frozen_until <= world.now]
        for machine in ready:
            if machine.mempool and machine.place(machine.height + 1) is None:
                # No view change reminds it: a node hands over what waits when it connects again.
                world.gossip(machine, list(machine.mempool))
            for mark in sorted(machine.marks):
                world.admit(machine, [mark])
                world.gossip(machine, [mark])
        if ready:
            self._submitted += 1
            ending = b"!" if self._submitted % 8 == 0 else b""
            transaction = b"transaction %d" % self._submitted + ending
            world.submit(world.random.choice(ready), transaction)

    def _sync_all(self) -> None:
        """Block sync: a machine that is behind takes blocks from a peer that can reach it."""
        for machine in self._world.machines:
            self._sync(machine)

    def _sync(self, machine: Machine) -> None:
        world, life = self._world, machine.life
        if not machine.up or machine.idle_at > world.now:
            return
        ahead = self._ahead_of(machine)
        if not ahead or world.snapshots.catch_up(machine, ahead):
            return
        peer = world.random.choice(ahead)
        for certified in world.adversary.served(peer, machine):
            if certified.block.height != machine.height + 1:
                continue
            try:
                certified.check(CHAIN_ID, machine.validators_at(certified.block.height))
            except RefusedError:
                return
            world.commit(machine, certified)
            if machine.life != life:
                return
            if machine.index in world.scenario.slow_disks:
                world.after(world.occupy(machine), self._sync, machine)  # the next one then
                return

    def _ahead_of(self, machine: Machine) -> list[Machine]:
        """Who offers blocks that the machine lacks, and is within its reach."""
        world, height = self._world, machine.height
        return [
            peer
            for peer in world.machines
            if (peer.height > height or world.adversary.pretends(peer))
            and peer.up
            and peer.frozen_until <= world.now
            and world.reachable(peer, machine)
            and world.reachable(machine, peer)
        ]

    def _work_all(self) -> None:
        """Leaders propose, unless they are out of step; the others expect them to."""
        world = self._world
        for machine in world.machines:
            replica = machine.replica
            if replica is None or machine.idle_at > world.now or replica.decided:
                continue
            ahead = {peer.key.public_key for peer in self._ahead_of(machine)}
            claims = sum(replica.validators.index_of_key(key) is not None for key in ahead)
            if claims > replica.validators.tolerated_faults:
                continue  # as in the driver: neither proposes nor expects
            now = machine.clock(world.now)
            replica.expect(now)
            if replica.wants_proposal:
                censored = world.adversary.censors(machine)
                block = machine.new_block(world.now, replica.view, censored=censored)
                world.carry_out(machine, replica.propose(block, now))
            else:
                world.arm(machine)
            _compact(machine)


def _compact(machine: Machine) -> None:
    """Shorten a long journal to what still binds, as the driver does."""
    replica, disk = machine.replica, machine.disk
    if replica is None or disk.journal is None or len(disk.journal) < COMPACT_BYTES:
        return
    if machine.backlog:
        return  # not yet on disk what the replica goes by
    floor = Floor(replica.height - 1)
    disk.reset([Anchored(disk.anchor, 0), floor, *replica.records()])
