# SPDX-License-Identifier: GPL-3.0-or-later
"""How long four validators take to go on when their leader is killed.

    .venv/bin/python bench/network/failover.py

See README.md beside this file for what is measured, and how.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Sequence

import machine
import members
from connection import BenchError
from holdfast_node.chain.crypto import parse_address
from holdfast_node.chain.transaction import Transfer
from holdfast_node.client import UnreachableError
from holdfast_node.devnet_files import Layout
from holdfast_node.errors import HoldfastError, RefusedError
from holdfast_node.keys import load_key
from members import Process

VALIDATORS = 4
RESULTS = Path(__file__).parent / "results"
WARM_UP = 3  # transfers before each kill
GIVE_UP_S = 120.0


@dataclass(frozen=True)
class Failover:
    """One kill: seconds from it to the next block, and how many views were given up for it."""

    leader: str
    seconds: float
    views: int


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=20, help="leaders to kill (20)")
    parser.add_argument(
        "--view-timeout-ms", type=int, default=2000, help="consensus.view_timeout_ms (2000)"
    )
    parser.add_argument("--base-port", type=int, default=27600, help="first of 40 ports (27600)")
    parser.add_argument("--dir", type=Path, default=Path("/var/tmp"), help="for data (/var/tmp)")  # noqa: S108 -- a new folder in it
    options = parser.parse_args()
    if options.rounds < 1:
        parser.error(f"--rounds {options.rounds}: expected at least 1")
    try:
        with tempfile.TemporaryDirectory(prefix="holdfast-failover-", dir=options.dir) as name:
            described = machine.describe(Path(name))
            found = measure(Path(name) / "net", options)
    except (BenchError, HoldfastError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"\n{table(found, options.view_timeout_ms)}")
    RESULTS.mkdir(exist_ok=True)
    result = RESULTS / time.strftime("failover-%Y%m%d-%H%M%S.json")
    content = {"machine": described, "view_timeout_ms": options.view_timeout_ms}
    content["failovers"] = [asdict(each) for each in found]
    result.write_text(json.dumps(content, indent=1) + "\n")
    print(f"\n{result}")
    return 0


def measure(folder: Path, options: argparse.Namespace) -> list[Failover]:
    settings = {"view_timeout_ms": options.view_timeout_ms}
    with members.running(folder, VALIDATORS, options.base_port, settings) as (layout, processes):
        found = []
        for number in range(options.rounds):
            found.append(fail_over(layout, processes))
            print(
                f"{number + 1:3}  {found[-1].leader} killed: next block after "
                f"{found[-1].seconds:.2f} s, views given up: {found[-1].views}",
                flush=True,
            )
        return found


def fail_over(layout: Layout, processes: Sequence[Process]) -> Failover:
    """Kill the leader while a transaction waits, and start it again afterwards."""
    first = processes[0].client
    key, to = load_key(layout.funded), parse_address(layout.guest_address)
    for _ in range(WARM_UP):
        first.execute(key, [Transfer(to, 1)], wait_s=GIVE_UP_S)
    name, view = (first.status()[field] for field in ("leader", "view"))
    leader = next(process for process in processes if process.name == name)
    rest = [process for process in processes if process is not leader]
    with ThreadPoolExecutor(len(rest)) as watchers:
        leader.kill()
        start = time.monotonic()
        rest[0].client.execute(key, [Transfer(to, 1)], wait_s=None)
        seen = [watchers.submit(next_block, process, layout, view, start) for process in rest]
        seconds, reached = min(each.result() for each in seen)
    leader.start()
    members.until_whole(processes)
    return Failover(leader.name, seconds, reached - view)


def next_block(process: Process, layout: Layout, view: int, start: float) -> tuple[float, int]:
    """(seconds since `start`, view) of the first block final in a view above `view` here.

    The node answers when it has the block. What the killed leader had brought on its way still
    becomes final, and is passed over.
    """
    client = process.client
    height = process.height()
    while time.monotonic() - start < GIVE_UP_S:
        reached = int(client.block(height)["commit_view"]) if height else view
        if reached > view:
            return time.monotonic() - start, reached
        try:
            client.account(layout.guest_address, min_height=height + 1)
        except RefusedError as error:
            if error.code != "not_reached":
                raise
            continue
        except UnreachableError as error:
            raise BenchError(f"{process.name}: {error}") from error
        height += 1
    raise BenchError(f"{process.name} has no block of a later view after {GIVE_UP_S:g} s")


def table(found: Sequence[Failover], view_timeout_ms: int) -> str:
    seconds = sorted(each.seconds for each in found)
    views = sorted(each.views for each in found)
    return "\n".join(
        [
            f"leader killed {len(found)} times, view_timeout_ms = {view_timeout_ms}",
            f"  next block after   median {median(seconds):.2f} s, worst {seconds[-1]:.2f} s, "
            f"best {seconds[0]:.2f} s",
            f"  views given up     median {median(views):g}, most {views[-1]}",
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
