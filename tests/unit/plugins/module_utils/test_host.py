# Copyright: (c) 2026, Holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is found out about a host."""

from __future__ import annotations

import importlib.util
import shutil
import sys
from pathlib import Path

import pytest
from ansible_collections.holdfast.chain.plugins.module_utils import host


def interpreter(folder: Path, name: str, version: str) -> None:
    """A program that says it is a Python."""
    path = folder / name
    path.write_text(f"#!/bin/sh\necho {version}\n")
    path.chmod(0o755)


def test_interpreters_the_default_first_then_the_newest(tmp_path):
    for name, version in (
        ("python3", "3.9.2"),
        ("python3.9", "3.9.2"),
        ("python3.12", "3.12.1"),
        ("python3.11", "3.11.2"),
        ("python3.11-config", "3.11.2"),
        ("python3.13", "broken"),
    ):
        interpreter(tmp_path, name, version)
    found = host.interpreters([str(tmp_path), str(tmp_path / "none")])
    assert [item["version"] for item in found] == ["3.9.2", "3.12.1", "3.11.2", "3.9.2"]
    assert host.choose(found) == {"path": str(tmp_path / "python3.12"), "version": "3.12.1"}


def test_the_default_is_taken_if_it_is_new_enough(tmp_path):
    interpreter(tmp_path, "python3", "3.10.4")
    interpreter(tmp_path, "python3.12", "3.12.1")
    assert host.choose(host.interpreters([str(tmp_path)]))["path"] == str(tmp_path / "python3")


def test_none_is_new_enough():
    assert host.choose([{"path": "/usr/bin/python3", "version": "3.9.2"}]) is None
    assert host.choose([]) is None


def test_this_host():
    found = host.describe(sys.executable, ["/", "/nowhere/at/all"])
    assert found["python"]["version"] == "{}.{}.{}".format(*sys.version_info[:3])
    assert found["libc"] in ("glibc", "musl")
    assert found["target_fault"] == ""
    assert found["free_bytes"]["/"] == pytest.approx(shutil.disk_usage("/").free, rel=0.2)
    assert found["free_bytes"]["/nowhere/at/all"] > 0


def test_an_interpreter_that_is_not_there_is_named():
    found = host.describe("/nowhere/python3", [])
    assert found["target"] is None
    assert "at /nowhere/python3; found: none" in found["target_fault"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('ID="centos"\nID_LIKE="rhel fedora"\nVERSION_ID="9"\n', ["centos", "rhel", "fedora"]),
        ("NAME=x\nID=debian\n", ["debian"]),
        ("", []),
    ],
)
def test_distributions(tmp_path, text, expected):
    (tmp_path / "os-release").write_text(text)
    assert host.distributions(str(tmp_path / "os-release")) == expected
    assert host.distributions(str(tmp_path / "none")) == []


def test_a_folder_without_code_is_no_library(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    assert not host.has_library("left_over")
    (tmp_path / "left_over" / "__pycache__").mkdir(parents=True)
    importlib.invalidate_caches()
    assert importlib.util.find_spec("left_over")
    assert not host.has_library("left_over")
    (tmp_path / "left_over" / "__init__.py").write_text("raise RuntimeError('this was run')")
    importlib.invalidate_caches()
    assert host.has_library("left_over")


def test_a_library_behind_such_a_folder_is_found(tmp_path, monkeypatch):
    (tmp_path / "first" / "there").mkdir(parents=True)
    (tmp_path / "second" / "there").mkdir(parents=True)
    (tmp_path / "second" / "there" / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path / "second"))
    monkeypatch.syspath_prepend(str(tmp_path / "first"))
    assert host.has_library("there")


def test_the_module_says_when_it_read_the_clock(run_module):
    facts = run_module("host_facts", {"paths": ["/"]})["ansible_facts"]["holdfast_host"]
    assert facts["time"] > 1.7e9
    assert list(facts["free_bytes"]) == ["/"]
