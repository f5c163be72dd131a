# Copyright: (c) 2026, Holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's halves of modules, with the connection stood in for."""

from __future__ import annotations

import types
from pathlib import Path
from typing import Any

import pytest
from ansible.errors import AnsibleActionFail, AnsibleConnectionFailure
from ansible_collections.holdfast.chain.plugins.action import host_facts, node_release


class Host:
    """Answers modules in turn and remembers what was asked of it."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.asked: list = []
        self.copied: list = []
        self.removed: list = []

    def execute(self, module_args: Any = None, **_: Any) -> Any:
        self.asked.append(module_args)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return dict(answer)


@pytest.fixture
def action(monkeypatch):
    """action(module, host, options): what the task returns."""

    def run(module, host: Host, options: dict) -> dict:
        plugin = module.ActionModule.__new__(module.ActionModule)
        plugin._task = types.SimpleNamespace(args=options)
        shell = types.SimpleNamespace(join_path=lambda *parts: "/".join(parts))
        plugin._connection = types.SimpleNamespace(_shell=shell)
        plugin._execute_module = host.execute
        plugin._find_needle = lambda _, needle: needle
        plugin._make_tmp_path = lambda: "/scratch"
        plugin._transfer_file = lambda local, remote: host.copied.append((local, remote))
        plugin._fixup_perms2 = lambda _: None
        plugin._remove_tmp_path = host.removed.append
        monkeypatch.setattr(module.ActionBase, "run", lambda _, **__: {})
        return plugin.run(task_vars={})

    return run


def test_the_clock_is_measured_between_two_readings_of_ours():
    assert host_facts.offset(100.0, 107.0, 104.0) == {"seconds": 5.0, "error": 2.0}


def test_facts_get_the_clock_in_place_of_the_time(action):
    answer = {"ansible_facts": {"holdfast_host": {"time": 0.0, "libc": "musl"}}}
    facts = action(host_facts, Host(answer), {})["ansible_facts"]["holdfast_host"]
    assert facts["libc"] == "musl"
    assert facts["clock"]["seconds"] < -1.7e9
    assert facts["clock"]["error"] >= 0


@pytest.mark.parametrize("answer", [AnsibleConnectionFailure("no route"), {"failed": True}])
def test_a_host_that_cannot_be_asked_is_an_answer_only_on_request(action, answer):
    facts = action(host_facts, Host(answer), {"collect": True})["ansible_facts"]
    assert facts["holdfast_host"]["error"] in ("no route", "it runs no module")
    if isinstance(answer, Exception):
        with pytest.raises(AnsibleConnectionFailure):
            action(host_facts, Host(answer), {})
    else:
        assert action(host_facts, Host(answer), {})["failed"]


def test_an_installed_release_needs_no_archive(action):
    host = Host({"changed": False})
    assert action(node_release, host, {"release": "a", "src": "/a.tar"}) == {"changed": False}
    assert host.asked == [{"release": "a"}]
    assert not host.copied


def test_an_archive_goes_to_the_host_and_is_removed_again(action, tmp_path):
    source = tmp_path / "a.tar"
    for suffix in ("", ".sig"):
        Path(f"{source}{suffix}").write_text("")
    host = Host({"failed": True, "archive_needed": True}, {"changed": True})
    assert action(node_release, host, {"release": "a", "src": str(source)}) == {"changed": True}
    assert host.copied == [
        (str(source), "/scratch/bundle.tar"),
        (f"{source}.sig", "/scratch/bundle.tar.sig"),
    ]
    assert host.asked[1] == {"release": "a", "archive": "/scratch/bundle.tar"}
    assert host.removed == ["/scratch"]


def test_an_archive_without_its_signature_is_not_copied(action):
    host = Host({"failed": True, "archive_needed": True})
    with pytest.raises(AnsibleActionFail, match=r"its signature /a.tar.sig is not there"):
        action(node_release, host, {"release": "a", "src": "/a.tar"})
    assert not host.copied


def test_a_broken_connection_does_not_leave_the_archive(action, tmp_path):
    source = tmp_path / "a.tar"
    Path(f"{source}.sig").write_text("")
    host = Host({"failed": True, "archive_needed": True}, AnsibleConnectionFailure("gone"))
    with pytest.raises(AnsibleConnectionFailure):
        action(node_release, host, {"release": "a", "src": str(source)})
    assert host.removed == ["/scratch"]


def test_other_failures_are_passed_on(action):
    host = Host({"failed": True, "msg": "keep = 1"})
    assert action(node_release, host, {"src": "/a.tar"})["msg"] == "keep = 1"
    assert not host.copied
