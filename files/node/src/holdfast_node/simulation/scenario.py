# SPDX-License-Identifier: Apache-2.0
"""What goes wrong in a run: drawn from its seed alone."""

from dataclasses import dataclass, replace
from random import Random
from typing import Final, Literal, TypeAlias

Behaviour: TypeAlias = Literal[
    "equivocate",
    "withhold",
    "replay",
    "clone",
    "lie",
    "flood",
    "censor",
    "forge",
    "campaign",
    "poison",
]
BEHAVIOURS: Final[tuple[Behaviour, ...]] = (
    "equivocate", "withhold", "replay", "clone", "lie", "flood", "censor", "forge",
)  # fmt: skip
POISON: Final[Behaviour] = "poison"  # snapshots; only where there are some
CAMPAIGN: Final[Behaviour] = "campaign"  # about the membership; only where that changes


@dataclass(frozen=True)
class Scenario:
    """Chances are per message or per write, rates per second of virtual time, times in seconds.

    `byzantine` maps validators, or candidates, to what they do; with `stopped` they are at most f.
    The disks of the validators `slow_disks` stay slow to the end. `clock_jump_rate` is of wall
    clocks that jump by hours; `skew` bounds how far the others are off, `drift` how far monotonic
    ones run fast or slow (a factor).
    """

    n: int
    loss: float = 0.0
    duplication: float = 0.0
    delay: float = 0.02
    crash: float = 0.0
    freeze_rate: float = 0.0
    partition_rate: float = 0.0
    one_way: bool = False
    skew: float = 0.0
    drift: float = 0.0
    sync: float = 0.2
    disk_fault_rate: float = 0.0  # a folder restored, a journal or a database lost
    chaos: float = 6.0
    candidates: int = 0  # machines that are no validators at first
    change_rate: float = 0.0  # of the membership; those at fault stay at most f of every set
    byzantine: tuple[tuple[int, frozenset[Behaviour]], ...] = ()
    stopped: frozenset[int] = frozenset()
    stop: Literal["dead", "frozen"] = "dead"

    snapshots: int = 0  # blocks from one to the next, and for how many more one is fetched
    slow_disks: frozenset[int] = frozenset()
    clock_jump_rate: float = 0.0
    expels: bool = False  # members put those out against whom they hold evidence

    @property
    def machines(self) -> int:
        return self.n + self.candidates

    @property
    def faults(self) -> int:
        """f, as the oracle counts: independent of the code under test."""
        return (self.n - 1) // 3

    @property
    def quorum(self) -> int:
        """The least number of which any two share an honest validator."""
        return (self.n + self.faults) // 2 + 1

    def healed(self) -> "Scenario":
        """The same after chaos: the network works, those at fault stay so."""
        return replace(
            self, loss=0.0, duplication=0.0, delay=0.02, crash=0.0, freeze_rate=0.0,
            partition_rate=0.0, disk_fault_rate=0.0, clock_jump_rate=0.0,
        )  # fmt: skip


def draw(seed: int) -> Scenario:
    """The scenario of a seed."""
    random = Random(f"scenario {seed}")  # noqa: S311 -- the point is that it can be repeated
    n = random.choice([4, 4, 4, 4, 5, 6, 7, 7, 8, 9, 10])
    most = (n - 1) // 3
    order = random.sample(range(n), n)
    byzantine_count = random.choice([0, most, random.randint(0, most)])
    stopped_count = random.choice([0, most - byzantine_count])
    byzantine = tuple(
        (index, frozenset(random.sample(BEHAVIOURS, random.randint(1, 3))))
        for index in sorted(order[:byzantine_count])
    )
    scenario = Scenario(
        n=n,
        loss=random.choice([0.0, 0.02, 0.1, 0.3]),
        duplication=random.choice([0.0, 0.1]),
        delay=random.choice([0.005, 0.03, 0.15, 0.4]),
        crash=random.choice([0.0, 0.005, 0.02]),
        freeze_rate=random.choice([0.0, 0.1]),
        partition_rate=random.choice([0.0, 0.3]),
        one_way=random.random() < 0.5,
        skew=random.choice([0.0, 0.2, 0.9, 1.5]),
        drift=random.choice([0.0, 0.1]),
        sync=random.choice([0.2, 0.2, 1.0, 4.0]),
        disk_fault_rate=random.choice([0.0, 0.0, 0.2]),
        chaos=random.choice([4.0, 6.0, 10.0]),
        byzantine=byzantine,
        stopped=frozenset(order[byzantine_count : byzantine_count + stopped_count]),
        stop=random.choice(["dead", "frozen"]),
    )
    scenario = _with_snapshots(seed, _with_changes(seed, scenario))
    return _with_slow_disks_and_wrong_clocks(seed, _with_expulsions(seed, scenario))


def _with_slow_disks_and_wrong_clocks(seed: int, scenario: Scenario) -> Scenario:
    """A third of the runs has a machine with a slow disk; in another, clocks jump; or both."""
    random = Random(f"disks and clocks {seed}")  # noqa: S311 -- as above
    slow = frozenset({random.randrange(scenario.machines)})
    return replace(
        scenario,
        slow_disks=slow if random.random() < 1 / 3 else frozenset(),
        clock_jump_rate=random.choice([0.0, 0.0, 0.3]),
    )


def _with_expulsions(seed: int, scenario: Scenario) -> Scenario:
    """Half of those who contradict themselves are put out of the set for it."""
    contradicts = any(does & {"equivocate", "clone"} for _, does in scenario.byzantine)
    random = Random(f"expulsions {seed}")  # noqa: S311 -- as above
    return replace(scenario, expels=contradicts and random.random() < 0.5)


def _with_snapshots(seed: int, scenario: Scenario) -> Scenario:
    """In half of the runs whoever is far behind begins with a snapshot."""
    random = Random(f"snapshots {seed}")  # noqa: S311 -- as above
    if random.random() < 0.5:
        return scenario
    byzantine = tuple(
        (index, does | {POISON} if random.random() < 0.7 else does)
        for index, does in scenario.byzantine
    )
    return replace(scenario, byzantine=byzantine, snapshots=random.choice([2, 5]))


def _with_changes(seed: int, scenario: Scenario) -> Scenario:
    """Half of the runs change their membership, with all else that goes wrong in them."""
    random = Random(f"membership {seed}")  # noqa: S311 -- as above
    if random.random() < 0.5:
        return scenario
    byzantine = dict(scenario.byzantine)
    if byzantine and random.random() < 0.5:
        liar = random.choice(sorted(byzantine))
        byzantine[liar] |= {CAMPAIGN}
    candidates = random.choice([1, 2, 3])
    spare = scenario.faults - len(byzantine) - len(scenario.stopped)
    if spare and random.random() < 0.5:
        byzantine[scenario.n] = frozenset({CAMPAIGN, random.choice(BEHAVIOURS)})
    return replace(
        scenario,
        candidates=candidates,
        change_rate=random.choice([0.3, 1.0]),
        byzantine=tuple(sorted(byzantine.items())),
        chaos=scenario.chaos + 4.0,
    )
