# SPDX-License-Identifier: Apache-2.0
"""The genesis file: one hash whatever its layout, and every fault named."""

import json
from typing import Any

import pytest

from holdfast_node.chain.crypto import PrivateKey, format_address
from holdfast_node.chain.genesis import describe, parse_genesis
from holdfast_node.chain.transaction import MAX_AMOUNT
from holdfast_node.errors import ConfigError

KEYS = [PrivateKey(bytes([i]) * 32).public_key.hex() for i in range(1, 5)]
A, B = format_address(b"\x01" * 20), format_address(b"\x02" * 20)


def sample() -> dict[str, Any]:
    return {
        "chain_id": "demo-1",
        "time_ms": 1_700_000_000_000,
        "validators": [{"name": f"v{i}", "public_key": key} for i, key in enumerate(KEYS)],
        "accounts": {A: 5, B: 7},
    }


def parse(value: Any) -> Any:
    return parse_genesis(json.dumps(value).encode(), "genesis.json")


def test_the_hash_does_not_depend_on_the_layout() -> None:
    """White space, the order of keys and accounts, and defaults spelled out change nothing."""
    genesis = parse(sample())
    shuffled = dict(reversed(sample().items())) | {"accounts": {B: 7, A: 5}}
    spelled = sample() | {
        "parameters": {"max_block_bytes": 1_048_576, "max_block_transactions": 5_000}
    }
    upper = sample()
    upper["validators"][0]["public_key"] = KEYS[0].upper()
    for other in (shuffled, spelled, upper):
        assert parse(other).hash == genesis.hash
    assert parse_genesis(genesis.to_json(), "x").hash == genesis.hash
    assert describe(genesis)["hash"] == genesis.hash.hex()


@pytest.mark.parametrize(
    "change",
    [
        {"chain_id": "demo-2"},
        {"time_ms": 1_700_000_000_001},
        {"validators": sample()["validators"][::-1]},
        {"validators": sample()["validators"][:3]},
        {"accounts": {A: 7, B: 5}},
        {"accounts": {A: 5}},
        {"parameters": {"max_block_bytes": 70_000}},
        {"parameters": {"max_block_transactions": 10}},
    ],
)
def test_the_hash_covers_everything(change: dict[str, Any]) -> None:
    assert parse(sample() | change).hash != parse(sample()).hash


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"chain_id": "Demo"}, "chain_id = 'Demo'"),
        ({"chain_id": ""}, "chain_id = ''"),
        ({"chain_id": "a" * 49}, "chain_id"),
        ({"chain_id": "a\n"}, "chain_id"),
        ({"chain_id": "-a"}, "chain_id"),
        ({"time_ms": -1}, "time_ms"),
        ({"validators": []}, "validators"),
        ({"validators": [{"name": "v_0", "public_key": KEYS[0]}]}, "validators[0].name"),
        ({"validators": [{"name": "v0", "public_key": KEYS[0][:-2]}]}, "validators[0].public_key"),
        ({"validators": [{"name": "v0", "public_key": "g" * 64}]}, "validators[0].public_key"),
        ({"validators": [{"name": "v0", "public_key": KEYS[0]}] * 2}, "'v0' occurs more than once"),
        (
            {
                "validators": [
                    {"name": "v0", "public_key": KEYS[0]},
                    {"name": "v1", "public_key": KEYS[0].upper()},
                ]
            },
            "public_key",
        ),
        ({"accounts": {A[:-1]: 1}}, "accounts"),
        ({"accounts": {A: -1}}, "accounts"),
        ({"accounts": {A: MAX_AMOUNT, B: 1}}, "add up to more than"),
        ({"parameters": {"max_block_bytes": 1}}, "max_block_bytes"),
        ({"paramters": {}}, "paramters"),
    ],
)
def test_faults_are_named(change: dict[str, Any], fault: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(sample() | change)
    assert fault in str(caught.value)
    assert "genesis.json" in str(caught.value)


def test_every_fault_is_reported_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        parse(sample() | {"chain_id": "Demo", "accounts": {"x": 1, "y": 2}})
    assert len(caught.value.faults) == 3


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b"\xff", b"null", b"{", b"[" * 100_000])
def test_other_files_are_refused(data: bytes) -> None:
    with pytest.raises(ConfigError, match=r"g\.json"):
        parse_genesis(data, "g.json")
