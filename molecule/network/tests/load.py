# SPDX-License-Identifier: GPL-3.0-or-later
"""A client that submits transactions all the time, and what became of every one of them."""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import threading
import time
from functools import partial
from types import TracebackType
from typing import Iterator

from holdfast_node.chain.transaction import Put
from holdfast_node.client import Client
from holdfast_node.keys import load_key
from support import KEY, Network, Node, account, eventually

PAUSE_SECONDS = 0.05  # between two transactions


class Load:
    """Submits one transaction after the other through `via`, in a thread, until the block ends.

    A transaction that the node does not accept, or an answer that does not come, ends it and is
    raised at the end of the block.
    """

    def __init__(self, via: Node) -> None:
        self._via = via
        self._client = Client(via.url)
        self._stop = threading.Event()
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._run)
        self.accepted: list[str] = []

    def __enter__(self) -> Load:
        self._before = self._commits()
        self.began = time.time()
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join()
        self.ended = time.time()
        after = self._commits()
        self.blocks = after[0] - self._before[0]
        self._seconds = after[1] - self._before[1]
        if self._error is not None and error is None:
            raise self._error

    def _run(self) -> None:
        try:
            key = load_key(KEY)
            first = self._client.account(account())["nonce"]
            for nonce in itertools.count(first):
                if self._stop.wait(PAUSE_SECONDS):
                    return
                action = Put(f"load-{nonce % 100}", str(nonce).encode())
                sent = self._client.execute(key, [action], wait_s=None, nonce=nonce)
                self.accepted.append(sent.id)
        except Exception as error:
            self._error = error  # raised again in the test's own thread

    def check(self, network: Network) -> None:
        """Every accepted transaction is committed, on every node in the same block."""
        assert self.accepted
        # All nodes for the last one; blocks before it are the same where it is.
        last = self.accepted[-1]
        found = [eventually(partial(committed, node, last), 60, last) for node in network]
        assert len(set(found)) == 1, found
        network.same_block(max(filter(None, found)))
        address = (self._via.address, 8545)
        with contextlib.closing(http.client.HTTPConnection(*address, timeout=10)) as connection:
            for identifier in self.accepted:  # one connection for all of them
                connection.request("GET", f"/v1/transactions/{identifier}")
                answer = json.load(connection.getresponse())
                assert answer["status"] == "committed", (identifier, answer)

    def _commits(self) -> tuple[float, float]:
        """How many blocks the node has committed, and seconds from proposal to commit of all."""
        name = "consensus_commit_latency_seconds"
        return self._via.metric(f"{name}_count"), self._via.metric(f"{name}_sum")

    @property
    def commit_latency(self) -> float:
        """Mean seconds from a block's proposal until it was durable on the node."""
        assert self.blocks > 0
        return self._seconds / self.blocks

    def longest_gap(self) -> float:
        """Most seconds between two blocks while it ran."""
        times = [t for t in block_times(self._via) if self.began <= t <= self.ended]
        assert len(times) > 1
        return max(after - before for before, after in itertools.pairwise(times))

    def __str__(self) -> str:
        return (
            f"{len(self.accepted)} transactions in {self.ended - self.began:.0f} s, "
            f"longest gap between two blocks {self.longest_gap() * 1000:.0f} ms, "
            f"commit latency {self.commit_latency * 1000:.1f} ms"
        )


def committed(node: Node, identifier: str) -> int | None:
    """The height of the transaction's block on that node; None while it has none."""
    answer = node.get(f"/v1/transactions/{identifier}")
    assert answer["status"] in ("pending", "unknown", "committed"), answer
    return answer["height"] if answer["status"] == "committed" else None


def block_times(node: Node) -> Iterator[float]:
    """When each block was proposed, Unix seconds."""
    height = node.status()["height"]
    for first in range(1, height + 1, 100):
        for block in node.get(f"/v1/blocks?from={first}&limit=100")["blocks"]:
            yield block["time_ms"] / 1000
