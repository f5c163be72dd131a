# Copyright: (c) 2026, Holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""firewall_rules on a host: applied, confirmed, and that a second run has nothing to do."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, Callable

import pytest
from ansible_collections.holdfast.chain.plugins.module_utils.firewall import (
    FirewallError,
)
from ansible_collections.holdfast.chain.plugins.module_utils.firewall_apply import run
from ansible_collections.holdfast.chain.plugins.module_utils.firewall_program import PENDING
from ansible_collections.holdfast.chain.plugins.module_utils.firewall_read import (
    FIREWALLD_DROPIN,
    POLICY_FILE,
    connection,
)
from ansible_collections.holdfast.chain.plugins.module_utils.hostfs import HostError
from ansible_collections.holdfast.chain.plugins.module_utils.transaction import TransactionError
from fake_firewall import API, DROPIN, NODE, P2P, UNIT, ask, came_from, with_firewall


@pytest.mark.parametrize(
    ("firewalld", "backend"),
    [
        ("absent", "auto"),
        ("inactive", "auto"),
        ("inactive", "firewalld"),
        ("active", "auto"),
        ("active", "firewalld"),
    ],
)
def test_a_second_run_has_nothing_to_do(tmp_path: Path, firewalld: str, backend: str) -> None:
    host = with_firewall(tmp_path / "h", firewalld=firewalld)
    host.set_state("active", [*host.units("active"), UNIT])
    request = ask(backend=backend)
    promised = run(host, request, check=True)[0]
    done = run(host, request, check=False)[0]
    assert done["changed"]
    assert done["changes"] == promised["changes"]
    used = "firewalld" if firewalld == "active" or backend == "firewalld" else "nftables"
    assert done["backend"] == used
    assert used in host.units("enabled")
    before = host.everything()
    again = run(host, request, check=False)[0]
    assert again["changes"] == []
    assert host.everything() == before
    assert run(host, request, check=True)[0]["changes"] == []
    if used == "firewalld":
        assert "30303" in host.state("policy")
        assert host.exists(FIREWALLD_DROPIN)
        assert "include" not in (host.read("/etc/nftables.conf") or "")
    else:
        assert host.read(POLICY_FILE) is None
        assert 'include "/etc/nftables.d/holdfast.nft"' in (host.read("/etc/nftables.conf") or "")


@pytest.mark.parametrize(
    ("init", "firewalld"), [("systemd", "absent"), ("systemd", "active"), ("openrc", "absent")]
)
def test_absent_leaves_the_host_as_it_was(tmp_path: Path, init: str, firewalld: str) -> None:
    host = with_firewall(tmp_path / "h", init, firewalld)
    before = host.lasting()
    run(host, ask(), check=False)
    assert host.lasting() != before
    promised = run(host, ask(present=False), check=True)[0]
    done = run(host, ask(present=False), check=False)[0]
    assert done["changes"] == promised["changes"]
    after = host.lasting()
    lasts = ("/run/fake", "/etc/nftables.d", "/etc/systemd", "/etc/runlevels/boot/nftables")
    for name in before.keys() | after.keys():  # nftables stays enabled; folders are harmless
        assert name.startswith(lasts) or after.get(name) == before.get(name), name
    files = [name for name in after.keys() - before.keys() if host.path(name).is_file()]
    assert files == [name for name in files if name.startswith("/run/fake")]
    assert host.state("table") is None
    assert host.state("policy") is None
    assert not run(host, ask(present=False), check=False)[0]["changed"]


def test_check_mode_touches_nothing(tmp_path: Path, snapshot: Callable[[Path], Any]) -> None:
    host = with_firewall(tmp_path / "h")
    before = snapshot(Path(host.root))
    assert run(host, ask(), check=True)[0]["changed"]
    assert snapshot(Path(host.root)) == before


def test_check_mode_on_a_host_without_nft(tmp_path: Path) -> None:
    host = with_firewall(tmp_path / "h")
    host.path("/etc/nftables.conf").unlink()
    host._nft = None  # type: ignore[assignment, method-assign] -- the program is not there
    assert run(host, ask(), check=True)[0]["changed"]
    with pytest.raises(HostError, match="install the package nftables"):
        run(host, ask(), check=False)


def test_rules_changed_by_hand_are_loaded_again(tmp_path: Path) -> None:
    host = with_firewall(tmp_path / "h")
    run(host, ask(), check=False)
    table = host.state("table")
    host.set_state("table", {**table, "text": table["text"].replace("drop", "accept")})
    result = run(host, ask(), check=False)[0]
    assert [change["target"] for change in result["changes"]] == ["table inet holdfast"]
    assert host.state("table")["text"] == table["text"]
    host.set_state("table", None)
    assert run(host, ask(), check=False)[0]["changed"]
    assert host.state("table")["text"] == table["text"]


