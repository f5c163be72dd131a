# SPDX-License-Identifier: Apache-2.0
"""Prometheus metrics of one node.

Two kinds: *events* (a block committed, a quorum reached) are told to `Metrics` by the method named
after them; *state* that a component keeps anyway (heights, peers, queues, its own counters) is read
once per scrape from the function given to `watch`, so that it cannot go stale or drift.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias

from prometheus_client import (
    CollectorRegistry,
    Counter,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

# One more series for each counter and histogram, that nobody plots.
disable_created_metrics()  # type: ignore[no-untyped-call]  # the library's gap

Step: TypeAlias = Literal["propose", "validate", "prepare", "commit", "persist"]
STEPS: Final[tuple[Step, ...]] = ("propose", "validate", "prepare", "commit", "persist")

# Seconds. Fine where a local network commits (1 to 100 ms), coarse up to the longest view timeout.
_LATENCY_BUCKETS: Final = (
    0.001, 0.0025, 0.005, 0.01, 0.015, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
)  # fmt: skip
_STEP_BUCKETS: Final = (0.0001, 0.00025, 0.0005, *_LATENCY_BUCKETS)
_BLOCK_SIZE_BUCKETS: Final = (0, 1, 10, 50, 100, 250, 500, 1_000, 2_500, 5_000)


@dataclass(frozen=True)
class Snapshot:
    """State of a node at a scrape.

    `missing_validators` counts validators (never this node) that are not connected or whose votes
    are absent from recent blocks, as consensus sees it. `certificate_begin` and `_expiry` are Unix
    seconds of the TLS certificate's validity, None without TLS; `crl_next_update` those when the
    first revocation list is out of date, None without one. `identity` tells serial number,
    roots and lists in use, `identity_refused` that those on disk are others. The other
    mappings are totals since the start, by reason, result or peer name.
    """

    height: int
    view: int
    ready: bool
    peers_connected: int
    peers_configured: int
    mempool_transactions: int
    mempool_bytes: int
    missing_validators: int
    certificate_begin: float | None = None
    certificate_expiry: float | None = None
    crl_next_update: float | None = None
    identity: Mapping[str, str] = field(default_factory=dict)
    identity_refused: bool = False
    identity_reloads: Mapping[str, int] = field(default_factory=dict)
    storage_bytes: int = 0
    first_height: int = 1
    snapshot_height: int = 0
    journal_bytes: int = 0
    buffered_bytes: int = 0
    validators: int = 0
    open_proposals: int = 0
    next_activation: int = 0
    sync_target_height: int = 0
    refused_connections: Mapping[str, int] = field(default_factory=dict)
    dropped_frames: Mapping[str, int] = field(default_factory=dict)
    peer_latency_s: Mapping[str, float] = field(default_factory=dict)


class Metrics:
    """All metrics of one node, in a registry of their own.

    The `verdict`, `kind`, `route` and `reason` labels come from fixed sets in this package, never
    from what a client or peer sent, so the number of series is bounded.
    """

    def __init__(self, *, version: str, chain_id: str, name: str, role: str) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        GCCollector(registry=self.registry)
        identity = {"version": version, "chain_id": chain_id, "name": name, "role": role}
        self._snapshots = _SnapshotCollector(identity)
        self.registry.register(self._snapshots)

        self._blocks = self._counter(
            "consensus_committed_blocks",
            "Blocks committed since the start, by how they came.",
            "by",
        )
        self._transactions = self._counter(
            "ledger_transactions", "Transactions in committed blocks, by result.", "result"
        )
        self._commit_latency = self._histogram(
            "consensus_commit_latency_seconds",
            "Seconds from a block's proposal reaching this node until the block was durable here.",
            _LATENCY_BUCKETS,
        )
        self._block_transactions = self._histogram(
            "consensus_block_transactions", "Transactions per committed block.", _BLOCK_SIZE_BUCKETS
        )
        self._steps = self._histogram(
            "consensus_step_seconds", "Seconds spent in a step of agreement.", _STEP_BUCKETS, "step"
        )
        self._quorum_delay = self._histogram(
            "consensus_quorum_delay_seconds",
            "Seconds from this node's own vote until a quorum of that kind of vote was there.",
            _LATENCY_BUCKETS,
            "kind",
        )
        self._view_changes = self._counter(
            "consensus_view_changes", "Views this node moved to because the one before failed."
        )
        self._misbehaviour = self._counter(
            "consensus_misbehaviour", "Provable misbehaviour of validators, by kind.", "kind"
        )
        self._submitted = self._counter(
            "transactions_submitted", "Transactions that clients submitted, by verdict.", "verdict"
        )
        self._requests = self._counter(
            "http_requests", "Requests answered, by route and status code.", "route", "status"
        )
        self._request_seconds = self._histogram(
            "http_request_seconds", "Seconds until a response was sent.", _STEP_BUCKETS, "route"
        )
        # Series that exist from the start, so that a first increase is visible as one.
        for by in ("consensus", "sync"):
            self._blocks.labels(by)
        for result in ("executed", "failed"):
            self._transactions.labels(result)
        for step in STEPS:
            self._steps.labels(step)
        for kind in ("prepare", "commit"):
            self._quorum_delay.labels(kind)
        self._submitted.labels("accepted")

    def watch(self, read: Callable[[], Snapshot]) -> None:
        """Have `read` called at every scrape (in the event loop's thread) for the node's state."""
        self._snapshots.read = read

    def block_committed(
        self, *, transactions: int, failed: int, latency_s: float | None, synced: bool = False
    ) -> None:
        """A block is durable. `latency_s` is None (not observed) for blocks that were fetched."""
        self._blocks.labels("sync" if synced else "consensus").inc()
        self._transactions.labels("executed").inc(transactions - failed)
        self._transactions.labels("failed").inc(failed)
        self._block_transactions.observe(transactions)
        if latency_s is not None:
            self._commit_latency.observe(latency_s)

    def step(self, step: Step, seconds: float) -> None:
        """A step of agreement took `seconds`."""
        self._steps.labels(step).observe(seconds)

    def quorum_reached(self, kind: Literal["prepare", "commit"], seconds: float) -> None:
        """A quorum was there `seconds` after this node's own vote of that kind."""
        self._quorum_delay.labels(kind).observe(seconds)

    def view_changed(self) -> None:
        """The node entered a view other than by committing a block."""
        self._view_changes.inc()

    def misbehaviour(self, kind: str) -> None:
        """A validator provably broke the protocol, for instance "equivocation"."""
        self._misbehaviour.labels(kind).inc()

    def transaction_submitted(self, verdict: str) -> None:
        """A client's transaction was "accepted", or refused with this code (the API tells)."""
        self._submitted.labels(verdict).inc()

    def request_answered(self, route: str, status: int, seconds: float) -> None:
        """The API answered a request; `route` is the pattern, not the path (the API tells)."""
        self._requests.labels(route, str(status)).inc()
        self._request_seconds.labels(route).observe(seconds)

    def render(self, accept: str = "") -> tuple[bytes, str]:
        """Body and content type for a scrape; OpenMetrics if `accept` (a header) asks for it."""
        encode, content_type = choose_encoder(accept)
        return encode(self.registry), content_type

    def _counter(self, name: str, help_: str, *labels: str) -> Counter:
        return Counter(name, help_, labels, registry=self.registry)

    def _histogram(
        self, name: str, help_: str, buckets: tuple[float, ...], *labels: str
    ) -> Histogram:
        return Histogram(name, help_, labels, buckets=buckets, registry=self.registry)


class _SnapshotCollector(Collector):
    """Turns the node's state at the moment of a scrape into metric families."""

    def __init__(self, identity: dict[str, str]) -> None:
        self._identity = identity
        self.read: Callable[[], Snapshot] | None = None

    def collect(self) -> Iterator[Metric]:
        yield InfoMetricFamily("holdfast_node", "What this node is.", value=self._identity)
        if self.read is None:
            return
        now = self.read()
        for name, help_, value in _gauges(now):
            yield GaugeMetricFamily(name, help_, value=value)
        if now.identity:
            yield InfoMetricFamily(
                "tls_identity",
                "Serial number of the TLS certificate, SHA-256 of roots and lists in use.",
                dict(now.identity),
            )
        for name, help_, instant in _instants(now):
            if instant is not None:
                yield GaugeMetricFamily(name, help_, value=instant)
        refused = CounterMetricFamily(
            "p2p_refused_connections", "Connections of peers refused, by reason.", labels=["reason"]
        )
        dropped = CounterMetricFamily(
            "p2p_dropped_frames", "Frames dropped from a peer's full send queue.", labels=["peer"]
        )
        latency = GaugeMetricFamily(
            "p2p_peer_latency_seconds",
            "Round-trip time of a peer's last heartbeat.",
            labels=["peer"],
        )
        reloads = CounterMetricFamily(
            "identity_reloads", "Times the TLS files were read again, by result.", labels=["result"]
        )
        for family, values in (
            (reloads, now.identity_reloads),
            (refused, now.refused_connections),
            (dropped, now.dropped_frames),
            (latency, now.peer_latency_s),
        ):
            for label, amount in sorted(values.items()):
                family.add_metric([label], amount)
            yield family


def _instants(now: Snapshot) -> list[tuple[str, str, float | None]]:
    return [
        (
            "certificate_not_before_timestamp_seconds",
            "Begin of validity of the TLS certificate in use, Unix seconds.",
            now.certificate_begin,
        ),
        (
            "certificate_expiry_timestamp_seconds",
            "End of validity of the TLS certificate in use, Unix seconds.",
            now.certificate_expiry,
        ),
        (
            "crl_next_update_timestamp_seconds",
            "When the first revocation list in use is out of date, Unix seconds.",
            now.crl_next_update,
        ),
    ]


def _gauges(now: Snapshot) -> list[tuple[str, str, float]]:
    return [
        ("consensus_height", "Height of the last committed block.", now.height),
        ("consensus_current_round", "View in which agreement stands now.", now.view),
        ("node_ready", "1 if the node is in step with the network, else 0.", now.ready),
        (
            "identity_files_refused",
            "1 if the TLS files on disk could not be used and older ones are, else 0.",
            now.identity_refused,
        ),
        ("peers_connected", "Members connected now.", now.peers_connected),
        ("peers_configured", "Members this node is to be connected to.", now.peers_configured),
        ("mempool_transactions", "Transactions waiting.", now.mempool_transactions),
        ("mempool_bytes", "Bytes of the transactions waiting.", now.mempool_bytes),
        (
            "consensus_missing_validators",
            "Validators without a connection or whose votes are absent from recent blocks.",
            now.missing_validators,
        ),
        ("consensus_validators", "Validators that vote at the next height.", now.validators),
        (
            "membership_open_proposals",
            "Changes of the validators that wait for approvals.",
            now.open_proposals,
        ),
        (
            "membership_next_activation_height",
            "Height from which a change of the validators takes effect; 0 if none is agreed on.",
            now.next_activation,
        ),
        ("storage_bytes", "Bytes of the block store on disk.", now.storage_bytes),
        ("storage_first_height", "Height of the lowest block here.", now.first_height),
        (
            "storage_snapshot_height",
            "Height of the newest snapshot kept for peers; 0 if there is none.",
            now.snapshot_height,
        ),
        ("journal_bytes", "Bytes of the vote journal on disk.", now.journal_bytes),
        (
            "consensus_buffered_bytes",
            "Memory that consensus keeps because of what other validators sent, bytes.",
            now.buffered_bytes,
        ),
        ("sync_target_height", "Highest height that a peer announced.", now.sync_target_height),
    ]
