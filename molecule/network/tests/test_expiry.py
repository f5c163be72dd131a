# SPDX-License-Identifier: GPL-3.0-or-later
"""Nobody looks: what the timers do when a certificate nears its end."""

from __future__ import annotations

import contextlib
import datetime
import json
import time
from typing import Any, Iterator

import pytest
from controller import CHAIN, controller, play
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from lab.shell import ROOT, capture, environment
from support import PLACE, VARIABLES, Network, Node, eventually, on_disk, served

PATIENT = pytest.mark.timeout(600)
LEFT = 0.15  # of its life; warned of below a fifth, renewed below a third
SOON = "AccuracySec=100ms"
OFTEN = f"OnCalendar=\\nOnCalendar=*:*:0/10\\nRandomizedDelaySec=0\\n{SOON}"


def leaf(node: Node) -> x509.Certificate:
    """The certificate in the node's identity."""
    pem = node.host.check_output(f"cat /etc/holdfast/{node.name}/tls/current/certificate.pem")
    return x509.load_pem_x509_certificate(pem.encode())


def authority(name: str) -> bytes:
    """A file of the network's authority."""
    return (PLACE / "ca" / "authority" / name).read_bytes()


def age(node: Node) -> datetime.datetime:
    """Give the node a certificate as old as its authority and near its end; the end.

    Everything else in it is as it was, and its key stays. No module signs such a certificate.
    """
    issuer = x509.load_pem_x509_certificate(authority("intermediate.pem"))
    passphrase = (PLACE / "ca-passphrase").read_bytes().split()[0]
    key: Any = serialization.load_pem_private_key(authority("intermediate-key.pem"), passphrase)
    old, now = leaf(node), datetime.datetime.now(datetime.timezone.utc)
    end = now + (now - issuer.not_valid_before_utc) * LEFT / (1 - LEFT)
    builder = (
        x509.CertificateBuilder()
        .subject_name(old.subject)
        .issuer_name(old.issuer)
        .public_key(old.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(issuer.not_valid_before_utc)
        .not_valid_after(end)
    )
    for extension in old.extensions:
        builder = builder.add_extension(extension.value, extension.critical)
    aged = builder.sign(key, hashes.SHA384())
    names = old.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    root = x509.load_pem_x509_certificate(authority("root.pem"))
    arguments = {
        "directory": f"/etc/holdfast/{node.name}/tls",
        "certificate": aged.public_bytes(serialization.Encoding.PEM).decode(),
        "chain": authority("intermediate.pem").decode(),
        "root_certificate": authority("root.pem").decode(),
        "root_fingerprint": root.fingerprint(hashes.SHA256()).hex(),
        "dns": names.get_values_for_type(x509.DNSName),
        "ip": [str(one) for one in names.get_values_for_type(x509.IPAddress)],
        "spiffe_id": names.get_values_for_type(x509.UniformResourceIdentifier)[0],
        "owner": "holdfast",
        "group": "holdfast",
    }
    where = ["-i", str(ROOT / "inventories" / "demo"), "-e", json.dumps(VARIABLES)]
    module = ["-m", "holdfast.chain.mtls_certificate", "-a", json.dumps(arguments)]
    # Outside of playbooks Mitogen does not know the variables of the inventory.
    env = environment(ANSIBLE_STRATEGY="linear")
    capture(["ansible", node.name, *where, *module], env)
    return aged.not_valid_after_utc


@contextlib.contextmanager
def timer(node: Node, name: str, changed: str) -> Iterator[None]:
    """With lines added to a timer, which runs on with them; nothing else of it is another."""
    folder = f"/run/systemd/system/{name}.timer.d"
    lines = f"[Timer]\\n{changed}\\n"
    node.host.check_output(f"mkdir -p {folder} && printf '{lines}' >{folder}/test.conf")
    # Before the timer is there, its lines wait for it.
    active = f"systemctl is-active --quiet {name}.timer"
    again = f"systemctl daemon-reload && if {active}; then systemctl restart {name}.timer; fi"
    node.host.check_output(again)
    try:
        yield
    finally:
        node.host.check_output(f"rm -r {folder} && {again}")


def result(node: Node, service: str) -> str:
    """How the last run of a service ended, by the journal: the next one may have begun."""
    said = node.host.check_output(f"journalctl -u {service} -n 200 -o cat --no-pager")
    for line in reversed(said.splitlines()):
        if line.startswith("Finished "):
            return "success"
        if "Failed with result '" in line:
            return line.split("'")[1]
    return ""


def seen_by_monitoring(node: Node) -> float:
    """The end of the certificate in node_exporter's folder, Unix seconds; 0 before the first."""
    text = node.host.run(f"cat {VARIABLES['node_textfile_directory']}/*.prom").stdout
    name = f'holdfast_identity_expiry_timestamp_seconds{{node="{node.name}"}} '
    return sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith(name))


@PATIENT
def test_a_timer_warns_and_another_renews(network: Network) -> None:
    """The hourly one on the host: metric, failed unit, log. The controller's: a new certificate.

    Both fire by themselves here, only more often than they would.
    """
    node, watch = network["o1"], "holdfast-identity@o1"
    began = time.time()
    with timer(node, watch, OFTEN):
        end = leaf(node).not_valid_after_utc.timestamp()
        eventually(lambda: seen_by_monitoring(node) == end, 30, "the metric")
        eventually(lambda: result(node, watch) == "success", 30, "nothing to warn of")
        end = age(node).timestamp()
        eventually(lambda: seen_by_monitoring(node) == end, 30, "the metric of the old one")
        eventually(lambda: result(node, watch) == "exit-code", 30, "a failed unit")
        said = node.host.check_output(f"journalctl -u {watch} --since @{int(began)} -o cat")
        assert "is expiring" in said
        assert "playbook rotate_certs" in said
        aged = on_disk(node)
        eventually(lambda: served(node) == aged, 30, "the node serves it")
        with controller(node), timer(node, "holdfast-rotate", SOON):
            play(
                node,
                "schedule_rotation",
                schedule_inventory=f"{CHAIN}/hosts.yml",
                schedule_vault_password_file="/root/.vault-password",
                schedule_when="*:*:0/10",
                schedule_delay="0",
                schedule_limit=node.name,
                schedule_become="false",
            )
            eventually(lambda: on_disk(node) != aged, 180, "an unattended renewal")
            # From now on it looks, and there is nothing to do.
            node.host.check_output("systemctl disable --now holdfast-rotate.timer")
            eventually(lambda: result(node, "holdfast-rotate") == "success", 180, "its success")
            shown = node.host.check_output("journalctl -u holdfast-rotate -o cat")
            assert "failed=0" in shown
        assert served(node) == served(node, 30304) == on_disk(node)
        days = (leaf(node).not_valid_after_utc.timestamp() - time.time()) / 86_400
        assert 29 < days <= 30
        eventually(lambda: result(node, watch) == "success", 30, "the warning is over")
    assert seen_by_monitoring(node) == leaf(node).not_valid_after_utc.timestamp()
