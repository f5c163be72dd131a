# SPDX-License-Identifier: Apache-2.0
"""A validator without a data folder joins a network with a history, as four real processes."""

import json
import shutil
import time
from pathlib import Path

import pytest
from test_faults_network import Network

from holdfast_node.chain.block import Certificate, CertifiedBlock, VoteSignature, vote_bytes
from holdfast_node.chain.genesis import Genesis
from holdfast_node.chain.transaction import Put, sign_transaction
from holdfast_node.config_check import read_genesis
from holdfast_node.devnet_files import Layout
from holdfast_node.errors import RefusedError
from holdfast_node.keys import load_key
from holdfast_node.ledger.ledger import Ledger
from holdfast_node.snapshot.folder import SnapshotFolder
from holdfast_node.storage.sqlite import SqliteStore
from holdfast_node.vote_log import VoteLog

pytestmark = pytest.mark.timeout(240)  # nodes on a small machine take seconds to start

BLOCKS = 2_000
INTERVAL = 900
NEWEST = 1_800


def certified(ledger: Ledger, layout: Layout, genesis: Genesis, height: int) -> CertifiedBlock:
    """The next block, with one small transaction, signed by three validators."""
    raw = sign_transaction(
        load_key(layout.funded), chain_id=genesis.chain_id, nonce=height - 1,
        expires_at_ms=time.time_ns() // 1_000_000 + 3_600_000,
        actions=[Put(f"key {height % 500}", b"%d" % height)],
    )  # fmt: skip
    block = ledger.prepare_proposal([ledger.check_transaction(raw)], view=0)
    message = vote_bytes("commit", genesis.chain_id, height, 0, block.hash)
    keys = [load_key(member.folder / "validator.key") for member in layout.members[:3]]
    votes = tuple(VoteSignature(i, key.sign(message)) for i, key in enumerate(keys))
    return CertifiedBlock(block, Certificate(height, 0, block.hash, votes))


def grow(folder: Path, layout: Layout) -> None:
    """Make a chain and its snapshots in `folder`, as a validator would have."""
    genesis = read_genesis(layout.folder / "genesis.json")
    ledger = Ledger(SqliteStore(folder / "chain.db"), genesis, lambda: time.time_ns() // 1_000_000)
    # It may be lost with the power here: nobody voted for it.
    ledger.store._writer.execute("PRAGMA synchronous=OFF")
    ledger.store.pin_every(INTERVAL)
    kept = SnapshotFolder(folder)
    for height in range(1, BLOCKS + 1):
        ledger.commit(certified(ledger, layout, genesis, height))
        pinned = ledger.store.take_pin()
        if pinned is not None:
            made = kept.make(pinned, ledger.trail)
            assert made is not None
            kept.add(made)
            pinned.close()
    ledger.store.close()


@pytest.fixture
def network(tmp_path: Path):
    """Four members, three of which have the chain; v4 has nothing."""
    network = Network(tmp_path)
    data = {name: member.folder / "data" for name, member in network.members.items()}
    grow(data["v1"], network.layout)
    for name in ("v2", "v3"):
        shutil.copytree(data["v1"], data[name], dirs_exist_ok=True)
    for name in ("v1", "v2", "v3"):
        votes = VoteLog(data[name])
        votes.cleared(BLOCKS)  # nothing was voted above
        votes.close()
    for name, member in network.members.items():
        with member.config.open("a") as config:
            limit = 500 if name == "v4" else 0
            config.write(
                f"\n[snapshots]\ncheckpoint_interval = {INTERVAL}\nfetch_threshold = {limit}\n"
            )
    yield network
    for process in network.processes.values():
        process.kill()
        process.wait()


def events(network: Network, name: str) -> list[str]:
    """What the node's log says, in order; the last line may be half written."""
    lines = network.members[name].log.read_text().splitlines(keepends=True)
    whole = [line for line in lines if line.startswith("{") and line.endswith("}\n")]
    return [json.loads(line)["event"] for line in whole]


def until(network: Network, condition, seconds: float = 90) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, network.members["v4"].log.read_text()[-3000:]
        time.sleep(0.01)


def test_a_new_validator_joins_without_the_history(network: Network) -> None:
    """Killed while it installs, too; then it votes, and says plainly what it lacks."""
    for name in ("v1", "v2", "v3"):
        network.start(name)
    folder = network.members["v4"].folder / "data"
    for pause in (0.0, 0.05, 0.1):  # killed soon after the snapshot was begun
        network.start("v4")
        before = events(network, "v4").count("snapshot_begun")
        until(
            network,
            lambda before=before: (
                events(network, "v4").count("snapshot_begun") > before
                or "snapshot_installed" in events(network, "v4")
                # Killed after it was installed, and before that was logged: it goes on from there.
                or "votes from now on" in events(network, "v4")
            ),
        )
        time.sleep(pause)
        network.kill("v4")
    network.start("v4")
    network.until_ready("v4")  # it is in step, and votes
    assert events(network, "v4").count("snapshot_installed") <= 1
    assert "votes from now on" in events(network, "v4")

    client, whole = network.clients["v4"], network.clients["v1"]
    status = client.status()
    assert status["height"] > BLOCKS
    assert status["first_height"] == NEWEST + 1
    assert whole.status()["first_height"] == 1
    assert not list(folder.glob("chain.db.snapshot*"))
    assert client.block(BLOCKS)["hash"] == whole.block(BLOCKS)["hash"]
    with pytest.raises(RefusedError, match=f"has the blocks from {NEWEST + 1} on") as caught:
        client.block(5)
    assert caught.value.code == "pruned"
    early = whole.block(5)["transactions"][0]["id"]
    assert whole.transaction(early)["status"] == "committed"
    unknown = client.transaction(early)
    assert unknown["status"] == "unknown"
    assert f"blocks below {NEWEST + 1} are not here" in unknown["reason"]

    network.kill("v1")  # now nothing becomes final without v4
    network.put("v4", b"decided with the newcomer's vote")
