# SPDX-License-Identifier: Apache-2.0
"""One authenticated connection to a member: TLS, then a `Hello` in each direction."""

import asyncio
import contextlib
import socket
import ssl
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any, Final

import anyio

from holdfast_node.net.settings import NetworkSettings, PeerSettings
from holdfast_node.net.tls import Identity, Loaded, tls_fault
from holdfast_node.net.wire import (
    HELLO_LIMIT,
    PROTOCOL_VERSION,
    FrameDecoder,
    Hello,
    PeerError,
    from_frame,
    to_frame,
)

_READ_BYTES: Final = 256 * 1024
_CLOSE_SECONDS: Final = 1.0


@dataclass(frozen=True)
class Terms:
    """How sessions are opened.

    Our `Hello` carries `height()`; after it frames may have `limit` bytes.
    """

    settings: NetworkSettings
    limit: int
    height: Callable[[], int]


class Session:
    """A connection whose other end is known to be member `peer`.

    `address` is for people. Errors of `receive` and `send` are `OSError` (the connection is gone,
    `ssl.SSLError` included) and `PeerError` (the peer is at fault).

    It must not be used after `ends_at`, Unix seconds: the end of the peer's certificate or of our
    own, as it was when we connected, whichever comes first.
    """

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, address: str
    ) -> None:
        self.address = address
        self.identity: Identity
        self.own: Identity
        self.hello: Hello
        self.ends_at = 0.0
        self.heard = time.monotonic()
        self._reader = reader
        self._writer = writer
        self._decoder = FrameDecoder(HELLO_LIMIT)
        self._fault: PeerError | None = None

    @property
    def peer(self) -> str:
        return self.identity.name

    @property
    def is_closed(self) -> bool:
        """Whether the connection is known to be gone."""
        return self._reader.at_eof() or self._writer.is_closing()

    @property
    def overdue(self) -> PeerError | None:
        """Why it must not be used any more, once that is so."""
        if time.time() <= self.ends_at:
            return None
        if self._fault is not None:
            return self._fault
        whose = "peer's" if self.identity.not_after <= self.own.not_after else "own"
        return PeerError("expired", f"the {whose} certificate has run out")

    def end_by(self, when: float, fault: PeerError) -> None:
        """End at Unix time `when` at the latest, because of `fault`; at once if that has passed."""
        if when >= self.ends_at:
            return
        self.ends_at, self._fault = when, fault
        if self.overdue:
            self.abort()

    async def receive(self, type_: Any) -> Any:
        """The next message, which must be a `type_` (a message's class, or a union of some)."""
        while (frame := self._decoder.next()) is None:
            try:
                data = await self._reader.read(_READ_BYTES)
            except OSError as error:
                raise self._fault or error from error
            if not data:
                raise self._fault or ConnectionResetError("closed by the peer")
            self.heard = time.monotonic()
            self._decoder.feed(data)
        return from_frame(frame, type_)

    async def send(self, frames: bytes) -> None:
        """Write whole frames; returns when the connection has room again."""
        self._writer.write(frames)
        try:
            await self._writer.drain()
        except OSError as error:
            raise self._fault or error from error

    async def close(self) -> None:
        """Close in bounded time, whatever the peer does; safe to call when cancelled."""
        with anyio.move_on_after(_CLOSE_SECONDS, shield=True), contextlib.suppress(OSError):
            self._hang_up()
            await self._writer.wait_closed()
        self._writer.transport.abort()

    async def retire(self, seconds: float) -> None:
        """Close once the peer has taken all that was sent, or after `seconds`; cut if cancelled."""
        try:
            with anyio.move_on_after(seconds), contextlib.suppress(OSError):
                self._hang_up()
                await self._writer.wait_closed()
        finally:
            self.abort()

    def _hang_up(self) -> None:
        # Once: closed twice, asyncio of some Pythons (3.11.2) fails when it is to abort.
        if not self._writer.is_closing():
            self._writer.close()

    def abort(self) -> None:
        """Cut the connection at once; pending reads and writes fail."""
        self._writer.transport.abort()

    async def introduce(self, terms: Terms, admit: Callable[[str], None], shown: Loaded) -> None:
        """Check who it is and exchange the `Hello`s.

        `admit(name)` raises `PeerError` if that member is not to connect; it is told nothing then.
        The TLS handshake was made with what `shown` is, which may have been replaced meanwhile.
        """
        settings = terms.settings
        certificate = self._writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        self.identity = settings.tls.identity_of(certificate)
        self.own = shown.identity
        self.ends_at = min(self.identity.not_after, self.own.not_after)
        settings.tls.guard(self)
        if shown.roots - settings.tls.loaded.roots:  # before it was guarded: nobody has judged it
            raise PeerError("wrong_ca", "a root was dropped during the handshake: connect again")
        if not settings.knows(self.peer):
            raise PeerError("not_member", f"certificate of {self.peer!r}: not one of our peers")
        admit(self.peer)
        ours = Hello(
            PROTOCOL_VERSION,
            settings.chain_id,
            settings.genesis_hash,
            settings.name,
            terms.height(),
        )
        await self.send(to_frame(ours))
        self.hello = await self.receive(Hello)
        _check_hello(self.hello, ours, self.peer)
        self._decoder.limit = terms.limit


