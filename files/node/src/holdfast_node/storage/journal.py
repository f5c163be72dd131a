# SPDX-License-Identifier: Apache-2.0
"""The vote journal: what this validator said, on disk before it is said.

The file is a header and frames, one per append:

    header  magic, version (u32), salt (16 random bytes), CRC-32 of these
    frame   marker, length of the payload (u32), CRC-32 of salt, length and payload; the payload is
            the encoded records

A crash can only leave the last frame incomplete. A faulty frame with a valid one anywhere after it
is therefore damage, and refused: cutting there would forget votes. The salt keeps what peers make
us write from passing for a frame.
"""

import os
import struct
from binascii import crc32
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from holdfast_node.chain.codec import decode, encode
from holdfast_node.errors import RefusedError, StorageError
from holdfast_node.storage.files import sync_directory

_MAGIC: Final = b"HFvotes\n"
_VERSION: Final = 1
_HEADER: Final = struct.Struct(">8sI16s")
_CHECKSUM: Final = struct.Struct(">I")
_HEADER_BYTES: Final = _HEADER.size + _CHECKSUM.size
_FRAME: Final = struct.Struct(">4sII")
_MARKER: Final = b"\xf5HFr"

_WAY_OUT: Final = (
    "a validator without its votes could vote twice: put the file back from this disk; if it is "
    "lost, give the validator a new key"
)


class Journal:
    """An append-only file of records; made if it is missing (the folder must exist).

    An append that a crash cut short is dropped when the file is opened: it was never acknowledged.
    `torn_bytes` says how many bytes that were, 0 if none. Not thread-safe.

    Raises `StorageError` if something other than the last append is damaged, or it is no journal.
    """

    torn_bytes: int

    def __init__(self, path: Path) -> None:
        self._path = path
        self.torn_bytes = 0
        self._failed = False
        try:
            if not path.exists():
                self._salt = _create(path, [])
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
        self._salt = self._check_header(content)
        self._size = _HEADER_BYTES
        for _, end in _frames(content, self._salt, self._size):
            self._size = end
        if self._size == len(content):
            return
        damaged = self._size
        candidate = content.find(_MARKER, damaged + 1)
        while candidate >= 0:
            for _ in _frames(content, self._salt, candidate):
                raise StorageError(
                    f"{self._path} is damaged at byte {damaged}, before records that are intact "
                    f"(byte {candidate}): {_WAY_OUT}"
                )
            candidate = content.find(_MARKER, candidate + 1)
        self.torn_bytes = len(content) - damaged
        self._truncate()

    def _check_header(self, content: bytes) -> bytes:
        # The file appears under its name complete, so a short header is no torn append.
        if len(content) >= _HEADER_BYTES:
            magic, version, salt = _HEADER.unpack_from(content)
            if magic == _MAGIC and version > _VERSION:
                raise StorageError(
                    f"{self._path} has version {version}, this release knows {_VERSION}: run the "
                    "release that wrote it, or a newer one"
                )
            (checksum,) = _CHECKSUM.unpack_from(content, _HEADER.size)
            if magic == _MAGIC and checksum == crc32(content[: _HEADER.size]):
                return bytes(salt)
        raise StorageError(f"{self._path} is no vote journal, or its start is damaged: {_WAY_OUT}")

    @property
    def size(self) -> int:
        """Bytes on disk."""
        return self._size

    def replay(self) -> list[bytes]:
        """All records, oldest first."""
        content = self._read()
        return [
            record
            for payload, _ in _frames(content, self._salt, _HEADER_BYTES)
            for record in self._records(payload)
        ]

    def _records(self, payload: bytes) -> list[bytes]:
        try:
            records: list[bytes] = decode(payload, list[bytes])
        except RefusedError as error:
            raise StorageError(f"{self._path}: {error}: {_WAY_OUT}") from error
        return records

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
        frame = _frame(self._salt, records)
        try:
            _write_all(self._descriptor, frame, self._size)
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
        self._size += len(frame)

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


def _checksum(salt: bytes, length: int, payload: bytes) -> int:
    return crc32(payload, crc32(_CHECKSUM.pack(length), crc32(salt)))


def _frame(salt: bytes, records: Sequence[bytes]) -> bytes:
    payload = encode(list(records))
    length = len(payload)
    return _FRAME.pack(_MARKER, length, _checksum(salt, length, payload)) + payload


def _frames(content: bytes, salt: bytes, start: int) -> Iterator[tuple[bytes, int]]:
    """Payload and end of each valid frame from `start` on, up to the first faulty one."""
    while start + _FRAME.size <= len(content):
        marker, length, checksum = _FRAME.unpack_from(content, start)
        payload = content[start + _FRAME.size : start + _FRAME.size + length]
        if (
            marker != _MARKER
            or len(payload) != length
            or _checksum(salt, length, payload) != checksum
        ):
            return
        start += _FRAME.size + length
        yield payload, start


def _create(path: Path, records: Sequence[bytes]) -> bytes:
    """Put a journal at `path`, replacing what is there in one step; returns its salt."""
    salt = os.urandom(16)
    header = _HEADER.pack(_MAGIC, _VERSION, salt)
    content = header + _CHECKSUM.pack(crc32(header))
    if records:
        content += _frame(salt, records)
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
