# SPDX-License-Identifier: Apache-2.0
"""The driver's queue: what other tasks hand to the one task that owns the replica."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final, TypeAlias

import anyio

from holdfast_node.chain.block import CertifiedBlock
from holdfast_node.consensus import Message, Vote
from holdfast_node.errors import RefusedError
from holdfast_node.ledger.ledger import Candidate

INBOX_MESSAGES: Final = 512
BURST_MESSAGES: Final = 64


@dataclass(slots=True, eq=False)
class Adoption:
    found: CertifiedBlock | Candidate
    done: anyio.Event
    error: RefusedError | None = None


@dataclass(slots=True, eq=False)
class Heavy:
    """A message that costs memory and time; its sender is not heard before it is `done`."""

    message: Message
    done: anyio.Event = field(default_factory=anyio.Event)


Item: TypeAlias = Message | Heavy | Adoption | None


class Inbox:
    """Bounded. `_burst` is for its owner, the rest for the other tasks."""

    def __init__(self) -> None:
        self._inbox, self._queue = anyio.create_memory_object_stream[Item](INBOX_MESSAGES)
        self._awake = False

    # From other tasks.

    async def receive(self, message: Message) -> None:
        """Take a message from a peer (back-pressure: its next one is read after this returns).

        Waits while too many are queued. What is more than a vote is waited for until it was
        handled, so that each peer has at most one such message here, however many it sends.
        """
        if isinstance(message, Vote):
            await self._put(message)
            return
        heavy = Heavy(message)
        if await self._put(heavy):
            await heavy.done.wait()

    async def adopt(self, found: CertifiedBlock | Candidate) -> None:
        """Commit a block, or go on from a snapshot, that was fetched and checked.

        Returns when it is durable, or was already. Raises `RefusedError` if it does not fit.
        """
        adoption = Adoption(found, anyio.Event())
        if await self._put(adoption):
            await adoption.done.wait()
        if adoption.error is not None:
            raise adoption.error

    async def _put(self, item: Item) -> bool:
        """Queue it; False if the driver has ended, while the tasks of the network still do."""
        try:
            await self._inbox.send(item)
        except (anyio.ClosedResourceError, anyio.BrokenResourceError):
            return False
        return True

    def wake(self) -> None:
        """There may be something to propose or to expect."""
        if not self._awake:
            try:
                self._inbox.send_nowait(None)
                self._awake = True
            except anyio.WouldBlock:
                pass  # the inbox is full: the loop is awake anyway
            except (anyio.ClosedResourceError, anyio.BrokenResourceError):
                pass  # it has ended: there is nobody to wake

    def close(self) -> None:
        """Let go of the queue; nothing is taken afterwards."""
        with suppress(anyio.WouldBlock, anyio.EndOfStream, anyio.ClosedResourceError):
            while True:
                item = self._queue.receive_nowait()
                if isinstance(item, Heavy | Adoption):
                    item.done.set()
        self._inbox.close()
        self._queue.close()

    async def _burst(self, seconds: Callable[[], float]) -> list[Item]:
        """Take what waits, within bounds; if nothing does, wait for so many `seconds`."""
        burst: list[Item] = []
        if self._queue.statistics().current_buffer_used == 0:
            with anyio.move_on_after(seconds()):
                burst.append(await self._queue.receive())
        while len(burst) < BURST_MESSAGES:
            try:
                burst.append(self._queue.receive_nowait())
            except anyio.WouldBlock:
                break
        return burst
