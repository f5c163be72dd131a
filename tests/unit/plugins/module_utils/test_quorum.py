# Copyright: (c) 2026, Holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Quorum arithmetic: what makes it safe and live is tested, not the formula repeated."""

from __future__ import annotations

import pytest
from ansible_collections.holdfast.chain.plugins.module_utils.quorum import quorum, tolerated_faults
from hypothesis import given
from hypothesis import strategies as st

_VALIDATORS = st.integers(min_value=1, max_value=10**6)


@pytest.mark.parametrize(
    ("validators", "faults", "votes"),
    [(1, 0, 1), (2, 0, 2), (3, 0, 2), (4, 1, 3), (5, 1, 4), (6, 1, 4), (7, 2, 5), (10, 3, 7)],
)
def test_known_values(validators: int, faults: int, votes: int) -> None:
    assert tolerated_faults(validators) == faults
    assert quorum(validators) == votes


@given(n=_VALIDATORS)
def test_any_two_quorums_share_an_honest_validator(n: int) -> None:
    assert 2 * quorum(n) - n > tolerated_faults(n)


@given(n=_VALIDATORS)
def test_no_smaller_quorum_does(n: int) -> None:
    assert 2 * (quorum(n) - 1) - n <= tolerated_faults(n)


@given(n=_VALIDATORS)
def test_the_honest_alone_are_a_quorum(n: int) -> None:
    assert n - tolerated_faults(n) >= quorum(n)


@given(f=st.integers(min_value=0, max_value=10**5))
def test_is_two_f_plus_one_of_three_f_plus_one(f: int) -> None:
    assert quorum(3 * f + 1) == 2 * f + 1
    assert tolerated_faults(3 * f + 1) == f


@pytest.mark.parametrize("value", [0, -1, 1.5, "4", None, True, [1, 2]])
def test_anything_but_a_count_is_refused(value: object) -> None:
    for function in (quorum, tolerated_faults):
        with pytest.raises(ValueError, match="validators: "):
            function(value)
