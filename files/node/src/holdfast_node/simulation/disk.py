# SPDX-License-Identifier: Apache-2.0
"""A data folder that can be torn, lost, copied and restored: real journal bytes in memory."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random

from holdfast_node.chain.block import CertifiedBlock
from holdfast_node.chain.codec import decode, encode
from holdfast_node.chain.trail import TrailStep
from holdfast_node.consensus.messages import Anchored, JournalRecord
from holdfast_node.simulation.oracle import ViolationError
from holdfast_node.storage.frames import frame, header, read_records, scan

_SALT = b"simulated salt.."


@dataclass(slots=True)
class Disk:
    """`chain` is the block store, in which a commit is one step; `anchor` names the folder.

    Up to height `base` it came with a snapshot: transactions only, but for the last header; `trail`
    has the certified headers that lead there.
    """

    chain: list[CertifiedBlock] = field(default_factory=list)
    journal: bytearray | None = None
    anchor: int = 1
    base: int = 0
    trail: tuple[TrailStep, ...] = ()

    def __post_init__(self) -> None:
        if self.journal is None:
            self.reset([Anchored(self.anchor, 0)])

    def reset(self, records: Sequence[JournalRecord]) -> None:
        """Replace the journal, in one step."""
        self.journal = bytearray(header(_SALT))
        self.append(records)

    def append(self, records: Sequence[JournalRecord]) -> None:
        assert self.journal is not None
        if records:
            self.journal += frame(_SALT, [encode(record) for record in records])

    def tear(self, records: Sequence[JournalRecord], random: Random) -> None:
        """Append, and lose power meanwhile: nothing, a part or all of it is there."""
        assert self.journal is not None
        whole = frame(_SALT, [encode(record) for record in records])
        written = random.choice([0, random.randrange(len(whole) + 1), len(whole)])
        self.journal += whole[:written]

    def open(self) -> list[JournalRecord] | None:
        """Repair a torn end, and read; None if the journal is lost."""
        if self.journal is None:
            return None
        found = scan(bytes(self.journal), "journal")
        if found.intact is not None:
            raise ViolationError("a journal is damaged in the middle, which no crash does")
        del self.journal[found.end :]
        records = read_records(bytes(self.journal), "journal")
        return [decode(record, JournalRecord) for record in records]

    def copied(self) -> "Disk":
        """A copy of the folder as it is now: everything but its identity."""
        journal = None if self.journal is None else bytearray(self.journal)
        return Disk(list(self.chain), journal, self.anchor + 1, self.base, self.trail)

    def lose_blocks(self, height: int) -> None:
        """Keep the blocks up to `height`; of a snapshot all or nothing is left."""
        if height < self.base:
            height, self.base, self.trail = 0, 0, ()
        del self.chain[height:]
