# SPDX-License-Identifier: Apache-2.0
"""Looks through the data folder of a node that is stopped: what is wrong, and how to mend it.

Nothing is changed; what a start would repair by itself is said as such.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from holdfast_node.chain.codec import decode
from holdfast_node.chain.genesis import Genesis
from holdfast_node.consensus import Evidence
from holdfast_node.consensus.messages import JournalRecord
from holdfast_node.consensus.probation import judge
from holdfast_node.errors import RefusedError, StorageError
from holdfast_node.ledger.ledger import Ledger
from holdfast_node.ledger.membership import read_history
from holdfast_node.ledger.state import StateView
from holdfast_node.storage.anchor import read_anchors
from holdfast_node.storage.frames import WAY_OUT, read_records, scan
from holdfast_node.storage.sqlite import SqliteStore
from holdfast_node.storage.store import Store
from holdfast_node.vote_log import DATABASE, JOURNAL, trusted_anchor

_FETCH_AGAIN = "move it away and start the node: it fetches the chain from its peers"


@dataclass(frozen=True)
class Finding:
    """`grade`: "ok"; "note", which a start takes care of; "fault", with which it does not start."""

    grade: Literal["ok", "note", "fault"]
    text: str


def examine(folder: Path, genesis: Genesis, *, validator: bool) -> Iterator[Finding]:
    """Compare block log, state and journal with themselves and with each other."""
    height = None
    database = folder / DATABASE
    if not database.exists():
        yield Finding("note", f"{database}: missing: a start fetches the chain from the peers")
        height = 0
    else:
        for finding, reached in _chain(database, genesis):
            height = reached
            yield finding
    if validator:
        yield from _votes(folder, height)
        yield from _evidence(folder / "evidence.journal")


def _chain(path: Path, genesis: Genesis) -> Iterator[tuple[Finding, int | None]]:
    try:
        store = SqliteStore(path)
    except StorageError as error:
        yield Finding("fault", str(error)), None
        return
    try:
        height = store.height()
        damage = _first_damage(store, genesis)
        if damage is not None:
            yield Finding("fault", f"{path}: {damage}: {_FETCH_AGAIN}"), None
            return
        first = store.first_height()
        yield Finding("ok", f"block log: {height - first + 1} blocks, linked and certified"), height
        if first > 1:
            yield (
                Finding(
                    "ok",
                    f"block log: begins above the snapshot of block {first - 1}, which is "
                    "certified; the blocks up to there are on other nodes",
                ),
                height,
            )
        try:
            ledger = Ledger(store, genesis, lambda: 0)
        except StorageError as error:
            yield Finding("fault", f"{path}: {error}"), None
            return
        root = ledger.state_root.hex()
        yield Finding("ok", f"state: root {root}, as block {height} says"), height
    except StorageError as error:
        yield Finding("fault", str(error)), None
    finally:
        store.close()


def _first_damage(store: Store, genesis: Genesis) -> str | None:
    """What is wrong with the lowest faulty block; None if all are linked and certified."""
    stored = store.genesis_hash()
    if stored != genesis.hash:
        return f"it is of another genesis ({stored.hex() if stored else 'none'})"
    history = read_history(StateView(store), genesis.validator_set)
    previous = genesis.hash
    base = store.base()
    if base is not None:
        try:
            base.check(genesis.chain_id, history.at(base.header.height))
        except RefusedError as error:
            return f"the snapshot of block {base.header.height} that the chain begins with: {error}"
        previous = base.header.hash
    for height in range(store.first_height(), store.height() + 1):
        certified = store.block(height)
        if certified is None:
            return f"block {height} of {store.height()} is missing"
        if certified.block.height != height or certified.block.header.previous != previous:
            return f"block {height} does not follow block {height - 1}"
        try:
            certified.check(genesis.chain_id, history.at(height))
        except RefusedError as error:
            return f"block {height}: {error}"
        previous = certified.block.hash
    return None


def _votes(folder: Path, height: int | None) -> Iterator[Finding]:
    path = folder / JOURNAL
    records: list[JournalRecord] | None = None
    if path.exists():
        content = path.read_bytes()
        try:
            found = scan(content, str(path))
            if found.intact is not None:
                yield Finding(
                    "fault",
                    f"{path} is damaged at byte {found.end}, before records that are intact (byte "
                    f"{found.intact}): {WAY_OUT}",
                )
                return
            raws = read_records(content, str(path))
            records = [decode(record, JournalRecord) for record in raws]
        except (StorageError, RefusedError) as error:
            yield Finding("fault", f"{path}: {error}")
            return
        torn = len(content) - found.end
        yield Finding("ok", f"journal: {len(records)} records in {found.end} bytes")
        if torn:
            yield Finding(
                "note", f"{path}: the last {torn} bytes are half a write: a start cuts it"
            )
    new = records is None and not (folder / DATABASE).exists()
    anchor = trusted_anchor(records or [], read_anchors(folder))
    standing = judge(records, anchor=anchor, new=new)
    if standing.doubt is not None:
        yield Finding(
            "note",
            f"votes: {standing.doubt}. A start follows without a vote until a block is final that "
            "did not exist before. If you know that this folder is the newest one and nothing ran "
            "since (a move to another disk), say so with --accept-copy",
        )
    elif height is not None and standing.floor > height:
        yield Finding(
            "note",
            f"votes: the journal knows of block {standing.floor}, the block log ends at {height}: "
            "a start fetches the blocks between from the peers before it votes",
        )
    elif new:
        yield Finding("note", "votes: none yet, the folder is new")
    else:
        yield Finding("ok", f"votes: it may vote above height {standing.floor}")


def _evidence(path: Path) -> Iterator[Finding]:
    if not path.exists():
        return
    content = path.read_bytes()
    try:
        found = scan(content, str(path))
        kept: list[Evidence] = [
            decode(record, Evidence) for record in read_records(content, str(path))
        ]
    except (StorageError, RefusedError) as error:
        yield Finding("note", f"{path}: {error}; a start puts it aside")
        return
    if found.intact is not None:
        yield Finding("note", f"{path} is damaged at byte {found.end}: a start puts it aside")
    elif kept:
        guilty = sorted({evidence.validator for evidence in kept})
        yield Finding("note", f"evidence: {len(kept)} proofs against validators {guilty}")
