# SPDX-License-Identifier: Apache-2.0
"""`holdfast-node status`."""

from datetime import timedelta
from typing import Any

import click

from holdfast_node.cli.output import print_json, table
from holdfast_node.client import DEFAULT_URL, Client


@click.command()
@click.option("--url", default=DEFAULT_URL, show_default=True, help="API of the node.")
@click.option("--json", "as_json", is_flag=True, help="Print the node's own answer.")
def command(url: str, as_json: bool) -> None:  # noqa: FBT001 -- click passes flags so
    """Show a node, and the network as it sees it."""
    status = Client(url).status()
    if as_json:
        print_json(status)
    else:
        click.echo(render(status))


def render(status: dict[str, Any]) -> str:
    """The status as a table for people; a field that is missing is shown as "-"."""
    ready = "yes" if status.get("ready") else f"no: {status.get('reason') or 'no reason given'}"
    latency = status.get("commit_latency_ms") or {}
    pool = status.get("mempool") or {}
    quorum = (
        f"{status.get('quorum', '-')} decide and {status.get('tolerated_faults', '-')} may fail"
    )
    facts = [
        ("node", f"{status.get('name', '-')} ({status.get('role', '-')})"),
        ("chain", status.get("chain_id")),
        ("version", status.get("version")),
        ("ready", ready),
        ("height", status.get("height")),
        ("from block", status.get("first_height")),
        ("block", status.get("block_hash")),
        ("state root", status.get("state_root")),
        ("view", f"{status.get('view', '-')}, led by {status.get('leader', '-')}"),
        ("validators", f"{status.get('validators', '-')}, of which {quorum}"),
        ("commit", f"p50 {_ms(latency.get('p50'))}, p99 {_ms(latency.get('p99'))}"),
        (
            "mempool",
            f"{pool.get('transactions', '-')} transactions, {pool.get('bytes', '-')} bytes",
        ),
        ("genesis", status.get("genesis_hash")),
        ("up", _duration(status.get("uptime_s"))),
    ]
    width = max(len(name) for name, _ in facts)
    lines = [f"{name.ljust(width)}  {'-' if value is None else value}" for name, value in facts]
    peers = status.get("peers") or []
    if peers:
        rows = [
            (
                peer.get("name"),
                peer.get("role"),
                "connected" if peer.get("connected") else "away",
                peer.get("height"),
                _ms(peer.get("latency_ms")),
                peer.get("last_error"),
            )
            for peer in peers
        ]
        header = ("PEER", "ROLE", "LINK", "HEIGHT", "ROUND TRIP", "LAST ERROR")
        lines += ["", table(header, rows)]
    return "\n".join(lines)


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f} ms"


def _duration(seconds: float | None) -> str | None:
    return None if seconds is None else str(timedelta(seconds=int(seconds)))
