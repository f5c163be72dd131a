# Copyright: (c) 2026, Holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Role selinux on hosts that have no tools yet: packages, and check mode."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Callable

import pytest
import yaml
from ansible_collections.holdfast.chain.plugins.module_utils import (
    selinux_apply,
    selinux_host,
    selinux_module,
)
from ansible_collections.holdfast.chain.plugins.module_utils.hostfs import Host, HostError
from ansible_collections.holdfast.chain.plugins.module_utils.selinux_cil import relied_on, render
from ansible_collections.holdfast.chain.plugins.module_utils.selinux_needs import Needs, PortNeed
from ansible_collections.holdfast.chain.plugins.module_utils.selinux_plan import (
    Request,
    WantedFile,
    WantedPort,
)
from fake_selinux import TYPES, FakeSelinux
from jinja2.nativetypes import NativeEnvironment

ROLE = Path(__file__).resolve().parents[3] / "roles" / "selinux"
TOOLS = ["semanage", "semodule"]
NEEDS = Needs("probe", executables=("/opt/x/bin/daemon",), bind=(PortNeed("tcp", 7070, 7070),))
CONTEXT = Request(
    (WantedFile("/srv/www(/.*)?", "a", "httpd_sys_content_t"),),
    (WantedPort("tcp", 8080, 8080, "http_port_t"),),
)
CASES: dict[str, Callable[[FakeSelinux, bool], Any]] = {
    "ports": lambda selinux, check: selinux_apply.run_on(selinux, CONTEXT, check),
    "bind, connect": lambda selinux, check: selinux_module.run_on(
        selinux, selinux_module.Request(NEEDS), check
    ),
}


@pytest.fixture(autouse=True)
def whole_policy(monkeypatch: pytest.MonkeyPatch) -> None:
    """The stand-in knows every type that a module relies on."""
    monkeypatch.setattr("fake_selinux.TYPES", TYPES | relied_on(render(NEEDS)))


@pytest.mark.parametrize("missing", [[], TOOLS])
def test_lists_of_packages_are_fetched_where_there_are_no_tools(missing: list[str]) -> None:
    (task,) = yaml.safe_load((ROLE / "tasks" / "install.yml").read_text(encoding="utf-8"))
    given = task["ansible.builtin.package"]["update_cache"]
    variables = {"selinux_status": {"missing_tools": missing}}
    assert NativeEnvironment().from_string(given).render(variables) is bool(missing)


def test_tools_are_looked_for_where_programs_are(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    host = selinux_host.Selinux(Host())
    assert host.missing_tools() == TOOLS
    (tmp_path / "semodule").touch(0o755)
    assert host.missing_tools() == ["semanage"]


@pytest.mark.parametrize("option", CASES)
def test_check_mode_needs_no_tools_and_says_what_it_does_not_know(
    selinux: FakeSelinux, snapshot: Callable[[Path], Any], option: str
) -> None:
    known, warnings = CASES[option](selinux, True)
    assert warnings == []
    selinux.missing = TOOLS
    before = snapshot(Path(selinux.host.root))
    result, warnings = CASES[option](selinux, True)
    assert snapshot(Path(selinux.host.root)) == before
    assert [one for one in warnings if one.startswith(f"{option}: semanage is not installed")]
    targets = [change["target"] for change in result["changes"]]
    assert targets == [change["target"] for change in known["changes"]]
    with pytest.raises(HostError, match="semanage: not found"):
        CASES[option](selinux, False)
    assert snapshot(Path(selinux.host.root)) == before


def test_what_is_not_known_of_a_port_is_no_reason(selinux: FakeSelinux) -> None:
    selinux.missing = TOOLS
    result, _warnings = CASES["ports"](selinux, True)
    assert result["missing_tools"] == TOOLS
    reasons = {change["target"]: change["reason"] for change in result["changes"]}
    assert "not known without semanage" in reasons["port tcp/8080"]
