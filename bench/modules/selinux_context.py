# SPDX-License-Identifier: GPL-3.0-or-later
"""One selinux_context task with fifty file contexts against a loop of community.general.sefcontext.

Both run in turn on the same virtual machine, whose SELinux is enforcing. Only the ratio means
anything. From the checkout:

    PYTHONPATH=molecule .venv/bin/python bench/modules/selinux_context.py
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

from kernel_params import collection
from lab.shell import COLLECTIONS, capture, environment, say
from lab.vm.build import provide
from lab.vm.guest import Guest

HERE = Path(__file__).resolve().parent
FIFTY = [
    {"target": f"/srv/site{number}{end}", "type": kind}
    for number in range(25)
    for end, kind in (("(/.*)?", "etc_t"), ("/files(/.*)?", "var_lib_t"))
]
TARGET = 15.0
OURS, THEIRS = "selinux_context, 50 contexts", "community.general.sefcontext"


def play(items: int) -> list[dict[str, Any]]:
    """The tasks of a round: ours, which are then taken away, and theirs on the first contexts."""
    ours = {"contexts": FIFTY}
    tasks: list[dict[str, Any]] = [
        {"name": f"{OURS}, changed", "holdfast.chain.selinux_context": ours},
        {"name": f"{OURS}, unchanged", "holdfast.chain.selinux_context": ours},
        {"name": "Take them away", "holdfast.chain.selinux_context": {**ours, "state": "absent"}},
        {
            "name": f"{THEIRS}, {items} contexts, changed",
            "community.general.sefcontext": {
                "target": "{{ item.target }}",
                "setype": "{{ item.type }}",
            },
            "loop": FIFTY[:items],
        },
        {
            "name": "Take them away again",
            "holdfast.chain.selinux_context": {"purge": ["/srv/site"]},
        },
    ]
    return [{"name": "Round", "hosts": "all", "gather_facts": False, "tasks": tasks}]


def measure(rounds: int, items: int) -> dict[str, list[float]]:
    """Seconds of each task by its name, one per round."""
    general = collection("community", "general")
    seconds: dict[str, list[float]] = defaultdict(list)
    with Guest(provide()) as guest, tempfile.TemporaryDirectory() as scratch:
        log, playbook = Path(scratch) / "seconds.jsonl", Path(scratch) / "play.json"
        env = environment(
            ANSIBLE_COLLECTIONS_PATH=f"{COLLECTIONS}:{general}",
            ANSIBLE_CALLBACK_PLUGINS=str(HERE / "callback_plugins"),
            ANSIBLE_CALLBACKS_ENABLED="seconds",
            BENCH_SECONDS=str(log),
        )
        inventory = str(guest.folder / "inventory.json")
        # Python compiles the modules' own on the machine the first time.
        warm = ["ansible", "all", "-i", inventory, "-m", "holdfast.chain.selinux_context"]
        capture(warm, env=env)
        playbook.write_text(json.dumps(play(items)), encoding="utf-8")
        for number in range(rounds):
            log.unlink(missing_ok=True)
            capture(["ansible-playbook", "-i", inventory, str(playbook)], env=env)
            for line in log.read_text(encoding="utf-8").splitlines():
                entry = json.loads(line)
                name, _comma, state = entry["task"].rpartition(", ")
                if state in ("changed", "unchanged"):
                    if entry["changed"] is not (state == "changed"):
                        raise RuntimeError(f"{name}: expected {state}")
                    seconds[entry["task"]].append(entry["seconds"])
            say(f"    round {number + 1} of {rounds}")
    return seconds


def main() -> int:
    """Measure, print, and end with 1 if the ratio misses its target."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument(
        "--items",
        type=int,
        default=len(FIFTY),
        help="loop over this many of the fifty only, and count their time in proportion",
    )
    parser.add_argument("--out", type=Path, help="a JSON file for the numbers")
    options = parser.parse_args()
    if not 1 <= options.items <= len(FIFTY):
        parser.error(f"--items {options.items}: expected a number from 1 to {len(FIFTY)}")
    seconds = measure(options.rounds, options.items)
    for task, each in seconds.items():
        say(f"{task:<52} {min(each):7.1f} s at best, {max(each):7.1f} s at worst, {len(each)} runs")
    theirs = min(seconds[f"{THEIRS}, {options.items} contexts, changed"])
    ratio = theirs * len(FIFTY) / options.items / min(seconds[f"{OURS}, changed"])
    how = "" if options.items == len(FIFTY) else f" (from {options.items} in proportion)"
    verdict = "met" if ratio >= TARGET else "MISSED"
    say(f"loop of 50 / task{how}: {ratio:.1f}, at least {TARGET:g}: {verdict}")
    if options.out:
        numbers = {"seconds": seconds, "items": options.items, "ratio": ratio}
        options.out.write_text(json.dumps(numbers, indent=1) + "\n", encoding="utf-8")
    return 0 if ratio >= TARGET else 1


if __name__ == "__main__":
    sys.exit(main())
