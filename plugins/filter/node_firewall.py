# Copyright: (c) 2026, Holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What nodes of the chain need of a firewall."""

from __future__ import annotations

from typing import Any, Callable

from ansible_collections.holdfast.chain.plugins.module_utils.firewall_nodes import node_firewall

DOCUMENTATION = r"""
name: node_firewall
short_description: Services and gates of the nodes on one machine, for the role firewall
version_added: 0.1.0
author:
  - Holdfast contributors (@holdfast)
description:
  - Peers reach a node on its peer port (with a rate limit per source) and its sync port. JSON-RPC
    and GraphQL are for the listed sources. All of them are open only while the node runs and has
    proved its identity in a handshake on its peer port.
positional: api_sources
options:
  _input:
    description: Members on the machine, as P(holdfast.chain.members#filter) has them.
    type: list
    elements: dict
    required: true
  api_sources:
    description: Networks that may use JSON-RPC and GraphQL; none for nobody.
    type: list
    elements: str
    default: []
  service:
    description: The service of a node, with C({name}) for the node's name.
    type: str
    default: holdfast-node@{name}
  directory:
    description: The folder of a node's folder of configuration.
    type: str
    default: /etc/holdfast
  listen:
    description: The address that nodes listen on.
    type: str
    default: 0.0.0.0
  graphql_port:
    description: The port of GraphQL; 0 for none.
    type: int
    default: 8080
  rate:
    description:
      - New connections that one source may make to a peer port, C(per_second) and C(burst). Default
        is 10 and 50.
    type: dict
"""

EXAMPLES = r"""
- name: Let peers reach the nodes of this machine, and one network their API
  ansible.builtin.include_role:
    name: holdfast.chain.firewall
  vars:
    node: "{{ node_members | holdfast.chain.node_firewall(api_sources=['192.0.2.0/24']) }}"
    firewall_services: "{{ node.services }}"
    firewall_gates: "{{ node.gates }}"
"""

RETURN = r"""
_value:
  description: C(services) and C(gates), as M(holdfast.chain.firewall_rules) takes them.
  type: dict
"""


class FilterModule:
    """Ansible's way to find it."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"node_firewall": node_firewall}
