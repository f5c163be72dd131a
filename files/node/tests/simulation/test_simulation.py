# SPDX-License-Identifier: Apache-2.0
"""Safety and liveness of consensus over seeded schedules; a failure names its seed.

`HOLDFAST_SEEDS=1000` runs more fresh seeds, `HOLDFAST_FIRST_SEED=7` runs certain ones again.
"""

import os
import secrets
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from holdfast_node.cli.simulate import command, report
from holdfast_node.consensus.effects import Persist, Send
from holdfast_node.consensus.messages import Entered, ViewChange, Vote, Voted
from holdfast_node.simulation import simulate
from holdfast_node.simulation.campaign import campaign
from holdfast_node.simulation.electorate import Electorate
from holdfast_node.simulation.keys import Keys
from holdfast_node.simulation.oracle import Oracle, ViolationError
from holdfast_node.simulation.scenario import BEHAVIOURS, CAMPAIGN, POISON, Scenario, draw
from holdfast_node.simulation.world import World

from .mutations import DISKS, MUTATIONS, POISONED, Mutation, byzantine

SEEDS = int(os.environ.get("HOLDFAST_SEEDS", "300"))
FIRST_SEED = int(os.environ.get("HOLDFAST_FIRST_SEED", secrets.randbits(32)))
FAILED = [
    int(line.split()[0])
    for line in (Path(__file__).parent / "failed_seeds.txt").read_text().splitlines()
    if line and not line.startswith("#")
]
MUTATION_SEEDS = 150


@pytest.mark.timeout(600)
def test_fresh_seeds() -> None:
    """Whatever goes wrong, no invariant breaks; with at most f faults left, blocks go on."""
    failures = [o for o in campaign(range(FIRST_SEED, FIRST_SEED + SEEDS)) if o.violation]
    assert not failures, "\n\n".join(report(outcome) for outcome in failures[:3])


@pytest.mark.parametrize("seed", FAILED)
def test_seeds_that_failed_once(seed: int) -> None:
    """None of them fails again."""
    outcome = simulate(seed)
    assert outcome.violation is None, report(outcome)


def test_scenarios_cover_every_fault() -> None:
    """The drawing leaves nothing out that the simulator can do."""
    drawn = [draw(seed) for seed in range(300)]
    assert {scenario.n for scenario in drawn} == set(range(4, 11))
    done = set().union(*(does for scenario in drawn for _, does in scenario.byzantine))
    assert done == {*BEHAVIOURS, CAMPAIGN, POISON}
    for scenario in drawn:
        assert len(scenario.byzantine) + len(scenario.stopped) <= scenario.faults
    assert {scenario.stop for scenario in drawn if scenario.stopped} == {"dead", "frozen"}
    for name in (
        "loss", "duplication", "crash", "partition_rate", "skew", "disk_fault_rate", "candidates",
        "change_rate", "snapshots", "expels", "slow_disks", "clock_jump_rate",
    ):  # fmt: skip
        assert len({getattr(scenario, name) for scenario in drawn}) > 1, name


def test_same_seed_gives_the_same_run() -> None:
    """Byte for byte, also in another process with other hashes of strings."""
    here = {simulate(3).trace_hash for _ in range(2)}
    program = "from holdfast_node.simulation import simulate; print(simulate(3).trace_hash)"
    for hashseed in ("0", "1"):
        environment = {**os.environ, "PYTHONHASHSEED": hashseed}
        done = subprocess.run(
            [sys.executable, "-c", program], env=environment, capture_output=True, check=True
        )
        here.add(done.stdout.decode().strip())
    assert len(here) == 1
    assert simulate(4).trace_hash not in here


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_simulator_finds(mutation: Mutation, monkeypatch: pytest.MonkeyPatch) -> None:
    """The invariants are worth something: this bug is found within bounded seeds."""
    for owner, name, value in mutation.patches():
        monkeypatch.setattr(owner, name, value)
    for seed in range(MUTATION_SEEDS):
        outcome = simulate(seed, scenario=mutation.scenario)
        if outcome.violation is not None:
            return
    pytest.fail(f"{mutation.name}: not noticed in {MUTATION_SEEDS} seeds")


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_without_the_bug_nothing_is_found(mutation: Mutation, seed: int) -> None:
    """The same networks are fine without it."""
    outcome = simulate(seed, scenario=mutation.scenario)
    assert outcome.violation is None, report(outcome)


def oracle() -> Oracle:
    return Oracle(electorate=Electorate(Keys(4), range(4)), faulty=frozenset({3}), most_buffered=0)


def test_oracle_wants_each_view_change_on_disk() -> None:
    """The first one's record does not speak for the second."""
    judge = oracle()
    judge.persisted(0, Entered(1, 1))
    judge.sent(0, ViewChange(1, 1, None, 0, b"s" * 64))
    with pytest.raises(ViolationError, match="before it was in the journal"):
        judge.sent(0, ViewChange(1, 2, None, 0, b"s" * 64))
    judge.persisted(0, Entered(1, 2))
    judge.sent(0, ViewChange(1, 2, None, 0, b"s" * 64))
    judge.sent(3, ViewChange(1, 7, None, 3, b"s" * 64))  # at fault: may say anything


