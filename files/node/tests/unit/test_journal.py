# SPDX-License-Identifier: Apache-2.0
"""Votes survive whatever ends the process; what cannot be read is never cut away in silence."""

import os
import random
from pathlib import Path

import pytest

from holdfast_node.errors import StorageError
from holdfast_node.storage.journal import Journal

APPENDS = [[b"first"], [b"", b"second", b"\x00" * 50], [b"third" * 10]]


def write(path: Path, appends: list[list[bytes]]) -> list[int]:
    """Make a journal; returns the size before the first append and after each."""
    journal = Journal(path)
    sizes = [journal.size]
    for records in appends:
        journal.append(records)
        sizes.append(journal.size)
    journal.close()
    assert path.stat().st_size == sizes[-1]
    return sizes


def reopened(path: Path) -> tuple[list[bytes], int]:
    journal = Journal(path)
    try:
        return journal.replay(), journal.torn_bytes
    finally:
        journal.close()


def flat(appends: list[list[bytes]]) -> list[bytes]:
    return [record for records in appends for record in records]


def test_records_come_back_in_order(tmp_path: Path) -> None:
    path = tmp_path / "votes"
    journal = Journal(path)
    assert journal.replay() == []
    for i, records in enumerate(APPENDS):
        journal.append(records)
        assert journal.replay() == flat(APPENDS[: i + 1])
    journal.append([])
    journal.close()
    journal.close()
    assert reopened(path) == (flat(APPENDS), 0)
    assert path.stat().st_mode & 0o777 == 0o600


def test_torn_at_every_byte(tmp_path: Path) -> None:
    """Cut anywhere: every append before the cut is whole, the cut one is gone, and it goes on."""
    sizes = write(tmp_path / "whole", APPENDS)
    content = (tmp_path / "whole").read_bytes()
    path = tmp_path / "votes"
    for cut in range(sizes[0], len(content) + 1):
        path.write_bytes(content[:cut])
        complete = sum(size <= cut for size in sizes) - 1
        journal = Journal(path)
        assert journal.replay() == flat(APPENDS[:complete])
        assert journal.torn_bytes == cut - sizes[complete]
        journal.append([b"afterwards"])
        journal.close()
        assert reopened(path) == ([*flat(APPENDS[:complete]), b"afterwards"], 0)


@pytest.mark.parametrize("keep", range(4))
def test_last_append_with_pages_missing(tmp_path: Path, keep: int) -> None:
    """A power cut may leave the length of the last append and zeros for any part of it."""
    path = tmp_path / "votes"
    sizes = write(path, [*APPENDS, [os.urandom(4000) for _ in range(4)]])
    content = bytearray(path.read_bytes())
    start = sizes[-2] + keep * 4000
    content[start : start + 4000] = bytes(len(content[start : start + 4000]))
    path.write_bytes(content)
    assert reopened(path) == (flat(APPENDS), sizes[-1] - sizes[-2])


def test_zeros_behind_the_last_append(tmp_path: Path) -> None:
    path = tmp_path / "votes"
    write(path, APPENDS)
    with path.open("ab") as file:
        file.write(bytes(4096))
    assert reopened(path) == (flat(APPENDS), 4096)


def test_damage_before_the_last_append_is_refused(tmp_path: Path) -> None:
    """Any byte of header or earlier appends: cutting there would forget acknowledged votes."""
    path = tmp_path / "votes"
    sizes = write(path, APPENDS)
    content = path.read_bytes()
    for position in range(sizes[-2]):
        for change in (0x01, 0x80, 0xFF):
            damaged = bytearray(content)
            damaged[position] ^= change
            path.write_bytes(damaged)
            with pytest.raises(StorageError, match="votes"):
                Journal(path)
            assert path.read_bytes() == damaged  # untouched, for whoever looks into it


def test_a_hole_in_the_middle_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "votes"
    sizes = write(path, APPENDS)
    content = path.read_bytes()
    for hole in (content[: sizes[1]] + content[sizes[1] + 5 :], content[: sizes[0]] + b"xx"):
        path.write_bytes(hole + content[sizes[2] :])
        with pytest.raises(StorageError, match="before records that are intact"):
            Journal(path)