def _check_hello(hello: Hello, ours: Hello, peer: str) -> None:
    if hello.version != ours.version:
        raise PeerError("version", f"protocol version {hello.version}: expected {ours.version}")
    if hello.chain_id != ours.chain_id:
        raise PeerError("other_chain", f"chain {hello.chain_id!r}: expected {ours.chain_id!r}")
    if hello.genesis_hash != ours.genesis_hash:
        raise PeerError(
            "other_genesis",
            f"genesis {hello.genesis_hash.hex()}: expected {ours.genesis_hash.hex()}",
        )
    if hello.name != peer:
        raise PeerError("not_member", f"calls itself {hello.name!r}, certificate of {peer!r}")


@dataclass(frozen=True)
class _Streams:
    """Reader and protocol of a connection in the making, for either side."""

    reader: asyncio.StreamReader
    protocol: asyncio.StreamReaderProtocol

    @classmethod
    def create(cls) -> "_Streams":
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(limit=_READ_BYTES, loop=loop)
        return cls(reader, asyncio.StreamReaderProtocol(reader, loop=loop))

    def session(self, transport: asyncio.Transport, address: str) -> Session:
        loop = asyncio.get_running_loop()
        writer = asyncio.StreamWriter(transport, self.protocol, self.reader, loop)
        return Session(self.reader, writer, address)


async def accept(
    connection: socket.socket, address: str, terms: Terms, admit: Callable[[str], None]
) -> Session:
    """Complete the handshake of a connection just accepted; takes over `connection`.

    `admit` as of `Session.introduce`. Raises `PeerError`: "timeout" after `Timing.handshake`,
    "aborted" if the other end goes away.
    """
    async with _handshake(terms.settings) as timeout:
        streams = _Streams.create()
        loaded = terms.settings.tls.loaded
        transport, _ = await asyncio.get_running_loop().connect_accepted_socket(
            lambda: streams.protocol,
            connection,
            ssl=loaded.server,
            ssl_handshake_timeout=timeout,
        )
        session = streams.session(transport, address)
        await _introduced(session, terms, admit, loaded)
        return session


async def dial(address: tuple[str, int], peer: PeerSettings, terms: Terms) -> Session:
    """Connect to `peer` at `address`, host and port.

    Raises what `accept` raises, and `OSError` if nobody is there. A peer that refuses us shows as
    "aborted": its log knows the reason.
    """
    host, port = address

    def expect(name: str) -> None:
        if name != peer.name:
            raise PeerError("not_member", f"{host}:{port} is {name!r}, not {peer.name!r}")

    async with _handshake(terms.settings) as timeout:
        streams = _Streams.create()
        loaded = terms.settings.tls.loaded
        transport, _ = await asyncio.get_running_loop().create_connection(
            lambda: streams.protocol,
            host,
            port,
            ssl=loaded.client,
            server_hostname=peer.name,
            ssl_handshake_timeout=timeout,
        )
        session = streams.session(transport, f"{host}:{port}")
        await _introduced(session, terms, expect, loaded)
        return session


async def _introduced(
    session: Session, terms: Terms, admit: Callable[[str], None], shown: Loaded
) -> None:
    try:
        await session.introduce(terms, admit, shown)
    except BaseException as error:
        await session.close()
        if isinstance(error, ConnectionError):
            raise PeerError("aborted", f"{error}, before it introduced itself") from error
        raise


@contextlib.asynccontextmanager
async def _handshake(settings: NetworkSettings) -> AsyncIterator[float]:
    """Bound the time, and translate what the libraries raise into `PeerError`."""
    seconds = settings.timing.handshake
    try:
        with anyio.fail_after(seconds):
            yield seconds * 2  # the deadline here comes first and covers everything
    except ssl.SSLError as error:
        raise tls_fault(error) from error
    except TimeoutError as error:
        raise PeerError("timeout", f"no complete handshake within {seconds:g} s") from error
    except (ConnectionResetError, BrokenPipeError, ConnectionAbortedError) as error:
        raise PeerError("aborted", f"gone during the handshake: {error}") from error
