# SPDX-License-Identifier: GPL-3.0-or-later
"""One kernel_params task against a loop of ansible.posix.sysctl, and 20 keys against one.

Both sides run in turn on the same container host. Of each task the quickest run counts: whatever
else the machine does can only add. Only the ratios mean anything. From the checkout:

    PYTHONPATH=molecule .venv/bin/python bench/modules/kernel_params.py
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import zipfile
from collections import defaultdict
from pathlib import Path
from typing import Any

from lab import hosts, machine, tools
from lab.shell import COLLECTIONS, STATE, VENV, capture, environment, say, step, stream

HERE = Path(__file__).resolve().parent
LAB = "bench-modules"
PAIRS = 4  # of ours per round: it takes a second where theirs takes a minute
# All of the container's own network namespace, of which any number above 0 is a value.
KEYS = [
    "net.core.somaxconn",
    *(
        f"net.ipv4.{name}"
        for name in (
            "tcp_keepalive_time",
            "tcp_keepalive_intvl",
            "tcp_keepalive_probes",
            "tcp_max_syn_backlog",
            "tcp_fin_timeout",
            "tcp_max_tw_buckets",
            "tcp_retries1",
            "tcp_retries2",
            "tcp_syn_retries",
            "tcp_synack_retries",
            "tcp_orphan_retries",
            "tcp_reordering",
            "tcp_notsent_lowat",
            "tcp_limit_output_bytes",
            "tcp_challenge_ack_limit",
            "tcp_min_snd_mss",
            "ip_default_ttl",
            "igmp_max_memberships",
            "igmp_max_msf",
        )
    ),
]
TARGETS = {"loop / task (changed)": (12.0, "at least"), "20 keys / 1 key": (1.2, "at most")}


def collection(namespace: str, name: str) -> Path:
    """A folder with a collection, taken from the wheel that the lab takes its collections from."""
    place = STATE / "bench" / "collections"
    if (place / "ansible_collections" / namespace / name).is_dir():
        return place
    with step(f"fetching {namespace}.{name}"), tempfile.TemporaryDirectory() as scratch:
        lock = Path(scratch) / "bundle.txt"
        lock.write_text(tools.BUNDLE, encoding="utf-8")
        pip = [str(VENV / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "-q"]
        download = [*pip, "download", "--no-deps", "--only-binary=:all:", "--require-hashes"]
        download += ["--python-version", tools.BUNDLE_PYTHON, "--dest", scratch, "-r", str(lock)]
        stream(download)
        with zipfile.ZipFile(next(Path(scratch).glob("*.whl"))) as wheel:
            folder = f"ansible_collections/{namespace}/{name}/"
            wheel.extractall(place, [file for file in wheel.namelist() if file.startswith(folder)])
    return place


def play(number: int) -> list[dict[str, Any]]:
    """The tasks of a round, in which every key gets values that no other round gives it."""
    tasks: list[dict[str, Any]] = []
    for pair in range(PAIRS):
        value = 60 + (number * PAIRS + pair) * 2
        twenty, one = dict.fromkeys(KEYS, value), {KEYS[0]: value + 1}
        for name, sysctl in (
            ("kernel_params, 20 keys, changed", twenty),
            ("kernel_params, 20 keys, unchanged", twenty),
            ("kernel_params, 1 key, changed", one),
            ("kernel_params, 1 key, unchanged", one),
        ):
            options = {"file": "90-ours.conf", "sysctl": sysctl}
            tasks.append({"name": name, "holdfast.chain.kernel_params": options})
    tasks.append(absent("90-ours.conf"))
    for state in ("changed", "unchanged"):
        options = {"name": "{{ item }}", "value": value + 1}
        options["sysctl_file"] = "/etc/sysctl.d/90-theirs.conf"
        name = f"ansible.posix.sysctl, 20 keys, {state}"
        tasks.append({"name": name, "ansible.posix.sysctl": options, "loop": KEYS})
    tasks.append(absent("90-theirs.conf"))
    return [{"name": "Round", "hosts": "all", "gather_facts": False, "tasks": tasks}]


def absent(name: str) -> dict[str, Any]:
    """A task that takes a file away."""
    options = {"path": f"/etc/sysctl.d/{name}", "state": "absent"}
    return {"name": "Take the file away", "ansible.builtin.file": options}


def measure(rounds: int) -> dict[str, list[float]]:
    """Seconds of each task by its name, one per round."""
    machine.prepare()
    posix = collection("ansible", "posix")
    seconds: dict[str, list[float]] = defaultdict(list)
    hosts.up(LAB, {"h1": "debian-12"})
    try:
        with tempfile.TemporaryDirectory() as scratch:
            inventory = Path(scratch) / "hosts.json"
            host = {
                "ansible_host": hosts.container(LAB, "h1"),
                "ansible_connection": "podman",
                "ansible_python_interpreter": "/usr/bin/python3",
            }
            inventory.write_text(json.dumps({"all": {"hosts": {"h1": host}}}), encoding="utf-8")
            log = Path(scratch) / "seconds.jsonl"
            env = environment(
                ANSIBLE_COLLECTIONS_PATH=f"{COLLECTIONS}:{posix}",
                ANSIBLE_CALLBACK_PLUGINS=str(HERE / "callback_plugins"),
                ANSIBLE_CALLBACKS_ENABLED="seconds",
                ANSIBLE_PIPELINING="1",
                BENCH_SECONDS=str(log),
            )
            for number in range(rounds + 1):
                log.unlink(missing_ok=True)
                playbook = Path(scratch) / "play.json"
                playbook.write_text(json.dumps(play(number)), encoding="utf-8")
                command = ["ansible-playbook", "-i", str(inventory), str(playbook)]
                capture(command, env=env)
                if number == 0:
                    continue  # modules are compiled on the host the first time
                for line in log.read_text(encoding="utf-8").splitlines():
                    entry = json.loads(line)
                    name, _comma, state = entry["task"].rpartition(", ")
                    if state in ("changed", "unchanged"):
                        if entry["changed"] is not (state == "changed"):
                            raise RuntimeError(f"{name}: expected {state}")
                        seconds[entry["task"]].append(entry["seconds"])
                say(f"    round {number} of {rounds}")
    finally:
        hosts.down(LAB)
    return seconds


def ratios(seconds: dict[str, list[float]]) -> dict[str, float]:
    """The quickest run of one task over the quickest of another."""

    def of(one: str, other: str) -> float:
        return min(seconds[one]) / min(seconds[other])

    ours, theirs = "kernel_params, 20 keys", "ansible.posix.sysctl, 20 keys"
    return {
        "loop / task (changed)": of(f"{theirs}, changed", f"{ours}, changed"),
        "loop / task (unchanged)": of(f"{theirs}, unchanged", f"{ours}, unchanged"),
        "20 keys / 1 key": of(f"{ours}, changed", "kernel_params, 1 key, changed"),
        "20 keys / 1 key (unchanged)": of(f"{ours}, unchanged", "kernel_params, 1 key, unchanged"),
    }


def main() -> int:
    """Measure, print, and end with 1 if a ratio misses its target."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, help="a JSON file for the numbers")
    options = parser.parse_args()
    seconds = measure(options.rounds)
    for task, each in seconds.items():
        say(f"{task:<44} {min(each):7.3f} s at best, {max(each):7.3f} s at worst, {len(each)} runs")
    missed = 0
    found = ratios(seconds)
    for name, ratio in found.items():
        target, kind = TARGETS.get(name, (None, ""))
        verdict = ""
        if target is not None:
            met = ratio >= target if kind == "at least" else ratio <= target
            missed += not met
            verdict = f"  {kind} {target:g}: {'met' if met else 'MISSED'}"
        say(f"{name:<44} {ratio:7.2f}{verdict}")
    if options.out:
        numbers = {"seconds": seconds, "ratios": found}
        options.out.write_text(json.dumps(numbers, indent=1) + "\n", encoding="utf-8")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
