# Copyright: (c) 2026, Holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is wrong with the variables of a firewall, found on the controller."""

from __future__ import annotations

from typing import Any, Callable, Iterator, Mapping, Sequence

from ansible.errors import AnsibleFilterError

try:
    import netaddr
except ImportError:  # said when the filter is used
    netaddr = None

DOCUMENTATION = r"""
name: firewall_faults
short_description: What is wrong with the variables of the role firewall, all at once
version_added: 0.1.0
author:
  - Holdfast contributors (@holdfast)
description:
  - Looks at every network, port and gate before any host is touched, and names the variable, its
    value and the way out.
requirements:
  - netaddr on the controller
positional: gates, management_networks, management_ports
options:
  _input:
    description: The variable C(firewall_services).
    type: list
    elements: dict
    required: true
  gates:
    description: The variable C(firewall_gates).
    type: list
    elements: dict
    default: []
  management_networks:
    description: The variable C(firewall_management_networks).
    type: list
    elements: str
    default: []
  management_ports:
    description: The variable C(firewall_management_ports).
    type: list
    elements: str
    default: ['22']
"""

EXAMPLES = r"""
- name: Refuse what is wrong
  ansible.builtin.assert:
    that: faults == ''
    fail_msg: "{{ faults }}"
  vars:
    faults: "{{ firewall_services | holdfast.chain.firewall_faults(firewall_gates) }}"
"""

RETURN = r"""
_value:
  description: The faults, divided by semicolons; empty if there are none.
  type: str
"""


def network_fault(value: Any, where: str) -> str:
    """What is wrong with a network; nothing if nothing is."""
    expected = "expected an address or a network such as 192.0.2.0/24 or 2001:db8::/32"
    text = str(value)
    try:
        found = netaddr.IPNetwork(text)
    except (netaddr.AddrFormatError, ValueError):
        return f"{where} = '{value}': {expected}"
    if "/" in text and found.ip != found.network:
        return f"{where} = '{value}': has bits of a host; did you mean {found.cidr}?"
    return ""


def firewall_faults(
    services: Any,
    gates: Any = (),
    management_networks: Any = (),
    management_ports: Any = ("22",),
) -> str:
    """All faults, divided by semicolons."""
    if netaddr is None:
        raise AnsibleFilterError("firewall_faults needs netaddr on the controller: install it")
    lists = {
        "firewall_services": services,
        "firewall_gates": gates,
        "firewall_management_networks": management_networks,
        "firewall_management_ports": management_ports,
    }
    for name, value in lists.items():
        if not isinstance(value, Sequence) or isinstance(value, str):
            return f"{name} = {value}: expected a list"
    found = list(_services(services, gates))
    found += _listed("firewall_management_networks", management_networks)
    found += _ports("firewall_management_ports", management_ports)
    if not management_ports:
        found.append("firewall_management_ports is empty: expected the ports of SSH, such as 22")
    return "; ".join(fault for fault in found if fault)


def _services(services: Sequence[Any], gates: Sequence[Any]) -> Iterator[str]:
    names = {gate.get("name") for gate in gates if isinstance(gate, Mapping)}
    for number, service in enumerate(services):
        where = f"firewall_services[{number}]"
        if not isinstance(service, Mapping) or not {"name", "ports"} <= set(service):
            yield f"{where} = {service}: expected at least name and ports"
            continue
        sources = service.get("sources")
        if sources is not None:
            yield from _listed(f"{where}.sources of {service['name']}", sources)
        yield from _ports(f"{where}.ports of {service['name']}", service["ports"])
        gate = service.get("gate")
        if gate is not None and gate not in names:
            yield f"{where}.gate = '{gate}': firewall_gates has {sorted(map(str, names)) or 'none'}"


def _listed(where: str, values: Any) -> Iterator[str]:
    if isinstance(values, str) or not isinstance(values, Sequence):
        yield f"{where} = {values}: expected a list of networks"
        return
    for number, value in enumerate(values):
        yield network_fault(value, f"{where}[{number}]")


def _ports(where: str, values: Any) -> Iterator[str]:
    if isinstance(values, str) or not isinstance(values, Sequence):
        yield f"{where} = {values}: expected a list of ports"
        return
    for value in values:
        first, dash, last = str(value).partition("-")
        ends = [first, last] if dash else [first]
        numbers = [int(item) if item.isdigit() else 0 for item in ends]
        if not all(0 < number < 65536 for number in numbers) or numbers != sorted(numbers):
            yield f"{where} = '{value}': expected a port (1 to 65535) or first-last"


class FilterModule:
    """Ansible's way to find it."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"firewall_faults": firewall_faults}
