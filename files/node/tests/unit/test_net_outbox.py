# SPDX-License-Identifier: Apache-2.0
"""What waits for a slow peer is bounded, and sent in few large writes."""

import pytest

from holdfast_node.net.outbox import Outbox


@pytest.fixture
def anyio_backend():
    return "asyncio"


@pytest.mark.anyio
async def test_small_frames_leave_in_one_write():
    outbox = Outbox(10_000)
    for i in range(5):
        outbox.put(b"%d" % i, bulk=False)
    assert await outbox.batch() == b"01234"
    assert outbox.queued_bytes == 0


@pytest.mark.anyio
async def test_bulk_is_sent_last():
    """Transactions do not delay votes."""
    outbox = Outbox(10_000)
    outbox.put(b"t1", bulk=True)
    outbox.put(b"vote", bulk=False)
    outbox.put(b"t2", bulk=True)
    assert await outbox.batch() == b"votet1t2"


@pytest.mark.anyio
async def test_a_batch_is_no_larger_than_it_must_be():
    outbox = Outbox(10**7)
    for _ in range(5):
        outbox.put(bytes(100_000), bulk=False)
    assert len(await outbox.batch()) == 200_000
    assert len(await outbox.batch()) == 200_000
    assert len(await outbox.batch()) == 100_000


@pytest.mark.anyio
async def test_overflow_drops_the_oldest_bulk_first():
    outbox = Outbox(4 * (100 + 64))
    outbox.put(b"v" * 100, bulk=False)
    for letter in b"abcdef":
        outbox.put(bytes([letter]) * 100, bulk=True)
    assert outbox.dropped == 3
    assert outbox.queued_bytes <= 4 * (100 + 64)
    assert await outbox.batch() == b"v" * 100 + b"d" * 100 + b"e" * 100 + b"f" * 100


@pytest.mark.anyio
async def test_overflow_without_bulk_drops_the_oldest():
    """Even votes must not fill the memory for a peer that does not read."""
    outbox = Outbox(2 * (100 + 64))
    for letter in b"abc":
        outbox.put(bytes([letter]) * 100, bulk=False)
    assert outbox.dropped == 1
    assert await outbox.batch() == b"b" * 100 + b"c" * 100


def test_tiny_frames_are_bounded_too():
    outbox = Outbox(64_000)
    for _ in range(10_000):
        outbox.put(b"x", bulk=False)
    assert outbox.dropped > 9_000
