# SPDX-License-Identifier: GPL-3.0-or-later
"""Identities change under load, and the network does not notice: rotation, rollover, revocation."""

from __future__ import annotations

import hashlib
import json
import re
import secrets
import socket
import ssl
import time
from pathlib import Path

import pytest
from lab.shell import capture
from load import Load
from support import Network, Node, ansible, eventually

PATIENT = pytest.mark.timeout(1800)  # playbooks take minutes on a busy machine
QUIET_SECONDS = 20


def play(name: str, **variables: object) -> str:
    """Run one of the playbooks, which has to work; what it says of changes, in the end."""
    done = ansible(f"holdfast.chain.{name}", "-e", json.dumps(variables))
    assert done.returncode == 0, done.stdout
    return done.stdout.partition("PLAY RECAP")[2]


def failed_task(said: str) -> str:
    """Name of the task that a playbook ended at, without its role; empty if none failed."""
    before, fatal, _ = said.partition("\nfatal: [")
    *_, last = re.findall(r"^TASK \[(?:\S+ : )?(.+?)\] \*", before, re.MULTILINE) or [""]
    return str(last) if fatal else ""


def served(node: Node, port: int = 30303) -> str:
    """SHA-256 of the certificate that the node's listener serves."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # which one it is, is the question
    plain = socket.create_connection((node.address, port), timeout=10)
    with context.wrap_socket(plain) as connection:
        certificate = connection.getpeercert(binary_form=True)
    assert certificate is not None
    return hashlib.sha256(certificate).hexdigest()


def on_disk(node: Node) -> str:
    """SHA-256 of the certificate in the node's identity."""
    pem = node.host.check_output(f"cat /etc/holdfast/{node.name}/tls/current/certificate.pem")
    return hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem)).hexdigest()


def roots(node: Node) -> list[str]:
    """SHA-256 of each root that the node trusts."""
    text = node.host.check_output(f"cat /etc/holdfast/{node.name}/tls/current/ca.pem")
    found = re.findall(r"-----BEGIN.+?END CERTIFICATE-----", text, re.DOTALL)
    return [hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem)).hexdigest() for pem in found]


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


def revoked_on(node: Node, name: str) -> bool:
    """Whether the node has no session with that peer."""
    (peer,) = [peer for peer in node.status()["peers"] if peer["name"] == name]
    return not peer["connected"]


@PATIENT
def test_rotation_is_not_noticed(network: Network, capsys: pytest.CaptureFixture[str]) -> None:
    """New certificates everywhere, no restart, no connection lost, no transaction lost."""
    before = {node.name: served(node) for node in network}
    running = processes(network)
    with Load(network["v1"]) as quiet:
        time.sleep(QUIET_SECONDS)  # what is measured is this time without a rotation
    with Load(network["v1"]) as load:
        play("rotate_certs", rotate_force=True)
    for node in network:
        assert served(node) == served(node, 30304) == on_disk(node) != before[node.name]
    assert processes(network) == running
    assert lost_connections(network, load.began) == []
    quiet.check(network)
    load.check(network)
    with capsys.disabled():
        print(f"\nwithout rotation: {quiet}\nduring rotation:  {load}")
        print(f"longest gap, to that without: {load.longest_gap() / quiet.longest_gap():.2f}")


@PATIENT
def test_rotation_waits_for_validators_that_are_out_of_step(network: Network) -> None:
    """With one validator away no other is touched."""
    before = {node.name: on_disk(node) for node in network}
    network["v4"].systemctl("stop")
    try:
        rest = network.others("v4")
        eventually(lambda: all(revoked_on(node, "v4") for node in rest), 30, "v4 is gone")
        tried = ansible("holdfast.chain.rotate_certs", "-e", json.dumps({"rotate_force": True}))
        assert tried.returncode != 0
        assert failed_task(tried.stdout) == "Wait until every other validator is there"
        assert {node.name: on_disk(node) for node in network} == before
    finally:
        network["v4"].start()


@PATIENT
def test_no_other_authority_is_rolled_out(network: Network, tmp_path: Path) -> None:
    """Neither one that is not there, nor one that the hosts do not trust."""
    before = {node.name: (on_disk(node), roots(node)) for node in network}
    folder, passphrase = tmp_path / "ca", secrets.token_hex(16)

    def tried() -> str:
        words = {"pki_ca_directory": str(folder), "pki_ca_passphrase": passphrase}
        done = ansible("holdfast.chain.rotate_certs", "-e", json.dumps(words))
        assert done.returncode != 0
        return failed_task(done.stdout)

    assert tried() == "Refuse to go on without it"
    assert not folder.exists()
    made = {
        "directory": str(folder),
        "common_name": "demo.example",
        "trust_domain": "demo.example",
        "passphrase": passphrase,
    }
    capture(["ansible", "localhost", "-m", "holdfast.chain.mtls_ca", "-a", json.dumps(made)])
    assert tried() == "Refuse an authority that the host does not trust"
    assert {node.name: (on_disk(node), roots(node)) for node in network} == before


@PATIENT
def test_rollover_of_the_authority_is_not_noticed(network: Network) -> None:
    """Another root behind every certificate, the old one trusted nowhere; nothing lost.

    It goes on where it was stopped, and once it is over another run changes nothing.
    """
    ((old,),) = {tuple(roots(node)) for node in network}
    running = processes(network)
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
    recap = play("rotate_ca", rotate_ca_replaces=old)
    assert recap.count("changed=0") == recap.count("changed=") > 0, recap
    assert [node.metric("identity_reloads_total") for node in network] == reloads


@PATIENT
def test_revoked_identity_is_out_until_it_has_a_new_one(network: Network) -> None:
    """Its sessions end everywhere, the rest goes on, and a new key lets it in again."""
    rest = network.others("v4")
    with Load(network["v1"]) as load:
        play("revoke", revoke_name="v4", revoke_reason="key_compromise")
        assert all(revoked_on(node, "v4") for node in rest)
        refused = network["v1"].metric('p2p_refused_connections_total{reason="revoked"}')
        assert refused > 0
        sent = network["v2"].status()["height"]
        eventually(lambda: network["v2"].status()["height"] > sent, 30, "the rest goes on")
        assert not network["v4"].is_ready()
    done = ansible(
        "holdfast.chain.rotate_certs", "-e", json.dumps({"rotate_force": True}), "--limit", "v4"
    )
    assert done.returncode == 0, done.stdout
    network.settle()
    load.check(network)
