# Copyright: (c) 2026, Holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Power goes at any moment, and any one operation on the disk may fail.

A child process runs a module under an audit hook that counts the operations which change
something below a directory. At a chosen one it either dies on the spot (no clean-up runs, as with
kill -9) or gets an error from the disk. Every operation is tried in turn.
"""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path
from typing import Any, Callable, Iterator

import pytest
from ansible_collections.holdfast.chain.plugins.module_utils.files import LEFTOVER_PREFIX

_CHANGES = ("os.rename", "os.link", "os.symlink", "os.mkdir", "os.remove", "os.rmdir", "os.chmod",
            "os.chown", "os.truncate")  # fmt: skip
DIED, FAILED, DONE = 77, 3, 0


def _changes_something(event: str, arguments: tuple[Any, ...], below: str) -> bool:
    if event == "open":
        path, _mode, flags = arguments
        if not isinstance(flags, int) or not flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            return False
        return isinstance(path, str) and path.startswith(below)
    # rmtree passes names relative to an open directory: they are inside of what it removes
    return event in _CHANGES and (
        str(arguments[0]).startswith(below) or not str(arguments[0]).startswith("/")
    )


def in_child(run: Callable[[], Any], below: Path, moment: int, die: bool) -> int:
    """Run a module in a child that is hit at its moment-th change; how it ended."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    status = 99
    try:
        count = 0

        def hook(event: str, arguments: tuple[Any, ...]) -> None:
            nonlocal count
            if not _changes_something(event, arguments, str(below)):
                return
            count += 1
            if count == moment:
                if die:
                    os._exit(DIED)
                raise OSError(errno.EIO, "Input/output error")

        sys.addaudithook(hook)
        outcome = run()
        status = FAILED if outcome.failed else DONE
        if status == DONE and count < moment:
            status = DONE
        elif status == DONE:
            status = 1  # hit, and nobody noticed: only clean-up after the commit may do that
    finally:
        os._exit(status)


def each_moment(
    run: Callable[[], Any], below: Path, reset: Callable[[], None], die: bool
) -> Iterator[int]:
    """Hit every change in turn; yields how the child ended, stops when none is left to hit."""
    for moment in range(1, 400):
        reset()
        status = in_child(run, below, moment, die)
        assert status in (DIED, FAILED, DONE, 1), status
        if status == DONE:
            assert moment > 3, "the hook did not hit anything"
            return
        yield status
    pytest.fail("never came to an end")


def public_state(directory: Path) -> dict[str, Any]:
    """Contents, modes and owners; not times, which a rollback cannot and need not restore."""
    state: dict[str, Any] = {}
    for path in sorted(directory.rglob("*")):
        status = path.lstat()
        content: Any = None
        if path.is_symlink():
            content = os.readlink(str(path))
        elif path.is_file():
            content = path.read_bytes()
        name = str(path.relative_to(directory))
        state[name] = (status.st_mode, status.st_uid, status.st_gid, content)
    return state


def no_temporary_names(directory: Path) -> bool:
    return not any(LEFTOVER_PREFIX in str(path) for path in directory.rglob("*"))
