# SPDX-License-Identifier: Apache-2.0
"""Notices a leader that makes blocks and passes over a transaction."""

from collections.abc import Collection
from typing import Final

# Blocks that pass a transaction over before their leader is suspected.
PASSED_OVER: Final = 2
_MOST_DOUBLINGS: Final = 6


class Patience:
    """Watches the transaction that waits longest, one at a time.

    A block passes it over that leaves it out and has room, or holds a transaction that came
    `seconds` later. When it has waited for `seconds`, the leader of the next `PASSED_OVER` such
    blocks is suspected, and for half as long again at every height it still leads: view changes of
    different heights do not add up, so the suspicions of all must meet at one height, wherever
    each began. After that patience with this transaction doubles, within bounds: it may be one
    that only this node would take. A full block of older ones is no reason: it waits its turn.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._begin(None, 0.0)

    def watch(self, transaction_id: bytes | None, now: float) -> None:
        """Say which transaction waits longest, None if none does."""
        if transaction_id != self._watched:
            self._begin(transaction_id, now)

    def _begin(self, transaction_id: bytes | None, now: float) -> None:
        self._watched = transaction_id
        self._since = self._patient_from = now
        self._passed_over = self._doublings = 0
        self._suspected: tuple[int, float] | None = None  # a view, and until when

    def committed(
        self,
        transaction_ids: Collection[bytes],
        *,
        room: bool,
        newest: float | None,
        view: int,
        now: float,
    ) -> bool:
        """Tell of a block of `view`; returns whether its leader is to be suspected now.

        `newest` is when the youngest of its transactions came here, None if none was known.
        """
        if self._watched is None or self._watched in transaction_ids:
            return False
        if not room and (newest is None or newest - self._since < self._seconds):
            return False
        if self._suspected is not None:
            suspected, until = self._suspected
            if view == suspected and now < until:
                return True
            self._suspected = None
            self._patient_from = now
            self._doublings = min(self._doublings + 1, _MOST_DOUBLINGS)
        patience = self._seconds * (1 << self._doublings)
        if now - self._patient_from < patience:
            return False
        self._passed_over += 1
        if self._passed_over < PASSED_OVER:
            return False
        self._passed_over = 0
        self._suspected = (view, now + patience / 2)
        return True
