# SPDX-License-Identifier: GPL-3.0-or-later
"""Faults of machines, disks, clocks and networks, one after the other, while clients work.

After each of them (`conftest.fault`) every node runs and is ready, and the audit has found all
that was acknowledged on each of them, once, in one order; no evidence; and a history that one
register per key explains.
"""

from __future__ import annotations

import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any, Callable

import audit
import journals
import pytest
from cluster import VIEW_TIMEOUT_MS, Cluster, Node, fill, until
from conftest import Fault
from holdfast_node.chain.crypto import PrivateKey
from holdfast_node.chain.transaction import Put, sign_transaction
from holdfast_node.client import Client
from holdfast_node.consensus.probation import COPIED
from holdfast_node.devnet_files import CHAIN_ID
from holdfast_node.errors import RefusedError
from linearizability import Call, unexplained
from load import AT_ONCE, WRITERS, History, Operation, read

# A connection counts as dead after 8 s of silence: what is longer breaks connections as well.
SHORT_S, LONG_S = 3.0, 9.0
HALTED_S = 4 * VIEW_TIMEOUT_MS / 1000
BLOCKS = 5
NEAR_MS = 5_000
JUMP_MS = 3 * 3_600_000
SLOW_WRITE_MS = 300


@pytest.fixture(scope="session")
def folders(network: Cluster) -> dict[str, list[Path]]:
    """Every data folder that a validator ever had: what it said may be in any of them."""
    return {node.name: [node.data] for node in network.nodes}


def stays(seconds: float) -> None:
    """How long a fault lasts; there is nothing to wait for."""
    time.sleep(seconds)


def test_leader_killed(network: Cluster, fault: Fault) -> None:
    """The others elect another, and go on."""
    with fault():
        leader = network.leader()
        leader.kill()
        network.until_progress(network.others(leader), BLOCKS)
        assert network.leader() is not leader


@pytest.mark.parametrize("seconds", [SHORT_S, LONG_S])
def test_leader_frozen_and_thawed(network: Cluster, fault: Fault, seconds: float) -> None:
    """It holds its connections and says nothing; afterwards it comes with what it had to say."""
    with fault():
        leader = network.leader()
        leader.freeze()
        stays(seconds)
        network.until_progress(network.others(leader), BLOCKS)
        leader.thaw()
        network.until_progress([leader], BLOCKS)


def test_two_and_two(network: Cluster, fault: Fault) -> None:
    """No side has a quorum: nothing becomes final until they are together again."""
    with fault() as history:
        network.divide(network.nodes[:2], network.nodes[2:])
        stays(1.0)  # what was on its way may still become final
        before = [node.height() for node in network.nodes]
        known = len(history.acknowledged)
        stays(HALTED_S)
        assert [node.height() for node in network.nodes] == before
        stays(LONG_S - HALTED_S)
        assert len(history.acknowledged) - known <= WRITERS * AT_ONCE, (
            "acknowledged without a quorum"
        )
        assert [node.height() for node in network.nodes] == before
        for node in network.nodes:
            node.refuse()
        network.until_progress(network.nodes, BLOCKS)


@pytest.mark.parametrize("who", ["leader", "follower"])
def test_one_and_three(network: Cluster, fault: Fault, who: str) -> None:
    """Three go on; the one alone answers what was true, and says so when asked for more."""
    with fault() as history:
        leader = network.leader()
        alone = leader if who == "leader" else network.others(leader)[0]
        rest = network.others(alone)
        network.divide([alone], rest)
        stays(1.0)  # what was on its way to the one alone
        cut = time.monotonic()
        network.until_progress(rest, BLOCKS)

        def since() -> list[Operation]:
            return [write for write in history.acknowledged if write.start > cut]

        until(lambda: len(since()) > 20, 30, "writes without the one alone")
        stale(alone, history, since()[0].register)


def stale(alone: Node, history: History, register: tuple[str, str]) -> None:
    """A plain read there is no lie, but old; a fresh one is refused after ten seconds."""
    old = read(history, alone, *register, fresh=False)
    assert old.end is not None, alone.tail()
    known = audit.calls(history, register)
    assert unexplained(known) is None
    assert unexplained([*known, Call("read", old.value, old.start, old.end)]) is not None
    patient = Client(alone.client.url, timeout=20.0)
    with pytest.raises(RefusedError) as refusal:
        patient.value(*register, min_height=history.horizon)
    assert refusal.value.code == "not_reached"


