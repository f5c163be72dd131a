# SPDX-License-Identifier: Apache-2.0
"""`holdfast-node tx`."""

import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import click

from holdfast_node.chain.crypto import parse_address
from holdfast_node.chain.transaction import (
    MAX_AMOUNT,
    MAX_KEY_LENGTH,
    MAX_VALUE_BYTES,
    Action,
    Put,
    Transfer,
)
from holdfast_node.cli.output import print_json
from holdfast_node.client import DEFAULT_URL, Client
from holdfast_node.errors import ConfigError, RefusedError
from holdfast_node.keys import load_key

F = TypeVar("F", bound=Callable[..., Any])

_URL = click.option("--url", default=DEFAULT_URL, show_default=True, help="API of a node.")


def _sending(function: F) -> F:
    """The options that every command has which sends a transaction."""
    for option in (
        click.option(
            "--timeout",
            type=click.FloatRange(min=0.1, max=86_400),
            default=30.0,
            show_default=True,
            help="Seconds to wait for the commit.",
        ),
        click.option("--wait", is_flag=True, help="Wait for the commit; shows height and latency."),
        click.option(
            "--nonce",
            type=click.IntRange(0, MAX_AMOUNT),
            help="Number of the transaction; the account's next one if not given.",
        ),
        click.option("--chain-id", help="Chain to sign for; the node's own if not given."),
        click.option(
            "--key",
            type=click.Path(path_type=Path),
            required=True,
            help="Key file of the sender.",
        ),
        _URL,
    ):
        function = option(function)
    return function


@click.group()
def command() -> None:
    """Send transactions and ask for them."""


@command.command()
@_sending
@click.option("--to", required=True, metavar="ADDRESS", help="Who receives.")
@click.option("--amount", type=click.IntRange(1, MAX_AMOUNT), required=True, help="Smallest units.")
def transfer(to: str, amount: int, **sending: Any) -> None:
    """Send AMOUNT to an address."""
    try:
        account = parse_address(to)
    except RefusedError as error:
        raise ConfigError([f"--to = {error.message}; correct it"]) from error
    _send(Transfer(account, amount), **sending)


@command.command()
@_sending
@click.option("--name", required=True, metavar="KEY", help="Key in the sender's own name space.")
@click.option("--value", required=True, metavar="TEXT", help="What to store under it.")
def put(name: str, value: str, **sending: Any) -> None:
    """Store a value under a key."""
    faults = []
    if not 1 <= len(name) <= MAX_KEY_LENGTH:
        faults.append(f"--name: {len(name)} characters: expected 1 to {MAX_KEY_LENGTH}; shorten it")
    data = value.encode()
    if len(data) > MAX_VALUE_BYTES:
        faults.append(f"--value: {len(data)} bytes: expected at most {MAX_VALUE_BYTES}; shorten it")
    if faults:
        raise ConfigError(faults)
    _send(Put(name, data), **sending)


@command.command()
@_URL
@click.argument("identifier", metavar="ID")
def status(url: str, identifier: str) -> None:
    """Print how far the transaction ID has come."""
    print_json(Client(url).transaction(identifier))


def _send(
    action: Action,
    *,
    url: str,
    key: Path,
    chain_id: str | None,
    nonce: int | None,
    wait: bool,
    timeout: float,
) -> None:
    outcome = Client(url).execute(
        load_key(key),
        [action],
        wait_s=timeout if wait else None,
        chain_id=chain_id,
        nonce=nonce,
    )
    print_json({name: value for name, value in asdict(outcome).items() if value is not None})
    if outcome.status == "failed":
        sys.exit(1)
