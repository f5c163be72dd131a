# SPDX-License-Identifier: GPL-3.0-or-later
"""What must hold on every host with a node; `host` comes from testinfra's --hosts."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import pytest
from services import Service, has_systemd, nodes

Host = Any  # testinfra's Host has no types worth the name


@pytest.fixture
def name(host: Host) -> str:
    """The node's name; where there are several, the first of them."""
    return nodes(host)[0]


@pytest.fixture
def service(host: Host, name: str) -> Service:
    """The node's service."""
    return Service(host, name)


@pytest.fixture
def pid(service: Service) -> int:
    """The node's process, which must be there."""
    assert service.pids(), service.status()
    return service.pid()


@pytest.fixture
def sandboxed(host: Host) -> None:
    """Only systemd has a sandbox; OpenRC takes rights away, and no more."""
    if not has_systemd(host):
        pytest.skip("not run: OpenRC has no sandbox")


def proc_status(host: Host, pid: int) -> dict[str, str]:
    """/proc/<pid>/status as a table."""
    lines = host.check_output(f"cat /proc/{pid}/status").splitlines()
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}


@dataclass(frozen=True)
class Mount:
    """A line of mountinfo: where, which part of its file system, with which options."""

    point: str
    root: str
    options: set[str]


def mount_of(host: Host, pid: int, path: str) -> Mount:
    """The mount through which the process sees a path."""
    rows = [line.split() for line in host.check_output(f"cat /proc/{pid}/mountinfo").splitlines()]
    seen = [Mount(row[4], row[3], set(row[5].split(","))) for row in rows]
    inside = [mount for mount in seen if path.startswith(mount.point.rstrip("/") + "/")]
    longest = max(len(mount.point) for mount in inside)
    return [mount for mount in inside if len(mount.point) == longest][-1]  # the one on top


def test_service_runs_and_comes_back_after_a_reboot(service: Service, pid: int) -> None:
    """Active and enabled."""
    assert service.is_running()
    assert service.is_enabled()


def test_service_has_a_restart_budget(host: Host, service: Service) -> None:
    """A node that keeps failing is left alone and reported, not restarted for ever."""
    if not service.systemd:
        script = host.file(f"/etc/init.d/{service.name}").content_string
        wanted = ["respawn_delay=5", "respawn_max=2", "respawn_period=60"]
        assert [line for line in script.splitlines() if line in wanted] == wanted
        return
    keys = ["Restart", "RestartUSec", "StartLimitBurst", "StartLimitIntervalUSec"]
    wanted = ["on-failure", "5s", "3", "1min"]
    shown = host.check_output(f"systemctl show --property {','.join(keys)} {service.name}")
    assert dict(line.split("=", 1) for line in shown.splitlines()) == dict(zip(keys, wanted))


def test_process_has_no_rights(host: Host, service: Service, pid: int) -> None:
    """The kernel says so, not the unit file."""
    status = proc_status(host, pid)
    assert status["NoNewPrivs"] == "1"
    assert {status["CapEff"], status["CapPrm"]} == {"0" * 16}
    if service.systemd:
        assert (status["Seccomp"], status["CapBnd"]) == ("2", "0" * 16)
    user = int(host.check_output("id -u holdfast"))
    assert {int(number) for number in status["Uid"].split()} == {user} != {0}


@pytest.mark.parametrize("path", ["/etc/x", "/opt/holdfast/x", "/usr/bin/x", "/var/lib/x"])
def test_process_sees_a_read_only_system(host: Host, sandboxed: None, pid: int, path: str) -> None:
    """What is its own to write is data, not programs and not configuration."""
    assert "ro" in mount_of(host, pid, path).options
    assert "rw" in mount_of(host, 1, path).options  # so it is the unit's doing


def test_process_can_write_its_data(host: Host, pid: int, name: str) -> None:
    """The one place on disk."""
    assert "rw" in mount_of(host, pid, f"/var/lib/holdfast/{name}/x").options


def test_process_has_its_own_tmp(host: Host, sandboxed: None, pid: int, service: Service) -> None:
    """A folder that systemd made for this unit, not the one everybody uses."""
    root = mount_of(host, pid, "/tmp/x").root  # noqa: S108 -- that is the one in question
    assert re.fullmatch(rf".*/systemd-private-\w+-{re.escape(service.name)}-\w+/tmp", root)


@pytest.mark.parametrize("path", ["/root/x", "/home/x"])
def test_process_sees_no_homes(host: Host, sandboxed: None, pid: int, path: str) -> None:
    """systemd has put its inaccessible folder there."""
    assert mount_of(host, pid, path).root.endswith("/systemd/inaccessible/dir")


def as_user(host: Host, user: str, command: str) -> Any:
    """Run a command as somebody who may have no shell of their own."""
    return host.run(f"su -s /bin/sh {user} -c '{command}'")


@pytest.mark.parametrize("user", ["nobody", "holdfast"])
def test_validator_key_is_roots_alone(host: Host, name: str, user: str) -> None:
    """Not even the node's own user can read the file: systemd hands it over as a credential."""
    key = host.file(f"/etc/holdfast/{name}/keys/validator.key")
    if name.startswith("o"):
        assert not key.exists  # an observer does not vote
        return
    assert (key.user, key.group, key.mode) == ("root", "root", 0o600)
    refused = as_user(host, user, f"cat {key.path}")
    assert "Permission denied" in refused.stderr
    assert not refused.stdout


def test_tls_key_is_the_nodes_alone(host: Host, name: str) -> None:
    """The node reads it again when it is renewed; nobody else does."""
    key = host.file(f"/etc/holdfast/{name}/tls/current/key.pem")
    real = host.file(key.linked_to)
    assert (real.user, real.group, real.mode) == ("holdfast", "holdfast", 0o600)
    assert "Permission denied" in as_user(host, "nobody", f"cat {key.path}").stderr
    assert as_user(host, "holdfast", f"cat {key.path}").rc == 0


def test_no_private_key_lies_open(host: Host) -> None:
    """No file with a private key is readable to others, wherever it is below our folders."""
    where = "/etc/holdfast /opt/holdfast /var/lib/holdfast"
    found = host.check_output(
        f"find {where} -name '*.key' -o -name '*.pem' | xargs grep -lE 'BEGIN .*PRIVATE KEY'"
    ).split()
    assert found
    open_to_others = [path for path in found if host.file(path).mode & 0o077]
    assert not open_to_others


def test_data_is_the_nodes_alone(host: Host, name: str) -> None:
    """State and votes are nobody else's to read."""
    data = host.file(f"/var/lib/holdfast/{name}")
    assert (data.user, data.mode) == ("holdfast", 0o700)


def test_configuration_is_what_the_node_accepts(host: Host, name: str) -> None:
    """The file on disk passes the node's own check."""
    command = "/opt/holdfast/current/bin/holdfast-node config check"
    checked = host.run(f"{command} /etc/holdfast/{name}/config.toml")
    keys = f"--credentials /etc/holdfast/{name}/keys"
    if not name.startswith("o"):
        checked = host.run(f"{command} /etc/holdfast/{name}/config.toml {keys}")
    assert checked.rc == 0, checked.stdout + checked.stderr
