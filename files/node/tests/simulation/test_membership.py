# SPDX-License-Identifier: Apache-2.0
"""Members come and go while the network misbehaves: who decides which block, and who goes on."""

from collections.abc import Sequence

import pytest

from holdfast_node.chain.codec import decode
from holdfast_node.chain.evidence import Evidence
from holdfast_node.chain.membership import ACTIVATION_DISTANCE
from holdfast_node.chain.transaction import Approve, ProposeJoin, ProposeLeave
from holdfast_node.simulation import simulate
from holdfast_node.simulation.ballots import read_ballot
from holdfast_node.simulation.scenario import Scenario
from holdfast_node.simulation.world import World

from .mutations import CAMPAIGN_INSIDE, CAMPAIGN_OUTSIDE, CHANGING, EXPELLING

CALM = Scenario(n=4, candidates=1, delay=0.01)


def join(world: World, number: int) -> ProposeJoin:
    validator = world.keys.validator(number)
    return ProposeJoin(validator.name, validator.public_key, "host:1", "host:2", 10_000)


def leave(number: int) -> ProposeLeave:
    return ProposeLeave(f"v{number}", "a reason", b"", below_four=True, until=10_000)


def agree(world: World, change: ProposeJoin | ProposeLeave, members: Sequence[int]) -> int:
    """All of `members` agree on `change`; returns the height at which it takes effect."""
    electorate, before = world.oracle.electorate, world.oracle.electorate.latest
    number = world.machines[0].membership.made
    world.politics.say(world.machines[members[0]], change)
    until = world.now + 20
    while electorate.latest == before and world.now < until:
        world.run(world.now + 0.05)
        for i in members[1:]:
            machine = world.machines[i]
            for proposal in machine.membership.open(machine.height + 1):
                if machine.up and machine.place(machine.height + 1) not in proposal.approvals:
                    world.politics.say(machine, Approve(number, unprobed=False))
    assert electorate.latest != before
    return max(max(machine.membership.activations, default=0) for machine in world.machines)


def reach(world: World, height: int, machines: range) -> None:
    until = world.now + 60
    while min(world.machines[i].height for i in machines) < height:
        assert world.now < until, [machine.height for machine in world.machines]
        world.run(world.now + 0.05)


def test_who_joins_votes_from_the_activation_on() -> None:
    """Block a - 1 is certified by the old set and names the new one, which certifies block a."""
    world = World(1, CALM)
    world.run(1)
    at = agree(world, join(world, 4), range(4))
    reach(world, at + 12, range(5))
    chain = world.machines[0].disk.chain
    last, first = chain[at - 2].block.header, chain[at - 1].block.header
    assert last.validators_hash == chain[0].block.header.validators_hash
    assert last.next_validators_hash == first.validators_hash != last.validators_hash
    assert [len(world.oracle.electorate.at(h)) for h in (at - 1, at)] == [4, 5]
    assert all(vote.validator < 4 for c in chain[: at - 1] for vote in c.certificate.signatures)
    assert any(vote.validator == 4 for c in chain[at - 1 :] for vote in c.certificate.signatures)
    assert world.machines[4].replica is not None
    decided = next(c.block.height for c in chain if c.block.height == at - ACTIVATION_DISTANCE)
    assert any(t.startswith(b"ballot") for t in chain[decided - 1].block.transactions)


@pytest.mark.parametrize("number", [0, 3])
def test_who_leaves_stops_voting_and_follows(number: int) -> None:
    """Also the leader, and also where the indexes of the others move."""
    world = World(2, Scenario(n=5, delay=0.01))
    world.run(1)
    at = agree(world, leave(number), range(5))
    reach(world, at + 8, range(5))
    gone = world.machines[number]
    assert gone.replica is None
    assert gone.place(at) is None
    assert gone.place(at - 1) == number
    stays = world.machines[4 - number]
    assert stays.place(at) == (3 if number == 0 else 1)
    signed = {v.validator for c in stays.disk.chain[at - 1 :] for v in c.certificate.signatures}
    assert signed <= set(range(4))


def test_who_left_may_come_back() -> None:
    """With the same key; it takes the last place."""
    world = World(3, Scenario(n=5, delay=0.01))
    world.run(1)
    at = agree(world, leave(1), range(5))
    reach(world, at, range(5))
    members = [0, 2, 3, 4]
    back = agree(world, join(world, 1), members)
    reach(world, back + 4, range(5))
    assert world.oracle.electorate.at(back) == (0, 2, 3, 4, 1)
    assert world.machines[1].place(back) == 4
    assert world.machines[1].replica is not None


