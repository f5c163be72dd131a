# Copyright: (c) 2026, Holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filter: faults a number of validators tolerates."""

from __future__ import annotations

from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.holdfast.chain.plugins.module_utils.quorum import tolerated_faults

DOCUMENTATION = r"""
name: tolerated_faults
short_description: Byzantine faults that a number of validators tolerates
version_added: 0.1.0
description:
  - A third of one less than there are validators, rounded down. As long as no more of them than
    that are down, cut off or hostile, the others go on and agree.
positional: _input
options:
  _input:
    description: Number of validators, at least 1.
    type: int
    required: true
author:
  - Holdfast contributors (@holdfast)
seealso:
  - plugin: holdfast.chain.quorum
    plugin_type: filter
"""

EXAMPLES = r"""
- name: A network that survives the loss of a validator
  ansible.builtin.assert:
    that: groups['validators'] | length | holdfast.chain.tolerated_faults >= 1
"""

RETURN = r"""
_value:
  description: Number of validators that may fail.
  type: int
"""


def _tolerated_faults(validators: Any) -> int:
    try:
        return tolerated_faults(validators)
    except ValueError as error:
        raise AnsibleFilterError(str(error)) from error


class FilterModule:
    """What Ansible loads."""

    def filters(self) -> dict[str, Any]:
        """Name to function."""
        return {"tolerated_faults": _tolerated_faults}