@pytest.mark.parametrize("direction", ["cannot be heard", "cannot hear"])
def test_loss_in_one_direction(network: Cluster, fault: Fault, direction: str) -> None:
    """The leader's messages are lost and the others' arrive, or the other way round."""
    with fault():
        leader = network.leader()
        rest = network.others(leader)
        if direction == "cannot hear":
            leader.deaf_to(rest)
        else:
            for node in rest:
                node.deaf_to([leader])
        network.until_progress(rest, BLOCKS)
        stays(LONG_S)


def test_every_tenth_packet_is_lost(network: Cluster, fault: Fault) -> None:
    """Everywhere, at random: slower, and nothing else."""
    with fault():
        for node in network.nodes:
            node.refuse("ip saddr 10.77.0.1-10.77.0.4 numgen random mod 10 < 1 drop")
        network.until_progress(network.nodes, 2 * BLOCKS, 60)


def test_thin_link(network: Cluster, fault: Fault) -> None:
    """The leader has 256 kbit/s to send its blocks and votes."""
    with fault():
        leader = network.leader()
        leader.shape("tbf", "rate", "256kbit", "burst", "8k", "latency", "400ms")
        network.until_progress(network.nodes, 2 * BLOCKS, 60)
        leader.shape()


def test_delay(network: Cluster, fault: Fault) -> None:
    """100 ms, and 50 more or less, on every way."""
    try:
        network.nodes[0].shape("netem", "delay", "0ms")
    except AssertionError as error:
        pytest.skip(f"this kernel has no netem, which delays packets: {error}")
    with fault():
        for node in network.nodes:
            node.shape("netem", "delay", "100ms", "50ms")
        network.until_progress(network.nodes, 2 * BLOCKS, 60)
        for node in network.nodes:
            node.shape()


def test_kill_each_in_turn(network: Cluster, fault: Fault) -> None:
    """kill -9 of one after the other, as soon as the one before is back."""
    with fault():
        for node in network.nodes:
            node.kill()
            network.until_progress(network.others(node), 1)
            node.start()
            network.until_ready(node)


def test_power_cut_for_all(network: Cluster, fault: Fault) -> None:
    """All four are killed at once: what was acknowledged is on their disks."""
    with fault():
        for node in network.nodes:
            node.kill()
        for node in network.nodes:
            node.start()
        network.until_ready()
        network.until_progress(network.nodes, BLOCKS)


@pytest.mark.parametrize("offset_ms", [60_000, -60_000])
def test_clock_that_is_off(network: Cluster, fault: Fault, offset_ms: int) -> None:
    """A validator lives a minute in the future, or the past: no block is of the future."""
    with fault():
        node = network.leader()
        node.stop()
        witness = network.others(node)[0]
        since, height = witness.member.log.stat().st_size, witness.height()
        node.tamper(clock_ms=offset_ms)
        node.start(at_edge=True)
        network.until_ready(node)
        assert takes_for_expired(node) == (offset_ms > 0), "the clock was not moved"
        change_leaders(network, lambda: tried_to_lead(node, offset_ms, witness, since, height))
        network.until_progress(network.nodes, BLOCKS)
        head = witness.client.block("latest")
        # A clock that is behind holds the time of its own blocks back, and cannot do more.
        ahead_ms = head["time_ms"] - time.time() * 1000
        assert min(0, offset_ms) - NEAR_MS < ahead_ms < NEAR_MS


def test_clock_that_jumps(network: Cluster, fault: Fault) -> None:
    """Hours forward, hours back and right again while the leader runs: blocks go on at all."""
    with fault():
        node = network.leader()
        node.stop()
        node.tamper()
        node.start(at_edge=True)
        network.until_ready(node)
        witness = network.others(node)[0]
        for offset_ms in (JUMP_MS, -JUMP_MS, 0):
            seen = witness.member.log.stat().st_size, witness.height()
            node.tamper(clock_ms=offset_ms)
            assert takes_for_expired(node) == (offset_ms > 0), "the clock did not jump"
            led = partial(tried_to_lead, node, offset_ms, witness, *seen)
            change_leaders(network, led)
            network.until_progress(network.nodes, BLOCKS)
            latest = max(block["time_ms"] for block in blocks_since(witness, seen[1]))
            assert latest - time.time() * 1000 < NEAR_MS


@pytest.mark.parametrize("who", ["leader", "follower"])
def test_slow_disk(network: Cluster, fault: Fault, who: str) -> None:
    """Each write of one validator takes a third of a second; the others need not wait for it."""
    with fault():
        leader = network.leader()
        node = leader if who == "leader" else network.others(leader)[0]
        node.stop()
        node.tamper()
        node.start(at_edge=True)
        network.until_ready(node)
        height = node.height()
        if who == "leader":
            change_leaders(network, lambda: network.leader() is node)
        node.tamper(write_ms=SLOW_WRITE_MS)
        spent, writes = node.writes()
        network.until_progress(network.others(node), 4 * BLOCKS)
        third = network.others(node)[-1]
        third.kill()  # from here on they do need it
        network.until_progress(network.others(third), BLOCKS, 60)
        now_spent, now_writes = node.writes()
        assert (now_spent - spent) / (now_writes - writes) > SLOW_WRITE_MS / 1000
        assert node.height() > height


