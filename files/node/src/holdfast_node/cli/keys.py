# SPDX-License-Identifier: Apache-2.0
"""`holdfast-node keys`."""

from pathlib import Path

import click

from holdfast_node.cli.output import print_json
from holdfast_node.keys import describe_key, load_key, new_key


@click.group()
def command() -> None:
    """Make and look at Ed25519 keys."""


@command.command()
@click.option("--out", type=click.Path(path_type=Path), required=True, help="File to write.")
def new(out: Path) -> None:
    """Make a key, readable by its owner only; prints public key and address."""
    print_json(describe_key(new_key(out)))


@command.command()
@click.argument("path", type=click.Path(path_type=Path))
def show(path: Path) -> None:
    """Print public key and address of the key in PATH."""
    print_json(describe_key(load_key(path)))
