# Copyright: (c) 2026, Holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""firewall_rules: what is let in, what is refused, and that a second run has nothing to do."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.holdfast.chain.plugins.module_utils import firewall_render as render
from ansible_collections.holdfast.chain.plugins.module_utils.firewall import (
    FirewallError,
    networks,
    port,
    profile,
    refused_connection,
)
from fake_firewall import API, NODE, P2P, options
from hypothesis import given
from hypothesis import strategies as st


def lines(text: str) -> list[str]:
    """The statements of a text."""
    return [line.strip() for line in text.splitlines() if line.strip()]


def test_everything_is_said_in_the_table() -> None:
    text = render.table(profile(options(management_networks=["198.51.100.0/24"])))
    said = lines(text)
    assert "type filter hook input priority filter - 5; policy drop;" in said
    assert said.index('iif "lo" accept') < said.index("tcp dport { 22 } drop")
    assert "tcp dport { 22 } ip saddr { 198.51.100.0/24 } accept" in said
    assert "tcp dport { 30303, 30304 } jump p2p" in said
    chain = said[said.index("chain p2p {") :]
    assert chain[1] == "meta l4proto . th dport != @open drop"
    assert "ip saddr limit rate over 10/second burst 50 packets } drop" in chain[2]
    assert "ip6 saddr & ffff:ffff:ffff:ffff:: limit rate over 10/second" in chain[3]
    chain = said[said.index("chain api {") :]
    assert chain[1:4] == [
        "ip saddr != { 192.0.2.0/24 } drop",
        "ip6 saddr != { 2001:db8::/32 } drop",
        "accept",
    ]
    assert said[1:3] == ["table inet holdfast", "delete table inet holdfast"]
    assert "flush ruleset" not in text


def test_nobody_is_not_everybody() -> None:
    nobody = lines(render.table(profile(options(services=[{**API, "sources": []}], gates=[]))))
    at = nobody.index("chain api {")
    assert nobody[at + 1 : at + 3] == ["meta nfproto ipv4 drop", "meta nfproto ipv6 drop"]
    everybody = lines(render.table(profile(options(services=[{**API, "sources": None}], gates=[]))))
    at = everybody.index("chain api {")
    assert everybody[at + 1] == "accept"
    closed = profile(options(services=[{**API, "sources": []}], gates=[]))
    assert "8545" not in render.policy(closed)
    assert '<port port="22" protocol="tcp"/>' in render.policy(closed)


@given(st.text("include \n\t\"'/#*.nftables.d holdfast.nft{}", max_size=200))
def test_the_line_for_the_boot_leaves_all_others(text: str) -> None:
    once = render.with_include(text)
    assert render.includes_table(once)
    assert render.with_include(once) == once
    assert once.startswith(text)
    back = render.without_include(once)
    if not render.includes_table(text):
        assert back == text or back == text + "\n"


NETWORKS = st.lists(
    st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 32)).map(
        lambda pair: (
            f"{pair[0] >> 24}.{pair[0] >> 16 & 255}.{pair[0] >> 8 & 255}.{pair[0] & 255}/{pair[1]}"
        )
    ),
    max_size=5,
)


@given(NETWORKS)
def test_networks_are_whole_and_none_is_in_another(values: list[str]) -> None:
    try:
        found = networks(values, "x")
    except FirewallError:
        with pytest.raises(FirewallError, match="did you mean"):
            networks(values, "x")
        return
    for one in found:
        assert not any(one != other and one.overlaps(other) for other in found)
    assert networks([str(item) for item in found], "x") == found


@pytest.mark.parametrize(
    ("value", "as_nft"), [(22, "22"), ("9000-9010", "9000-9010"), ("7-7", "7"), ("65535", "65535")]
)
def test_ports(value: Any, as_nft: str) -> None:
    assert port(value, "ports") == as_nft


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"management_networks": ["10.0.0.5/24"]}, "did you mean 10.0.0.0/24?"),
        ({"management_networks": ["x"]}, "management_networks[0] = 'x'"),
        ({"management_ports": ["ssh"]}, "management_ports[0] = 'ssh'"),
        ({"services": [{**API, "ports": ["0"]}], "gates": []}, "services[0].ports[0] = '0'"),
        ({"services": [{**API, "ports": []}], "gates": []}, "services[0].ports of api is empty"),
        ({"services": [{**API, "ports": ["9-8"]}], "gates": []}, "expected a port"),
        ({"services": [{**API, "name": "A b"}], "gates": []}, "services[0].name = 'A b'"),
        ({"services": [{**API, "sources": ["1.2.3.4.5"]}], "gates": []}, "services[0].sources[0]"),
        ({"services": [API, API], "gates": []}, "services: 'api' is there twice"),
        ({"services": [P2P], "gates": []}, "gate 'node' of p2p is not in gates"),
        ({"services": [API]}, "gates: no service has the gate node"),
        ({"services": [{**API, "ports": ["20-30"]}], "gates": []}, "api and management_ports have"),
        (
            {"services": [{**API, "rate": {"per_second": 0, "burst": 1}}], "gates": []},
            "rate = 0 per second",
        ),
        ({"gates": [{**NODE, "service": "a b"}]}, "gates[0].service = 'a b'"),
        ({"gates": [{**NODE, "wait": 600.0}]}, "gates[0].wait = 600"),
        ({"gates": [{**NODE, "name": "../x"}]}, "gates[0].name = '../x'"),
    ],
)
def test_what_is_wrong_is_named(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(FirewallError) as caught:
        profile(options(**changes))
    assert says in str(caught.value)


def test_ports_of_another_protocol_are_others() -> None:
    two = [{**API, "ports": ["53"]}, {**API, "name": "dns", "ports": ["53"], "protocol": "udp"}]
    assert "udp dport { 53 } jump dns" in render.table(profile(options(services=two, gates=[])))


@pytest.mark.parametrize(
    ("source", "number", "networks_", "policy", "says"),
    [
        ("198.51.100.7", 22, ["198.51.100.0/24"], "drop", ""),
        ("::ffff:198.51.100.7", 22, ["198.51.100.0/24"], "drop", ""),
        ("fe80::1%eth0", 22, ["fe80::/10"], "drop", ""),
        ("203.0.113.9", 22, ["198.51.100.0/24"], "drop", "comes from 203.0.113.9"),
        ("203.0.113.9", 22, ["198.51.100.0/24"], "accept", "198.51.100.0/24"),
        ("203.0.113.9", 22, [], "drop", ""),
        ("198.51.100.7", 2222, ["198.51.100.0/24"], "drop", "management_ports = 22"),
        ("203.0.113.9", 2222, ["198.51.100.0/24"], "accept", ""),
    ],
)
def test_the_connection_that_it_came_over(
    source: str, number: int, networks_: list[str], policy: str, says: str
) -> None:
    wanted = profile(options(management_networks=networks_, policy=policy))
    fault = refused_connection(wanted, source, number)
    assert bool(fault) == bool(says)
    assert says in fault
