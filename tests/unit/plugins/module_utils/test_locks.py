# Copyright: (c) 2026, Holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs at the same time keep out of each other's directory, also out of one that is not there."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from ansible_collections.holdfast.chain.plugins.module_utils.files import locked


def test_directory_that_comes_to_be_while_it_is_locked(tmp_path: Path) -> None:
    """Who finds it just made still waits for who made it."""
    directory = tmp_path / "new"
    with locked(directory):
        directory.mkdir()
        with pytest.raises(TimeoutError, match="another run"), locked(directory, 0):
            pass
    with locked(directory, 0):
        pass


def test_one_at_a_time(tmp_path: Path) -> None:
    """Eight at once, each of which makes the directory if it is not there."""
    inside: list[int] = []
    most: list[int] = []

    def run() -> None:
        with locked(tmp_path / "new"):
            inside.append(1)
            most.append(len(inside))
            (tmp_path / "new").mkdir(exist_ok=True)
            inside.pop()

    threads = [threading.Thread(target=run) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 8
