# SPDX-License-Identifier: GPL-3.0-or-later
"""Identities change under load, and the network does not notice: rotation, rollover, revocation."""

from __future__ import annotations

import json
import re
import secrets
from datetime import datetime
from pathlib import Path

import pytest
from lab.shell import capture
from load import Load
from support import PLACE, Network, Node, ansible, eventually, on_disk, roots, served

PATIENT = pytest.mark.timeout(1800)  # playbooks take minutes on a busy machine
CLOSED_SECONDS = 5  # three by the node's own measure (test_net_identity.py); machines are busy


def play(name: str, *words: str, **variables: object) -> str:
    """Run one of the playbooks, which has to work; what it says."""
    done = ansible(f"holdfast.chain.{name}", *words, "-e", json.dumps(variables))
    assert done.returncode == 0, done.stdout
    return done.stdout


def rotate(*words: str, **variables: object) -> str:
    """Run a rotation that has to fail; the name of the task that it ended at."""
    done = ansible("holdfast.chain.rotate_certs", *words, "-e", json.dumps(variables))
    assert done.returncode != 0, done.stdout
    return failed_task(done.stdout)


def counts(said: str, key: str) -> dict[str, int]:
    """How often something (changed, failed) happened on each host, by the recap at the end."""
    recap = said.partition("PLAY RECAP")[2]
    found = re.findall(rf"^(\w+) .*\b{key}=(\d+)", recap, re.MULTILINE)
    return {name: int(number) for name, number in found}


def walked_through(said: str) -> set[str]:
    """The hosts that a rotation stopped at, one at a time or in their batch."""
    gates = re.findall(r"(?ms)^TASK \[\S+ : Wait until every other validator .*?\n\n", said)
    return set(re.findall(r"(?m)^ok: \[(\w+)\]", "".join(gates)))


def failed_task(said: str) -> str:
    """Name of the task that a playbook ended at, without its role; empty if none failed."""
    before, fatal, _ = said.partition("\nfatal: [")
    *_, last = re.findall(r"^TASK \[(?:\S+ : )?(.+?)\] \*", before, re.MULTILINE) or [""]
    return str(last) if fatal else ""


def processes(network: Network) -> dict[str, str]:
    """The process of each node: a restart makes another one."""
    return {node.name: node.property("MainPID") for node in network}


def lost_connections(network: Network, since: float) -> list[str]:
    """What nodes said of connections that ended."""
    lines = []
    for node in network:
        command = f"journalctl -u {node.unit} -o cat --no-pager --since @{int(since)}"
        said = node.host.check_output(command).splitlines()
        lines += [f"{node.name}: {line}" for line in said if "peer_disconnected" in line]
    return lines


def in_use(network: Network) -> dict[str, tuple[str, list[str]]]:
    """Certificate on disk and roots of each node."""
    return {node.name: (on_disk(node), roots(node)) for node in network}


def renewed(network: Network, before: dict[str, tuple[str, list[str]]]) -> set[str]:
    """The nodes with another certificate, or other roots, than before."""
    after = in_use(network)
    return {name for name in after if after[name] != before[name]}


def seconds_to_close(node: Node, name: str, since: float) -> float:
    """Seconds from the arrival of a revocation list to the end of the session with that peer."""
    arrived = float(node.host.check_output(f"stat -c %.Y /etc/holdfast/{node.name}/tls/crl.pem"))
    command = f"journalctl -u {node.unit} -o cat --no-pager --since @{int(since)}"
    for line in node.host.check_output(command).splitlines():
        said = json.loads(line) if line.startswith("{") else {}
        if said.get("event") == "peer_disconnected" and said["peer"] == name:
            assert "is revoked" in said["error"]
            return datetime.fromisoformat(said["time"]).timestamp() - arrived
    raise AssertionError(f"{node.name} does not say that its session with {name} ended")


def revoked_on(node: Node, name: str) -> bool:
    """Whether the node has no session with that peer."""
    (peer,) = [peer for peer in node.status()["peers"] if peer["name"] == name]
    return not peer["connected"]


