# SPDX-License-Identifier: Apache-2.0
"""Serving committed blocks to members."""

import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Final

import anyio
from anyio.abc import TaskStatus

from holdfast_node.net.listener import Listener, Refusals
from holdfast_node.net.session import Session, Terms
from holdfast_node.net.settings import NetworkSettings
from holdfast_node.net.wire import (
    SYNC_REQUEST_LIMIT,
    Blocks,
    GetBlocks,
    PeerError,
    Reason,
    to_frame,
)

PAGE_BYTES: Final = 2 * 2**20
SESSIONS_PER_PEER: Final = 2

_BYTES_PER_SECOND: Final = 32 * 2**20
_BURST_BYTES: Final = 64 * 2**20
# What a request costs besides its answer's bytes: bounds requests to 512 per second and peer.
_REQUEST_COST: Final = 64 * 2**10


class Budget:
    """A token bucket in bytes."""

    def __init__(self, rate: float, burst: float) -> None:
        self._rate = rate
        self._burst = burst
        self._left = burst
        self._then = time.monotonic()

    def spend(self, cost: float) -> float:
        """Take `cost` bytes; returns the seconds to wait before the next request."""
        now = time.monotonic()
        self._left = min(self._burst, self._left + (now - self._then) * self._rate) - cost
        self._then = now
        return max(0.0, -self._left / self._rate)


class SyncServer:
    """Serves committed blocks to members, on a port of its own.

    `blocks(from_height, limit, max_bytes)` returns encoded `CertifiedBlock`s from `from_height` on,
    at most `limit`, stopping before `max_bytes` is exceeded but with one block at least if there is
    one; called on the event loop. `height()` is our last committed height.

    A peer that asks too much is answered later, not refused.
    """

    def __init__(
        self,
        settings: NetworkSettings,
        *,
        blocks: Callable[[int, int, int], Sequence[bytes]],
        height: Callable[[], int],
        on_refused: Callable[[Reason], None] = lambda _reason: None,
    ) -> None:
        self._settings = settings
        self._terms = Terms(settings, SYNC_REQUEST_LIMIT, height)
        self._blocks = blocks
        self._height = height
        self._refusals = Refusals(on_refused)
        self._sessions: defaultdict[str, list[Session]] = defaultdict(list)
        self._budgets = {
            peer.name: Budget(_BYTES_PER_SECOND, _BURST_BYTES) for peer in settings.peers
        }

    async def run(self, *, task_status: TaskStatus[int]) -> None:
        """Serve until cancelled; `started` gets the port listened on. Raises `ConfigError`."""
        listener = Listener(
            self._terms,
            what="p2p.sync_listen",
            admit=lambda _name: None,  # any member may fetch blocks
            serve=self._serve,
            refusals=self._refusals,
        )
        await listener.run(
            self._settings.sync_host, self._settings.sync_port, task_status=task_status
        )

    async def _serve(self, session: Session) -> None:
        sessions = self._sessions[session.peer]
        if len(sessions) >= SESSIONS_PER_PEER:
            sessions[0].abort()  # most likely dead: a peer needs one, and a new one after trouble
        sessions.append(session)
        try:
            while True:
                await self._answer(session)
        except PeerError as error:
            self._refusals(error, peer=session.peer, address=session.address)
        except OSError:
            pass  # gone, idle, or does not read: it will connect again when it wants blocks
        finally:
            sessions.remove(session)
            await session.close()

    async def _answer(self, session: Session) -> None:
        timing = self._settings.timing
        with anyio.fail_after(timing.sync_idle):
            request: GetBlocks = await session.receive(GetBlocks)
        if session.overdue:
            raise session.overdue
        blocks = self._blocks(
            max(request.from_height, 1), request.limit, min(request.max_bytes, PAGE_BYTES)
        )
        reply = to_frame(Blocks(tuple(blocks), self._height()))
        with anyio.fail_after(timing.sync_idle):
            await session.send(reply)
        await anyio.sleep(self._budgets[session.peer].spend(len(reply) + _REQUEST_COST))
