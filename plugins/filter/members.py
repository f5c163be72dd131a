# Copyright: (c) 2026, Holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an inventory says of its network."""

from __future__ import annotations

from typing import Any, Callable

from ansible_collections.holdfast.chain.plugins.module_utils.members import members

DOCUMENTATION = r"""
name: members
short_description: The members of a network, with what their peers need to know of them
version_added: 0.1.0
author:
  - Holdfast contributors (@holdfast)
description:
  - One inventory host is one node; those in the group C(chain) are members, with their role from
    the group C(validators) or C(observers).
positional: hostvars
options:
  _input:
    description: The variable C(groups).
    type: dict
    required: true
  hostvars:
    description: The variable C(hostvars).
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: Show the validators' addresses
  ansible.builtin.debug:
    msg: >-
      {{ groups | holdfast.chain.members(hostvars) | selectattr('role', 'eq', 'validator')
      | map(attribute='address') }}
"""

RETURN = r"""
_value:
  description:
    - Members sorted by name, each with C(name), C(role), C(address), C(p2p_port), C(sync_port),
      C(api_port), C(dns), C(ip), and C(machine), which nodes on one machine share.
  type: list
  elements: dict
"""


class FilterModule:
    """Ansible's way to find it."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"members": members}
