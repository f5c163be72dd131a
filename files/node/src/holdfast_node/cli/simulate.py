# SPDX-License-Identifier: Apache-2.0
"""`holdfast-node simulate`."""

import secrets
import subprocess
import sys
from pathlib import Path

import click

from holdfast_node import __version__
from holdfast_node.simulation import Outcome, simulate
from holdfast_node.simulation.campaign import campaign

_SHOWN_LINES = 60


@click.command()
@click.option("--seed", type=click.IntRange(min=0), help="Run this seed, or start with it.")
@click.option("--seeds", type=click.IntRange(min=1), default=1, show_default=True, help="How many.")
@click.option("--jobs", type=click.IntRange(min=1), help="Processes.  [default: one per core]")
@click.option("--trace", is_flag=True, help="Print every line of the run of --seed.")
def command(seed: int | None, seeds: int, jobs: int | None, trace: bool) -> None:  # noqa: FBT001 -- click passes flags so
    """Try consensus against faults in virtual time; a seed replays a run, byte for byte.

    Without --seed it begins with a random one. What fails is printed with its seed, this release's
    commit and the last lines of its trace.
    """
    first = secrets.randbits(32) if seed is None else seed
    if seeds == 1:
        outcome = simulate(first, trace_all=trace)
        if trace:
            click.echo("\n".join(outcome.trace))
        click.echo(summary(outcome))
        if outcome.violation is not None:
            click.echo(report(outcome, lines=0 if trace else _SHOWN_LINES), err=True)
            sys.exit(1)
        return
    failed = events = 0
    for outcome in campaign(range(first, first + seeds), jobs):
        events += outcome.events
        if outcome.violation is not None:
            failed += 1
            click.echo(report(outcome), err=True)
    click.echo(f"{seeds} seeds from {first}: {failed} failed, {events} events ({source()})")
    sys.exit(1 if failed else 0)


def summary(outcome: Outcome) -> str:
    """One line about a run."""
    verdict = "ok" if outcome.violation is None else "FAILED"
    return (
        f"seed {outcome.seed}: {verdict}, {outcome.height} blocks and {outcome.events} events in "
        f"{outcome.seconds:.1f} virtual seconds, trace {outcome.trace_hash} ({source()})"
    )


def report(outcome: Outcome, lines: int = _SHOWN_LINES) -> str:
    """What one needs to find the fault."""
    trace = [f"  {line}" for line in outcome.trace[-lines:]] if lines else []
    return "\n".join(
        [
            f"seed {outcome.seed} ({source()}): {outcome.violation}",
            f"  {outcome.scenario}",
            *trace,
            f"  again: holdfast-node simulate --seed {outcome.seed} --trace",
            "  once mended, add the seed to tests/simulation/failed_seeds.txt",
        ]
    )


def source() -> str:
    """The commit of the checkout that this package is in, else its version."""
    tracked = _git("ls-files", "--error-unmatch", "__init__.py")  # not so in a venv of a checkout
    commit = _git("describe", "--always", "--dirty", "--abbrev=12", "--exclude=*")
    return f"commit {commit}" if tracked and commit else f"release {__version__}"


def _git(*arguments: str) -> str:
    """The output of git in this folder; empty if it fails."""
    try:
        done = subprocess.run(  # noqa: S603 -- the arguments are ours
            ["git", *arguments],  # noqa: S607 -- whichever git the user has
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=False,
        )
    except OSError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
