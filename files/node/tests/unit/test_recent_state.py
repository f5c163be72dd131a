# SPDX-License-Identifier: Apache-2.0
"""State in memory: the same answers as the store's, within bounds, and fewer questions to it."""

import random
import sys
from collections.abc import Iterable

import pytest

from holdfast_node.ledger.recent import RecentState
from holdfast_node.ledger.state_tree import bucket_of, entry_leaf
from holdfast_node.storage.store import StateEntry


class Entries:
    """The part of a store that holds the state; it counts what it is asked."""

    def __init__(self) -> None:
        self.held: dict[bytes, StateEntry] = {}
        self.asked = 0

    def write(self, entries: Iterable[StateEntry]) -> None:
        self.held |= {entry.key: entry for entry in entries}

    def state_get(self, bucket: int, key: bytes) -> tuple[bytes, bytes] | None:
        self.asked += 1
        entry = self.held.get(key)
        return None if entry is None else (entry.value, entry.leaf)

    def bucket_leaves(self, bucket: int) -> list[tuple[bytes, bytes]]:
        self.asked += 1
        return sorted((e.key, e.leaf) for e in self.held.values() if e.bucket == bucket)


def entry(key: bytes, value: bytes, bucket: int | None = None) -> StateEntry:
    place = bucket_of(key) if bucket is None else bucket
    return StateEntry(place, key, value, entry_leaf(key, value))


@pytest.mark.parametrize("max_bytes", [0, 2_000, 2**20])
def test_answers_are_those_of_the_store(max_bytes: int) -> None:
    """Whatever was read, written and dropped in between; few buckets, so that they are shared."""
    chance, store = random.Random(5), Entries()
    recent = RecentState(store, max_bytes)  # type: ignore[arg-type]  # all that it asks of one
    keys = [bytes([number]) * 21 for number in range(40)]
    for _ in range(300):
        bucket = chance.randrange(8)
        for key in chance.sample(keys, 3):
            assert recent.state_get(key[0] % 8, key) == store.state_get(key[0] % 8, key)
        assert recent.bucket_leaves(bucket) == store.bucket_leaves(bucket)
        block = [
            entry(key, chance.randbytes(chance.randrange(90)), key[0] % 8)
            for key in chance.sample(keys, chance.randrange(5))
        ]
        store.write(block)
        recent.committed(block)


def test_what_was_written_or_read_is_not_asked_for_again() -> None:
    store = Entries()
    recent = RecentState(store)  # type: ignore[arg-type]
    first = entry(b"a", b"1")
    store.write([first])
    assert recent.state_get(first.bucket, b"a") == (b"1", first.leaf)
    assert recent.bucket_leaves(first.bucket) == [(b"a", first.leaf)]
    second = entry(b"a", b"2")
    store.write([second])
    recent.committed([second])
    asked = store.asked
    assert recent.state_get(second.bucket, b"a") == (b"2", second.leaf)
    assert recent.bucket_leaves(second.bucket) == [(b"a", second.leaf)]
    assert store.asked == asked
    recent.forget()  # another store took the place of this one
    store.held.clear()
    assert recent.state_get(second.bucket, b"a") is None
    assert recent.bucket_leaves(second.bucket) == []


def test_memory_is_bounded_by_bytes() -> None:
    """By the size of values, and by the number of leaves in a bucket."""
    store, limit = Entries(), 100_000
    recent = RecentState(store, limit)  # type: ignore[arg-type]
    for number in range(3_000):
        one = entry(number.to_bytes(21, "big"), bytes(number % 700), number % 50)
        store.held[one.key] = one
        recent.committed([one])
        if number % 10 == 0:
            recent.bucket_leaves(one.bucket)
    kept = recent._entries.items()
    held = sum(sys.getsizeof(key) + sys.getsizeof(value) for key, ((value, _), _) in kept)
    assert 0 < held < limit
    leaves = sum(len(leaves) for leaves, _ in recent._buckets.values())
    assert 0 < leaves * (21 + 32) < limit
