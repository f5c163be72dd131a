# SPDX-License-Identifier: GPL-3.0-or-later
"""Clients that write and read all the time, whichever nodes answer, and keep a history."""

from __future__ import annotations

import random
import secrets
import threading
import time
from base64 import b64decode
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Iterator

from cluster import Cluster, Node, until
from holdfast_node.chain.crypto import PrivateKey, account_of, format_address
from holdfast_node.chain.transaction import Put, sign_transaction, transaction_id
from holdfast_node.client import UnreachableError
from holdfast_node.devnet_files import CHAIN_ID
from holdfast_node.errors import RefusedError

WRITERS = 3
READERS = 3
AT_ONCE = 2  # writes of one writer under way at a time
KEYS = ("left", "right/of it")  # few, so that there is much to order; a slash, as keys may have
FRESH = 0.7  # of all reads
VALIDITY_MS = 6 * 3_600_000  # clocks may be off by half of it
POLL_S = 0.02
DRAIN_S = 60.0
# What a repeated submission may be told.
REPEATED = {"already_known", "nonce_used"}


@dataclass
class Operation:
    """A write or read; `end` and `height` are None as long as nobody has learnt its outcome.

    A read is `fresh` if it asked for the highest height that any client had been told of.
    """

    kind: str
    register: tuple[str, str]  # address, key
    value: str | None
    start: float
    end: float | None = None
    height: int | None = None
    fresh: bool = True
    node: str = ""
    id: str = ""


@dataclass
class History:
    """Everything that the clients did, from all threads."""

    operations: list[Operation] = field(default_factory=list)
    horizon: int = 0
    errors: list[BaseException] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def begin(self, operation: Operation) -> Operation:
        with self._lock:
            self.operations.append(operation)
        return operation

    def end(self, operation: Operation, height: int | None) -> None:
        """The outcome is known; nobody shall see less than it from now on."""
        with self._lock:
            self.horizon = max(self.horizon, height or 0)
            operation.height = height
            operation.end = time.monotonic()

    @property
    def acknowledged(self) -> list[Operation]:
        """Writes that a client was told are final."""
        return [o for o in list(self.operations) if o.kind == "write" and o.end is not None]

    @property
    def reads(self) -> list[Operation]:
        """Reads that were answered."""
        return [o for o in list(self.operations) if o.kind == "read" and o.end is not None]


class Writer:
    """An account that writes to its registers, `AT_ONCE` at a time, each until it is final."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._key = PrivateKey(secrets.token_bytes(32))
        self.address = format_address(account_of(self._key.public_key))
        self._nonce = 0

    def run(self) -> None:
        """Until the load ends, and all that was begun is final."""
        while not self._load.ending.is_set():
            under_way = [self._begin() for _ in range(AT_ONCE)]
            for raw, operation in under_way:
                self._finish(raw, operation)

    def _begin(self) -> tuple[bytes, Operation]:
        key, value = self._load.chance.choice(KEYS), f"{self.address[-4:]}-{self._nonce}"
        raw = sign_transaction(
            self._key,
            chain_id=CHAIN_ID,
            nonce=self._nonce,
            expires_at_ms=time.time_ns() // 1_000_000 + VALIDITY_MS,
            actions=[Put(key, value.encode())],
        )
        self._nonce += 1
        operation = Operation("write", (self.address, key), value, time.monotonic())
        operation.id = transaction_id(raw).hex()
        self._load.history.begin(operation)
        self._hand_in(raw, self._load.any_node())
        return raw, operation

    def _hand_in(self, raw: bytes, node: Node) -> None:
        try:
            node.client.submit(raw)
        except UnreachableError:
            pass  # it may have taken it, or not: asked for, and repeated, below
        except RefusedError as error:
            if error.code not in REPEATED:
                raise

    def _finish(self, raw: bytes, operation: Operation) -> None:
        """Ask one node after the other, and hand it in again, until one says it is final."""
        deadline = time.monotonic() + DRAIN_S
        while time.monotonic() < deadline:
            node = self._load.any_node()
            patience = time.monotonic() + 1.0
            try:
                while time.monotonic() < patience:
                    found = node.client.transaction(operation.id)
                    if found["status"] == "committed":
                        self._load.history.end(operation, found["height"])
                        return
                    assert found["status"] in {"pending", "unknown", "rejected"}, found
                    if self._load.given_up.wait(POLL_S):
                        return
            except UnreachableError:
                if self._load.given_up.wait(POLL_S):
                    return
                continue
            self._hand_in(raw, node)
        raise AssertionError(f"not final within {DRAIN_S:g} s of asking: {operation}")


class Load:
    """The writers and readers, as threads."""

    def __init__(self, cluster: Cluster) -> None:
        self.history = History()
        self.chance = random.Random()  # noqa: S311 -- outcomes must not depend on it
        self.ending = threading.Event()
        self.given_up = threading.Event()
        self._cluster = cluster
        self.writers = [Writer(self) for _ in range(WRITERS)]
        tasks = [writer.run for writer in self.writers] + [self._read] * READERS
        self._threads = [threading.Thread(target=self._guarded, args=(task,)) for task in tasks]

    def any_node(self) -> Node:
        return self.chance.choice(self._cluster.nodes)

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def finish(self) -> History:
        """Let what was begun become final; raises what went wrong in a client."""
        self.ending.set()
        for thread in self._threads:
            thread.join()
        for error in self.history.errors:
            raise error
        return self.history

    def _guarded(self, task: Any) -> None:
        try:
            task()
        except BaseException as error:  # raised again where the load ends
            self.history.errors.append(error)
            self.ending.set()

    def _read(self) -> None:
        while not self.ending.is_set():
            node, writer = self.any_node(), self.chance.choice(self.writers)
            key, fresh = self.chance.choice(KEYS), self.chance.random() < FRESH
            read(self.history, node, writer.address, key, fresh=fresh)
            self.ending.wait(POLL_S)


def read(history: History, node: Node, address: str, key: str, *, fresh: bool) -> Operation:
    """One read; without an answer it has no end."""
    operation = Operation("read", (address, key), None, time.monotonic(), fresh=fresh)
    operation.node = node.name
    least = history.horizon if fresh else None  # of all that ended before this began
    history.begin(operation)
    try:
        found = node.client.value(address, key, min_height=least)
    except UnreachableError:
        return operation
    except RefusedError as error:
        if error.code not in ("not_reached", "stopping"):
            raise
        return operation
    if found is not None:
        operation.value = b64decode(found["value"]).decode()
    history.end(operation, None if found is None else found["height"])
    return operation


@contextmanager
def under_load(cluster: Cluster, acknowledged: int = 20) -> Iterator[History]:
    """Clients at work; the body begins when some writes are final, the end waits for the rest."""
    load = Load(cluster)
    load.start()
    try:

        def enough() -> bool:
            return bool(load.history.errors) or len(load.history.acknowledged) >= acknowledged

        until(enough, DRAIN_S, f"{acknowledged} transactions final")
        yield load.history
    except BaseException:
        load.given_up.set()
        raise
    finally:
        load.finish()
