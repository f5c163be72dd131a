# SPDX-License-Identifier: Apache-2.0
"""The data folder: one process at a time."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from holdfast_node.errors import StorageError


@contextmanager
def data_folder(path: Path) -> Iterator[Path]:
    """Make the data folder if need be, and hold it: two nodes on one folder would vote twice.

    Raises `StorageError` if another process has it.
    """
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = os.open(path / "LOCK", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise StorageError(
                f"data_dir = {path}: another node is running on this folder; stop it first, or "
                "give this one a folder of its own"
            ) from error
        yield path
    finally:
        os.close(lock)
