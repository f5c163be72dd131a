# Copyright: (c) 2026, Holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Fixtures: hosts in directories that run SELinux."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
# faults.py of the other host modules is of use here too
sys.path[:0] = [str(HERE), str(HERE.parent / "hosts")]

from fake_selinux import FakeSelinux, build  # noqa: E402 -- found by the path above


@pytest.fixture(autouse=True)
def no_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests have no power cuts that a sync would be for; kills do not need it."""
    monkeypatch.setattr(os, "fsync", lambda _handle: None)


@pytest.fixture
def selinux(tmp_path: Path) -> FakeSelinux:
    """SELinux, enforcing, of a host in a directory."""
    return build(tmp_path / "host")
