# SPDX-License-Identifier: Apache-2.0
"""The vote journal: what this validator said, on disk before it is said.

`frames.py` has the format: a header, and a frame for each append. A crash can only leave the last
frame incomplete. A faulty frame with a valid one anywhere after it is therefore damage, and
refused: cutting there would forget votes.
"""

import os
from collections.abc import Sequence
from pathlib import Path

from holdfast_node.errors import StorageError
from holdfast_node.storage.files import sync_directory
from holdfast_node.storage.frames import (
    SALT_BYTES,
    WAY_OUT,
    frame,
    header,
    read_records,
    scan,
)


class Journal:
    """An append-only file of records; made if it is missing (the folder must exist).

    A new one begins with the records `initial`: there is never one without them.

    An append that a crash cut short is dropped when the file is opened: it was never acknowledged.
    `torn_bytes` says how many bytes that were, 0 if none. Not thread-safe.

    Raises `StorageError` if something other than the last append is damaged, or it is no journal.
    """

    torn_bytes: int

    def __init__(self, path: Path, initial: Sequence[bytes] = ()) -> None:
        self._path = path
        self.torn_bytes = 0
        self._failed = False
        try:
            if not path.exists():
                self._salt = _create(path, initial)
            self._descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except OSError as error:
            raise StorageError(f"{path}: {error}: check the folder and its owner") from error
        try:
            self._open()
        except BaseException:
            self.close()
            raise

    def _open(self) -> None:
        content = self._read()
        found = scan(content, str(self._path))
        if found.intact is not None:
            raise StorageError(
                f"{self._path} is damaged at byte {found.end}, before records that are intact "
                f"(byte {found.intact}): {WAY_OUT}"
            )
        self._salt = found.salt
        self._size = found.end
        self.torn_bytes = len(content) - found.end
        if self.torn_bytes:
            self._truncate()

    @property
    def size(self) -> int:
        """Bytes on disk."""
        return self._size

    @property
    def is_broken(self) -> bool:
        """Whether a write failed, or it is closed: nothing can be appended any more."""
        return self._failed or self._descriptor < 0

    def replay(self) -> list[bytes]:
        """All records, oldest first."""
        return read_records(self._read(), str(self._path))

    def append(self, records: Sequence[bytes]) -> None:
        """Write `records` as a whole: after a crash all are there, or none. Durable on return.

        Raises `StorageError`; after a failed sync every later append is refused, because nobody
        can know what is on disk.
        """
        if not records:
            return
        if self._failed:
            raise StorageError(
                f"{self._path}: an earlier write failed: check the disk, then restart the node"
            )
        data = frame(self._salt, records)
        try:
            _write_all(self._descriptor, data, self._size)
        except OSError as error:
            self._failed = True
            self._truncate()
            self._failed = False
            raise StorageError(f"{self._path}: {error}: make room on the disk") from error
        self._failed = True
        try:
            os.fdatasync(self._descriptor)
        except OSError as error:
            raise StorageError(f"{self._path}: {error}: check the disk") from error
        self._failed = False
        self._size += len(data)

    def reset(self, records: Sequence[bytes]) -> None:
        """Replace the whole journal by `records`, atomically and durably.

        Raises `StorageError`; the journal is then the old one or the new one, and later appends are
        refused.
        """
        self._failed = True
        try:
            self._salt = _create(self._path, records)
            descriptor = os.open(self._path, os.O_RDWR | os.O_CLOEXEC)
        except OSError as error:
            raise StorageError(f"{self._path}: {error}: check the disk") from error
        self.close()
        self._descriptor = descriptor
        self._size = os.fstat(descriptor).st_size
        self._failed = False

    def close(self) -> None:
        """Let go of the file; may be called twice."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _read(self) -> bytes:
        try:
            size = os.fstat(self._descriptor).st_size
            return os.pread(self._descriptor, size, 0)
        except OSError as error:
            raise StorageError(f"{self._path}: {error}: check the disk") from error

    def _truncate(self) -> None:
        """Cut what is beyond the last good frame, so that nothing follows a faulty one."""
        try:
            os.ftruncate(self._descriptor, self._size)
            os.fsync(self._descriptor)
        except OSError as error:
            raise StorageError(f"{self._path}: {error}: check the disk") from error


def _create(path: Path, records: Sequence[bytes]) -> bytes:
    """Put a journal at `path`, replacing what is there in one step; returns its salt."""
    salt = os.urandom(SALT_BYTES)
    content = header(salt)
    if records:
        content += frame(salt, records)
    unfinished = path.with_name(path.name + ".new")
    descriptor = os.open(
        unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode=0o600
    )
    try:
        _write_all(descriptor, content, 0)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    unfinished.replace(path)
    sync_directory(path.parent)
    return salt


def _write_all(descriptor: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(descriptor, view, offset)
        view = view[written:]
        offset += written
