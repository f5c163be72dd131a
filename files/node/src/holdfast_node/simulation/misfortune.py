# SPDX-License-Identifier: Apache-2.0
"""What befalls machines and the network: restarts, freezes, partitions, disks and clocks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from holdfast_node.simulation.machine import Machine
    from holdfast_node.simulation.world import World

JUMP: Final = (600.0, 6 * 3600.0)  # seconds


class Misfortune:
    """Strikes at intervals, as often as the scenario says."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._random = world.random
        self._buried: set[int] = set()

    def strike(self) -> None:
        """Called twice a second."""
        world, random = self._world, self._random
        scenario = world.scenario
        honest = [m for m in world.machines if m.index not in world.faulty]
        for machine in world.machines:
            if not machine.up and machine.index not in self._buried and random.random() < 0.3:
                world.start(machine)
        if random.random() < scenario.freeze_rate:
            machine = random.choice(world.machines)
            machine.frozen_until = world.now + random.uniform(0.5, 5.0)
            world.note(f"{machine} freezes until {machine.frozen_until:.3f}")
        if scenario.clock_jump_rate:
            self._clocks(scenario.clock_jump_rate)
        if scenario.partition_rate:
            if world.blocked and random.random() < 0.3:
                world.note("partitions heal")
                world.blocked = set()
            elif random.random() < scenario.partition_rate:
                self._partition()
        if scenario.disk_fault_rate:
            if random.random() < 0.3:
                machine = random.choice(honest)
                if machine.standing.doubt is None:
                    machine.backup = machine.disk.copied()
            if random.random() < scenario.disk_fault_rate:
                self._disk_fault(random.choice(honest))

    def _clocks(self, rate: float) -> None:
        """Wall clocks jump by hours, of so few that no quorum goes by them, and back again."""
        world, random = self._world, self._random
        for machine in world.machines:
            if machine.jump and random.random() < 0.2:
                machine.jump = 0.0
                world.note(f"{machine} has the right time again")
        if random.random() < rate:
            machine = random.choice(world.machines)
            wrong = {m.index for m in world.machines if m.jump} | world.lame() | {machine.index}
            if len(wrong) <= world.least_faults():
                machine.jump = random.choice([-1, 1]) * random.uniform(*JUMP)
                world.note(f"{machine} is {machine.jump / 3600:+.1f} hours off")

    def _partition(self) -> None:
        world, random, count = self._world, self._random, len(self._world.machines)
        side = frozenset(random.sample(range(count), random.randint(1, count // 2)))
        pairs = {(a, b) for a in side for b in range(count) if b not in side}
        if not world.scenario.one_way or random.random() < 0.5:
            pairs |= {(b, a) for a, b in pairs}
        elif random.random() < 0.5:
            pairs = {(b, a) for a, b in pairs}
        world.blocked |= pairs
        world.note(f"partition: {len(pairs)} of {count * (count - 1)} ways are cut")

    def _disk_fault(self, machine: Machine) -> None:
        """A folder comes back from an old copy, or loses its journal or its blocks.

        Those that wait for their marks cannot help others: together with the faulty at most f.
        """
        world = self._world
        what = self._random.choice(["copy", "journal", "blocks"])
        if len(world.lame() | {machine.index}) > world.least_faults():
            return
        if what == "copy" and machine.backup is None:
            return
        world.crash(machine, f"disk fault: {what}")
        machine.standing.doubt = "to be judged when it starts"
        if what == "copy" and machine.backup is not None:
            restored, machine.backup = machine.backup, None
            restored.anchor = machine.disk.anchor + 1
            machine.disk = restored
        elif what == "journal":
            machine.disk.journal = None
        else:
            machine.disk.lose_blocks(self._random.randrange(machine.height + 1))

    def heal(self) -> None:
        """End of chaos: what is not at fault works from now on; the stopped stop for good."""
        world = self._world
        scenario = world.scenario
        world.blocked = set()
        world.note("healed")
        for machine in world.machines:
            machine.frozen_until = machine.jump = 0.0
            machine.skew = 0.0 if machine.index not in world.faulty else machine.skew
            if machine.index in scenario.stopped:
                if scenario.stop == "dead":
                    world.crash(machine, "for good")
                    self._buried.add(machine.index)
                else:
                    machine.frozen_until = float("inf")
            elif not machine.up:
                world.start(machine)
