# SPDX-License-Identifier: Apache-2.0
"""What a node keeps: certified blocks, receipts, and the state after the last block.

A store that was made from a snapshot has a *base*: the final header whose state it began with.
There is no block at or below it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

from holdfast_node.chain.block import CertifiedBlock, CertifiedHeader, Header
from holdfast_node.chain.codec import Value


class Receipt(Value, frozen=True):
    """The outcome of one transaction: `failed_reason` is None if its actions took effect."""

    failed_reason: str | None


@dataclass(frozen=True, slots=True)
class Location:
    """Where a committed transaction is, and how it went (as in `Receipt`)."""

    height: int
    index: int
    failed_reason: str | None


@dataclass(frozen=True, slots=True)
class BlockSummary:
    """A block without its transactions, for lists."""

    header: Header
    hash: bytes
    transactions: int


class StateEntry(NamedTuple):
    """One entry of the state: `leaf` is the 32-byte hash of key and value (see `StateTree`)."""

    bucket: int
    key: bytes
    value: bytes
    leaf: bytes


@dataclass(frozen=True, slots=True)
class StoreStatistics:
    """Sizes in bytes on disk."""

    database_bytes: int
    write_ahead_log_bytes: int


class Store(Protocol):
    """Synchronous. Reads may come from any thread; writes from one thread at a time.

    A read while another thread commits sees the state before or after it, never a mixture. Every
    method raises `StorageError` if the data cannot be read or written.
    """

    def genesis_hash(self) -> bytes | None:
        """The hash of the genesis that the store belongs to; None if it is still to be made."""

    def initialise(self, genesis_hash: bytes, chain_id: str, state: Sequence[StateEntry]) -> None:
        """Make the store, durably and as a whole, with the state before the first block."""

    def height(self) -> int:
        """The height of the last block that a reader sees; 0 if there is only the genesis.

        The base's height if there is no block above it yet.
        """

    def base(self) -> CertifiedHeader | None:
        """The final header that the blocks here follow; None if they follow the genesis."""

    def first_height(self) -> int:
        """The height of the lowest block that can be here: 1, or the one above the base."""

    def head(self) -> CertifiedHeader | None:
        """The last final header, which may be the base; None if there is only the genesis."""

    def certified_header(self, height: int) -> CertifiedHeader | None:
        """The header of a block here, or one kept from below: the base, and the way to it."""

    def block(self, height: int) -> CertifiedBlock | None:
        """The block at `height` (from `first_height`), or None."""

    def encoded_blocks(self, from_height: int, limit: int, max_bytes: int) -> tuple[bytes, ...]:
        """Encoded `CertifiedBlock`s from `from_height` up, at most `limit`.

        Stops before `max_bytes` is exceeded, but returns at least one block if there is one.
        """

    def summary(self, height: int) -> BlockSummary | None:
        """The block at `height` (from 1) without its transactions, or None."""

    def block_height(self, block_hash: bytes) -> int | None:
        """The height of the block with this hash, or None."""

    def receipts(self, height: int) -> tuple[Receipt, ...] | None:
        """The receipts of the block at `height`, in the order of its transactions, or None."""

    def transaction(self, transaction_id: bytes) -> Location | None:
        """Where the transaction with this identifier was committed, or None."""

    def state_get(self, bucket: int, key: bytes) -> tuple[bytes, bytes] | None:
        """Value and leaf hash of a state entry, or None."""

    def bucket_leaves(self, bucket: int) -> list[tuple[bytes, bytes]]:
        """(key, leaf hash) of every entry in a bucket, sorted by key."""

    def leaves(self) -> Iterator[tuple[int, bytes]]:
        """(bucket, leaf hash) of every entry, sorted by bucket, then by key."""

    def commit(
        self,
        certified: CertifiedBlock,
        transaction_ids: Sequence[bytes],
        receipts: Sequence[Receipt],
        state: Sequence[StateEntry],
    ) -> None:
        """Append the block and write its state, in one transaction; durable when it returns."""

    def install(self, candidate: Path) -> None:
        """Put the complete store in the file `candidate` in place of this one, atomically."""

    def checkpoint(self) -> None:
        """Move what the write-ahead log holds into the database. Call it off the commit path.

        May run in a worker thread while blocks are committed.
        """

    def statistics(self) -> StoreStatistics:
        """Sizes on disk."""

    def close(self) -> None:
        """Let go of the files; the store is unusable afterwards. May be called twice."""
