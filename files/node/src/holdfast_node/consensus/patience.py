# SPDX-License-Identifier: Apache-2.0
"""Notices a leader that makes blocks and passes over a transaction."""

from collections.abc import Collection
from typing import Final

# Blocks with room, made when the transaction had long been everywhere, that leave it out.
PASSED_OVER: Final = 2
_MOST_DOUBLINGS: Final = 6


class Patience:
    """Watches the transaction that waits longest, one at a time.

    A leader is suspected when `PASSED_OVER` blocks in a row had room for the watched transaction,
    were committed `seconds` or more after it began to wait, and left it out. Each suspicion doubles
    the patience with that transaction, within bounds: it may be one that only this node would take.
    Blocks without room are no reason: a transaction may wait its turn.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._watched: bytes | None = None
        self._since = 0.0
        self._passed_over = 0
        self._doublings = 0

    def watch(self, transaction_id: bytes | None, now: float) -> None:
        """Say which transaction waits longest, None if none does."""
        if transaction_id != self._watched:
            self._watched, self._since = transaction_id, now
            self._passed_over = self._doublings = 0

    def committed(self, transaction_ids: Collection[bytes], *, room: bool, now: float) -> bool:
        """Tell of a block; returns whether its leader is to be suspected now."""
        if self._watched is None or self._watched in transaction_ids:
            return False
        if not room or now - self._since < self._seconds * (1 << self._doublings):
            return False
        self._passed_over += 1
        if self._passed_over < PASSED_OVER:
            return False
        self._passed_over = 0
        self._doublings = min(self._doublings + 1, _MOST_DOUBLINGS)
        return True
