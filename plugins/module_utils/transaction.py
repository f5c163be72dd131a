# Copyright: (c) 2026, Holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""All or nothing for the changes of one task.

Every step is atomic by itself and records how to take it back. What a step replaces stays beside
it under another name (a hard link, or the thing itself moved aside), so that taking it back is a
rename: it restores the very inode, with its mode, owner and labels, and works on a full disk.

A crash of the machine can leave such names behind. They start with files.LEFTOVER_PREFIX, are never
looked at by anything else, and files.leftovers() lists them for the next run to remove.
"""

from __future__ import annotations

import contextlib
import functools
import os
import stat
from pathlib import Path
from typing import Any, Callable, Iterator, NamedTuple, Sequence

from ansible_collections.holdfast.chain.plugins.module_utils.files import (
    Account,
    PathName,
    account_ids,
    beside,
    discard,
    exists,
    owner_for,
    put_back,
    refuse_directory,
    restore_attributes,
    second_name,
    sync_directory,
    write_new,
)


class TransactionError(Exception):
    """A step failed and what had been done was taken back.

    step: the step that failed. cause: the exception it raised.
    undone: the steps taken back, latest first. not_undone: those that could not be, with why.
    """

    def __init__(
        self, step: str, cause: BaseException, undone: Sequence[str], not_undone: Sequence[str]
    ) -> None:
        self.step = step
        self.cause = cause
        self.undone = list(undone)
        self.not_undone = list(not_undone)
        super().__init__(str(self))

    def __str__(self) -> str:
        detail = str(self.cause) or type(self.cause).__name__
        text = "{}: {}.".format(self.step, detail.rstrip("."))
        if self.undone:
            text += " Taken back: {}.".format("; ".join(self.undone))
        if self.not_undone:
            text += " NOT taken back, repair by hand: {}.".format("; ".join(self.not_undone))
        if not self.undone and not self.not_undone:
            text += " Nothing had been changed."
        return text


class _Done(NamedTuple):
    what: str
    undo: Callable[[], Any] | None


class Transaction:
    """Context manager: leaving it normally commits, leaving it with an exception takes all back.

    An Exception comes out as TransactionError; SystemExit and KeyboardInterrupt come out as they
    are, after everything was taken back. One object serves one ``with`` block.

    left_behind: after a commit, names that could not be cleaned up (harmless; worth a warning).
    """

    def __init__(self) -> None:
        self.left_behind: list[str] = []
        self._done: list[_Done] = []
        self._kept: list[Path] = []
        self._step: str | None = None
        self._open = False

    def __enter__(self) -> Transaction:
        if self._open or self._done:
            raise RuntimeError("a Transaction serves one with block; make another")
        self._open = True
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        self._open = False
        if error is None:
            self._commit()
            return
        step = self._step or "after {}".format(self._done[-1].what if self._done else "reading")
        undone, not_undone = self._roll_back()
        if isinstance(error, Exception):
            raise TransactionError(step, error, undone, not_undone) from error

    def write_file(
        self,
        path: PathName,
        content: bytes,
        mode: int = 0o644,
        owner: Account = None,
        group: Account = None,
    ) -> None:
        """Replace or create a file as a whole: readers see the old content or the new.

        Without owner or group, those of the file it replaces are kept. A symbolic link is replaced,
        not followed. The directory must exist.
        """
        path = Path(path)
        with self._doing(f"write {path}") as what:
            refuse_directory(path)
            fresh = beside(path, "new")
            try:
                write_new(fresh, content, mode, owner_for(path, owner, group), path)
                self._put_in_place(fresh, path, what)
            finally:
                discard(fresh)

    def make_directory(
        self, path: PathName, mode: int = 0o755, owner: Account = None, group: Account = None
    ) -> None:
        """Make a directory, or set mode and owner of the one there is.

        Missing parents are made with mode 0755 and the owner of the process.
        """
        path = Path(path)
        if path.is_dir():
            self.set_attributes(path, mode, owner, group)
            return
        if not path.parent.is_dir():
            self.make_directory(path.parent)
        with self._doing(f"make directory {path}") as what:
            uid, gid = account_ids(owner, group)
            path.mkdir(mode=0o700)
            self._record(what, path.rmdir)
            os.chown(str(path), uid, gid)
            path.chmod(mode)
            sync_directory(path.parent)

    def set_attributes(
        self,
        path: PathName,
        mode: int | None = None,
        owner: Account = None,
        group: Account = None,
    ) -> None:
        """Set mode, owner and group; None leaves one as it is. A symbolic link has no mode."""
        path = Path(path)
        with self._doing(f"set attributes of {path}") as what:
            uid, gid = account_ids(owner, group)
            before = path.lstat()
            self._record(what, lambda: restore_attributes(path, before))
            os.chown(str(path), uid, gid, follow_symlinks=False)
            if not stat.S_ISLNK(before.st_mode):
                # After chown, which clears the set-id bits.
                path.chmod(stat.S_IMODE(before.st_mode) if mode is None else mode)

    def symlink(self, path: PathName, target: PathName) -> None:
        """Point a symbolic link at target in one step, whether or not it exists already."""
        path = Path(path)
        with self._doing(f"link {path} to {os.fspath(target)}") as what:
            refuse_directory(path)
            fresh = beside(path, "new")
            try:
                fresh.symlink_to(target)
                self._put_in_place(fresh, path, what)
            finally:
                discard(fresh)

    def move(self, source: PathName, destination: PathName) -> None:
        """Rename within one file system, replacing what is at the destination."""
        source, destination = Path(source), Path(destination)
        with self._doing(f"move {source} to {destination}") as what:
            source.lstat()
            if destination.is_dir() and not destination.is_symlink():
                self._set_aside(destination, what)
            kept = self._keep(destination)

            def undo() -> None:
                if exists(destination) and not exists(source):
                    destination.rename(source)
                put_back(kept, destination)

            self._record(what, undo)
            source.replace(destination)
            sync_directory(source.parent)
            sync_directory(destination.parent)

    def remove(self, path: PathName) -> None:
        """Remove a file, a link or a whole tree; it stays aside until the commit.

        What is absent already is no error.
        """
        path = Path(path)
        with self._doing(f"remove {path}") as what:
            if exists(path):
                self._set_aside(path, what)

    def run(self, do: Callable[[], Any], undo: Callable[[], Any] | None, what: str) -> Any:
        """Any other step; returns what ``do`` returns.

        A ``do`` that raises must have left nothing changed: its ``undo`` is not called. Without an
        undo, a later failure reports the step among those that could not be taken back.
        """
        with self._doing(what):
            result = do()
            self._record(what, undo)
            return result

    @contextlib.contextmanager
    def _doing(self, what: str) -> Iterator[str]:
        if not self._open:
            raise RuntimeError(f"{what}: outside of the transaction's with block")
        self._step = what
        yield what
        self._step = None  # not reached on an exception: __exit__ names the step that failed

    def _record(self, what: str, undo: Callable[[], Any] | None) -> None:
        self._done.append(_Done(what, undo))

    def _put_in_place(self, fresh: Path, path: Path, what: str) -> None:
        """Rename fresh over path; the undo is recorded first and is right before and after."""
        kept = self._keep(path)
        self._record(what, lambda: put_back(kept, path))
        fresh.replace(path)
        sync_directory(path.parent)

    def _keep(self, path: Path) -> Path | None:
        """A second name for what is at path, if anything; path itself stays as it is."""
        if not exists(path):
            return None
        kept = beside(path, "old")
        self._kept.append(kept)
        second_name(path, kept)
        return kept

    def _set_aside(self, path: Path, what: str) -> None:
        aside = beside(path, "old")
        self._kept.append(aside)
        self._record(what, lambda: put_back(aside, path))
        path.rename(aside)
        sync_directory(path.parent)

    def _commit(self) -> None:
        for kept in self._kept:
            fault = _fault_of(functools.partial(discard, kept))
            if fault is not None:
                self.left_behind.append(f"{kept} ({fault})")

    def _roll_back(self) -> tuple[list[str], list[str]]:
        undone: list[str] = []
        not_undone: list[str] = []
        while self._done:
            step = self._done.pop()
            fault = _fault_of(step.undo)
            if fault is None:
                undone.append(step.what)
            else:
                not_undone.append(f"{step.what} ({fault})")
        if not not_undone:
            for kept in self._kept:  # those a step made before it failed
                with contextlib.suppress(OSError):
                    discard(kept)
        return undone, not_undone


def _fault_of(undo: Callable[[], Any] | None) -> str | None:
    """Run one undo; what went wrong, as text: the other steps must still be tried."""
    if undo is None:
        return "it has no undo"
    try:
        undo()
    except Exception as error:
        return str(error) or type(error).__name__
    return None
