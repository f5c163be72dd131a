# SPDX-License-Identifier: Apache-2.0
"""One connection to every peer, kept up for ever, and messages over it."""

import random
import time
from collections.abc import Callable
from typing import Final, Literal, Protocol

import anyio
import structlog
from anyio.abc import TaskGroup, TaskStatus

from holdfast_node.errors import ProtocolError, RefusedError, StorageError
from holdfast_node.net.link import Link, PeerStatus
from holdfast_node.net.listener import Listener, Refusals
from holdfast_node.net.session import Session, Terms, dial
from holdfast_node.net.settings import NetworkSettings, PeerSettings
from holdfast_node.net.wire import (
    Bye,
    Delivered,
    Hello,
    Message,
    PeerError,
    Ping,
    Pong,
    Reason,
    Renew,
    Status,
    Transactions,
    frame_limit,
    to_frame,
)

__all__ = ["Handler", "Network", "PeerStatus"]

_log = structlog.get_logger(__name__)

# Failures of a dialled connection that are not us refusing somebody.
_NOT_OURS: Final = frozenset({"aborted", "timeout", "tls"})


class Handler(Protocol):
    """What the node does with what peers send. Called on the event loop."""

    async def on_message(self, peer: str, message: Delivered) -> None:
        """Handle one message; that peer's next one is not read before this returns.

        Raise `RefusedError` or `ProtocolError` to have the peer's connection closed. `StorageError`
        ends `Network.run`; any other error is logged as ours and closes only this connection.
        """

    def on_connected(self, peer: str, hello: Hello) -> None: ...

    def on_disconnected(self, peer: str) -> None: ...

    def hello_height(self) -> int:
        """Our last committed height, for the `Hello` of a new connection."""


