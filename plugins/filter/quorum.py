# Copyright: (c) 2026, Holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filter: votes that decide."""

from __future__ import annotations

from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.holdfast.chain.plugins.module_utils.quorum import quorum

DOCUMENTATION = r"""
name: quorum
short_description: Votes that decide among a number of validators
version_added: 0.1.0
description:
  - The least number of votes such that any two quorums have an honest validator in common.
  - With n validators and f tolerated faults it is half of n + f, rounded down, plus one. Where
    n is 3f + 1, that is 2f + 1.
positional: _input
options:
  _input:
    description: Number of validators, at least 1.
    type: int
    required: true
author:
  - Holdfast contributors (@holdfast)
seealso:
  - plugin: holdfast.chain.tolerated_faults
    plugin_type: filter
"""

EXAMPLES = r"""
- name: Stop before the network would
  ansible.builtin.assert:
    that: healthy | length >= groups['validators'] | length | holdfast.chain.quorum
"""

RETURN = r"""
_value:
  description: Number of votes.
  type: int
"""


def _quorum(validators: Any) -> int:
    try:
        return quorum(validators)
    except ValueError as error:
        raise AnsibleFilterError(str(error)) from error


class FilterModule:
    """What Ansible loads."""

    def filters(self) -> dict[str, Any]:
        """Name to function."""
        return {"quorum": _quorum}
