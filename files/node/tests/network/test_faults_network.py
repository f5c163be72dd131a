# SPDX-License-Identifier: Apache-2.0
"""Four real processes on loopback: killed at any moment, and brought back from an old copy."""

import json
import os
import random
import shutil
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from urllib.request import urlopen

import pytest

from holdfast_node.chain.transaction import Put
from holdfast_node.client import Client, UnreachableError
from holdfast_node.consensus.probation import COPIED
from holdfast_node.devnet import check_ports
from holdfast_node.devnet_files import prepare
from holdfast_node.errors import ConfigError
from holdfast_node.keys import load_key

pytestmark = pytest.mark.timeout(240)  # nodes on a small machine take seconds to start

ROUNDS = 5


class Network:
    """Runs members of a prepared folder; `acknowledged` is what a client was told is final."""

    def __init__(self, folder: Path) -> None:
        # What runs at the same time has ports of its own: free ones are only looked for here.
        first = 27_000 + 500 * (os.environ.get("PYTEST_XDIST_WORKER", "gw0") != "gw0")
        base = next(base for base in range(first, first + 500, 40) if free(base))
        self.layout = prepare(folder, 4, base)
        self.members = {member.name: member for member in self.layout.members}
        self.clients = {name: Client(m.url, timeout=5.0) for name, m in self.members.items()}
        self.processes: dict[str, subprocess.Popen] = {}
        self.acknowledged: dict[str, int] = {}
        self._key = load_key(self.layout.funded)

    def start(self, name: str) -> None:
        member = self.members[name]
        with member.log.open("ab") as log:
            self.processes[name] = subprocess.Popen(
                [sys.executable, "-m", "holdfast_node", "run", "--config", member.config],
                stdout=log,
                stderr=log,
            )

    def kill(self, name: str) -> None:
        process = self.processes.pop(name)
        assert process.poll() is None, self.members[name].log.read_text()[-2000:]
        process.kill()
        process.wait()

    def put(self, through: str, value: bytes) -> None:
        """Have `value` written, and be told that it is final."""
        outcome = self.clients[through].execute(self._key, [Put("value", value)], wait_s=60)
        assert outcome.status == "committed"
        self.acknowledged[outcome.id] = outcome.height

    def offer(self, through: str, value: bytes) -> str:
        """The same without waiting; its identifier."""
        return self.clients[through].execute(self._key, [Put("value", value)], wait_s=None).id

    def until_ready(self, *names: str) -> None:
        """Wait for nodes to be in step."""
        deadline = time.monotonic() + 90
        for name in names:
            while (reason := self.reason(name)) is not None:
                assert time.monotonic() < deadline, f"{name}: {reason}"
                time.sleep(0.1)  # it says so only when asked

    def reason(self, name: str) -> str | None:
        """Why the node is not ready; None if it is."""
        try:
            ready, reason = self.clients[name].is_ready()
        except UnreachableError:
            return "does not answer"
        return None if ready else reason or ""

    def evidence(self) -> list:
        return [proof for name in self.clients for proof in self.ask(name, "/v1/evidence")]

    def ask(self, name: str, path: str) -> list:
        with urlopen(self.members[name].url + path, timeout=10) as answer:
            return json.load(answer)["evidence"]

    def check(self) -> None:
        """Every acknowledged transaction is on every node, where it was, in one chain."""
        top = max(self.acknowledged.values())
        for client in self.clients.values():
            deadline = time.monotonic() + 60
            while client.status()["height"] < top:
                assert time.monotonic() < deadline
                time.sleep(0.05)  # it says so only when asked
            for identifier, height in self.acknowledged.items():
                found = client.transaction(identifier)
                assert (found["status"], found["height"]) == ("committed", height)
        for height in range(1, top + 1):
            hashes = {client.block(height)["hash"] for client in self.clients.values()}
            assert len(hashes) == 1, height

    def verify(self, identifier: str) -> None:
        """Whoever has the genesis can check that the transaction is final."""
        command = [sys.executable, "-m", "holdfast_node", "verify", "transaction", identifier]
        options = [
            "--genesis",
            self.layout.folder / "genesis.json",
            "--url",
            self.members["v4"].url,
        ]
        done = subprocess.run([*command, *options], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["height"] == self.acknowledged[identifier]


def free(base: int) -> bool:
    try:
        check_ports(4, base)
    except ConfigError:
        return False
    return True


@contextmanager
def running(folder: Path):
    network = Network(folder)
    try:
        for name in network.members:
            network.start(name)
        network.until_ready(*network.members)
        yield network
    finally:
        for process in network.processes.values():
            process.kill()
            process.wait()


def test_kills_at_any_moment_lose_nothing(tmp_path):
    """One validator after the other is killed under load, and comes back by itself."""
    chance = random.Random()  # moments are random by nature; the outcome must not depend on them
    with running(tmp_path / "net") as network:
        for attempt in range(ROUNDS):
            victim = chance.choice(sorted(network.members))
            through = chance.choice(sorted(network.members.keys() - {victim}))
            network.put(through, b"before %d" % attempt)
            time.sleep(chance.uniform(0, 0.3))  # killed at any point of its work
            network.kill(victim)
            network.put(through, b"without one, %d" % attempt)
            network.start(victim)
            network.put(through, b"while it starts, %d" % attempt)
            network.until_ready(victim)
        network.check()
        assert network.evidence() == []
        network.verify(max(network.acknowledged, key=network.acknowledged.get))


def test_an_old_copy_of_a_folder_does_not_vote_twice(tmp_path):
    """It follows without a vote, says so, and votes again when that is safe."""
    with running(tmp_path / "net") as network:
        data, copy = network.members["v2"].folder / "data", tmp_path / "copy"
        network.put("v1", b"before the copy")
        network.kill("v2")
        subprocess.run(["cp", "-a", data, copy], check=True)
        network.start("v2")
        network.until_ready("v2")
        for number in range(5):
            network.put("v3", b"after the copy, %d" % number)
        network.kill("v2")
        shutil.rmtree(data)
        subprocess.run(["cp", "-a", copy, data], check=True)

        config = network.members["v2"].config
        command = [sys.executable, "-m", "holdfast_node", "doctor", "--config", config]
        doctor = subprocess.run(command, capture_output=True, text=True, check=False)
        assert doctor.returncode == 0, doctor.stderr
        assert COPIED in doctor.stdout

        log = network.members["v2"].log
        start = log.stat().st_size
        network.start("v2")
        network.until_ready("v2")
        lines = log.read_text()[start:].splitlines()
        events = [json.loads(line)["event"] for line in lines if line.startswith("{")]
        order = ["follows without a vote", "votes of the past cannot be contradicted any more"]
        order += ["votes from now on"]
        assert [event for event in events if event in order] == order, events
        for number in range(3):  # v1 is away: without v2 there would be no quorum
            if number == 0:
                network.kill("v1")
            network.put("v3", b"with its vote, %d" % number)
        network.start("v1")
        network.until_ready("v1")
        network.check()
        assert network.evidence() == []


def test_a_copy_at_once_of_too_many_waits_for_a_person(tmp_path):
    """More than f in doubt cannot help each other; whoever knows better says so."""
    with running(tmp_path / "net") as network:
        network.put("v1", b"before the move")
        for name in list(network.processes):
            network.kill(name)
        for member in network.layout.members[:2]:
            data = member.folder / "data"
            subprocess.run(["cp", "-a", data, tmp_path / member.name], check=True)
            shutil.rmtree(data)
            (tmp_path / member.name).rename(data)
        for name in ("v2", "v3", "v4"):
            network.start(name)
        deadline = time.monotonic() + 60
        while COPIED not in (network.reason("v2") or ""):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        stuck = network.offer("v3", b"stuck")
        with pytest.raises(UnreachableError, match="pending"):
            network.clients["v3"].wait(stuck, 3)
        accept = ["doctor", "--accept-copy", "--config", network.members["v1"].config]
        subprocess.run([sys.executable, "-m", "holdfast_node", *accept], check=True)
        network.start("v1")
        network.until_ready("v1", "v2", "v3", "v4")
        outcome = network.clients["v3"].wait(stuck, 60)
        network.acknowledged[stuck] = outcome.height
        network.put("v2", b"after the move")
        network.check()
