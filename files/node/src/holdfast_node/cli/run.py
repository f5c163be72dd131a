# SPDX-License-Identifier: Apache-2.0
"""`holdfast-node run`."""

import gc
import signal
from pathlib import Path
from typing import Final

import click

# Allocations until a collection of the youngest, and how many of these until one of the older.
_THRESHOLDS: Final = (10_000, 20, 50)


@click.command()
@click.option("--config", "path", type=click.Path(path_type=Path), required=True)
def command(path: Path) -> None:
    """Run a node until SIGTERM or SIGINT; SIGHUP reloads its identity."""
    # Untouched it would end a node that is still starting, as if that had been wanted.
    early: list[int] = []
    signal.signal(signal.SIGHUP, lambda number, _frame: early.append(number))
    # What is imported stays until the end: the collector need not look at it, now or ever again.
    # How much that saves, and the threshold, is measured by bench/node/startup.py.
    gc.disable()
    # Imported here: they take the longest part of a start.
    import uvloop  # noqa: PLC0415

    from holdfast_node.config import load  # noqa: PLC0415
    from holdfast_node.observe.logs import configure_logs  # noqa: PLC0415
    from holdfast_node.process import run  # noqa: PLC0415

    gc.freeze()
    gc.set_threshold(*_THRESHOLDS)
    gc.enable()
    config = load(path)
    configure_logs(config.log.level, config.log.format)
    uvloop.run(run(config, early))
