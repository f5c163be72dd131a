# SPDX-License-Identifier: GPL-3.0-or-later
"""The node's container image: as small as promised, and a good process on a read-only root."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import Any, Iterator

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "molecule"))

from lab import machine, node_image  # noqa: E402 -- the lab is no installed package
from lab.shell import LabError, capture, environment  # noqa: E402

# Making one takes half a minute, and several on a machine that does other things.
pytestmark = pytest.mark.timeout(600)
LIMIT_BYTES = 44.7e6
STOP_SECONDS = 15
PORT = 26600
URL = f"http://127.0.0.1:{PORT + 2}"
DATA = "/var/lib/holdfast"
NET = f"{DATA}/net"
# As a cluster that trusts nobody runs it: a root nobody can write to, no temporary folder either.
CONFINED = ["--read-only", "--read-only-tmpfs=false", "--cap-drop=all", "--net=none"]
CONFINED += ["--security-opt=no-new-privileges", "--env", f"HOLDFAST_API=127.0.0.1:{PORT + 2}"]


@pytest.fixture(scope="module")
def image() -> str:
    """The image, built from what this machine can reach."""
    if os.geteuid() != 0 or not machine.found(["podman"]):
        pytest.skip("building an image needs podman and root")
    machine.prepare()
    folder = os.environ.get("HOLDFAST_IMAGES")
    if not (os.environ.get("HOLDFAST_REGISTRY") or folder):
        pytest.skip("no base image: set HOLDFAST_IMAGES or HOLDFAST_REGISTRY")
    return node_image.build().name


@pytest.fixture(scope="module")
def volume(image: str) -> Iterator[str]:
    """A volume with the folder of a network of one validator, which committed a transfer."""
    name = f"holdfast-test-{uuid.uuid4().hex[:8]}"
    capture(["podman", "volume", "create", name])
    try:
        words = ["devnet", "--dir", NET, "--validators", "1", "--base-port", str(PORT), "--once"]
        said = capture(["podman", "run", "--rm", *mount(name), *CONFINED, image, *words])
        assert "committed at height" in said
        yield name
    finally:
        capture(["podman", "volume", "rm", "--force", name])


def mount(volume: str) -> list[str]:
    """The options that give a container its data."""
    return ["--volume", f"{volume}:{DATA}"]


class Node:
    """A node in a container of its own."""

    def __init__(self, image: str, volume: str) -> None:
        self.name = f"holdfast-test-{uuid.uuid4().hex[:8]}"
        words = ["run", "--config", f"{NET}/v1/config.toml"]
        options = ["--detach", "--name", self.name, *mount(volume), *CONFINED]
        capture(["podman", "run", *options, image, *words])

    def inside(self, *command: str) -> str:
        """Run a program in it; its output."""
        return capture(["podman", "exec", self.name, *command])

    def until(self, what: str, *command: str) -> str:
        """Run a program in it until it ends with 0."""
        deadline = time.monotonic() + 30
        while True:
            try:
                return self.inside(*command)
            except LabError as error:  # noqa: PERF203 -- each failure is a reason to ask again
                if time.monotonic() > deadline:
                    log = capture(["podman", "logs", self.name])
                    raise AssertionError(f"not {what}: {error}\n{log}") from error
                time.sleep(0.2)

    def status(self) -> dict[str, Any]:
        """What it says of itself, once it answers."""
        said = self.until("answering", "holdfast-node", "status", "--url", URL, "--json")
        found: dict[str, Any] = json.loads(said)
        return found.get("nodes", [found])[0] if "height" not in found else found

    def stop(self) -> tuple[int, float]:
        """Send SIGTERM to the first process; exit code and seconds until then."""
        started = time.monotonic()
        capture(["podman", "kill", "--signal", "TERM", self.name])
        code = int(capture(["podman", "wait", self.name]))
        return code, time.monotonic() - started

    def remove(self) -> None:
        """Whatever state it is in."""
        capture(["podman", "rm", "--force", "--time", "0", self.name])


@pytest.fixture
def node(image: str, volume: str) -> Iterator[Node]:
    """The validator, running."""
    made = Node(image, volume)
    yield made
    made.remove()


def test_it_is_small_and_says_what_it_is(image: str, tmp_path: Path) -> None:
    """Compressed as a registry keeps it; labels, user, init and check are in place."""
    assert node_image.compressed_bytes(image, tmp_path / "image.tar") <= LIMIT_BYTES
    found = json.loads(capture(["podman", "image", "inspect", image]))[0]
    assert found["Config"]["User"] == "10001:10001"
    assert found["Config"]["Entrypoint"][0] == "/sbin/tini"
    assert found["Healthcheck"]["Test"][0] == "CMD"
    version = capture(["podman", "run", "--rm", *CONFINED, image, "--version"]).split()[-1]
    assert found["Labels"]["org.opencontainers.image.version"] == version
    assert len(found["RootFS"]["Layers"]) == 1


def test_it_runs_confined_is_healthy_and_adopts_orphans(node: Node) -> None:
    """As nobody in particular, on a root that cannot be written to; no zombie stays."""
    height = node.status()["height"]
    assert height >= 2
    assert node.inside("id", "-u").strip() == "10001"
    with pytest.raises(LabError, match="Read-only file system"):
        node.inside("touch", "/opt/holdfast/x")
    capture(["podman", "healthcheck", "run", node.name])
    # an orphan becomes a child of process 1; one that is not waited for stays in /proc, dead
    orphan = node.inside("sh", "-c", "sleep 0.1 >/dev/null 2>&1 & echo $!").strip()
    node.until("reaped", "sh", "-c", f"[ ! -e /proc/{orphan} ]")
    assert node.inside("readlink", "/proc/1/exe").strip().endswith("tini")


def test_the_check_fails_where_nothing_answers(image: str, volume: str) -> None:
    """Or it would say nothing."""
    command = json.loads(capture(["podman", "image", "inspect", image]))[0]["Healthcheck"]["Test"]
    options = [*mount(volume), *CONFINED, "--entrypoint", command[1]]
    done = subprocess.run(
        ["podman", "run", "--rm", *options, image, *command[2:]],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "Connection refused" in done.stderr


def test_sigterm_ends_it_in_time_and_a_restart_goes_on(image: str, volume: str, node: Node) -> None:
    """The exit code is 0, the folder is sound, and what was committed is there at its height."""
    node.status()
    words = ["--url", URL, "--key", f"{NET}/funded.key", "--name", "a", "--value", "b", "--wait"]
    sent = json.loads(node.inside("holdfast-node", "tx", "put", *words))
    before = node.status()["height"]
    code, seconds = node.stop()
    assert code == 0
    assert seconds < STOP_SECONDS
    config = ["doctor", "--config", f"{NET}/v1/config.toml"]
    capture(["podman", "run", "--rm", *mount(volume), *CONFINED, image, *config])
    again = Node(image, volume)
    try:
        assert again.status()["height"] >= before
        found = json.loads(again.inside("holdfast-node", "tx", "status", "--url", URL, sent["id"]))
        assert (found["status"], found["height"]) == ("committed", sent["height"])
    finally:
        again.remove()
