# SPDX-License-Identifier: GPL-3.0-or-later
"""Several nodes on one machine, each a service of its own, under every service manager."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from services import Service, eventually, has_systemd, is_ready, nodes

Host = Any  # testinfra's Host has no types worth the name

RESTART_SECONDS = 5  # what the manager waits before each of them
STARTS = 3  # within a minute, the first one included
STOP_SECONDS = 30  # after which the manager kills
SETTLE_SECONDS = 60


@pytest.fixture
def services(host: Host) -> list[Service]:
    """The services of all nodes, each of which must run."""
    found = [Service(host, name) for name in nodes(host)]
    assert len(found) == 4
    return found


@pytest.fixture
def last(host: Host, services: list[Service]) -> Service:
    """One that may be harmed: the others go on without it. It runs again after the test."""
    service = services[-1]
    eventually(lambda: is_ready(host, service.node), SETTLE_SECONDS, "it is in step")
    yield service
    if not service.pids():
        service.start()
    eventually(lambda: is_ready(host, service.node), SETTLE_SECONDS, "it is in step again")


def test_each_is_a_service_of_its_own(services: list[Service]) -> None:
    """Running, started at boot, with a process of its own."""
    assert all(service.is_running() and service.is_enabled() for service in services)
    assert len({service.pid() for service in services}) == len(services)


def test_all_are_one_network(host: Host, services: list[Service]) -> None:
    """Each says of itself that it is in step with the others."""
    for service in services:
        eventually(lambda name=service.node: is_ready(host, name), SETTLE_SECONDS, service.node)


def test_each_has_data_of_its_own(host: Host, services: list[Service]) -> None:
    """Which nobody else may read, though they share a user."""
    for service in services:
        data = host.file(f"/var/lib/holdfast/{service.node}")
        assert (data.user, data.mode) == ("holdfast", 0o700)
        working = service.as_itself(f"ls -l /proc/{service.pid()}/fd")
        own = [line for line in working.splitlines() if "/var/lib/holdfast/" in line]
        assert own
        assert all(f"/var/lib/holdfast/{service.node}/" in line for line in own)


def test_each_has_a_control_group_of_its_own(host: Host, services: list[Service]) -> None:
    """Below one slice, so that their share of the machine can be set together."""
    if not has_systemd(host):
        pytest.skip("not run: in a container OpenRC makes no control groups")
    groups = {host.check_output(f"cat /proc/{service.pid()}/cgroup") for service in services}
    assert len(groups) == len(services)
    assert all("/holdfast.slice/" in group for group in groups)


def test_each_has_its_key_as_a_credential(host: Host, services: list[Service]) -> None:
    """In a folder in memory that is named in its environment; the file itself is root's."""
    for service in services:
        variables = service.as_itself(f"cat /proc/{service.pid()}/environ").split("\0")
        (folder,) = [
            line.partition("=")[2] for line in variables if line.startswith("CREDENTIALS_DIRECTORY")
        ]
        assert folder.startswith("/run/")
        assert service.node in folder
        given = host.file(f"{folder}/validator.key")
        kept = host.file(f"/etc/holdfast/{service.node}/keys/validator.key")
        assert (kept.user, kept.mode) == ("root", 0o600)
        assert given.sha256sum == kept.sha256sum
        assert given.mode & 0o337 == 0
        assert host.run(f"su -s /bin/sh nobody -c 'cat {given.path}'").rc != 0


def test_each_has_a_log_of_its_own(services: list[Service]) -> None:
    """Structured, and with nothing of another node's start."""
    for service in services:
        lines = [line for line in service.log().splitlines() if line.startswith("{")]
        assert lines, service.log()
        assert all(json.loads(line) for line in lines)


def test_it_starts_after_the_network(host: Host, last: Service) -> None:
    """As the manager itself understood it."""
    if not last.systemd and host.run("grep -E '^rc_provide=.*net' /etc/rc.conf").rc == 0:
        pytest.skip("not run: OpenRC is told that this container's network is always there")
    found = last.ask(
        f"systemctl show --value --property After {last.name}", f"rc-service {last.name} ineed"
    )
    assert ("network-online.target" if last.systemd else "net") in found.stdout.split()


def test_stop_is_orderly_and_bounded(host: Host, last: Service) -> None:
    """Nothing of it is left, and the manager did not have to kill."""
    began = time.monotonic()
    last.stop()
    assert time.monotonic() - began < STOP_SECONDS
    assert not last.pids()
    assert not last.is_running()
    assert not last.has_failed()


def test_killed_node_comes_back_until_its_budget_is_spent(host: Host, last: Service) -> None:
    """So often in a minute, then the manager gives up and says so; the others go on."""
    last.stop()
    last.start()
    seen: set[int] = set()
    for number in range(STARTS):
        new = eventually(
            lambda: {*last.pids()}.difference(seen), RESTART_SECONDS + 15, f"start {number + 1}"
        )
        seen.update(new)
        host.check_output(f"kill -KILL {new.pop()}")
    eventually(last.has_failed, RESTART_SECONDS + 15, "the manager has given up")
    assert not last.pids(), last.status()
    for name in nodes(host)[:-1]:
        assert Service(host, name).is_running()
        eventually(lambda name=name: is_ready(host, name), SETTLE_SECONDS, name)
