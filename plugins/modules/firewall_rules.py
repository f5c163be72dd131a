#!/usr/bin/python
# Copyright: (c) 2026, Holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: firewall_rules
short_description: Let in a group of services, only while they run, and never lock oneself out
version_added: 0.1.0
author:
  - Holdfast contributors (@holdfast)
description:
  - Lets in a whole group of services in one task, with a rate limit per source, with sources, and
    with gates that open ports only while a service runs and passes a check of its own.
  - Rules are one table of nftables, C(inet holdfast), loaded in one step. Tables of others are
    never touched. Where firewalld is the firewall, a policy of its own named C(holdfast) lets in
    what the table does not drop. Zones are never touched.
  - Refuses, before anything changes, rules that would cut the SSH connection it came over.
  - A change of rules that nobody confirms over a new connection, with O(state=confirmed), is undone
    by the host itself after O(confirm_within) seconds, also if this module is killed. What decides
    about the next boot is only written at the confirmation, so that a boot undoes it as well.
extends_documentation_fragment:
  - holdfast.chain.attributes
options:
  services:
    description:
      - What is let in. What the host itself asks itself (loopback), answers, and the ICMP that IP
        needs are always let in.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Its name, of lower-case letters, digits and C(_).
        type: str
        required: true
      ports:
        description: Ports, or ranges such as V(9000-9010).
        type: list
        elements: str
        required: true
      protocol:
        description: The protocol.
        type: str
        choices: [tcp, udp]
        default: tcp
      sources:
        description:
          - Networks that are let in. An empty list lets in nobody; without the option everybody is
            let in.
        type: list
        elements: str
      rate:
        description:
          - New connections that one source may make. What is above is dropped. A source is an
            address, in IPv6 a /64.
        type: dict
        suboptions:
          per_second:
            description: In the long run.
            type: int
            required: true
          burst:
            description: At once.
            type: int
            required: true
      gate:
        description: The gate in O(gates) that its ports depend on. Without one they are open.
        type: str
  gates:
    description:
      - Services of the host that open ports when they start and close them when they end, however
        they end.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Its name.
        type: str
        required: true
      service:
        description: The service, such as V(postgresql@15-main) or V(holdfast-node@v1).
        type: str
        required: true
      check:
        description:
          - A command that passes once the service is fit to be reached. It may only look. Without
            one the gate opens when the service has started.
          - C(/usr/local/sbin/holdfast-handshake --address HOST:PORT --identity FOLDER) shakes hands
            with a mutual TLS listener, which has to prove the names of the identity in the folder
            (C(chain.pem), C(key.pem), C(ca.pem)) by a certificate of its CA.
        type: list
        elements: str
      wait:
        description:
          - Seconds that the start of the service waits for the check. After that the gate stays
            closed, the service goes on, and the check is tried in the background until it passes.
        type: float
        default: 5
  management_networks:
    description: Networks that may reach O(management_ports). None for everybody.
    type: list
    elements: str
    default: []
  management_ports:
    description: TCP ports of SSH.
    type: list
    elements: str
    default: ['22']
  policy:
    description:
      - What becomes of everything that is not listed. Under firewalld, V(accept) leaves it to the
        zones.
    type: str
    choices: [drop, accept]
    default: drop
  backend:
    description:
      - The firewall. V(auto) is firewalld where it is active and on the RHEL family, and nftables
        elsewhere.
    type: str
    choices: [auto, nftables, firewalld]
    default: auto
  confirm_within:
    description:
      - Seconds after which a change of rules is undone unless it is confirmed, 10 to 60. V(0) asks
        for no confirmation.
    type: int
    default: 45
  state:
    description:
      - V(absent) removes all that this module made. Neither firewalld nor nftables is disabled.
      - V(confirmed) confirms the change of an earlier task. It has to come over another connection
        (C(reset_connection) of M(ansible.builtin.meta)); the options above do not matter.
    type: str
    choices: [present, absent, confirmed]
    default: present
