# SPDX-License-Identifier: GPL-3.0-or-later
"""One node may fail, whichever and however: the others go on, and it comes back in step."""

from __future__ import annotations

from support import Network, eventually


def test_stopped_leader_is_replaced(network: Network) -> None:
    """The rest elects another, commits without it, and it catches up when it is back."""
    leader = network[network["o1"].status()["leader"]]
    rest = network.others(leader.name)
    leader.systemctl("stop")
    sent = network.put("without-leader", leader.name, next(n for n in rest if n.name != "o1"))
    assert sent["status"] == "committed"
    eventually(
        lambda: all(node.status()["leader"] != leader.name for node in rest), 30, "another leader"
    )
    leader.start()
    network.settle()
    assert leader.get(f"/v1/transactions/{sent['id']}")["height"] == sent["height"]
    network.same_block(sent["height"])


def test_killed_node_is_back_in_step(network: Network) -> None:
    """kill -9 of a validator: systemd starts it again and nothing that was committed is lost."""
    leader = network["o1"].status()["leader"]
    victim = next(node for node in network if node.name not in (leader, "o1"))
    before = network.put("before-kill", "1", victim)
    old = victim.property("MainPID")
    victim.systemctl("kill", "--signal", "KILL")
    meanwhile = network.put("meanwhile", "2", network["o1"])
    eventually(
        lambda: victim.property("MainPID") not in ("0", old), 30, f"{victim.name} runs again"
    )
    eventually(victim.is_ready, 90, f"{victim.name} in step")
    for sent in (before, meanwhile):
        assert victim.get(f"/v1/transactions/{sent['id']}")["height"] == sent["height"]
        network.same_block(sent["height"])
    after = network.put("after-kill", "3", victim)
    assert after["status"] == "committed"


def test_killed_observer_is_back_in_step(network: Network) -> None:
    """An observer that was away fetches the blocks it missed."""
    observer = network["o1"]
    observer.systemctl("kill", "--signal", "KILL")
    missed = network.put("missed-by-observer", "1", network["v1"])
    height = eventually(
        lambda: observer.get(f"/v1/transactions/{missed['id']}")["height"], 90, "the block"
    )
    assert height == missed["height"]
    network.same_block(missed["height"])
