# SPDX-License-Identifier: Apache-2.0
"""`holdfast-node config`."""

from pathlib import Path

import click

from holdfast_node.config import examine
from holdfast_node.errors import ConfigError


@click.group()
def command() -> None:
    """Look at configurations."""


@command.command()
@click.argument("path", type=click.Path(path_type=Path))
@click.option(
    "--credentials",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="Folder for credential:NAME, where systemd does not provide it.",
)
def check(path: Path, credentials: Path | None) -> None:
    """Check the configuration in PATH and every file it names; one line per fault."""
    config, faults, warnings = examine(path, credentials)
    for warning in warnings:
        click.echo(f"warning: {warning}", err=True)
    if faults or config is None:
        raise ConfigError(faults)
    click.echo(f"{path}: {config.role} {config.name} of chain {config.chain_id}: no faults")
