# SPDX-License-Identifier: Apache-2.0
"""Serving committed blocks and snapshots to members."""

import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Final, Protocol

import anyio
from anyio import to_thread
from anyio.abc import TaskStatus

from holdfast_node.net.listener import Listener, Refusals
from holdfast_node.net.session import Session, Terms
from holdfast_node.net.settings import NetworkSettings
from holdfast_node.net.wire import (
    MANIFEST_PART_BYTES,
    MAX_OFFERS,
    SYNC_REQUEST_LIMIT,
    Blocks,
    GetBlocks,
    GetManifest,
    GetPage,
    GetSnapshots,
    ManifestPart,
    Offer,
    PeerError,
    Reason,
    SnapshotPart,
    Snapshots,
    SyncRequest,
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


class SnapshotSource(Protocol):
    """The snapshots that this node has; all methods are quick but `page`, which reads a file."""

    def offers(self) -> Sequence[tuple[int, bytes]]:
        """Height and identity (32 bytes) of each, newest first."""

    def manifest(self, identity: bytes) -> bytes:
        """The encoded manifest, of at most 20 MiB; empty if that snapshot is not here."""

    def page(self, identity: bytes, chunk: int, page: int) -> bytes:
        """One encoded page; empty if it is not here. Called in a worker thread."""


class SyncServer:
    """Serves committed blocks and snapshots to members, on a port of its own.

    `blocks(from_height, limit, max_bytes)` returns encoded `CertifiedBlock`s from `from_height` on,
    at most `limit`, stopping before `max_bytes` is exceeded but with one block at least if there is
    one; called on the event loop. `height()` is our last committed height, `first_height()` the
    lowest of the blocks that are here. Without `snapshots` none are offered.

    A peer that asks too much is answered later, not refused.
    """

    def __init__(
        self,
        settings: NetworkSettings,
        *,
        blocks: Callable[[int, int, int], Sequence[bytes]],
        height: Callable[[], int],
        first_height: Callable[[], int] = lambda: 1,
        snapshots: SnapshotSource | None = None,
        on_refused: Callable[[Reason], None] = lambda _reason: None,
    ) -> None:
        self._settings = settings
        self._terms = Terms(settings, SYNC_REQUEST_LIMIT, height)
        self._blocks = blocks
        self._height = height
        self._first_height = first_height
        self._snapshots = snapshots
        self._refusals = Refusals(on_refused)
        self._sessions: defaultdict[str, list[Session]] = defaultdict(list)
        self._budgets: dict[str, Budget] = {}  # of members, so there are not many

    def _budget(self, peer: str) -> Budget:
        return self._budgets.setdefault(peer, Budget(_BYTES_PER_SECOND, _BURST_BYTES))

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
            request: SyncRequest = await session.receive(SyncRequest)
        if session.overdue:
            raise session.overdue
        reply = to_frame(await self._reply(request))
        with anyio.fail_after(timing.sync_idle):
            await session.send(reply)
        await anyio.sleep(self._budget(session.peer).spend(len(reply) + _REQUEST_COST))

    async def _reply(
        self, request: SyncRequest
    ) -> Blocks | Snapshots | ManifestPart | SnapshotPart:
        if isinstance(request, GetBlocks):
            blocks = self._blocks(
                max(request.from_height, 1), request.limit, min(request.max_bytes, PAGE_BYTES)
            )
            return Blocks(tuple(blocks), self._height(), self._first_height())
        source = self._snapshots
        match request:
            case GetSnapshots():
                offers = () if source is None else source.offers()[:MAX_OFFERS]
                return Snapshots(tuple(Offer(height, identity) for height, identity in offers))
            case GetManifest():
                manifest = b"" if source is None else source.manifest(request.identity)
                first, size = request.part * MANIFEST_PART_BYTES, len(manifest)
                part = manifest[first : first + MANIFEST_PART_BYTES]
                return ManifestPart(part, -(-size // MANIFEST_PART_BYTES))
            case GetPage():
                if source is None:
                    return SnapshotPart(b"")
                asked = (request.identity, request.chunk, request.page)
                return SnapshotPart(await to_thread.run_sync(source.page, *asked))
