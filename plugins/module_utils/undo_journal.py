# Copyright: (c) 2026, Holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a task means to take back if it is cut short, on the disk before it changes anything.

A Transaction takes back what fails while the process lives. It cannot after a power cut or a kill.
For that the intended undo is written down first, and synced; the next run of the same task finds
it, puts back what it still recognises as the work of the run that was cut short, and says so.

An entry is a mapping with ``kind``, ``target``, ``before`` and ``after``:

* ``file``: before and after are descriptions of a file (`describe`), or None where there is none;
* ``directory``: one that is made (before is None) or removed once it is empty (after is None);
* other kinds belong to a domain, which gives a function that takes them back.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import posixpath
from pathlib import Path
from typing import Any, Callable, Iterator, Mapping, NamedTuple, Sequence

from ansible_collections.holdfast.chain.plugins.module_utils.files import (
    beside,
    discard,
    leftovers,
    locked,
    sync_directory,
    write_new,
)
from ansible_collections.holdfast.chain.plugins.module_utils.hostfs import Host
from ansible_collections.holdfast.chain.plugins.module_utils.transaction import TransactionError

DIRECTORY = "/var/lib/holdfast.chain"
_FORMAT = 1
_LASTING = ("file", "directory")

Entry = Mapping[str, Any]
AS_BEFORE, OURS, FOREIGN = "as before", "ours", "changed since by somebody else"
UNKNOWN, HALF = "cannot be read back", "half put back"


class Kind(NamedTuple):
    """How a domain repairs its entries.

    assess: what became of an entry: AS_BEFORE, OURS (as the run meant it), FOREIGN,
        UNKNOWN, or HALF (a repair was cut short in turn).
    fix: put one back that is OURS; OSError where that does not work.
    """

    assess: Callable[[Entry], str]
    fix: Callable[[Entry], None]


def describe(host: Host, name: str) -> dict[str, Any] | None:
    """A file or symbolic link with all that is needed to make it again; None if there is none."""
    attributes = host.attributes(name)
    if attributes is None:
        return None
    if host.is_link(name):
        return {"link": os.readlink(str(host.path(name)))}
    content = host.path(name).read_bytes()
    return {"content": base64.b64encode(content).decode("ascii"), **attributes}


def described(content: bytes, mode: int) -> dict[str, Any]:
    """The description of a file that is yet to be written; its owner is left open."""
    return {"content": base64.b64encode(content).decode("ascii"), "mode": mode}


