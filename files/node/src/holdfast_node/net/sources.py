# SPDX-License-Identifier: Apache-2.0
"""Peers as sources of blocks and snapshots: what they claim, how they served, whom to ask again."""

import time
from collections.abc import Awaitable, Callable
from typing import Any, Final

import anyio
import structlog

from holdfast_node.net.session import Session, Terms, dial
from holdfast_node.net.settings import NetworkSettings, PeerSettings
from holdfast_node.net.wire import PeerError, Reason, SyncRequest, frame_limit, to_frame

_log = structlog.get_logger(__name__)

# What a peer says that fails with one of these is not believed for a while.
_LIES: Final = frozenset({"malformed", "oversized", "unexpected"})


class Source:
    """A peer as a source of blocks: what it claims, and how it has served us.

    `first` is the lowest block that it said it has.
    """

    def __init__(self, peer: PeerSettings) -> None:
        self.peer = peer
        self.height = 0
        self.first = 1
        self.session: Session | None = None
        self.failures = 0
        self.banned_until = 0.0
        self._not_before = 0.0
        self._used = 0.0

    @property
    def claim(self) -> int:
        """The height it announced, if it is believed."""
        return self.height if time.monotonic() >= self.banned_until else 0

    @property
    def wait(self) -> float:
        """Seconds until it may be asked."""
        return max(0.0, self._not_before - time.monotonic())

    def can_follow(self, own: int) -> bool:
        """Whether it claims to have the block after `own`."""
        return self.first <= own + 1 <= self.claim

    def has_open_session(self, idle: float) -> bool:
        session = self.session
        usable = session and not session.is_closed and not session.overdue
        return bool(usable and time.monotonic() - self._used < idle)

    def served(self) -> None:
        self.failures = 0
        self._used = time.monotonic()

    def failed(self, *, lied: bool, ban: float) -> None:
        """Keep away from it, ever longer while it goes on failing."""
        now = time.monotonic()
        factor = float(2 ** min(self.failures, 5))
        self.failures += 1
        if lied:
            self.height = 0
            self.banned_until = now + ban * factor
        else:
            self._not_before = now + min(0.2 * factor, 5.0)


class Sources:
    """All peers, by name. `height()` is our last committed height.

    `on_fault(peer, reason)` is told of every failure. One task at a time may use a source.
    """

    def __init__(
        self,
        settings: NetworkSettings,
        height: Callable[[], int],
        on_fault: Callable[[str, Reason], None],
    ) -> None:
        self.settings = settings
        self.by_name = {peer.name: Source(peer) for peer in (*settings.peers, *settings.learned)}
        self._terms = Terms(settings, frame_limit(settings.max_block_bytes), height)
        self._on_fault = on_fault

    async def ask(
        self, source: Source, request: SyncRequest, type_: Any, *, seconds: float | None = None
    ) -> Any:
        """The answer, a `type_`, to one request, within `Timing.sync_reply` or `seconds`.

        Within `attempt`, which takes what it raises: `PeerError` and `OSError`.
        """
        session = await self._session(source)
        seconds = self.settings.timing.sync_reply if seconds is None else seconds
        with anyio.move_on_after(seconds):
            await session.send(to_frame(request))
            return await session.receive(type_)
        raise PeerError("timeout", f"no answer within {seconds:g} s")

    async def attempt(self, source: Source, work: Callable[[], Awaitable[None]]) -> bool:
        """Do something with a source, and judge it by how that ends: True if all is well."""
        try:
            await work()
        except PeerError as error:
            reason, text, lied = error.reason, str(error), error.reason in _LIES
        except OSError as error:
            reason, text, lied = "aborted", str(error) or type(error).__name__, False
        except BaseException:
            await self._drop_session(source)  # an answer may still be on its way
            raise
        else:
            source.served()
            return True
        self.blame(source, reason, text, lied=lied)
        await self._drop_session(source)
        return False

    def blame(self, source: Source, reason: Reason, text: str, *, lied: bool) -> None:
        """Keep away from a source for a while; do not believe it either if it lied."""
        _log.warning("block_fetch_failed", peer=source.peer.name, reason=reason, error=text)
        source.failed(lied=lied, ban=self.settings.timing.sync_ban)
        self._on_fault(source.peer.name, reason)

    async def close(self) -> None:
        for source in self.by_name.values():
            await self._drop_session(source)

    async def _session(self, source: Source) -> Session:
        """A session with `source`: the one from last time if it is still fresh."""
        if source.has_open_session(self.settings.timing.sync_idle / 2):
            assert source.session is not None
            return source.session
        await self._drop_session(source)
        peer = source.peer
        source.session = await dial((peer.sync_host, peer.sync_port), peer, self._terms)
        return source.session

    async def _drop_session(self, source: Source) -> None:
        session, source.session = source.session, None
        if session is not None:
            await session.close()
