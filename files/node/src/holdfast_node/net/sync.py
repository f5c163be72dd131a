# SPDX-License-Identifier: Apache-2.0
"""Fetching committed blocks from peers."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Final

import anyio
import structlog
from anyio import to_thread
from anyio.abc import TaskStatus

from holdfast_node.chain.block import CertifiedBlock
from holdfast_node.chain.codec import decode
from holdfast_node.chain.validators import ValidatorSet
from holdfast_node.errors import RefusedError
from holdfast_node.net.session import Session, Terms, dial
from holdfast_node.net.settings import NetworkSettings, PeerSettings
from holdfast_node.net.sync_server import PAGE_BYTES, SyncServer
from holdfast_node.net.wire import (
    MAX_PAGE_BLOCKS,
    Blocks,
    GetBlocks,
    PeerError,
    Reason,
    frame_limit,
    to_frame,
)

__all__ = ["BlockSync", "SyncServer"]

_log = structlog.get_logger(__name__)

# What a peer says that fails with one of these is not believed for a while.
_LIES: Final = frozenset({"malformed", "oversized", "unexpected"})


class _Source:
    """A peer as a source of blocks: what it claims, and how it has served us."""

    def __init__(self, peer: PeerSettings) -> None:
        self.peer = peer
        self.height = 0
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


class BlockSync:
    """Fetches blocks as soon as a peer is known to have more than we have.

    `height()` is our last committed height. `adopt(certified)` commits the block after it; blocks
    come in order, their certificates checked; one that has meanwhile been committed is not handed
    over, but `adopt` must still bear losing that race. `RefusedError` from it counts against the
    peer, anything else ends `run`. `on_fault(peer, reason)` is told of every failed fetch.

    A validator one block behind waits `Timing.sync_grace` first: it is about to commit it itself.
    """

    def __init__(
        self,
        settings: NetworkSettings,
        validators: ValidatorSet,
        *,
        height: Callable[[], int],
        adopt: Callable[[CertifiedBlock], Awaitable[None]],
        on_fault: Callable[[str, Reason], None] = lambda _peer, _reason: None,
    ) -> None:
        self._settings = settings
        self._terms = Terms(settings, frame_limit(settings.max_block_bytes), height)
        self._validators = validators
        self._height = height
        self._adopt = adopt
        self._on_fault = on_fault
        self._sources = {peer.name: _Source(peer) for peer in settings.peers}
        self._changed = asyncio.Event()
        self._in_progress = False

    def on_status(self, peer: str, height: int) -> None:
        """A peer says (`Hello` or `Status`) that its last committed block is `height`."""
        source = self._sources.get(peer)
        if source is not None and time.monotonic() >= source.banned_until:
            source.height = height
            self._changed.set()

    def on_disconnected(self, peer: str) -> None:
        """Forget what `peer` said."""
        if peer in self._sources:
            self._sources[peer].height = 0

    @property
    def target_height(self) -> int:
        """The greatest height a believable peer announced, or our own if that is greater."""
        return max(self._height(), *(source.claim for source in self._sources.values()), 0)

    def claimed_by(self, names: Iterable[str], count: int) -> int:
        """The height that at least `count` of `names` say they have; 0 if too few say anything."""
        claims = sorted((self._sources[n].claim for n in names if n in self._sources), reverse=True)
        return claims[count - 1] if len(claims) >= count else 0

    @property
    def in_progress(self) -> bool:
        """Whether blocks are being fetched right now."""
        return self._in_progress

    async def run(self, *, task_status: TaskStatus[None]) -> None:
        """Fetch until cancelled."""
        task_status.started()
        try:
            while True:
                source = await self._next_source()
                self._in_progress = True
                await self._try(source)
                self._in_progress = False
        finally:
            self._in_progress = False
            for source in self._sources.values():
                await self._drop_session(source)

    async def _next_source(self) -> _Source:
        """Wait until a block is to be fetched; returns whom to ask for it."""
        grace = self._settings.timing.sync_grace if self._settings.role == "validator" else 0.0
        waited_at = -1
        while True:
            self._changed.clear()
            own = self._height()
            missing = self.target_height - own
            if missing <= 0:
                await self._changed.wait()
            elif missing == 1 and grace and waited_at != own:
                with anyio.move_on_after(grace) as scope:
                    while self.target_height == own + 1:
                        self._changed.clear()
                        await self._changed.wait()
                if scope.cancelled_caught:
                    waited_at = own
            elif (source := self._choose(own)) is not None:
                return source
            else:
                with anyio.move_on_after(self._shortest_wait(own)):
                    await self._changed.wait()

    def _choose(self, own: int) -> _Source | None:
        """The most reliable source of the next block, one already connected if there is."""
        able = [s for s in self._sources.values() if s.claim > own and not s.wait]
        idle = self._settings.timing.sync_idle / 2
        random.shuffle(able)  # spreads what many observers ask over the validators
        return min(able, key=lambda s: (s.failures, not s.has_open_session(idle)), default=None)

    def _shortest_wait(self, own: int) -> float:
        return min((s.wait for s in self._sources.values() if s.claim > own), default=0.0)

    async def _try(self, source: _Source) -> None:
        name = source.peer.name
        try:
            await self._fetch(source)
        except PeerError as error:
            lied = error.reason in _LIES
            reason, text = error.reason, str(error)
        except OSError as error:
            lied = False
            reason, text = "aborted", str(error) or type(error).__name__
        else:
            source.served()
            return
        _log.warning("block_fetch_failed", peer=name, reason=reason, error=text)
        source.failed(lied=lied, ban=self._settings.timing.sync_ban)
        self._on_fault(name, reason)
        await self._drop_session(source)

    async def _fetch(self, source: _Source) -> None:
        """Fetch, check and adopt one page from `source`."""
        session = await self._session(source)
        first = self._height() + 1
        seconds = self._settings.timing.sync_reply
        with anyio.move_on_after(seconds) as scope:
            await session.send(to_frame(GetBlocks(first, MAX_PAGE_BLOCKS, PAGE_BYTES)))
            page: Blocks = await session.receive(Blocks)
        if scope.cancelled_caught:
            raise PeerError("timeout", f"no answer within {seconds:g} s")
        if not page.blocks:
            raise PeerError("malformed", f"announced {source.height}, but has no block {first}")
        source.height = page.height
        try:
            blocks = await to_thread.run_sync(self._check, page.blocks, first)
        except RefusedError as error:
            raise PeerError("malformed", f"bad block: {error}") from error
        for certified in blocks:
            if certified.block.height > self._height():
                await self._hand_over(certified)

    def _check(self, blocks: tuple[bytes, ...], first: int) -> list[CertifiedBlock]:
        """Decode and check consecutive blocks; raises `RefusedError`. Runs in a worker thread."""
        checked = []
        for height, encoded in enumerate(blocks, first):
            certified: CertifiedBlock = decode(encoded, CertifiedBlock)
            if certified.block.height != height:
                raise RefusedError(
                    "bad_block", f"block {certified.block.height}: expected {height}"
                )
            certified.check(self._settings.chain_id, self._validators)
            checked.append(certified)
        return checked

    async def _hand_over(self, certified: CertifiedBlock) -> None:
        try:
            await self._adopt(certified)
        except RefusedError as error:
            # A quorum signed it: the fault is most likely ours, and the peer's claim is true.
            height = certified.block.height
            _log.error("certified_block_refused", height=height, code=error.code, error=str(error))
            raise PeerError("internal", f"certified block {height} refused: {error}") from error

    async def _session(self, source: _Source) -> Session:
        """A session with `source`: the one from last time if it is still fresh."""
        if source.has_open_session(self._settings.timing.sync_idle / 2):
            assert source.session is not None
            return source.session
        await self._drop_session(source)
        peer = source.peer
        source.session = await dial((peer.sync_host, peer.sync_port), peer, self._terms)
        return source.session

    async def _drop_session(self, source: _Source) -> None:
        session, source.session = source.session, None
        if session is not None:
            await session.close()
