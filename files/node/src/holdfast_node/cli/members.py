# SPDX-License-Identifier: Apache-2.0
"""`holdfast-node members`: who votes, and how the validators change that."""

import sys
from base64 import b64decode
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import click

from holdfast_node.chain.codec import encode
from holdfast_node.chain.evidence import Evidence, Statement
from holdfast_node.chain.membership import MAX_PROPOSAL_BLOCKS
from holdfast_node.chain.transaction import Action, Approve, ProposeJoin, ProposeLeave
from holdfast_node.cli.output import print_json, table
from holdfast_node.client import DEFAULT_URL, Client
from holdfast_node.errors import ConfigError, RefusedError
from holdfast_node.keys import load_key

F = TypeVar("F", bound=Callable[..., Any])

DEFAULT_BLOCKS = 10_000

_URL = click.option("--url", default=DEFAULT_URL, show_default=True, help="API of your own node.")
_JSON = click.option("--json", "as_json", is_flag=True, help="Print the node's own answer.")


def _signing(function: F) -> F:
    """The options of every command that sends a transaction of a validator."""
    for option in (
        click.option(
            "--timeout",
            type=click.FloatRange(min=0.1, max=86_400),
            default=60.0,
            show_default=True,
            help="Seconds to wait for the block.",
        ),
        click.option(
            "--key",
            type=click.Path(path_type=Path),
            required=True,
            help="Voting key of the validator that speaks.",
        ),
        _URL,
    ):
        function = option(function)
    return function


_BLOCKS = click.option(
    "--blocks",
    type=click.IntRange(1, MAX_PROPOSAL_BLOCKS),
    default=DEFAULT_BLOCKS,
    show_default=True,
    help="For how many blocks the proposal can be approved.",
)


@click.group()
def command() -> None:
    """See who votes, and propose and approve who joins and leaves.

    A quorum of the validators has to agree; the change takes effect four blocks later.
    """


@command.command("list")
@_URL
@_JSON
def list_members(url: str, as_json: bool) -> None:  # noqa: FBT001 -- click passes flags so
    """Show the validators, the open proposals and the change to come."""
    answer = Client(url).members()
    if as_json:
        print_json(answer)
    else:
        click.echo(render(answer))


@command.command()
@_URL
@_JSON
def history(url: str, as_json: bool) -> None:  # noqa: FBT001 -- click passes flags so
    """Show the changes that were agreed on."""
    answer = Client(url).members("history")
    if as_json:
        print_json(answer)
        return
    rows = [
        (c["activation"], c["kind"], c["name"], c["agreed_at"], ", ".join(c["approved_by"]))
        for c in answer["changes"]
    ]
    click.echo(table(("FROM BLOCK", "CHANGE", "NAME", "AGREED IN", "APPROVED BY"), rows))


@command.command("propose-join")
@_signing
@_BLOCKS
@click.option("--name", required=True, help="The candidate's name, as in its certificate.")
@click.option("--public-key", required=True, help="Its voting key: 64 hexadecimal digits.")
@click.option("--address", required=True, help="HOST:PORT that validators reach it at.")
@click.option("--sync-address", required=True, help="HOST:PORT that blocks are fetched from.")
def propose_join(
    name: str, public_key: str, address: str, sync_address: str, blocks: int, **sending: Any
) -> None:
    """Propose that a node becomes a validator; counts as your approval."""
    try:
        key = bytes.fromhex(public_key)
    except ValueError:
        key = b""
    if len(key) != 32:
        raise ConfigError([f"--public-key = {public_key!r}: expected 64 hexadecimal digits"])
    _send(lambda height: ProposeJoin(name, key, address, sync_address, height + blocks), **sending)


@command.command("propose-leave")
@_signing
@_BLOCKS
@click.option("--name", required=True, help="The validator that is to leave.")
@click.option("--reason", required=True, help="For the others, and for the records.")
@click.option("--evidence", is_flag=True, help="Attach what your node holds against it.")
@click.option(
    "--below-four", is_flag=True, help="Agree to so few validators that none of them may fail."
)
def propose_leave(
    name: str,
    reason: str,
    evidence: bool,  # noqa: FBT001 -- click passes flags so
    below_four: bool,  # noqa: FBT001
    blocks: int,
    **sending: Any,
) -> None:
    """Propose that a validator leaves; counts as your approval."""
    proof = _evidence(Client(sending["url"]), name) if evidence else b""
    _send(lambda height: ProposeLeave(name, reason, proof, below_four, height + blocks), **sending)


@command.command()
@_signing
@click.option(
    "--unprobed", is_flag=True, help="Although the candidate is not seen, or not in step."
)
@click.argument("number", type=click.IntRange(min=0))
def approve(number: int, unprobed: bool, **sending: Any) -> None:  # noqa: FBT001
    """Approve the proposal NUMBER.

    Your node refuses to pass the approval of a candidate on that it is not connected to, or that
    is not in step.
    """
    _send(lambda _height: Approve(number, unprobed), **sending)


def _evidence(client: Client, name: str) -> bytes:
    for found in client.evidence():
        if found.get("validator") == name:
            return encode(_read_evidence(found))
    raise RefusedError("no_evidence", f"the node holds nothing against {name}: see /v1/evidence")


def _read_evidence(found: dict[str, Any]) -> Evidence:
    return Evidence(
        found["index"],
        found["kind"],
        found["height"],
        found["view"],
        *(
            Statement(b64decode(statement["signed"]), b64decode(statement["signature"]))
            for statement in found["statements"]
        ),
    )


def _send(action: Callable[[int], Action], *, url: str, key: Path, timeout: float) -> None:
    client = Client(url)
    signer = load_key(key)
    outcome = client.execute(signer, [action(client.height())], wait_s=timeout)
    print_json({name: value for name, value in asdict(outcome).items() if value is not None})
    if outcome.status == "failed":
        sys.exit(1)


def render(answer: dict[str, Any]) -> str:
    """Validators and proposals as tables for people."""
    names = answer["validators"]
    lines = [f"{len(names)} validators at block {answer['height']}: {', '.join(names)}"]
    lines.append(f"{answer['quorum']} of them decide")
    coming = answer.get("next_change")
    if coming:
        verb = "joins" if coming["kind"] == "join" else "leaves"
        lines.append(f"from block {coming['activation']} on: {coming['name']} {verb}")
    rows = [
        (
            proposal["number"],
            proposal["kind"],
            proposal["name"],
            ", ".join(proposal["approved_by"]),
            proposal["missing"],
            proposal["until"],
            _fitness(proposal),
        )
        for proposal in answer["proposals"]
    ]
    if rows:
        header = ("NUMBER", "CHANGE", "NAME", "APPROVED BY", "MISSING", "UNTIL", "REMARK")
        lines += ["", table(header, rows)]
    return "\n".join(lines)


def _fitness(proposal: dict[str, Any]) -> str | None:
    candidate = proposal.get("candidate")
    if candidate is not None:
        return "in step" if candidate["in_step"] else str(candidate["reason"])
    if proposal.get("proved"):
        return f"convicted: {proposal['proved']}"
    return str(proposal["change"].get("reason"))
