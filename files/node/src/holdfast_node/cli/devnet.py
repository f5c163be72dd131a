# SPDX-License-Identifier: Apache-2.0
"""`holdfast-node devnet`."""

from pathlib import Path

import click

from holdfast_node.devnet import run_devnet
from holdfast_node.devnet_files import PORTS_PER_NODE

_MAX_VALIDATORS = 16


@click.command()
@click.option(
    "--dir",
    "folder",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder to keep; without it a temporary one, removed at the end.",
)
@click.option("--validators", type=click.IntRange(1, _MAX_VALIDATORS), default=4, show_default=True)
@click.option(
    "--base-port",
    type=click.IntRange(1024, 65_535 - _MAX_VALIDATORS * PORTS_PER_NODE),
    default=26_600,
    show_default=True,
    help=f"First port; each validator uses three, {PORTS_PER_NODE} apart.",
)
@click.option("--once", is_flag=True, help="Send one transfer, say when it is final, and end.")
def command(folder: Path | None, validators: int, base_port: int, once: bool) -> None:  # noqa: FBT001 -- click passes flags so
    """Run a network on this machine, to try things: no root, no containers."""
    run_devnet(folder, validators, base_port, click.echo, once=once)
