# SPDX-License-Identifier: Apache-2.0
"""Virtual time: one heap of events, and the trace of what came of them."""

import heapq
from collections import deque
from collections.abc import Callable
from hashlib import blake2b
from typing import Any, Final

KEPT_LINES: Final = 400


class Timeline:
    """`trace_all` keeps every line of the trace, not only the last ones."""

    def __init__(self, *, trace_all: bool) -> None:
        self.now = 0.0
        self.lines: deque[str] = deque(maxlen=None if trace_all else KEPT_LINES)
        self.events = 0
        self._digest = blake2b(digest_size=16)
        self._heap: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._sequence = 0

    def after(self, seconds: float, action: Callable[..., None], *arguments: Any) -> None:
        self._sequence += 1
        entry = (self.now + seconds, self._sequence, action, arguments)
        heapq.heappush(self._heap, entry)

    def every(self, seconds: float, action: Callable[[], None]) -> None:
        def again() -> None:
            action()
            self.after(seconds, again)

        self.after(seconds, again)

    def run(self, until: float) -> None:
        """Go on to virtual time `until`; raises `ViolationError`."""
        heap = self._heap
        while heap and heap[0][0] <= until:
            self.now, _, action, arguments = heapq.heappop(heap)
            self.events += 1
            action(*arguments)
        self.now = until

    def note(self, line: str) -> None:
        """A line of the trace; the digest over all of them identifies the run."""
        line = f"{self.now:10.6f} {line}"
        self.lines.append(line)
        self._digest.update(line.encode())

    @property
    def trace_hash(self) -> str:
        return self._digest.hexdigest()
