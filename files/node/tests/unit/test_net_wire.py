# SPDX-License-Identifier: Apache-2.0
"""Frames and messages: any stream of bytes gives messages or a refusal, within bounds."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast_node.chain.codec import encode
from holdfast_node.net.wire import (
    Blocks,
    Consensus,
    FrameDecoder,
    GetBlocks,
    GetManifest,
    GetPage,
    GetSnapshots,
    Hello,
    ManifestPart,
    Message,
    Offer,
    PeerError,
    Ping,
    Pong,
    SnapshotPart,
    Snapshots,
    Status,
    SyncMessage,
    Transactions,
    frame_limit,
    from_frame,
    to_frame,
)

HASH = b"\x01" * 32
PEER_MESSAGES = [
    Hello(1, "demo", HASH, "v1", 7),
    Consensus(b"signed"),
    Transactions((b"a", b"b" * 65_536)),
    Status(7, HASH, 3),
    Ping(1),
    Pong(2**63 - 1),
]
SYNC_MESSAGES = [
    Hello(1, "demo", HASH, "v1", 7),
    GetBlocks(1, 5, 1000),
    Blocks((b"x",), 9, 1),
    GetSnapshots(),
    Snapshots((Offer(9, HASH), Offer(4, HASH))),
    GetManifest(HASH, 19),
    ManifestPart(b"part", 20),
    GetPage(HASH, 1, 2**32),
    SnapshotPart(b"page"),
]


@pytest.mark.parametrize("message", PEER_MESSAGES, ids=lambda m: type(m).__name__)
def test_peer_messages_survive_the_wire(message):
    assert from_frame(to_frame(message)[4:], Message) == message


@pytest.mark.parametrize("message", SYNC_MESSAGES, ids=lambda m: type(m).__name__)
def test_sync_messages_survive_the_wire(message):
    assert from_frame(to_frame(message)[4:], SyncMessage) == message


def test_the_protocols_do_not_mix():
    """A sync request on the peer port is malformed, and the reverse."""
    for message, type_ in ((GetBlocks(1, 1, 1), Message), (Consensus(b""), SyncMessage)):
        with pytest.raises(PeerError) as caught:
            from_frame(to_frame(message)[4:], type_)
        assert caught.value.reason == "malformed"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xc1",
        encode(["ping", 1, 2]),
        encode(["ping", -1]),
        b"\x92\xa4ping\xcc\x01",  # 1 in two bytes: not canonical
        encode(["status", 1, b"short", 0]),
        encode(["transactions", [b"x" * 65_537]]),
        encode(["transactions", [b"x"] * 10_001]),
        encode(["unknown", 1]),
    ],
)
def test_what_is_no_message_is_malformed(body):
    with pytest.raises(PeerError) as caught:
        from_frame(body, Message)
    assert caught.value.reason == "malformed"


@given(st.binary(max_size=200), st.sampled_from([Message, SyncMessage]))
def test_random_bytes_never_give_another_error(body, type_):
    try:
        message = from_frame(body, type_)
    except PeerError:
        return
    assert to_frame(message)[4:] == body


@given(st.sampled_from(SYNC_MESSAGES), st.data())
def test_a_damaged_message_is_refused_or_another_one(message, data):
    """Bytes changed, cut off or put in anywhere: nothing but a message or a refusal comes of it."""
    body = bytearray(to_frame(message)[4:])
    at = data.draw(st.integers(0, len(body) - 1))
    body[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    try:
        read = from_frame(bytes(body), SyncMessage)
    except PeerError:
        return
    assert to_frame(read)[4:] == body


@pytest.mark.parametrize(
    "body",
    [
        encode(["snapshots", [[1, HASH]] * 9]),
        encode(["snapshots", [[1, b"short"]]]),
        encode(["get-page", HASH, -1, 0]),
        encode(["get-page", HASH, 0, 2**32 + 1]),
        encode(["get-manifest", HASH + b"x"]),
        encode(["blocks", [], 1]),
    ],
)
def test_what_is_no_sync_message_is_malformed(body):
    with pytest.raises(PeerError):
        from_frame(body, SyncMessage)


@given(st.lists(st.binary(max_size=300), max_size=12), st.lists(st.integers(1, 700), min_size=1))
def test_a_stream_may_be_cut_anywhere(bodies, cuts):
    """Whatever pieces the network makes of it, the same bodies come out, in order."""
    stream = b"".join(struct.pack(">I", len(body)) + body for body in bodies)
    decoder = FrameDecoder(300)
    received = []
    position = turn = 0
    while position < len(stream):
        size = cuts[turn % len(cuts)]
        decoder.feed(stream[position : position + size])
        position, turn = position + size, turn + 1
        while (body := decoder.next()) is not None:
            received.append(body)
    assert received == bodies


def test_an_oversized_frame_is_refused_before_its_body_comes():
    decoder = FrameDecoder(10)
    decoder.feed(struct.pack(">I", 11))
    with pytest.raises(PeerError) as caught:
        decoder.next()
    assert caught.value.reason == "oversized"


def test_the_limit_of_the_next_frame_holds_for_bytes_already_there():
    """After the hello larger frames are allowed, also if they came in the same piece."""
    decoder = FrameDecoder(4)
    decoder.feed(struct.pack(">I", 4) + b"hell" + struct.pack(">I", 8) + b"00000000")
    assert decoder.next() == b"hell"
    decoder.limit = 8
    assert decoder.next() == b"00000000"
    assert decoder.next() is None


def test_frames_have_room_for_the_largest_block():
    assert frame_limit(65_536) == 4 * 2**20
    assert frame_limit(8 * 2**20) == 17 * 2**20
