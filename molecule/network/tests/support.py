# SPDX-License-Identifier: GPL-3.0-or-later
"""The scenario's network as its tests see it: nodes, their API, and patience with an end."""

from __future__ import annotations

import hashlib
import json
import os
import re
import socket
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from functools import partial
from typing import Any, Callable, TypeVar

import testinfra
from lab import hosts
from lab.shell import ROOT, STATE, capture, environment

LAB = os.environ.get("HOLDFAST_LAB", "network")  # a benchmark looks at another one
PLACE = STATE / LAB  # lab_state of the inventory: account key, authority
KEY = PLACE / "account.key"
# What the scenario's molecule.yml gives every playbook.
VARIABLES = {
    "lab_name": LAB,
    "node_bundle_directory": "{{ lab_state }}/bundles",
    "node_textfile_directory": "/run/node-exporter",
}
T = TypeVar("T")


class NoAnswerError(Exception):
    """A node's API does not answer, or not with 200."""


def eventually(look: Callable[[], T], seconds: float = 60, what: str = "") -> T:
    """Call `look` until it returns something true, and return that; AssertionError after that long.

    A node that does not answer counts as not yet.
    """
    deadline = time.monotonic() + seconds
    while True:
        try:
            seen: Any = look()
        except NoAnswerError as error:
            seen = None
            last: Any = error
        else:
            last = seen
        if seen:
            return seen
        if time.monotonic() > deadline:
            raise AssertionError(f"{what or look.__name__}: not within {seconds} s, last: {last}")
        time.sleep(0.2)  # between two looks; what is waited for is the condition


@dataclass(frozen=True)
class Node:
    """One node and the host it is on."""

    name: str
    address: str
    host: Any

    @property
    def unit(self) -> str:
        """Its systemd unit."""
        return f"holdfast-node@{self.name}.service"

    @property
    def url(self) -> str:
        """Its API as seen from here."""
        return f"http://{self.address}:8545"

    def get(self, path: str) -> Any:
        """Answer of the API; NoAnswerError if there is none, or an error."""
        try:
            with urllib.request.urlopen(self.url + path, timeout=5) as answer:  # noqa: S310 -- ours
                return json.load(answer)
        except OSError as error:
            raise NoAnswerError(f"{self.name}{path}: {error}") from error

    def post(self, path: str, body: Any) -> tuple[int, Any]:
        """Send JSON; status and answer, errors of the API included."""
        data = json.dumps(body).encode()
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(self.url + path, data, headers)  # noqa: S310 -- ours
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310 -- ours
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)

    def status(self) -> Any:
        """What the node says of itself and the network."""
        return self.get("/v1/status")

    def is_ready(self) -> bool:
        """Whether it says that it is in step with the network."""
        return bool(self.status()["ready"])

    def metric(self, prefix: str) -> float:
        """Sum of all metrics whose line starts so."""
        with urllib.request.urlopen(f"{self.url}/metrics", timeout=5) as answer:  # noqa: S310 -- ours
            lines = answer.read().decode().splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith(prefix))

    def systemctl(self, *words: str) -> str:
        """Run systemctl on the host; its output."""
        return str(self.host.check_output(f"systemctl {' '.join(words)} {self.unit}"))

    def property(self, key: str) -> str:
        """A property of the unit."""
        return self.systemctl("show", "--value", "--property", key)

    def start(self) -> None:
        """Start the unit; the tests' own starts do not count against its budget."""
        self.systemctl("reset-failed")
        self.systemctl("start")

    def journal(self, lines: int = 25) -> str:
        """The end of the node's log."""
        return str(self.host.run(f"journalctl -u {self.unit} -n {lines} -o cat --no-pager").stdout)


class Network:
    """All nodes of the scenario."""

    def __init__(self) -> None:
        self.nodes = {
            name: Node(name, address, testinfra.get_host(f"podman://{hosts.container(LAB, name)}"))
            for name, address in sorted(hosts.addresses(LAB).items())
        }

    def __iter__(self) -> Any:
        return iter(self.nodes.values())

    def __getitem__(self, name: str) -> Node:
        return self.nodes[name]

    def others(self, *names: str) -> list[Node]:
        """All nodes but these."""
        return [node for node in self if node.name not in names]

    def settle(self, seconds: float = 90) -> None:
        """Wait until every node is in step with the network."""
        for node in self:
            eventually(node.is_ready, seconds, f"{node.name} in step")

    def same_block(self, height: int) -> str:
        """The hash of a block, once every node has it; AssertionError if they differ."""
        blocks = [
            eventually(partial(node.get, f"/v1/blocks/{height}"), 60, f"block on {node.name}")
            for node in self
        ]
        hashes = {block["hash"] for block in blocks}
        assert len(hashes) == 1, hashes
        return str(hashes.pop())

    def put(self, key: str, value: str, via: Node) -> Any:
        """Store a value through a node's API, signed by the scenario's account; wait for commit."""
        words = ["tx", "put", "--url", via.url, "--key", str(KEY), "--name", key, "--value", value]
        return json.loads(capture(["holdfast-node", *words, "--wait", "--timeout", "60"]))


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


def account() -> str:
    """Address of the scenario's account."""
    return str(json.loads(capture(["holdfast-node", "keys", "show", str(KEY)]))["address"])


def ansible(playbook: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a playbook against the scenario's hosts; errors are in its output as well."""
    command = ["ansible-playbook", playbook, "-i", str(ROOT / "inventories" / "demo")]
    command += ["-e", json.dumps(VARIABLES), *words]
    env = environment(ANSIBLE_NOCOLOR="1", COLUMNS="160")
    return subprocess.run(
        command,
        cwd=ROOT,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
