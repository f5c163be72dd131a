# SPDX-License-Identifier: GPL-3.0-or-later
"""The network of a lab: a name and a subnet nothing else on this machine has.

Networks belong to the machine, containers to a storage (CONTAINERS_STORAGE_CONF). Two labs of one
name in two storages would share a network and meet each other's hosts, so the storage is part of
the name. Podman picks a subnet that no interface has at that moment, but knows no routes, nor the
networks whose hosts are stopped; so the lab picks, and starts to look where its name says, so that
labs rarely want the same.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
from contextlib import contextmanager
from functools import lru_cache
from ipaddress import IPv4Network, ip_network
from pathlib import Path
from typing import Any, Iterable, Iterator

from .shell import LabError, capture, say, succeeds

LABEL = "holdfast.lab"  # of containers and networks: the lab they belong to
STORAGE = "/var/lib/containers/storage"  # podman's own, where nobody says otherwise
# Where podman looks, then the other private ranges, for machines with a route to all of 10.0.0.0/8.
POOLS = tuple(map(IPv4Network, ("10.89.0.0/16", "172.16.0.0/12", "192.168.0.0/16")))
SUBNET_BITS = 24
# A route this wide is a default route (or half of one, as VPNs set), and claims no address.
WIDEST_CLAIM_BITS = 8
LOCK = Path("/run/lock/holdfast-lab-networks")


@lru_cache(maxsize=1)
def storage() -> str:
    """The folder podman keeps this lab's containers in."""
    return capture(["podman", "info", "--format", "{{.Store.GraphRoot}}"]).strip()


def network(lab: str) -> str:
    """The name of a lab's network: its storage is part of it, unless that is podman's own."""
    if storage() == STORAGE:
        return f"holdfast-{lab}"
    return f"holdfast-{lab}-{hashlib.sha256(storage().encode()).hexdigest()[:8]}"


def choose(name: str, taken: Iterable[IPv4Network]) -> IPv4Network:
    """The first free subnet, looking from where the name says; LabError if all are taken."""
    claims = [claim for claim in taken if claim.prefixlen >= WIDEST_CLAIM_BITS]
    first = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")
    for pool in POOLS:
        count = 1 << (SUBNET_BITS - pool.prefixlen)
        for step in range(count):
            offset = ((first + step) % count) << (32 - SUBNET_BITS)
            subnet = IPv4Network((int(pool.network_address) + offset, SUBNET_BITS))
            if not any(subnet.overlaps(claim) for claim in claims):
                return subnet
    pools = ", ".join(map(str, POOLS))
    raise LabError(
        f"network {name}: expected a free /{SUBNET_BITS} in {pools}, but addresses and routes of "
        "this machine take them all: see `ip route` and `podman network ls`"
    )


def networks() -> list[dict[str, Any]]:
    """What podman knows of all networks of this machine, of stopped hosts and other storages.

    It lists names only, and fails when one of them is gone before it is asked for: see `alone`.
    """
    names = capture(["podman", "network", "ls", "--format", "{{.Name}}"]).split()
    return list(json.loads(capture(["podman", "network", "inspect", *names])))


def subnets(entry: dict[str, Any]) -> list[IPv4Network]:
    """The IPv4 subnets of a podman network."""
    given = (ip_network(item["subnet"]) for item in entry.get("subnets") or ())
    return [subnet for subnet in given if isinstance(subnet, IPv4Network)]


def routed() -> list[tuple[str, IPv4Network]]:
    """Addresses and routes of this machine, each with its interface (empty for none)."""
    listing = json.loads(capture(["ip", "-4", "-json", "route", "show", "table", "all"]) or "[]")
    return [
        (route.get("dev", ""), IPv4Network(route["dst"]))
        for route in listing
        if route["dst"] != "default"
    ]


@contextmanager
def alone() -> Iterator[None]:
    """No other lab on this machine chooses a subnet meanwhile, or removes its network."""
    LOCK.parent.mkdir(parents=True, exist_ok=True)
    with LOCK.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def conflict(entry: dict[str, Any], routes: Iterable[tuple[str, IPv4Network]]) -> str:
    """What came to take the subnet of a network while its hosts were stopped; empty for nothing."""
    for subnet in subnets(entry):
        for interface, claim in routes:
            foreign = interface != entry["network_interface"]
            if foreign and claim.prefixlen >= WIDEST_CLAIM_BITS and subnet.overlaps(claim):
                return f"{subnet} overlaps with {claim} of {interface or 'the routing table'}"
    return ""


def labs() -> list[str]:
    """The labs of this storage that have a network."""
    with alone():
        named = {entry["name"]: (entry.get("labels") or {}).get(LABEL) for entry in networks()}
    return [lab for name, lab in named.items() if lab and name == network(lab)]


def provide(lab: str) -> str:
    """Make the lab's network unless it is there; its name. LabError if it is of no use any more."""
    name = network(lab)
    with alone():
        known = {entry["name"]: entry for entry in networks()}
        if name in known:
            if found := conflict(known[name], routed()):
                raise LabError(f"network {name}: {found}: take the lab down, then start it again")
            return name
        taken = [subnet for entry in known.values() for subnet in subnets(entry)]
        subnet = choose(name, [*taken, *(claim for _, claim in routed())])
        options = ["--label", f"{LABEL}={lab}", "--subnet", str(subnet)]
        capture(["podman", "network", "create", *options, name])
    return name


def remove(lab: str) -> list[str]:
    """Remove the lab's network if there is one; what was removed."""
    name = network(lab)
    with alone():
        if not succeeds(["podman", "network", "exists", name]):
            return []
        capture(["podman", "network", "rm", name])
    say(f"    removed: network {name}")
    return [f"network {name}"]
