# SPDX-License-Identifier: Apache-2.0
"""Fetching committed blocks from peers."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import Any

import anyio
import structlog
from anyio import to_thread
from anyio.abc import TaskStatus

from holdfast_node.chain.block import CertifiedBlock
from holdfast_node.chain.codec import decode
from holdfast_node.chain.validators import ValidatorSet
from holdfast_node.errors import RefusedError
from holdfast_node.net.settings import NetworkSettings, PeerSettings
from holdfast_node.net.snapshot_sync import SnapshotSync
from holdfast_node.net.sources import Source, Sources
from holdfast_node.net.sync_server import PAGE_BYTES, SyncServer
from holdfast_node.net.wire import MAX_PAGE_BLOCKS, Blocks, GetBlocks, PeerError, Reason

__all__ = ["BlockSync", "SyncServer"]

_log = structlog.get_logger(__name__)


class BlockSync:
    """Fetches blocks as soon as a peer is known to have more than we have.

    `height()` is our last committed height. `adopt(certified)` commits the block after it; blocks
    come in order, their certificates checked; one that has meanwhile been committed is not handed
    over, but `adopt` must still bear losing that race. `RefusedError` from it counts against the
    peer, anything else ends `run`. `on_fault(peer, reason)` is told of every failed fetch.
    `validators_at(height)` is the set that certifies the block there: it has to be right up to the
    last block that still names it as the next height's.

    With `snapshots`, whoever is further behind than their threshold begins with one; so does
    whoever needs blocks that no peer has any more.

    A validator one block behind waits `Timing.sync_grace` first: it is about to commit it itself.
    """

    def __init__(
        self,
        settings: NetworkSettings,
        validators_at: Callable[[int], ValidatorSet],
        *,
        height: Callable[[], int],
        adopt: Callable[[CertifiedBlock], Awaitable[None]],
        snapshots: SnapshotSync[Any] | None = None,
        on_fault: Callable[[str, Reason], None] = lambda _peer, _reason: None,
    ) -> None:
        self._settings = settings
        self._validators_at = validators_at
        self._height = height
        self._adopt = adopt
        self._snapshots = snapshots
        self._peers = Sources(settings, height, on_fault)
        self._sources = self._peers.by_name
        self._changed = asyncio.Event()
        self._in_progress = False

    def learn(self, peer: PeerSettings) -> None:
        """Another member has come to be known, or its new address has."""
        source = self._sources.setdefault(peer.name, Source(peer))
        if peer.name not in {known.name for known in self._settings.peers}:
            source.peer = peer

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
                if not await self._by_snapshot(source) and source is not None:
                    await self._peers.attempt(source, partial(self._fetch, source))
                self._in_progress = False
        finally:
            self._in_progress = False
            await self._peers.close()

    async def _by_snapshot(self, source: Source | None) -> bool:
        """Catch up by a snapshot if that is quicker, or if nobody has the next block."""
        if self._snapshots is None:
            return False
        least = self._height() + (0 if source is None else self._snapshots.threshold)
        if self.target_height <= least:
            return False
        return await self._snapshots.catch_up(self._peers, least)

    async def _next_source(self) -> Source | None:
        """Wait until a block is to be fetched; returns whom to ask for it.

        None if all who claim to be ahead have only later blocks: a snapshot may help.
        """
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
            elif self._snapshots and self._all_pruned(own) and not self._snapshots.wait:
                return None
            else:
                with anyio.move_on_after(self._shortest_wait(own)):
                    await self._changed.wait()

    def _all_pruned(self, own: int) -> bool:
        ahead = [source for source in self._sources.values() if source.claim > own]
        return bool(ahead) and not any(source.can_follow(own) for source in ahead)

    def _choose(self, own: int) -> Source | None:
        """The most reliable source of the next block, one already connected if there is."""
        able = [s for s in self._sources.values() if s.can_follow(own) and not s.wait]
        idle = self._settings.timing.sync_idle / 2
        random.shuffle(able)  # spreads what many observers ask over the validators
        return min(able, key=lambda s: (s.failures, not s.has_open_session(idle)), default=None)

    def _shortest_wait(self, own: int) -> float:
        waits = [s.wait for s in self._sources.values() if s.can_follow(own)]
        if self._all_pruned(own):
            waits = [60.0 if self._snapshots is None else self._snapshots.wait]
        return min(waits, default=0.0)

    async def _fetch(self, source: Source) -> None:
        """Fetch, check and adopt one page from `source`."""
        first = self._height() + 1
        if source.claim < first:
            return  # committed meanwhile, in a thread: nothing that it announced is missing
        request = GetBlocks(first, MAX_PAGE_BLOCKS, PAGE_BYTES)
        page: Blocks = await self._peers.ask(source, request, Blocks)
        source.first = page.first
        if not page.blocks and first < page.first <= page.height + 1:
            _log.warning("blocks_not_kept", peer=source.peer.name, first=page.first)
            source.height = page.height
            return
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
            certified.check(self._settings.chain_id, self._validators_at(height))
            checked.append(certified)
            header = certified.block.header
            if header.next_validators_hash != header.validators_hash:
                break  # who certifies the next one is known when this one is adopted
        return checked

    async def _hand_over(self, certified: CertifiedBlock) -> None:
        try:
            await self._adopt(certified)
        except RefusedError as error:
            # A quorum signed it: the fault is most likely ours, and the peer's claim is true.
            height = certified.block.height
            _log.error("certified_block_refused", height=height, code=error.code, error=str(error))
            raise PeerError("internal", f"certified block {height} refused: {error}") from error
