# Copyright: (c) 2026, Holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The judgement over a whole inventory: every fault of every kind, all at once."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
from ansible_collections.holdfast.chain.plugins.module_utils.address import address_of
from ansible_collections.holdfast.chain.plugins.module_utils.members import (
    machine_leaders,
    members,
)
from ansible_collections.holdfast.chain.plugins.module_utils.preflight import faults, report

ADDRESS = address_of(bytes(32))
GROUPS = {
    "chain": ["o1", "v1", "v2", "v3", "v4"],
    "validators": ["v1", "v2", "v3", "v4"],
    "observers": ["o1"],
}
GOOD = {
    "clock": {"seconds": 0.2, "error": 0.1},
    "target": {"key": "x"},
    "target_fault": "",
    "free_bytes": {"/opt": 5 << 30},
}


@pytest.fixture
def network():
    """A sound inventory: groups, hostvars and what was found on the hosts."""
    wide = {
        "chain_id": "demo",
        "chain_trust_domain": "demo.example",
        "chain_accounts": {ADDRESS: 1000},
    }
    hostvars = {
        name: {**wide, "ansible_host": f"192.0.2.{number}"}
        for number, name in enumerate(GROUPS["chain"], 1)
    }
    return copy.deepcopy(GROUPS), hostvars, {name: dict(GOOD) for name in GROUPS["chain"]}


def found(network, **limits):
    usual = {
        "minimum_validators": 4,
        "clock_seconds": 5,
        "free_megabytes": 1024,
        "python_packaged": [],
    }
    return faults(*network, {**usual, **limits})


def names(network, **limits):
    return [(fault["host"], fault["name"]) for fault in found(network, **limits)]


def test_a_sound_inventory_has_no_faults(network):
    assert found(network) == []


def test_a_member_has_what_its_peers_need(network):
    groups, hostvars, _ = network
    hostvars["v2"].update(chain_address="v2.example", chain_p2p_port=31303)
    by_name = {member["name"]: member for member in members(groups, hostvars)}
    assert list(by_name) == ["o1", "v1", "v2", "v3", "v4"]
    assert by_name["v1"] == {
        "name": "v1",
        "role": "validator",
        "address": "192.0.2.2",
        "machine": "192.0.2.2",
        "dns": ["v1"],
        "ip": ["192.0.2.2"],
        "p2p_port": 30303,
        "sync_port": 30304,
        "api_port": 8545,
    }
    assert by_name["v2"]["dns"] == ["v2", "v2.example"]
    assert by_name["v2"]["p2p_port"] == 31303
    assert by_name["o1"]["role"] == "observer"


def test_the_first_node_of_each_machine_leads(network):
    _, hostvars, _ = network
    hostvars["v3"]["ansible_host"] = hostvars["v2"]["ansible_host"]
    assert machine_leaders(["v3", "v2", "v1"], hostvars) == ["v1", "v3"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("chain_id", None),
        ("chain_id", "Demo"),
        ("chain_id", "-demo"),
        ("chain_id", "a" * 49),
        ("chain_trust_domain", None),
        ("chain_trust_domain", "Demo.example"),
        ("chain_trust_domain", "nodot"),
        ("chain_accounts", [ADDRESS]),
        ("chain_accounts", {ADDRESS[:-1] + ("1" if ADDRESS[-1] != "1" else "2"): 1}),
        ("chain_accounts", {ADDRESS: 2**62, address_of(b"x" * 32): 2**62}),
    ],
)
def test_values_of_the_whole_network(network, name, value):
    for own in network[1].values():
        own[name] = value
    assert names(network) == [("", name)]


@pytest.mark.parametrize("amount", [-1, 1.5, "12", True, None, 2**63])
def test_amounts_are_whole_numbers(network, amount):
    for own in network[1].values():
        own["chain_accounts"] = {ADDRESS: amount}
    assert names(network) == [("", f"chain_accounts.{ADDRESS}")]


def test_a_value_that_differs_between_hosts_says_where(network):
    network[1]["v3"]["chain_id"] = "other"
    (fault,) = found(network)
    assert (fault["host"], fault["name"]) == ("", "chain_id")
    assert fault["value"] == "'demo' on o1/v1/v2/v4, 'other' on v3"


def test_too_few_validators_unless_that_is_wanted(network):
    groups = network[0]
    groups["validators"].remove("v4")
    groups["observers"].append("v4")
    (fault,) = found(network)
    assert (fault["name"], fault["value"]) == ("validators", "3")
    assert "4 tolerate 1, 3 tolerate 0" in fault["expected"]
    assert not found(network, minimum_validators=3)


@pytest.mark.parametrize("groups", [("validators", "observers"), ()])
def test_a_member_is_either_validator_or_observer(network, groups):
    network[0]["observers"].remove("o1")
    for group in groups:
        network[0][group].append("o1")
    assert names(network) == [("o1", "group")]


