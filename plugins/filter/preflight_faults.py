# Copyright: (c) 2026, Holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""All faults of an inventory at once."""

from __future__ import annotations

from typing import Any, Callable, Mapping, Sequence

from ansible_collections.holdfast.chain.plugins.module_utils import preflight

DOCUMENTATION = r"""
name: preflight_faults
short_description: The faults of a network's inventory, as text
version_added: 0.1.0
author:
  - Holdfast contributors (@holdfast)
description:
  - Judges the inventory as a whole and what M(holdfast.chain.host_facts) found on its hosts.
positional: hostvars, hosts
options:
  _input:
    description: The variable C(groups).
    type: dict
    required: true
  hostvars:
    description: The variable C(hostvars).
    type: dict
    required: true
  hosts:
    description: Names of the hosts of this run, whose facts are judged too.
    type: list
    elements: str
    required: true
  minimum_validators:
    description: Fewer validators than this are a fault.
    type: int
    default: 4
  clock_seconds:
    description: How far a host's clock may be from the controller's.
    type: float
    default: 5
  free_megabytes:
    description: Room there must be in each place that was measured.
    type: int
    default: 1024
  python_installed_on:
    description: Distributions (or what they are like) a fitting Python is going to be installed on.
    type: list
    elements: str
    default: []
"""

EXAMPLES = r"""
- name: Refuse a faulty inventory
  ansible.builtin.assert:
    that: faults == ''
    fail_msg: "{{ faults }}"
  vars:
    faults: "{{ groups | holdfast.chain.preflight_faults(hostvars, ansible_play_hosts) }}"
"""

RETURN = r"""
_value:
  description: One line per fault; empty if there is none.
  type: str
"""


def preflight_faults(
    groups: Mapping[str, Sequence[str]],
    hostvars: Mapping[str, Mapping[str, Any]],
    hosts: Sequence[str],
    *,
    minimum_validators: int = 4,
    clock_seconds: float = 5,
    free_megabytes: int = 1024,
    python_installed_on: Sequence[str] = (),
) -> str:
    """See DOCUMENTATION."""
    facts = {name: hostvars[name]["ansible_facts"]["holdfast_host"] for name in hosts}
    return preflight.report(
        preflight.faults(
            groups,
            hostvars,
            facts,
            {
                "minimum_validators": int(minimum_validators),
                "clock_seconds": float(clock_seconds),
                "free_megabytes": int(free_megabytes),
                "python_packaged": [
                    name
                    for name, found in facts.items()
                    if set(found.get("distributions", [])) & set(python_installed_on)
                ],
            },
        )
    )


class FilterModule:
    """Ansible's way to find it."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"preflight_faults": preflight_faults}
