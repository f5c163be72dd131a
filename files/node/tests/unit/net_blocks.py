# SPDX-License-Identifier: Apache-2.0
"""Certified blocks, and a peer that serves them, for the tests of block sync."""

from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cache

import anyio
from net_support import CHAIN, FAST, GENESIS, peer, settings

from holdfast_node.chain.block import (
    Block,
    Certificate,
    CertifiedBlock,
    Header,
    VoteSignature,
    vote_bytes,
)
from holdfast_node.chain.codec import encode
from holdfast_node.chain.crypto import PrivateKey
from holdfast_node.chain.merkle import merkle_root
from holdfast_node.chain.validators import Validator, ValidatorSet
from holdfast_node.net.sync import SyncServer

KEYS = [PrivateKey(bytes([i]) * 32) for i in range(1, 5)]
VALIDATORS = ValidatorSet(tuple(Validator(f"v{i}", k.public_key) for i, k in enumerate(KEYS, 1)))


def certify(block, keys=KEYS[:3]):
    message = vote_bytes("commit", CHAIN, block.height, 0, block.hash)
    votes = tuple(VoteSignature(i, key.sign(message)) for i, key in enumerate(keys))
    return CertifiedBlock(block, Certificate(block.height, 0, block.hash, votes))


@cache
def chain(length, size=100):
    """`length` certified blocks with one entry of `size` bytes each."""
    blocks = []
    previous = GENESIS
    for height in range(1, length + 1):
        transactions = (height.to_bytes(4, "big") * (size // 4),)
        header = Header(
            CHAIN,
            height,
            0,
            height,
            previous,
            merkle_root(transactions),
            b"\0" * 32,
            VALIDATORS.hash,
            VALIDATORS.hash,
        )
        blocks.append(certify(Block(header, transactions)))
        previous = header.hash
    return blocks


@dataclass
class Server:
    """A peer's store, as the server sees it, and what it was asked."""

    blocks: list
    port: int = 0
    claimed: int = 0

    def __post_init__(self):
        self.asked = []

    def height(self):
        return self.claimed or len(self.blocks)

    def read(self, start, limit, max_bytes):
        self.asked.append((start, limit, max_bytes))
        page = []
        size = 0
        for certified in self.blocks[start - 1 : start - 1 + limit]:
            encoded = certified if isinstance(certified, bytes) else encode(certified)
            size += len(encoded)
            if page and size > max_bytes:
                break
            page.append(encoded)
        return page


@asynccontextmanager
async def serving(pki, name, blocks, *, timing=FAST, members=("v1",), tls=None):
    server = Server(list(blocks))
    mine = settings(pki, name, *(peer(m) for m in members), timing=timing, tls=tls)
    refused = server.refused = []
    sync = SyncServer(mine, blocks=server.read, height=server.height, on_refused=refused.append)
    async with anyio.create_task_group() as tasks:
        server.port = await tasks.start(sync.run)
        yield server
        tasks.cancel_scope.cancel()
