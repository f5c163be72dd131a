# SPDX-License-Identifier: Apache-2.0
"""Whoever has the genesis can check what a node says, and no false proof passes."""

from base64 import b64encode
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from ledger_samples import ALICE, BOB, GENESIS, certify, open_ledger, propose, transaction

from holdfast_node.chain.block import CertifiedBlock
from holdfast_node.chain.codec import decode, encode
from holdfast_node.chain.merkle import audit_path, merkle_root, root_of_path
from holdfast_node.chain.proof import ChainProof, TransactionProof, prove_transaction
from holdfast_node.chain.transaction import transaction_id
from holdfast_node.cli import cli
from holdfast_node.client import Client
from holdfast_node.errors import RefusedError


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> list[CertifiedBlock]:
    """Three blocks; the second has two transactions."""
    ledger = open_ledger(tmp_path_factory.mktemp("ledger"))
    blocks = []
    for raws in ([], [transaction(ALICE, 0), transaction(BOB, 0)], [transaction(ALICE, 1)]):
        blocks.append(certify(propose(ledger, raws)))
        ledger.commit(blocks[-1])
    ledger.store.close()
    return blocks


@given(st.lists(st.binary(max_size=8), min_size=1, max_size=40), st.data())
def test_audit_path_leads_to_the_root(entries: list[bytes], data: st.DataObject) -> None:
    """From every entry of a tree of every size; and from nothing else."""
    index = data.draw(st.integers(0, len(entries) - 1))
    path = audit_path(entries, index)
    root = merkle_root(entries)
    assert root_of_path(entries[index], index, len(entries), path) == root
    assert root_of_path(entries[index] + b"x", index, len(entries), path) != root
    assert root_of_path(entries[index], index, len(entries), (*path, bytes(32))) is None
    if path:
        assert root_of_path(entries[index], index, len(entries), path[1:]) is None
        wrong = (bytes(32), *path[1:])
        assert root_of_path(entries[index], index, len(entries), wrong) != root


def test_transaction_proof(chain: list[CertifiedBlock]) -> None:
    """It holds, also after the wire, and not for anything that differs in one field."""
    proof = prove_transaction(chain[1], 1)
    decode(encode(proof), TransactionProof).check(GENESIS)
    other = chain[2].block
    false = [
        {"transaction": other.transactions[0]},
        {"index": 0},
        {"path": ()},
        {"header": other.header},
        {"certificate": chain[2].certificate},
        {"certificate": msgspec.structs.replace(chain[1].certificate, signatures=())},
        {"header": msgspec.structs.replace(chain[1].block.header, time_ms=1)},
    ]
    for change in false:
        with pytest.raises(RefusedError):
            msgspec.structs.replace(proof, **change).check(GENESIS)


def test_chain_proof(chain: list[CertifiedBlock]) -> None:
    """From block 1, which follows the genesis, to a final one, without a gap."""
    headers = tuple(certified.block.header for certified in chain)
    proof = ChainProof(headers, chain[2].certificate)
    decode(encode(proof), ChainProof).check(GENESIS)
    ChainProof(headers[1:2], chain[1].certificate).check(GENESIS)
    for wrong in (headers[:2], headers[::2], headers[::-1]):
        with pytest.raises(RefusedError):
            ChainProof(wrong, chain[2].certificate).check(GENESIS)
    orphan = msgspec.structs.replace(headers[0], previous=bytes(32))
    with pytest.raises(RefusedError):
        ChainProof((orphan,), chain[0].certificate).check(GENESIS)


def test_proofs_are_bound_to_the_genesis(chain: list[CertifiedBlock]) -> None:
    """Another network's genesis, or other validators, refuse it."""
    proof = prove_transaction(chain[1], 0)
    for change in ({"chain_id": "other"}, {"validators": GENESIS.validators[:3]}):
        with pytest.raises(RefusedError):
            proof.check(msgspec.structs.replace(GENESIS, **change))


@pytest.fixture
def genesis_file(tmp_path: Path) -> Path:
    path = tmp_path / "genesis.json"
    path.write_bytes(GENESIS.to_json())
    return path


def test_commands_check_and_keep_proofs(
    chain: list[CertifiedBlock],
    genesis_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """`verify` asks a node, believes nothing, and checks a kept proof without any node."""
    raw = chain[1].block.transactions[0]
    identifier = transaction_id(raw).hex()
    headers = tuple(certified.block.header for certified in chain)
    answers = {
        f"transactions/{identifier}": encode(prove_transaction(chain[1], 0)),
        "blocks/1": encode(ChainProof(headers, chain[2].certificate)),
        f"transactions/{'00' * 32}": encode(prove_transaction(chain[1], 0)),
    }
    monkeypatch.setattr(
        Client, "proof", lambda _self, of, **_: {"proof": b64encode(answers[of]).decode()}
    )
    kept = tmp_path / "proof"
    options = ["--genesis", str(genesis_file)]
    run = CliRunner().invoke

    done = run(cli, ["verify", "transaction", identifier, *options, "--save", str(kept)])
    assert done.exit_code == 0, done.output
    assert '"height": 2' in done.output
    again = run(cli, ["verify", "file", str(kept), *options])
    assert again.output == done.output

    done = run(cli, ["verify", "block", "1", "--to", "3", *options, "--save", str(kept)])
    assert done.exit_code == 0, done.output
    assert run(cli, ["verify", "file", str(kept), *options]).output == done.output

    kept.write_bytes(kept.read_bytes()[:-1] + b"\x00")
    for refused in (
        ["verify", "file", str(kept)],
        ["verify", "block", "1", "--to", "2"],
        ["verify", "transaction", "00" * 32],
    ):
        done = run(cli, [*refused, *options])
        assert isinstance(done.exception, RefusedError), refused
