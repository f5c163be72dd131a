# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a history of reads and writes of one register is linearizable.

The method is that of Wing and Gong (*Testing and verifying concurrent objects*, 1993), in the form
of Lowe (*Testing for linearizability*, 2017): walk through the calls and returns in the order of
their times, and keep every configuration (value, which open calls took effect already) in which the
register may be. A return at which none is left cannot be explained.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Iterable, Literal


@dataclass(frozen=True)
class Call:
    """A read or write; `start` and `end` are seconds on one monotonic clock.

    `end` is None for a call whose outcome nobody learnt: a write may have taken effect at any time
    from its start on, or never; such a read says nothing, and is not to be given.
    """

    kind: Literal["read", "write"]
    value: str | None
    start: float
    end: float | None
    by: str = ""

    def __str__(self) -> str:
        end = "?" if self.end is None else f"{self.end:.3f}"
        return f"{self.kind} {self.value!r} {self.start:.3f}..{end} {self.by}".rstrip()


_Configuration = tuple  # (value, frozenset of open calls that took effect)


def unexplained(calls: Iterable[Call], initial: str | None = None) -> Call | None:
    """The first call, by its end, that no order of all calls explains; None if there is none."""
    calls = list(calls)
    # A call that starts when another ends may come before it: nothing was seen in between.
    events = [(call.start, 0, number) for number, call in enumerate(calls)]
    events += [(c.end, 1, number) for number, c in enumerate(calls) if c.end is not None]
    waiting: set[int] = set()
    possible: set[_Configuration] = {(initial, frozenset())}
    for _, returns, number in sorted(events):
        if not returns:
            waiting.add(number)
            continue
        possible = _returned(number, possible, waiting, calls)
        if not possible:
            return calls[number]
        waiting.discard(number)
    return None


def _returned(
    number: int, possible: set[_Configuration], waiting: set[int], calls: list[Call]
) -> set[_Configuration]:
    """All configurations once call `number` took effect, whatever else did before it."""
    after: set[_Configuration] = set()
    seen = set(possible)
    to_do = list(possible)
    while to_do:
        value, done = to_do.pop()
        if number in done:
            after.add((value, done - {number}))
            continue
        for each in waiting - done:
            call = calls[each]
            if call.kind == "read" and call.value != value:
                continue
            follows = (call.value if call.kind == "write" else value, done | {each})
            if follows not in seen:
                seen.add(follows)
                to_do.append(follows)
    return after