@pytest.mark.parametrize("below", range(-1, 5))
def test_everybody_crashes_around_the_activation(below: int) -> None:
    """Whatever each had written, the right set goes on from there."""
    world = World(4, CALM)
    world.run(1)
    at = agree(world, join(world, 4), range(4))
    reach(world, at - below, range(5))
    for machine in world.machines:
        world.crash(machine, "all at once")
    for machine in world.machines:
        world.start(machine)
    reach(world, at + 8, range(5))
    assert world.machines[4].replica is not None


def test_dead_joiner_costs_one_fault_and_no_more() -> None:
    """It was agreed on, and died before it voted: blocks go on with the four others."""
    world = World(5, CALM)
    world.run(1)
    at = agree(world, join(world, 4), range(4))
    world.crash(world.machines[4], "before it votes")
    world._misfortune._buried.add(4)
    reach(world, at + 10, range(4))


@pytest.mark.parametrize("scenario", [CHANGING, CAMPAIGN_INSIDE, CAMPAIGN_OUTSIDE])
def test_members_change_in_these_runs(scenario: Scenario) -> None:
    """The runs of that kind do agree on joins and leaves, and nobody votes who is out."""
    traces = []
    for seed in range(4):
        outcome = simulate(seed, scenario=scenario, trace_all=True)
        assert outcome.violation is None, outcome.violation
        traces += outcome.trace
    assert sum("agreed:" in line for line in traces) > 4
    assert any("votes no longer" in line for line in traces)


def test_lies_at_the_boundary_leave_evidence() -> None:
    """An index means somebody else after a change; the right one is accused."""
    liar = ((1, frozenset({"equivocate", "clone"})),)
    scenario = Scenario(
        n=5, candidates=2, change_rate=1.0, delay=0.05, loss=0.1, chaos=20, byzantine=liar
    )
    accused = set()
    for seed in range(6):
        outcome = simulate(seed, scenario=scenario, trace_all=True)
        assert outcome.violation is None, outcome.violation
        accused |= {line.split("accuses ")[1][:2] for line in outcome.trace if "accuses" in line}
    assert accused == {"v1"}


@pytest.mark.parametrize("n", [4, 5])
def test_who_contradicts_itself_is_put_out(n: int) -> None:
    """Evidence goes along with the proposal, all check it, and the set goes on without the liar."""
    liar = ((1, frozenset({"equivocate", "clone"})),)
    world = World(6, Scenario(n=n, delay=0.05, loss=0.1, expels=True, byzantine=liar))
    electorate, honest = world.oracle.electorate, [i for i in range(n) if i != 1]
    while electorate.latest == tuple(range(n)):
        assert world.now < 60
        world.run(world.now + 0.5)
    assert electorate.latest == tuple(honest)
    at = next(h for h in range(1, 1000) if 1 not in electorate.at(h))
    while min(world.machines[i].height for i in honest) < at + 8:
        assert world.now < 120
        world.run(world.now + 0.5)
    witness = world.machines[0]
    assert witness.membership.activations == (at,)
    assert len(witness.validators_at(at)) == n - 1
    chain = witness.disk.chain
    actions = [
        ballot.action
        for certified in chain[: at - ACTIVATION_DISTANCE]
        for ballot in map(read_ballot, certified.block.transactions)
        if ballot is not None
    ]
    (proposal,) = [a for a in actions if isinstance(a, ProposeLeave)][:1]
    evidence: Evidence = decode(proposal.evidence, Evidence)
    evidence.check("sim", witness.validators_at(evidence.height))
    assert (proposal.name, evidence.validator) == ("v1", 1)
    for machine in world.machines:
        assert machine.place(at) == (honest.index(machine.index) if machine.index != 1 else None)
        assert (machine.replica is None) == (machine.index == 1)
    votes = sum(len(certified.certificate.signatures) for certified in chain[at - 1 :])
    assert votes >= 8 * electorate.quorum(at)


def test_liars_are_put_out_in_these_runs() -> None:
    """With all else that goes wrong, and with true evidence brought against others."""
    out = 0
    for seed in range(8):
        outcome = simulate(seed, scenario=EXPELLING, trace_all=True)
        assert outcome.violation is None, outcome.violation
        out += any("v0 votes no longer" in line for line in outcome.trace)
    assert out >= 4


def test_changing_runs_repeat() -> None:
    """Byte for byte."""
    runs = {simulate(1, scenario=CAMPAIGN_INSIDE).trace_hash for _ in range(2)}
    assert len(runs) == 1
