# SPDX-License-Identifier: Apache-2.0
"""Catching up by a snapshot of the state, in chunks from several peers at once."""

import math
import random
import time
from collections import deque
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final, Generic, Protocol, TypeVar

import anyio
import structlog
from anyio import to_thread

from holdfast_node.chain.validators import ValidatorSet
from holdfast_node.errors import RefusedError, StorageError
from holdfast_node.net.sources import Source, Sources
from holdfast_node.net.wire import (
    GetManifest,
    GetPage,
    GetSnapshots,
    ManifestPart,
    Offer,
    PeerError,
    SnapshotPart,
    Snapshots,
)

_WORKERS: Final = 4
_OFFERS_QUICKER: Final = 5
# Whoever serves more slowly is left: about what a page needs to come within `Timing.sync_reply`.
_LEAST_RATE: Final = 64 * 1024  # bytes per second
# The longest for one chunk of a snapshot whose sizes may be all invented.
_UNBACKED_SECONDS: Final = 120.0

_log = structlog.get_logger(__name__)


class ChunkSink(Protocol):
    """Takes one chunk, which has `pages` pages of `size` bytes together."""

    @property
    def pages(self) -> int: ...

    @property
    def size(self) -> int: ...

    def add(self, number: int, page: bytes) -> None:
        """Take in a page, in order. Raises `RefusedError` if it, or the chunk, is false."""


class SnapshotSink(Protocol):
    """Puts a snapshot together. Called in worker threads; `StorageError` is about our own disk."""

    @property
    def identity(self) -> bytes: ...

    @property
    def height(self) -> int: ...

    @property
    def chunks(self) -> int: ...

    def chunk(self, index: int) -> ChunkSink:
        """Begin with a chunk, anew if it was begun before."""

    def discard(self) -> None:
        """Let go of what was not installed."""


Sink = TypeVar("Sink", bound=SnapshotSink)


class SnapshotSync(Generic[Sink]):
    """Fetches the newest snapshot that peers offer, and has it installed.

    `begin(encoded)` checks a manifest and makes its sink; `RefusedError` if it is false,
    `StorageError` if there is no room for what it says.
    `install(sink)` puts the state in place of ours, and raises `RefusedError` if that is not to be.
    A snapshot is worth it if it is more than `threshold` blocks ahead.

    Nothing certifies how large a snapshot is. But it is the same at all honest peers, so the sizes
    are true if more of `validators()` offer it than can be faulty: such a *backed* one comes first,
    however high others are said to be.
    """

    def __init__(
        self,
        *,
        threshold: int,
        validators: Callable[[], ValidatorSet],
        begin: Callable[[bytes], Sink],
        install: Callable[[Sink], Awaitable[None]],
    ) -> None:
        self.threshold = threshold
        self._validators = validators
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
        backed = {offer for offer in offers if self._is_backed(offers[offer])}
        ranked = sorted(offers, key=lambda o: (o in backed, o.height, len(offers[o])), reverse=True)
        for offer in ranked:
            # Who lied about another one is not asked for this one.
            offerers = [source for source in offers[offer] if source.claim]
            most = math.inf if offer in backed else _UNBACKED_SECONDS
            try:
                if await self._take(sources, offer, offerers, most):
                    self._not_before = 0.0
                    return True
            except StorageError as error:
                _log.error("snapshot_failed", height=offer.height, error=str(error))
                return False
        return False

    def _is_backed(self, offerers: list[Source]) -> bool:
        validators = self._validators()
        voters = sum(validators.index_of(source.peer.name) is not None for source in offerers)
        return voters > validators.tolerated_faults

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

    async def _take(
        self, sources: Sources, offer: Offer, offerers: list[Source], most: float
    ) -> bool:
        """Fetch and install it; `most` seconds for a chunk. `StorageError` if writing fails."""
        random.shuffle(offerers)  # spreads what many new nodes ask over their peers
        for source in list(offerers):
            sink: list[Sink] = []

            async def manifest(source: Source = source, sink: list[Sink] = sink) -> None:
                try:
                    sink.append(await self._manifest(sources, source, offer))
                except StorageError as error:
                    # Of this manifest, which may be false in its sizes only.
                    _log.error("snapshot_failed", height=offer.height, error=str(error))

            if not await sources.attempt(source, manifest):
                offerers.remove(source)
                continue
            if not sink:
                continue
            try:
                _log.info("snapshot_begun", height=offer.height, chunks=sink[0].chunks)
                if not await self._chunks(sources, sink[0], offerers, most):
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
        parts: list[bytes] = []
        while True:
            request = GetManifest(offer.identity, len(parts))
            part: ManifestPart = await sources.ask(source, request, ManifestPart)
            if not part.data:
                raise PeerError("aborted", f"the snapshot of block {offer.height} is gone")
            parts.append(part.data)
            if len(parts) >= part.parts:
                break
        try:
            sink = await to_thread.run_sync(self._begin, b"".join(parts))
        except RefusedError as error:
            raise PeerError("malformed", f"bad snapshot: {error}") from error
        if (sink.identity, sink.height) != (offer.identity, offer.height):
            await to_thread.run_sync(sink.discard)
            raise PeerError("malformed", "bad snapshot: not the one that was offered")
        return sink

    async def _chunks(
        self, sources: Sources, sink: SnapshotSink, offerers: list[Source], most: float
    ) -> bool:
        """Fetch all chunks; who fails at one is not asked for another."""
        todo = deque(range(sink.chunks))
        disk: list[StorageError] = []

        async def work(source: Source) -> None:
            while todo:
                index = todo.popleft()
                done = False
                try:
                    done = await sources.attempt(
                        source, partial(self._chunk, sources, source, sink, index, most)
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
        self, sources: Sources, source: Source, sink: SnapshotSink, index: int, most: float
    ) -> None:
        chunk = await to_thread.run_sync(sink.chunk, index)
        reply = sources.settings.timing.sync_reply
        left = min(reply + chunk.size / _LEAST_RATE, most)  # of waiting: our disk has its own time
        for number in range(chunk.pages):
            request = GetPage(sink.identity, index, number)
            asked = time.monotonic()
            part: SnapshotPart = await sources.ask(
                source, request, SnapshotPart, seconds=min(reply, left)
            )
            left -= time.monotonic() - asked
            if not part.data:
                raise PeerError("aborted", "the snapshot is gone")
            try:
                await to_thread.run_sync(chunk.add, number, part.data)
            except RefusedError as error:
                raise PeerError("malformed", f"bad chunk {index}: {error}") from error
            if left <= 0 and number + 1 < chunk.pages:
                raise PeerError("timeout", f"chunk {index} of {chunk.size} bytes: too slow")
