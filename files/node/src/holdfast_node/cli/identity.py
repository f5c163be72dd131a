# SPDX-License-Identifier: Apache-2.0
"""`holdfast-node identity`."""

import time
from pathlib import Path

import click
import msgspec

from holdfast_node.cli.output import print_json
from holdfast_node.config import read
from holdfast_node.errors import HoldfastError
from holdfast_node.identity import assess, write_metrics


@click.group()
def command() -> None:
    """Look at the TLS identity of a node."""


@command.command()
@click.option("--config", "path", type=click.Path(path_type=Path), required=True)
@click.option(
    "--textfile",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Also write metrics to this file, whose name ends in .prom.",
)
def check(path: Path, textfile: Path | None) -> None:
    """Print how certificate and revocation list stand; fail if something is to be done."""
    config = read(path)
    standing = assess(config.tls, config.name, time.time())
    print_json(msgspec.to_builtins(standing))
    if textfile is not None:
        write_metrics(standing, textfile)
    if standing.warnings:
        raise HoldfastError("\n".join(f"warning: {warning}" for warning in standing.warnings))
