# Copyright: (c) 2026, Holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""firewall_rules: the host's own undo beside a run that is slow, a boot, and other people."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any, Callable

import pytest
from ansible_collections.holdfast.chain.plugins.module_utils import firewall_program as program
from ansible_collections.holdfast.chain.plugins.module_utils.firewall_apply import run
from ansible_collections.holdfast.chain.plugins.module_utils.firewall_program import PENDING, RUN
from ansible_collections.holdfast.chain.plugins.module_utils.firewall_read import (
    FIREWALLD_UNDO,
    POLICY_FILE,
)
from ansible_collections.holdfast.chain.plugins.module_utils.hostfs import HostError
from ansible_collections.holdfast.chain.plugins.module_utils.transaction import TransactionError
from fake_firewall import API, DROPIN, NODE, P2P, UNIT, FakeFirewall, ask, with_firewall
from faults import at_each_call, numbers

CONF = "/etc/nftables.conf"
GUARD = "firewall-gate.node"
OTHER = {"name": "other", "ports": ["9000"], "gate": "other"}
OTHER_GATE = {"name": "other", "service": "other"}


def essence(host: FakeFirewall) -> dict[str, Any]:
    """What counts: without the module's own folder, with what is noted of gates."""
    found = {n: item for n, item in host.lasting().items() if not n.startswith(program.STATE)}
    return found | {"marks": host.match(f"{RUN}/*.nft")}


def undoing_at(number: int, host: FakeFirewall) -> Callable[[str], None]:
    """A strike that lets the timer fire at the number-th call, or once it gets the lock."""
    left = [number]

    def strike(_name: str) -> None:
        left[0] -= 1
        if left[0] > 0 or host.is_locked() or host.is_locked(program.STATE):
            return
        pending = host.firewall().pending()
        if pending is not None:
            left[0] = 10**6  # once
            host.firewall().undo(pending["token"])

    return strike


@pytest.mark.parametrize(
    ("init", "firewalld", "first", "changed"),
    [
        ("systemd", "absent", None, ask(confirm_within=10)),
        ("systemd", "absent", ask(), ask(confirm_within=10, services=[API], gates=[])),
        ("systemd", "inactive", None, ask(confirm_within=10, backend="firewalld")),
        ("systemd", "active", ask(), ask(confirm_within=10, services=[API], gates=[])),
        ("systemd", "active", ask(), ask(confirm_within=10, present=False)),
        ("openrc", "absent", None, ask(confirm_within=10)),
        ("openrc", "absent", ask(), ask(confirm_within=10, present=False)),
    ],
)
def test_a_run_that_the_timer_overtakes_leaves_the_host_as_it_was(
    tmp_path: Path, init: str, firewalld: str, first: Any, changed: Any
) -> None:
    overtaken = 0
    for number in numbers():
        host = with_firewall(tmp_path / str(number), init, firewalld)
        host.set_state("active", [*host.units("active"), UNIT])
        if first is not None:
            run(host, first, check=False)
        before = essence(host)
        not_undone: list[str] = []
        with pytest.MonkeyPatch.context() as patch:
            done = at_each_call(patch, host, undoing_at(number, host))
            try:
                run(host, changed, check=False)
            except TransactionError as error:
                overtaken += "the host has undone the change" in str(error)
                not_undone = error.not_undone
        if done() < number:
            break
        assert not_undone == []
        host.before_write = lambda _name: None
        host.firewall().undo()  # where the run had come to its end
        assert essence(host) == before, f"call {number}"
        assert host.firewall().pending() is None
    assert overtaken > 3


def test_a_run_that_is_overtaken_does_not_load_its_rules(tmp_path: Path) -> None:
    host = with_firewall(tmp_path / "h")
    loaded: list[Any] = []

    def strike(words: str) -> None:
        if words == "systemctl daemon-reload" and not loaded:
            loaded.append(host.state("table"))
            host.firewall().undo((host.firewall().pending() or {})["token"])
        elif words == "nft -f -":
            loaded.append("loaded")

    host.before_write = strike
    with pytest.raises(TransactionError, match="took longer than confirm_within = 10 s"):
        run(host, ask(confirm_within=10), check=False)
    assert host.state("table") is None
    assert host.read(DROPIN) is None


def test_a_reboot_is_not_confirmed(tmp_path: Path) -> None:
    host = with_firewall(tmp_path / "h")
    before = essence(host)
    run(host, ask(confirm_within=45), check=False)
    host.start_anew()
    with pytest.raises(HostError, match="started anew before the change was confirmed"):
        run(host, ask(), check=False, confirming=True)
    assert not host.exists(PENDING)
    assert host.state("table") is None
    host.set_state("active", [])
    left = {k: v for k, v in essence(host).items() if k != program.BOOT_ID}
    assert left == {k: v for k, v in before.items() if k != program.BOOT_ID}


@pytest.mark.parametrize(
    "request_",
    [
        ask(confirm_within=45, services=[API], gates=[]),
        ask(confirm_within=45, present=False),
    ],
)
def test_a_boot_does_not_have_an_unconfirmed_policy(tmp_path: Path, request_: Any) -> None:
    host = with_firewall(tmp_path / "h", firewalld="active")
    first = ask(confirm_within=45, services=[P2P])
    run(host, first, check=False)
    assert host.exists(FIREWALLD_UNDO)
    run(host, first, check=False, confirming=True)
    assert not host.exists(FIREWALLD_UNDO)
    policy, table = host.state("policy"), host.state("table")["text"]
    run(host, request_, check=False)
    assert host.state("policy") != policy
    host.start_anew()
    assert host.state("policy") == policy == host.read(POLICY_FILE)
    assert host.state("table")["text"] == table
    assert run(host, first, check=False)[0]["repaired"]
    assert not host.exists(FIREWALLD_UNDO)
    assert host.state("policy") == policy


