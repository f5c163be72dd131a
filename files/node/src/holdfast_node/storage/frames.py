# SPDX-License-Identifier: Apache-2.0
"""The bytes of a journal: pure functions, the same for the file and for the simulated disk.

    header  magic, version (u32), salt (16 random bytes), CRC-32 of these
    frame   marker, length of the payload (u32), CRC-32 of salt, length and payload; the payload is
            the encoded records

The salt keeps what peers make us write from passing for a frame.
"""

import struct
from binascii import crc32
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from holdfast_node.chain.codec import decode, encode
from holdfast_node.errors import RefusedError, StorageError

VERSION: Final = 1
SALT_BYTES: Final = 16

_MAGIC: Final = b"HFvotes\n"
_HEADER: Final = struct.Struct(">8sI16s")
_CHECKSUM: Final = struct.Struct(">I")
HEADER_BYTES: Final = _HEADER.size + _CHECKSUM.size
_FRAME: Final = struct.Struct(">4sII")
_MARKER: Final = b"\xf5HFr"


@dataclass(frozen=True, slots=True)
class Scan:
    """What a journal holds. `end` is where its last good frame ends.

    Bytes from `end` on are a torn append if `intact` is None; else they are damage, because there
    is a good frame at `intact`, behind them.
    """

    salt: bytes
    end: int
    intact: int | None


def header(salt: bytes) -> bytes:
    """The start of a new journal."""
    fields = _HEADER.pack(_MAGIC, VERSION, salt)
    return fields + _CHECKSUM.pack(crc32(fields))


def frame(salt: bytes, records: Sequence[bytes]) -> bytes:
    """What one append writes: all of it counts, or nothing."""
    payload = encode(list(records))
    length = len(payload)
    return _FRAME.pack(_MARKER, length, _checksum(salt, length, payload)) + payload


def scan(content: bytes, name: str) -> Scan:
    """Find out how far a journal is good; `name` names it in errors.

    Raises `StorageError` if it is no journal, or of another version.
    """
    salt = _check_header(content, name)
    end = HEADER_BYTES
    for _, after in _frames(content, salt, end):
        end = after
    # An append that a crash cut short is the last: a good frame behind a faulty one means damage.
    candidate = content.find(_MARKER, end + 1) if end < len(content) else -1
    while candidate >= 0:
        for _ in _frames(content, salt, candidate):
            return Scan(salt, end, candidate)
        candidate = content.find(_MARKER, candidate + 1)
    return Scan(salt, end, None)


def read_records(content: bytes, name: str) -> list[bytes]:
    """All records of good frames, oldest first."""
    salt = _check_header(content, name)
    found: list[bytes] = []
    for payload, _ in _frames(content, salt, HEADER_BYTES):
        try:
            records: list[bytes] = decode(payload, list[bytes])
        except RefusedError as error:
            raise StorageError(f"{name}: {error}: {WAY_OUT}") from error
        found += records
    return found


WAY_OUT: Final = (
    "move it away and start the node: it then follows without a vote until no vote of its past can "
    "be contradicted. Do not put an older one in its place: that would go unnoticed"
)


def _check_header(content: bytes, name: str) -> bytes:
    # The file appears under its name complete, so a short header is no torn append.
    if len(content) >= HEADER_BYTES:
        magic, version, salt = _HEADER.unpack_from(content)
        if magic == _MAGIC and version > VERSION:
            raise StorageError(
                f"{name} has version {version}, this release knows {VERSION}: run the release "
                "that wrote it, or a newer one"
            )
        (checksum,) = _CHECKSUM.unpack_from(content, _HEADER.size)
        if magic == _MAGIC and checksum == crc32(content[: _HEADER.size]):
            return bytes(salt)
    raise StorageError(f"{name} is no vote journal, or its start is damaged: {WAY_OUT}")


def _checksum(salt: bytes, length: int, payload: bytes) -> int:
    return crc32(payload, crc32(_CHECKSUM.pack(length), crc32(salt)))


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
