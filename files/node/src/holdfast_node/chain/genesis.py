# SPDX-License-Identifier: Apache-2.0
"""The genesis: what all nodes of a chain agree on before its first block.

On disk it is JSON for people; its hash is over the canonical encoding, so white space and the order
of keys do not matter.
"""

from functools import cached_property
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from holdfast_node.chain.codec import encode
from holdfast_node.chain.crypto import PUBLIC_KEY_BYTES, digest, parse_address
from holdfast_node.chain.names import CHAIN_ID, NODE_NAME
from holdfast_node.chain.transaction import MAX_AMOUNT
from holdfast_node.chain.validators import MAX_VALIDATORS, Validator, ValidatorSet
from holdfast_node.errors import ConfigError, RefusedError


class Parameters(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Limits that every validator applies to every block."""

    max_block_bytes: Annotated[int, Meta(ge=65_536, le=8_388_608)] = 1_048_576
    max_block_transactions: Annotated[int, Meta(ge=1, le=100_000)] = 5_000


class GenesisValidator(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    public_key: str  # hexadecimal


class Genesis(msgspec.Struct, frozen=True, forbid_unknown_fields=True, dict=True):
    """`accounts` maps addresses to opening balances in smallest units."""

    chain_id: str
    time_ms: Annotated[int, Meta(ge=0, le=MAX_AMOUNT)]
    validators: Annotated[list[GenesisValidator], Meta(min_length=1, max_length=MAX_VALIDATORS)]
    accounts: dict[str, Annotated[int, Meta(ge=0, le=MAX_AMOUNT)]]
    parameters: Parameters = Parameters()

    @cached_property
    def hash(self) -> bytes:
        """32 bytes; the first block's `previous`."""
        canonical = (
            self.chain_id,
            self.time_ms,
            [(v.name, bytes.fromhex(v.public_key)) for v in self.validators],
            sorted((parse_address(address), amount) for address, amount in self.accounts.items()),
            (self.parameters.max_block_bytes, self.parameters.max_block_transactions),
        )
        return digest("holdfast/genesis/1", encode(canonical))

    @cached_property
    def validator_set(self) -> ValidatorSet:
        return ValidatorSet(
            tuple(Validator(v.name, bytes.fromhex(v.public_key)) for v in self.validators)
        )

    def faults(self) -> list[str]:
        """What is wrong with the values, one sentence each; empty if nothing is."""
        found = []
        if not CHAIN_ID.fullmatch(self.chain_id):
            found.append(
                f"chain_id = {self.chain_id!r}: expected 1 to 48 lower-case letters, digits, '-'"
            )
        for i, validator in enumerate(self.validators):
            if not NODE_NAME.fullmatch(validator.name):
                found.append(
                    f"validators[{i}].name = {validator.name!r}: expected a host label "
                    "(lower-case letters, digits, '-')"
                )
            if not _is_public_key(validator.public_key):
                found.append(
                    f"validators[{i}].public_key = {validator.public_key!r}: expected 64 "
                    "hexadecimal digits"
                )
        for kind in ("name", "public_key"):
            values = [getattr(v, kind).lower() for v in self.validators]
            found += [
                f"validators: {kind} {value!r} occurs more than once: expected distinct validators"
                for value in sorted({v for v in values if values.count(v) > 1})
            ]
        for address in self.accounts:
            try:
                parse_address(address)
            except RefusedError as error:
                found.append(f"accounts: {error}")
        if sum(self.accounts.values()) > MAX_AMOUNT:
            found.append(f"accounts: the balances add up to more than {MAX_AMOUNT}")
        return found

    def to_json(self) -> bytes:
        return msgspec.json.format(msgspec.json.encode(self), indent=2) + b"\n"


def _is_public_key(text: str) -> bool:
    try:
        return len(bytes.fromhex(text)) == PUBLIC_KEY_BYTES and len(text) == PUBLIC_KEY_BYTES * 2
    except ValueError:
        return False


def parse_genesis(data: bytes, source: str) -> Genesis:
    """Read a genesis file's bytes; `source` names it in errors.

    Raises `ConfigError` with every fault found.
    """
    try:
        genesis: Genesis = msgspec.json.decode(data, type=Genesis)
    except msgspec.DecodeError as error:
        raise ConfigError(
            [f"{source}: {error}: expected a genesis made by 'genesis create'"]
        ) from error
    faults = genesis.faults()
    if faults:
        raise ConfigError([f"{source}: {fault}" for fault in faults])
    return genesis


def describe(genesis: Genesis) -> dict[str, Any]:
    """JSON-ready form with the hash, for the command line and the API."""
    described: dict[str, Any] = msgspec.to_builtins(genesis)
    return {"hash": genesis.hash.hex(), **described}
