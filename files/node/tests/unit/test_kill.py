# SPDX-License-Identifier: Apache-2.0
"""kill -9 at random moments: what was acknowledged is there, and everything agrees."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from ledger_samples import ACCOUNTS, ALICE, FUNDS, commit, open_ledger, transaction

from holdfast_node.chain.transaction import Put, transaction_id
from holdfast_node.storage.journal import Journal
from holdfast_node.storage.store import Receipt

KILLS = 8


def actions(height: int) -> list[Put]:
    return [Put(f"height {height}", b"%d" % height * 500), Put("last", b"%d" % height)]


def write_for_ever(folder: Path) -> None:
    """Vote, commit, acknowledge on stdout; now and then a checkpoint and a new journal."""
    ledger = open_ledger(folder)
    journal = Journal(folder / "votes")
    sys.stdout.write("started\n")
    sys.stdout.flush()
    while True:
        height = ledger.height + 1
        journal.append([b"%d" % height, bytes(1000)])
        sys.stdout.write(f"voted {height}\n")
        sys.stdout.flush()
        commit(ledger, [transaction(ALICE, height - 1, actions(height))])
        sys.stdout.write(f"committed {height}\n")
        sys.stdout.flush()
        if height % 5 == 0:
            ledger.store.checkpoint()
            journal.reset([b"%d" % height, bytes(1000)])


def acknowledged(output: str, what: str, before: int) -> int:
    """The last height of which a whole line says that it was done."""
    lines = [line for line in output.splitlines(keepends=True) if line.endswith("\n")]
    return max([before, *(int(line.split()[1]) for line in lines if line.startswith(what))])


def test_kill_at_any_moment(tmp_path: Path) -> None:
    """Also during creation, recovery, checkpoint and replacement of the journal."""
    rng = random.Random()  # the moments are random by nature; the outcome must not depend on them
    voted = committed = 0
    started = 0
    for attempt in range(KILLS):
        process = subprocess.Popen(
            [sys.executable, __file__, tmp_path],
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parent,
        )
        assert process.stdout is not None
        head = ""
        if attempt % 4:  # the others are killed anywhere, import and creation included
            head = process.stdout.readline()
        time.sleep(rng.uniform(0.0, 0.3))  # killed at any point of its work
        os.kill(process.pid, signal.SIGKILL)
        output = head + process.communicate()[0]
        assert process.returncode == -signal.SIGKILL, output
        started += "started" in output
        voted = acknowledged(output, "voted", voted)
        committed = acknowledged(output, "committed", committed)
        if not (tmp_path / "chain.db").exists():
            assert committed == 0
            continue
        check(tmp_path, voted, committed)
    assert started >= KILLS // 2
    assert committed > 0


def check(folder: Path, voted: int, committed: int) -> None:
    """Height, blocks, state, receipts and votes agree, and none of what was said is missing."""
    ledger = open_ledger(folder)  # compares the state root with that of the last block
    height = ledger.height
    assert committed <= height <= committed + 1
    assert ledger.account(ACCOUNTS[0]) == (FUNDS, height)
    assert ledger.value(ACCOUNTS[0], f"height {height + 1}") is None
    previous = ledger.genesis.hash
    for h in range(1, height + 1):
        block = ledger.block(h)
        assert block is not None
        assert block.block.header.previous == previous
        previous = block.block.hash
        assert ledger.store.block_height(previous) == h
        assert ledger.receipts(h) == (Receipt(None),)
        location = ledger.transaction(transaction_id(block.block.transactions[0]))
        assert location is not None
        assert location.height == h
        assert ledger.value(ACCOUNTS[0], f"height {h}") == b"%d" % h * 500
    assert ledger.head_hash == previous
    if height:
        assert ledger.value(ACCOUNTS[0], "last") == b"%d" % height
    ledger.store.close()
    if (folder / "votes").exists():
        journal = Journal(folder / "votes")
        votes = [int(record) for record in journal.replay() if len(record) < 1000]
        journal.close()
        # Without a gap; killed between vote and commit, the writer votes for the height again.
        assert votes == sorted(votes)
        assert set(votes) == set(range(min(votes, default=1), max(votes, default=0) + 1))
        assert max(votes, default=0) >= voted
        assert max(votes, default=0) <= height + 1


if __name__ == "__main__":
    write_for_ever(Path(sys.argv[1]))