def test_rules_that_nft_does_not_take_change_nothing(tmp_path: Path) -> None:
    host = with_firewall(tmp_path / "h")
    before = host.lasting()
    host.broken = {"nft -c"}
    with pytest.raises(HostError, match="nft -c -f -"):
        run(host, ask(), check=False)
    assert host.lasting() == before


def test_a_cut_is_refused_before_anything_changes(tmp_path: Path) -> None:
    host = with_firewall(tmp_path / "h")
    came_from(host, "203.0.113.9")
    before = host.lasting()
    request = ask(management_networks=["198.51.100.0/24"])
    for check in (True, False):
        with pytest.raises(FirewallError, match=r"203\.0\.113\.9, which is in none of them"):
            run(host, request, check=check)
    assert host.lasting() == before
    came_from(host, "198.51.100.9")
    assert run(host, request, check=False)[0]["changed"]


def test_the_connection_is_found_below_sudo(tmp_path: Path) -> None:
    host = with_firewall(tmp_path / "h")
    assert connection(host) is None
    came_from(host, "2001:db8::7", 2222)
    found = connection(host)
    assert found is not None
    assert (found.source, found.server_port) == ("2001:db8::7", 2222)


def test_nftables_beside_an_active_firewalld_is_refused(tmp_path: Path) -> None:
    host = with_firewall(tmp_path / "h", firewalld="active")
    with pytest.raises(FirewallError, match="firewalld is active here"):
        run(host, ask(backend="nftables"), check=False)


def test_the_rhel_family_gets_firewalld(tmp_path: Path) -> None:
    host = with_firewall(tmp_path / "h", firewalld="inactive")
    host.put("/etc/os-release", 'ID="centos"\nID_LIKE="rhel fedora"\n')
    assert run(host, ask(), check=False)[0]["backend"] == "firewalld"
    assert "firewalld" in host.units("active")


def test_an_unconfirmed_change_is_undone_by_the_host(tmp_path: Path) -> None:
    host = with_firewall(tmp_path / "h")
    host.set_state("active", [UNIT])
    before = host.lasting()
    result = run(host, ask(confirm_within=45), check=False)[0]
    assert result["pending"]
    timer = host.state("timer")
    assert "--on-active=45s" in timer
    assert timer[-3].endswith("/undo")
    assert host.read("/etc/nftables.conf") == before["/etc/nftables.conf"][3].decode(), "the boot"
    assert "nftables" not in host.units("enabled")
    assert host.firewall().undo("another token") == ([], [])
    assert host.state("table") is not None
    undone, failed = host.firewall().undo(timer[-1])
    assert undone
    assert failed == []
    after = {k: v for k, v in host.lasting().items() if "holdfast-firewall" not in k}
    assert after == before
    with pytest.raises(HostError, match=r"undone at .* nobody had confirmed"):
        run(host, ask(), check=False, confirming=True)
    again = run(host, ask(), check=False)[0]
    assert again["changed"]
    assert run(host, ask(), check=False, confirming=True)[0]["changed"] is False


def test_a_confirmed_change_lasts(tmp_path: Path) -> None:
    host = with_firewall(tmp_path / "h")
    came_from(host, "198.51.100.9", client_port=40000)
    run(host, ask(confirm_within=45), check=False)
    with pytest.raises(HostError, match="shows nothing: confirm over a new one"):
        run(host, ask(), check=False, confirming=True)
    came_from(host, "198.51.100.9", client_port=40001)
    assert run(host, ask(), check=True, confirming=True)[0]["changed"] is False
    assert host.exists(PENDING)
    assert run(host, ask(), check=False, confirming=True)[0]["changed"]
    assert host.firewall().undo() == ([], [])
    assert "nftables" in host.units("enabled")
    assert run(host, ask(confirm_within=45), check=False)[0]["changes"] == []


def test_a_change_of_gates_alone_needs_no_confirmation(tmp_path: Path) -> None:
    host = with_firewall(tmp_path / "h")
    run(host, ask(), check=False)
    result = run(host, ask(confirm_within=45, gates=[{**NODE, "wait": 1.0}]), check=False)[0]
    assert result["changed"]
    assert not result["pending"]
    assert host.firewall().pending() is None


def test_without_systemd_a_process_waits(tmp_path: Path) -> None:
    host = with_firewall(tmp_path / "h", "openrc")
    run(host, ask(confirm_within=30), check=False)
    (command,) = host.left
    assert command[-2:] == ["--after", "30"]
    assert command[-4] == "undo"


