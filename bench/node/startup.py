# SPDX-License-Identifier: GPL-3.0-or-later
"""What the garbage collector's settings and the event loop cost a node: start, memory, work.

    .venv/bin/python bench/node/startup.py [--rounds 7] [--transactions 10000]

Each round runs one validator per variant, in an order of its own, on a new chain each, and measures

* start, start CPU: until /healthz answers, and processor time until then, in milliseconds;
* ready MB, loaded MB: resident memory once it answers, and after the load (VmRSS);
* load CPU: processor time for the load, user and system, in milliseconds;
* pause: processor time of the longest garbage collection of all, in milliseconds.

The load is the same number of transfers every time, until all are committed. The table has medians
over the rounds, and ratios to the variant `default`, which is Python as it comes: on a machine
that others use as well, ratios within a run mean more than seconds.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from base64 import b64encode
from contextlib import suppress
from pathlib import Path
from typing import Callable, Iterator

from holdfast_node.chain.crypto import account_of, format_address, parse_address
from holdfast_node.chain.transaction import Transfer, sign_transaction
from holdfast_node.client import Client
from holdfast_node.devnet_files import CHAIN_ID, Layout, Member, claim, prepare
from holdfast_node.keys import load_key

START_S = 60.0
LOAD_S = 120.0
BATCH = 100  # transactions of one request
WAVE = 2000  # and of one sender that may wait at a time
TICKS = os.sysconf("SC_CLK_TCK")

# What stands before the node's own program, which sets the collector by itself: a variant is made
# by taking settings out of its reach, or putting others in.
NOTHING_SET = "gc.disable = gc.freeze = lambda: None\ngc.set_threshold = lambda *_: None\n"
VARIANTS = {
    "default": NOTHING_SET,
    "frozen": "gc.disable = lambda: None\ngc.set_threshold = lambda *_: None\n",
    "thresholds": "gc.set_threshold(10_000, 20, 50)\n" + NOTHING_SET,
    "node": "",
    "node, asyncio": "import asyncio, uvloop\nuvloop.run = asyncio.run\n",
}
PROGRAM = """
import atexit, gc, sys, time
longest, began = 0.0, 0.0
def watch(phase, info):
    global longest, began
    if phase == "start":
        began = time.thread_time()
    else:
        longest = max(longest, time.thread_time() - began)
gc.callbacks.append(watch)
report = sys.argv.pop(1)
atexit.register(lambda: open(report, "w").write(str(longest)))
{variant}
from holdfast_node.cli import main
main()
"""
COLUMNS = ("start", "start CPU", "ready MB", "loaded MB", "load CPU", "pause")


def free_port() -> int:
    """The first of three ports in a row that nothing listens on."""
    while True:
        port = random.randrange(20_000, 30_000)  # noqa: S311 -- no secret
        with suppress(OSError):
            for offset in range(3):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", port + offset))
            return port


def resident_mb(pid: int) -> float:
    """Memory of a process, 10^6 bytes."""
    text = Path(f"/proc/{pid}/status").read_text()
    line = next(line for line in text.splitlines() if line.startswith("VmRSS:"))
    return int(line.split()[1]) * 1024 / 1e6


def cpu_ms(pid: int) -> float:
    """Processor time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS * 1000


def answers(url: str) -> bool:
    """Whether the node answers at all."""
    with suppress(OSError), urllib.request.urlopen(url + "/healthz", timeout=1) as answer:  # noqa: S310 -- our own node
        return bool(answer.status == 200)
    return False


def requests(layout: Layout, count: int) -> Iterator[bytes]:
    """Bodies that submit so many transfers, signed ahead."""
    key = load_key(layout.funded)
    to = parse_address(layout.guest_address)
    expires = int(time.time() * 1000) + 3_600_000
    encoded = [
        b64encode(
            sign_transaction(
                key,
                chain_id=CHAIN_ID,
                nonce=nonce,
                expires_at_ms=expires,
                actions=[Transfer(to=to, amount=1)],
            )
        ).decode()
        for nonce in range(count)
    ]
    for first in range(0, count, BATCH):
        yield json.dumps({"transactions": encoded[first : first + BATCH]}).encode()


