# SPDX-License-Identifier: Apache-2.0
"""The command line `holdfast-node`.

Exit codes: 0 fine, 1 failed (the network or a node refused, or did not answer), 2 bad input.
A command's module is imported when the command is used, so that every command starts fast.
"""

import sys
from importlib import import_module
from typing import Final

import click

from holdfast_node.errors import ConfigError, HoldfastError, RefusedError

_COMMANDS: Final = {
    "config": "holdfast_node.cli.config",
    "devnet": "holdfast_node.cli.devnet",
    "doctor": "holdfast_node.cli.doctor",
    "genesis": "holdfast_node.cli.genesis",
    "identity": "holdfast_node.cli.identity",
    "keys": "holdfast_node.cli.keys",
    "members": "holdfast_node.cli.members",
    "run": "holdfast_node.cli.run",
    "simulate": "holdfast_node.cli.simulate",
    "status": "holdfast_node.cli.status",
    "tx": "holdfast_node.cli.tx",
    "verify": "holdfast_node.cli.verify",
}


class _Commands(click.Group):
    """Finds commands by name in `_COMMANDS`, each an attribute `command` of its module."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 -- click's signature
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 -- click's signature
        module = _COMMANDS.get(cmd_name)
        command: click.Command | None = import_module(module).command if module else None
        return command


def _print_version(ctx: click.Context, _parameter: click.Parameter, value: bool) -> None:  # noqa: FBT001 -- click's signature
    if value:
        # Imported here: looking the version up is the slowest part of starting.
        from holdfast_node import __version__  # noqa: PLC0415

        click.echo(f"holdfast-node {__version__}")
        ctx.exit()


@click.command(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_version,
    help="Show the version and exit.",
)
def cli() -> None:
    """A node of a Byzantine-fault-tolerant consortium chain."""


def main() -> None:
    """Run the command line; turns the node's own errors into a message and an exit code."""
    try:
        cli(prog_name="holdfast-node")
    except ConfigError as error:
        for fault in error.faults:
            click.echo(fault, err=True)
        sys.exit(2)
    except RefusedError as error:
        click.echo(f"refused ({error.code}): {error.message}", err=True)
        sys.exit(1)
    except HoldfastError as error:
        click.echo(str(error), err=True)
        sys.exit(1)
