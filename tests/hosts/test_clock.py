# SPDX-License-Identifier: GPL-3.0-or-later
"""What the role clock leaves on hosts that may not set their clock; `host` follows `server`.

`host` and `server` measure their clocks, `stray` leaves its own alone, and serves a time that is
0.2 s ahead of everybody's.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Callable, Iterator

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "molecule"))

from lab.shell import environment  # noqa: E402 -- the lab is no installed package

Host = Any  # testinfra's Host has no types worth the name
SECONDS = 60  # for what takes about ten


def daemons(host: Host) -> list[int]:
    """The processes of chronyd."""
    return [int(pid) for pid in host.run("pidof chronyd").stdout.split()]


def sources(host: Host) -> list[list[str]]:
    """The fields of chronyd's sources: mode, state, name, ..."""
    lines = host.check_output("chronyc -c -N sources").splitlines()
    return [line.split(",") for line in lines]


def clock_info(host: Host, **options: Any) -> dict[str, Any]:
    """The module's result on a host."""
    command = ["ansible", "it", "-i", "it,", "-m", "holdfast.chain.clock_info"]
    command += ["-a", json.dumps(options)] if options else []
    for name, value in (
        ("connection", "podman"),
        ("host", host.backend.name),
        ("python_interpreter", "/usr/bin/python3"),
    ):
        command += ["-e", f"ansible_{name}={value}"]
    env = environment(ANSIBLE_FORCE_COLOR="0", ANSIBLE_CALLBACK_RESULT_FORMAT="json")
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    outcome, _arrow, result = done.stdout.partition("it | ")[2].partition(" => ")
    assert outcome in ("SUCCESS", "FAILED!"), done.stdout + done.stderr
    return {"failed": outcome == "FAILED!", **json.loads(result)}


def wait_until(true: Callable[[], bool], what: str) -> None:
    """Look twice a second until it is so."""
    deadline = time.monotonic() + SECONDS
    while not true():
        assert time.monotonic() < deadline, f"not in {SECONDS} s: {what}"
        time.sleep(0.5)


@pytest.fixture
def settled(host: Host) -> Iterator[None]:
    """The host follows its server, before a test and after it."""
    followed = clock_info(host, wait="bound", wait_timeout=SECONDS)
    assert followed["verdict"] in ("within", "warning"), followed["reason"]
    yield
    names = [fields[2] for fields in sources(host)]
    if "stray" in names:
        host.check_output("chronyc delete stray")
    if "server" not in names:
        host.check_output("chronyc add server server iburst minpoll 0 maxpoll 0")
    followed = clock_info(host, wait="bound", wait_timeout=SECONDS)
    assert followed["verdict"] in ("within", "warning"), followed["reason"]


def test_service_runs_and_comes_back_after_a_reboot(host: Host) -> None:
    """Although systemd would pass over it, in a container like this."""
    assert host.service("chronyd").is_running
    assert host.service("chronyd").is_enabled


def test_daemon_measures_without_rights(host: Host) -> None:
    """As its own user, and told not to set the clock."""
    assert daemons(host)
    for pid in daemons(host):
        arguments = host.check_output(f"cat /proc/{pid}/cmdline").split("\0")
        assert "-x" in arguments
        assert int(host.check_output(f"stat -c %u /proc/{pid}")) != 0


def test_follows_the_server(host: Host) -> None:
    """The kernel's clock is one and the same, so that the offset can only be small."""
    (selected,) = [fields for fields in sources(host) if fields[1] == "*"]
    assert selected[2] == "server"
    fields = host.check_output("chronyc -c tracking").split(",")
    assert fields[2] == "9"  # one below the server's 8
    assert abs(float(fields[4])) < 0.02


def test_updates_are_logged(host: Host) -> None:
    """The log that p99 is taken from grows."""
    log = host.file("/var/log/chrony/tracking.log")
    before = log.size
    wait_until(lambda: host.file(log.path).size > before, "a new line in the tracking log")


def test_module_says_what_chronyd_says(host: Host, settled: None) -> None:
    """With its numbers, and a p99 over the log."""
    found = clock_info(host)
    assert found["changed"] is False
    assert found["observes_only"] is True
    assert found["may_set_time"] is False
    assert (found["reference"], found["stratum"]) == ("server", 9)
    assert [source["state"] for source in found["sources"]] == ["selected"]
    assert abs(found["offset_seconds"]) <= found["error_bound_seconds"] < 0.05
    assert found["p99_samples"] >= 3


def test_time_host_is_its_own_reference(host: Host, peer: Callable[[str], Host]) -> None:
    """Which is fine where it was asked for, and only there."""
    assert clock_info(peer("server"), allow_local=True)["verdict"] == "within"
    found = clock_info(peer("server"))
    assert (found["verdict"], found["local_reference"]) == ("not_synchronised", True)


def test_host_that_leaves_its_clock_alone(host: Host, peer: Callable[[str], Host]) -> None:
    """No daemon, no drop-in, the distribution's configuration."""
    stray = peer("stray")
    assert not daemons(stray)
    assert not stray.run("ls -d /etc/systemd/system/chrony*.service.d").stdout
    paths = (stray.file(path) for path in ("/etc/chrony/chrony.conf", "/etc/chrony.conf"))
    (configuration,) = [file for file in paths if file.exists]
    assert "holdfast" not in configuration.content_string
    found = clock_info(stray, wait="bound", require=True)
    assert found["failed"]
    assert (found["verdict"], found["running"], found["installed"]) == ("no_daemon", False, True)
    assert found["waited_seconds"] < 5
    assert "CAP_SYS_TIME" in found["msg"]


def test_server_that_is_gone(host: Host, peer: Callable[[str], Host], settled: None) -> None:
    """chronyd goes on to call itself synchronised; the module does not."""
    frozen = " ".join(str(pid) for pid in daemons(peer("server")))
    peer("server").check_output(f"kill -STOP {frozen}")
    try:
        wait_until(lambda: sources(host)[0][1] == "?", "the source is given up")
        found = clock_info(host, require=True, wait="bound", wait_timeout=1)
    finally:
        peer("server").check_output(f"kill -CONT {frozen}")
    assert found["failed"]
    assert (found["verdict"], found["leap_status"]) == ("not_synchronised", "Normal")
    assert "server does not answer" in found["msg"]
    assert found["error_bound_seconds"] > 0
    assert 1 <= found["waited_seconds"] < 5


def test_clock_that_is_wrong(host: Host, settled: None) -> None:
    """Beside a server that is 0.2 s ahead this clock is slow, and refused with all numbers."""
    host.check_output("chronyc add server stray iburst minpoll 0 maxpoll 0")
    host.check_output("chronyc delete server")
    wait_until(
        lambda: [fields[2] for fields in sources(host) if fields[1] == "*"] == ["stray"],
        "it follows the stray server",
    )
    wait_until(  # there may be no measurement in these two seconds
        lambda: (clock_info(host, window=2)["p99_seconds"] or 0) > 0.15,
        "the log has the new offset",
    )
    found = clock_info(host, require=True)
    assert found["failed"]
    assert found["verdict"] == "beyond"
    assert -0.25 < found["offset_seconds"] < -0.15
    assert found["error_bound_seconds"] > 0.15
    assert "above the bound of 100.000 ms" in found["msg"]
