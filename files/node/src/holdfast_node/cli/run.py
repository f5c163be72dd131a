# SPDX-License-Identifier: Apache-2.0
"""`holdfast-node run`."""

from pathlib import Path

import click
import uvloop

from holdfast_node.config import load
from holdfast_node.node import run
from holdfast_node.observe.logs import configure_logs


@click.command()
@click.option("--config", "path", type=click.Path(path_type=Path), required=True)
def command(path: Path) -> None:
    """Run a node until SIGTERM or SIGINT; SIGHUP reloads its identity."""
    config = load(path)
    configure_logs(config.log.level, config.log.format)
    uvloop.run(run(config))
