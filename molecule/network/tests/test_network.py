# SPDX-License-Identifier: GPL-3.0-or-later
"""A healthy network: one chain everywhere, transactions in, wrong ones refused."""

from __future__ import annotations

import base64

import pytest
from support import Network, Node, account, eventually


def test_every_node_is_connected_to_every_other(network: Network) -> None:
    """Four peers each, and the same idea of the network."""
    for node in network:
        status = node.status()
        connected = {peer["name"] for peer in status["peers"] if peer["connected"]}
        assert connected == {other.name for other in network.others(node.name)}
        assert (status["validators"], status["quorum"], status["tolerated_faults"]) == (4, 3, 1)
    assert len({node.status()["genesis_hash"] for node in network}) == 1


def test_same_block_at_the_same_height_everywhere(network: Network) -> None:
    """The first and the latest block that all have."""
    height = eventually(lambda: min(node.status()["height"] for node in network), 60, "a block")
    assert network.same_block(1)
    assert network.same_block(height)


@pytest.mark.parametrize("via", ["v1", "o1"])
def test_transaction_is_committed_on_all(network: Network, via: str) -> None:
    """Whoever took it, a validator or an observer: same block, same effect on every node."""
    sent = network.put(f"through-{via}", "hello", network[via])
    assert sent["status"] == "committed"
    network.same_block(sent["height"])
    sender = account()
    for node in network:
        found = node.get(f"/v1/transactions/{sent['id']}")
        assert (found["status"], found["height"]) == ("committed", sent["height"])
        assert "hello" in str(node.get(f"/v1/values/{sender}/through-{via}"))


@pytest.mark.parametrize("content", [b"", b"no transaction", b"\xff" * 5000])
def test_malformed_transaction_is_refused_with_a_code(network: Network, content: bytes) -> None:
    """The client learns what is wrong; nothing reaches a block."""
    body = {"transaction": base64.b64encode(content).decode()}
    status, answer = network["v1"].post("/v1/transactions", body)
    assert status == 400
    (verdict,) = answer["results"]
    assert not verdict["accepted"]
    assert verdict["code"]
    assert verdict["reason"]


def is_leader(node: Node) -> bool:
    """Whether the node leads the view it is in."""
    return bool(node.status()["leader"] == node.name)


def test_all_agree_on_the_leader(network: Network) -> None:
    """One leader, which is a validator and knows it."""
    eventually(lambda: sum(is_leader(node) for node in network) == 1, 30, "one leader")
    assert len({node.status()["leader"] for node in network}) == 1
