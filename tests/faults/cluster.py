# SPDX-License-Identifier: GPL-3.0-or-later
"""Four validators, each in a network namespace of its own, and what can be done to them."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Callable, Iterable, Sequence, TypeVar

import edge
from holdfast_node.client import Client, UnreachableError
from holdfast_node.devnet_files import Member, prepare

T = TypeVar("T")

VALIDATORS = 4
BASE_PORT = 26600
VIEW_TIMEOUT_MS = 1000
SETTINGS = f"""
[consensus]
empty_block_interval_ms = 1000
view_timeout_ms = {VIEW_TIMEOUT_MS}
view_timeout_max_ms = 8000
"""
READY_S = 60.0
STOP_S = 15.0
DISK_BYTES = 32 * 2**20
RPC_CALLS = 100


def run(*command: str, text: str | None = None) -> str:
    """Run a tool; an AssertionError with what it said, if it fails."""
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr or done.stdout}"
    return done.stdout


def until(condition: Callable[[], T | None], seconds: float, what: str) -> T:
    """The first true answer of `condition`; an AssertionError if there is none in time."""
    deadline = time.monotonic() + seconds
    while True:
        found = condition()
        if found:
            return found
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        time.sleep(0.05)


class Node:
    """A validator: its process, its namespace, its folder."""

    def __init__(self, member: Member, index: int) -> None:
        self.name = member.name
        self.member = member
        self.address = f"10.77.0.{index + 1}"
        self.api = (self.address, member.ports[2])
        self.client = Client(f"http://{self.address}:{self.api[1]}", timeout=3.0)
        self.data = member.folder / "data"
        self.process: subprocess.Popen[bytes] | None = None
        self.frozen = False
        self.at_edge = False
        self._settings = member.folder / "edge"

    # Life and death.

    def start(self, *, at_edge: bool = False) -> None:
        """Start it; `at_edge` with a clock and a disk that `tamper` sets."""
        assert self.process is None, f"{self.name} runs already"
        self.at_edge = at_edge
        program = [edge.__file__, str(self._settings)] if at_edge else ["-m", "holdfast_node"]
        command = [*self._inside(), sys.executable, *program, "run", "--config"]
        with self.member.log.open("ab") as log:
            command.append(str(self.member.config))
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def tamper(self, *, clock_ms: int = 0, write_ms: int = 0) -> None:
        """From now on its clock is off by so much, and each write to its disk takes so long."""
        edge.tamper(self._settings, clock_ms=clock_ms, write_ms=write_ms)

    def kill(self) -> None:
        """As when the machine fails: no last word."""
        self._running().kill()
        self.ended(STOP_S)

    def stop(self) -> None:
        """In order, and in time."""
        self._running().terminate()
        assert self.ended(STOP_S) == 0, self.tail()

    def ended(self, seconds: float) -> int:
        """Wait for it to end by itself; its exit code."""
        assert self.process is not None
        code = self.process.wait(seconds)
        self.process = None
        self.frozen = False
        return code

    def _running(self) -> subprocess.Popen[bytes]:
        assert self.process is not None, f"{self.name} is not running"
        assert self.process.poll() is None, self.tail()
        return self.process

    def freeze(self) -> None:
        self._running().send_signal(signal.SIGSTOP)
        self.frozen = True

    def thaw(self) -> None:
        self._running().send_signal(signal.SIGCONT)
        self.frozen = False

    @property
    def answers(self) -> bool:
        return self.process is not None and self.process.poll() is None and not self.frozen

    def tail(self) -> str:
        """The end of its log."""
        lines = self.member.log.read_text(errors="replace").splitlines()
        return "\n".join([f"{self.name}:", *lines[-15:]])

    def events(self, since: int = 0) -> list[dict[str, Any]]:
        """What it logged after byte `since` of its log."""
        data = self.member.log.read_bytes()[since:].decode(errors="replace")
        return [json.loads(line) for line in data.splitlines() if line.startswith("{")]

    # Its network.

    def _inside(self) -> list[str]:
        return ["nsenter", f"--net=/run/netns/{self.name}"]

    def plug_in(self) -> None:
        """A namespace with one interface, at the bridge."""
        run("ip", "netns", "add", self.name)
        peer = ["type", "veth", "peer", "name", "eth0", "netns", self.name]
        run("ip", "link", "add", self.name, *peer)
        run("ip", "link", "set", self.name, "master", "bridge0", "up")
        run("ip", "-n", self.name, "address", "add", f"{self.address}/24", "dev", "eth0")
        for interface in ("lo", "eth0"):
            run("ip", "-n", self.name, "link", "set", interface, "up")

    def refuse(self, *rules: str) -> None:
        """nftables rules for what comes in, instead of those there are."""
        lines = ["table inet faults", "delete table inet faults", "table inet faults {"]
        lines += ["chain input { type filter hook input priority 0;", *rules, "}", "}"]
        run(*self._inside(), "nft", "-f", "-", text="\n".join(lines) + "\n")

    def deaf_to(self, nodes: Iterable[Node]) -> None:
        """Nothing of what these send arrives here; what is sent to them still leaves."""
        self.refuse(*(f"ip saddr {node.address} drop" for node in nodes))

    def shape(self, *discipline: str) -> None:
        """A queueing discipline for what leaves; without arguments that of the start."""
        where = ["dev", "eth0", "root"]
        run("tc", "-n", self.name, "qdisc", "replace", *where, *discipline or ["pfifo"])

    def disk_of_its_own(self) -> None:
        run("mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(self.data))

    # What it says.

    def reason(self) -> str | None:
        """Why it is not ready, with all others connected; None if it is."""
        try:
            ready, reason = self.client.is_ready()
            away = [p["name"] for p in self.client.status()["peers"] if not p["connected"]]
        except UnreachableError as error:
            return str(error)
        if away:
            return f"not connected to {', '.join(away)}"
        return None if ready else reason or "no reason given"

    def is_ready(self) -> bool:
        self._running()
        return self.reason() is None

    def height(self) -> int:
        return int(self.client.status()["height"])

    def until_height(self, height: int, seconds: float) -> None:
        until(lambda: self.height() >= height, seconds, f"{self.name} at block {height}")

    def writes(self) -> tuple[float, float]:
        """Seconds that it spent on writing votes and blocks, and how many writes that were."""
        connection = http.client.HTTPConnection(*self.api, timeout=30)
        connection.request("GET", "/metrics")
        said = dict(
            line.rsplit(" ", 1) for line in connection.getresponse().read().decode().splitlines()
        )
        connection.close()
        name = 'consensus_step_seconds_{}{{step="persist"}}'
        return float(said[name.format("sum")]), float(said[name.format("count")])

    def rpc(self, method: str, parameters: Sequence[dict[str, Any]]) -> list[Any]:
        """The results of one call for each of `parameters`, in batches."""
        results: list[Any] = []
        connection = http.client.HTTPConnection(*self.api, timeout=30)
        for first in range(0, len(parameters), RPC_CALLS):
            calls = [
                {"jsonrpc": "2.0", "id": i, "method": method, "params": each}
                for i, each in enumerate(parameters[first : first + RPC_CALLS])
            ]
            headers = {"Content-Type": "application/json"}
            connection.request("POST", "/rpc", json.dumps(calls), headers)
            answers = json.loads(connection.getresponse().read())
            assert all("result" in answer for answer in answers), (self.name, answers)
            results += [answer["result"] for answer in sorted(answers, key=lambda a: a["id"])]
        connection.close()
        return results


class Cluster:
    """The nodes v1 to v4, and a bridge that the client is at as well."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        layout = prepare(folder, VALIDATORS, BASE_PORT)
        self.nodes = [Node(member, i) for i, member in enumerate(layout.members)]
        for node in self.nodes:
            text = node.member.config.read_text()
            for other in self.nodes:
                for port in other.member.ports:
                    text = text.replace(f"127.0.0.1:{port}", f"{other.address}:{port}")
            node.member.config.write_text(text + SETTINGS)

    def set_up(self) -> None:
        """The network and every node in it; v4 has a small disk of its own."""
        run("mount", "-t", "tmpfs", "tmpfs", "/run")
        run("ip", "link", "add", "bridge0", "type", "bridge")
        run("ip", "address", "add", "10.77.0.254/24", "dev", "bridge0")
        for interface in ("lo", "bridge0"):
            run("ip", "link", "set", interface, "up")
        for node in self.nodes:
            node.plug_in()
        self.nodes[3].disk_of_its_own()
        for node in self.nodes:
            node.start()
        self.until_ready()

    def tear_down(self) -> None:
        """End what runs; the kernel takes the rest with the namespaces."""
        for node in self.nodes:
            if node.process is not None:
                node.process.kill()
                node.process.wait()
        run("umount", "--lazy", str(self.nodes[3].data))

    def others(self, *without: Node) -> list[Node]:
        return [node for node in self.nodes if node not in without]

    def leader(self) -> Node:
        """Who leads now, in the eyes of most."""
        said = [node.client.status()["leader"] for node in self.nodes if node.answers]
        return next(node for node in self.nodes if node.name == max(said, key=said.count))

    def until_ready(self, *nodes: Node, seconds: float = READY_S) -> None:
        """Wait for `nodes`, or all: until then the network does not bear another failure."""
        for node in nodes or self.nodes:
            until(node.is_ready, seconds, f"{node.name} ready")

    def until_progress(self, nodes: Sequence[Node], blocks: int, seconds: float = 30.0) -> None:
        """Wait for so many more blocks on each of `nodes`."""
        goals = [(node, node.height() + blocks) for node in nodes]
        for node, goal in goals:
            node.until_height(goal, seconds)

    # Partitions.

    def divide(self, one: Sequence[Node], other: Sequence[Node]) -> None:
        """Nothing passes between the two sides."""
        for side, rest in ((one, other), (other, one)):
            for node in side:
                node.deaf_to(rest)

    def mend(self) -> None:
        """As at the start: no rules, nobody frozen, everybody runs with our clock and is ready."""
        for node in self.nodes:
            node.refuse()
            if node.frozen:
                node.thaw()
            if node.at_edge and node.process is not None:
                node.kill()
            if node.process is not None and node.process.poll() is not None:
                node.ended(0)
            if node.process is None:
                node.start()
        self.until_ready()

    def replace_folder(self, node: Node, copy: Path) -> Path:
        """Restore a data folder from `copy`; returns where the present one is kept."""
        kept = copy.with_name(f"{copy.name}-replaced")
        assert node.process is None
        node.data.rename(kept)
        run("cp", "-a", str(copy), str(node.data))
        return kept


def fill(folder: Path) -> Path:
    """Use up the disk that `folder` is on; returns the file to remove."""
    path = folder / "somebody-elses-data"
    with path.open("wb", buffering=0) as file, suppress(OSError):
        while file.write(bytes(2**12)):
            pass
    assert shutil.disk_usage(folder).free == 0
    return path


def work_folder() -> Path:
    """Below this there is room on a real disk, unlike in /tmp on some machines."""
    return Path(os.environ.get("HOLDFAST_FAULTS_DIR", "/var/tmp"))  # noqa: S108 -- a new folder in it
