# SPDX-License-Identifier: GPL-3.0-or-later
"""Consensus among n of the package's own replicas in virtual time, to count what it sends.

Signatures, messages and their encoding are the real ones; computing and disks take no time. Each
node has one uplink, over which its messages leave one after the other, and each message then
travels for the same time. No message is lost, so no timer is needed, and none runs.
"""

from __future__ import annotations

import heapq
import itertools
import os
from dataclasses import dataclass, field
from statistics import median
from typing import Callable, Iterable, Sequence

from holdfast_node.chain.block import Block, Header
from holdfast_node.chain.codec import encode
from holdfast_node.chain.crypto import PrivateKey
from holdfast_node.chain.merkle import merkle_root
from holdfast_node.chain.validators import Validator, ValidatorSet
from holdfast_node.consensus import Commit, Effect, Message, Replica, Send, Timeouts
from holdfast_node.net.wire import Consensus

CHAIN_ID = "growth"
FRAME_BYTES = 4  # the length before each message


@dataclass(frozen=True)
class Virtual:
    """Per block: what all nodes sent together, and when it was final, from its proposal on."""

    validators: int
    messages: float
    bytes: float
    leader_bytes: float
    median_ms: float
    last_ms: float


@dataclass
class _World:
    delay_s: float
    bytes_per_s: float
    now: float = 0.0
    replicas: list[Replica] = field(default_factory=list)
    messages: int = 0
    sent: list[int] = field(default_factory=list)
    final: list[float] = field(default_factory=list)
    _free: list[float] = field(default_factory=list)
    _events: list[tuple[float, int, Callable[[], None]]] = field(default_factory=list)
    _order: itertools.count[int] = field(default_factory=itertools.count)

    def join(self, replica: Replica) -> None:
        self.replicas.append(replica)
        self.sent.append(0)
        self._free.append(0.0)

    def carry_out(self, sender: int, effects: Iterable[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, Send):
                self._broadcast(sender, effect.message)
            elif isinstance(effect, Commit):
                self.final.append(self.now)
                header = effect.certified.block.header
                advanced = self.replicas[sender].advance(header.height, header.view, self.now)
                self.carry_out(sender, advanced)

    def _broadcast(self, sender: int, message: Message) -> None:
        size = len(encode(Consensus(encode(message)))) + FRAME_BYTES
        for receiver in range(len(self.replicas)):
            if receiver != sender:
                self.messages += 1
                self.sent[sender] += size
                left = max(self.now, self._free[sender]) + size / self.bytes_per_s
                self._free[sender] = left
                self._deliver(left + self.delay_s, receiver, message)

    def _deliver(self, at: float, receiver: int, message: Message) -> None:
        def arrive() -> None:
            replica = self.replicas[receiver]
            self.carry_out(receiver, replica.receive(message, self.now))

        heapq.heappush(self._events, (at, next(self._order), arrive))

    def run(self) -> None:
        while self._events:
            self.now, _, arrive = heapq.heappop(self._events)
            arrive()


def run(
    validators: int,
    *,
    blocks: int,
    transactions: Sequence[bytes],
    delay_s: float,
    bytes_per_s: float,
) -> Virtual:
    """So many blocks, one after the other, each with the same encoded transactions."""
    keys = [PrivateKey(os.urandom(32)) for _ in range(validators)]
    members = ValidatorSet(
        tuple(Validator(f"v{i + 1}", key.public_key) for i, key in enumerate(keys))
    )
    world = _World(delay_s, bytes_per_s)
    for key in keys:
        world.join(
            Replica(
                chain_id=CHAIN_ID,
                validators_at=lambda _height: members,
                public_key=key.public_key,
                sign=key.sign,
                check_proposal=lambda _block: None,
                timeouts=Timeouts(view=1e6, view_max=1e6),
                height=1,
                view=0,
            )
        )
    leader, parent = members.leader(0), bytes(32)
    halves, ends = [], []
    for height in range(1, blocks + 1):
        header = Header(
            chain_id=CHAIN_ID,
            height=height,
            view=0,
            time_ms=height,
            previous=parent,
            transactions_root=merkle_root(tuple(transactions)),
            state_root=bytes(32),
            validators_hash=members.hash,
            next_validators_hash=members.hash,
        )
        began = world.now
        world.final.clear()
        proposal = world.replicas[leader].propose(Block(header, tuple(transactions)), world.now)
        world.carry_out(leader, proposal)
        world.run()
        assert len(world.final) == validators, f"block {height} is final on {len(world.final)}"
        halves.append(median(world.final) - began)
        ends.append(world.final[-1] - began)
        parent = header.hash
    return Virtual(
        validators,
        messages=world.messages / blocks,
        bytes=sum(world.sent) / blocks,
        leader_bytes=world.sent[leader] / blocks,
        median_ms=median(halves) * 1000,
        last_ms=median(ends) * 1000,
    )


def table(found: Sequence[Virtual], transactions: int, transaction_bytes: int) -> str:
    """For people."""
    lines = [
        f"simulated, blocks of {transactions} transactions of {transaction_bytes} bytes",
        "validators  messages  KiB sent  by the leader  final: half of them  the last",
    ]
    lines += [
        f"{v.validators:10}  {v.messages:8.0f}  {v.bytes / 1024:8.0f}  "
        f"{v.leader_bytes / 1024:9.0f} KiB  {v.median_ms:13.0f} ms  {v.last_ms:8.0f} ms"
        for v in found
    ]
    return "\n".join(lines)
