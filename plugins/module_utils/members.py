# Copyright: (c) 2026, Holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The members of a network, as an inventory describes them. Pure.

One inventory host is one node. What is not written in the inventory has its default here and
nowhere else.
"""

from __future__ import annotations

import ipaddress
from typing import Any, Mapping, Sequence

ROLES = {"validators": "validator", "observers": "observer"}
PORTS = {"p2p_port": 30303, "sync_port": 30304, "api_port": 8545}


def is_ip(text: str) -> bool:
    """Whether text is an IPv4 or IPv6 address rather than a name."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def members(
    groups: Mapping[str, Sequence[str]], hostvars: Mapping[str, Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Every member, sorted by name, with what peers need to know of it.

    Each is {name, role, address, p2p_port, sync_port, api_port, dns, ip, machine};
    machine is what two nodes on one machine have in common. role is "" where a host is in both
    groups or none, and values have the type the inventory gave them: preflight judges both.
    """
    found = []
    for name in sorted(set(groups.get("chain", []))):
        own = hostvars[name]
        roles = [role for group, role in ROLES.items() if name in groups.get(group, [])]
        machine = own.get("ansible_host") or name
        address = own.get("chain_address") or machine
        labels = [name] if is_ip(str(address)) else sorted({name, str(address)})
        member = {
            "name": name,
            "role": roles[0] if len(roles) == 1 else "",
            "address": address,
            "machine": machine,
            "dns": labels,
            "ip": [str(address)] if is_ip(str(address)) else [],
        }
        for port, default in PORTS.items():
            member[port] = own.get("chain_" + port, default)
        found.append(member)
    return found


def machine_leaders(names: Sequence[str], hostvars: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The first of names on each machine: the one to do what is done once per machine."""
    leaders: dict[str, str] = {}
    for name in names:
        leaders.setdefault(hostvars[name].get("ansible_host") or name, name)
    return sorted(leaders.values())
