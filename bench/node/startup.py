# SPDX-License-Identifier: GPL-3.0-or-later
"""What the garbage collector's settings and the event loop cost a node: start, memory, work.

    .venv/bin/python bench/node/startup.py [--rounds 7] [--transactions 10000]
    .venv/bin/python bench/node/startup.py --validators 4 --variants node "node, asyncio"

Each round runs one network per variant, in an order of its own, on a new chain each, and measures

* start, start CPU: until /healthz answers, and processor time until then, in milliseconds;
* ready MB, loaded MB: resident memory once it answers, and after the load (VmRSS);
* load: until the first validator has committed the load, in milliseconds;
* load CPU: processor time for the load, user and system, in milliseconds;
* pause: processor time of the longest garbage collection of all, in milliseconds.

Of several validators, start is the last one's and pause the longest; the others are means of one.
The load is the same number of transfers every time, until all are committed. The table has medians
over the rounds, and ratios to the first variant, `default`, which is Python as it comes: on a
machine that others use as well, ratios within a run mean more than seconds.
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
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Callable, Iterator, Sequence

from holdfast_node.chain.crypto import account_of, format_address, parse_address
from holdfast_node.chain.transaction import Transfer, sign_transaction
from holdfast_node.client import Client
from holdfast_node.devnet_files import (
    CHAIN_ID,
    PORTS_PER_NODE,
    Layout,
    Member,
    claim,
    prepare,
)
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
COLUMNS = ("start", "start CPU", "ready MB", "loaded MB", "load", "load CPU", "pause")


def free_ports(count: int) -> int:
    """The first of so many ports in a row that nothing listens on."""
    while True:
        port = random.randrange(20_000, 30_000)  # noqa: S311 -- no secret
        with suppress(OSError):
            for offset in range(count):
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
    """Whether there is a good answer, of our own node."""
    with suppress(OSError), urllib.request.urlopen(url, timeout=1) as answer:  # noqa: S310 -- as said
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


def measure(variant: str, count: int, validators: int) -> dict[str, float]:
    """One run of one variant."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "net"
        claimed = claim(folder)
        layout = prepare(folder, validators, free_ports(validators * PORTS_PER_NODE))
        bodies = list(requests(layout, count))
        reports = [Path(place) / f"pause-{member.name}" for member in layout.members]
        start = [sys.executable, "-c", PROGRAM.format(variant=VARIANTS[variant])]
        programs = [[*start, str(report)] for report in reports]
        url = layout.members[0].url
        try:
            found = run(programs, layout.members, lambda: load(url, layout, bodies, count))
        finally:
            os.close(claimed)
        pause = max(float(report.read_text()) for report in reports)
        return {**found, "pause": pause * 1000}


def run(
    programs: Sequence[list[str]], members: Sequence[Member], work: Callable[[], None]
) -> dict[str, float]:
    """Start the nodes, load them and end them."""
    nodes: list[subprocess.Popen[bytes]] = []
    with ExitStack() as ended:
        began = time.perf_counter()
        for program, member in zip(programs, members):
            log = ended.enter_context(member.log.open("ab"))
            command = [*program, "run", "--config", str(member.config)]
            node = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
            ended.enter_context(node)  # waits
            ended.callback(node.send_signal, signal.SIGTERM)
            nodes.append(node)
        for node, member in zip(nodes, members):
            until(member, node, "/healthz")
        start = time.perf_counter() - began
        started, ready = [cpu_ms(node.pid) for node in nodes], memory(nodes)
        for node, member in zip(nodes, members):
            until(member, node, "/readyz")
        before, began = [cpu_ms(node.pid) for node in nodes], time.perf_counter()
        work()
        took, after = time.perf_counter() - began, [cpu_ms(node.pid) for node in nodes]
        return {
            "start": start * 1000,
            "start CPU": statistics.mean(started),
            "ready MB": ready,
            "loaded MB": memory(nodes),
            "load": took * 1000,
            "load CPU": statistics.mean(after) - statistics.mean(before),
        }


def until(member: Member, node: subprocess.Popen[bytes], path: str) -> None:
    """Wait for a good answer to `path`."""
    deadline = time.perf_counter() + START_S
    while not answers(member.url + path):
        if node.poll() is not None or time.perf_counter() > deadline:
            sys.exit(f"{member.name} does not start:\n{member.log.read_text()[-2000:]}")
        time.sleep(0.005)  # the resolution of what is measured


def memory(nodes: Sequence[subprocess.Popen[bytes]]) -> float:
    """What one of them has resident on average, in MB."""
    return statistics.mean(resident_mb(node.pid) for node in nodes)


def table(runs: dict[str, list[dict[str, float]]]) -> str:
    """Medians, with the ratio to the first variant behind each."""
    lines = [f"| variant | {' | '.join(COLUMNS)} |", "|---" * (len(COLUMNS) + 1) + "|"]
    first = next(iter(runs.values()))
    base = {name: statistics.median(one[name] for one in first) for name in COLUMNS}
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
    parser.add_argument("--validators", type=int, default=1)
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    options = parser.parse_args()
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in options.variants}
    for number in range(options.rounds):
        for variant in random.sample(options.variants, len(options.variants)):
            runs[variant].append(measure(variant, options.transactions, options.validators))
        print(f"round {number + 1} of {options.rounds}", file=sys.stderr, flush=True)
    print(
        f"Python {sys.version.split()[0]}, {os.cpu_count()} cores, {options.rounds} rounds, "
        f"{options.validators} validators"
    )
    print(table(runs))


if __name__ == "__main__":
    main()
