# SPDX-License-Identifier: GPL-3.0-or-later
"""What holds after a real reboot, when the machine's own programs have set it again."""

from __future__ import annotations

from lab.vm.guest import Guest
from states import (
    DAEMON,
    KERNEL_ROLE,
    LIMITS_ROLE,
    PROFILE,
    WANTED_LIMITS,
    huge_pages,
    kernel,
    service_limits,
    session_limits,
)


def test_profile_and_limits_hold_after_a_reboot(machine: Guest) -> None:
    """And the roles find nothing to change."""
    machine.sh(DAEMON)
    both = {"roles": KERNEL_ROLE["roles"] + LIMITS_ROLE["roles"]}
    assert machine.play(both)["changed"] == 2
    boot = machine.sh("cat /proc/sys/kernel/random/boot_id")

    machine.reboot()

    assert machine.sh("cat /proc/sys/kernel/random/boot_id") != boot
    assert machine.sh("systemctl list-units --failed --plain --no-legend") == ""
    assert kernel(machine) == PROFILE
    assert huge_pages(machine) == "never"
    assert service_limits(machine) == WANTED_LIMITS
    assert session_limits(machine) == WANTED_LIMITS
    again = machine.play(both)
    assert (again["changed"], again["failed"]) == (0, 0)
