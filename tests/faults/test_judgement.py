# SPDX-License-Identifier: GPL-3.0-or-later
"""What judges the runs: it accepts what is right, and finds each kind of wrong."""

from __future__ import annotations

import itertools
import random

import pytest
from holdfast_node.consensus.messages import Entered, Voted
from journals import contradictions, signatures, uncovered
from linearizability import Call, unexplained
from load import History, Operation

A, B = b"\xaa" * 32, b"\xbb" * 32


def write(value: str, start: float, end: float | None) -> Call:
    return Call("write", value, start, end)


def read(value: str | None, start: float, end: float) -> Call:
    return Call("read", value, start, end)


@pytest.mark.parametrize(
    "calls",
    [
        [],
        [read(None, 0, 1), write("a", 2, 3), read("a", 4, 5)],
        [write("a", 0, 10), read(None, 1, 2), read("a", 3, 4)],  # it takes effect in between
        [write("a", 0, 10), write("b", 0, 10), read("b", 1, 2), read("a", 3, 4)],
        [write("a", 0, None), read(None, 1, 2), read("a", 3, 4)],  # nobody learnt of it, yet it was
        [write("a", 0, None), read(None, 1, 2), read(None, 8, 9)],  # or it never was
        [write("a", 0, 1), read(None, 1, 2)],  # at the same instant: not one after the other
        [write("a", 0, 5), read("a", 1, 2), write("b", 3, 9), read("b", 4, 6), read("b", 7, 8)],
    ],
)
def test_what_has_an_order_is_accepted(calls: list[Call]) -> None:
    assert unexplained(calls) is None


@pytest.mark.parametrize(
    "calls",
    [
        [write("a", 0, 1), read(None, 2, 3)],  # a lost write
        [write("a", 0, 1), write("b", 2, 3), read("a", 4, 5)],  # a stale read
        [write("a", 0, 10), read("a", 1, 2), read(None, 3, 4)],  # seen, then not any more
        [write("a", 0, None), read("a", 1, 2), read(None, 3, 4)],
        [read("a", 0, 1), write("a", 2, 3)],  # seen before it was written
        [read("c", 0, 1)],  # never written
        [write("a", 0, 9), write("b", 0, 9), read("a", 1, 2), read("b", 3, 4), read("a", 5, 6)],
        [write("a", 0, 1), write("b", 2, 5), read("b", 3, 4), read("a", 4.5, 6)],
    ],
)
def test_what_has_no_order_is_found(calls: list[Call]) -> None:
    assert unexplained(calls) is not None


def test_the_call_that_cannot_be_is_named() -> None:
    bad = read("a", 4, 5)
    assert unexplained([write("a", 0, 1), write("b", 2, 3), bad, read("b", 6, 7)]) is bad


def brute_force(calls: list[Call]) -> bool:
    """By the definition: some order of some of the open calls and all others."""
    known = [call for call in calls if call.end is not None]
    unknown = [call for call in calls if call.end is None]
    for count in range(len(unknown) + 1):
        for some in itertools.combinations(unknown, count):
            if any(map(explains, itertools.permutations([*known, *some]))):
                return True
    return False


def explains(order: tuple[Call, ...]) -> bool:
    value = None
    for number, call in enumerate(order):
        if any(later.end is not None and later.end < call.start for later in order[number:]):
            return False
        if call.kind == "write":
            value = call.value
        elif call.value != value:
            return False
    return True


def test_agrees_with_the_definition() -> None:
    """On small random histories, of which many are right and many wrong."""
    chance = random.Random(1)  # noqa: S311 -- to be repeated
    verdicts = []
    for _ in range(600):
        calls = []
        for _ in range(chance.randint(1, 6)):
            start = chance.randrange(12)
            kind = chance.choice(["read", "write"])
            unknown = kind == "write" and chance.random() < 0.2
            end = None if unknown else start + chance.randint(1, 6)
            value = chance.choice("ab") if kind == "write" else chance.choice(["a", "b", None])
            calls.append(Call(kind, value, start, end))
        verdicts.append(unexplained(calls) is None)
        assert verdicts[-1] == brute_force(calls), list(map(str, calls))
    assert min(verdicts.count(True), verdicts.count(False)) > 100


def test_a_long_history_is_judged_quickly() -> None:
    """Some thousand calls, a few at a time, as a run has."""
    calls = []
    for number in range(3000):
        value = str(number)
        calls += [write(value, number, number + 1.5), read(value, number + 0.6, number + 0.9)]
    assert unexplained(calls) is None
    assert unexplained([*calls, read("7", 9000, 9001)]) is not None


# Journals


def test_one_thing_per_height_and_view() -> None:
    assert contradictions([[Voted(1, 0, A), Voted(1, 1, B), Voted(2, 0, B)]]) == []
    assert contradictions([[Voted(1, 0, A), Voted(1, 0, B)]]) != []


def test_what_a_copy_forgot_counts() -> None:
    assert contradictions([[Voted(1, 0, A)], [Voted(1, 0, A), Voted(2, 0, B)]]) == []
    assert contradictions([[Voted(1, 0, A)], [Voted(1, 0, B)]]) != []


def test_nothing_in_a_view_that_was_given_up() -> None:
    assert contradictions([[Entered(1, 1), Voted(1, 1, A), Voted(2, 0, B)]]) == []
    assert contradictions([[Entered(1, 1), Voted(1, 0, A)]]) != []


def test_a_signature_that_was_not_written_down_first() -> None:
    blocks = [{"height": 1, "commit_view": 0, "hash": A.hex(), "signers": ["v1", "v2"]}]
    assert signatures(blocks, "v1") == [(1, 0, A)]
    assert signatures(blocks, "v3") == []
    assert uncovered([[Voted(1, 0, A)]], [(1, 0, A)]) != []


# The history


def test_nobody_sees_less_than_what_was_told() -> None:
    """An outcome raises what later reads ask for, before the outcome itself can be seen."""
    history = History()
    operation = history.begin(Operation("write", ("hf", "k"), "a", 0.0))
    assert history.acknowledged == []
    history.end(operation, 7)
    assert (history.horizon, history.acknowledged) == (7, [operation])
    history.end(history.begin(Operation("read", ("hf", "k"), None, 0.0)), None)
    assert history.horizon == 7
