# SPDX-License-Identifier: Apache-2.0
"""What machines do and say, and how the network treats it."""

from random import Random
from typing import Final

from holdfast_node.chain.block import CertifiedBlock, Header
from holdfast_node.chain.codec import decode, encode
from holdfast_node.consensus import (
    Commit,
    Effect,
    Entered,
    Evidence,
    Message,
    Persist,
    Replica,
    Send,
)
from holdfast_node.simulation import politics
from holdfast_node.simulation.adversary import Adversary
from holdfast_node.simulation.ballots import is_sound
from holdfast_node.simulation.electorate import Electorate
from holdfast_node.simulation.keys import Keys, SimulatedValidators
from holdfast_node.simulation.machine import (
    BLOCK_TRANSACTIONS,
    CHAIN_ID,
    EPOCH_MS,
    MAX_BLOCK_BYTES,
    MAX_TRANSACTION_BYTES,
    TIMEOUTS,
    TOLERATED_MS,
    Machine,
    most_buffered,
)
from holdfast_node.simulation.misfortune import Misfortune
from holdfast_node.simulation.oracle import Oracle
from holdfast_node.simulation.politics import Politics
from holdfast_node.simulation.routine import Routine
from holdfast_node.simulation.scenario import Scenario
from holdfast_node.simulation.snapshots import Snapshots
from holdfast_node.simulation.timeline import Timeline
from holdfast_node.simulation.trace import describe

SLOW_WRITE: Final = (0.05, 0.5)  # seconds


