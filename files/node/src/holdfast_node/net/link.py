# SPDX-License-Identifier: Apache-2.0
"""State of the connection with one peer, over all its sessions."""

import time

import anyio
import msgspec
import structlog

from holdfast_node.net.outbox import Outbox
from holdfast_node.net.session import Session
from holdfast_node.net.settings import PeerSettings, Role
from holdfast_node.net.wire import Ping, to_frame

_log = structlog.get_logger(__name__)


class PeerStatus(msgspec.Struct, frozen=True):
    """How a peer is seen from here.

    `since` is Unix seconds of the last connect or disconnect, `latency_s` the last ping's round
    trip. `height` and `view` are what the peer last announced, `last_error` why it is away.
    """

    name: str
    role: Role
    connected: bool
    since: float
    height: int
    view: int
    latency_s: float | None
    last_error: str | None
    queued_bytes: int
    dropped: int


class Link:
    """One peer, its session while there is one, and what waits to be sent."""

    def __init__(self, peer: PeerSettings, outbox_bytes: int) -> None:
        self.peer = peer
        self.outbox = Outbox(outbox_bytes)
        self.session: Session | None = None
        self.busy = False
        self.height = 0
        self.view = 0
        self.last_error: str | None = None
        self._since = time.time()
        self._latency: float | None = None
        self._ping = 0
        self._ping_sent = 0.0
        self._scope: anyio.CancelScope | None = None
        self._free = anyio.Event()

    def begin(self, session: Session, scope: anyio.CancelScope) -> None:
        """Use `session` from now on; cancelling `scope` ends its tasks."""
        self.session = session
        self.height = session.hello.height
        self.busy = False
        self.last_error = None
        self._since = time.time()
        self._scope = scope
        self._free = anyio.Event()
        _log.info("peer_connected", peer=self.peer.name, address=session.address)

    def fail(self, why: str) -> None:
        """Note why the session ends, and end its tasks."""
        self.last_error = why
        if self._scope is not None:
            self._scope.cancel()

    async def end(self, why: str) -> None:
        """As `fail`, and wait until the session is out of use; nothing if there is none."""
        if self.session is not None:
            self.fail(why)
            await self._free.wait()

    def ended(self) -> None:
        """The session is out of use; what was queued for it is dropped."""
        self.session = None
        self._scope = None
        self._latency = None
        self._since = time.time()
        self.outbox.clear()
        self._free.set()
        _log.info("peer_disconnected", peer=self.peer.name, error=self.last_error)

    def queue(self, frame: bytes, *, bulk: bool = False) -> bool:
        """Have `frame` sent if the peer is connected; tells whether it is."""
        if self.session is None:
            return False
        self.outbox.put(frame, bulk=bulk)
        return True

    def silence(self) -> float:
        """Seconds for which we have listened and heard nothing."""
        if self.session is None or self.busy:
            return 0.0
        return time.monotonic() - self.session.heard

    def ping(self) -> None:
        self._ping += 1
        self._ping_sent = time.monotonic()
        self.queue(to_frame(Ping(self._ping)))

    def pong(self, n: int) -> None:
        if n == self._ping:
            self._latency = time.monotonic() - self._ping_sent

    def status(self) -> PeerStatus:
        return PeerStatus(
            name=self.peer.name,
            role=self.peer.role,
            connected=self.session is not None,
            since=self._since,
            height=self.height,
            view=self.view,
            latency_s=self._latency,
            last_error=self.last_error,
            queued_bytes=self.outbox.queued_bytes,
            dropped=self.outbox.dropped,
        )