def test_a_frame_in_a_record_is_no_frame(tmp_path: Path) -> None:
    """A peer's bytes, copied from another journal, in a torn append do not look like damage."""
    write(tmp_path / "other", APPENDS)
    alien = (tmp_path / "other").read_bytes()
    path = tmp_path / "votes"
    sizes = write(path, [[b"mine"], [alien, b"tail"]])
    path.write_bytes(path.read_bytes()[:-1])
    assert reopened(path) == ([b"mine"], sizes[2] - sizes[1] - 1)


@pytest.mark.parametrize(
    "content", [b"", b"\x00" * 100, b"HFvotes\n", b"SQLite format 3\x00" * 10, b"{}"]
)
def test_other_files_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "votes"
    path.write_bytes(content)
    with pytest.raises(StorageError, match="no vote journal"):
        Journal(path)
    assert path.read_bytes() == content


def test_a_newer_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "votes"
    write(path, APPENDS)
    content = bytearray(path.read_bytes())
    content[8:12] = (2).to_bytes(4, "big")
    path.write_bytes(content)
    with pytest.raises(StorageError, match="version 2"):
        Journal(path)


def test_reset_replaces_everything(tmp_path: Path) -> None:
    path = tmp_path / "votes"
    journal = Journal(path)
    journal.append([b"x" * 10_000])
    journal.reset([b"kept", b"this"])
    assert journal.size == path.stat().st_size < 200
    journal.append([b"new"])
    assert journal.replay() == [b"kept", b"this", b"new"]
    journal.reset([])
    journal.append([b"last"])
    journal.close()
    assert reopened(path) == ([b"last"], 0)
    assert list(tmp_path.iterdir()) == [path]


def test_a_reset_cut_short_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "votes"
    write(path, APPENDS)
    (tmp_path / "votes.new").write_bytes(b"half")
    assert reopened(path) == (flat(APPENDS), 0)
    journal = Journal(path)
    journal.reset([b"x"])
    journal.close()
    assert reopened(path) == ([b"x"], 0)


def test_a_full_disk_leaves_no_half_append(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The append fails, what was written of it is cut, and a later one succeeds."""
    journal = Journal(tmp_path / "votes")
    journal.append([b"before"])
    pwrite = os.pwrite

    def full(descriptor: int, data: bytes, offset: int) -> int:
        monkeypatch.setattr(os, "pwrite", fails)
        return pwrite(descriptor, data[:7], offset)

    def fails(descriptor: int, data: bytes, offset: int) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(StorageError, match="No space left"):
        journal.append([b"never"])
    monkeypatch.undo()
    assert (tmp_path / "votes").stat().st_size == journal.size
    journal.append([b"after"])
    assert journal.replay() == [b"before", b"after"]
    journal.close()


def test_after_a_failed_sync_nothing_is_appended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel reports a lost page once; a later success would prove nothing."""
    journal = Journal(tmp_path / "votes")

    def fails(descriptor: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fdatasync", fails)
    with pytest.raises(StorageError, match="Input/output"):
        journal.append([b"perhaps"])
    monkeypatch.undo()
    with pytest.raises(StorageError, match="an earlier write failed"):
        journal.append([b"next"])
    journal.close()


def test_no_folder_no_journal(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="missing"):
        Journal(tmp_path / "missing" / "votes")


def test_random_damage_never_invents_or_reorders(tmp_path: Path) -> None:
    """Whatever is done to the bytes: a prefix of what was appended, or an error."""
    path = tmp_path / "votes"
    write(path, [[bytes([i])] * 3 for i in range(20)])
    content = path.read_bytes()
    records = flat([[bytes([i])] * 3 for i in range(20)])
    rng = random.Random(1)
    outcomes = set()
    for _ in range(300):
        damaged = bytearray(content)
        for _ in range(rng.randint(1, 3)):
            start = rng.randrange(len(damaged))
            damaged[start : start + rng.randint(0, 40)] = rng.randbytes(rng.randint(0, 40))
        path.write_bytes(damaged)
        try:
            replayed, _ = reopened(path)
        except StorageError:
            outcomes.add("refused")
        else:
            outcomes.add("cut")
            assert replayed == records[: len(replayed)]
    assert outcomes == {"refused", "cut"}
