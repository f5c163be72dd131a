# SPDX-License-Identifier: GPL-3.0-or-later
"""What the network must not accept: strangers, wrong configuration, another genesis, bad data."""

from __future__ import annotations

import json
import secrets
import socket
import ssl
from pathlib import Path
from typing import Iterator

import pytest
from lab.shell import ROOT
from support import LAB, PLACE, Network, Node, ansible, eventually

NODE = "/opt/holdfast/current/bin/holdfast-node"
DOMAIN = "demo.example"  # chain_trust_domain of the inventory
SCENARIO = ROOT / "molecule" / LAB
PATIENT = pytest.mark.timeout(600)  # a deployment takes minutes on a busy machine


@pytest.fixture(scope="module")
def identities(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A second identity of a member, one of no member, and one of a member's name by others."""
    place = tmp_path_factory.mktemp("identities")
    ours = {
        "folder": str(PLACE / "ca"),
        "passphrase": (PLACE / "ca-passphrase").read_text().split()[0],
    }
    others = {"folder": str(place / "others"), "passphrase": secrets.token_hex(16)}
    wanted = {"member": ("o1", ours), "no member": ("v9", ours), "impostor": ("o1", others)}
    variables = place / "variables.json"
    variables.touch(mode=0o600)
    listed = [
        {"name": name, "directory": str(place / who), "authority": authority}
        for who, (name, authority) in wanted.items()
    ]
    variables.write_text(json.dumps({"pki_trust_domain": DOMAIN, "identities": listed}))
    made = ansible(str(SCENARIO / "identity.yml"), "-e", f"@{variables}")
    assert made.returncode == 0, made.stdout
    return {who: place / who / "current" for who in wanted}


def knock(node: Node, port: int, identity: Path) -> bytes:
    """Connect with an identity; the first byte the node says, or nothing if it hangs up."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # whom we talk to is not the question here
    context.load_cert_chain(identity / "chain.pem", identity / "key.pem")
    with socket.create_connection((node.address, port), timeout=10) as plain:
        try:
            with context.wrap_socket(plain) as connection:
                return connection.recv(1)
        except (ssl.SSLError, ConnectionError):
            return b""


def refusals(node: Node, reason: str) -> float:
    """How many connections the node has refused for a reason."""
    return node.metric(f'p2p_refused_connections_total{{reason="{reason}"}}')


@PATIENT
def test_member_is_let_in(network: Network, identities: dict[str, Path]) -> None:
    """The way the next test knocks works: somebody who is a member gets an answer."""
    assert knock(network["v1"], 30304, identities["member"])


@PATIENT
@pytest.mark.parametrize("port", [30303, 30304])
@pytest.mark.parametrize(
    ("who", "reason"),
    [
        ("impostor", "wrong_ca"),  # the name of a member, certified by another authority
        ("no member", "not_member"),  # certified by our own authority, but not in the inventory
    ],
)
def test_stranger_is_refused(
    network: Network, identities: dict[str, Path], who: str, reason: str, port: int
) -> None:
    """The node hangs up before it says a byte, and counts why."""
    before = refusals(network["v1"], reason)
    assert not knock(network["v1"], port, identities[who])
    eventually(lambda: refusals(network["v1"], reason) == before + 1, 10, "it is counted")


def fingerprint(node: Node) -> tuple[str, str]:
    """Configuration on disk and process: what a refused change must leave alone."""
    configuration = node.host.check_output(f"sha256sum /etc/holdfast/{node.name}/config.toml")
    return configuration, node.property("MainPID")


@PATIENT
def test_bad_configuration_is_refused_and_the_old_one_runs_on(network: Network) -> None:
    """The node's own check stops it before it replaces anything, and names key and value."""
    before = {node.name: fingerprint(node) for node in network}
    bad = json.dumps({"node_settings": {"consensus": {"block_interval_ms": -5}}})
    tried = ansible("holdfast.chain.site", "-e", bad)
    assert tried.returncode != 0
    assert "block_interval_ms" in tried.stdout
    assert "-5" in tried.stdout
    assert {node.name: fingerprint(node) for node in network} == before


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"chain_id": ""}, "chain_id"),
        ({"chain_address": "same"}, "same"),
    ],
)
@PATIENT
@pytest.mark.usefixtures("network")
def test_wrong_inventory_stops_before_any_host(wrong: dict[str, str], said: str) -> None:
    """Preflight names the fault and nothing is changed."""
    tried = ansible("holdfast.chain.site", "-e", json.dumps(wrong))
    assert tried.returncode != 0
    assert said in tried.stdout
    recap = tried.stdout.partition("PLAY RECAP")[2]
    assert "changed=0" in recap
    assert recap.count("changed=0") == recap.count("changed=")