def tried_to_lead(node: Node, offset_ms: int, witness: Node, since: int, height: int) -> bool:
    """Whether it proposed: what is of the future is refused, else it is in a block above `height`.

    `since` is where the log of `witness` ended before.
    """
    if offset_ms > 0:
        return any(event.get("code") == "early_block" for event in witness.events(since))
    return any(block["proposer"] == node.name for block in blocks_since(witness, height))


def blocks_since(node: Node, height: int) -> list[dict[str, Any]]:
    """Summaries of the newest blocks, above `height`."""
    found = node.rpc("blocks", [{"from": max(height + 1, node.height() - 99), "limit": 100}])
    return list(found[0]["blocks"])


def takes_for_expired(node: Node) -> bool:
    """Whether a transaction that is valid for half a minute is refused as one of the past."""
    raw = sign_transaction(
        PrivateKey(bytes(range(32))),
        chain_id=CHAIN_ID,
        nonce=10**9,  # never to be executed
        expires_at_ms=time.time_ns() // 1_000_000 + 30_000,
        actions=[Put("probe", b"")],
    )
    with pytest.raises(RefusedError) as refusal:
        node.client.submit(raw)
    assert refusal.value.code in {"expired", "nonce_gap"}
    return refusal.value.code == "expired"


def change_leaders(network: Cluster, enough: Callable[[], bool]) -> None:
    """Freeze whoever leads, until another does, and go on so until it is enough."""
    for _ in range(3 * len(network.nodes)):
        if enough():
            return
        leader = network.leader()
        leader.freeze()
        network.until_progress(network.others(leader), 1)
        leader.thaw()
        network.until_ready(leader)
    raise AssertionError("it never had its turn to lead")


def test_disk_full(network: Cluster, fault: Fault) -> None:
    """It ends, saying why; the others go on. With room again it starts, and misses nothing."""
    node = network.nodes[3]
    with fault():
        since = node.member.log.stat().st_size
        filler = fill(node.data)
        try:
            assert node.ended(60) == 1, node.tail()
            network.until_progress(network.others(node), BLOCKS)
        finally:
            filler.unlink()
        said = node.member.log.read_bytes()[since:].decode()
        assert "Traceback" not in said, said
        assert "make room" in said or "No space left" in said, said
        node.start()
        network.until_ready(node)


def test_old_copy_of_a_folder(
    network: Cluster, fault: Fault, folders: dict[str, list[Path]], tmp_path: Path
) -> None:
    """A restored validator says its doubt, follows, and votes once it cannot contradict itself."""
    node, copy = network.nodes[1], tmp_path / "copy"
    with fault():
        node.kill()
        subprocess.run(["cp", "-a", node.data, copy], check=True)
        node.start()
        network.until_ready(node)
        network.until_progress([node], BLOCKS)
        node.kill()
        folders[node.name].append(network.replace_folder(node, copy))
        since = node.member.log.stat().st_size
        node.start()
        network.until_ready(node)
        doubts = [e for e in node.events(since) if e["event"] == "follows without a vote"]
        assert doubts, node.tail()
        assert {event["reason"] for event in doubts} == {COPIED}
        third = network.others(node)[0]
        third.kill()  # without the vote of `node` there is no quorum any more
        network.until_progress(network.others(third), BLOCKS)


def test_nobody_contradicted_itself(
    network: Cluster, auditor: audit.Auditor, folders: dict[str, list[Path]]
) -> None:
    """After all of it: an orderly end, sound folders, and journals that agree with the chain."""
    for node in network.nodes:
        node.stop()
    for node in network.nodes:
        command = [sys.executable, "-m", "holdfast_node", "doctor", "--config"]
        doctor = subprocess.run(
            [*command, str(node.member.config)], capture_output=True, text=True, check=False
        )
        assert doctor.returncode == 0, doctor.stdout + doctor.stderr
        told = [journals.read(folder) for folder in folders[node.name]]
        assert journals.contradictions(told) == [], node.name
        given = journals.signatures(auditor.blocks, node.name)
        assert len(given) > BLOCKS, f"{node.name} took no part"
        assert journals.uncovered(told, given) == [], node.name
