# SPDX-License-Identifier: GPL-3.0-or-later
"""What a machine lacks for the lab and its tools, told by what is on its PATH."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from lab import machine
from lab.shell import BIN


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that holds all programs of the machine, none at first; the lab's is before it."""
    monkeypatch.setattr(machine, "environment", lambda **_more: {"PATH": f"{BIN}:{tmp_path}"})
    monkeypatch.setattr(machine, "PROGRAMS", {"podman": ("podman",), "iproute2": ("ip",)})
    return tmp_path


def put(folder: Path, *names: str) -> None:
    """Programs that can be started."""
    for name in names:
        (folder / name).write_text("#!/bin/sh\n")
        (folder / name).chmod(0o755)


def test_a_machine_with_nothing_lacks_everything(programs: Path) -> None:
    """Podman as well: what the lab calls by its name only finds the real one."""
    assert (BIN / "podman").exists()
    assert not list(programs.iterdir())
    assert machine.missing_packages() == ["podman", "iproute2", "runc"]


def test_what_is_there_is_not_installed_again(programs: Path) -> None:
    """One by one."""
    put(programs, "ip", "runc")
    assert machine.missing_packages() == ["podman"]
    put(programs, "podman")
    assert machine.missing_packages() == []


def test_tools_run_on_a_python_that_is_complete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is installed, which needs root, where another Python of the machine will do."""
    bare = tmp_path / "python3"
    bare.write_text("#!/bin/sh\ncase $2 in *venv*) exit 1 ;; esac\n")
    bare.chmod(0o755)
    monkeypatch.setattr(machine, "PYTHONS", (sys.version_info[:2], sys.version_info[:2]))
    monkeypatch.setattr(machine, "install", lambda packages: pytest.fail(f"installs {packages}"))
    own = f"python3.{sys.version_info[1]}"
    put(tmp_path, own)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr(machine.sys, "executable", str(bare))
    assert machine.python_for_tools() == own
    bare.write_text("#!/bin/sh\n")
    assert machine.python_for_tools() == str(bare)
