# SPDX-License-Identifier: Apache-2.0
"""What a replica keeps of messages that it cannot use yet, bounded per sender in count and bytes.

Membership and signatures have been checked before anything comes here.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from typing import Final

from holdfast_node.chain.block import Block
from holdfast_node.consensus.messages import Message, NewView, PrePrepare, ViewChange, Vote
from holdfast_node.consensus.rules import required_block, wanted_view

FUTURE_MESSAGES: Final = 6
# A vote, a proof or a header, as objects in memory: an upper bound.
_SMALL: Final = 512


def block_weight(block: Block | None) -> int:
    """Bytes of memory that a block keeps, about; 0 for None."""
    if block is None:
        return 0
    return _SMALL + sum(map(len, block.transactions)) + 64 * len(block.transactions)


def weight(message: Message) -> int:
    """Bytes of memory that a message keeps, about."""
    match message:
        case Vote():
            return _SMALL
        case PrePrepare():
            return _SMALL + block_weight(message.block)
        case ViewChange():
            votes = len(message.prepared.prepares) if message.prepared else 0
            return _SMALL * (2 + votes) + block_weight(message.block)
        case NewView():
            return _SMALL + sum(map(weight, message.view_changes))


class FutureMessages:
    """Messages of the next height, per validator the last `FUTURE_MESSAGES` within `max_bytes`."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self._waiting: dict[int, deque[tuple[Message, int]]] = {}

    def add(self, message: Message) -> None:
        """Keep `message`; the sender's oldest ones make room for it."""
        queue = self._waiting.setdefault(message.validator, deque(maxlen=FUTURE_MESSAGES))
        size = weight(message)
        if size > self.max_bytes or message in self:
            return
        queue.append((message, size))
        while sum(size for _, size in queue) > self.max_bytes:
            queue.popleft()

    def take(self) -> Iterator[Message]:
        """Hand over everything, by validator, and keep nothing."""
        waiting, self._waiting = self._waiting, {}
        for sender in sorted(waiting):
            for message, _ in waiting[sender]:
                yield message

    def proposals(self, view: int) -> list[Block]:
        """The blocks proposed for `view`, oldest first."""
        messages = (message for queue in self._waiting.values() for message, _ in queue)
        return [m.block for m in messages if isinstance(m, PrePrepare) and m.view == view]

    def __contains__(self, message: Message) -> bool:
        return any(message == known for known, _ in self._waiting.get(message.validator, ()))

    def __len__(self) -> int:
        return sum(map(len, self._waiting.values()))

    @property
    def bytes(self) -> int:
        return sum(size for queue in self._waiting.values() for _, size in queue)


class ViewChangeBook:
    """Requests for another view at one height: the highest of each validator."""

    def __init__(self) -> None:
        self._by_validator: dict[int, ViewChange] = {}

    def add(self, change: ViewChange) -> ViewChange | None:
        """Enter a request; returns the one that was there if that is as high, or higher."""
        known = self._by_validator.get(change.validator)
        if known is not None and known.view >= change.view:
            return known
        self._by_validator[change.validator] = change
        return None

    def of(self, validator: int) -> ViewChange | None:
        return self._by_validator.get(validator)

    def target(self, view: int, faults: int) -> int | None:
        """The view above `view` that at least one honest validator asks for (f + 1 jump)."""
        higher = (c.view for c in self._by_validator.values() if c.view > view)
        return wanted_view(higher, faults)

    def asking(self, view: int) -> int:
        """How many gave up every view below `view`."""
        return sum(change.view >= view for change in self._by_validator.values())

    def requests(self, view: int) -> list[ViewChange]:
        """The requests for exactly `view`, sorted by validator."""
        here = (c for c in self._by_validator.values() if c.view == view)
        return sorted(here, key=lambda change: change.validator)

    @property
    def bytes(self) -> int:
        return sum(map(weight, self._by_validator.values()))


def stripped(changes: Iterable[ViewChange]) -> tuple[ViewChange, ...]:
    """The same without their blocks: what a NEW-VIEW carries."""
    return tuple(
        ViewChange(c.height, c.view, c.prepared, c.validator, c.signature) for c in changes
    )


def required(changes: list[ViewChange]) -> tuple[bytes | None, Block | None]:
    """Hash and body of the block that `changes` oblige to propose again."""
    block_hash = required_block(changes)
    bodies = (c.block for c in changes if c.prepared and c.prepared.block_hash == block_hash)
    return block_hash, next((body for body in bodies if body is not None), None)
