# SPDX-License-Identifier: GPL-3.0-or-later
"""ulimits and its role with a root that has CAP_SYS_RESOURCE, which containers lack."""

from __future__ import annotations

from lab.vm.guest import Guest
from states import (
    DAEMON,
    LIMITS_ROLE,
    WANTED_LIMITS,
    changed_files,
    record,
    service_limits,
    session_limits,
)


def test_a_running_service_gets_limits_in_place(machine: Guest) -> None:
    """The same process has them, without a restart, and so has the next one."""
    machine.sh(DAEMON)
    process = machine.sh("systemctl show -P MainPID daemon")
    before = service_limits(machine)
    assert all(before[name] != WANTED_LIMITS[name] for name in WANTED_LIMITS), before
    record(machine)
    assert machine.play(LIMITS_ROLE, check=True)["changed"] == 1
    assert changed_files(machine) == []
    assert service_limits(machine) == before

    assert machine.play(LIMITS_ROLE)["changed"] == 1
    assert machine.sh("systemctl show -P MainPID daemon") == process
    assert service_limits(machine) == WANTED_LIMITS
    assert session_limits(machine) == WANTED_LIMITS

    again = machine.play(LIMITS_ROLE)
    assert (again["changed"], again["failed"]) == (0, 0)
    machine.sh("systemctl restart daemon")
    assert service_limits(machine) == WANTED_LIMITS


def test_more_files_than_the_kernel_allows_are_refused(machine: Guest) -> None:
    """With its number, before anything changes; PAM would lock the user out."""
    machine.sh(DAEMON)
    ceiling = machine.sh("cat /proc/sys/fs/nr_open")
    record(machine)
    arguments = {"service": "daemon", "user": "worker", "limits": {"nofile": int(ceiling) + 1}}
    result = machine.module("holdfast.chain.ulimits", arguments)
    assert result["failed"]
    assert ceiling in result["msg"]
    assert changed_files(machine) == []