class Journal:
    """The journal of one kind of task on one host; ``name`` tells tasks apart."""

    def __init__(self, host: Host, name: str) -> None:
        self._host = host
        self.fault: str | None = None
        self._directory = host.path(DIRECTORY)
        readable = "".join(c if c.isalnum() or c in "-_." else "_" for c in name)[:80]
        digest = hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()[:8]
        self._path = self._directory / f"{readable}-{digest}.undo"

    def pending(self) -> list[Entry]:
        """Entries of a run that was cut short; none if there was none.

        A journal is only in place once it is whole: one that cannot be read is not for guessing.
        """
        try:
            stored = json.loads(self._path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return []
        except ValueError as error:
            raise TransactionError(
                f"read {self._path}", ValueError(f"{error}; look at it and remove it"), [], []
            ) from None
        # What lived in memory only is gone with the boot it was made in.
        same_boot = stored["boot_id"] == self._host.boot_id()
        return [entry for entry in stored["entries"] if entry["kind"] in _LASTING or same_boot]

    def cut_short(self) -> bool:
        """Whether an earlier run left anything: its journal, or one it had not finished writing."""
        return self._directory.is_dir()

    @contextlib.contextmanager
    def guarding(self, entries: Sequence[Entry]) -> Iterator[None]:
        """Keep the entries on the disk while the block changes the host.

        They stay only where something could not be taken back.
        """
        try:
            self._write(entries)
        except OSError as error:
            raise TransactionError(f"write {self._path}", error, [], []) from error
        try:
            yield
        except TransactionError as error:
            if not error.not_undone:
                self.clear()
            raise
        self.clear()

    def _write(self, entries: Sequence[Entry]) -> None:
        stored = {"format": _FORMAT, "boot_id": self._host.boot_id(), "entries": list(entries)}
        fresh = beside(self._path, "new")
        try:
            if not self._directory.is_dir():
                self._directory.mkdir(mode=0o700)
                sync_directory(self._directory.parent)
            write_new(fresh, json.dumps(stored).encode("ascii"), 0o600, (-1, -1), None)
            fresh.replace(self._path)
            sync_directory(self._directory)
        except BaseException:
            with contextlib.suppress(OSError):
                self._path.unlink(missing_ok=True)
                discard(fresh)
                self._tidy()
            raise

    def clear(self) -> None:
        """Forget the entries: the host is as wanted, or as it was.

        If that fails, nothing but the journal is wrong; ``fault`` says so.
        """
        try:
            self._path.unlink(missing_ok=True)
            if self._directory.is_dir():
                sync_directory(self._directory)
                self._tidy()
        except OSError as error:
            self.fault = f"could not remove {self._path}: {error}"

    def _tidy(self) -> None:
        for leftover in leftovers(self._directory):
            if leftover.name.endswith(self._path.name[:40]):
                discard(leftover)
        if not any(self._directory.iterdir()):  # other tasks keep theirs in it
            self._directory.rmdir()

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Keep other runs of this collection from changing the host at the same time."""
        with locked(self._directory.parent):
            yield

    def assess(self, entries: Sequence[Entry], kinds: Mapping[str, Kind]) -> list[Entry]:
        """The entries that a repair would put back, latest first; nothing is touched."""
        return [
            entry for entry, verdict in self._verdicts(entries, kinds) if verdict in (OURS, HALF)
        ]

    def repair(self, entries: Sequence[Entry], kinds: Mapping[str, Kind]) -> Repaired:
        """Take back what an earlier run left, latest first."""
        done = Repaired()
        named = [entry for entry in entries if entry["kind"] in _LASTING]
        for directory in sorted({posixpath.dirname(entry["target"]) for entry in named}):
            remove_leftovers(self._host, directory, named)
        known = {**self._kinds(), **kinds}
        for entry, verdict in self._verdicts(entries, kinds):
            if verdict in (OURS, HALF):
                try:
                    known[entry["kind"]].fix(entry)
                except OSError as error:
                    done.left.append(f"{entry['target']}: {error}")
                else:
                    done.repaired.append(entry)
            elif verdict == FOREIGN:
                done.left.append(f"{entry['target']}: {FOREIGN}, left as it is")
        self.clear()
        return done

    def _verdicts(
        self, entries: Sequence[Entry], kinds: Mapping[str, Kind]
    ) -> list[tuple[Entry, str]]:
        """What became of each entry, latest first; none if the run had got to its end.

        Killed when all was done and only the journal was left to remove, it needs no repair.
        """
        known = {**self._kinds(), **kinds}
        verdicts = [(entry, known[entry["kind"]].assess(entry)) for entry in reversed(entries)]
        if {verdict for _entry, verdict in verdicts} <= {OURS, UNKNOWN}:
            return []
        return verdicts

    def _kinds(self) -> dict[str, Kind]:
        return {
            "file": Kind(self._assess_file, self._fix_file),
            "directory": Kind(self._assess_directory, self._fix_directory),
        }

    def _assess_file(self, entry: Entry) -> str:
        now = describe(self._host, entry["target"])
        if same_file(now, entry["before"]):
            return AS_BEFORE
        return OURS if same_file(now, entry["after"]) else FOREIGN

    def _fix_file(self, entry: Entry) -> None:
        put(self._host.path(entry["target"]), entry["before"])

    def _assess_directory(self, entry: Entry) -> str:
        is_there = self._host.path(entry["target"]).is_dir()
        return OURS if is_there == (entry["before"] is None) else AS_BEFORE

    def _fix_directory(self, entry: Entry) -> None:
        path = self._host.path(entry["target"])
        if entry["before"] is not None:
            path.mkdir()
        elif not any(path.iterdir()):  # others may have put something into it since
            path.rmdir()


class Repaired:
    """What a repair put back, and what it left alone, with why."""

    def __init__(self) -> None:
        self.repaired: list[Entry] = []
        self.left: list[str] = []


def remove_leftovers(host: Host, directory: str, entries: Sequence[Entry]) -> None:
    """Remove the second names that a transaction cut short kept beside the files of the entries."""
    ends = {posixpath.basename(entry["target"])[:40] for entry in entries}
    for leftover in leftovers(host.path(directory)):
        if any(leftover.name.endswith("-" + end) for end in ends):
            discard(leftover)


def same_file(one: Mapping[str, Any] | None, other: Mapping[str, Any] | None) -> bool:
    """Whether two descriptions agree in all that both know."""
    if one is None or other is None:
        return one is other
    if ("link" in one) != ("link" in other):
        return False
    return all(one[name] == other[name] for name in one if name in other)


def put(path: Path, wanted: Mapping[str, Any] | None) -> None:
    """Make a path what a description says, in one step, synced."""
    if wanted is None:
        discard(path)
        sync_directory(path.parent)
        return
    fresh = beside(path, "new")
    try:
        if "link" in wanted:
            fresh.symlink_to(wanted["link"])
        else:
            content = base64.b64decode(wanted["content"])
            write_new(fresh, content, wanted["mode"], (wanted["uid"], wanted["gid"]), None)
        fresh.replace(path)
        sync_directory(path.parent)
    finally:
        discard(fresh)


def text_before(entry: Entry) -> str | None:
    """The text a file entry's file had before; None if there was none, or it was a link."""
    if entry["before"] is None or "link" in entry["before"]:
        return None
    content = base64.b64decode(entry["before"]["content"])
    return content.decode("utf-8", "surrogateescape")