class Network:
    """One connection to every peer, kept up for ever.

    `on_refused` gets the reason for every connection refused or closed for misconduct.
    `is_validator(name)` says who takes part in consensus now; whoever is configured so, if not
    given.
    """

    def __init__(
        self,
        settings: NetworkSettings,
        handler: Handler,
        *,
        on_refused: Callable[[Reason], None] = lambda _reason: None,
        is_validator: Callable[[str], bool] | None = None,
    ) -> None:
        self._settings = settings
        self._handler = handler
        self._is_validator = is_validator or self._is_configured_validator
        self._tasks: TaskGroup | None = None
        self._refusals = Refusals(on_refused)
        self._terms = Terms(settings, frame_limit(settings.max_block_bytes), handler.hello_height)
        self._links = {
            peer.name: Link(peer, settings.outbox_bytes)
            for peer in settings.peers
            if settings.is_linked(peer)
        }
        for peer in settings.learned:
            self._links[peer.name] = Link(peer, settings.outbox_bytes)

    async def run(self, *, task_status: TaskStatus[int]) -> None:
        """Listen and dial until cancelled; `started` gets the port listened on.

        Raises `ConfigError` if the address cannot be listened on.
        """
        settings = self._settings
        listener = Listener(
            self._terms,
            what="p2p.listen",
            admit=self._admit,
            serve=self._serve_accepted,
            refusals=self._refusals,
        )
        async with anyio.create_task_group() as tasks:
            port = await tasks.start(listener.run, settings.host, settings.port)
            self._tasks = tasks
            for link in self._links.values():
                if settings.dials(link.peer):
                    tasks.start_soon(self._dial_forever, link)
            task_status.started(port)

    def broadcast(self, message: Delivered, *, to: Literal["validators", "all"]) -> int:
        """Queue `message` for the connected peers chosen; never blocks. Returns for how many."""
        frame = to_frame(message)
        bulk = isinstance(message, Transactions)
        everybody, chosen = to == "all", self._is_validator
        return sum(
            link.queue(frame, bulk=bulk)
            for name, link in self._links.items()
            if everybody or chosen(name)
        )

    def _is_configured_validator(self, name: str) -> bool:
        return self._links[name].peer.role == "validator"

    def learn(self, peer: PeerSettings) -> None:
        """Admit another member from now on, and connect to it if it is on us to dial.

        One that was learned before is dialled at its new address from now on.
        """
        settings = self._settings
        if peer.name == settings.name or peer.name in {known.name for known in settings.peers}:
            return
        if settings.knows(peer.name):
            self._links[peer.name].peer = peer
            settings.learned[:] = [p for p in settings.learned if p.name != peer.name] + [peer]
            return
        settings.learned.append(peer)
        link = self._links[peer.name] = Link(peer, self._settings.outbox_bytes)
        if self._tasks is not None and self._settings.dials(peer):
            self._tasks.start_soon(self._dial_forever, link)

    def send(self, peer: str, message: Delivered) -> bool:
        """Queue `message` for one peer; never blocks. False if it is not connected."""
        link = self._links.get(peer)
        bulk = isinstance(message, Transactions)
        return link is not None and link.queue(to_frame(message), bulk=bulk)

    def peers(self) -> list[PeerStatus]:
        """All peers that we keep a connection with, in the order of the settings."""
        return [link.status() for link in self._links.values()]

    async def _dial_forever(self, link: Link) -> None:
        timing = self._settings.timing
        pause = timing.redial_min
        while True:
            up_since = time.monotonic()
            try:
                session = await dial((link.peer.host, link.peer.port), link.peer, self._terms)
            except (PeerError, OSError) as error:
                self._note_failed_dial(link, error)
            else:
                up_since = time.monotonic()
                await self._serve(link, session)
                if time.monotonic() - up_since > timing.redial_max:
                    pause = timing.redial_min
            # Jitter, so that a network that comes back is not dialled by everybody at once.
            await anyio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311  # no secret
            pause = min(pause * 2, timing.redial_max)

    def _note_failed_dial(self, link: Link, error: Exception) -> None:
        text = str(error) or type(error).__name__
        if isinstance(error, PeerError) and error.reason not in _NOT_OURS:
            self._refusals(error, peer=link.peer.name)
        elif text != link.last_error:
            _log.info("peer_unreachable", peer=link.peer.name, error=text)
        link.last_error = text

    def _admit(self, name: str) -> None:
        """Whether the member `name`, which connects to us, may."""
        link = self._links.get(name)
        if link is None or self._settings.dials(link.peer):
            raise PeerError("unexpected", f"{name} is not to connect to us")
        if self._is_alive(link) and not link.is_expecting:
            raise PeerError("duplicate", f"{name} is connected already")

    def _is_alive(self, link: Link) -> bool:
        return link.session is not None and (link.silence() < 1.5 * self._settings.timing.heartbeat)

    async def _serve_accepted(self, session: Session) -> None:
        try:
            self._admit(session.peer)  # again: another connection of it may have been quicker
        except PeerError as error:
            self._refusals(error, peer=session.peer, address=session.address)
            await session.close()
            return
        link = self._links[session.peer]
        if self._is_alive(link):
            link.hand_over(session)
            return
        await link.end("replaced by a newer connection")
        await self._serve(link, session)

    async def _serve(self, link: Link, session: Session) -> None:
        """Exchange messages until the connection fails, whoever is at fault."""
        try:
            async with anyio.create_task_group() as tasks:
                link.begin(
                    session,
                    tasks.cancel_scope,
                    # `Bye`, and what came before it, may have got no farther than our buffers.
                    lambda old: tasks.start_soon(old.retire, self._settings.timing.silence),
                )
                self._handler.on_connected(link.peer.name, session.hello)
                tasks.start_soon(self._heartbeat, link)
                tasks.start_soon(self._renew, link)
                if self._settings.dials(link.peer):
                    tasks.start_soon(self._dial_again, link)
                tasks.start_soon(self._write, link, session)
                await self._read(link, session)
        finally:
            sessions = link.ended()
            self._handler.on_disconnected(link.peer.name)
            for each in sessions:
                await each.close()

    async def _read(self, link: Link, session: Session) -> None:
        try:
            while True:
                message: Message = await session.receive(Message)
                if isinstance(message, Bye):
                    session = await link.heard_bye(self._settings.timing.handshake)
                    continue
                link.busy = True
                await self._handle(link, message)
                link.busy = False
                session.heard = time.monotonic()
        except (PeerError, OSError) as error:
            self._fail(link, session, error)

    def _fail(self, link: Link, session: Session, error: PeerError | OSError) -> None:
        """End the link, once, whichever of its tasks sees the error first."""
        if link.fail(str(error)) and isinstance(error, PeerError):
            self._refusals(error, peer=link.peer.name, address=session.address)

    async def _handle(self, link: Link, message: Message) -> None:
        match message:
            case Ping(n):
                link.queue(to_frame(Pong(n)))
            case Pong(n):
                link.pong(n)
            case Renew():
                self._asked_to_renew(link)
            case Hello() | Bye():
                raise PeerError("unexpected", f"a {type(message).__name__} out of place")
            case _:
                if isinstance(message, Status):
                    link.height, link.view = message.height, message.view
                await self._deliver(link.peer.name, message)

    async def _deliver(self, peer: str, message: Delivered) -> None:
        try:
            await self._handler.on_message(peer, message)
        except (RefusedError, ProtocolError) as error:
            raise PeerError("malformed", f"{type(message).__name__} refused: {error}") from error
        except StorageError:
            raise  # the disk failed, not the peer; the node must not go on
        except Exception as error:
            # What one peer can trigger must not take the node, and so the network, down.
            _log.exception("message_handling_failed", peer=peer, message=type(message).__name__)
            raise PeerError("internal", f"handling a message failed: {error!r}") from error

    async def _write(self, link: Link, session: Session) -> None:
        try:
            while True:
                frames = await link.outbox.batch()
                if frames:
                    await session.send(frames)
                if link.is_to_say_bye:
                    await session.send(to_frame(Bye()))
                    session = link.said_bye()
        except (PeerError, OSError) as error:
            self._fail(link, session, error)

    async def _heartbeat(self, link: Link) -> None:
        timing = self._settings.timing
        while True:
            link.ping()
            await anyio.sleep(timing.heartbeat)
            session = link.session
            assert session is not None
            fault = session.overdue
            if fault is None and link.silence() > timing.silence:
                fault = PeerError("timeout", f"silent for {timing.silence:g} s")
            if fault is not None:
                self._fail(link, session, fault)

    # A session is replaced before its certificates end: `Renew` over the old one, then a second
    # connection, then `Bye` over the old one in both directions.

    async def _renew(self, link: Link) -> None:
        """See to it that a session that is about to end is replaced."""
        timing = self._settings.timing
        # Certificates of a whole network are often made, and end, at the same time.
        lead = timing.renewal * random.uniform(0.5, 1.0)  # noqa: S311  # no secret
        while True:
            await anyio.sleep(timing.heartbeat)
            session = link.session
            assert session is not None
            left = session.ends_at - time.time()
            gains = self._settings.tls.not_after > session.ends_at
            if left > lead or link.successor is not None or not gains:
                continue
            self._ask_to_renew(link)
            # If nothing is gained, since the peer's is still the old one, there is a next time.
            await anyio.sleep(max(0.0, min(timing.redial_max, left / 4)))

    def _ask_to_renew(self, link: Link) -> None:
        if not self._settings.dials(link.peer):
            link.expect(2 * self._settings.timing.handshake)
        link.queue(to_frame(Renew()))

    def _asked_to_renew(self, link: Link) -> None:
        if not self._settings.dials(link.peer):
            self._ask_to_renew(link)  # the answer for which the peer waits to dial
        else:
            link.dial_again.set()

    async def _dial_again(self, link: Link) -> None:
        """Replace the session whenever the peer says that it is ready for another."""
        timing = self._settings.timing
        while True:
            await link.dial_again.wait()
            pause = timing.redial_max  # a peer cannot keep us dialling all the time
            try:
                if link.successor is None:
                    session = await dial((link.peer.host, link.peer.port), link.peer, self._terms)
                    link.hand_over(session)
            except (PeerError, OSError) as error:
                _log.warning("session_not_renewed", peer=link.peer.name, error=str(error))
                pause = timing.redial_min
            await anyio.sleep(pause)
            link.dial_again = anyio.Event()
