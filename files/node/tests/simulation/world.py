# SPDX-License-Identifier: Apache-2.0
"""A network of replicas in virtual time: one seed, one heap of events, one run.

Delay, loss, duplication, reordering, partitions, crashes between any two effects, restarts from
what was persisted, and equivocating leaders. Invariants are checked after every event.
"""

import heapq
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

from holdfast_node.chain.block import Block, CertifiedBlock, Header, vote_bytes
from holdfast_node.chain.codec import decode, encode
from holdfast_node.chain.crypto import ZERO_HASH, PrivateKey
from holdfast_node.chain.merkle import merkle_root
from holdfast_node.chain.validators import Validator, ValidatorSet
from holdfast_node.consensus import (
    Commit,
    Effect,
    Evidence,
    Message,
    Persist,
    Record,
    Replica,
    Send,
    Timeouts,
)
from holdfast_node.consensus.messages import Locked, PrePrepare, Proposed, Vote, Voted
from holdfast_node.errors import RefusedError

CHAIN_ID = "sim"


@dataclass
class Faults:
    """What goes wrong, as chances per message or rates per second of virtual time."""

    loss: float = 0.0
    duplication: float = 0.0
    delay: float = 0.02
    crash_rate: float = 0.0
    partition_rate: float = 0.0
    sync: float = 0.1  # seconds between attempts at block sync
    equivocators: frozenset[int] = frozenset()


@dataclass
class SimNode:
    """What survives a crash: the chain and the journal; the replica does not."""

    index: int
    chain: list[CertifiedBlock] = field(default_factory=list)
    journal: list[Record] = field(default_factory=list)
    replica: Replica | None = None
    generation: int = 0


