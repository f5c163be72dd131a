# SPDX-License-Identifier: GPL-3.0-or-later
"""What a network notices of a rotation: the longest gap between two commits, with and without one.

Against a network of the lab that runs, that of `make demo` by default. A client submits one
transaction after the other, first while nothing else happens, then while every certificate is
renewed by rotate_certs.yml; what it was told is accepted must be committed. As root, from the
checkout:

    PYTHONPATH=molecule .venv/bin/python bench/identities/rotation.py
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from lab.shell import ROOT, say

TESTS = ROOT / "molecule" / "network" / "tests"  # their client, and their idea of a node


def measured(load: Any) -> dict[str, float]:
    """A load that is over, in seconds and numbers."""
    return {
        "seconds": round(load.ended - load.began, 1),
        "transactions": len(load.accepted),
        "blocks": load.blocks,
        "longest_gap_s": round(load.longest_gap(), 3),
        "mean_commit_latency_s": round(load.commit_latency, 4),
    }


def run(rounds: int, quiet_seconds: float) -> dict[str, Any]:
    """All rounds, each a time without and a time with a rotation."""
    from load import Load  # noqa: PLC0415 -- found where main() has put it on the path
    from support import Network, ansible  # noqa: PLC0415

    network = Network()
    network.settle()
    found: dict[str, Any] = {"without": [], "during": []}
    for number in range(1, rounds + 1):
        say(f"--> round {number} of {rounds}")
        with Load(network["v1"]) as quiet:
            time.sleep(quiet_seconds)  # what is measured is this time
        with Load(network["v1"]) as load:
            done = ansible("holdfast.chain.rotate_certs", "-e", '{"rotate_force": true}')
            if done.returncode != 0:
                raise SystemExit(done.stdout)
        for part in (quiet, load):
            part.check(network)
        found["without"].append(measured(quiet))
        found["during"].append(measured(load))
        say(f"    without: {quiet}\n    during:  {load}")
    worst = {key: max(one["longest_gap_s"] for one in found[key]) for key in ("without", "during")}
    found["ratio_of_longest_gaps"] = round(worst["during"] / worst["without"], 2)
    return found


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lab", default="demo", help="name of the lab that runs")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--quiet-seconds", type=float, default=60)
    parser.add_argument("--out", type=Path, help="file for the numbers, as JSON")
    options = parser.parse_args()
    os.environ["HOLDFAST_LAB"] = options.lab
    sys.path.insert(0, str(TESTS))
    found = run(options.rounds, options.quiet_seconds)
    text = json.dumps(found, indent=2)
    say(text)
    if options.out:
        options.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
