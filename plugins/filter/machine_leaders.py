# Copyright: (c) 2026, Holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Nodes that share a machine share what is installed on it."""

from __future__ import annotations

from typing import Any, Callable

from ansible_collections.holdfast.chain.plugins.module_utils.members import machine_leaders

DOCUMENTATION = r"""
name: machine_leaders
short_description: The first node on each machine
version_added: 0.1.0
author:
  - Holdfast contributors (@holdfast)
description:
  - Several inventory hosts may be nodes on one machine (the same C(ansible_host)). What is done
    once per machine is done by these.
positional: hostvars
options:
  _input:
    description: Names of inventory hosts, in order.
    type: list
    elements: str
    required: true
  hostvars:
    description: The variable C(hostvars).
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: Do something once per machine
  ansible.builtin.debug:
    msg: here
  when: inventory_hostname in (ansible_play_hosts | holdfast.chain.machine_leaders(hostvars))
"""

RETURN = r"""
_value:
  description: Names, sorted.
  type: list
  elements: str
"""


class FilterModule:
    """Ansible's way to find it."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"machine_leaders": machine_leaders}