class World:
    def __init__(self, seed: int, n: int, faults: Faults) -> None:
        self.random = Random(seed)
        self.faults = faults
        self.now = 0.0
        self.trace: list[str] = []
        self.evidence: list[Evidence] = []
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._sequence = 0
        self._keys = [PrivateKey(bytes([i + 1]) * 32) for i in range(n)]
        self.validators = ValidatorSet(
            tuple(Validator(f"v{i}", key.public_key) for i, key in enumerate(self._keys))
        )
        self.nodes = [SimNode(i) for i in range(n)]
        self.isolated: frozenset[int] = frozenset()
        self._votes_sent: dict[tuple[int, str, int, int], bytes] = {}
        for node in self.nodes:
            self.start(node)
        self._every(faults.sync, self._gossip)
        self._every(0.3, self._work)
        self._every(0.5, self._misfortune)

    # Virtual time.

    def after(self, seconds: float, action: Callable[[], None]) -> None:
        self._sequence += 1
        heapq.heappush(self._events, (self.now + seconds, self._sequence, action))

    def _every(self, seconds: float, action: Callable[[], None]) -> None:
        def again() -> None:
            action()
            self.after(seconds, again)

        self.after(seconds, again)

    def run(self, until: float) -> None:
        while self._events and self._events[0][0] <= until:
            self.now, _, action = heapq.heappop(self._events)
            action()
            self.check_agreement()
        self.now = until

    # Nodes.

    def start(self, node: SimNode) -> None:
        head = node.chain[-1].block.header if node.chain else None
        node.replica = Replica(
            chain_id=CHAIN_ID,
            validators=self.validators,
            index=node.index,
            sign=self._keys[node.index].sign,
            check_proposal=lambda block: self._check_proposal(node, block),
            timeouts=Timeouts(view=1.0, view_max=8.0, resend=0.3),
            height=len(node.chain) + 1,
            view=head.view if head else 0,
            records=[decode(encode(record), Record) for record in node.journal],
        )
        node.generation += 1
        self.carry_out(node, node.replica.repeat())

    def crash(self, node: SimNode) -> None:
        self.trace.append(f"{self.now:.3f} v{node.index} crashes at {len(node.chain)}")
        node.replica = None
        node.generation += 1

    def _check_proposal(self, node: SimNode, block: Block) -> None:
        if block.header.previous != self._head(node) or not block.has_valid_transactions_root():
            raise RefusedError("bad_block", "does not extend this chain")

    def _head(self, node: SimNode) -> bytes:
        return node.chain[-1].block.hash if node.chain else ZERO_HASH

    def _block(self, node: SimNode, salt: bytes) -> Block:
        transactions = (b"%d-%d" % (node.index, self._sequence), salt)
        header = Header(
            CHAIN_ID,
            len(node.chain) + 1,
            node.replica.view if node.replica else 0,
            int(self.now * 1000),
            self._head(node),
            merkle_root(transactions),
            ZERO_HASH,
            self.validators.hash,
        )
        return Block(header, transactions)

    def carry_out(self, node: SimNode, effects: list[Effect]) -> None:
        for effect in effects:
            if node.replica is None:
                return
            if self.faults.crash_rate and self.random.random() < self.faults.crash_rate:
                self.crash(node)  # between two effects: the earlier ones happened, this one did not
                return
            match effect:
                case Persist():
                    node.journal.append(effect.record)
                case Send():
                    self._note_vote(node, effect.message)
                    self._send(node, effect.message)
                case Commit():
                    self._commit(node, effect.certified)
                case Evidence():
                    self.evidence.append(effect)
                case _:
                    pass
        self._wake(node)

    def _commit(self, node: SimNode, certified: CertifiedBlock) -> None:
        certified.check(CHAIN_ID, self.validators)
        if certified.block.height != len(node.chain) + 1 or node.replica is None:
            return
        node.chain.append(certified)
        node.journal = [r for r in node.journal if r.height > certified.block.height]
        header = certified.block.header
        self.carry_out(node, node.replica.advance(header.height, header.view, self.now))

    def _wake(self, node: SimNode) -> None:
        if node.replica is None or (at := node.replica.next_timer()) is None:
            return
        generation = node.generation

        def fire() -> None:
            due = node.replica.next_timer() if node.replica else None
            if node.generation == generation and node.replica and due and due <= self.now:
                self.carry_out(node, node.replica.timeout(self.now))

        self.after(max(0.0, at - self.now), fire)

    # The network.

    def _reachable(self, a: int, b: int) -> bool:
        return (a in self.isolated) == (b in self.isolated)

    def _send(self, sender: SimNode, message: Message) -> None:
        for node in self.nodes:
            if node is not sender:
                self._deliver(sender.index, node, self._twisted(sender, node, message))

    def _twisted(self, sender: SimNode, to: SimNode, message: Message) -> Message:
        """An equivocating leader tells half of the network another block; voters another vote."""
        if sender.index not in self.faults.equivocators or to.index % 2 == 0:
            return message
        key = self._keys[sender.index]
        if isinstance(message, PrePrepare):
            other = self._block(sender, b"other")
            signed = vote_bytes("pre-prepare", CHAIN_ID, other.height, message.view, other.hash)
            return PrePrepare(message.view, other, sender.index, key.sign(signed))
        if isinstance(message, Vote):
            known = sorted(
                {
                    v
                    for (_, _, h, w), v in self._votes_sent.items()
                    if h == message.height and w == message.view
                }
            )
            block_hash = self.random.choice(known or [message.block_hash])
            signed = vote_bytes(message.kind, CHAIN_ID, message.height, message.view, block_hash)
            return Vote(
                message.kind,
                message.height,
                message.view,
                block_hash,
                sender.index,
                key.sign(signed),
            )
        return message

    def _deliver(self, sender: int, node: SimNode, message: Message) -> None:
        copies = 2 if self.random.random() < self.faults.duplication else 1
        for _ in range(copies):
            if self.random.random() < self.faults.loss or not self._reachable(sender, node.index):
                continue

            def arrive() -> None:
                if node.replica is not None:
                    wire = decode(encode(message), Message)
                    self.carry_out(node, node.replica.receive(wire, self.now))

            self.after(self.random.expovariate(1 / self.faults.delay), arrive)

    # What happens at intervals.

    def _gossip(self) -> None:
        """Block sync: a node that is behind takes the blocks it misses from a reachable peer."""
        for node in self.nodes:
            ahead = [
                peer
                for peer in self.nodes
                if peer.replica
                and self._reachable(node.index, peer.index)
                and len(peer.chain) > len(node.chain)
            ]
            if node.replica is None or not ahead:
                continue
            for certified in self.random.choice(ahead).chain[len(node.chain) :]:
                self._commit(node, certified)

    def _work(self) -> None:
        for node in self.nodes:
            if node.replica is None:
                continue
            node.replica.expect(self.now)
            if node.replica.wants_proposal:
                self.carry_out(node, node.replica.propose(self._block(node, b""), self.now))
            else:
                self._wake(node)

    def _misfortune(self) -> None:
        for node in self.nodes:
            if node.replica is None and self.random.random() < 0.3:
                self.start(node)
        if self.faults.partition_rate:
            if self.isolated and self.random.random() < 0.3:
                self.isolated = frozenset()
            elif self.random.random() < self.faults.partition_rate:
                size = self.random.randint(1, len(self.nodes) // 2)
                self.isolated = frozenset(self.random.sample(range(len(self.nodes)), size))

    # Invariants.

    def _note_vote(self, node: SimNode, message: Message) -> None:
        """No honest validator contradicts itself or its journal, whatever killed it in between."""
        match message:
            case PrePrepare():
                step, view, block_hash = "pre-prepare", message.view, message.block.hash
                written = any(
                    isinstance(r, Proposed) and r.block.hash == block_hash for r in node.journal
                )
            case Vote():
                step, view, block_hash = message.kind, message.view, message.block_hash
                written = any(
                    (step == "prepare" and isinstance(r, Voted) and r.block_hash == block_hash)
                    or (isinstance(r, Locked) and r.proof.block_hash == block_hash)
                    for r in node.journal
                )
            case _:
                return
        if node.index in self.faults.equivocators:
            self._votes_sent.setdefault((node.index, step, message.height, view), block_hash)
            return
        assert written, f"v{node.index} sent a {step} before it was in the journal"
        first = self._votes_sent.setdefault((node.index, step, message.height, view), block_hash)
        assert first == block_hash, f"v{node.index} voted twice: {step} at {message.height}/{view}"

    def check_agreement(self) -> None:
        """No two blocks are final at one height."""
        longest = max(self.nodes, key=lambda node: len(node.chain)).chain
        for node in self.nodes:
            if node.chain:
                height = len(node.chain)
                mine, theirs = node.chain[-1].block.hash, longest[height - 1].block.hash
                assert mine == theirs, f"two final blocks at height {height}"

    def heal(self, dead: frozenset[int] = frozenset()) -> None:
        """End all faults but permanent crashes of `dead`."""
        self.isolated = frozenset()
        self.faults = Faults(equivocators=self.faults.equivocators)
        for node in self.nodes:
            if node.index in dead:
                node.replica = None
            elif node.replica is None:
                self.start(node)
        self._misfortune_off(dead)

    def _misfortune_off(self, dead: frozenset[int]) -> None:
        def keep_dead() -> None:
            for index in dead:
                self.nodes[index].replica = None

        self._every(0.01, keep_dead)
