# SPDX-License-Identifier: Apache-2.0
"""State that was read or written lately, in memory: most blocks touch what earlier ones touched."""

from collections import OrderedDict
from collections.abc import Iterable
from typing import Final, Generic, TypeVar

from holdfast_node.storage.store import StateEntry, Store

MAX_BYTES: Final = 8 * 2**20
# What Python keeps beyond the bytes themselves, roughly.
_ENTRY_BYTES: Final = 300
_LEAF_BYTES: Final = 150

K = TypeVar("K")
V = TypeVar("V")


class _Recent(OrderedDict[K, tuple[V, int]], Generic[K, V]):
    """What was used last, with its cost; the rest is dropped once all of it costs too much."""

    def __init__(self, max_bytes: int) -> None:
        super().__init__()
        self._max_bytes = max_bytes
        self._bytes = 0

    def look_up(self, key: K) -> V | None:
        found = self.get(key)
        if found is None:
            return None
        self.move_to_end(key)
        return found[0]

    def keep(self, key: K, value: V, cost: int) -> None:
        old = self.pop(key, None)
        self._bytes += cost - (0 if old is None else old[1])
        self[key] = (value, cost)
        while self._bytes > self._max_bytes:
            self._bytes -= self.popitem(last=False)[1][1]

    def forget(self) -> None:
        self.clear()
        self._bytes = 0


class RecentState:
    """Reads the state of a `Store` as its last block left it, if told of every block.

    Not thread-safe. `max_bytes` holds for the entries, and once more for the leaves of buckets.
    """

    def __init__(self, store: Store, max_bytes: int = MAX_BYTES) -> None:
        self._store = store
        self._entries: _Recent[bytes, tuple[bytes, bytes]] = _Recent(max_bytes)
        self._buckets: _Recent[int, dict[bytes, bytes]] = _Recent(max_bytes)

    def state_get(self, bucket: int, key: bytes) -> tuple[bytes, bytes] | None:
        """As of `Store`."""
        found = self._entries.look_up(key)
        if found is None:
            found = self._store.state_get(bucket, key)
            if found is not None:
                self._keep(key, *found)
        return found

    def bucket_leaves(self, bucket: int) -> list[tuple[bytes, bytes]]:
        """As of `Store`."""
        leaves = self._buckets.look_up(bucket)
        if leaves is None:
            leaves = dict(self._store.bucket_leaves(bucket))
            self._keep_bucket(bucket, leaves)
        return sorted(leaves.items())

    def committed(self, entries: Iterable[StateEntry]) -> None:
        """These were written, durably, and nothing else."""
        for entry in entries:
            self._keep(entry.key, entry.value, entry.leaf)
            leaves = self._buckets.look_up(entry.bucket)
            if leaves is not None:
                leaves[entry.key] = entry.leaf
                self._keep_bucket(entry.bucket, leaves)

    def forget(self) -> None:
        """The store is another one."""
        self._entries.forget()
        self._buckets.forget()

    def _keep(self, key: bytes, value: bytes, leaf: bytes) -> None:
        self._entries.keep(key, (value, leaf), len(key) + len(value) + _ENTRY_BYTES)

    def _keep_bucket(self, bucket: int, leaves: dict[bytes, bytes]) -> None:
        cost = _ENTRY_BYTES + sum(len(key) + _LEAF_BYTES for key in leaves)
        self._buckets.keep(bucket, leaves, cost)
