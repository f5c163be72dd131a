# SPDX-License-Identifier: GPL-3.0-or-later
"""The power goes in the middle of an apply: what had not been synced is gone, files included."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from lab.vm.guest import Guest
from states import huge_pages

HALT = Path(__file__).with_name("halt.py")
FILE = "/etc/sysctl.d/90-holdfast.conf"
PAGES_FILE = "/etc/tmpfiles.d/90-holdfast-hugepages.conf"
MODULE = "holdfast.chain.kernel_params"
WANTED = {
    "sysctl": {"vm.swappiness": 1, "net.core.somaxconn": 65535},
    "transparent_hugepages": "never",
}
# An earlier profile; and a Python that stands still at a call, for Ansible to run the module with.
BEFORE = f"""\
echo 'vm.swappiness = 30' >{FILE}
sysctl -q -w vm.swappiness=30
mkdir /root/halt
cat >/root/halt/sitecustomize.py
mkfifo /root/halt/pipe
cat >/root/halt/python <<'SCRIPT'
#!/bin/sh
HALT_AT="$(cat /root/halt/at)" HALT_PIPE=/root/halt/pipe PYTHONPATH=/root/halt \
exec /usr/bin/python3 "$@"
SCRIPT
chmod +x /root/halt/python
sync
"""


def state(machine: Guest) -> tuple[str, str, str]:
    """What the kernel has: swappiness, backlog, huge pages."""
    shown = machine.sh("cd /proc/sys; cat vm/swappiness net/core/somaxconn").split()
    return shown[0], shown[1], huge_pages(machine)


def cut_at(machine: Guest, call: str) -> None:
    """Start the module, wait until it is about to make the call, and take the power away."""
    machine.sh("cat >/root/halt/at; sync", text=call)
    interpreter = {"ansible_python_interpreter": "/root/halt/python"}
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(machine.module, MODULE, WANTED, variables=interpreter)
        assert machine.sh("cat /root/halt/pipe") == "reached"
        assert state(machine) == ("1", "65535", "never"), "the kernel has the new values by now"
        machine.sh("echo unsynced >/root/lost")
        machine.power_cut()
        assert running.result()["unreachable"], "the module was to be in the middle"
    assert machine.sh("cat /root/lost || :") == "", "a power cut that loses nothing shows nothing"
    assert machine.sh("systemctl list-units --failed --plain --no-legend") == ""


def run_again(machine: Guest) -> dict[str, Any]:
    """The next run, after which all must be as wanted, with nothing left to do or to tidy."""
    result = machine.module(MODULE, WANTED)
    assert not result["failed"], result
    assert state(machine) == ("1", "65535", "never")
    assert machine.module(MODULE, WANTED)["changed"] is False
    left = machine.sh(f"ls -A $(dirname {FILE}) $(dirname {PAGES_FILE}) /var/lib; true")
    assert "holdfast" not in left.replace(Path(FILE).name, "").replace(Path(PAGES_FILE).name, "")
    return result


@pytest.fixture
def prepared(machine: Guest) -> Guest:
    """The machine with an earlier profile."""
    machine.sh(BEFORE, text=HALT.read_text())
    assert state(machine) == ("30", "4096", "always")
    return machine


def test_before_the_first_file_is_in_place(prepared: Guest) -> None:
    """The new text lies beside it, synced; the next boot reads the old file, whole."""
    cut_at(prepared, f"replace {FILE}")
    assert state(prepared) == ("30", "4096", "always")
    assert prepared.sh(f"cat {FILE}") == "vm.swappiness = 30"
    result = run_again(prepared)
    assert result["changed"]


def test_between_two_files(prepared: Guest) -> None:
    """A boot with half of the profile; the next run takes that back, says so, and sets it all."""
    cut_at(prepared, f"replace {PAGES_FILE}")
    assert state(prepared) == ("1", "65535", "always")
    result = run_again(prepared)
    assert any(FILE in line for line in result["repaired"]), result["repaired"]


def test_when_only_the_journal_is_left(prepared: Guest) -> None:
    """All was done: the next run has nothing to repair and nothing to change."""
    cut_at(prepared, "unlink .undo")
    assert state(prepared) == ("1", "65535", "never")
    result = run_again(prepared)
    assert (result["changed"], result["repaired"]) == (False, [])