def test_firewalld_started_again_keeps_what_may_yet_be_confirmed(tmp_path: Path) -> None:
    host = with_firewall(tmp_path / "h", firewalld="active")
    run(host, ask(confirm_within=45), check=False)
    policy = host.read(POLICY_FILE)
    host.firewall().undo_at_boot()
    assert host.read(POLICY_FILE) == policy
    run(host, ask(), check=False, confirming=True)
    host.start_anew()
    assert host.state("policy") == policy
    assert host.state("table") is not None


@pytest.mark.parametrize("check", [True, False])
def test_what_an_administrator_wrote_meanwhile_stays(tmp_path: Path, check: bool) -> None:
    host = with_firewall(tmp_path / "h")
    run(host, ask(confirm_within=45), check=False)
    own = "#!/usr/sbin/nft -f\n# mine\n"
    host.put(CONF, own, 0o755)
    host.put(DROPIN, "# mine as well\n")
    if check:
        promised = run(host, ask(), check=True)[0]
        done = run(host, ask(), check=False)[0]
        assert promised["changes"] == done["changes"]
        assert CONF not in done["repaired"]
        assert (host.read(CONF) or "").startswith(own)
        return
    undone, failed = host.firewall().undo()
    assert failed == [
        f"{name} (changed since by somebody else; left as it is)" for name in (CONF, DROPIN)
    ]
    assert "/etc/holdfast-firewall/gates.json" in undone
    assert host.read(CONF) == own
    assert host.read(DROPIN) == "# mine as well\n"
    assert host.state("table") is None


def test_an_undo_forgets_new_gates_before_the_former_rules_are_loaded(tmp_path: Path) -> None:
    host = with_firewall(tmp_path / "h")
    host.set_state("active", [UNIT, "other"])
    run(host, ask(), check=False)
    request = ask(confirm_within=45, services=[P2P, OTHER], gates=[NODE, OTHER_GATE])
    run(host, request, check=False)
    assert host.match(f"{RUN}/*.nft") == [f"{RUN}/node.nft", f"{RUN}/other.nft"]
    marks: list[Any] = []
    host.before_write = lambda _words: marks.append(host.match(f"{RUN}/*.nft"))
    host.firewall().undo()
    assert marks[0] == [f"{RUN}/node.nft"]
    assert host.state("table")["open"] == ["tcp . 30303", "tcp . 30304"]


@pytest.mark.parametrize("wanted", [ask(present=False), ask(services=[API], gates=[])])
def test_a_guard_ends_before_what_it_needs_is_removed(tmp_path: Path, wanted: Any) -> None:
    host = with_firewall(tmp_path / "h", "openrc")
    run(host, ask(), check=False)
    assert host.units("guards") == [GUARD]
    host.commands.clear()
    run(host, wanted, check=False)
    assert host.units("guards") == []
    assert not host.is_link(f"/etc/runlevels/default/{GUARD}")
    assert f"rc-update del {GUARD} default" in host.commands


def test_an_undo_brings_a_guard_back(tmp_path: Path) -> None:
    host = with_firewall(tmp_path / "h", "openrc")
    run(host, ask(), check=False)
    before = essence(host)
    run(host, ask(present=False, confirm_within=45), check=False)
    assert host.units("guards") == []
    assert host.firewall().undo()[1] == []
    assert host.units("guards") == [GUARD]
    assert essence(host) == before


def test_nobody_confirms_what_is_being_undone(tmp_path: Path) -> None:
    """Guards are stopped without the lock, since they need it to close their gates."""
    host = with_firewall(tmp_path / "h", "openrc")
    run(host, ask(confirm_within=45), check=False)
    faults: list[str] = []

    def strike(words: str) -> None:
        if words == f"rc-service --ifexists {GUARD} stop":
            with pytest.raises(HostError, match="has just been undone") as caught:
                run(host, ask(), check=False, confirming=True)
            faults.append(str(caught.value))

    host.before_write = strike
    assert host.firewall().undo()[1] == []
    assert faults
    assert host.state("table") is None


def test_a_guard_without_pidfd_sees_the_service_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = with_firewall(tmp_path / "h", "openrc")
    firewall = host.firewall()
    host.put(program.GATES, '{"gates": {"node": {"service": "node"}}}')
    told: list[str] = []
    pids = iter([7, 7, None])

    class OverError(Exception):
        """The guard would go on for ever."""

    def close(gate: str) -> None:
        told.append(f"close {gate}")
        raise OverError

    monkeypatch.delattr(os, "pidfd_open", raising=False)
    monkeypatch.setattr(program.time, "sleep", lambda _seconds: told.append("looked again"))
    monkeypatch.setattr(firewall, "_main_pid", lambda _service: next(pids))
    monkeypatch.setattr(firewall, "open_gate", lambda gate: told.append(f"open {gate}"))
    monkeypatch.setattr(firewall, "close_gate", close)
    with pytest.raises(OverError):
        firewall.guard("node")
    assert told == ["open node", "looked again", "close node"]


def test_an_old_kernel_has_no_pidfd(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_pid: int) -> int:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(os, "pidfd_open", refuse, raising=False)
    assert program.pidfd(1) is None
