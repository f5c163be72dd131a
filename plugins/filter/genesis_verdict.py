# Copyright: (c) 2026, Holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What has to happen to the genesis of a network."""

from __future__ import annotations

from typing import Any, Callable, Mapping, Sequence

from ansible_collections.holdfast.chain.plugins.module_utils.genesis import verdict

DOCUMENTATION = r"""
name: genesis_verdict
short_description: Whether to create a genesis, which one to spread, or why neither may happen
version_added: 0.1.0
author:
  - Holdfast contributors (@holdfast)
description:
  - Compares what all hosts of a run have with each other and with the inventory.
positional: hostvars, chain_id, validators
options:
  _input:
    description: Names of the hosts of this run; their variable O(found) is looked at.
    type: list
    elements: str
    required: true
  hostvars:
    description: The variable C(hostvars).
    type: dict
    required: true
  chain_id:
    description: The chain's id.
    type: str
    required: true
  validators:
    description: Names of all validators of the inventory.
    type: list
    elements: str
    required: true
  found:
    description: Name of the variable with the result of M(holdfast.chain.node_genesis).
    type: str
    required: true
  key:
    description: Name of the variable with the result of M(holdfast.chain.node_key).
    type: str
    required: true
"""

EXAMPLES = r"""
- name: Decide
  ansible.builtin.set_fact:
    verdict: >-
      {{ ansible_play_hosts | holdfast.chain.genesis_verdict(hostvars, 'demo',
      groups['validators'], found='genesis', key='key') }}
"""

RETURN = r"""
_value:
  description:
    - C(faults), a list of sentences; C(create), whether one has to be created; C(content), the text
      to spread, or empty; C(validators), public keys by name as far as they are known.
  type: dict
"""


def genesis_verdict(
    hosts: Sequence[str],
    hostvars: Mapping[str, Mapping[str, Any]],
    chain_id: str,
    validators: Sequence[str],
    *,
    found: str,
    key: str,
) -> dict[str, Any]:
    """See DOCUMENTATION."""
    keys = {}
    for name in validators:
        result = hostvars[name].get(key) or {}
        keys[name] = result.get("public_key") if name in hosts else None
    answer = verdict({name: hostvars[name][found] for name in hosts}, chain_id, keys)
    answer["validators"] = keys
    return answer


class FilterModule:
    """Ansible's way to find it."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"genesis_verdict": genesis_verdict}
