# SPDX-License-Identifier: Apache-2.0
"""A devnet of real processes, through the command line, as its user runs it."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from holdfast_node.client import Client
from holdfast_node.devnet import check_ports
from holdfast_node.errors import ConfigError, HoldfastError
from holdfast_node.keys import load_key

pytestmark = pytest.mark.timeout(180)  # four nodes on a small machine take seconds to start


def command(*arguments):
    return [sys.executable, "-m", "holdfast_node", *map(str, arguments)]


def execute(*arguments):
    return subprocess.run(command(*arguments), capture_output=True, text=True, check=False)


@pytest.fixture
def base_port():
    for base in range(29_000, 30_000, 40):
        try:
            check_ports(4, base)
        except ConfigError:
            continue
        return base
    raise AssertionError("no free ports")


@contextmanager
def running(folder, *arguments):
    """A devnet that has come up; ends it, if the test has not."""
    log = folder.with_suffix(".out")
    with (
        log.open("w") as out,
        subprocess.Popen(
            command("devnet", "--dir", folder, *arguments), stdout=out, stderr=out
        ) as process,
    ):
        try:
            while "Ctrl-C ends it" not in log.read_text():
                assert process.poll() is None, log.read_text()
                time.sleep(0.1)  # its log is all that it says
            yield process, log
        finally:
            process.terminate()
            process.wait()


def test_once_commits_a_transfer_everywhere_and_leaves_nothing(base_port, tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    done = execute("devnet", "--once", "--base-port", base_port)
    assert done.returncode == 0, done.stdout + done.stderr
    pattern = r"transfer [0-9a-f]{64} committed at height [1-9]\d* after [\d.]+ ms; every validator"
    assert re.search(pattern, done.stdout), done.stdout
    assert str(tmp_path) in done.stdout
    assert list(tmp_path.iterdir()) == []
    check_ports(4, base_port)


def test_the_printed_commands_work_and_a_second_start_goes_on(base_port, tmp_path):
    folder = tmp_path / "net"
    with running(folder, "--base-port", base_port) as (process, _):
        done = execute("devnet", "--once", "--base-port", base_port)
        assert done.returncode == 2
        assert f"port {base_port} for v1: Address already in use" in done.stderr

        height = try_commands(folder, base_port)

        start = time.monotonic()
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
        assert time.monotonic() - start < 15
    check_ports(4, base_port)
    secret = load_key(folder / "funded.key").seed.hex()
    assert not any(secret in log.read_text() for log in folder.rglob("*.log"))

    done = execute("devnet", "--dir", folder, "--base-port", base_port, "--once")
    assert done.returncode == 0, done.stdout + done.stderr
    assert int(re.search(r"committed at height (\d+)", done.stdout)[1]) > height


def try_commands(folder, base_port):
    """What the introduction suggests, and some that must be refused; returns a height."""
    url = f"http://127.0.0.1:{base_port + 2}"
    guest = json.loads(execute("keys", "show", folder / "guest.key").stdout)["address"]
    sending = ["--url", url, "--key", folder / "funded.key", "--wait"]
    done = execute("tx", "transfer", *sending, "--to", guest, "--amount", 42)
    assert done.returncode == 0, done.stderr
    sent = json.loads(done.stdout)
    assert sent["status"] == "committed"
    assert sent["latency_ms"] > 0
    asked = json.loads(execute("tx", "status", "--url", url, sent["id"]).stdout)
    assert (asked["status"], asked["height"]) == ("committed", sent["height"])
    done = execute("tx", "put", *sending, "--name", "greeting", "--value", "hello")
    assert done.returncode == 0, done.stderr
    for port in range(base_port + 2, base_port + 40, 10):
        client = Client(f"http://127.0.0.1:{port}")
        until(lambda c=client: c.account(guest)["balance"] == 42)
    done = execute("status", "--url", url)
    assert done.returncode == 0
    assert "ready       yes" in done.stdout
    assert done.stdout.count(" connected ") == 3

    done = execute("tx", "transfer", *sending, "--to", guest, "--amount", 2**62)
    assert done.returncode == 1
    assert json.loads(done.stdout)["reason"] == "insufficient_funds"
    done = execute("tx", "put", *sending, "--nonce", 0, "--name", "a", "--value", "b")
    assert (done.returncode, done.stderr[:9]) == (1, "refused (")
    return sent["height"]


def test_a_member_that_is_killed_ends_the_devnet_and_says_so(base_port, tmp_path):
    arguments = ["--validators", 2, "--base-port", base_port]
    with running(tmp_path / "net", *arguments) as (process, log):
        pids = [int(pid) for pid in children(process.pid)]
        assert len(pids) == 2
        os.kill(pids[0], signal.SIGKILL)
        assert process.wait(30) == 1
    assert re.search(r"v[12] ended with code -9", log.read_text())
    assert not [pid for pid in pids if is_alive(pid)]


def children(pid):
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


def is_alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def until(condition, seconds=30):
    deadline = time.monotonic() + seconds
    while not holds(condition):
        assert time.monotonic() < deadline
        time.sleep(0.05)  # between two looks: the condition is what is waited for


def holds(condition):
    try:
        return condition()
    except HoldfastError:
        return False
