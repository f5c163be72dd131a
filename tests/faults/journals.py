# SPDX-License-Identifier: GPL-3.0-or-later
"""What validators wrote down before they said it, held against itself and against the chain."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any, Iterable, Mapping, Sequence

from holdfast_node.consensus.messages import Entered, Locked, Proposed, Voted
from holdfast_node.storage.journal import Journal
from holdfast_node.vote_log import JOURNAL, read_records


def read(folder: Path) -> list[Any]:
    """All records of the journal in a data folder, oldest first; a copy is read."""
    with tempfile.TemporaryDirectory() as name:
        copy = Path(shutil.copy(folder / JOURNAL, name))
        journal = Journal(copy)
        try:
            return list(read_records(journal, copy))
        finally:
            journal.close()


def contradictions(journals: Sequence[Sequence[Any]]) -> list[str]:
    """What one validator must never have said; `journals` are those of all folders it ever had."""
    said: dict[tuple[str, int, int], bytes] = {}
    found = []
    for records in journals:
        entered: dict[int, int] = {}
        for record in records:
            if isinstance(record, Entered):
                entered[record.height] = max(record.view, entered.get(record.height, 0))
                continue
            statement = _statement(record)
            if statement is None:
                continue
            kind, height, view, block_hash = statement
            if said.setdefault((kind, height, view), block_hash) != block_hash:
                found.append(f"two {kind} at height {height} in view {view}")
            if view < entered.get(height, 0):
                found.append(f"{kind} at height {height} in view {view}, which it had given up")
    return found


def uncovered(
    journals: Sequence[Sequence[Any]], committed: Iterable[tuple[int, int, bytes]]
) -> list[str]:
    """Commit signatures (height, view, block hash) that were given without being written down."""
    statements = [_statement(record) for records in journals for record in records]
    locked = {each[1:] for each in statements if each is not None and each[0] == "commit"}
    return [
        f"a commit at height {height} in view {view} that is not in the journal"
        for height, view, block_hash in committed
        if (height, view, block_hash) not in locked
    ]


def signatures(blocks: Iterable[Mapping[str, Any]], name: str) -> list[tuple[int, int, bytes]]:
    """The commits of validator `name` in the certificates of blocks, as the API shows them."""
    return [
        (block["height"], block["commit_view"], bytes.fromhex(block["hash"]))
        for block in blocks
        if name in block["signers"]
    ]


def _statement(record: Any) -> tuple[str, int, int, bytes] | None:
    """(kind, height, view, block hash) of what the record lets its validator say."""
    if isinstance(record, Proposed):  # a proposal is its leader's prepare
        return "prepare", record.height, record.view, record.block.hash
    if isinstance(record, Voted):
        return "prepare", record.height, record.view, record.block_hash
    if isinstance(record, Locked):
        return "commit", record.height, record.proof.view, record.proof.block_hash
    return None
