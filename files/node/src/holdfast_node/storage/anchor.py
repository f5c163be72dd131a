# SPDX-License-Identifier: Apache-2.0
"""Tells a data folder from its copies.

The file `anchor` is made once and never touched again. Whatever makes a folder from a copy (cp,
rsync, tar, a backup) makes a new file: its inode, or the time of its last change, which no program
can set, is then another than the journal says.

Not told apart: older files that are put back over the folder in use while the anchor stays as it is
(rsync onto the same folder passes over it, for its size and times are right), and an image of the
whole disk, rolled back. So a folder has to be emptied before a backup is restored into it.
"""

import os
from pathlib import Path
from typing import Final

from holdfast_node.errors import StorageError
from holdfast_node.storage.files import sync_directory

NAME: Final = "anchor"
_MOST: Final = 2**63 - 1


def read_anchor(folder: Path) -> tuple[int, int] | None:
    """Inode and time of change (ns) of the anchor in `folder`, None if there is none."""
    try:
        status = (folder / NAME).stat()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StorageError(f"{folder / NAME}: {error}: check the folder and its owner") from error
    return status.st_ino & _MOST, status.st_ctime_ns & _MOST


def make_anchor(folder: Path) -> tuple[int, int]:
    """Make the anchor of `folder`, durably; returns what identifies it."""
    path = folder / NAME
    text = b"Identifies this folder: leave it alone, and out of backups.\n"
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.write(descriptor, text)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        sync_directory(folder)
    except OSError as error:
        raise StorageError(f"{path}: {error}: check the folder and its owner") from error
    made = read_anchor(folder)
    assert made is not None
    return made
