# SPDX-License-Identifier: Apache-2.0
"""`holdfast-node verify`: checks what a node says, with nothing but the genesis."""

from base64 import b64decode, b64encode
from pathlib import Path

import click

from holdfast_node.chain.codec import decode
from holdfast_node.chain.genesis import Genesis
from holdfast_node.chain.proof import ChainProof, TransactionProof
from holdfast_node.chain.transaction import transaction_id
from holdfast_node.cli.output import print_json
from holdfast_node.client import DEFAULT_URL, Client
from holdfast_node.config_check import read_genesis
from holdfast_node.errors import ConfigError, RefusedError
from holdfast_node.files import read_file

_MOST = 64 * 2**20
_url = click.option("--url", default=DEFAULT_URL, show_default=True, help="API of any node.")
_genesis = click.option(
    "--genesis", "genesis_path", type=click.Path(path_type=Path), required=True,
    help="The network's genesis, from a source you trust.",
)  # fmt: skip
_save = click.option(
    "--save", type=click.Path(path_type=Path), help="Keep the proof in this file, to show it."
)


@click.group()
def command() -> None:
    """Check proofs; the node that gives them need not be trusted."""


@command.command()
@click.argument("identifier")
@_genesis
@_url
@_save
def transaction(identifier: str, genesis_path: Path, url: str, save: Path | None) -> None:
    """Prove that the transaction IDENTIFIER is in a final block."""
    genesis = read_genesis(genesis_path)
    answer = Client(url).proof(f"transactions/{identifier}")
    raw = _bytes_of(answer)
    proof = _checked_transaction(raw, genesis)
    if transaction_id(proof.transaction).hex() != identifier.lower():
        raise RefusedError("bad_proof", "the node proved another transaction than was asked for")
    _keep(save, raw)
    _show_transaction(proof)


@command.command()
@click.argument("height", type=click.IntRange(min=1))
@click.option("--to", "to", type=click.IntRange(min=1), help="A later block that it leads to.")
@_genesis
@_url
@_save
def block(height: int, to: int | None, genesis_path: Path, url: str, save: Path | None) -> None:
    """Prove that the block at HEIGHT is final, and an ancestor of the one at --to."""
    genesis = read_genesis(genesis_path)
    stretch = {} if to is None else {"to": to}
    raw = _bytes_of(Client(url).proof(f"blocks/{height}", **stretch))
    proof = _checked_chain(raw, genesis)
    if (proof.headers[0].height, proof.headers[-1].height) != (height, to or height):
        raise RefusedError("bad_proof", "the node proved other blocks than were asked for")
    _keep(save, raw)
    _show_chain(proof)


@command.command()
@click.argument("path", type=click.Path(path_type=Path))
@_genesis
def file(path: Path, genesis_path: Path) -> None:
    """Check a proof that was kept with --save; no node is asked."""
    genesis = read_genesis(genesis_path)
    raw = read_file(path, _MOST, "a proof made by 'verify ... --save'")
    try:
        proof: TransactionProof = decode(raw, TransactionProof)
    except RefusedError:
        _show_chain(_checked_chain(raw, genesis))
    else:
        proof.check(genesis)
        _show_transaction(proof)


def _bytes_of(answer: object) -> bytes:
    text = answer.get("proof") if isinstance(answer, dict) else None
    if not isinstance(text, str):
        raise RefusedError("bad_proof", "the node's answer has no proof in it")
    try:
        return b64decode(text, validate=True)
    except ValueError as error:
        raise RefusedError("bad_proof", f"the node's answer is not Base64: {error}") from error


def _checked_transaction(raw: bytes, genesis: Genesis) -> TransactionProof:
    proof: TransactionProof = decode(raw, TransactionProof)
    proof.check(genesis)
    return proof


def _checked_chain(raw: bytes, genesis: Genesis) -> ChainProof:
    proof: ChainProof = decode(raw, ChainProof)
    proof.check(genesis)
    return proof


def _keep(path: Path | None, raw: bytes) -> None:
    if path is not None:
        try:
            path.write_bytes(raw)
        except OSError as error:
            raise ConfigError([f"{path}: {error.strerror}: expected a file to write"]) from error


def _show_transaction(proof: TransactionProof) -> None:
    print_json(
        {
            "proved": "transaction",
            "id": transaction_id(proof.transaction).hex(),
            "height": proof.header.height,
            "block": proof.header.hash.hex(),
            "signed_by": len(proof.certificate.signatures),
            "transaction": b64encode(proof.transaction).decode(),
        }
    )


def _show_chain(proof: ChainProof) -> None:
    print_json(
        {
            "proved": "block",
            "height": proof.headers[0].height,
            "block": proof.headers[0].hash.hex(),
            "to": proof.headers[-1].height,
            "final_block": proof.headers[-1].hash.hex(),
            "signed_by": len(proof.certificate.signatures),
        }
    )