def load(url: str, layout: Layout, bodies: list[bytes], count: int) -> None:
    """Submit them, and wait until the last of each wave is committed."""
    client = Client(url)
    payer = format_address(account_of(load_key(layout.funded).public_key))
    for number, body in enumerate(bodies, 1):
        headers = {"Content-Type": "application/json"}
        asked = urllib.request.Request(url + "/v1/transactions", body, headers)  # noqa: S310 -- our own node
        with urllib.request.urlopen(asked, timeout=30) as answer:  # noqa: S310 -- the same
            answer.read()
        if number * BATCH % WAVE == 0 or number == len(bodies):
            wait(client, payer, min(number * BATCH, count))


def wait(client: Client, payer: str, count: int) -> None:
    """Until so many transactions of an account are committed."""
    deadline = time.monotonic() + LOAD_S
    while (nonce := client.account(payer)["nonce"]) < count:
        if time.monotonic() > deadline:
            sys.exit(f"after {LOAD_S:.0f} s {nonce} of {count} are in")
        time.sleep(0.02)  # the API has nothing to wait on for this


def measure(variant: str, count: int) -> dict[str, float]:
    """One run of one variant."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "net"
        claimed = claim(folder)
        layout = prepare(folder, 1, free_port())
        bodies = list(requests(layout, count))
        (member,) = layout.members
        report = Path(place) / "pause"
        try:
            program = [sys.executable, "-c", PROGRAM.format(variant=VARIANTS[variant]), str(report)]
            found = run(program, member, lambda: load(member.url, layout, bodies, count))
        finally:
            os.close(claimed)
        return {**found, "pause": float(report.read_text()) * 1000}


def run(program: list[str], member: Member, work: Callable[[], None]) -> dict[str, float]:
    """Start the node, load it and end it."""
    command = [*program, "run", "--config", str(member.config)]
    with member.log.open("ab") as log:
        began = time.perf_counter()
        with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log) as node:
            try:
                while not answers(member.url):
                    if node.poll() is not None or time.perf_counter() - began > START_S:
                        sys.exit(f"it does not start:\n{member.log.read_text()[-2000:]}")
                    time.sleep(0.005)  # the resolution of what is measured
                start = time.perf_counter() - began
                ready, before = resident_mb(node.pid), cpu_ms(node.pid)
                work()
                spent, loaded = cpu_ms(node.pid) - before, resident_mb(node.pid)
            finally:
                node.send_signal(signal.SIGTERM)
    return {
        "start": start * 1000,
        "start CPU": before,
        "ready MB": ready,
        "loaded MB": loaded,
        "load CPU": spent,
    }


def table(runs: dict[str, list[dict[str, float]]]) -> str:
    """Medians, with the ratio to the default behind each."""
    lines = [f"| variant | {' | '.join(COLUMNS)} |", "|---" * (len(COLUMNS) + 1) + "|"]
    base = {name: statistics.median(one[name] for one in runs["default"]) for name in COLUMNS}
    for variant, measured in runs.items():
        cells = []
        for name in COLUMNS:
            median = statistics.median(one[name] for one in measured)
            cells.append(f"{median:.1f} ({median / base[name]:.2f})")
        lines.append(f"| {variant} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Run the rounds and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--transactions", type=int, default=10_000)
    options = parser.parse_args()
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in VARIANTS}
    for number in range(options.rounds):
        for variant in random.sample(list(VARIANTS), len(VARIANTS)):
            runs[variant].append(measure(variant, options.transactions))
        print(f"round {number + 1} of {options.rounds}", file=sys.stderr, flush=True)
    print(f"Python {sys.version.split()[0]}, {os.cpu_count()} cores, {options.rounds} rounds")
    print(table(runs))


if __name__ == "__main__":
    main()
