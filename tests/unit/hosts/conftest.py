# Copyright: (c) 2026, Holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Fixtures for modules that change hosts: hosts in directories."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Callable

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

from fake_host import FakeHost, build


@pytest.fixture(autouse=True)
def no_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests have no power cuts that a sync would be for; kills do not need it."""
    monkeypatch.setattr(os, "fsync", lambda _handle: None)


@pytest.fixture
def make_host(tmp_path: Path) -> Callable[[str], FakeHost]:
    """A new host with an init system: make_host("systemd")."""
    return lambda init: build(tmp_path / "host", init)


@pytest.fixture
def host(make_host: Callable[[str], FakeHost]) -> FakeHost:
    """A host with systemd."""
    return make_host("systemd")


@pytest.fixture
def alpine(make_host: Callable[[str], FakeHost]) -> FakeHost:
    """A host with OpenRC and BusyBox."""
    return make_host("openrc")
