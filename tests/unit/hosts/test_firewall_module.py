# Copyright: (c) 2026, Holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""firewall_rules as Ansible calls it, its filters, and the role's documentation."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Callable

import pytest
import yaml
from ansible_collections.holdfast.chain.plugins.filter.firewall_faults import firewall_faults
from ansible_collections.holdfast.chain.plugins.module_utils import firewall_read
from ansible_collections.holdfast.chain.plugins.module_utils.firewall import profile
from ansible_collections.holdfast.chain.plugins.module_utils.firewall_nodes import node_firewall
from ansible_collections.holdfast.chain.plugins.module_utils.firewall_render import (
    gates_file,
    table,
)
from ansible_collections.holdfast.chain.plugins.modules import firewall_rules
from fake_firewall import FakeFirewall, with_firewall

ROLE = Path(__file__).resolve().parents[3] / "roles" / "firewall"
EXAMPLES = [
    task["holdfast.chain.firewall_rules"]
    for task in yaml.safe_load(firewall_rules.EXAMPLES)
    if "holdfast.chain.firewall_rules" in task
]


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeFirewall:
    """The host that the module finds."""
    made = with_firewall(tmp_path / "h")
    monkeypatch.setattr(firewall_rules, "Host", lambda: made)
    return made


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_documented_example(
    number: int,
    host: FakeFirewall,
    run_module: Callable[..., Any],
    snapshot: Callable[[Path], Any],
) -> None:
    options = EXAMPLES[number]
    if options.get("state") in ("absent", "confirmed"):
        run_module("firewall_rules", EXAMPLES[0])
    if options.get("state") == "absent":
        run_module("firewall_rules", EXAMPLES[1])
    before = snapshot(Path(host.root))
    promised = run_module("firewall_rules", options, check=True)
    assert not promised.failed, promised.text
    assert snapshot(Path(host.root)) == before, "check mode touched the host"
    done = run_module("firewall_rules", options)
    assert not done.failed, done.text
    assert done["changed"]
    if options.get("state") == "confirmed":
        return
    assert done["changes"] == promised["changes"]
    assert done["diff"] == promised["diff"]
    if done["pending"]:
        assert run_module("firewall_rules", {"state": "confirmed"})["changed"]
    assert run_module("firewall_rules", options)["changed"] is False


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"confirm_within": 61}, "confirm_within = 61: expected 10 to 60 seconds, or 0"),
        ({"management_networks": ["10.0.0.5/24"]}, "did you mean 10.0.0.0/24?"),
        ({"services": [{"name": "x", "ports": ["1"], "gate": "g"}]}, "gate 'g' of x"),
    ],
)
def test_wrong_options_are_named_and_nothing_changes(
    options: dict[str, Any],
    message: str,
    host: FakeFirewall,
    run_module: Callable[..., Any],
    snapshot: Callable[[Path], Any],
) -> None:
    before = snapshot(Path(host.root))
    outcome = run_module("firewall_rules", options)
    assert outcome.failed
    assert message in outcome["msg"]
    assert snapshot(Path(host.root)) == before


def test_a_failure_tells_what_was_undone(
    host: FakeFirewall, run_module: Callable[..., Any]
) -> None:
    host.broken_once = {"systemctl daemon-reload"}
    outcome = run_module("firewall_rules", EXAMPLES[0])
    assert outcome.failed
    assert "/usr/local/sbin/holdfast-firewall" in outcome["undone"]
    assert outcome["not_undone"] == []


def test_results_have_what_is_documented(
    host: FakeFirewall, run_module: Callable[..., Any]
) -> None:
    documented = {
        key
        for key, entry in yaml.safe_load(firewall_rules.RETURN).items()
        if entry["returned"].startswith("success")
    }
    outcome = run_module("firewall_rules", EXAMPLES[0])
    assert set(outcome) - {"changed", "diff", "invocation"} == documented
    assert host.state("table") is not None


def test_the_same_options_give_the_same_program() -> None:
    assert firewall_read.programs("/opt/python") == firewall_read.programs("/opt/python")


@pytest.mark.parametrize(
    ("services", "more", "says"),
    [
        ([{"name": "a", "ports": [1], "sources": ["10.0.0.5/24"]}], {}, "sources of a[0] = '10."),
        ([{"name": "a", "ports": [1], "sources": ["10.0.0.0/33"]}], {}, "'10.0.0.0/33': expected"),
        ([{"name": "a", "ports": [1], "sources": "10.0.0.0/8"}], {}, "expected a list of networks"),
        ([{"name": "a", "ports": 80}], {}, "firewall_services[0].ports of a = 80"),
        ([{"name": "a", "ports": ["9-3"]}], {}, "'9-3': expected a port"),
        ([{"name": "a"}], {}, "firewall_services[0] = "),
        ("x", {}, "firewall_services = x: expected a list"),
        ([], {"management_networks": ["fe80::1%eth0"]}, "firewall_management_networks[0]"),
        ([], {"management_ports": []}, "firewall_management_ports is empty"),
        ([{"name": "a", "ports": [1], "gate": "g"}], {}, "firewall_gates has none"),
    ],
)
def test_faults_are_found_on_the_controller(services: Any, more: dict[str, Any], says: str) -> None:
    assert says in firewall_faults(services, **more)


def test_all_faults_are_named_at_once_and_none_where_there_is_none() -> None:
    wrong = [{"name": "a", "ports": ["x"], "sources": ["y"]}]
    assert len(firewall_faults(wrong, management_networks=["z"]).split("; ")) == 3
    right = [{"name": "a", "ports": [80, "81-90"], "sources": ["10.0.0.0/8", "::1"], "gate": "g"}]
    assert firewall_faults(right, [{"name": "g", "service": "g"}], ["192.0.2.1"], [22]) == ""


def member(name: str, **ports: int) -> dict[str, Any]:
    """A member, as the filter members has it."""
    return {"name": name, "p2p_port": 30303, "sync_port": 30304, "api_port": 8545, **ports}


def test_nodes_of_a_machine_are_one_profile() -> None:
    members = [member("v-2", p2p_port=1, sync_port=2, api_port=3), member("v-1")]
    made = node_firewall(members, ["192.0.2.0/24"], service="holdfast-node.{name}", listen="::")
    whole = profile(
        {
            "services": [
                {**item, "ports": [str(port) for port in item["ports"]]}
                for item in made["services"]
            ],
            "gates": made["gates"],
            "management_networks": [],
            "management_ports": ["22"],
            "policy": "drop",
        }
    )
    assert [gate.service for gate in whole.gates] == ["holdfast-node.v-1", "holdfast-node.v-2"]
    stored = json.loads(gates_file(whole))["gates"]
    assert stored["v-1"]["ports"] == [f"tcp . {port}" for port in (30303, 30304, 8080, 8545)]
    assert stored["v-2"]["check"] == [
        "/usr/local/sbin/holdfast-handshake",
        "--address=[::1]:1",
        "--identity=/etc/holdfast/v-2/tls/current",
    ]
    text = table(whole)
    assert "limit rate over 10/second burst 50 packets" in text
    assert text.count("ip saddr != { 192.0.2.0/24 } drop") == 2
    nobody = node_firewall([member("v1")])
    assert nobody["services"][2]["sources"] == []


def test_every_variable_of_the_role_is_used() -> None:
    defaults = yaml.safe_load((ROLE / "defaults/main.yml").read_text(encoding="utf-8"))
    tasks = "".join(path.read_text(encoding="utf-8") for path in (ROLE / "tasks").iterdir())
    assert [name for name in defaults if not re.search(rf"\b{name}\b", tasks)] == []
