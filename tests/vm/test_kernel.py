# SPDX-License-Identifier: GPL-3.0-or-later
"""kernel_params and its role on a kernel that may refuse, and where every parameter can be set."""

from __future__ import annotations

from lab.vm.guest import Guest
from states import (
    KERNEL_ROLE,
    PROFILE,
    changed_files,
    huge_pages,
    kernel,
    record,
)


def test_a_profile_is_set_once_and_check_mode_touches_nothing(machine: Guest) -> None:
    """Virtual memory and huge pages too, which no container could set."""
    before = kernel(machine)
    assert all(before[name] != PROFILE[name] for name in PROFILE), before
    assert huge_pages(machine) != "never"
    record(machine)
    assert machine.play(KERNEL_ROLE, check=True)["changed"] == 1
    assert changed_files(machine) == []
    assert kernel(machine) == before

    assert machine.play(KERNEL_ROLE)["changed"] == 1
    assert kernel(machine) == PROFILE
    assert huge_pages(machine) == "never"

    record(machine)
    again = machine.play(KERNEL_ROLE)
    assert (again["changed"], again["failed"]) == (0, 0)
    assert changed_files(machine) == []


def test_one_value_the_kernel_refuses_puts_back_all(machine: Guest) -> None:
    """Live values, huge pages and files; the kernel's own reason is in the message."""
    before = kernel(machine), huge_pages(machine)
    record(machine)
    wanted = {**PROFILE, "vm.zone_reclaim_mode": 0, "vm.overcommit_memory": 7}
    result = machine.module(
        "holdfast.chain.kernel_params", {"sysctl": wanted, "transparent_hugepages": "never"}
    )
    assert result["failed"]
    assert "vm.overcommit_memory" in result["msg"]
    assert "Invalid argument" in result["msg"]
    assert len(result["undone"]) > 1
    assert result["not_undone"] == []
    assert (kernel(machine), huge_pages(machine)) == before
    assert changed_files(machine) == []
