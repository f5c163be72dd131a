# Copyright: (c) 2026, Holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Quorum arithmetic of Byzantine fault tolerance (Castro and Liskov, 1999). Pure."""

from __future__ import annotations


def tolerated_faults(validators: int) -> int:
    """The f of n: how many of n validators may be arbitrarily wrong, (n - 1) // 3.

    Raises ValueError for anything but a whole number of at least one.
    """
    if isinstance(validators, bool) or not isinstance(validators, int) or validators < 1:
        raise ValueError(
            f"validators: {validators!r}: expected a whole number of at least 1, such as "
            "groups['validators'] | length"
        )
    return (validators - 1) // 3


def quorum(validators: int) -> int:
    """The least number of votes such that any two quorums share an honest validator.

    That is (n + f) // 2 + 1, which is 2f + 1 for n = 3f + 1. For other n, 2f + 1 would be unsafe:
    with n = 6 and f = 1, two quorums of 3 need not even meet. Raises ValueError as
    tolerated_faults.
    """
    return (validators + tolerated_faults(validators)) // 2 + 1
