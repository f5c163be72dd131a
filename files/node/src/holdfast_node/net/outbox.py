# SPDX-License-Identifier: Apache-2.0
"""What waits to be sent to one peer."""

import asyncio
from collections import deque
from typing import Final

# Costs of holding a frame beyond its bytes, so that many tiny ones are bounded, too.
_OVERHEAD: Final = 64
# As much as this leaves in one write: few system calls and TLS records, yet short waits.
_BATCH_BYTES: Final = 128 * 1024


class Outbox:
    """Frames for one peer, bounded by `max_bytes`; bulk frames yield to the others.

    Bulk (transactions, which a block brings again) is sent after everything else and dropped
    before it; the oldest goes first. Order is kept within each of the two kinds.
    """

    def __init__(self, max_bytes: int) -> None:
        self.dropped = 0
        self.queued_bytes = 0
        self._max_bytes = max_bytes
        self._first: deque[bytes] = deque()
        self._bulk: deque[bytes] = deque()
        self._filled = asyncio.Event()
        self._interrupted = False

    def put(self, frame: bytes, *, bulk: bool) -> None:
        (self._bulk if bulk else self._first).append(frame)
        self.queued_bytes += len(frame) + _OVERHEAD
        while self.queued_bytes > self._max_bytes:
            self._take(self._bulk or self._first)
            self.dropped += 1
        self._filled.set()

    def interrupt(self) -> None:
        """Have the one who waits in `batch` come back, with nothing if there is nothing."""
        self._interrupted = True
        self._filled.set()

    async def batch(self) -> bytes:
        """Wait for frames and take some: as many as make a reasonable write, one at least."""
        while not (self._first or self._bulk or self._interrupted):
            self._filled.clear()
            await self._filled.wait()
        self._interrupted = False
        frames = []
        size = 0
        while size < _BATCH_BYTES and (queue := self._first or self._bulk):
            frame = self._take(queue)
            frames.append(frame)
            size += len(frame)
        return frames[0] if len(frames) == 1 else b"".join(frames)

    def clear(self) -> None:
        self._first.clear()
        self._bulk.clear()
        self.queued_bytes = 0
        self._interrupted = False

    def _take(self, queue: deque[bytes]) -> bytes:
        frame = queue.popleft()
        self.queued_bytes -= len(frame) + _OVERHEAD
        return frame
