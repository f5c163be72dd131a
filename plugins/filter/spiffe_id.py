# Copyright: (c) 2026, Holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filter: the SPIFFE id of a node."""

from __future__ import annotations

from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.holdfast.chain.plugins.module_utils.names import node_spiffe_id

DOCUMENTATION = r"""
name: spiffe_id
short_description: SPIFFE id of a node
version_added: 0.1.0
description:
  - The name by which other nodes know a node, in its certificate.
  - Parts that do not fit into a SPIFFE id are refused.
positional: _input, trust_domain, chain_id
options:
  _input:
    description: Name of the node, usually C(inventory_hostname).
    type: str
    required: true
  trust_domain:
    description: Trust domain of the network, a domain name in lower case with at least one dot.
    type: str
    required: true
  chain_id:
    description: Identifier of the chain.
    type: str
    required: true
author:
  - Holdfast contributors (@holdfast)
"""

EXAMPLES = r"""
# spiffe://chain.example.org/chain/demo/node/v1
- name: Name of this node
  ansible.builtin.debug:
    msg: "{{ 'v1' | holdfast.chain.spiffe_id('chain.example.org', 'demo') }}"
"""

RETURN = r"""
_value:
  description: The SPIFFE id.
  type: str
"""


def _spiffe_id(name: Any, trust_domain: Any, chain_id: Any) -> str:
    try:
        return node_spiffe_id(str(trust_domain), str(chain_id), str(name))
    except ValueError as error:
        raise AnsibleFilterError(str(error)) from error


class FilterModule:
    """What Ansible loads."""

    def filters(self) -> dict[str, Any]:
        """Name to function."""
        return {"spiffe_id": _spiffe_id}
