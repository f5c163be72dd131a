# Copyright: (c) 2026, Holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a host lets in: services, gates, management. Values and their checks; pure."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import Any, Iterable, Mapping, Sequence, Union

Network = Union[ipaddress.IPv4Network, ipaddress.IPv6Network]
_SERVICE = re.compile(r"[a-z][a-z0-9_]{0,40}")
_GATE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,60}")
_UNIT = re.compile(r"[A-Za-z0-9:_\\][A-Za-z0-9:_.\\@-]*")


class FirewallError(Exception):
    """An option is wrong: its name, its value, what was expected and the way out."""


@dataclass(frozen=True)
class Rate:
    """New connections that one source may make: per second, and at once."""

    per_second: int
    burst: int


@dataclass(frozen=True)
class Service:
    """Ports that are let in.

    ports: as nft writes them: ``30303`` or ``9000-9010``. sources: None for everybody, () for
    nobody. gate: the name of the gate they depend on; None if they are always open.
    """

    name: str
    ports: tuple[str, ...]
    protocol: str
    sources: tuple[Network, ...] | None
    rate: Rate | None
    gate: str | None

    @property
    def elements(self) -> list[str]:
        """Its ports as elements of the set of open ports."""
        return [f"{self.protocol} . {port}" for port in self.ports]


@dataclass(frozen=True)
class Gate:
    """A service of the host that opens ports while it runs.

    check: a command that passes once the service is fit to be reached; empty for none.
    wait: seconds that the start of the service may wait for it.
    """

    name: str
    service: str
    check: tuple[str, ...]
    wait: float


@dataclass(frozen=True)
class Profile:
    """All that is let in. drop: whether everything else is dropped."""

    services: tuple[Service, ...]
    gates: tuple[Gate, ...]
    networks: tuple[Network, ...] | None
    ports: tuple[str, ...]
    drop: bool

    def elements(self, gate: str) -> list[str]:
        """What a gate opens."""
        return [
            item for service in self.services if service.gate == gate for item in service.elements
        ]


def network(text: Any, where: str) -> Network:
    """A network; FirewallError for what is none, or has bits of a host."""
    try:
        return ipaddress.ip_network(text)
    except ValueError as error:
        raise FirewallError(f"{where} = '{text}': {_meant(text, error)}") from None


def _meant(text: Any, error: ValueError) -> str:
    try:
        return f"has bits of a host; did you mean {ipaddress.ip_network(text, strict=False)}?"
    except ValueError:
        return f"{error}; expected an address or a network such as 192.0.2.0/24 or 2001:db8::/32"


def networks(values: Iterable[Any], where: str) -> tuple[Network, ...]:
    """Networks without those inside of others, IPv4 first, in order."""
    found = [network(value, f"{where}[{number}]") for number, value in enumerate(values)]
    four = ipaddress.collapse_addresses(item for item in found if item.version == 4)
    six = ipaddress.collapse_addresses(item for item in found if item.version == 6)
    return (*four, *six)


def of_family(sources: Sequence[Network], version: int) -> list[str]:
    """The networks of IP version 4 or 6 as text."""
    return [str(item) for item in sources if item.version == version]


def port(value: Any, where: str) -> str:
    """``30303`` or ``9000-9010``."""
    found = re.fullmatch(r"(\d{1,5})(?:-(\d{1,5}))?", str(value))
    first, last = (int(item or found.group(1)) for item in found.groups()) if found else (0, 0)
    if not 0 < first <= last < 65536:
        raise FirewallError(f"{where} = '{value}': expected a port (1 to 65535) or first-last")
    return str(first) if first == last else f"{first}-{last}"


def ports(values: Sequence[Any], where: str) -> tuple[str, ...]:
    """Ports in order, each once."""
    found = {port(value, f"{where}[{number}]") for number, value in enumerate(values)}
    return tuple(sorted(found, key=lambda item: _span(item)[0]))


def _span(text: str) -> tuple[int, int]:
    first, _dash, last = text.partition("-")
    return int(first), int(last or first)


def includes(spans: Iterable[str], number: int) -> bool:
    """Whether a port is among ports."""
    return any(first <= number <= last for first, last in map(_span, spans))


