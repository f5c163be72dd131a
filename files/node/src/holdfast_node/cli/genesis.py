# SPDX-License-Identifier: Apache-2.0
"""`holdfast-node genesis`."""

import time
from pathlib import Path

import click

from holdfast_node.chain.genesis import Genesis, GenesisValidator, describe, parse_genesis
from holdfast_node.cli.output import print_json
from holdfast_node.config_check import read_genesis
from holdfast_node.errors import ConfigError
from holdfast_node.files import write_new


@click.group()
def command() -> None:
    """Make and look at the genesis of a chain."""


@command.command()
@click.option("--chain-id", required=True, help="Lower-case letters, digits and '-'.")
@click.option(
    "--validator",
    "validators",
    multiple=True,
    required=True,
    metavar="NAME=PUBLIC_KEY",
    help="A validator and its public key in hexadecimal; in the order given.",
)
@click.option(
    "--account",
    "accounts",
    multiple=True,
    metavar="ADDRESS=AMOUNT",
    help="An account and its opening balance in smallest units.",
)
@click.option("--time-ms", type=click.IntRange(min=0), help="Unix milliseconds; now if not given.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="File to write.")
def create(
    chain_id: str,
    validators: tuple[str, ...],
    accounts: tuple[str, ...],
    time_ms: int | None,
    out: Path,
) -> None:
    """Write a genesis; prints it with its hash, which is what all members must agree on."""
    faults: list[str] = []
    genesis = Genesis(
        chain_id=chain_id,
        time_ms=time.time_ns() // 1_000_000 if time_ms is None else time_ms,
        validators=[GenesisValidator(*_pair("--validator", text, faults)) for text in validators],
        accounts=_accounts(accounts, faults),
    )
    if faults:
        raise ConfigError(faults)
    data = genesis.to_json()
    parse_genesis(data, "genesis")  # raises every fault of the values
    write_new(out, data, 0o644)
    print_json(describe(genesis))


@command.command()
@click.argument("path", type=click.Path(path_type=Path))
def show(path: Path) -> None:
    """Print the genesis in PATH with its hash."""
    print_json(describe(read_genesis(path)))


def _pair(option: str, text: str, faults: list[str]) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals and value):
        what = "NAME=PUBLIC_KEY" if option == "--validator" else "ADDRESS=AMOUNT"
        faults.append(f"{option} = {text!r}: expected {what}; correct it")
    return name, value


def _accounts(texts: tuple[str, ...], faults: list[str]) -> dict[str, int]:
    accounts: dict[str, int] = {}
    for text in texts:
        before = len(faults)
        address, amount = _pair("--account", text, faults)
        if len(faults) > before:
            continue
        if not (amount.isascii() and amount.isdigit() and len(amount) <= 19):
            faults.append(f"--account = {text!r}: expected an amount in digits; correct it")
        elif address in accounts:
            faults.append(f"--account = {text!r}: {address} is given twice; give it once")
        else:
            accounts[address] = int(amount)
    return accounts
