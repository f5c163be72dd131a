# SPDX-License-Identifier: Apache-2.0
"""What two nodes say to each other, and how it is framed.

A frame is a 4-byte big-endian length and that many bytes: the canonical MessagePack of one message.
The peer protocol and the sync protocol have unions of their own, so that a message of the one is
malformed on a port of the other. Both begin with a `Hello` in each direction.
"""

import struct
from typing import Annotated, Any, Final, Literal, TypeAlias

from msgspec import Meta

from holdfast_node.chain.block import Hash
from holdfast_node.chain.codec import Value, decode, encode
from holdfast_node.chain.transaction import MAX_TRANSACTION_BYTES, Natural
from holdfast_node.errors import ProtocolError, RefusedError

PROTOCOL_VERSION: Final = 1
HELLO_LIMIT: Final = 4096
SYNC_REQUEST_LIMIT: Final = 1024
MAX_TRANSACTIONS: Final = 10_000
MAX_PAGE_BLOCKS: Final = 1_024
MAX_OFFERS: Final = 8
MANIFEST_PART_BYTES: Final = 2**20
MAX_MANIFEST_PARTS: Final = 20

_HEADER: Final = struct.Struct(">I")

Reason: TypeAlias = Literal[
    "wrong_ca",  # the certificate does not lead to our root
    "expired",  # the certificate is not valid now
    "revoked",
    "tls",  # no TLS 1.3, no certificate, or no TLS at all
    "not_member",  # certified, but not one of our peers
    "other_chain",
    "other_genesis",
    "version",
    "oversized",
    "malformed",
    "timeout",
    "aborted",  # gone before it had introduced itself
    "busy",  # too many unfinished handshakes
    "duplicate",  # that peer is connected already
    "unexpected",  # a message out of place, or a peer that we are to dial, dialling us
    "internal",  # our own handling of the message failed
]


class PeerError(ProtocolError):
    """A peer is refused or its connection closed; `reason` is a label of fixed choice."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason: Reason = reason


class Hello(Value, frozen=True, tag="hello"):
    """First message of both sides. `height` is the sender's last committed block."""

    version: Annotated[int, Meta(ge=0, le=65_535)]
    chain_id: Annotated[str, Meta(max_length=64)]
    genesis_hash: Hash
    name: Annotated[str, Meta(max_length=64)]
    height: Natural


class Consensus(Value, frozen=True, tag="consensus"):
    """An encoded and signed message of the consensus; nothing here looks inside."""

    payload: bytes


class Transactions(Value, frozen=True, tag="transactions"):
    """Encoded transactions that the sender has accepted."""

    raws: Annotated[
        tuple[Annotated[bytes, Meta(max_length=MAX_TRANSACTION_BYTES)], ...],
        Meta(max_length=MAX_TRANSACTIONS),
    ]


class Status(Value, frozen=True, tag="status"):
    """The sender's last committed block and the view it is in."""

    height: Natural
    block_hash: Hash
    view: Natural


class Ping(Value, frozen=True, tag="ping"):
    n: Natural


class Pong(Value, frozen=True, tag="pong"):
    """Answer to the `Ping` with the same `n`."""

    n: Natural


class Renew(Value, frozen=True, tag="renew"):
    """Asks to replace this session before its certificates end.

    The side that listened says it to be dialled anew, and in answer to the side that dials; who
    hears it over the present session may accept a second one.
    """


class Bye(Value, frozen=True, tag="bye"):
    """Last message of one direction; what follows comes over the session's successor."""


class GetBlocks(Value, frozen=True, tag="get-blocks"):
    """Ask for blocks `from_height`, `from_height` + 1, … within both limits.

    A block that alone is larger than `max_bytes` still comes, by itself.
    """

    from_height: Natural
    limit: Annotated[int, Meta(ge=1, le=MAX_PAGE_BLOCKS)]
    max_bytes: Annotated[int, Meta(ge=1, le=2**26)]


class Blocks(Value, frozen=True, tag="blocks"):
    """Encoded `CertifiedBlock`s in order; the sender has those from `first` to `height`."""

    blocks: Annotated[tuple[bytes, ...], Meta(max_length=MAX_PAGE_BLOCKS)]
    height: Natural
    first: Natural


class GetSnapshots(Value, frozen=True, tag="get-snapshots"):
    """Ask which snapshots there are."""


class Offer(Value, frozen=True):
    """A snapshot of the state after block `height`; `identity` is the same at all who have it."""

    height: Natural
    identity: Hash


class Snapshots(Value, frozen=True, tag="snapshots"):
    offers: Annotated[tuple[Offer, ...], Meta(max_length=MAX_OFFERS)]


class GetManifest(Value, frozen=True, tag="get-manifest"):
    """Ask for part `part` of an encoded manifest, from 0."""

    identity: Hash
    part: Annotated[int, Meta(ge=0, lt=MAX_MANIFEST_PARTS)]


class ManifestPart(Value, frozen=True, tag="manifest-part"):
    """One of `parts`, all but the last of `MANIFEST_PART_BYTES`; none if that is not here."""

    data: Annotated[bytes, Meta(max_length=MANIFEST_PART_BYTES)]
    parts: Annotated[int, Meta(ge=0, le=MAX_MANIFEST_PARTS)]


class GetPage(Value, frozen=True, tag="get-page"):
    """Ask for page `page` of chunk `chunk`, both from 0."""

    identity: Hash
    chunk: Annotated[int, Meta(ge=0, le=2**32)]
    page: Annotated[int, Meta(ge=0, le=2**32)]


class SnapshotPart(Value, frozen=True, tag="snapshot-part"):
    """A page, encoded; empty if that snapshot is not here (any more)."""

    data: bytes


Delivered: TypeAlias = Consensus | Transactions | Status
Message: TypeAlias = Hello | Consensus | Transactions | Status | Ping | Pong | Renew | Bye
SyncRequest: TypeAlias = GetBlocks | GetSnapshots | GetManifest | GetPage
SyncMessage: TypeAlias = Hello | SyncRequest | Blocks | Snapshots | ManifestPart | SnapshotPart


def frame_limit(max_block_bytes: int) -> int:
    """Largest frame, in bytes, of a chain whose blocks have at most `max_block_bytes`."""
    return max(4 * 2**20, 2 * max_block_bytes + 2**20)


def to_frame(message: Message | SyncMessage) -> bytes:
    body = encode(message)
    return _HEADER.pack(len(body)) + body


def from_frame(body: bytes, type_: Any) -> Any:
    """Decode a frame's body as `type_`; raises `PeerError("malformed")`."""
    try:
        return decode(body, type_)
    except RefusedError as error:
        raise PeerError("malformed", f"frame of {len(body)} bytes: {error}") from error


class FrameDecoder:
    """Cuts a stream into frame bodies, one at a time; holds no more than what was fed.

    `limit` is the largest body accepted from now on; the length is checked as soon as it is there.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._buffer = bytearray()
        self._start = 0

    def feed(self, data: bytes) -> None:
        if self._start:
            del self._buffer[: self._start]
            self._start = 0
        self._buffer += data

    def next(self) -> bytes | None:
        """The next body, or None until more is fed; raises `PeerError("oversized")`."""
        body = self._start + _HEADER.size
        if len(self._buffer) < body:
            return None
        (length,) = _HEADER.unpack_from(self._buffer, self._start)
        if length > self.limit:
            raise PeerError("oversized", f"frame of {length} bytes: at most {self.limit}")
        if len(self._buffer) < body + length:
            return None
        self._start = body + length
        with memoryview(self._buffer) as view:
            return view[body : self._start].tobytes()