def test_names_become_parts_of_ids_and_units(network):
    groups, hostvars, hosts = network
    for group in ("chain", "observers"):
        groups[group] = [name.replace("o1", "o_1.example") for name in groups[group]]
    hostvars["o_1.example"], hosts["o_1.example"] = hostvars.pop("o1"), hosts.pop("o1")
    assert names(network) == [("o_1.example", "name")]


@pytest.mark.parametrize(
    ("different", "expected"),
    [
        ({"chain_address": "v1 v2"}, ("v1", "chain_address")),
        ({"chain_address": "v1:30303"}, ("v1", "chain_address")),
        ({"chain_p2p_port": 80}, ("v1", "chain_p2p_port")),
        ({"chain_sync_port": "thirty"}, ("v1", "chain_sync_port")),
        ({"chain_api_port": 70000}, ("v1", "chain_api_port")),
        ({"chain_api_port": 30303}, ("", "endpoint")),
        ({"ansible_host": "192.0.2.3"}, ("", "endpoint")),
        ({"chain_address": "192.0.2.3"}, ("", "endpoint")),
    ],
)
def test_addresses_and_ports_of_members(network, different, expected):
    network[1]["v1"].update(different)
    assert expected in names(network)
    assert {name for _, name in names(network)} == {expected[1]}


def test_several_nodes_on_one_machine_with_their_own_ports_are_fine(network):
    network[1]["v1"].update(
        ansible_host="192.0.2.3", chain_p2p_port=31303, chain_sync_port=31304, chain_api_port=8546
    )
    assert found(network) == []


@pytest.mark.parametrize(
    ("fact", "expected"),
    [
        ({"error": "unreachable"}, "connection"),
        ({"target": None, "target_fault": "no Python 3.10"}, "platform"),
        ({"clock": {"seconds": -7.0, "error": 1.5}}, "clock"),
        ({"free_bytes": {"/opt": 5 << 30, "/var/lib": 1 << 20}}, "free space at /var/lib"),
    ],
)
def test_hosts(network, fact, expected):
    network[2]["v3"].update(fact)
    assert names(network) == [("v3", expected)]


def test_a_clock_that_was_measured_badly_is_given_the_benefit_of_the_doubt(network):
    """The round trip of a slow connection is no fault of the clock."""
    network[2]["v3"]["clock"] = {"seconds": 7.0, "error": 3.0}
    assert found(network) == []


def test_a_python_that_will_be_installed_is_no_fault(network):
    network[2]["v3"].update(target=None, target_fault="no Python 3.10")
    assert found(network, python_packaged=["v3"]) == []


def test_hosts_left_out_of_a_run_are_not_judged_but_their_inventory_is(network):
    network[2].clear()
    network[1]["v2"]["chain_p2p_port"] = 1
    assert names(network) == [("v2", "chain_p2p_port")]


def test_all_faults_come_at_once_each_with_a_way_out(network):
    groups, hostvars, hosts = network
    hostvars["v1"].update(chain_id="x y", chain_p2p_port=1)
    groups["observers"].append("v2")
    hosts["v4"] = {"error": "unreachable"}
    text = report(found(network))
    assert len(text.splitlines()) == 5
    for line in text.splitlines():
        before, after = line.split(": expected ")
        assert " = " in before
        assert "; " in after
    assert "v4: connection = unreachable: expected " in text


def test_an_empty_inventory_is_no_crash():
    assert [fault["name"] for fault in found(({}, {}, {}))] == ["validators"]


EXAMPLES = Path(__file__).resolve().parents[4] / "inventories"


@pytest.mark.parametrize("example", ["testnet", "mainnet", "demo"])
def test_the_example_inventories_are_sound(example, monkeypatch, tmp_path):
    """As Ansible itself reads them; only their hosts are not looked at."""
    from ansible.inventory.manager import InventoryManager  # noqa: PLC0415 - slow to import
    from ansible.parsing.dataloader import DataLoader  # noqa: PLC0415
    from ansible.vars.manager import VariableManager  # noqa: PLC0415

    inventory = InventoryManager(loader=DataLoader(), sources=[str(EXAMPLES / example)])
    manager = VariableManager(loader=DataLoader(), inventory=inventory)
    hostvars = {
        host.name: manager.get_vars(host=host, include_hostvars=False)
        for host in inventory.get_hosts("chain")
    }
    for own in hostvars.values():
        for name, value in own.items():
            if isinstance(value, str) and "{{" in value:
                own[name] = {  # what templating, which needs hosts, would make of it
                    "chain_address": own["inventory_hostname"],
                    "ansible_host": own["inventory_hostname"],
                    "chain_accounts": {ADDRESS: 1},
                }.get(name, value)
    groups = {
        name: [host.name for host in inventory.get_hosts(name)]
        for name in ("chain", "validators", "observers")
    }
    assert report(found((groups, hostvars, {}))) == ""
    assert len(groups["validators"]) >= 4
