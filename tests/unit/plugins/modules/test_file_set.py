# Copyright: (c) 2026, Holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Folders and files as one change."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

import pytest

ME = pwd.getpwuid(os.geteuid()).pw_name
MINE = {"owner": ME, "group": ME}


def files(tmp_path: Path, content: str = "a = 1\n", check: list | None = None) -> dict:
    return {
        "folders": [{"path": str(tmp_path / "etc" / "x"), "mode": "0750", **MINE}],
        "files": [
            {
                "path": str(tmp_path / "etc" / "x" / "config"),
                "content": content,
                "check": check or [],
                **MINE,
            },
            {"path": str(tmp_path / "etc" / "x" / "unit"), "content": "u\n", **MINE},
        ],
    }


pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="parents are made for root")


def test_check_apply_apply_check(tmp_path, run_module, snapshot):
    options = files(tmp_path, check=["/usr/bin/grep", "-q", "a = 1", "%s"])
    before = snapshot(tmp_path)
    planned = run_module("file_set", options, check=True)
    assert planned["changed"]
    assert snapshot(tmp_path) == before

    done = run_module("file_set", options)
    assert done["changes"] == planned["changes"]
    folder = tmp_path / "etc" / "x"
    assert done["changed_paths"] == [str(folder), str(folder / "config"), str(folder / "unit")]
    assert folder.stat().st_mode & 0o777 == 0o750
    assert (folder / "config").read_text() == "a = 1\n"

    after = snapshot(tmp_path)
    for check in (False, True):
        assert not run_module("file_set", options, check=check)["changed"]
    assert snapshot(tmp_path) == after


def test_only_what_differs_is_in_the_diff(tmp_path, run_module):
    run_module("file_set", files(tmp_path))
    config = tmp_path / "etc" / "x" / "config"
    config.chmod(0o600)
    done = run_module("file_set", files(tmp_path))
    (change,) = done["changes"]
    assert (change["before"], change["after"]) == ({"mode": "0600"}, {"mode": "0644"})
    assert change["reason"] == "its mode differs"


@pytest.mark.parametrize("fresh", [True, False])
def test_a_content_its_program_refuses_changes_nothing(tmp_path, run_module, snapshot, fresh):
    if not fresh:
        run_module("file_set", files(tmp_path))
    before = snapshot(tmp_path)
    refuse = ["/bin/sh", "-c", 'grep "b = 2" $0 && echo "b = 2: expected 1" && exit 3', "%s"]
    options = files(tmp_path, "b = 2\n", refuse)
    outcome = run_module("file_set", options)
    assert outcome.failed
    assert "b = 2: expected 1" in outcome["msg"]
    without_times = {path: (*found[:3], found[5]) for path, found in before.items()}
    now = {path: (*found[:3], found[5]) for path, found in snapshot(tmp_path).items()}
    assert now == without_times

    rehearsed = run_module("file_set", options, check=True)
    assert rehearsed["changed"]
    (refused,) = rehearsed["refused"]
    assert "b = 2: expected 1" in refused


def test_a_program_that_is_not_there_yet_is_no_fault_in_check_mode_only(tmp_path, run_module):
    options = files(tmp_path, check=["/nowhere/program", "%s"])
    assert not run_module("file_set", options, check=True)["refused"]
    assert run_module("file_set", options).failed
    assert not (tmp_path / "etc").exists()


def test_a_program_is_not_asked_about_what_does_not_change(tmp_path, run_module):
    run_module("file_set", files(tmp_path))
    assert not run_module("file_set", files(tmp_path, check=["/bin/false"])).failed


@pytest.mark.parametrize(
    ("different", "said"),
    [
        ({"mode": "644x"}, "mode = 644x"),
        ({"owner": "nobody-has-this-name"}, "nobody-has-this-name"),
        ({"path": "/"}, "it is no regular file"),
    ],
)
def test_wrong_options_are_named_and_change_nothing(tmp_path, run_module, different, said):
    options = files(tmp_path)
    options["files"][1].update(different)
    outcome = run_module("file_set", options)
    assert outcome.failed
    assert said in outcome["msg"]
    assert not (tmp_path / "etc").exists()
