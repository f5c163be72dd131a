# Copyright: (c) 2026, Holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Judges a whole inventory before anything is changed. Pure.

Every check adds to one list, so that a person sees all faults at once. A fault is {host, name,
value, expected, way_out}; host is "" where the network as a whole is meant.
"""

from __future__ import annotations

import re
from collections import defaultdict
from typing import Any, Callable, Dict, Iterator, Mapping, Sequence

from ansible_collections.holdfast.chain.plugins.module_utils.address import is_address
from ansible_collections.holdfast.chain.plugins.module_utils.members import PORTS, members
from ansible_collections.holdfast.chain.plugins.module_utils.names import (
    check_address,
    check_dns_name,
    check_trust_domain,
)
from ansible_collections.holdfast.chain.plugins.module_utils.quorum import tolerated_faults

CHAIN_ID = re.compile(r"[a-z0-9]([a-z0-9-]{0,46}[a-z0-9])?")
NODE_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
MAX_AMOUNT = 2**63 - 1
_NETWORK_WIDE = ("chain_id", "chain_trust_domain", "chain_accounts")

Fault = Dict[str, str]


def faults(
    groups: Mapping[str, Sequence[str]],
    hostvars: Mapping[str, Mapping[str, Any]],
    hosts: Mapping[str, Mapping[str, Any]],
    limits: Mapping[str, Any],
) -> list[Fault]:
    """All faults of an inventory, in the order of the checks.

    groups, hostvars: Ansible's own. hosts: what host_facts found, by name; hosts left out of this
    run are not in it. limits: minimum_validators, clock_seconds, free_megabytes, python_packaged
    (names of hosts whose distribution has a Python package that will be installed).
    """
    found = members(groups, hostvars)
    return [
        *_of_network(found, hostvars),
        *_of_count(found, limits["minimum_validators"]),
        *_of_members(found),
        *_of_sharing(found),
        *_of_accounts(hostvars[found[0]["name"]].get("chain_accounts") if found else None),
        *_of_hosts(hosts, limits),
    ]


def report(found: Sequence[Fault]) -> str:
    """The faults as text, one per line: where, name = value: expected; way out."""
    return "\n".join(
        "{0}{name} = {value}: expected {expected}; {way_out}".format(
            fault["host"] + ": " if fault["host"] else "", **fault
        )
        for fault in found
    )


def _fault(host: str, name: str, value: Any, expected: str, way_out: str) -> Fault:
    shown = "(not set)" if value is None else " ".join(str(value).split())
    return {
        "host": host,
        "name": name,
        "value": shown[:200],
        "expected": expected,
        "way_out": way_out,
    }


def _accepts(check: Callable[[str], Any], value: Any) -> bool:
    try:
        check(str(value or ""))
    except ValueError:
        return False
    return True


def _of_network(
    found: Sequence[Mapping[str, Any]], hostvars: Mapping[str, Mapping[str, Any]]
) -> Iterator[Fault]:
    for name in _NETWORK_WIDE:
        values: dict[str, list[str]] = defaultdict(list)
        for member in found:
            values[repr(hostvars[member["name"]].get(name))].append(member["name"])
        if len(values) > 1:
            told = ", ".join(
                "{} on {}".format(value, "/".join(names)) for value, names in sorted(values.items())
            )
            yield _fault(
                "",
                name,
                told,
                "one value for the whole network",
                "set it once, in group_vars/all or for the group chain",
            )
    if not found:
        return
    own = hostvars[found[0]["name"]]
    chain_id, domain = own.get("chain_id"), own.get("chain_trust_domain")
    if not CHAIN_ID.fullmatch(str(chain_id or "")):
        yield _fault(
            "",
            "chain_id",
            chain_id,
            "1 to 48 lower-case letters, digits and inner hyphens",
            "set it for the group chain",
        )
    if not _accepts(check_trust_domain, domain):
        yield _fault(
            "",
            "chain_trust_domain",
            domain,
            "a domain name in lower case with a dot",
            "set it for the group chain; it need not be in the DNS",
        )


def _of_count(found: Sequence[Mapping[str, Any]], minimum: int) -> Iterator[Fault]:
    count = sum(member["role"] == "validator" for member in found)
    if count < minimum:
        tolerated = tolerated_faults(count) if count else 0
        yield _fault(
            "",
            "validators",
            count,
            f"at least {minimum} (n tolerate (n - 1) // 3 faulty ones: {minimum} tolerate "
            f"{tolerated_faults(minimum)}, {count} tolerate {tolerated})",
            "add hosts to the group validators, or lower preflight_minimum_validators for a "
            "network that is allowed to stand still",
        )


def _of_members(found: Sequence[Mapping[str, Any]]) -> Iterator[Fault]:
    for member in found:
        name = member["name"]
        if not member["role"]:
            yield _fault(
                name,
                "group",
                "both or neither of validators and observers",
                "membership in exactly one of them",
                "move the host in the inventory",
            )
        if not NODE_NAME.fullmatch(name):
            yield _fault(
                name,
                "name",
                name,
                "a host label: lower-case letters, digits and inner hyphens",
                "rename the host in the inventory and put its address into ansible_host",
            )
        address = member["address"]
        if not _accepts(check_address, address) and not _accepts(check_dns_name, address):
            yield _fault(
                name,
                "chain_address",
                address,
                "a host name or an IP address",
                "set chain_address to what the other nodes reach it by",
            )
        for port in PORTS:
            value = member[port]
            if (
                isinstance(value, bool)
                or not str(value).isdigit()
                or not 1024 <= int(value) <= 65535
            ):
                yield _fault(
                    name,
                    "chain_" + port,
                    value,
                    "a number from 1024 to 65535",
                    "nodes run without privileges; put a lower port in front of it",
                )


def _of_sharing(found: Sequence[Mapping[str, Any]]) -> Iterator[Fault]:
    """Endpoints that two nodes, or two services of one node, would both have to open."""
    for where in ("machine", "address"):
        used: dict[tuple[str, str], list[str]] = defaultdict(list)
        for member in found:
            for port in PORTS:
                used[str(member[where]), str(member[port])].append(
                    "{} ({})".format(member["name"], port)
                )
        for (host, port), users in sorted(used.items()):
            if len(users) > 1 and (where == "machine" or _differ_in_machine(found, host)):
                yield _fault(
                    "",
                    "endpoint",
                    f"{host}:{port}",
                    "one user, not " + " and ".join(users),
                    "give each node its own chain_address or ports",
                )


def _differ_in_machine(found: Sequence[Mapping[str, Any]], address: str) -> bool:
    """Whether an address is claimed from several machines; on one, it was reported as that."""
    return len({str(m["machine"]) for m in found if str(m["address"]) == address}) > 1


def _of_accounts(accounts: Any) -> Iterator[Fault]:
    if not isinstance(accounts, Mapping):
        if accounts is not None:
            yield _fault(
                "",
                "chain_accounts",
                accounts,
                "a mapping of addresses to amounts",
                "write it as 'address: amount', one per line",
            )
        return
    total = 0
    for address, amount in accounts.items():
        if not is_address(str(address)):
            yield _fault(
                "",
                "chain_accounts",
                address,
                "an address: 'hf' and Base58Check digits",
                "copy it from 'holdfast-node keys show'; a mistyped character breaks its checksum",
            )
        if isinstance(amount, bool) or not isinstance(amount, int) or not 0 <= amount <= MAX_AMOUNT:
            yield _fault(
                "",
                "chain_accounts." + str(address),
                amount,
                f"a whole number from 0 to {MAX_AMOUNT}",
                "write the amount in smallest units, without quotes",
            )
        else:
            total += amount
    if total > MAX_AMOUNT:
        yield _fault(
            "",
            "chain_accounts",
            total,
            f"amounts that add up to at most {MAX_AMOUNT}",
            "give smaller amounts",
        )


def _of_hosts(hosts: Mapping[str, Mapping[str, Any]], limits: Mapping[str, Any]) -> Iterator[Fault]:
    for name in sorted(hosts):
        facts = hosts[name]
        if facts.get("error"):
            yield _fault(
                name,
                "connection",
                facts["error"],
                "a host that runs Ansible modules",
                "see that it is up, reachable and has Python 3.8 or newer, which the playbook "
                "bootstrap brings to a host that has none",
            )
            continue
        if facts["target"] is None and name not in limits["python_packaged"]:
            yield _fault(
                name,
                "platform",
                facts["target_fault"],
                "a platform the node is made for",
                "see the table of platforms in the documentation of the role node",
            )
        offset = facts["clock"]
        certain = abs(offset["seconds"]) - offset["error"]
        if certain > limits["clock_seconds"]:
            yield _fault(
                name,
                "clock",
                "{:+.3f} s against the controller".format(offset["seconds"]),
                "at most {} s".format(limits["clock_seconds"]),
                "synchronise the clocks of both, for example with chrony",
            )
        for path, free in sorted(facts["free_bytes"].items()):
            if free < limits["free_megabytes"] * 1024 * 1024:
                yield _fault(
                    name,
                    "free space at " + path,
                    f"{free // (1024 * 1024)} MB",
                    "at least {} MB".format(limits["free_megabytes"]),
                    "make room, or lower preflight_free_megabytes",
                )
