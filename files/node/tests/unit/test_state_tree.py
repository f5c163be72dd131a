# SPDX-License-Identifier: Apache-2.0
"""The incremental state root is the Merkle root over all buckets, by whatever way it came about."""

from collections.abc import Mapping

from hypothesis import given
from hypothesis import strategies as st

from holdfast_node.chain.merkle import merkle_root
from holdfast_node.ledger.state_tree import BUCKETS, StateTree, TreeUpdate, bucket_of, entry_leaf


class Buckets:
    """What a store keeps of the state, in memory."""

    def __init__(self) -> None:
        self.leaves: dict[int, dict[bytes, bytes]] = {}

    def read(self, bucket: int) -> list[tuple[bytes, bytes]]:
        return sorted(self.leaves.get(bucket, {}).items())

    def write(self, update: TreeUpdate) -> None:
        for entry in update.entries:
            self.leaves.setdefault(entry.bucket, {})[entry.key] = entry.leaf

    def all(self) -> list[tuple[int, bytes]]:
        return [(bucket, leaf) for bucket in sorted(self.leaves) for _, leaf in self.read(bucket)]


def reference(state: Mapping[bytes, bytes]) -> bytes:
    """The definition, from scratch."""
    buckets: list[list[tuple[bytes, bytes]]] = [[] for _ in range(BUCKETS)]
    for key, value in state.items():
        buckets[bucket_of(key)].append((key, entry_leaf(key, value)))
    return merkle_root([b"".join(leaf for _, leaf in sorted(bucket)) for bucket in buckets])


# Keys of one bucket, so that entries share one.
CROWDED = [key for key in (b"k%d" % i for i in range(400_000)) if bucket_of(key) == 7][:5]
keys = st.one_of(st.sampled_from(CROWDED), st.binary(min_size=1, max_size=8))
changes = st.dictionaries(keys, st.binary(max_size=8), max_size=12)


def test_an_empty_state_has_the_root_of_empty_buckets() -> None:
    assert StateTree((), lambda _: []).root == reference({})


def test_incremental_root_is_the_root_from_scratch() -> None:
    """One example against the full definition, which takes 65,536 buckets to compute."""
    assert len(CROWDED) == 5
    buckets, state = Buckets(), {}
    tree = StateTree((), buckets.read)
    for step in (
        dict.fromkeys(CROWDED, b"1") | {b"a": b"x"},
        {CROWDED[2]: b"2", b"b": b""},
        {b"%d" % i: b"v" for i in range(500)},
        {},
    ):
        update = tree.update(step)
        tree.apply(update)
        buckets.write(update)
        state.update(step)
        assert tree.root == update.root == reference(state)


@given(st.lists(changes, max_size=4))
def test_the_way_does_not_matter(steps: list[dict[bytes, bytes]]) -> None:
    """Step by step, at once, in another order, or opened from its leaves: one root."""
    buckets, state = Buckets(), {}
    tree = StateTree((), buckets.read)
    for step in steps:
        update = tree.update(step)
        tree.apply(update)
        buckets.write(update)
        state.update(step)
    empty = StateTree((), lambda _: [])
    assert empty.update(state).root == tree.root
    assert empty.update(dict(reversed(state.items()))).root == tree.root
    assert StateTree(buckets.all(), buckets.read).root == tree.root


@given(changes, changes)
def test_an_update_changes_nothing_until_applied(
    first: dict[bytes, bytes], second: dict[bytes, bytes]
) -> None:
    """Competing blocks of one height are tried on the same tree."""
    buckets = Buckets()
    tree = StateTree((), buckets.read)
    before = tree.root
    update = tree.update(first)
    tree.update(second)
    assert tree.root == before
    assert tree.update(first).root == update.root


def test_keys_values_and_their_limits_are_covered() -> None:
    """Moving a byte from key to value, or swapping two values, changes the root."""
    empty = StateTree((), lambda _: [])
    one, two = CROWDED[:2]
    roots = {
        empty.update(state).root
        for state in (
            {},
            {one: b""},
            {one: b"x"},
            {one: b"x", two: b"y"},
            {one: b"y", two: b"x"},
            {two: b"x"},
        )
    }
    assert len(roots) == 6
    assert entry_leaf(b"ab", b"c") != entry_leaf(b"a", b"bc")
