# SPDX-License-Identifier: GPL-3.0-or-later
"""What a long chain costs a node: disk, memory, start-up, and bringing a new node in step.

    .venv/bin/python bench/node/growth.py --blocks 100000

See README.md beside this file for what is measured, and how.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from holdfast_node.chain.block import Certificate, CertifiedBlock, VoteSignature, vote_bytes
from holdfast_node.chain.codec import decode
from holdfast_node.chain.crypto import PrivateKey, account_of, format_address
from holdfast_node.chain.genesis import Genesis, GenesisValidator
from holdfast_node.chain.transaction import Put, sign_transaction
from holdfast_node.ledger.ledger import Ledger
from holdfast_node.net.sync_server import PAGE_BYTES
from holdfast_node.net.wire import MAX_PAGE_BLOCKS
from holdfast_node.snapshot.assembly import Assembly
from holdfast_node.snapshot.folder import SnapshotFolder
from holdfast_node.storage.sqlite import SqliteStore

CHAIN_ID = "growth"
VALIDATORS = [PrivateKey(bytes([100 + i]) * 32) for i in range(4)]
SENDER = PrivateKey(b"s" * 32)
START_MS = 1_700_000_000_000
KEYS = 10_000
GENESIS = Genesis(
    chain_id=CHAIN_ID,
    time_ms=START_MS,
    validators=[GenesisValidator(f"v{i}", k.public_key.hex()) for i, k in enumerate(VALIDATORS)],
    accounts={format_address(account_of(SENDER.public_key)): 1},
)


def now_ms() -> int:
    return START_MS + 1000


def open_ledger(folder: Path, *, durable: bool = True) -> Ledger:
    folder.mkdir(exist_ok=True)
    ledger = Ledger(SqliteStore(folder / "chain.db"), GENESIS, now_ms)
    if not durable:  # a chain to measure with may be lost with the power
        ledger.store._writer.execute("PRAGMA synchronous=OFF")
    return ledger


def next_block(ledger: Ledger) -> CertifiedBlock:
    """With one transaction, and the votes of a quorum."""
    height = ledger.height + 1
    raw = sign_transaction(
        SENDER,
        chain_id=CHAIN_ID,
        nonce=height - 1,
        expires_at_ms=START_MS + 86_000_000,
        actions=[Put(f"key {height % KEYS}", b"%064d" % height)],
    )
    block = ledger.prepare_proposal([ledger.check_transaction(raw)], view=0)
    message = vote_bytes("commit", CHAIN_ID, height, 0, block.hash)
    votes = tuple(VoteSignature(i, key.sign(message)) for i, key in enumerate(VALIDATORS[:3]))
    return CertifiedBlock(block, Certificate(height, 0, block.hash, votes))


def grow(folder: Path, blocks: int, interval: int) -> dict[str, float]:
    ledger, kept = open_ledger(folder, durable=False), SnapshotFolder(folder)
    ledger.store.pin_every(interval)
    began, written = time.perf_counter(), 0.0
    for height in range(1, blocks + 1):
        ledger.commit(next_block(ledger))
        if height % 5_000 == 0:
            ledger.store.checkpoint()
            print(f"  {height} blocks", file=sys.stderr, flush=True)
        pinned = ledger.store.take_pin()
        if pinned is not None:
            start = time.perf_counter()
            made = kept.make(pinned, ledger.trail)
            written = time.perf_counter() - start
            pinned.close()
            if made is not None:
                kept.add(made)
                size = made.offsets[-1]
    seconds = time.perf_counter() - began
    ledger.store.close()
    disk = (folder / "chain.db").stat().st_size
    return {
        "blocks": blocks,
        "disk_bytes_per_block": round(disk / blocks),
        "database_mib": round(disk / 2**20, 1),
        "made_in_s": round(seconds, 1),
        "snapshot_height": kept.heights[0],
        "snapshot_mib": round(size / 2**20, 2),
        "snapshot_written_in_s": round(written, 2),
    }


def start_up(folder: Path) -> dict[str, float]:
    """In a process of its own: from opening the store to a ledger that can go on."""
    done = subprocess.run(
        [sys.executable, __file__, "--open", folder], capture_output=True, text=True, check=True
    )
    return dict(json.loads(done.stdout))


def opened(folder: Path) -> dict[str, float]:
    def resident() -> float:
        status = Path("/proc/self/status").read_text()
        line = next(line for line in status.splitlines() if line.startswith("VmRSS"))
        return int(line.split()[1]) / 1024

    before, began = resident(), time.perf_counter()
    ledger = open_ledger(folder)
    seconds = time.perf_counter() - began
    after = resident()
    ledger.store.close()
    return {
        "start_up_s": round(seconds, 2),
        "resident_mib": round(after, 1),
        "of_which_ledger_mib": round(after - before, 1),
    }


def by_blocks(ledger: Ledger, source: Ledger, most: int) -> int:
    """As block sync does, page by page, `most` at least; returns how many blocks."""
    first = ledger.height
    while ledger.height < min(source.height, first + most):
        for encoded in source.store.encoded_blocks(ledger.height + 1, MAX_PAGE_BLOCKS, PAGE_BYTES):
            certified: CertifiedBlock = decode(encoded, CertifiedBlock)
            certified.check(CHAIN_ID, ledger.validators_at(certified.block.height))
            ledger.commit(certified)
        ledger.store.checkpoint()
    return ledger.height - first


def in_step(
    folder: Path, source: Ledger, kept: SnapshotFolder | None, most: int
) -> dict[str, float]:
    """A new node, with the snapshots in `kept` or without any; of these, `most` blocks only."""
    ledger = open_ledger(folder)
    began = time.perf_counter()
    if kept is not None:
        _, identity = kept.offers()[0]
        assembly = Assembly(folder, GENESIS, kept.manifest(identity))
        for index in range(assembly.chunks):
            chunk = assembly.chunk(index)
            for number in range(chunk.pages):
                chunk.add(number, kept.page(identity, index, number))
        ledger.install(assembly)
        assembly.discard()
    state = time.perf_counter() - began
    blocks = by_blocks(ledger, source, most)
    seconds = time.perf_counter() - began
    if ledger.height == source.height and ledger.state_root != source.state_root:
        raise SystemExit("the new node has another state")
    ledger.store.close()
    disk = (folder / "chain.db").stat().st_size / 2**20
    return {
        "seconds": round(seconds, 2),
        "of_which_snapshot_s": round(state, 2),
        "blocks_fetched": blocks,
        "ms_per_block": round(1000 * (seconds - state) / max(1, blocks), 2),
        "database_mib": round(disk, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--blocks", type=int, default=100_000, help="of the chain (100000)")
    parser.add_argument("--interval", type=int, default=9_000, help="of snapshots (9000)")
    parser.add_argument(
        "--replay", type=int, default=10_000, help="blocks fetched without a snapshot (10000)"
    )
    parser.add_argument("--dir", type=Path, default=Path("/var/tmp"), help="for data (/var/tmp)")  # noqa: S108 -- a new folder in it
    parser.add_argument("--open", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.open is not None:
        print(json.dumps(opened(options.open)))
        return
    with tempfile.TemporaryDirectory(prefix="holdfast-long-", dir=options.dir) as name:
        folder = Path(name)
        result = {"chain": grow(folder / "old", options.blocks, options.interval)}
        result["start"] = start_up(folder / "old")
        source = open_ledger(folder / "old")
        kept = SnapshotFolder(folder / "old")
        result["by_snapshot"] = in_step(folder / "snapshot", source, kept, options.blocks)
        result["by_blocks"] = in_step(folder / "blocks", source, None, options.replay)
        source.store.close()
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
