# Copyright: (c) 2026, Holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""firewall_rules: whatever fails or kills it, the host itself or the next run puts all back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible_collections.holdfast.chain.plugins.module_utils.firewall_apply import run
from ansible_collections.holdfast.chain.plugins.module_utils.firewall_program import (
    PENDING,
    STATE,
)
from ansible_collections.holdfast.chain.plugins.module_utils.firewall_read import RECORD
from ansible_collections.holdfast.chain.plugins.module_utils.hostfs import HostError
from ansible_collections.holdfast.chain.plugins.module_utils.transaction import TransactionError
from fake_firewall import API, NODE, UNIT, FakeFirewall, ask, with_firewall
from faults import DiskFullError, at_each_call, failing_at, killed_at, numbers

FIRST = ask()
CHANGE = ask(services=[{**API, "sources": ["192.0.2.0/25"]}], gates=[])
MOVED = ask(gates=[{**NODE, "service": "other"}])
TAKE = ask(present=False)
CASES = [
    pytest.param("absent", FIRST, id="nftables-first"),
    pytest.param("inactive", ask(backend="firewalld"), id="firewalld-started"),
    pytest.param("active", FIRST, id="firewalld-first"),
    pytest.param("absent", CHANGE, id="nftables-changed"),
    pytest.param("active", CHANGE, id="firewalld-changed"),
    pytest.param("absent", TAKE, id="nftables-removed"),
    pytest.param("active", TAKE, id="firewalld-removed"),
    pytest.param("openrc", FIRST, id="openrc-first"),
    pytest.param("openrc", CHANGE, id="openrc-changed"),
    pytest.param("openrc", MOVED, id="openrc-gate-moved"),
    pytest.param("openrc", TAKE, id="openrc-removed"),
]


KILLS = [case for case in CASES if case.id not in ("firewalld-first", "nftables-changed")]


def prepared(root: Path, firewalld: str, request: Any) -> FakeFirewall:
    """A host; firewalld is its state, or openrc for a host without systemd."""
    if firewalld == "openrc":
        host = with_firewall(root, "openrc")
    else:
        host = with_firewall(root, firewalld=firewalld)
        host.set_state("active", [*host.units("active"), UNIT])
    if request in (CHANGE, MOVED, TAKE):
        run(host, FIRST, check=False)
    return host


def essence(host: FakeFirewall) -> dict[str, Any]:
    """What counts: in the module's own folder only what it knows its rules again by."""
    return {
        name: item
        for name, item in host.lasting().items()
        if not name.startswith(STATE) or name == RECORD
    }


@pytest.mark.parametrize(("firewalld", "request_"), CASES)
def test_a_failure_at_any_step_leaves_the_host_as_it_was(
    tmp_path: Path, firewalld: str, request_: Any
) -> None:
    failed = 0
    host = prepared(tmp_path / "0", firewalld, request_)
    before = essence(host)
    for number in numbers():
        with pytest.MonkeyPatch.context() as patch:
            done = at_each_call(patch, host, failing_at(number))
            try:
                run(host, request_, check=False)
            except (TransactionError, HostError, DiskFullError):
                failed += 1
                assert essence(host) == before, f"call {number}"
                assert not host.exists(PENDING)
                continue
        if done() < number:
            break
        # what failed did not matter, such as making a folder that is there
        assert run(host, request_, check=True)[0]["changes"] == [], f"call {number}"
        host = prepared(tmp_path / str(number), firewalld, request_)
    assert failed > 8


@pytest.mark.parametrize(("firewalld", "request_"), KILLS)
def test_killed_at_any_step_the_host_itself_puts_all_back(
    tmp_path: Path, firewalld: str, request_: Any
) -> None:
    host = prepared(tmp_path / "0", firewalld, request_)
    before = essence(host)
    undone = 0
    for number in numbers():
        if not killed_at(number, host, lambda host=host: run(host, request_, check=False)):
            break
        undone += bool(host.firewall().undo()[0])
        if essence(host) != before:  # it had got to the end
            assert run(host, request_, check=False)[0]["changes"] == []
            host = prepared(tmp_path / str(number), firewalld, request_)
    assert number > 8
    assert undone > 5


@pytest.mark.parametrize(("firewalld", "request_"), KILLS)
def test_killed_at_any_step_the_next_run_repairs_and_says_so(
    tmp_path: Path, firewalld: str, request_: Any
) -> None:
    whole = prepared(tmp_path / "whole", firewalld, request_)
    run(whole, request_, check=False)
    wanted = essence(whole)
    told = 0
    for number in numbers():
        host = prepared(tmp_path / str(number), firewalld, request_)
        if not killed_at(number, host, lambda host=host: run(host, request_, check=False)):
            break
        pending = host.exists(PENDING)
        promised = run(host, request_, check=True)[0]
        result = run(host, request_, check=False)[0]
        assert result["changes"] == promised["changes"], f"killed before call {number}"
        assert bool(result["repaired"]) == pending
        assert essence(host) == wanted
        told += pending
    assert number > 8
    assert told > 5


def test_killed_while_it_is_confirmed(tmp_path: Path) -> None:
    """Either it lasts, or it is undone: never one half for now and another for the next boot."""
    request = ask(confirm_within=45)
    confirmed = 0
    for number in numbers():
        host = prepared(tmp_path / str(number), "absent", request)
        before = essence(host)
        run(host, request, check=False)
        work = lambda host=host: run(host, request, check=False, confirming=True)  # noqa: E731
        killed = killed_at(number, host, work)
        host.firewall().undo(host.state("timer")[-1])
        if essence(host) == before:
            continue
        confirmed += 1
        assert run(host, request, check=False)[0]["changes"] == []
        if not killed:
            break
    assert number > 5
    assert confirmed > 0


def test_a_failed_confirmation_is_undone_by_the_host(tmp_path: Path) -> None:
    request = ask(confirm_within=45)
    host = prepared(tmp_path / "h", "absent", request)
    before = essence(host)
    run(host, request, check=False)
    host.broken = {"systemctl enable"}
    with pytest.raises(TransactionError, match="the host undoes the change within 45 s"):
        run(host, request, check=False, confirming=True)
    host.broken = set()
    host.firewall().undo(host.state("timer")[-1])
    assert essence(host) == before