def test_oracle_takes_a_view_for_given_up_from_the_record_on() -> None:
    """Also where no VIEW-CHANGE is sent: whoever follows a NEW-VIEW has left the views below."""
    judge = oracle()
    judge.persisted(0, Entered(1, 2))
    judge.persisted(0, Voted(1, 1, b"b" * 32))
    with pytest.raises(ViolationError, match="after it had given up views below 2"):
        judge.sent(0, Vote("prepare", 1, 1, b"b" * 32, 0, b"s" * 64))


def test_frozen_leader_is_replaced_and_the_next_one_stays() -> None:
    """A leader that takes messages and says nothing leads no longer."""
    world = World(1, Scenario(n=4, delay=0.005, stopped=frozenset({0}), stop="frozen"))
    world.heal()
    world.run(10)
    assert min(machine.height for machine in world.machines[1:]) > 10
    assert {m.disk.chain[-1].block.header.view for m in world.machines[1:]} == {1}


def test_censor_is_replaced() -> None:
    """A leader that makes blocks without certain transactions loses its office."""
    scenario = Scenario(n=4, delay=0.005, byzantine=((0, frozenset({"censor"})),))
    world = World(1, scenario, trace_all=True)
    world.run(12)
    assert any("suspects v0" in line for line in world.lines)
    assert world.machines[1].disk.chain[-1].block.header.view % 4 != 0


def test_lone_timeout_does_not_leave_a_validator_behind() -> None:
    """A validator that timed out alone votes again at the next height."""
    world = World(2, Scenario(n=4, delay=0.005))
    world.run(2)
    world.blocked = {(a, b) for a in range(4) for b in range(4) if (a == 3) != (b == 3)}
    world.run(6)
    world.heal()
    world.run(8)
    loner = world.machines[3]
    assert loner.replica is not None
    assert loner.replica.view == loner.replica.first_view
    assert loner.height >= max(machine.height for machine in world.machines) - 1


@pytest.mark.parametrize("does", ["equivocate", "clone"])
def test_double_votes_leave_evidence(does: str) -> None:
    """A validator that says two things, or whose key two machines have, is noticed."""
    scenario = byzantine(does, base=Scenario(n=4, delay=0.05, loss=0.1, chaos=30))
    accused = set()
    for seed in range(6):
        world = World(seed, scenario)
        world.run(30)
        accused |= {subject[0] for subject in world.evidence}
    assert accused == {0}


def test_copied_folder_is_silent_until_its_mark_is_final() -> None:
    """Whoever comes back from an old copy follows, says nothing, and then votes again."""
    world = World(5, Scenario(n=4, delay=0.01))
    machine = world.machines[2]
    world.run(1)
    machine.backup = machine.disk.copied()
    world.run(4)
    restored = machine.backup
    world.crash(machine, "restored")
    machine.disk = restored
    world.start(machine)
    assert machine.replica is None
    assert machine.standing.doubt is not None
    at = machine.height
    world.run(8)
    assert machine.height > at
    assert machine.replica is not None
    assert machine.standing.floor > at


def test_disk_faults_happen() -> None:
    """The runs of that kind do restore copies and lose journals and blocks."""
    seen = set()
    for seed in range(12):
        outcome = simulate(seed, scenario=DISKS, trace_all=True)
        assert outcome.violation is None, report(outcome)
        for what in ("copy", "journal", "blocks"):
            if any(f"disk fault: {what}" in line for line in outcome.trace):
                seen.add(what)
        if any("may vote above" in line for line in outcome.trace):
            seen.add("back")
    assert seen == {"copy", "journal", "blocks", "back"}


def test_snapshots_happen() -> None:
    """Machines that are far behind begin with one, die of one, and refuse a poisoned one."""
    seen = set()
    for seed in range(10):
        outcome = simulate(seed, scenario=POISONED, trace_all=True)
        assert outcome.violation is None, report(outcome)
        for what in ("has the state of block", "refuses a snapshot", "in an installation"):
            if any(what in line for line in outcome.trace):
                seen.add(what)
    assert len(seen) == 3, seen


@pytest.mark.parametrize("slow", [0, 3])
def test_a_slow_disk_holds_up_its_own_machine_only(slow: int) -> None:
    """Half a second for each write: as the leader it is replaced, or waited for; it falls behind
    and follows, and what it says is on its disk first."""
    world = World(7, Scenario(n=4, delay=0.01, slow_disks=frozenset({slow})))
    said = []
    real = world._send

    def send(sender, message):
        if sender.index == slow:
            said.append(world.now)
        real(sender, message)

    world._send = send
    world.run(20)
    heights = [machine.height for machine in world.machines]
    assert min(heights) > 10
    quick = [height for index, height in enumerate(heights) if index != slow]
    assert min(quick) >= max(heights) - 1
    assert said
    world.crash(world.machines[slow], "to see what it wrote")
    world.start(world.machines[slow])  # the oracle compares it with all that it said
    world.run(30)
    assert world.machines[slow].height > heights[slow]


