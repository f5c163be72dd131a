# SPDX-License-Identifier: Apache-2.0
"""The way back to voting, of a validator whose start left a doubt; `probation.py` says why."""

from collections.abc import Awaitable, Callable, Sequence
from math import inf
from typing import Final

import structlog
from anyio import to_thread

from holdfast_node.consensus import Record, Replica
from holdfast_node.vote_log import VoteLog

MARK_SECONDS: Final = 2.0
_OLD_NETWORK: Final = (
    "this folder is new, and the network is not: the validator may have voted before, from a "
    "folder that was lost"
)

log = structlog.get_logger()


class Rejoin:
    """Gives the driver its replica once a vote is safe.

    `make(height, view, records)` makes the replica; `is_member(height)` says whether this node is a
    validator there: from the activation on it votes. `mark()` hands a transaction with a number to
    the network that was drawn since the start, and returns its identifier, or None if it was not
    taken; `is_marked()` says whether that number is in the state. It is one for all tries, as any
    block that has it is younger than the start: so nothing is kept of the tries.
    """

    def __init__(
        self,
        votes: VoteLog,
        *,
        make: Callable[[int, int, Sequence[Record]], Replica],
        is_member: Callable[[int], bool],
        mark: Callable[[], Awaitable[bytes | None]],
        is_marked: Callable[[], bool],
    ) -> None:
        self._votes = votes
        self._make = make
        self._is_member = is_member
        self._mark = mark
        self._is_marked = is_marked
        self.next_try = -inf

    @property
    def reason(self) -> str:
        """Why there is no vote yet."""
        standing = self._votes.standing
        if standing.doubt is not None:
            return standing.doubt
        if self._votes.newborn:
            return "this folder is new: waiting for a quorum, to see whether the network is too"
        return f"the journal holds votes above the chain: fetching blocks up to {standing.floor}"

    async def replica(self, height: int, view: int, *, newest: bool, now: float) -> Replica | None:
        """The replica for the height above `height`, or None while no vote is safe.

        `newest`: a quorum is connected, and no peer claims more blocks. A single claim, true or
        not, keeps a new folder from voting: to believe the others instead would forget a vote.
        """
        votes = self._votes
        if votes.newborn and height > 0:
            await to_thread.run_sync(votes.doubt, _OLD_NETWORK)
        if votes.newborn:
            if not newest:
                self.next_try = inf  # the driver is woken when a peer or a block comes
                return None
            await to_thread.run_sync(votes.born)
        if votes.standing.may_vote(height + 1):
            if not self._is_member(height + 1):
                self.next_try = inf  # the driver looks again after every block
                return None
            records = [r for r in votes.standing.records if r.height == height + 1]
            return self._make(height + 1, view, records)
        if votes.standing.doubt is None:
            self.next_try = inf
        elif now >= self.next_try:
            self.next_try = now + MARK_SECONDS
            mark = await self._mark()
            if mark is not None:
                log.warning("follows without a vote", reason=self.reason, mark=mark.hex())
        return None

    async def committed(self, height: int) -> None:
        """A final block was executed, or a snapshot of the state after it installed."""
        votes = self._votes
        if votes.newborn:
            await to_thread.run_sync(votes.doubt, _OLD_NETWORK)
            self.next_try = -inf
        if votes.standing.doubt is not None and self._is_marked():
            await to_thread.run_sync(votes.cleared, height)
            log.info("votes of the past cannot be contradicted any more", height=height)
