# SPDX-License-Identifier: GPL-3.0-or-later
"""The lab's networks: a subnet that nothing else on the machine has, the same one every time."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor, wait
from ipaddress import IPv4Network
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lab import networks
from lab.networks import POOLS, choose, conflict
from lab.shell import LabError

FIRST = choose("holdfast-demo", [])
NETWORK = {"subnets": [{"subnet": str(FIRST)}], "network_interface": "podman3"}


def test_same_name_same_subnet() -> None:
    """So that a second look, and a second run, find what the first found."""
    assert choose("holdfast-demo", []) == choose("holdfast-demo", []) == FIRST


def test_names_start_at_different_places() -> None:
    """Labs that start in the same moment, or are stopped, hardly ever want the same subnet."""
    names = [f"holdfast-{role}-{release}" for role in "abcdefgh" for release in (9, 12)]
    assert len({choose(name, []) for name in names}) > len(names) * 0.8


claims = st.builds(
    lambda address, bits: IPv4Network((address, bits), strict=False),
    st.integers(int(POOLS[0].network_address), int(POOLS[0].broadcast_address)),
    st.integers(18, 32),
)


@given(st.text(min_size=1), st.lists(claims, max_size=40))
def test_free_and_private(name: str, taken: list[IPv4Network]) -> None:
    """Whatever is taken: the choice overlaps with none of it, and is a private /24."""
    subnet = choose(name, taken)
    assert not any(subnet.overlaps(claim) for claim in taken)
    assert subnet.prefixlen == 24
    assert any(subnet.subnet_of(pool) for pool in POOLS)


@given(st.text(min_size=1), st.permutations([IPv4Network(f"10.89.{n}.0/24") for n in range(5)]))
def test_order_does_not_matter(name: str, taken: list[IPv4Network]) -> None:
    """The listing of routes has no order one could rely on."""
    assert choose(name, taken) == choose(name, sorted(taken))


def test_taken_subnet_is_passed_over_for_the_next() -> None:
    """One lab there, the next lab beside it."""
    second = choose("holdfast-demo", [FIRST])
    assert second != FIRST
    assert choose("holdfast-demo", [FIRST, second]) not in (FIRST, second)


def test_last_free_subnet_of_a_pool_is_found() -> None:
    """Wherever the search starts, it comes round."""
    last = IPv4Network("10.89.77.0/24")
    taken = [subnet for subnet in POOLS[0].subnets(new_prefix=24) if subnet != last]
    assert choose("holdfast-demo", taken) == last


def test_another_range_where_a_company_has_all_of_ten() -> None:
    """A route to 10.0.0.0/8 is a claim."""
    assert choose("holdfast-demo", [IPv4Network("10.0.0.0/8")]).subnet_of(POOLS[1])


def test_default_routes_claim_nothing() -> None:
    """Nor do the two halves of one, as VPNs set them."""
    halves = [IPv4Network("0.0.0.0/0"), IPv4Network("0.0.0.0/1"), IPv4Network("128.0.0.0/1")]
    assert choose("holdfast-demo", halves) == FIRST


def test_nothing_free_is_said_with_the_way_out() -> None:
    """Names the network, what was expected, and where to look."""
    with pytest.raises(LabError, match=r"holdfast-demo.*expected a free /24.*ip route"):
        choose("holdfast-demo", POOLS)


def test_own_bridge_is_no_conflict() -> None:
    """The routes of the network's own interface are what its hosts use."""
    assert conflict(NETWORK, [("podman3", FIRST), ("eth0", IPv4Network("192.0.2.0/24"))]) == ""


def test_conflict_names_who_took_the_subnet() -> None:
    """While its hosts were stopped, another interface came with the same addresses."""
    route = IPv4Network((int(FIRST.network_address) + 7, 32))
    assert conflict(NETWORK, [("tun0", route)]) == f"{FIRST} overlaps with {route} of tun0"


def test_storages_do_not_share_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Networks belong to the machine: labs of one name in two storages would meet."""
    names = []
    for place in (networks.STORAGE, "/var/tmp/a/storage", "/var/tmp/b/storage"):  # noqa: S108 -- no file
        monkeypatch.setattr(networks, "storage", lambda place=place: place)
        names.append(networks.network("demo"))
    assert names[0] == "holdfast-demo"
    assert len(set(names)) == 3


def test_labs_of_other_storages_are_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Networks are listed for the whole machine; taking all labs down concerns this storage."""
    monkeypatch.setattr(networks, "LOCK", tmp_path / "lock")
    monkeypatch.setattr(networks, "storage", lambda: "/var/tmp/a/storage")  # noqa: S108 -- no file
    listed = [
        {"name": networks.network("demo"), "labels": {networks.LABEL: "demo"}},
        {"name": "holdfast-demo", "labels": {networks.LABEL: "demo"}},
        {"name": "podman"},
    ]
    monkeypatch.setattr(networks, "networks", lambda: listed)
    assert networks.labs() == ["demo"]
    listed.pop(0)
    assert networks.labs() == []


def test_no_network_goes_while_another_lab_looks_at_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Podman fails for all of them if one is gone between its list and what it says of each."""
    commands: list[list[str]] = []
    monkeypatch.setattr(networks, "LOCK", tmp_path / "lock")
    monkeypatch.setattr(networks, "storage", lambda: networks.STORAGE)
    monkeypatch.setattr(networks, "succeeds", lambda _command: True)
    monkeypatch.setattr(networks, "capture", commands.append)
    with ThreadPoolExecutor(1) as pool:
        with networks.alone():
            removal = pool.submit(networks.remove, "demo")
            assert wait([removal], timeout=0.3).not_done
            assert commands == []
        assert removal.result() == ["network holdfast-demo"]
    assert commands == [["podman", "network", "rm", "holdfast-demo"]]