notes:
  - Needs the program C(nft), and firewalld for that backend.
  - A rule set that firewalld has to load makes it read its files again, which ends what others have
    set there without C(--permanent).
  - Over a connection that is not SSH (a container's), a confirmation only shows that the host still
    works.
seealso:
  - module: holdfast.chain.kernel_params
"""

EXAMPLES = r"""
- name: A node's ports while it runs, its API from two networks, SSH from one
  holdfast.chain.firewall_rules:
    services:
      - name: p2p
        ports: [30303, 30304]
        rate: {per_second: 10, burst: 50}
        gate: node
      - name: api
        ports: [8545]
        sources: [192.0.2.0/24, 2001:db8:7::/48]
        gate: node
    gates:
      - name: node
        service: holdfast-node@v1
        check:
          - /usr/local/sbin/holdfast-handshake
          - --address=127.0.0.1:30303
          - --identity=/etc/holdfast/v1/tls/current
    management_networks: [198.51.100.0/24]
  register: rules

- name: Come over a new connection
  ansible.builtin.meta: reset_connection

- name: Confirm that the host can still be reached
  holdfast.chain.firewall_rules:
    state: confirmed

- name: A web server, with no confirmation, in an image that is being built
  holdfast.chain.firewall_rules:
    services:
      - name: web
        ports: [80, 443]
    confirm_within: 0

- name: Take it all back
  holdfast.chain.firewall_rules:
    state: absent
    confirm_within: 0
"""

RETURN = r"""
changes:
  description: What was, or in check mode would be, changed.
  returned: success
  type: list
  elements: dict
  contains:
    target:
      description: A file, the table, a service at boot, or a gate.
      type: str
    before:
      description: What was there; null if nothing was.
      type: raw
    after:
      description: What is there now; null if it was removed.
      type: raw
    reason:
      description: Why.
      type: str
pending:
  description: Whether the change has to be confirmed, or is undone.
  returned: success
  type: bool
confirm_within:
  description: Seconds that are left for that.
  returned: success, unless state is V(confirmed)
  type: int
backend:
  description: The firewall that is used, V(nftables) or V(firewalld).
  returned: success, unless state is V(confirmed)
  type: str
gates:
  description: Gates by name, each with C(service), C(running), C(open), and C(reason) if it is
    closed although its service runs.
  returned: success, unless state is V(confirmed)
  type: dict
repaired:
  description: What was put back of an earlier change that was cut short, or never confirmed.
  returned: success, unless state is V(confirmed)
  type: list
  elements: str
undone:
  description: Steps that were taken back.
  returned: failure
  type: list
  elements: str
not_undone:
  description: Steps that could not be taken back, with why.
  returned: failure
  type: list
  elements: str
"""

import sys
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.holdfast.chain.plugins.module_utils.firewall import FirewallError, profile
from ansible_collections.holdfast.chain.plugins.module_utils.firewall_apply import EMPTY, run
from ansible_collections.holdfast.chain.plugins.module_utils.firewall_plan import Request
from ansible_collections.holdfast.chain.plugins.module_utils.firewall_read import (
    FirewallHost as Host,
)
from ansible_collections.holdfast.chain.plugins.module_utils.firewall_read import programs
from ansible_collections.holdfast.chain.plugins.module_utils.hostfs import HostError
from ansible_collections.holdfast.chain.plugins.module_utils.transaction import TransactionError


def request_of(params: dict[str, Any]) -> Request:
    """The options of a task, checked; FirewallError names the one that is wrong."""
    within = params["confirm_within"]
    if within != 0 and not 10 <= within <= 60:
        raise FirewallError(f"confirm_within = {within}: expected 10 to 60 seconds, or 0 for none")
    present = params["state"] == "present"
    return Request(
        profile=profile(params) if present else EMPTY,
        backend=params["backend"],
        present=present,
        confirm_within=within,
        programs=programs(sys.executable),
    )


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "services": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    "name": {"type": "str", "required": True},
                    "ports": {"type": "list", "elements": "str", "required": True},
                    "protocol": {"type": "str", "choices": ["tcp", "udp"], "default": "tcp"},
                    "sources": {"type": "list", "elements": "str"},
                    "rate": {
                        "type": "dict",
                        "options": {
                            "per_second": {"type": "int", "required": True},
                            "burst": {"type": "int", "required": True},
                        },
                    },
                    "gate": {"type": "str"},
                },
            },
            "gates": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    "name": {"type": "str", "required": True},
                    "service": {"type": "str", "required": True},
                    "check": {"type": "list", "elements": "str"},
                    "wait": {"type": "float", "default": 5},
                },
            },
            "management_networks": {"type": "list", "elements": "str", "default": []},
            "management_ports": {"type": "list", "elements": "str", "default": ["22"]},
            "policy": {"type": "str", "choices": ["drop", "accept"], "default": "drop"},
            "backend": {
                "type": "str",
                "choices": ["auto", "nftables", "firewalld"],
                "default": "auto",
            },
            "confirm_within": {"type": "int", "default": 45},
            "state": {
                "type": "str",
                "choices": ["present", "absent", "confirmed"],
                "default": "present",
            },
        },
        supports_check_mode=True,
    )
    confirming = module.params["state"] == "confirmed"
    try:
        request = request_of(module.params)
        result, warnings = run(Host(), request, module.check_mode, confirming)
    except (FirewallError, HostError) as error:
        module.fail_json(msg=str(error))
    except TransactionError as error:
        module.fail_json(msg=str(error), undone=error.undone, not_undone=error.not_undone)
    except OSError as error:
        module.fail_json(msg=f"reading the host: {error}")
    for warning in warnings:
        module.warn(warning)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
