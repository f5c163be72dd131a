# Copyright: (c) 2026, Holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""kernel_params: whatever fails or kills it, the host is as before or the next run repairs it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Callable

import pytest
from ansible_collections.holdfast.chain.plugins.module_utils.sysctl_apply import run
from ansible_collections.holdfast.chain.plugins.module_utils.sysctl_plan import Request, wishes_of
from ansible_collections.holdfast.chain.plugins.module_utils.transaction import TransactionError
from fake_host import FakeHost, build
from faults import DiskFullError, at_each_call, failing_at, killed_at, numbers

OWN = "/etc/sysctl.d/90-holdfast.conf"
REQUEST = Request(
    file=OWN,
    wishes=wishes_of(
        {"vm.swappiness": 1, "net.ipv4.ip_forward": 1, "vm.dirty_bytes": 1048576}, True
    ),
    switches={"enabled": "never"},
)
NOTHING = Request(file=OWN, wishes={}, switches={})


def prepared(root: Path, init: str) -> FakeHost:
    host = build(root, init)
    host.put(OWN, "# mine\nvm.swappiness = 10\nvm.max_map_count = 5\n")
    host.write_kernel("/proc/sys/net/ipv4/conf/lo/forwarding", "1")
    if init == "openrc":
        host.path("/etc/runlevels/boot/sysctl").unlink()
    return host


@pytest.mark.parametrize("init", ["systemd", "openrc"])
def test_a_failure_at_any_step_leaves_the_host_as_it_was(tmp_path: Path, init: str) -> None:
    failed = 0
    host = prepared(tmp_path / "0", init)
    before = host.everything()
    for number in numbers():
        with pytest.MonkeyPatch.context() as patch:
            done = at_each_call(patch, host, failing_at(number))
            try:
                _result, warnings = run(host, REQUEST, check=False)
            except (TransactionError, DiskFullError):
                failed += 1
                assert host.everything() == before, f"call {number}"
                continue
        assert host.parameter("vm/dirty_bytes") == "1048576"
        if done() < number:
            break  # it ended before the fault could strike
        assert warnings, f"call {number} failed, and nobody was told"
        host = prepared(tmp_path / str(number), init)
    assert failed > 20


@pytest.mark.parametrize("init", ["systemd", "openrc"])
def test_killed_at_any_step_the_next_run_repairs_and_says_so(
    tmp_path: Path, init: str, snapshot: Callable[[Path], Any]
) -> None:
    whole = prepared(tmp_path / "whole", init)
    run(whole, REQUEST, check=False)
    wanted = whole.everything()
    host = prepared(tmp_path / "0", init)
    before = host.everything()
    told = 0
    for number in numbers():
        if not killed_at(number, host, lambda host=host: run(host, REQUEST, check=False)):
            break
        left = host.everything()
        bytes_left = snapshot(Path(host.root))
        promised = run(host, NOTHING, check=True)[0]
        assert snapshot(Path(host.root)) == bytes_left, "check mode touched the host"
        result = run(host, NOTHING, check=False)[0]
        assert result["changes"] == promised["changes"]
        after = host.everything()
        assert after in (before, wanted), f"killed before call {number}"
        if after == wanted:  # it had got to the end
            host = prepared(tmp_path / str(number), init)
        elif any(left[name] != before[name] for name in before if name[:5] in ("/proc", "/sys/")):
            assert result["repaired"], "it repaired, and said nothing"
            told += 1
    assert number > 20
    assert told > 3
    run(host, REQUEST, check=False)
    assert host.everything() == wanted


def test_killed_and_run_again_it_ends_as_wanted(tmp_path: Path) -> None:
    whole = prepared(tmp_path / "whole", "systemd")
    run(whole, REQUEST, check=False)
    for number in range(1, 60, 4):
        host = prepared(tmp_path / str(number), "systemd")
        killed_at(number, host, lambda host=host: run(host, REQUEST, check=False))
        run(host, REQUEST, check=False)
        assert host.everything() == whole.everything()
        assert run(host, REQUEST, check=False)[0]["changed"] is False


def _kill_midway(host: FakeHost) -> None:
    """Killed when the kernel has the new values and the file is still the old one."""
    for number in numbers():
        assert killed_at(number, host, lambda: run(host, REQUEST, check=False))
        changed = host.parameter("vm/swappiness") == "1"
        if changed and "max_map_count" in (host.read(OWN) or ""):
            return
        run(host, NOTHING, check=False)


def test_a_repair_that_is_killed_is_finished_by_the_next_run(tmp_path: Path) -> None:
    host = prepared(tmp_path, "systemd")
    before = host.everything()
    killed = 0
    for number in numbers():
        _kill_midway(host)
        if not killed_at(number, host, lambda: run(host, NOTHING, check=False)):
            break
        killed += 1
        run(host, NOTHING, check=False)
        assert host.everything() == before, f"repair killed before call {number}"
    assert killed > 5


def test_a_repair_of_one_parameter_killed_before_what_it_reaches(tmp_path: Path) -> None:
    one = Request(file=OWN, wishes=wishes_of({"net.ipv4.ip_forward": 1}, True), switches={})
    host = prepared(tmp_path, "systemd")
    before = host.everything()
    killed = 0
    for number in numbers():
        for step in numbers():
            assert killed_at(step, host, lambda: run(host, one, check=False))
            if host.parameter("net/ipv4/ip_forward") == "1":
                break
        if not killed_at(number, host, lambda: run(host, NOTHING, check=False)):
            break
        killed += 1
        run(host, NOTHING, check=False)
        assert host.everything() == before, f"repair killed before call {number}"
    assert killed > 3


def test_what_somebody_changed_since_is_left_alone(tmp_path: Path) -> None:
    host = prepared(tmp_path, "systemd")
    _kill_midway(host)
    host.write_kernel("/proc/sys/vm/swappiness", "33")
    _result, warnings = run(host, NOTHING, check=False)
    assert host.parameter("vm/swappiness") == "33"
    assert any("vm/swappiness" in text and "somebody else" in text for text in warnings)
    assert host.parameter("vm/dirty_ratio") == "20"


def test_after_a_reboot_only_files_are_repaired(tmp_path: Path) -> None:
    host = prepared(tmp_path, "systemd")
    _kill_midway(host)
    host.path("/proc/sys/kernel/random/boot_id").chmod(0o644)
    host.put("/proc/sys/kernel/random/boot_id", "8e5a0b3c-0000-4000-8000-000000000002\n", 0o444)
    result = run(host, NOTHING, check=False)[0]
    assert result["repaired"] == []
    assert host.parameter("vm/swappiness") == "1"
    assert not host.path("/var/lib/holdfast.chain").exists()


def test_an_undo_that_fails_is_named_and_repaired_by_the_next_run(tmp_path: Path) -> None:
    host = prepared(tmp_path, "systemd")
    before = host.everything()
    host.shows["vm/swappiness"] = lambda value: "2" if value == "1" else value
    stuck = {"vm/dirty_ratio": 5}
    real = host.before_write

    def stick(name: str) -> None:
        if name.endswith("vm/dirty_ratio"):
            raise OSError(5, "Input/output error", name)
        real(name)

    host.before_write = stick
    with pytest.raises(TransactionError) as caught:
        run(host, REQUEST, check=False)
    assert any("vm.dirty_bytes" in step for step in caught.value.not_undone), stuck
    host.before_write = real
    host.shows.clear()
    assert run(host, NOTHING, check=False)[0]["repaired"] == ["vm.dirty_bytes"]
    assert host.everything() == before
