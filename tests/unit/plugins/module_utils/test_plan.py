# Copyright: (c) 2026, Holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A plan is what check mode shows: stable, complete, and unable to carry key material."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.holdfast.chain.plugins.module_utils.plan import Change, Plan


def test_an_empty_plan_is_false_and_changes_nothing() -> None:
    assert not Plan()
    assert Plan().result() == {
        "changed": False,
        "changes": [],
        "diff": {"before": "", "after": ""},
    }


def test_result_lists_changes_in_their_order() -> None:
    plan = Plan([Change("b", 1, 2, "wanted")]) + Plan([Change("a", None, "x", "missing")])
    assert plan.result()["changed"] is True
    assert plan.result()["changes"] == [
        {"target": "b", "before": 1, "after": 2, "reason": "wanted"},
        {"target": "a", "before": None, "after": "x", "reason": "missing"},
    ]
    assert len(plan) == 2
    assert [change.target for change in plan] == ["b", "a"]


def test_diff_leaves_out_what_is_absent_and_nests() -> None:
    plan = Plan(
        [
            Change("/etc/a", None, {"mode": "0600", "lines": ["x", "y"]}, "missing"),
            Change("/etc/b", "one\ntwo", None, "surplus"),
        ]
    )
    assert plan.diff() == {
        "before": "/etc/b: |\n  one\n  two\n",
        "after": "/etc/a:\n  lines:\n    - x\n    - y\n  mode: 0600\n",
    }


def test_diff_is_the_same_for_equal_plans_whatever_the_order_of_sets_and_keys() -> None:
    one = Plan([Change("t", {"b": 1, "a": 2}, {"z", "y", "x"}, "r")])
    two = Plan([Change("t", {"a": 2, "b": 1}, {"x", "z", "y"}, "r")])
    assert one.diff() == two.diff()
    assert one.result()["changes"][0]["after"] == ["x", "y", "z"]


@pytest.mark.parametrize("value", ["", "true", " blank", True, None, 0, [], {}])
def test_values_that_look_alike_stay_apart(value: object) -> None:
    """The text true and the value true, nothing and an empty text, are not one line."""
    others = ["", "true", " blank", True, 0, [], {}]
    text = Plan([Change("t", value, 1, "r")]).diff()["before"]
    same = [
        other for other in others if Plan([Change("t", other, 1, "r")]).diff()["before"] == text
    ]
    assert len(same) == (0 if value is None else 1)


def test_paths_become_text_and_bytes_are_refused() -> None:
    assert Plan([Change("t", Path("/a"), None, "r")]).result()["changes"][0]["before"] == "/a"
    with pytest.raises(TypeError, match="bytes"):
        Plan([Change("t", None, b"secret", "r")]).result()
