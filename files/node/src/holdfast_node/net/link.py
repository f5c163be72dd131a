# SPDX-License-Identifier: Apache-2.0
"""State of the connection with one peer, over all its sessions."""

import time
from collections.abc import Callable

import anyio
import msgspec
import structlog

from holdfast_node.net.outbox import Outbox
from holdfast_node.net.session import Session
from holdfast_node.net.settings import PeerSettings, Role
from holdfast_node.net.wire import PeerError, Ping, to_frame

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


class _Handover:
    """From one session to its successor, as far as that has come."""

    def __init__(self) -> None:
        self.successor: Session | None = None
        self.begun = anyio.Event()
        self.said_bye = False
        self.heard_bye = False
        self.expected_until = 0.0


class Link:
    """One peer, its session while there is one, and what waits to be sent.

    While a session is replaced there are two. Each side writes `Bye` over the old one and then over
    its `successor`, and reads the old one up to the other's `Bye`: nothing is lost, nothing comes
    out of order. `hand_over` begins that, `said_bye` and `heard_bye` are its two halves here.
    """

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
        self._retire: Callable[[Session], object]
        self._handover = _Handover()
        self.dial_again = anyio.Event()

    def begin(
        self, session: Session, scope: anyio.CancelScope, retire: Callable[[Session], object]
    ) -> None:
        """Use `session` from now on.

        Cancelling `scope` ends its tasks. `retire` closes a session that has a successor in use.
        """
        self.session = session
        self.height = session.hello.height
        self.busy = False
        self.last_error = None
        self._since = time.time()
        self._scope = scope
        self._retire = retire
        self._free = anyio.Event()
        self._handover = _Handover()
        self.dial_again = anyio.Event()
        _log.info("peer_connected", peer=self.peer.name, address=session.address)

    @property
    def successor(self) -> Session | None:
        """The session that is about to replace the present one."""
        return self._handover.successor

    def expect(self, seconds: float) -> None:
        """Let the peer, which asked for it over the present session, connect a second time."""
        self._handover.expected_until = time.monotonic() + seconds

    @property
    def is_expecting(self) -> bool:
        """Whether a second connection is one that was announced."""
        is_free = self.session is not None and self.successor is None
        return is_free and time.monotonic() < self._handover.expected_until

    def hand_over(self, session: Session) -> None:
        """Go over to `session`; the link closes it from now on."""
        self._handover.successor = session
        self._handover.begun.set()
        self.outbox.interrupt()

    async def heard_bye(self, seconds: float) -> Session:
        """The peer writes over the next session now: wait for that at most so long, return it."""
        handover = self._handover
        with anyio.move_on_after(seconds):
            await handover.begun.wait()
        if handover.successor is None or handover.heard_bye:
            raise PeerError("unexpected", "the peer went over to a session that is not there")
        handover.heard_bye = True
        self._finish(handover.successor)
        return handover.successor

    @property
    def is_to_say_bye(self) -> bool:
        """Whether what we write is still to go over to the successor."""
        return self.successor is not None and not self._handover.said_bye

    def said_bye(self) -> Session:
        """We write over the next session from now on; returns it."""
        handover = self._handover
        assert handover.successor is not None
        handover.said_bye = True
        self._finish(handover.successor)
        return handover.successor

    def _finish(self, successor: Session) -> None:
        """Once both directions have gone over, the old session is closed."""
        handover = self._handover
        if handover.said_bye and handover.heard_bye and self.session is not None:
            self._retire(self.session)
            self.session = successor
            self._handover = _Handover()
            _log.info("session_renewed", peer=self.peer.name, ends_at=successor.ends_at)

    def fail(self, why: str) -> bool:
        """Note why the session ends, and end its tasks; False if that has begun already."""
        if self._scope is None or self._scope.cancel_called:
            return False
        self.last_error = why
        self._scope.cancel()
        return True

    async def end(self, why: str) -> None:
        """As `fail`, and wait until the session is out of use; nothing if there is none."""
        if self.session is not None:
            self.fail(why)
            await self._free.wait()

    def ended(self) -> list[Session]:
        """It is out of use, what was queued is dropped; returns the sessions to close."""
        sessions = [each for each in (self.session, self.successor) if each is not None]
        self.session = None
        self._handover = _Handover()
        self._scope = None
        self._latency = None
        self._since = time.time()
        self.outbox.clear()
        self._free.set()
        _log.info("peer_disconnected", peer=self.peer.name, error=self.last_error)
        return sessions

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
        heard = self.session.heard
        if self.successor is not None:
            heard = max(heard, self.successor.heard)
        return time.monotonic() - heard

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