def test_genesis_is_not_written_twice(network: Network) -> None:
    """The node's command line never overwrites a genesis, nor a key."""
    v1 = network["v1"]
    path = "/etc/holdfast/v1/genesis.json"
    before = v1.host.check_output(f"sha256sum {path}")
    key = v1.host.check_output(f"{NODE} keys show /etc/holdfast/v1/keys/validator.key")
    member = f"v1={json.loads(key)['public_key']}"
    second = v1.host.run(f"{NODE} genesis create --chain-id demo --validator {member} --out {path}")
    assert second.rc != 0
    assert path in second.stdout + second.stderr
    assert v1.host.check_output(f"sha256sum {path}") == before


@pytest.fixture
def stopped(network: Network) -> Iterator[Node]:
    """The observer, stopped, with a copy of its files that is put back at the end."""
    node = network["o1"]
    folders = f"/etc/holdfast/{node.name} /var/lib/holdfast/{node.name}"
    node.systemctl("stop")
    node.host.check_output(f"tar -cf /root/before.tar {folders}")
    yield node
    node.systemctl("stop")
    node.host.check_output(
        f"rm -rf {folders} && tar -xpf /root/before.tar -C / && rm /root/before.tar"
    )
    node.start()


def refuses_to_run(node: Node) -> str:
    """Start a node that should refuse: wait until it has ended with a failure; what it logged."""
    journal = f"journalctl -u {node.unit} -o cat --no-pager"
    cursor = node.host.check_output(f"{journal} -n 0 --show-cursor").rpartition("cursor: ")[2]
    node.systemctl("reset-failed")
    node.host.run(f"systemctl start {node.unit}")

    def said() -> str:
        return str(node.host.check_output(f"{journal} --after-cursor '{cursor.strip()}'"))

    eventually(lambda: "Failed with result 'exit-code'" in said(), 30, "it ends with a failure")
    return said()


def test_another_genesis_is_refused(stopped: Node) -> None:
    """A node whose data belong to one genesis does not start with another."""
    path = f"/etc/holdfast/{stopped.name}/genesis.json"
    genesis = json.loads(stopped.host.file(path).content_string)
    shown = json.dumps(genesis)
    time_ms = str(genesis["time_ms"])
    assert time_ms in shown
    stopped.host.check_output(f"sed -i s/{time_ms}/{int(time_ms) + 1}/ {path}")
    said = refuses_to_run(stopped)
    assert "genesis" in said
    assert "belongs to this data folder" in said


def test_truncated_data_is_refused(stopped: Node) -> None:
    """A damaged data folder stops the node with a clear message, not with a guess."""
    path = f"/var/lib/holdfast/{stopped.name}/chain.db"
    half = stopped.host.file(path).size // 2
    assert half > 0
    stopped.host.check_output(f"truncate -s {half} {path}")
    said = refuses_to_run(stopped)
    assert path in said


def test_alien_data_is_refused(stopped: Node) -> None:
    """A file that is no database is left as it is."""
    path = f"/var/lib/holdfast/{stopped.name}/chain.db"
    stopped.host.check_output(f"rm -f {path}*; cp /etc/passwd {path}")
    stopped.host.check_output(f"chown holdfast:holdfast {path}")
    said = refuses_to_run(stopped)
    assert path in said
    assert stopped.host.check_output(f"cmp {path} /etc/passwd") == ""
