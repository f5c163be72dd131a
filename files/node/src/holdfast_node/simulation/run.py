# SPDX-License-Identifier: Apache-2.0
"""One run: chaos with every invariant checked, then only permanent faults, and progress."""

import traceback
from dataclasses import dataclass
from typing import Final

from holdfast_node.simulation.machine import Machine
from holdfast_node.simulation.oracle import ViolationError
from holdfast_node.simulation.scenario import Scenario, draw
from holdfast_node.simulation.world import World

PROGRESS_BLOCKS: Final = 3
# Several faulty leaders in a row, each for the longest view, and a lost proposal or two.
PROGRESS_SECONDS: Final = 90


@dataclass(frozen=True)
class Outcome:
    """`violation` says which invariant broke, None if none did; `trace` has the last lines."""

    seed: int
    scenario: Scenario
    violation: str | None
    trace: list[str]
    trace_hash: str
    height: int
    events: int
    seconds: float  # virtual


def simulate(seed: int, *, scenario: Scenario | None = None, trace_all: bool = False) -> Outcome:
    """Run a seed; the same seed and code give the same trace, whatever machine it is."""
    chosen = draw(seed) if scenario is None else scenario
    world = None
    violation = None
    try:
        world = World(seed, chosen, trace_all=trace_all)
        world.run(chosen.chaos)
        world.heal()
        _demand_progress(world)
    except ViolationError as error:
        violation = str(error)
    except Exception as error:  # noqa: BLE001 -- whatever a run ends with is a finding
        violation = "".join(traceback.format_exception(error))
    if world is None:
        return Outcome(seed, chosen, violation, [], "", 0, 0, 0.0)
    height = max((m.height for m in world.machines), default=0)
    return Outcome(
        seed, chosen, violation, list(world.lines), world.trace_hash, height, world.events,
        world.now,
    )  # fmt: skip


def _demand_progress(world: World) -> None:
    """With at most f faults left: blocks, every waiting transaction, votes of all that are well."""
    before = max(world.oracle.final, default=0)
    waiting = {t for m in _well(world) for t in m.mempool}
    deadline = world.now + PROGRESS_SECONDS
    silent: list[str] = []
    while world.now < deadline:
        world.run(world.now + 0.5)
        live = _well(world)
        lowest = min(machine.height for machine in live)
        # Each by the set of its own next height: a slow disk may be sets of validators behind.
        electorate = world.oracle.electorate
        silent = [
            str(m) for m in live if m.replica is None and m.index in electorate.at(m.height + 1)
        ]
        # A slow disk may be slower than the others, who do not wait for it as long as they can.
        done = all(waiting <= m.done for m in live if m.index not in world.scenario.slow_disks)
        if lowest >= before + PROGRESS_BLOCKS and not silent and done:
            for machine in live:
                world.oracle.all_there(machine.index, machine.disk.chain, machine.disk.base)
            return
    heights = {str(machine): machine.height for machine in _well(world)}
    left = {t for m in _well(world) for t in waiting - m.done}
    raise ViolationError(
        f"no progress within {PROGRESS_SECONDS} s beyond block {before}: {heights}; "
        f"{len(left)} transactions wait; without a vote: {silent}"
    )


def _well(world: World) -> list[Machine]:
    bad = world.faulty | world.scenario.stopped
    return [machine for machine in world.machines if machine.index not in bad]
