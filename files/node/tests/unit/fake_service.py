# SPDX-License-Identifier: Apache-2.0
"""A node with a chain in memory and no network, to test the API and to look at the page."""

import math

import anyio

from holdfast_node.api.service import (
    AccountView,
    BlockRecord,
    EvidenceView,
    LatencySample,
    MembersView,
    MempoolView,
    NodeStatus,
    PeerView,
    Quantiles,
    TransactionStatus,
    ValidatorView,
    ValueRecord,
    Verdict,
)
from holdfast_node.api.views import block_summary
from holdfast_node.chain.block import Block, Certificate, CertifiedBlock, Header, VoteSignature
from holdfast_node.chain.crypto import PrivateKey, account_of, format_address
from holdfast_node.chain.merkle import merkle_root
from holdfast_node.chain.transaction import (
    Put,
    Transfer,
    decode_transaction,
    sign_transaction,
    transaction_id,
)
from holdfast_node.chain.validators import Validator, ValidatorSet
from holdfast_node.errors import RefusedError

ALICE = PrivateKey(bytes([1]) * 32)
BOB = PrivateKey(bytes([2]) * 32)
START_MS = 1_700_000_000_000
VALIDATORS = ValidatorSet(
    tuple(Validator(f"v{i}", PrivateKey(bytes([100 + i]) * 32).public_key) for i in range(1, 5))
)


def transfer(nonce: int, amount: int = 5) -> bytes:
    """An encoded transfer from Alice to Bob."""
    return sign_transaction(
        ALICE,
        chain_id="demo",
        nonce=nonce,
        expires_at_ms=START_MS + 60_000,
        actions=[Transfer(account_of(BOB.public_key), amount), Put("note", b"\xff\x00")],
    )


class FakeService:
    """Implements `Service`; `start_ms` is the time of genesis, blocks are 250 ms apart."""

    def __init__(self, height: int = 0, start_ms: int = START_MS) -> None:
        self.chain: list[CertifiedBlock] = []
        self.start_ms = start_ms
        self.ready = (True, None)
        self.away: set[str] = set()
        self.submitted: list[bytes] = []
        self.first = 1
        self.waiting = MempoolView(0, 0, 0.0)
        self._extended = anyio.Event()
        for _ in range(height):
            self.extend()

    def extend(self, raws: tuple[bytes, ...] | None = None, view: int = 2) -> None:
        height = len(self.chain) + 1
        raws = (transfer(height - 1),) if raws is None else raws
        header = Header(
            chain_id="demo",
            height=height,
            view=view,
            time_ms=self.start_ms + 250 * height,
            previous=self.chain[-1].block.hash if self.chain else bytes(32),
            transactions_root=merkle_root(raws),
            state_root=bytes([height % 256]) * 32,
            validators_hash=VALIDATORS.hash,
            next_validators_hash=VALIDATORS.hash,
        )
        block = Block(header, raws)
        votes = tuple(VoteSignature(i, bytes(64)) for i in (0, 1, 3))
        self.chain.append(CertifiedBlock(block, Certificate(height, view, block.hash, votes)))
        self._extended.set()
        self._extended = anyio.Event()

    def height(self) -> int:
        return len(self.chain)

    def first_height(self) -> int:
        return self.first

    def readiness(self):
        return self.ready

    def validator_set(self, height: int | None = None) -> ValidatorSet:
        return VALIDATORS

    def trail(self, height: int):
        return ()

    def members(self) -> MembersView:
        return MembersView(self.height(), [v.name for v in VALIDATORS], 3, [], None)

    def member_history(self):
        return []

    def validators(self):
        return [
            ValidatorView(i, v.name, v.public_key.hex(), i == 2, v.name not in self.away)
            for i, v in enumerate(VALIDATORS)
        ]

    def status(self) -> NodeStatus:
        head = self.chain[-1].block if self.chain else None
        height = self.height()
        peers = [self._peer(name, "validator", i) for i, name in enumerate(("v2", "v3", "v4"))]
        peers.append(self._peer("o1", "observer", 3))
        return NodeStatus(
            chain_id="demo",
            name="v1",
            role="validator",
            version="0.1.0",
            height=height,
            block_hash=(head.hash if head else bytes(32)).hex(),
            block_time_ms=head.header.time_ms if head else self.start_ms,
            state_root=bytes(32).hex(),
            view=2,
            leader="v3",
            ready=self.ready[0],
            reason=self.ready[1],
            peers=peers,
            validators=4,
            tolerated_faults=1,
            quorum=3,
            mempool=self.waiting,
            genesis_hash=(b"\x5e" * 32).hex(),
            uptime_s=7260.0,
            commit_latency_ms=Quantiles(14.2, 43.9) if head else Quantiles(),
        )

    def _peer(self, name: str, role: str, i: int) -> PeerView:
        if name in self.away:
            return PeerView(name, role, connected=False, last_error="connection refused")
        return PeerView(name, role, True, self.height(), 2, 0.4 + i / 3, 300.0)

    async def submit(self, raws) -> list[Verdict]:
        verdicts = []
        for raw in raws:
            try:
                decode_transaction(raw)
            except RefusedError as error:
                verdicts.append(Verdict(None, False, error.code, error.message))
                continue
            self.submitted.append(raw)
            verdicts.append(Verdict(transaction_id(raw).hex(), accepted=True))
        return verdicts

    def transaction(self, transaction_id_: bytes) -> TransactionStatus:
        for certified in self.chain:
            for i, raw in enumerate(certified.block.transactions):
                if transaction_id(raw) == transaction_id_:
                    header = certified.block.header
                    return TransactionStatus(
                        transaction_id_.hex(), "committed", header.height, i, None, header.time_ms
                    )
        return TransactionStatus(transaction_id_.hex(), "unknown")

    def block(self, reference: int | bytes) -> BlockRecord | None:
        for certified in self.chain[self.first - 1 :]:
            if reference in (certified.block.height, certified.block.hash):
                return BlockRecord(certified, {0: "insufficient_funds"} if reference == 2 else {})
        return None

    def blocks(self, first: int, limit: int):
        return [block_summary(b, VALIDATORS) for b in self.chain[first - 1 : first - 1 + limit]]

    def headers(self, first: int, last: int) -> list[Header]:
        return [certified.block.header for certified in self.chain[first - 1 : last]]

    def evidence(self) -> list[EvidenceView]:
        statements = [{"signed": "AA==", "signature": "AA=="}, {"signed": "AQ==", "signature": ""}]
        return [EvidenceView("v2", 1, "prepare", 3, 1, statements)]

    def account(self, account: bytes) -> AccountView:
        known = account == account_of(ALICE.public_key)
        balance, nonce = (2**63 - 1, 7) if known else (0, 0)
        return AccountView(format_address(account), balance, nonce, self.height())

    def value(self, account: bytes, key: str) -> ValueRecord:
        return ValueRecord(self.height(), {"greeting": b"hello", "a/b": b"\xff"}.get(key))

    async def reached(self, height: int) -> None:
        while self.height() < height:
            await self._extended.wait()

    def latency_series(self) -> list[LatencySample]:
        return [
            LatencySample(
                h, 12 + 4 * math.sin(h / 3) + (h * 7919 % 13) + (31 if h % 37 == 0 else 0), h % 5
            )
            for h in range(max(1, self.height() - 119), self.height() + 1)
        ]
