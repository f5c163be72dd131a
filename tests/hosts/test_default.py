# SPDX-License-Identifier: GPL-3.0-or-later
"""One chain on several platforms; `host` is each of its machines in turn."""

from __future__ import annotations

import json
import urllib.request
from typing import Any

import pytest
from lab import hosts
from lab.shell import STATE, capture
from services import Service, eventually, nodes

Host = Any  # testinfra's Host has no types worth the name
LAB = "default-mixed"
KEY = STATE / LAB / "account.key"
SETTLE_SECONDS = 60


def get(name: str, path: str) -> Any:
    """What a node's API answers to this machine, through the node's firewall; None for an error."""
    url = f"http://{hosts.addresses(LAB)[name]}:8545{path}"
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return json.load(answer)
    except OSError:
        return None


@pytest.fixture
def name(host: Host) -> str:
    """The node's name."""
    (found,) = nodes(host)
    return found


def test_the_network_has_four_platforms() -> None:
    """So that the rest shows what it says."""
    wanted = {"debian", "ubuntu", "centos", "alpine"}
    told = capture(["podman", "ps", "--filter", f"label=holdfast.lab={LAB}", "-q"]).split()
    ask = ["sh", "-c", ". /etc/os-release; echo $ID"]
    assert {capture(["podman", "exec", one, *ask]).strip() for one in told} == wanted


def test_node_is_in_step_with_all_others(host: Host, name: str) -> None:
    """A validator that is connected to the three others, and ready."""

    def ready() -> bool:
        status = get(name, "/v1/status")
        return bool(
            status
            and status["ready"]
            and (status["validators"], status["quorum"]) == (4, 3)
            and [peer["connected"] for peer in status["peers"]] == [True] * 3
        )

    eventually(ready, SETTLE_SECONDS, f"{name} is in step")


def test_transaction_is_committed_on_all(host: Host, name: str) -> None:
    """Sent to this node, in the same block everywhere."""
    url = f"http://{hosts.addresses(LAB)[name]}:8545"
    words = ["tx", "put", "--url", url, "--key", str(KEY), "--name", f"by-{name}", "--value", "x"]
    sent = json.loads(capture(["holdfast-node", *words, "--wait", "--timeout", "60"]))
    assert sent["status"] == "committed"
    blocks = [
        eventually(
            lambda other=other: get(other, f"/v1/blocks/{sent['height']}"), SETTLE_SECONDS, other
        )
        for other in sorted(hosts.addresses(LAB))
    ]
    assert len(blocks) == 4
    assert len({block["hash"] for block in blocks}) == 1


def test_process_has_the_limits(host: Host, name: str) -> None:
    """Those of the role limits, or the most that this container can give."""

    def files(pid: int) -> list[int]:
        lines = host.check_output(f"cat /proc/{pid}/limits").splitlines()
        (line,) = [line for line in lines if line.startswith("Max open files")]
        return [int(word) for word in line.split()[3:5]]

    most = files(1)[1]
    assert files(Service(host, name).pid()) == [min(131072, most)] * 2
    assert host.check_output("cat /proc/sys/net/core/somaxconn") == "65535"
