# Copyright: (c) 2026, Holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A profile as the files that programs of a host read. Pure."""

from __future__ import annotations

import json
import re
from fnmatch import fnmatchcase
from typing import Iterator, Sequence
from xml.sax.saxutils import quoteattr

from ansible_collections.holdfast.chain.plugins.module_utils.firewall import (
    Gate,
    Network,
    Profile,
    Service,
    of_family,
)
from ansible_collections.holdfast.chain.plugins.module_utils.firewall_program import (
    PROGRAM,
    RUN,
    TABLE,
    TABLE_FILE,
    UNDO,
)

HEADER = "# Written by Ansible; what is changed here is overwritten.\n"
# Before the usual filter (0) and firewalld (10): what is dropped here, nothing after it lets in.
_PRIORITY = "filter - 5"
_FAMILIES = ((4, "ip saddr"), (6, "ip6 saddr"))
# One customer has a /64: a limit per address would be none.
_RATE_KEY = {4: "ip saddr", 6: "ip6 saddr & ffff:ffff:ffff:ffff::"}
_ICMP = (
    "icmp type { echo-request, destination-unreachable, time-exceeded, parameter-problem } accept",
    "icmpv6 type { echo-request, destination-unreachable, packet-too-big, time-exceeded, "
    "parameter-problem, nd-router-advert, nd-neighbor-solicit, nd-neighbor-advert, "
    "mld-listener-query } accept",
)


def table(profile: Profile) -> str:
    """The table as nft loads it, in one step, in place of the one there is.

    A drop is final, whatever other tables say; an accept is not. So under firewalld this table says
    what may not be, and firewalld's own policy lets the rest in.
    """
    lines = [HEADER, f"table {TABLE}\n", f"delete table {TABLE}\n", f"table {TABLE} {{\n"]
    lines.append("\tset open {\n\t\ttype inet_proto . inet_service\n\t\tflags interval\n\t}\n")
    for service in profile.services:
        if service.rate is not None:
            lines += _rate_sets(service)
    lines.append("\n\tchain input {\n")
    policy = "drop" if profile.drop else "accept"
    lines.append(f"\t\ttype filter hook input priority {_PRIORITY}; policy {policy};\n")
    lines += [f"\t\t{rule}\n" for rule in _input(profile)]
    lines.append("\t}\n")
    for service in profile.services:
        lines.append(f"\n\tchain {service.name} {{\n")
        lines += [f"\t\t{rule}\n" for rule in _service_rules(service)]
        lines.append("\t}\n")
    lines.append("}\n\n")
    lines.append(f'# what services that run have opened\ninclude "{RUN}/*.nft"\n')
    return "".join(lines)


def _rate_sets(service: Service) -> Iterator[str]:
    for version, _address in _FAMILIES:
        yield f"\tset {service.name}_rate{version} {{\n\t\ttype ipv{version}_addr\n\t\tsize 65535\n"
        yield "\t\tflags dynamic,timeout\n\t\ttimeout 1m\n\t}\n"


def _input(profile: Profile) -> Iterator[str]:
    yield 'iif "lo" accept'
    yield "ct state vmap { established : accept, related : accept, invalid : drop }"
    yield from _ICMP
    if profile.drop:
        yield "udp dport 546 ip6 saddr fe80::/10 accept"  # DHCPv6 answers from elsewhere
    management = f"tcp dport {_set(profile.ports)}"
    if profile.networks is None:
        yield f"{management} accept"
    else:
        for version, address in _FAMILIES:
            listed = of_family(profile.networks, version)
            if listed:
                yield f"{management} {address} {_set(listed)} accept"
        yield f"{management} drop"
    for service in profile.services:
        yield f"{service.protocol} dport {_set(service.ports)} jump {service.name}"


def _service_rules(service: Service) -> Iterator[str]:
    if service.gate is not None:
        yield "meta l4proto . th dport != @open drop"
    if service.sources is not None:
        for version, address in _FAMILIES:
            listed = of_family(service.sources, version)
            if listed:
                yield f"{address} != {_set(listed)} drop"
            else:
                yield f"meta nfproto ipv{version} drop"
    if service.rate is not None:
        rate = service.rate
        limit = f"limit rate over {rate.per_second}/second burst {rate.burst} packets"
        for version, _address in _FAMILIES:
            key = f"{service.name}_rate{version}"
            yield f"update @{key} {{ {_RATE_KEY[version]} {limit} }} drop"
    yield "accept"