def test_running_services_have_their_ports_from_the_first_rule_on(tmp_path: Path) -> None:
    host = with_firewall(tmp_path / "h")
    host.set_state("active", [UNIT])
    host.checks["/bin/look"] = 0
    gates = [{**NODE, "check": ["/bin/look"]}]
    loaded: list[Any] = []
    strike = host.set_state

    def watched(name: str, value: Any) -> None:
        if name == "table":
            loaded.append(value)
        strike(name, value)

    host.set_state = watched  # type: ignore[method-assign]
    result = run(host, ask(gates=gates), check=False)[0]
    assert result["gates"]["node"] == {
        "service": UNIT,
        "running": True,
        "open": True,
        "reason": "",
    }
    assert loaded[0]["open"] == ["tcp . 30303", "tcp . 30304"], "closed for a moment"


def test_a_gate_whose_check_fails_stays_closed_and_it_is_said(tmp_path: Path) -> None:
    host = with_firewall(tmp_path / "h")
    host.set_state("active", [UNIT])
    host.checks["/bin/look"] = 1
    request = ask(gates=[{**NODE, "check": ["/bin/look"]}])
    result, warnings = run(host, request, check=False)
    assert not result["gates"]["node"]["open"]
    assert warnings == ["gate node stays closed: /bin/look: /bin/look says no"]
    again, warnings = run(host, request, check=False)
    assert again["changes"] == []
    assert warnings


def test_a_gate_left_open_is_closed(tmp_path: Path) -> None:
    host = with_firewall(tmp_path / "h")
    host.set_state("active", [UNIT])
    run(host, ask(), check=False)
    host.set_state("active", [])
    result = run(host, ask(), check=False)[0]
    assert [change["target"] for change in result["changes"]] == ["gate node"]
    assert host.state("table")["open"] == []
    assert result["pending"] is False


def test_gates_follow_their_units(tmp_path: Path) -> None:
    host = with_firewall(tmp_path / "h")
    run(host, ask(), check=False)
    text = host.read(DROPIN) or ""
    assert "ExecStartPost=+-/usr/local/sbin/holdfast-firewall open node\n" in text
    assert "ExecStopPost=+-/usr/local/sbin/holdfast-firewall close node\n" in text
    renamed = {**NODE, "service": "other"}
    run(host, ask(gates=[renamed]), check=False)
    assert host.read(DROPIN) is None
    assert host.read("/etc/systemd/system/other.service.d/50-firewall.conf") == text


def test_openrc_has_a_service_of_its_own_for_a_gate(tmp_path: Path) -> None:
    host = with_firewall(tmp_path / "h", "openrc")
    run(host, ask(), check=False)
    script = "/etc/init.d/firewall-gate.node"
    assert 'command_args="guard node"' in (host.read(script) or "")
    assert host.mode(script) == 0o755
    assert host.is_link("/etc/runlevels/default/firewall-gate.node")
    assert host.is_link("/etc/runlevels/boot/nftables")
    assert "rc-service firewall-gate.node restart" in host.commands
    run(host, ask(services=[API], gates=[]), check=False)
    assert host.read(script) is None
    assert not host.is_link("/etc/runlevels/default/firewall-gate.node")


def test_what_broke_is_said_and_all_is_put_back(tmp_path: Path) -> None:
    host = with_firewall(tmp_path / "h", firewalld="active")
    before = host.lasting()
    host.broken_once = {"firewall-cmd --reload"}
    with pytest.raises(TransactionError) as caught:
        run(host, ask(), check=False)
    assert "run firewall-cmd" in str(caught.value)
    assert host.lasting() == before
    assert caught.value.not_undone == []


def test_what_could_not_be_put_back_is_said(tmp_path: Path) -> None:
    host = with_firewall(tmp_path / "h", firewalld="active")
    host.broken = {"firewall-cmd --reload"}
    with pytest.raises(TransactionError) as caught:
        run(host, ask(), check=False)
    assert "firewall-cmd --reload" in " ".join(caught.value.not_undone)


def test_a_profile_is_known_again_by_what_it_lists(tmp_path: Path) -> None:
    host = with_firewall(tmp_path / "h")
    run(host, ask(), check=False)
    request = ask(services=[P2P, {**API, "sources": ["192.0.2.0/25"]}])
    result = run(host, request, check=False)[0]
    targets = [change["target"] for change in result["changes"]]
    assert targets == ["/etc/nftables.d/holdfast.nft", "table inet holdfast"]
    assert dataclasses.replace(request) == request