def test_a_crash_in_a_slow_write_says_nothing_of_it() -> None:
    """What was to be said after the write never is; the torn record is repaired."""
    for seed in range(4):
        world = World(seed, Scenario(n=4, delay=0.01, slow_disks=frozenset({1})))
        world.crash(world.machines[3], "for good")  # so that the others wait for the slow one
        world._misfortune._buried.add(3)
        machine = world.machines[1]
        for _ in range(10):
            deadline = world.now + 30
            while not (machine.backlog and isinstance(machine.backlog[0], Persist)):
                world.run(world.now + 0.01)
                assert world.now < deadline
            world.crash(machine, "in a slow write")
            world.start(machine)
        before = machine.height
        world.run(world.now + 20)
        assert machine.height > before


@pytest.mark.parametrize("index", [0, 2])
def test_a_clock_hours_ahead_does_not_move_the_chain(index: int) -> None:
    """Its blocks are refused until it leads no longer; all others go on with the right time."""
    world = World(8, Scenario(n=4, delay=0.01))
    world.run(1)
    world.machines[index].jump = 5 * 3600.0
    world.run(12)
    heights = [machine.height for machine in world.machines]
    assert min(heights) > 20
    chain = world.machines[1].disk.chain
    assert all(c.block.header.time_ms <= world.latest_ms() for c in chain)
    assert chain[-1].block.header.view % 4 != index


def test_a_clock_hours_behind_holds_chain_time_back_and_no_more() -> None:
    """It leads with a millisecond per block, agreement goes on, and the next leader catches up."""
    world = World(9, Scenario(n=4, delay=0.01))
    late = world.machines[0]
    late.jump = -5 * 3600.0
    world.run(5)
    times = [c.block.header.time_ms for c in late.disk.chain]
    assert len(times) > 10
    assert times == list(range(times[0], times[0] + len(times)))
    world.crash(late, "for good")
    world._misfortune._buried.add(0)
    world.run(12)
    last = world.machines[1].disk.chain[-1].block.header
    assert last.view > 0
    assert 0 <= world.latest_ms() - last.time_ms < 3_000


def test_clocks_jump_and_disks_are_slow_in_these_runs() -> None:
    """Forward, back, and right again; no quorum ever goes by a wrong clock."""
    scenario = Scenario(
        n=7, delay=0.03, loss=0.05, crash=0.005, clock_jump_rate=0.5, chaos=10.0,
        slow_disks=frozenset({0}),
    )  # fmt: skip
    seen = set()
    for seed in range(4):
        outcome = simulate(seed, scenario=scenario, trace_all=True)
        assert outcome.violation is None, report(outcome)
        for what in (" is +", " is -", "has the right time again"):
            if any(what in line for line in outcome.trace):
                seen.add(what)
    assert len(seen) == 3


def cut_off(machine: int) -> set[tuple[int, int]]:
    return {(a, b) for a in range(4) for b in range(4) if (a == machine) != (b == machine)}


def test_whoever_was_away_for_long_comes_back_by_a_snapshot() -> None:
    """It has no blocks below it, votes all the same, and can give others its state."""
    world = World(3, Scenario(n=4, delay=0.01, snapshots=5))
    away = world.machines[3]
    world.run(1)
    world.blocked = cut_off(3)
    world.run(8)
    world.blocked = set()
    world.run(12)
    assert away.disk.base > 5
    assert away.replica is not None
    assert away.height >= world.machines[0].height - 1
    assert away.root == away.disk.chain[-1].block.header.state_root
    world.blocked = cut_off(2)
    height = away.height
    world.run(20)
    assert away.height > height + 3  # a quorum only with its vote


def test_send_follows_persist() -> None:
    """What depends on a record never stands before it in the list of effects."""
    world = World(4, Scenario(n=4, delay=0.01))
    orders = []
    real = world.carry_out

    def spy(machine, effects):
        orders.append([type(effect) for effect in effects])
        real(machine, effects)

    world.carry_out = spy
    world.run(5)
    voting = [order for order in orders if Persist in order and Send in order]
    assert voting
    assert all(order.index(Persist) < order.index(Send) for order in voting)


def test_command_replays_a_seed() -> None:
    """`simulate --seed` prints the same run each time, with the trace if asked."""
    runs = [CliRunner().invoke(command, ["--seed", "3", *extra]) for extra in ([], [], ["--trace"])]
    assert [run.exit_code for run in runs] == [0, 0, 0]
    assert runs[0].output == runs[1].output
    assert simulate(3).trace_hash in runs[0].output
    assert "v0 starts at 0" in runs[2].output


def test_command_reports_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seed, commit, what broke and the trace are printed, and the exit code tells."""
    first = next(m for m in MUTATIONS if m.name == "the journal not read after a crash")
    for owner, name, value in first.patches():
        monkeypatch.setattr(owner, name, value)
    monkeypatch.setattr("holdfast_node.simulation.run.draw", lambda _seed: first.scenario)
    run = CliRunner().invoke(command, ["--seed", "0"])
    assert run.exit_code == 1
    assert "FAILED" in run.output
    assert "for two different blocks" in run.output
    assert "again: holdfast-node simulate --seed 0" in run.output