def profile(options: Mapping[str, Any]) -> Profile:
    """The options of a task, checked; FirewallError names the one that is wrong.

    services, gates, management_networks (empty for everywhere), management_ports and policy, as
    the module has them.
    """
    gates = _unique((_gate(item, n) for n, item in enumerate(options["gates"])), "gates")
    services = _unique(
        (_service(item, n) for n, item in enumerate(options["services"])), "services"
    )
    names = {gate.name for gate in gates}
    for service in services:
        if service.gate is not None and service.gate not in names:
            raise FirewallError(
                f"services: gate '{service.gate}' of {service.name} is not in gates, which has "
                f"{', '.join(sorted(names)) or 'none'}"
            )
    idle = names - {service.gate for service in services}
    if idle:
        raise FirewallError(f"gates: no service has the gate {sorted(idle)[0]}; leave it out")
    listed = networks(options["management_networks"], "management_networks")
    management = ports(options["management_ports"], "management_ports")
    taken = [("management_ports", "tcp", management)]
    for service in services:
        for other, protocol, others in taken:
            if protocol == service.protocol and _meet(service.ports, others):
                raise FirewallError(
                    f"services: {service.name} and {other} have a port in common "
                    f"({', '.join(service.ports)} and {', '.join(others)}): give it to one of them"
                )
        taken.append((service.name, service.protocol, service.ports))
    return Profile(services, gates, listed or None, management, options["policy"] == "drop")


def _meet(one: Sequence[str], other: Sequence[str]) -> bool:
    pairs = ((_span(a), _span(b)) for a in one for b in other)
    return any(a[0] <= b[1] and b[0] <= a[1] for a, b in pairs)


def _unique(items: Iterable[Any], where: str) -> tuple[Any, ...]:
    found: dict[str, Any] = {}
    for item in items:
        if item.name in found:
            raise FirewallError(
                f"{where}: '{item.name}' is there twice; give each a name of its own"
            )
        found[item.name] = item
    return tuple(found.values())


def _service(item: Mapping[str, Any], number: int) -> Service:
    where = f"services[{number}]"
    if not _SERVICE.fullmatch(item["name"]):
        raise FirewallError(
            f"{where}.name = '{item['name']}': expected lower-case letters, digits and '_', the "
            "first a letter"
        )
    if not item["ports"]:
        raise FirewallError(f"{where}.ports of {item['name']} is empty: expected at least one port")
    sources, rate = item.get("sources"), item.get("rate")
    if rate is not None and not (0 < rate["per_second"] <= 10**6 and 0 < rate["burst"] <= 10**6):
        raise FirewallError(
            f"{where}.rate = {rate['per_second']} per second, burst {rate['burst']}: expected "
            "numbers from 1 to 1000000; to have no limit, leave rate out"
        )
    return Service(
        name=item["name"],
        ports=ports(item["ports"], f"{where}.ports"),
        protocol=item.get("protocol") or "tcp",
        sources=None if sources is None else networks(sources, f"{where}.sources"),
        rate=None if rate is None else Rate(rate["per_second"], rate["burst"]),
        gate=item.get("gate"),
    )


def _gate(item: Mapping[str, Any], number: int) -> Gate:
    where = f"gates[{number}]"
    name, service = item["name"], item["service"]
    if not _UNIT.fullmatch(service):
        raise FirewallError(f"{where}.service = '{service}': is no name of a service")
    if not _GATE.fullmatch(name):
        raise FirewallError(f"{where}.name = '{name}': expected letters, digits, '_', '.' and '-'")
    wait = item.get("wait")
    wait = 5.0 if wait is None else float(wait)
    if not 0 <= wait <= 60:
        raise FirewallError(f"{where}.wait = {wait:g}: expected 0 to 60 seconds")
    return Gate(name, service, tuple(item.get("check") or ()), wait)


def refused_connection(wanted: Profile, source: str, server_port: int) -> str:
    """Why a management connection would be cut by a profile; nothing if it would not."""
    address = ipaddress.ip_address(source.partition("%")[0])
    address = getattr(address, "ipv4_mapped", None) or address
    if not includes(wanted.ports, server_port) and wanted.drop:
        return (
            f"management_ports = {', '.join(wanted.ports)}: this very connection is to port "
            f"{server_port}, which would be cut; add it"
        )
    limited = includes(wanted.ports, server_port) and wanted.networks is not None
    if limited and not any(address in item for item in wanted.networks or ()):
        return (
            f"management_networks = {', '.join(map(str, wanted.networks or ()))}: this very "
            f"connection comes from {address}, which is in none of them and would be cut; add its "
            "network, or run from a host in one of them"
        )
    return ""
