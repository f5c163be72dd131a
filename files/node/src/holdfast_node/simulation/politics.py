# SPDX-License-Identifier: Apache-2.0
"""What honest members agree on: who joins, who leaves and who is put out for its lies."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from msgspec.structs import replace

from holdfast_node.chain.codec import encode
from holdfast_node.chain.transaction import Approve, ProposeJoin, ProposeLeave
from holdfast_node.simulation.ballots import cast

if TYPE_CHECKING:
    from holdfast_node.chain.membership import ChangeAction
    from holdfast_node.simulation.machine import Machine
    from holdfast_node.simulation.world import World

BEHIND: Final = 3  # a candidate that is this many blocks behind is in step
SECONDS: Final = 0.5
PATIENCE_SECONDS: Final = 8.0


class Politics:
    """One wish at a time, for a set in which those at fault are few enough.

    A member proposes it, and all honest members approve it until it is agreed.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self._random = world.random
        self._ballots = 0
        self._said: dict[tuple[int, ChangeAction | Approve], bytes] = {}
        self._wish: tuple[ChangeAction, tuple[int, ...]] | None = None
        self._since = 0.0

    @property
    def wished(self) -> tuple[int, ...] | None:
        """The set that is wished for."""
        return None if self._wish is None else self._wish[1]

    def act(self) -> None:
        """Called at intervals."""
        world = self._world
        members = world.oracle.electorate.latest
        if self._wish is not None and self._wish[1] == members:
            world.note(f"agreed: {members}")
            self._wish = None
        if self._wish is None:
            self._wish = self._new_wish(members)
            self._since = world.now
        if self._wish is None:
            return
        if world.now > self._since + PATIENCE_SECONDS:
            self._wish = None
            return
        self._vote(self._wish[0], members)

    def _new_wish(self, members: tuple[int, ...]) -> tuple[ChangeAction, tuple[int, ...]] | None:
        scenario = self._world.scenario
        if scenario.expels and (wish := self._expulsion(members)) is not None:
            return wish
        if self._random.random() < scenario.change_rate * SECONDS:
            return self._draw(members)
        return None

    def _vote(self, wish: ChangeAction, members: tuple[int, ...]) -> None:
        """Those who know of the proposal approve it; somebody makes it if nobody has."""
        proposed, proves = False, isinstance(wish, ProposeLeave) and bool(wish.evidence)
        kept = replace(wish, evidence=b"") if isinstance(wish, ProposeLeave) else wish
        able = [m for m in self._world.machines if self._takes_part(m, members)]
        for machine in able:
            for proposal in machine.membership.open(machine.height + 1):
                if proposal.change == kept and bool(proposal.proved) == proves:
                    proposed = True
                    if machine.place(machine.height + 1) not in proposal.approvals:
                        self.say(machine, Approve(proposal.number, unprobed=False))
        if able and not proposed:
            self.say(self._random.choice(able), wish)

    def _takes_part(self, machine: Machine, members: tuple[int, ...]) -> bool:
        awake = machine.up and machine.frozen_until <= self._world.now
        return awake and machine.index in members and machine.index not in self._world.faulty

    def say(self, machine: Machine, action: ChangeAction | Approve) -> None:
        """Hand in a ballot at the machine itself, unless the same one still waits there."""
        earlier = self._said.get((machine.index, action))
        if earlier in machine.mempool:
            return  # else ballots would come faster than slow blocks take them
        self._ballots += 1
        ballot = cast(machine.key, action, self._ballots)
        self._said[machine.index, action] = ballot
        self._world.submit(machine, ballot)

    def _expulsion(self, members: tuple[int, ...]) -> tuple[ChangeAction, tuple[int, ...]] | None:
        """Somebody who is convicted by what the honest hold leaves; the evidence goes along."""
        world = self._world
        head = max(world.oracle.final, default=0)
        electorate = world.oracle.electorate
        for evidence in world.evidence.values():
            number = electorate.number(evidence.height, evidence.validator)
            then = tuple(i for i in members if i != number)
            if number is None or len(then) == len(members) or evidence.height > head:
                continue
            if self._is_safe(then, least=3):
                proof, until = encode(evidence), head + 1000
                world.note(f"wish: {then}, without the convicted v{number}")
                reason = "it contradicts itself"
                return ProposeLeave(f"v{number}", reason, proof, len(members) <= 4, until), then
        return None

    def _is_safe(self, then: tuple[int, ...], *, least: int) -> bool:
        """Whether those at fault in such a set are few enough."""
        return len(then) >= least and len(self._world.lame() & set(then)) <= (len(then) - 1) // 3

    def _draw(self, members: tuple[int, ...]) -> tuple[ChangeAction, tuple[int, ...]] | None:
        world, random = self._world, self._random
        until = max(world.oracle.final, default=0) + random.choice([8, 30, 1000])
        everybody = range(world.scenario.machines)
        outside = [i for i in everybody if i not in members and self._in_step(i)]
        if outside and random.random() < 0.6:
            number = random.choice(outside)
            validator = world.keys.validator(number)
            change: ChangeAction = ProposeJoin(
                validator.name, validator.public_key, "host:1", "host:2", until
            )
            then, least = (*members, number), 1
        else:
            number = random.choice(members)
            below_four = random.random() < 0.5
            change = ProposeLeave(f"v{number}", "a reason", b"", below_four, until)
            then = tuple(i for i in members if i != number)
            least = 3 if below_four else 4
        if not self._is_safe(then, least=least):
            return None
        world.note(f"wish: {then}")
        return change, then

    def _in_step(self, number: int) -> bool:
        world = self._world
        machine = world.machines[number]
        head = max(world.oracle.final, default=0)
        return machine.up and machine.standing.doubt is None and machine.height + BEHIND >= head