@PATIENT
def test_rotation_is_not_noticed(network: Network, capsys: pytest.CaptureFixture[str]) -> None:
    """New certificates everywhere, no restart, no connection lost, no transaction lost."""
    before = {node.name: served(node) for node in network}
    running = processes(network)
    with Load(network["v1"]) as load:
        play("rotate_certs", rotate_force=True)
    for node in network:
        assert served(node) == served(node, 30304) == on_disk(node) != before[node.name]
    assert processes(network) == running
    assert lost_connections(network, load.began) == []
    load.check(network)
    with capsys.disabled():
        print(f"\nduring rotation: {load}")


@PATIENT
def test_rotation_waits_for_validators_that_are_out_of_step(network: Network) -> None:
    """With one validator away no other is touched, unless it is said that it is away."""
    before = in_use(network)
    network["v4"].systemctl("stop")
    try:
        rest = network.others("v4")
        eventually(lambda: all(revoked_on(node, "v4") for node in rest), 30, "v4 is gone")
        ended_at = rotate("--limit", "o1,v1", rotate_force=True)
        assert ended_at == "Wait until every other validator is there"
        assert in_use(network) == before
        play("rotate_certs", "--limit", "o1,v1", rotate_force=True, rotate_away="v4")
        assert renewed(network, before) == {"o1", "v1"}
    finally:
        network["v4"].start()


@PATIENT
def test_rotation_stops_in_the_middle(network: Network) -> None:
    """A validator that does not take its certificate is the last one that is touched."""
    broken = network["v2"]
    before, running = in_use(network), processes(network)
    folder = f"/run/systemd/system/{broken.unit}.d"
    lines = r"[Service]\nExecReload=\nExecReload=/bin/false\n"
    broken.host.check_output(f"mkdir -p {folder} && printf '{lines}' >{folder}/broken.conf")
    broken.host.check_output("systemctl daemon-reload")
    try:
        ended_at = rotate(rotate_force=True)
    finally:
        broken.host.check_output(f"rm -r {folder} && systemctl daemon-reload")
    assert ended_at == "Have the node read its identity again"
    assert renewed(network, before) == {"o1", "v1", broken.name}  # in this order
    # The node finds what is new by itself; nobody's restart, and all are in step (the fixture).
    eventually(lambda: served(broken) == on_disk(broken), 30, "it takes what was installed")
    assert processes(network) == running


@PATIENT
def test_no_run_ends_well_while_a_node_goes_by_another_identity(network: Network) -> None:
    """It cannot see what is new on disk: neither a rotation calls that done, nor site.yml later."""
    node = network["o1"]
    tls, folder = f"/etc/holdfast/{node.name}/tls", f"/run/systemd/system/{node.unit}.d"
    lines = rf"[Service]\nBindReadOnlyPaths=/run/old-tls:{tls}\n"
    node.host.check_output(f"cp -a {tls} /run/old-tls && mkdir -p {folder}")
    node.host.check_output(f"printf '{lines}' >{folder}/old.conf && systemctl daemon-reload")
    words = ["--limit", node.name, "-e", "node_reload_timeout=2"]
    proof = "Prove by a handshake with each port that"
    try:
        node.systemctl("restart")
        network.settle()
        assert rotate(*words, rotate_force=True).startswith(proof)
        assert served(node) != on_disk(node)
        done = ansible("holdfast.chain.site", *words)
        assert done.returncode != 0, done.stdout
        assert failed_task(done.stdout).startswith(proof)
    finally:
        node.host.check_output(f"rm -r {folder} /run/old-tls && systemctl daemon-reload")
        node.systemctl("restart")
    network.settle()
    assert served(node) == on_disk(node)


@PATIENT
def test_no_other_authority_is_rolled_out(network: Network, tmp_path: Path) -> None:
    """Neither one that is not there, nor one that the hosts do not trust."""
    before = in_use(network)
    folder, passphrase = tmp_path / "ca", secrets.token_hex(16)
    words = {"pki_ca_directory": str(folder), "pki_ca_passphrase": passphrase}
    assert rotate("--limit", "o1", **words) == "Refuse to go on without it"
    assert not folder.exists()
    made = {
        "directory": str(folder),
        "common_name": "demo.example",
        "trust_domain": "demo.example",
        "passphrase": passphrase,
    }
    capture(["ansible", "localhost", "-m", "holdfast.chain.mtls_ca", "-a", json.dumps(made)])
    ended_at = rotate("--limit", "o1", **words)
    assert ended_at == "Refuse an authority that the host does not trust"
    assert in_use(network) == before


