# Copyright: (c) 2026, Holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Plans for releases: pure, from what is installed and what is wanted."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.holdfast.chain.plugins.module_utils.release import (
    Installed,
    ReleaseError,
    State,
    Wanted,
    plan,
)

BASE = Path("/opt/holdfast")


def state(*names: str, current: str | None = None, **more) -> State:
    """Releases installed in this order."""
    complete = {name: Installed("hash-" + name, at) for at, name in enumerate(names)}
    return State(BASE, complete, current=current, **more)


def targets(found: State, release: str, state: str = "active", keep: int = 3, sha256=None):
    wanted = Wanted(release, state, sha256 or "hash-" + release, keep)
    return {
        change.target.replace(str(BASE) + "/", ""): (change.before, change.after)
        for change in plan(found, wanted)
    }


def test_a_first_release_is_installed_and_made_active():
    assert targets(state(), "a") == {
        "releases/a": (None, {"sha256": "hash-a"}),
        "current": (None, "a"),
    }


def test_present_installs_and_leaves_the_active_one():
    assert list(targets(state("a", current="a"), "b", "present")) == ["releases/b"]


def test_what_is_installed_and_active_needs_nothing():
    assert not targets(state("a", "b", current="b"), "b")


def test_going_back_is_one_link():
    assert targets(state("a", "b", current="b"), "a") == {"current": ("b", "a")}


def test_another_archive_of_the_same_release_is_installed_again():
    assert targets(state("a", current="a"), "a", sha256="other") == {
        "releases/a": ({"sha256": "hash-a"}, {"sha256": "other"})
    }


def test_an_archive_that_is_not_known_in_check_mode_is_no_difference():
    assert not plan(state("a", current="a"), Wanted("a", "active", None, 3))


def test_an_installation_that_was_cut_short_is_made_again_and_others_removed():
    found = state("a", current="a", incomplete=frozenset({"b", "x"}), debris=("/d/.holdfast-1",))
    assert targets(found, "b") == {
        "releases/b": (None, {"sha256": "hash-b"}),
        "current": ("a", "b"),
        "releases/x": ("installed", None),
        "/d/.holdfast-1": ("left over", None),
    }


def test_only_the_newest_stay():
    found = state("a", "b", "c", "d", current="d")
    assert targets(found, "e") == {
        "releases/e": (None, {"sha256": "hash-e"}),
        "current": ("d", "e"),
        "releases/a": ("installed", None),
        "releases/b": ("installed", None),
    }


def test_the_active_one_and_the_one_before_it_stay_however_old():
    """After going back to the oldest release, the one left is still there to return to."""
    found = state("a", "b", "c", "d", current="d")
    gone = {name for name, (_, after) in targets(found, "a", keep=2).items() if after is None}
    assert gone == {"releases/b", "releases/c"}


def test_the_active_release_is_not_removed():
    with pytest.raises(ReleaseError, match="release = a: it is the active one"):
        targets(state("a", current="a"), "a", "absent")
    assert targets(state("a", "b", current="b"), "a", "absent") == {
        "releases/a": ("installed", None)
    }
    assert not targets(state("b", current="b"), "a", "absent")
