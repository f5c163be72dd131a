# SPDX-License-Identifier: Apache-2.0
"""Safety and liveness of consensus over seeded schedules; a failure names its seed.

`HOLDFAST_SEEDS=500` runs more of them.
"""

import os
from random import Random

import pytest

from holdfast_node.consensus import replica as replica_module
from holdfast_node.consensus.effects import Persist, Send

from .world import Faults, World

SEEDS = int(os.environ.get("HOLDFAST_SEEDS", "40"))
PROGRESS_BLOCKS = 3
PROGRESS_SECONDS = 60


def world_of(seed: int) -> tuple[World, frozenset[int]]:
    """A network and its faults, drawn from the seed; and who stays dead in the end."""
    random = Random(seed)
    n = random.choice([4, 4, 5, 6, 7])
    faulty = frozenset(random.sample(range(n), (n - 1) // 3))
    byzantine = random.random() < 0.4
    faults = Faults(
        loss=random.choice([0.0, 0.05, 0.2]),
        duplication=0.1,
        delay=random.choice([0.005, 0.05, 0.3]),
        crash_rate=0.0 if byzantine else random.choice([0.0, 0.002, 0.01]),
        partition_rate=random.choice([0.0, 0.2]),
        equivocators=faulty if byzantine else frozenset(),
    )
    return World(seed, n, faults), frozenset() if byzantine else faulty


def live(world: World, dead: frozenset[int]) -> list[int]:
    return [len(node.chain) for node in world.nodes if node.index not in dead]


@pytest.mark.parametrize("seed", range(SEEDS))
def test_agreement_holds_and_progress_returns(seed: int) -> None:
    """Whatever goes wrong, one block per height; with at most f faults left, blocks go on."""
    world, dead = world_of(seed)
    world.run(8)
    before = max(len(node.chain) for node in world.nodes)
    world.heal(dead)
    for _ in range(PROGRESS_SECONDS):
        world.run(world.now + 1)
        if min(live(world, dead)) >= before + PROGRESS_BLOCKS:
            return
    pytest.fail(f"seed {seed}: no progress beyond {before}: {live(world, dead)}; {world.trace}")


def test_same_seed_gives_the_same_run() -> None:
    """A failing seed can be replayed: the same blocks, byte for byte."""
    runs = []
    for _ in range(2):
        world, _ = world_of(7)
        world.run(6)
        runs.append([[c.block.hash for c in node.chain] for node in world.nodes])
    assert runs[0] == runs[1]
    assert any(runs[0])


def test_stopped_leader_is_replaced() -> None:
    """With the leader dead from the start, the next one leads, and stays."""
    world = World(1, 4, Faults(delay=0.005))
    world.heal(frozenset({0}))
    world.run(10)
    assert min(live(world, frozenset({0}))) > 10
    assert {node.chain[-1].block.header.view for node in world.nodes[1:]} == {1}


def test_lone_timeout_does_not_leave_a_validator_behind() -> None:
    """A validator that timed out alone votes again at the next height."""
    world = World(2, 4, Faults(delay=0.005))
    world.run(2)
    world.isolated = frozenset({3})
    world.run(6)
    world.heal()
    world.run(8)
    loner = world.nodes[3].replica
    assert loner is not None
    assert loner.view == loner.first_view
    assert len(world.nodes[3].chain) == max(len(node.chain) for node in world.nodes)


def test_equivocation_leaves_evidence() -> None:
    """A leader that proposes two blocks, or a voter that votes twice, is noticed."""
    world = World(3, 4, Faults(delay=0.02, duplication=0.1, equivocators=frozenset({0})))
    world.run(30)
    assert {evidence.validator for evidence in world.evidence} <= {0}
    assert world.evidence


def _sends_first(effects: list) -> list:
    return sorted(effects, key=lambda effect: isinstance(effect, Persist))


MUTATIONS = {
    "a vote before its persist": (
        "receive",
        lambda real: lambda self, *a, **k: _sends_first(real(self, *a, **k)),
    ),
    "a view change forgets what was prepared": (
        "_view_change",
        lambda real: lambda self: (setattr(self, "_locked", None), real(self))[1],
    ),
}


@pytest.mark.parametrize("name", MUTATIONS)
def test_simulation_catches_a_seeded_bug(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The invariants are worth something: each of these bugs is found within a few seeds."""
    method, mutate = MUTATIONS[name]
    real = getattr(replica_module.Replica, method)
    monkeypatch.setattr(replica_module.Replica, method, mutate(real))
    for seed in range(60):
        world = World(seed, 4, Faults(loss=0.4, delay=0.2, crash_rate=0.002, sync=7.0))
        try:
            world.run(30)
        except AssertionError:
            return
    pytest.fail(f"{name}: not noticed in 60 seeds")


def test_simulation_catches_a_quorum_too_small(monkeypatch: pytest.MonkeyPatch) -> None:
    """With quorums of 2f an equivocating leader gets two blocks final, and that is seen."""
    monkeypatch.setattr(
        "holdfast_node.chain.validators.ValidatorSet.quorum",
        property(lambda self: 2 * self.tolerated_faults),
    )
    for seed in range(40):
        world = World(seed, 4, Faults(delay=0.05, equivocators=frozenset({0})))
        try:
            world.run(10)
        except AssertionError:
            return
    pytest.fail("not noticed in 40 seeds")


def test_send_follows_persist() -> None:
    """What depends on a record never stands before it in the list of effects."""
    world = World(4, 4, Faults(delay=0.01))
    orders = []
    real = world.carry_out

    def spy(node, effects):
        orders.append([type(effect) for effect in effects])
        real(node, effects)

    world.carry_out = spy
    world.run(5)
    voting = [order for order in orders if Persist in order and Send in order]
    assert voting
    assert all(order.index(Persist) < order.index(Send) for order in voting)
