# SPDX-License-Identifier: Apache-2.0
"""A node's snapshots: made at checkpoints, offered to peers, and fetched when that is quicker."""

from collections.abc import Awaitable, Callable
from pathlib import Path

import anyio
import structlog
from anyio import to_thread

from holdfast_node.config import Snapshots as SnapshotSettings
from holdfast_node.errors import StorageError
from holdfast_node.ledger.ledger import Ledger
from holdfast_node.net.snapshot_sync import SnapshotSync
from holdfast_node.snapshot.assembly import Assembly, remove_leftovers
from holdfast_node.snapshot.folder import Kept, SnapshotFolder
from holdfast_node.storage.pinned import PinnedState
from holdfast_node.storage.sqlite import SqliteStore

log = structlog.get_logger()


class Snapshots:
    """`folder` is the data folder; `install` puts a complete assembly in place of the state."""

    def __init__(
        self,
        folder: Path,
        settings: SnapshotSettings,
        *,
        store: SqliteStore,
        ledger: Ledger,
        install: Callable[[Assembly], Awaitable[None]],
    ) -> None:
        remove_leftovers(folder)
        self.kept = SnapshotFolder(folder)
        self._store = store
        self._ledger = ledger
        self._changed = anyio.Event()
        store.pin_every(settings.checkpoint_interval)
        self.sync: SnapshotSync[Assembly] | None = None
        if settings.fetch_threshold:
            self.sync = SnapshotSync(
                threshold=settings.fetch_threshold,
                validators=lambda: ledger.validators_at(ledger.height + 1),
                begin=lambda encoded: Assembly(folder, ledger.genesis, encoded),
                install=install,
            )

    def committed(self) -> None:
        """There is a new block."""
        self._changed.set()

    async def run(self) -> None:
        """Write what is due, one after the other, until cancelled."""
        while True:
            await self._changed.wait()
            self._changed = anyio.Event()
            pinned = self._store.take_pin()
            if pinned is not None:
                await self._make(pinned)

    async def _make(self, pinned: PinnedState) -> None:
        began = anyio.current_time()
        try:
            # The thread looks after itself: when the store is closed, so is what it reads.
            made: Kept | None = await to_thread.run_sync(
                self.kept.make, pinned, self._ledger.trail, abandon_on_cancel=True
            )
        except StorageError as error:
            log.warning("no snapshot", height=pinned.height, error=str(error))
            return
        finally:
            pinned.close()
        if made is not None:
            self.kept.add(made)
            seconds = round(anyio.current_time() - began, 3)
            log.info("snapshot", height=made.height, bytes=made.offsets[-1], seconds=seconds)
