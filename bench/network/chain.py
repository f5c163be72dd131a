# SPDX-License-Identifier: GPL-3.0-or-later
"""The chain under load: four validators on loopback, funded clients with transfers signed ahead."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from base64 import b64encode
from collections import deque
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Iterator, Sequence

from connection import BenchError, Connection
from holdfast_node.chain.crypto import PrivateKey, account_of, format_address
from holdfast_node.chain.transaction import MAX_ACTIONS, Transfer, sign_transaction
from holdfast_node.client import Client as NodeClient
from holdfast_node.devnet import Devnet, check_ports
from holdfast_node.devnet_files import CHAIN_ID, FUNDS, Layout, claim, prepare
from holdfast_node.keys import load_key

VALIDATORS = 4
_LIFETIME_MS = 3_600_000
_RPC_CALLS = 100  # of one JSON-RPC batch
_PAYEES = 1_000


@contextmanager
def running(folder: Path, base_port: int) -> Iterator[Devnet]:
    """Four validators of a new chain in `folder`; the caller waits until they are ready."""
    check_ports(VALIDATORS, base_port)
    claimed = claim(folder)
    try:
        devnet = Devnet(prepare(folder, VALIDATORS, base_port), threading.Event())
        try:
            devnet.start()
            yield devnet
        finally:
            for name in devnet.end():
                print(f"    {name} had to be killed")
    finally:
        os.close(claimed)


@dataclass(frozen=True)
class Batch:
    """A rendered request that submits the transactions with nonces from `first` to `end` - 1."""

    request: bytes
    first: int
    end: int

    def __len__(self) -> int:
        return self.end - self.first


@dataclass
class Payer:
    """A client with an account of its own, who talks to one validator.

    Nonces below `seen` are committed as far as this client knows. `due` holds, for each batch not
    fully seen yet, the nonce after its last and when its submission was due (loop time, seconds).
    `sightings` are (when, how many, how long after due in seconds).
    """

    key: PrivateKey
    connection: Connection
    ready: deque[Batch] = field(default_factory=deque)
    signed: int = 0
    submitted: int = 0
    seen: int = 0
    due: deque[tuple[int, float]] = field(default_factory=deque)
    sightings: list[tuple[float, int, float]] = field(default_factory=list)
    progress: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def address(self) -> str:
        return format_address(account_of(self.key.public_key))

    async def submit(self, due: float) -> None:
        """Hand in the next batch, whose submission was due at `due`."""
        batch = self.ready.popleft()
        self.due.append((batch.end, due))
        self.submitted = batch.end
        status, answer = await self.connection.exchange(batch.request)
        if status != 202:
            refused = [r for r in answer.get("results", [answer]) if not r.get("accepted")]
            raise BenchError(
                f"{self.connection.url}: {len(refused)} of {len(batch)} transactions refused, "
                f"the first: {refused[0]}; a smaller --window or --batch asks for less"
            )

    def observe(self, nonce: int, now: float) -> None:
        """The account's next nonce is `nonce`: all before it are committed."""
        while self.seen < nonce:
            end, due = self.due[0]
            upto = min(end, nonce)
            self.sightings.append((now, upto - self.seen, now - due))
            self.seen = upto
            if upto == end:
                self.due.popleft()
        self.progress.set()


def fund(layout: Layout, clients: int) -> list[Payer]:
    """New accounts, each with its share of all the money, spread over the validators."""
    urls = [member.url for member in layout.members]
    payers = [
        Payer(PrivateKey(os.urandom(32)), Connection(urls[i % len(urls)])) for i in range(clients)
    ]
    bank, client = load_key(layout.funded), NodeClient(urls[0])
    for start in range(0, clients, MAX_ACTIONS):
        shares = [
            Transfer(account_of(payer.key.public_key), FUNDS // clients)
            for payer in payers[start : start + MAX_ACTIONS]
        ]
        outcome = client.execute(bank, shares, wait_s=30.0)
        if outcome.status != "committed":
            raise BenchError(f"funding the clients {outcome.status}: {outcome.reason}")
    return payers


def payees() -> list[bytes]:
    """Accounts to send to, so that a block touches many of them."""
    return [os.urandom(20) for _ in range(_PAYEES)]


def sign(payers: Sequence[Payer], to: Sequence[bytes], each: int, size: int) -> int:
    """Give every payer at least `each` signed transfers of 1, in batches of `size`.

    Returns the bytes of one encoded transaction.
    """
    expires_at_ms = time.time_ns() // 1_000_000 + _LIFETIME_MS
    length = 0
    for number, payer in enumerate(payers):
        while sum(map(len, payer.ready)) < each:
            raws = [
                sign_transaction(
                    payer.key,
                    chain_id=CHAIN_ID,
                    nonce=nonce,
                    expires_at_ms=expires_at_ms,
                    actions=[Transfer(to[(nonce * len(payers) + number) % len(to)], 1)],
                )
                for nonce in range(payer.signed, payer.signed + size)
            ]
            length = len(raws[0])
            content = {"transactions": [b64encode(raw).decode() for raw in raws]}
            request = payer.connection.render("POST", "/v1/transactions", content)
            payer.ready.append(Batch(request, payer.signed, payer.signed + size))
            payer.signed += size
    return length


async def audit(devnet: Devnet, to: Sequence[bytes], transfers: int) -> int:
    """Compare all validators; returns the height at which they have the same block.

    Raises `BenchError` unless each has `transfers` more with the payees, and the same last block.
    """
    heights = await asyncio.to_thread(devnet.heights)
    height = max(own for own in heights.values() if own is not None)
    hashes, sums = {}, {}
    for member in devnet.layout.members:
        connection = Connection(member.url)
        path = f"/v1/blocks?from={height}&limit=1"
        while not (blocks := (await connection.fetch(connection.render("GET", path)))["blocks"]):
            await asyncio.sleep(0.05)
        hashes[member.name] = blocks[0]["hash"]
        accounts = await read_accounts(connection, [format_address(account) for account in to])
        sums[member.name] = sum(account["balance"] for account in accounts)
        connection.close()
    if len(set(hashes.values())) != 1:
        raise BenchError(f"the blocks at height {height} differ: {hashes}")
    if set(sums.values()) != {transfers}:
        raise BenchError(f"the payees have {sums}: expected {transfers}, as seen committed")
    return height


async def read_accounts(connection: Connection, addresses: Sequence[str]) -> list[dict[str, int]]:
    found = []
    for start in range(0, len(addresses), _RPC_CALLS):
        request = accounts_request(connection, addresses[start : start + _RPC_CALLS])
        found += [answer["result"] for answer in await connection.fetch(request)]
    return found


def accounts_request(connection: Connection, addresses: Sequence[str]) -> bytes:
    """One JSON-RPC batch that asks for up to 100 accounts."""
    calls = [
        {"jsonrpc": "2.0", "id": i, "method": "account", "params": [address]}
        for i, address in enumerate(addresses)
    ]
    return connection.render("POST", "/rpc", calls)


async def blocks_since(url: str, height: int) -> list[dict[str, int]]:
    """Summaries of the blocks above `height`."""
    connection = Connection(url)
    found: list[dict[str, int]] = []
    while True:
        path = f"/v1/blocks?from={height + len(found) + 1}&limit=100"
        page = (await connection.fetch(connection.render("GET", path)))["blocks"]
        if not page:
            connection.close()
            return found
        found += page
