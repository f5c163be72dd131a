# SPDX-License-Identifier: Apache-2.0
"""What the HTTP layer needs from a node, and the values it answers with.

The field names of the structs are the field names in JSON. Hashes, identifiers and public keys are
lower-case hexadecimal; amounts and balances are integers in smallest units (up to 2^63 - 1, so a
JavaScript client needs a parser that keeps large integers).
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple, Protocol, TypeAlias

import msgspec

from holdfast_node.chain.block import CertifiedBlock, Header
from holdfast_node.chain.trail import TrailStep
from holdfast_node.chain.validators import ValidatorSet

Role: TypeAlias = Literal["validator", "observer"]
Progress: TypeAlias = Literal["pending", "committed", "failed", "rejected", "unknown"]


class PeerView(msgspec.Struct, frozen=True):
    """Another member, as this node sees it.

    `height` and `view` are what the peer announced last, `latency_ms` is the round-trip time of
    the last heartbeat, `connected_s` how long the present connection lasts; None if not known.
    """

    name: str
    role: Role
    connected: bool
    height: int | None = None
    view: int | None = None
    latency_ms: float | None = None
    connected_s: float | None = None
    last_error: str | None = None


class MempoolView(msgspec.Struct, frozen=True):
    """Transactions that wait; `oldest_age_s` is 0 if none does."""

    transactions: int
    bytes: int
    oldest_age_s: float = 0.0


class Quantiles(msgspec.Struct, frozen=True):
    """Milliseconds over the recent blocks; None before there were any."""

    p50: float | None = None
    p99: float | None = None


class NodeStatus(msgspec.Struct, frozen=True):
    """The node and the network as it sees it. `first_height` is the lowest block it has, or will.

    `block_hash` is the genesis hash at height 0, and `block_time_ms` (Unix milliseconds) the time
    of genesis. `leader` is the validator that proposes in `view`. `reason` says why the node is not
    ready, and is None if it is.
    """

    chain_id: str
    name: str
    role: Role
    version: str
    height: int
    block_hash: str
    block_time_ms: int
    state_root: str
    view: int
    leader: str
    ready: bool
    reason: str | None
    peers: list[PeerView]
    validators: int
    tolerated_faults: int
    quorum: int
    mempool: MempoolView
    genesis_hash: str
    uptime_s: float
    commit_latency_ms: Quantiles
    first_height: int = 1


class ValidatorView(msgspec.Struct, frozen=True):
    """A voting member. `connected` is true for the node that answers."""

    index: int
    name: str
    public_key: str
    leader: bool
    connected: bool


class Verdict(msgspec.Struct, frozen=True):
    """What became of one submitted transaction.

    `id` is None if the bytes could not even be read; `code` and `reason` are None if it was
    accepted.
    """

    id: str | None
    accepted: bool
    code: str | None = None
    reason: str | None = None


class TransactionStatus(msgspec.Struct, frozen=True):
    """How far a transaction has come.

    "failed" is committed without effect (`reason` says why), "rejected" was refused by this node a
    short while ago, "unknown" was never seen here or has been forgotten (`reason` says if a block
    that this node does not have may hold it). `height`, `index` and
    `committed_at_ms` (the block's time) belong to "committed" and "failed".
    """

    id: str
    status: Progress
    height: int | None = None
    index: int | None = None
    reason: str | None = None
    committed_at_ms: int | None = None


class BlockSummary(msgspec.Struct, frozen=True):
    """A block in a list. `transactions` counts them; `proposer` first proposed it, in `view`."""

    height: int
    hash: str
    time_ms: int
    view: int
    proposer: str
    transactions: int


class AccountView(msgspec.Struct, frozen=True):
    """As of block `height`. An account that never received anything has balance and nonce 0."""

    address: str
    balance: int
    nonce: int
    height: int


class LatencySample(msgspec.Struct, frozen=True):
    """Commit latency of one block: from its proposal reaching this node until it was durable."""

    height: int
    latency_ms: float
    transactions: int


class EvidenceView(msgspec.Struct, frozen=True):
    """Proof that a validator contradicted itself: two statements of one `kind`, both signed by it.

    `index` is the one that it had at `height`. Statements are the signed bytes and signatures in
    Base64, so that anybody can check them.
    """

    validator: str
    index: int
    kind: str
    height: int
    view: int
    statements: list[dict[str, str]]


class CandidateView(msgspec.Struct, frozen=True):
    """Who is proposed to join, as this node sees it; `reason` says why it is not in step."""

    connected: bool
    height: int | None
    in_step: bool
    reason: str | None


class ProposalView(msgspec.Struct, frozen=True):
    """A change of the validators that can be approved up to block `until`.

    `missing` approvals are needed still; `proved` says what evidence it rests on.
    """

    number: int
    kind: Literal["join", "leave"]
    name: str
    change: dict[str, Any]
    proved: str | None
    proposed_at: int
    until: int
    approved_by: list[str]
    missing: int
    candidate: CandidateView | None


class ChangeView(msgspec.Struct, frozen=True):
    """A change that was agreed on in block `agreed_at`; `validators` vote from `activation` on."""

    activation: int
    number: int
    kind: Literal["join", "leave"]
    name: str
    change: dict[str, Any]
    proved: str | None
    agreed_at: int
    approved_by: list[str]
    validators: list[str]


class MembersView(msgspec.Struct, frozen=True):
    """The validators after block `height`, and what is proposed about them."""

    height: int
    validators: list[str]
    quorum: int
    proposals: list[ProposalView]
    next_change: ChangeView | None


class BlockRecord(NamedTuple):
    """A committed block and, by index, why transactions in it failed (empty if none did)."""

    certified: CertifiedBlock
    failures: Mapping[int, str]


class ValueRecord(NamedTuple):
    """What was stored as of block `height`; None if nothing."""

    height: int
    value: bytes | None


class Service(Protocol):
    """A node, as its API sees it.

    Every method but `submit` and `reached` is synchronous, quick (no more than a few reads of the
    store) and called from the event loop's thread. Inputs are checked by the caller: identifiers
    and hashes have 32 bytes, accounts 20, heights and limits are in range.
    """

    def status(self) -> NodeStatus:
        """The status at this moment."""

    def readiness(self) -> tuple[bool, str | None]:
        """Whether the node is in step with the network; if not, why."""

    def height(self) -> int:
        """Height of the last committed block; 0 is genesis, which is not a block."""

    def first_height(self) -> int:
        """Height of the lowest block that is here: above 1 if the node began with a snapshot."""

    def validator_set(self, height: int | None = None) -> ValidatorSet:
        """The validators of a height that is here, or those that vote now."""

    def trail(self, height: int) -> tuple[TrailStep, ...]:
        """What proves, from the genesis, who the validators of a committed height are."""

    def validators(self) -> list[ValidatorView]:
        """The same, with what this node sees of them, by index."""

    async def submit(self, raws: Sequence[bytes]) -> list[Verdict]:
        """Check and admit encoded transactions; one verdict for each, in order.

        Never raises because of what a client sent.
        """

    def transaction(self, transaction_id: bytes) -> TransactionStatus:
        """How far the transaction has come; "unknown" rather than an error."""

    def block(self, reference: int | bytes) -> BlockRecord | None:
        """The committed block of a height (from 1) or a block hash."""

    def blocks(self, first: int, limit: int) -> list[BlockSummary]:
        """Up to `limit` committed blocks, ascending from height `first`."""

    def headers(self, first: int, last: int) -> list[Header]:
        """The headers of the committed blocks from height `first` to `last`, as far as they are."""

    def members(self) -> MembersView:
        """Who votes, what is proposed, and which change is to come."""

    def member_history(self) -> list[ChangeView]:
        """The latest changes of the validators, oldest first; some hundreds at most."""

    def evidence(self) -> list[EvidenceView]:
        """What is held against validators, oldest first; some hundreds at most."""

    async def reached(self, height: int) -> None:
        """Return when the last committed block is at `height` or above, however long that takes."""

    def account(self, account: bytes) -> AccountView:
        """Balance and next nonce as of the last committed block."""

    def value(self, account: bytes, key: str) -> ValueRecord:
        """What the account has put under `key`, as of the last committed block."""

    def latency_series(self) -> list[LatencySample]:
        """Recent commit latencies, ascending by height; a few hundred at most."""