@PATIENT
def test_rollover_of_the_authority_is_not_noticed(network: Network) -> None:
    """Another root behind every certificate, the old one trusted nowhere; nothing lost.

    A rehearsal changes nothing. It goes on where it was stopped, and once it is over another run
    changes nothing.
    """
    ((old,),) = {tuple(roots(node)) for node in network}
    before, running = in_use(network), processes(network)
    authority = sorted(path.name for path in (PLACE / "ca").iterdir())
    said = play("rotate_ca", "--check", rotate_ca_replaces=old)
    assert sum(counts(said, "changed").values()) == 1  # a second authority would be made
    assert in_use(network) == before
    assert sorted(path.name for path in (PLACE / "ca").iterdir()) == authority
    with Load(network["v1"]) as load:
        play("rotate_ca", rotate_ca_replaces=old, rotate_ca_to="trust_both")
        assert {len(roots(node)) for node in network} == {2}
        assert all(old in roots(node) for node in network)
        play("rotate_ca", rotate_ca_replaces=old)
    ((new,),) = {tuple(roots(node)) for node in network}
    assert new != old
    assert all(served(node) == on_disk(node) for node in network)
    assert processes(network) == running
    assert lost_connections(network, load.began) == []
    load.check(network)
    reloads = [node.metric("identity_reloads_total") for node in network]
    said = play("rotate_ca", rotate_ca_replaces=old)
    assert set(counts(said, "changed").values()) == {0}, said
    assert walked_through(said) == set(), said
    assert [node.metric("identity_reloads_total") for node in network] == reloads


@PATIENT
def test_revoked_identity_is_out_until_it_is_let_in_again(network: Network) -> None:
    """Its sessions end everywhere within seconds, the rest goes on and can be changed.

    site.yml refuses it by its name and serves the others. Let in again, the next rotation renews it
    before all others, which would wait for it.
    """
    rest = network.others("v4")
    limited = ansible("holdfast.chain.revoke", "--limit", "v4", "-e", "revoke_name=v4")
    assert failed_task(limited.stdout) == "Refuse what is incomplete"
    said = re.sub(r"\s+", " ", limited.stdout)
    assert re.search(r"left out by --limit \w+, \w+, \w+, \w+: expected none", said)
    with Load(network["v1"]) as load:
        play("revoke", revoke_name="v4")
        assert all(revoked_on(node, "v4") for node in rest)
        took = {node.name: seconds_to_close(node, "v4", load.began) for node in rest}
        assert max(took.values()) < CLOSED_SECONDS, took
        assert network["v1"].metric('p2p_refused_connections_total{reason="revoked"}') > 0
        height = network["v2"].status()["height"]
        eventually(lambda: network["v2"].status()["height"] > height, 30, "the rest goes on")
        assert not network["v4"].is_ready()
        before = in_use(network)
        # What it puts right last of all shows that it got to its end on the others.
        network["o1"].host.check_output("systemctl disable --now holdfast-identity@o1.timer")
        done = ansible("holdfast.chain.site")
        assert done.returncode != 0
        assert failed_task(done.stdout) == "Refuse an identity to a name that was revoked"
        assert "pki_name = v4: was revoked" in done.stdout
        failed, changed = counts(done.stdout, "failed"), counts(done.stdout, "changed")
        assert {name for name, number in failed.items() if number} == {"v4"}
        assert {name for name, number in changed.items() if number} == {"o1"}, done.stdout
        assert network["o1"].host.service("holdfast-identity@o1.timer").is_running
        assert in_use(network) == before
    play("revoke", revoke_name="v4", revoke_readmit=True)
    said = play("rotate_certs")
    assert walked_through(said) == {"v4"}, said
    network.settle()
    load.check(network)
    assert renewed(network, before) == {"v4"}
