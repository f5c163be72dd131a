# SPDX-License-Identifier: Apache-2.0
"""What a validator remembers of its votes, and whether it may trust that memory.

`consensus/probation.py` has the judgement and why it is safe; this is its way onto the disk.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from holdfast_node.chain.codec import decode, encode
from holdfast_node.consensus.messages import Anchored, Doubted, Floor, JournalRecord, Record
from holdfast_node.consensus.probation import COPIED, MISSING, Standing, judge
from holdfast_node.errors import RefusedError, StorageError
from holdfast_node.storage.anchor import (
    SLOTS,
    Identity,
    make_anchor,
    read_anchors,
    remove_anchor,
)
from holdfast_node.storage.journal import Journal

JOURNAL: Final = "votes.journal"
DATABASE: Final = "chain.db"


def read_records(journal: Journal, path: Path) -> list[JournalRecord]:
    """All records. Raises `StorageError` if one cannot be read."""
    try:
        return [decode(record, JournalRecord) for record in journal.replay()]
    except RefusedError as error:
        raise StorageError(f"{path}: {error}: it was written by another release") from error


def trusted_anchor(
    records: Sequence[JournalRecord], anchors: Mapping[str, Identity]
) -> Identity | None:
    """The anchor that the journal names, if it is there; else one that is, if any."""
    named = [record for record in records if isinstance(record, Anchored)]
    if named and (named[-1].inode, named[-1].changed_ns) in anchors.values():
        return named[-1].inode, named[-1].changed_ns
    return next(iter(anchors.values()), None)


class VoteLog:
    """The journal in the data folder `folder`, opened before anything else there is made.

    `standing` says what this validator may do. `newborn`: the folder held nothing when it
    was taken into use, and nothing was voted since; whether the network is new as well has to be
    seen (`born`, or `doubt`).

    Raises `StorageError`, as `Journal` does.
    """

    def __init__(self, folder: Path) -> None:
        path = folder / JOURNAL
        existed = path.exists()
        new = not existed and not (folder / DATABASE).exists()
        anchors = read_anchors(folder)
        missing = not anchors
        if missing:
            anchors = {SLOTS[0]: make_anchor(folder, SLOTS[0])}
        self._folder = folder
        self._anchored = Anchored(*next(iter(anchors.values())))
        # A new journal says from its first moment on what is known of the folder.
        initial: list[JournalRecord] = [self._anchored]
        if not existed and not new:
            initial.append(Doubted(MISSING))
        self._journal = Journal(path, [encode(record) for record in initial])
        try:
            records = read_records(self._journal, path)
            trusted = trusted_anchor(records, {} if existed and missing else anchors)
            self.standing: Standing = judge(records, anchor=trusted, new=False)
            if trusted is not None:
                self._anchored = Anchored(*trusted)
            ours = any(isinstance(record, Anchored) for record in records)
            if self.standing.doubt is not None:
                self.doubt(self.standing.doubt)
            elif not ours:
                self.append([self._anchored])  # of a release that had no anchors
            self._renew()
        except BaseException:
            self._journal.close()
            raise
        known = any(isinstance(record, Record | Floor) for record in records)
        self.newborn = self.standing.doubt is None and not known and ours

    @property
    def torn_bytes(self) -> int:
        return self._journal.torn_bytes

    @property
    def size(self) -> int:
        """Bytes on disk."""
        return self._journal.size

    def append(self, records: Sequence[JournalRecord]) -> None:
        """Durable on return. Raises `StorageError`."""
        self._journal.append([encode(record) for record in records])

    def compact(self, floor: int, records: Sequence[Record] = ()) -> None:
        """Keep only `records`; nothing is said at `floor` and below any more."""
        kept = [self._anchored, Floor(floor), *records]
        self._journal.reset([encode(record) for record in kept])

    def born(self) -> None:
        """The network is as new as this folder: what is voted from now on is all there is."""
        self.append([Floor(0)])
        self.newborn = False

    def doubt(self, reason: str) -> None:
        """Votes may have been forgotten: none until `cleared`, restarts included."""
        floor = Floor(self.standing.floor)
        # What is known stays, for the case that somebody vouches for it: see `accept`.
        kept = [self._anchored, floor, *self.standing.records, Doubted(reason)]
        self._journal.reset([encode(record) for record in kept])
        self.standing.doubt = reason
        self.newborn = False

    def accept(self) -> None:
        """Somebody vouches that nothing was voted since this folder was copied.

        Raises `StorageError` if there is a doubt of another kind: for that nobody can vouch.
        """
        if self.standing.doubt not in {None, COPIED}:
            raise StorageError(
                f"{self.standing.doubt}: nobody can vouch for that; start the node, it votes again "
                "as soon as that is safe"
            )
        if self.standing.doubt is not None:
            self.append([Floor(self.standing.floor)])
            self.standing.doubt = None

    def cleared(self, height: int) -> None:
        """The final block at `height` has a mark of this start in it."""
        self.compact(height)
        self.standing.cleared(height)

    def close(self) -> None:
        """Let go of the file; may be called twice."""
        try:
            self._renew()
        finally:
            self._journal.close()

    def _renew(self) -> None:
        """Have a new anchor, so that what is copied from now on is told from what was before.

        Whatever it is interrupted by, the journal names an anchor that is there.
        """
        if self._journal.is_broken or self.standing.doubt is not None:
            return
        known = self._anchored.inode, self._anchored.changed_ns
        anchors = read_anchors(self._folder)
        old = next((name for name in SLOTS if anchors.get(name) == known), None)
        if old is None:
            return  # somebody changed the folder under us: the next start will doubt it
        new = next(name for name in SLOTS if name != old)
        renewed = Anchored(*make_anchor(self._folder, new))
        self.append([renewed])
        self._anchored = renewed
        remove_anchor(self._folder, old)
