# SPDX-License-Identifier: Apache-2.0
"""Tells a data folder from its copies, and from older copies put over it.

An anchor is a file that is made and never touched again. Whatever makes a folder from a copy (cp,
rsync, tar, a backup) makes a new file, or writes to the one that is there: its inode, or the time
of its last change, which no program can set, is then another than the journal says.

The anchor is replaced at each start and at each stop, so a journal that is put back over the folder
in use names one that is gone. There are two names: the new one is there before the journal names
it, and the old one goes afterwards.

Not told apart: a copy that was made since the last start, put back after a crash, with nothing
having run in between; and an image of the whole disk, rolled back.
"""

import os
from pathlib import Path
from typing import Final

from holdfast_node.errors import StorageError
from holdfast_node.storage.files import sync_directory

SLOTS: Final = ("anchor", "anchor.2")
_MOST: Final = 2**63 - 1

Identity = tuple[int, int]


def read_anchors(folder: Path) -> dict[str, Identity]:
    """Inode and time of change (ns) of the anchors in `folder`, by name: none, one, or two."""
    found = {}
    for name in SLOTS:
        try:
            status = (folder / name).stat()
        except FileNotFoundError:
            continue
        except OSError as error:
            raise StorageError(f"{folder / name}: {error}: check the folder's owner") from error
        found[name] = (status.st_ino & _MOST, status.st_ctime_ns & _MOST)
    return found


def make_anchor(folder: Path, name: str) -> Identity:
    """Make the anchor `name` of `folder`, durably and anew; returns what identifies it."""
    path = folder / name
    try:
        path.unlink(missing_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            # Other content each time, so that no tool takes it for the same file.
            os.write(descriptor, os.urandom(16).hex().encode() + b" identifies this folder\n")
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        sync_directory(folder)
    except OSError as error:
        raise StorageError(f"{path}: {error}: check the folder and its owner") from error
    return read_anchors(folder)[name]


def remove_anchor(folder: Path, name: str) -> None:
    """Remove the anchor `name`, if it is there; not durably: it does no harm."""
    try:
        (folder / name).unlink(missing_ok=True)
    except OSError as error:
        raise StorageError(f"{folder / name}: {error}: check the folder and its owner") from error
