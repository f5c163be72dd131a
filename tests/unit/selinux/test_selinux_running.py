# Copyright: (c) 2026, Holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Daemons that run already when their policy comes, or still when it goes."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, Callable

import pytest
from ansible_collections.holdfast.chain.plugins.module_utils.selinux import SelinuxError
from ansible_collections.holdfast.chain.plugins.module_utils.selinux_cil import relied_on, render
from ansible_collections.holdfast.chain.plugins.module_utils.selinux_module import Request, run_on
from ansible_collections.holdfast.chain.plugins.module_utils.selinux_needs import Needs
from fake_selinux import TYPES, FakeSelinux

NEEDS = Needs("probe", executables=("/opt/x/releases/[^/]+/bin/daemon",))
DAEMON = "/opt/x/releases/1/bin/daemon"
INIT, PROBE = "system_u:system_r:init_t:s0", "system_u:system_r:probe_t:s0"
CURRENT = "/opt/x/current/bin/daemon"


@pytest.fixture(autouse=True)
def whole_policy(monkeypatch: pytest.MonkeyPatch) -> None:
    """The stand-in knows every type that a module relies on."""
    monkeypatch.setattr("fake_selinux.TYPES", TYPES | relied_on(render(NEEDS)))


@pytest.fixture
def selinux(selinux: FakeSelinux) -> FakeSelinux:
    """A host with a release, as pip makes it, that the unit reaches through a link."""
    selinux.host.path("/opt/x/releases/1/bin").mkdir(parents=True)
    selinux.host.path("/opt/x/current").symlink_to("releases/1")
    script = "#!/opt/x/releases/1/bin/python3\nimport sys\n"
    selinux.host.path(DAEMON).write_text(script, encoding="utf-8")
    return selinux


def runs(selinux: FakeSelinux, pid: int, context: str, program: str, *words: str) -> None:
    """A process; of a thread of the kernel, program is empty."""
    folder = selinux.host.path(f"/proc/{pid}")
    (folder / "attr").mkdir(parents=True)
    (folder / "attr" / "current").write_text(context + "\0", encoding="utf-8")
    (folder / "cmdline").write_text("".join(word + "\0" for word in words), encoding="utf-8")
    if program:
        (folder / "exe").symlink_to(program)


def ends(selinux: FakeSelinux, pid: int) -> None:
    (selinux.host.path(f"/proc/{pid}") / "exe").unlink()


def apply(
    selinux: FakeSelinux, needs: Needs = NEEDS, check: bool = False, **options: Any
) -> tuple[dict[str, Any], list[str]]:
    return run_on(selinux, Request(needs, **options), check)


def test_a_daemon_that_ran_before_its_policy_is_told_to_be_restarted(selinux: FakeSelinux) -> None:
    python = "/opt/x/releases/1/bin/python3"
    runs(selinux, 2, "system_u:system_r:kernel_t:s0", "")
    runs(selinux, 30, INIT, "/usr/bin/python3.11", python, CURRENT, "run")
    runs(selinux, 31, INIT, DAEMON + " (deleted)", "daemon")
    runs(selinux, 32, INIT, "/usr/bin/vi", "vi", CURRENT)
    runs(selinux, 33, INIT, "/usr/bin/python3.11", python, "/opt/x/other")
    runs(selinux, 34, PROBE, "/usr/bin/python3.11", python, CURRENT, "run")
    runs(selinux, 35, "", DAEMON, "daemon")  # has ended
    wanted = [
        {"pid": 30, "program": DAEMON, "context": INIT},
        {"pid": 31, "program": DAEMON, "context": INIT},
    ]
    for check in (True, False, False):  # also when the policy is there since an earlier run
        result, warnings = apply(selinux, check=check)
        assert result["restart_needed"] is True
        assert result["processes"] == wanted
        assert f"30 ({DAEMON}), 31 ({DAEMON}) started outside of probe_t" in warnings[-1]
    for pid in (30, 31):
        ends(selinux, pid)
    result, warnings = apply(selinux)
    assert (result["restart_needed"], result["processes"], warnings) == (False, [], [])


def test_what_systemd_does_not_confine_is_not_to_be_restarted(selinux: FakeSelinux) -> None:
    runs(selinux, 31, INIT, DAEMON, "daemon")
    by_hand = dataclasses.replace(NEEDS, from_init=False)
    assert apply(selinux, by_hand)[0]["restart_needed"] is False


def test_a_domain_is_not_taken_from_under_a_running_daemon(
    selinux: FakeSelinux, snapshot: Callable[[Path], Any]
) -> None:
    apply(selinux)
    runs(selinux, 34, PROBE, "/usr/bin/python3.11", "python3", CURRENT, "run")
    runs(selinux, 35, INIT, "/usr/bin/python3.11", "python3", "x")
    before = snapshot(Path(selinux.host.root))
    for check in (True, False):
        with pytest.raises(SelinuxError, match=r"run in probe_t: 34 \(/usr/bin/python.*force"):
            apply(selinux, Needs("probe"), check=check, present=False)
    assert snapshot(Path(selinux.host.root)) == before
    result, warnings = apply(selinux, Needs("probe"), present=False, force=True)
    assert result["changed"] is True
    assert result["restart_needed"] is False
    assert "state absent: these processes lose their domain: 34" in result["forced"][0]
    assert "34" in warnings[0]
    again, warnings = apply(selinux, Needs("probe"), present=False)
    assert (again["changed"], warnings) == (False, []), "what is absent takes nothing away"