def _set(items: Sequence[str]) -> str:
    return "{ " + ", ".join(items) + " }"


def policy(profile: Profile) -> str:
    """firewalld's policy that lets in what the table does not drop, before any zone is asked."""
    lines = [
        '<?xml version="1.0" encoding="utf-8"?>\n',
        "<!-- Written by Ansible; what is changed here is overwritten. -->\n",
        '<policy priority="-10" target="CONTINUE">\n',
        "  <short>holdfast</short>\n",
        "  <description>Gates and rate limits stand in the table inet holdfast.</description>\n",
        '  <ingress-zone name="ANY"/>\n',
        '  <egress-zone name="HOST"/>\n',
    ]
    lines += _admitted(profile.ports, "tcp", profile.networks)
    for service in profile.services:
        lines += _admitted(service.ports, service.protocol, service.sources)
    lines.append("</policy>\n")
    return "".join(lines)


def _admitted(
    ports: Sequence[str], protocol: str, sources: Sequence[Network] | None
) -> Iterator[str]:
    for port in ports:
        element = f"<port port={quoteattr(port)} protocol={quoteattr(protocol)}/>"
        if sources is None:
            yield f"  {element}\n"
        for item in sources or ():
            yield (
                f'  <rule family="ipv{item.version}"><source address={quoteattr(str(item))}/>'
                f"{element}<accept/></rule>\n"
            )


def gates_file(profile: Profile) -> str:
    """What the host's own program reads."""
    gates = {
        gate.name: {
            "service": gate.service,
            "check": list(gate.check),
            "wait": gate.wait,
            "ports": profile.elements(gate.name),
        }
        for gate in profile.gates
    }
    return json.dumps({"gates": gates}, indent=2, sort_keys=True) + "\n"


def dropin(gate: Gate) -> str:
    """What makes systemd open and close a gate with its unit.

    The ``-`` keeps a service from failing for its gate; ``+`` is outside of its sandbox.
    """
    return (
        HEADER + f"[Service]\nExecStartPost=+-{PROGRAM} open {gate.name}\n"
        f"ExecStopPost=+-{PROGRAM} close {gate.name}\n"
    )


def guard_script(gate: Gate) -> str:
    """The OpenRC service that follows the gate's service, and sees it end however it does."""
    return (
        "#!/sbin/openrc-run\n" + HEADER + f'description="Firewall gate of {gate.service}"\n'
        f'supervisor=supervise-daemon\ncommand="{PROGRAM}"\ncommand_args="guard {gate.name}"\n\n'
        f"depend() {{\n\tafter nftables {gate.service}\n}}\n\n"
        f"stop_post() {{\n\t{PROGRAM} close {gate.name}\n}}\n"
    )


def firewalld_dropin() -> str:
    """What loads the table whenever firewalld starts; nftables.service may not run beside it."""
    return HEADER + f"[Service]\nExecStartPre=+/usr/sbin/nft -f {TABLE_FILE}\n"


def firewalld_undo(interpreter: str) -> str:
    """What takes back an unconfirmed policy when the host is started, before firewalld reads it.

    firewalld takes policies from files alone, so that this one has to be written to try it out.
    """
    return HEADER + f"[Service]\nExecStartPre=+-{interpreter} {UNDO} boot\n"


def includes_table(text: str) -> bool:
    """Whether a file of nft includes the table's file, by name or by pattern."""
    found = re.findall(r'^\s*include\s+"([^"]+)"', text, re.M)
    return any(fnmatchcase(TABLE_FILE, pattern) for pattern in found)


def with_include(text: str) -> str:
    """The file with a line that includes the table; all else stays."""
    if includes_table(text):
        return text
    joint = "" if text.endswith("\n") or not text else "\n"
    return f'{text}{joint}include "{TABLE_FILE}"\n'


def without_include(text: str) -> str:
    """The file without the very line of ``with_include``."""
    return text.replace(f'include "{TABLE_FILE}"\n', "")
