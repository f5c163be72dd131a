# SPDX-License-Identifier: Apache-2.0
"""What goes wrong in a run: drawn from its seed alone."""

from dataclasses import dataclass, replace
from random import Random
from typing import Final, Literal, TypeAlias

Behaviour: TypeAlias = Literal[
    "equivocate", "withhold", "replay", "clone", "lie", "flood", "censor", "forge"
]
BEHAVIOURS: Final[tuple[Behaviour, ...]] = (
    "equivocate", "withhold", "replay", "clone", "lie", "flood", "censor", "forge",
)  # fmt: skip


@dataclass(frozen=True)
class Scenario:
    """Chances are per message or per write, rates per second of virtual time, times in seconds.

    `byzantine` maps validators to what they do; with `stopped` they are at most f. `skew` bounds
    how far wall clocks are off, `drift` how far monotonic ones run fast or slow (a factor).
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
    byzantine: tuple[tuple[int, frozenset[Behaviour]], ...] = ()
    stopped: frozenset[int] = frozenset()
    stop: Literal["dead", "frozen"] = "dead"

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
            partition_rate=0.0, disk_fault_rate=0.0,
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
    return Scenario(
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
