# SPDX-License-Identifier: Apache-2.0
"""Whether a validator that starts may vote, and what makes it safe again if it may not.

A validator votes at a height only when it has the certified block below it. So if a block is final
that did not exist when the validator started, nothing it forgot can be above that block: from the
next height on it may vote. It makes sure of that with a *mark*, a transaction with a random number
drawn after the start: a final block with a mark in it is younger than the start. No clock, no
promise of a peer and no guess about distances is needed; the other validators have to form quorums
without this one until then, which they can as long as it is one of the f that may fail.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from holdfast_node.consensus.messages import Anchored, Doubted, Floor, JournalRecord, Record

COPIED: Final = (
    "the data folder is a copy: it may not know of votes that were cast after it was made"
)
MISSING: Final = "the vote journal is missing: votes may have been cast that nobody knows of here"


@dataclass(slots=True)
class Standing:
    """What a validator may do after a start.

    It votes only above `floor`, and not at all while `doubt` says what is wrong. `records` is what
    binds its next votes.
    """

    doubt: str | None
    floor: int
    records: list[Record] = field(default_factory=list)

    def may_vote(self, height: int) -> bool:
        return self.doubt is None and height > self.floor

    def cleared(self, height: int) -> None:
        """A final block at `height` has a mark in it."""
        self.doubt = None
        self.floor = height
        self.records = []


def judge(
    records: Iterable[JournalRecord] | None, *, anchor: tuple[int, int] | None, new: bool
) -> Standing:
    """Compare the journal with the folder it lies in.

    `records` is None if there is no journal; `anchor` identifies the folder (inode and time of
    change of a file that is never touched), None if that file is missing; `new` says that the
    folder held nothing at all, so this may be the validator's first start.
    """
    if records is None:
        return Standing(None if new else MISSING, 0)
    doubt: str | None = None
    anchored: Anchored | None = None
    floor = 0
    votes: list[Record] = []
    for record in records:
        match record:
            case Anchored():
                anchored = record
            case Doubted():
                doubt = record.reason
            case Floor():
                doubt, floor = None, max(floor, record.height)
            case _:
                votes.append(record)
    # A doubt that is there already stays as it is: nobody may vouch for a copy without its journal.
    moved = anchored is not None and (anchored.inode, anchored.changed_ns) != anchor
    if doubt is None and moved:
        doubt = COPIED
    # Where it voted, it had the block below: so heights below the last one are decided.
    floor = max([floor, *(record.height - 1 for record in votes)])
    return Standing(doubt, floor, [record for record in votes if record.height == floor + 1])
