# SPDX-License-Identifier: GPL-3.0-or-later
"""A node's service, asked in the same words under every service manager."""

from __future__ import annotations

import time
from typing import Any, Callable, TypeVar

Host = Any  # testinfra's Host has no types worth the name
T = TypeVar("T")


def eventually(look: Callable[[], T], seconds: float, what: str) -> T:
    """Look until something true is seen, and return that; AssertionError after that long."""
    deadline = time.monotonic() + seconds
    while not (seen := look()):
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.2)  # between two looks; what is waited for is the condition
    return seen


def nodes(host: Host) -> list[str]:
    """The names of the nodes on a machine."""
    return sorted(str(host.check_output("ls /etc/holdfast")).split())


def has_systemd(host: Host) -> bool:
    """Otherwise the machine has OpenRC."""
    return bool(host.file("/run/systemd/system").exists)


class Service:
    """The service of one node."""

    def __init__(self, host: Host, node: str) -> None:
        self.host = host
        self.node = node
        self.systemd = has_systemd(host)
        self.name = f"holdfast-node@{node}.service" if self.systemd else f"holdfast-node.{node}"

    def pids(self) -> list[int]:
        """The node's processes, without a supervisor's."""
        found = self.host.run(
            f"pgrep -u holdfast -f 'holdfast-node run --config /etc/holdfast/{self.node}/'"
        )
        return [int(pid) for pid in found.stdout.split()]

    def pid(self) -> int:
        """The one process that must be there."""
        (found,) = self.pids()
        return found

    def ask(self, systemd: str, openrc: str) -> Any:
        """Run what the manager of this machine understands."""
        return self.host.run(systemd if self.systemd else openrc)

    def as_itself(self, command: str) -> str:
        """The output of a command of the node's user, who may look into its process.

        In a container root may not.
        """
        return str(self.host.check_output(f"su -s /bin/sh holdfast -c '{command}'"))

    def is_enabled(self) -> bool:
        """Whether it starts at boot."""
        found = self.ask(
            f"systemctl is-enabled {self.name}", f"rc-update show default | grep -w {self.name}"
        )
        return bool(found.rc == 0)

    def state(self) -> str:
        """Started, stopped or failed, in the manager's own word."""
        found = self.ask(
            f"systemctl show --value --property ActiveState {self.name}",
            f"rc-service {self.name} status 2>&1",
        )
        return str(found.stdout.strip())

    def is_running(self) -> bool:
        """Whether the manager says so."""
        return self.state() == "active" if self.systemd else "started" in self.state()

    def has_failed(self) -> bool:
        """Whether the manager gave up and says so."""
        if self.systemd:
            return self.state() == "failed"
        shown = str(self.host.check_output("rc-status --all --nocolor")).splitlines()
        return any(self.name in line and "failed" in line for line in shown)

    def start(self) -> None:
        """Start it, as an operator does, also after the manager gave up."""
        command = f"systemctl reset-failed {self.name}; systemctl start {self.name}"
        if not self.systemd:
            command = f"rc-service {self.name} zap; rc-service {self.name} start"
        self.host.check_output(command)

    def stop(self) -> None:
        """Stop it, and return when it has."""
        self.host.check_output(
            f"systemctl stop {self.name}" if self.systemd else f"rc-service {self.name} stop"
        )

    def log(self) -> str:
        """What the node said, as it is kept on the machine."""
        found = self.ask(
            f"journalctl --no-pager --output cat --unit {self.name}",
            f"cat /var/log/holdfast/{self.node}.log",
        )
        assert found.rc == 0, found.stderr
        return str(found.stdout)

    def status(self) -> str:
        """Everything an operator would look at first."""
        command = f"systemctl status --no-pager {self.name}"
        return str(self.ask(command, f"rc-service {self.name} status").stdout)


def is_ready(host: Host, node: str) -> bool:
    """Whether the node itself says that it is in step with its network."""
    config = host.file(f"/etc/holdfast/{node}/config.toml").content_string
    port = config.partition("[api]")[2].split('"')[1].rpartition(":")[2]
    url = f"http://127.0.0.1:{port}/readyz"
    return bool(
        host.run(f"python3 -c \"import urllib.request as u; u.urlopen('{url}', timeout=5)\"").rc
        == 0
    )
