# SPDX-License-Identifier: Apache-2.0
"""When a node says that it is ready, and what others can do about that."""

from types import SimpleNamespace

import pytest
from net_support import peer

from holdfast_node.chain.validators import Validator, ValidatorSet
from holdfast_node.config import Consensus
from holdfast_node.service import NodeService

NAMES = ("v1", "v2", "v3", "v4")


def service(claims: dict[str, int], *, first: int = 1, own: int = 10) -> NodeService:
    """Of the validator v1 of four, at block `own`, connected to all."""

    def claimed_by(names, count):
        known = sorted((claims[name] for name in names if name in claims), reverse=True)
        return known[count - 1] if len(known) >= count else 0

    members = ValidatorSet(tuple(Validator(n, n.encode() * 16) for n in NAMES))
    peers = [SimpleNamespace(connected=True, **vars(peer(name))) for name in NAMES[1:]]
    return NodeService(
        config=SimpleNamespace(name="v1", consensus=Consensus(), role="validator"),
        ledger=SimpleNamespace(
            height=own, validators=members, transaction=lambda _id: None,
            store=SimpleNamespace(first_height=lambda: first),
        ),
        mempool={},
        driver=SimpleNamespace(rejoin=object(), replica=object(), last_commit=0.0),
        network=SimpleNamespace(peers=lambda: peers),
        sync=SimpleNamespace(claimed_by=claimed_by),
        gossip=lambda _raws: None,
        clock=lambda: 1.0,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("claims", "reason"),
    [
        ({}, None),
        ({"v2": 11, "v3": 11, "v4": 11}, None),  # about to be committed here, too
        ({"v2": 2**40}, None),  # one may lie
        ({"v2": 2**40, "v3": 10, "v4": 9}, None),
        ({"v2": 2**40, "v3": 20}, "catching up: at block 10 of 20"),
        ({"o1": 2**40, "o2": 2**40}, None),  # observers have no say
    ],
)
def test_more_than_may_lie_have_to_claim_a_block(claims, reason):
    assert service(claims).readiness() == (reason is None, reason)


def test_what_may_be_in_blocks_that_are_not_here():
    """A node that began with a snapshot says so, instead of "never seen"."""
    assert service({}).transaction(bytes(32)).reason is None
    unknown = service({}, first=7).transaction(bytes(32))
    assert (unknown.status, unknown.reason) == (
        "unknown", "blocks below 7 are not here, and may hold it"
    )  # fmt: skip
