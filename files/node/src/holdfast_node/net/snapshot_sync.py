# SPDX-License-Identifier: Apache-2.0
"""Catching up by a snapshot of the state, in chunks from several peers at once."""

import random
import time
from collections import deque
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final, Generic, Protocol, TypeVar

import anyio
import structlog
from anyio import to_thread

from holdfast_node.errors import RefusedError, StorageError
from holdfast_node.net.sources import Source, Sources
from holdfast_node.net.wire import (
    GetManifest,
    GetPage,
    GetSnapshots,
    Offer,
    PeerError,
    SnapshotPart,
    Snapshots,
)

_WORKERS: Final = 4
_OFFERS_QUICKER: Final = 5

_log = structlog.get_logger(__name__)


class ChunkSink(Protocol):
    """Takes one chunk, which has `pages` pages."""

    @property
    def pages(self) -> int: ...

    def add(self, number: int, page: bytes) -> None:
        """Take in a page, in order. Raises `RefusedError` if it, or the chunk, is false."""


class SnapshotSink(Protocol):
    """Puts a snapshot together. Called in worker threads; `StorageError` is about our own disk."""

    @property
    def identity(self) -> bytes: ...

    @property
    def chunks(self) -> int: ...

    def chunk(self, index: int) -> ChunkSink:
        """Begin with a chunk, anew if it was begun before."""

    def discard(self) -> None:
        """Let go of what was not installed."""


Sink = TypeVar("Sink", bound=SnapshotSink)


class SnapshotSync(Generic[Sink]):
    """Fetches the newest snapshot that peers offer, and has it installed.

    `begin(encoded)` checks a manifest and makes its sink; `RefusedError` if it is false.
    `install(sink)` puts the state in place of ours, and raises `RefusedError` if that is not to be.
    A snapshot is worth it if it is more than `threshold` blocks ahead.
    """

    def __init__(
        self,
        *,
        threshold: int,
        begin: Callable[[bytes], Sink],
        install: Callable[[Sink], Awaitable[None]],
    ) -> None:
        self.threshold = threshold
        self._begin = begin
        self._install = install
        self._not_before = 0.0

    @property
    def wait(self) -> float:
        """Seconds until the next try."""
        return max(0.0, self._not_before - time.monotonic())

    async def catch_up(self, sources: Sources, least: int) -> bool:
        """Install a snapshot above height `least`, if one can be had; True if so."""
        if self.wait:
            return False
        self._not_before = time.monotonic() + sources.settings.timing.sync_ban
        offers = await self._offers(sources, least)
        newest_first = sorted(offers, key=lambda o: (o.height, len(offers[o])), reverse=True)
        for offer in newest_first:
            try:
                if await self._take(sources, offer, offers[offer]):
                    self._not_before = 0.0
                    return True
            except StorageError as error:
                _log.error("snapshot_failed", height=offer.height, error=str(error))
                return False
        return False

    async def _offers(self, sources: Sources, least: int) -> dict[Offer, list[Source]]:
        """What peers offer above `least`, and who."""
        found: dict[Offer, list[Source]] = {}
        seconds = sources.settings.timing.sync_reply / _OFFERS_QUICKER  # block sync waits meanwhile

        async def ask(source: Source) -> None:
            async def fetch() -> None:
                reply: Snapshots = await sources.ask(
                    source, GetSnapshots(), Snapshots, seconds=seconds
                )
                for offer in set(reply.offers):
                    if offer.height > least:
                        found.setdefault(offer, []).append(source)

            await sources.attempt(source, fetch)

        async with anyio.create_task_group() as tasks:
            for source in sources.by_name.values():
                if source.claim > least and not source.wait:
                    tasks.start_soon(ask, source)
        return found

    async def _take(self, sources: Sources, offer: Offer, offerers: list[Source]) -> bool:
        random.shuffle(offerers)  # spreads what many new nodes ask over their peers
        for source in list(offerers):
            sink: list[Sink] = []

            async def manifest(source: Source = source, sink: list[Sink] = sink) -> None:
                sink.append(await self._manifest(sources, source, offer))

            if not await sources.attempt(source, manifest):
                offerers.remove(source)
                continue
            try:
                _log.info("snapshot_begun", height=offer.height, chunks=sink[0].chunks)
                if not await self._chunks(sources, sink[0], offerers):
                    return False
                await self._install(sink[0])
            except RefusedError as error:
                _log.warning("snapshot_refused", height=offer.height, error=str(error))
                if error.code != "bad_snapshot":
                    return False
                # The chunks were right, so it is what else the manifest says.
                sources.blame(source, "malformed", str(error), lied=True)
                if source in offerers:
                    offerers.remove(source)
            else:
                _log.info("snapshot_installed", height=offer.height, peers=len(offerers))
                return True
            finally:
                with anyio.CancelScope(shield=True):
                    await to_thread.run_sync(sink[0].discard)
        return False

    async def _manifest(self, sources: Sources, source: Source, offer: Offer) -> Sink:
        part: SnapshotPart = await sources.ask(source, GetManifest(offer.identity), SnapshotPart)
        if not part.data:
            raise PeerError("aborted", f"the snapshot of block {offer.height} is gone")
        try:
            sink = await to_thread.run_sync(self._begin, part.data)
        except RefusedError as error:
            raise PeerError("malformed", f"bad snapshot: {error}") from error
        if sink.identity != offer.identity:
            await to_thread.run_sync(sink.discard)
            raise PeerError("malformed", "bad snapshot: not the one that was offered")
        return sink

    async def _chunks(self, sources: Sources, sink: SnapshotSink, offerers: list[Source]) -> bool:
        """Fetch all chunks; who fails at one is not asked for another."""
        todo = deque(range(sink.chunks))
        disk: list[StorageError] = []

        async def work(source: Source) -> None:
            while todo:
                index = todo.popleft()
                done = False
                try:
                    done = await sources.attempt(
                        source, partial(self._chunk, sources, source, sink, index)
                    )
                except StorageError as error:
                    disk.append(error)
                    tasks.cancel_scope.cancel()
                finally:
                    if not done:
                        todo.append(index)
                if not done:
                    offerers.remove(source)
                    return

        while todo and offerers and not disk:
            async with anyio.create_task_group() as tasks:
                for source in offerers[:_WORKERS]:
                    tasks.start_soon(work, source)
        if disk:
            raise disk[0]
        return not todo

    async def _chunk(
        self, sources: Sources, source: Source, sink: SnapshotSink, index: int
    ) -> None:
        chunk = await to_thread.run_sync(sink.chunk, index)
        for number in range(chunk.pages):
            request = GetPage(sink.identity, index, number)
            part: SnapshotPart = await sources.ask(source, request, SnapshotPart)
            if not part.data:
                raise PeerError("aborted", "the snapshot is gone")
            try:
                await to_thread.run_sync(chunk.add, number, part.data)
            except RefusedError as error:
                raise PeerError("malformed", f"bad chunk {index}: {error}") from error
