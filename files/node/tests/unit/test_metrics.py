# SPDX-License-Identifier: Apache-2.0
"""Metrics: names that dashboards rely on, values as told, state as it is at the scrape."""

from dataclasses import replace

import pytest
from prometheus_client.parser import text_string_to_metric_families

from holdfast_node.observe.metrics import STEPS, Metrics, Snapshot

STATE = Snapshot(
    height=7,
    view=2,
    ready=True,
    peers_connected=3,
    peers_configured=4,
    mempool_transactions=5,
    mempool_bytes=900,
    missing_validators=1,
    certificate_begin=1.7e9,
    certificate_expiry=1.8e9,
    crl_next_update=1.75e9,
    identity={"serial": "c0ffee", "roots": "aa,bb", "crls": ""},
    identity_refused=True,
    identity_reloads={"accepted": 3, "refused": 1},
    refused_connections={"wrong_ca": 2, "not_member": 1},
    dropped_frames={"v2": 4},
    peer_latency_s={"v2": 0.001},
)


@pytest.fixture
def metrics() -> Metrics:
    return Metrics(version="0.1.0", chain_id="demo", name="v1", role="validator")


def samples(metrics: Metrics) -> dict[tuple[str, tuple[str, ...]], float]:
    """Value by name and label values."""
    return {
        (sample.name, tuple(v for k, v in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(metrics.render()[0].decode())
        for sample in family.samples
    }


def test_names_that_the_requirements_promise(metrics):
    metrics.watch(lambda: STATE)
    metrics.misbehaviour("equivocation")
    names = {name for name, _ in samples(metrics)}
    assert {
        "consensus_committed_blocks_total",
        "consensus_current_round",
        "consensus_height",
        "consensus_step_seconds_sum",
        "consensus_quorum_delay_seconds_sum",
        "consensus_commit_latency_seconds_bucket",
        "peers_connected",
        "mempool_transactions",
        "mempool_bytes",
        "consensus_missing_validators",
        "consensus_misbehaviour_total",
        "consensus_buffered_bytes",
        "storage_first_height",
        "storage_snapshot_height",
        "certificate_expiry_timestamp_seconds",
        "certificate_not_before_timestamp_seconds",
        "crl_next_update_timestamp_seconds",
        "p2p_refused_connections_total",
        "transactions_submitted_total",
        "process_resident_memory_bytes",
        "holdfast_node_info",
    } <= names


def test_committed_blocks_and_their_transactions_are_counted(metrics):
    metrics.block_committed(transactions=10, failed=3, latency_s=0.02)
    metrics.block_committed(transactions=2, failed=0, latency_s=None, synced=True)
    now = samples(metrics)
    assert now["consensus_committed_blocks_total", ("consensus",)] == 1
    assert now["consensus_committed_blocks_total", ("sync",)] == 1
    assert now["ledger_transactions_total", ("executed",)] == 9
    assert now["ledger_transactions_total", ("failed",)] == 3
    assert now["consensus_commit_latency_seconds_count", ()] == 1
    assert now["consensus_commit_latency_seconds_sum", ()] == pytest.approx(0.02)
    assert now["consensus_block_transactions_sum", ()] == 12


def test_events_reach_their_series(metrics):
    metrics.step("prepare", 0.25)
    metrics.quorum_reached("commit", 0.5)
    metrics.view_changed()
    metrics.misbehaviour("equivocation")
    metrics.transaction_submitted("bad_signature")
    now = samples(metrics)
    assert now["consensus_step_seconds_sum", ("prepare",)] == 0.25
    assert now["consensus_quorum_delay_seconds_sum", ("commit",)] == 0.5
    assert now["consensus_view_changes_total", ()] == 1
    assert now["consensus_misbehaviour_total", ("equivocation",)] == 1
    assert now["transactions_submitted_total", ("bad_signature",)] == 1


def test_series_with_known_labels_exist_before_their_first_event(metrics):
    """Otherwise `increase()` misses the first one."""
    now = samples(metrics)
    for step in STEPS:
        assert now["consensus_step_seconds_count", (step,)] == 0
    assert now["transactions_submitted_total", ("accepted",)] == 0
    assert now["consensus_committed_blocks_total", ("sync",)] == 0


def test_state_is_read_at_each_scrape(metrics):
    current = STATE
    metrics.watch(lambda: current)
    before = samples(metrics)
    current = replace(STATE, height=8, ready=False, certificate_expiry=None)
    after = samples(metrics)
    assert (before["consensus_height", ()], after["consensus_height", ()]) == (7, 8)
    assert (before["node_ready", ()], after["node_ready", ()]) == (1, 0)
    assert before["certificate_expiry_timestamp_seconds", ()] == 1.8e9
    assert ("certificate_expiry_timestamp_seconds", ()) not in after
    assert before["certificate_not_before_timestamp_seconds", ()] == 1.7e9
    assert before["crl_next_update_timestamp_seconds", ()] == 1.75e9
    assert before["tls_identity_info", ("", "aa,bb", "c0ffee")] == 1
    assert before["identity_files_refused", ()] == 1
    assert before["identity_reloads_total", ("accepted",)] == 3
    assert before["identity_reloads_total", ("refused",)] == 1
    assert before["p2p_refused_connections_total", ("wrong_ca",)] == 2
    assert before["p2p_dropped_frames_total", ("v2",)] == 4
    assert before["p2p_peer_latency_seconds", ("v2",)] == 0.001


def test_before_the_node_runs_there_is_no_state(metrics):
    now = samples(metrics)
    assert ("consensus_height", ()) not in now
    assert now["holdfast_node_info", ("demo", "v1", "validator", "0.1.0")] == 1


def test_two_nodes_in_one_process_do_not_share_series(metrics):
    other = Metrics(version="0.1.0", chain_id="demo", name="v2", role="observer")
    metrics.view_changed()
    assert samples(other)["consensus_view_changes_total", ()] == 0


def test_every_metric_is_explained(metrics):
    metrics.watch(lambda: STATE)
    for family in text_string_to_metric_families(metrics.render()[0].decode()):
        assert family.documentation, family.name


def test_openmetrics_is_spoken_when_asked_for(metrics):
    body, content_type = metrics.render("application/openmetrics-text; version=1.0.0")
    assert content_type.startswith("application/openmetrics-text")
    assert body.endswith(b"# EOF\n")
    assert metrics.render("")[1].startswith("text/plain")