class World(Timeline):
    """One run. `trace_all` keeps every line of the trace, not only the last ones."""

    def __init__(self, seed: int, scenario: Scenario, *, trace_all: bool = False) -> None:
        super().__init__(trace_all=trace_all)
        self.random = Random(f"world {seed}")  # noqa: S311 -- the point is that it can be repeated
        self.scenario = scenario
        self.evidence: dict[tuple[int, str, int, int], Evidence] = {}  # what the honest hold
        self.blocked: set[tuple[int, int]] = set()
        self.keys = Keys(scenario.machines)
        members = tuple(self.keys.validator(i) for i in range(scenario.n))
        validators = SimulatedValidators(members, self.keys)
        behaviour = dict(scenario.byzantine)
        self.faulty = frozenset(behaviour)
        self.machines = [Machine(i, i, self.keys, validators) for i in range(scenario.machines)]
        for index, does in scenario.byzantine:
            if "clone" in does:
                ident = len(self.machines)
                self.machines.append(Machine(ident, index, self.keys, validators))
        for machine in self.machines:
            machine.offset = self.random.uniform(0, 100)
            machine.rate = 1 + self.random.uniform(-scenario.drift, scenario.drift)
            machine.skew = self.random.uniform(-scenario.skew, scenario.skew)
        self.adversary = Adversary(self, behaviour)
        self.snapshots = Snapshots(self)
        self.oracle = Oracle(
            electorate=Electorate(self.keys, range(scenario.n)),
            faulty=self.faulty,
            most_buffered=most_buffered(scenario.machines),
        )
        self._misfortune = Misfortune(self)
        self.politics = Politics(self)
        for machine in self.machines:
            self.start(machine)
        Routine(self).begin()
        self.every(0.5, self._misfortune.strike)
        if behaviour:
            self.every(0.2, self.adversary.act)
        if scenario.change_rate or scenario.expels:
            self.every(politics.SECONDS, self.politics.act)

    # Machines.

    def start(self, machine: Machine) -> None:
        """Start, or start again after a crash."""
        mark = b"mark %d %d %d" % (machine.id, machine.life, self._sequence)
        for record in machine.start(mark):
            self.oracle.persisted(machine.index, record)
        doubt = machine.standing.doubt
        self.note(f"{machine} starts at {machine.height}" + (f": {doubt}" if doubt else ""))
        self._let_vote(machine)

    def _let_vote(self, machine: Machine) -> None:
        """Give the machine a replica, if it may have one."""
        height = machine.height + 1
        if machine.replica is not None or not machine.standing.may_vote(height):
            return
        if machine.place(height) is None:
            return
        chain = machine.disk.chain
        machine.vote(
            Replica(
                chain_id=CHAIN_ID,
                validators_at=machine.validators_at,
                public_key=machine.key.public_key,
                sign=machine.key.sign,
                check_proposal=lambda block: machine.check_proposal(block, self.now),
                timeouts=TIMEOUTS,
                height=height,
                view=chain[-1].block.header.view if chain else 0,
                records=[r for r in machine.standing.records if r.height == height],
                max_block_bytes=MAX_BLOCK_BYTES,
            )
        )
        assert machine.replica is not None
        self.carry_out(machine, machine.replica.resume(machine.clock(self.now)))

    def crash(self, machine: Machine, why: str) -> None:
        self.note(f"{machine} crashes ({why}) at {machine.height}")
        writing = machine.backlog[0] if machine.backlog else None
        if isinstance(writing, Persist):
            machine.disk.tear([writing.record], self.random)
        machine.crash()

    def carry_out(self, machine: Machine, effects: list[Effect]) -> None:
        """Do what a replica asks for, in order; power may fail before, in and after each write.

        On a slow disk what follows a write waits for it, and so does all else that the machine
        would do, as in the driver; but its replica has moved on in memory.
        """
        if machine.backlog:
            machine.backlog.extend(effects)
            return
        life = machine.life
        for number, effect in enumerate(effects):
            if machine.life != life:
                return
            if isinstance(effect, Persist | Commit) and machine.index in self.scenario.slow_disks:
                machine.backlog.extend(effects[number:])
                self.after(self.occupy(machine), self._written, machine, life)
                return
            self._carry_out(machine, effect)
        self.arm(machine)

    def occupy(self, machine: Machine) -> float:
        """Have its disk at work; returns for how long."""
        seconds = self.random.uniform(*SLOW_WRITE)
        machine.busy_until = self.now + seconds
        return seconds

    def _written(self, machine: Machine, life: int) -> None:
        """A slow write is over; only then can it fail, or its effect be seen."""
        if machine.life != life:
            return
        if machine.frozen_until > self.now:
            self.after(machine.frozen_until - self.now, self._written, machine, life)
            return
        effect, *rest = machine.backlog
        machine.backlog.clear()
        self._carry_out(machine, effect)
        if machine.life == life:
            self.carry_out(machine, rest)

    def _carry_out(self, machine: Machine, effect: Effect) -> None:
        chance = self.scenario.crash
        fails = chance > 0 and self.random.random() < chance
        match effect:
            case Persist():
                if fails:
                    machine.disk.tear([effect.record], self.random)
                    self.crash(machine, "in a write")
                    return
                machine.disk.append([effect.record])
                self.oracle.persisted(machine.index, effect.record)
                if isinstance(effect.record, Entered):
                    self.gossip(machine, list(machine.mempool))
            case Send():
                if fails:
                    self.crash(machine, "before it spoke")
                    return
                self._send(machine, effect.message)
            case Commit():
                self.commit(machine, effect.certified)
            case Evidence():
                if effect.subject not in self.evidence and machine.index not in self.faulty:
                    accused = machine.validators_at(effect.height)
                    self.oracle.accused(effect, accused)
                    self.evidence[effect.subject] = effect
                    name = accused[effect.validator].name
                    self.note(f"{machine} accuses {name} of {effect.kind}")
            case _:
                pass

    def commit(self, machine: Machine, certified: CertifiedBlock) -> None:
        if certified.block.height != machine.height + 1:
            return
        block = certified.block
        arrived = [machine.mempool[t] for t in block.transactions if t in machine.mempool]
        newest = machine.clock(max(arrived)) if arrived else None
        machine.store(certified)
        self.note(f"{machine} has block {block.height} {block.hash.hex()[:8]}")
        if machine.index not in self.faulty:
            self.oracle.committed(machine.index, certified, machine.root)
            self.oracle.timely(machine.index, block.header, self.latest_ms())
        now = machine.clock(self.now)
        if machine.standing.doubt is not None and machine.marks.intersection(block.transactions):
            machine.clear_doubt()
            self.note(f"{machine} may vote above {machine.height}")
        replica = self.go_on(machine, block.header)
        if replica is None:
            return
        room, view = len(block.transactions) < BLOCK_TRANSACTIONS, block.header.view
        if machine.patience.committed(
            block.transactions, room=room, newest=newest, view=view, now=now
        ):
            self.note(f"{machine} suspects v{replica.leader}")
            self.carry_out(machine, replica.suspect(now))
        machine.patience.watch(machine.oldest(), now)

    def go_on(self, machine: Machine, header: Header) -> Replica | None:
        """At the next height, after a block or a snapshot; the replica that voted already."""
        replica = machine.replica
        if replica is None:
            self._let_vote(machine)
            return None
        if not replica.is_member(machine.height + 1):
            self.note(f"{machine} votes no longer")
            machine.replica = None
            return None
        life, now = machine.life, machine.clock(self.now)
        self.carry_out(machine, replica.advance(header.height, header.view, now))
        return None if machine.life != life else machine.replica

    def arm(self, machine: Machine) -> None:
        """Have the machine's next timer fire; at most one event is on the heap for it."""
        if machine.replica is None or (local := machine.replica.next_timer()) is None:
            return
        at = max(self.now, machine.world_time(local))
        if machine.timer_at is None or at < machine.timer_at - 1e-9:
            machine.timer_at = at
            self.after(at - self.now, self._fire, machine, machine.life, at)

    def _fire(self, machine: Machine, life: int, at: float) -> None:
        if machine.life != life or machine.timer_at != at:
            return
        if machine.idle_at > self.now:
            machine.timer_at = machine.idle_at
            self.after(machine.idle_at - self.now, self._fire, machine, life, machine.timer_at)
            return
        machine.timer_at = None
        if machine.replica is not None:
            local = machine.clock(self.now) + 1e-9
            self.carry_out(machine, machine.replica.timeout(local))

    # The network.

    def reachable(self, sender: Machine, to: Machine) -> bool:
        return (sender.id, to.id) not in self.blocked

    def _send(self, sender: Machine, message: Message) -> None:
        """To all others; a faulty sender's adversary decides what each of them hears."""
        wire: Message = decode(encode(message), Message)
        if sender.index not in self.faulty:
            self.oracle.sent(sender.index, message)
            self.note(f"{sender} says {describe(message)}")
            for to in self.machines:
                if to is not sender:
                    self.deliver(sender, to, wire)
            self.adversary.overhears(wire)
            return
        for to in self.machines:
            if to.index != sender.index:
                for twisted in self.adversary.twist(sender, to, wire):
                    self.says(sender, to, twisted)

    def says(self, sender: Machine, to: Machine, message: Message) -> None:
        """A faulty validator says something to one other."""
        if message.validator == sender.place(message.height):
            self.oracle.sent(sender.index, message)
        self.note(f"{sender} tells {to} {describe(message)}")
        self.deliver(sender, to, message)

    def deliver(self, sender: Machine, to: Machine, message: Message) -> None:
        """Put a message on its way, if it is not lost."""
        scenario, random = self.scenario, self.random
        if not self.reachable(sender, to):
            return
        copies = 2 if scenario.duplication and random.random() < scenario.duplication else 1
        for _ in range(copies):
            if scenario.loss and random.random() < scenario.loss:
                continue
            delay = random.expovariate(1 / scenario.delay)
            self.after(delay, self._arrive, sender, to, message)

    def _arrive(self, sender: Machine, to: Machine, message: Message) -> None:
        if to.idle_at > self.now:
            self.after(to.idle_at - self.now, self._arrive, sender, to, message)
            return
        if to.replica is None:
            return
        replica = to.replica
        effects = replica.receive(message, to.clock(self.now))
        if to.index not in self.faulty and (self.faulty or not self.events % 16):
            self.oracle.buffered(to.index, replica.buffered_bytes)
        if effects:
            self.carry_out(to, effects)
        else:
            self.arm(to)

    def gossip(self, machine: Machine, transactions: list[bytes]) -> None:
        for to in self.machines:
            if to is machine or not self.reachable(machine, to):
                continue
            if self.random.random() >= self.scenario.loss:
                delay = self.random.expovariate(1 / self.scenario.delay)
                self.after(delay, self.admit, to, transactions)

    def admit(self, machine: Machine, transactions: list[bytes]) -> None:
        if machine.up and machine.frozen_until <= self.now:
            for transaction in transactions:
                if transaction in machine.mempool or transaction in machine.done:
                    continue
                fits = len(transaction) <= MAX_TRANSACTION_BYTES
                if fits and is_sound(transaction, self.keys):
                    machine.mempool[transaction] = self.now
            machine.patience.watch(machine.oldest(), machine.clock(self.now))

    def submit(self, machine: Machine, transaction: bytes) -> None:
        """Somebody hands a transaction to this machine."""
        self.admit(machine, [transaction])
        self.gossip(machine, [transaction])

    def latest_ms(self) -> int:
        """The latest time that a block may have: what the fastest of the true clocks tolerates."""
        return EPOCH_MS + TOLERATED_MS + int((self.now + self.scenario.skew) * 1000)

    # Who can be relied upon.

    def lame(self) -> set[int]:
        """Those at fault, and those who wait for their marks and cannot help others."""
        waiting = {m.index for m in self.machines if not m.standing.may_vote(m.height + 1)}
        return waiting | self.faulty | self.scenario.stopped

    def least_faults(self) -> int:
        """How many may fail in each of the sets that vote, are agreed on, or wished for."""
        electorate = self.oracle.electorate
        now = electorate.at(max(self.oracle.final, default=0))
        sets = (now, electorate.latest, self.politics.wished or now)
        return min((len(members) - 1) // 3 for members in sets)

    def heal(self) -> None:
        """End of chaos: what is not at fault works from now on."""
        self.scenario = self.scenario.healed()
        self._misfortune.heal()
