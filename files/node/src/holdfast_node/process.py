# SPDX-License-Identifier: Apache-2.0
"""The process around a node: its data folder, its signals, and what it ends with."""

import os
import signal
import threading
from collections.abc import Iterator, Sequence
from typing import Final

import anyio
import structlog
from anyio.abc import TaskGroup

from holdfast_node.config import Config
from holdfast_node.errors import HoldfastError
from holdfast_node.evidence_log import EvidenceLog
from holdfast_node.folder import data_folder
from holdfast_node.node import Node
from holdfast_node.storage.sqlite import SqliteStore
from holdfast_node.vote_log import DATABASE, VoteLog

STOP_SECONDS: Final = 10.0

log = structlog.get_logger()


async def run(config: Config, early: Sequence[int] = ()) -> None:
    """Run a node until SIGTERM or SIGINT; SIGHUP reloads its TLS identity.

    `early` are the SIGHUPs that have come, and go on coming, before the node listens to them.

    Raises `ConfigError` or `StorageError` if it cannot start or go on.
    """
    with data_folder(config.data_dir) as folder:
        store = SqliteStore(folder / DATABASE)
        votes = evidence = None
        try:
            if config.role == "validator":
                votes = VoteLog(folder)
                evidence = EvidenceLog(folder / "evidence.journal")
                if votes.torn_bytes:
                    log.warning("a half-written vote was dropped", bytes=votes.torn_bytes)
            node = Node(config, store, votes, evidence)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(_signals, tasks, node, early)
                await node.run()
        except BaseException as error:
            # Task groups wrap what ends them: what a person can mend is told plainly.
            causes = list(_leaves(error))
            told = next((cause for cause in causes if isinstance(cause, HoldfastError)), None)
            if told is None:
                raise
            for cause in causes:
                if cause is not told:
                    log.exception("failed at the same time", exc_info=cause)
            raise told from None
        finally:
            for kept in (votes, evidence):
                if kept is not None:
                    kept.close()
            store.close()
            log.info("stopped", name=config.name)


def _leaves(error: BaseException) -> Iterator[BaseException]:
    """The errors in groups of groups, or the one that is none."""
    within: tuple[BaseException, ...] | None = getattr(error, "exceptions", None)
    if within is None:
        yield error
        return
    for each in within:
        yield from _leaves(each)


async def _signals(tasks: TaskGroup, node: Node, early: Sequence[int]) -> None:
    with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
        if early:
            await node.keeper.reload()
        async for number in signals:
            if number == signal.SIGHUP:
                await node.keeper.reload()  # it logs what came of it
                continue
            log.info("stopping", signal=signal.Signals(number).name)
            # Everything on disk survives a kill: better an abrupt end than none.
            last_resort = threading.Timer(STOP_SECONDS, os._exit, args=(1,))
            last_resort.daemon = True
            last_resort.start()
            tasks.cancel_scope.cancel()
            return
