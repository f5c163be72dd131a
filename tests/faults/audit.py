# SPDX-License-Identifier: GPL-3.0-or-later
"""What must be true of every node, and of what clients were told, when a fault is over."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from cluster import Cluster, until
from linearizability import Call, unexplained
from load import History

PAGE = 100
IN_STEP_S = 30.0


class Auditor:
    """Follows the chain from audit to audit: `blocks` are all that were compared, from height 1."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self.blocks: list[dict[str, Any]] = []
        self._heights: dict[str, int] = {}  # transaction: its block
        # What is stored, as of ascending heights.
        self._values: dict[tuple[str, str], list[tuple[int, str]]] = defaultdict(list)

    def audit(self, history: History) -> None:
        """Every node is asked; raises AssertionError with what does not fit.

        The clients have ended, and every node is ready.
        """
        top = max((o.height or 0 for o in history.acknowledged), default=0)
        assert top, "nothing was acknowledged: this shows nothing"
        for node in self._cluster.nodes:
            node.until_height(top, IN_STEP_S)
        self._follow(min(node.height() for node in self._cluster.nodes))
        until(self._one_state, IN_STEP_S, "all nodes at one height, with one state")
        self._check_acknowledged(history)
        self._check_reads(history)
        for node in self._cluster.nodes:
            assert node.rpc("evidence", [{}]) == [{"evidence": []}], node.name

    def _follow(self, top: int) -> None:
        """One chain, up to `top`, on all nodes; no transaction is in it twice."""
        first = len(self.blocks) + 1
        pages = [{"from": f, "limit": min(PAGE, top + 1 - f)} for f in range(first, top + 1, PAGE)]
        lists = {
            node.name: [s for page in node.rpc("blocks", pages) for s in page["blocks"]]
            for node in self._cluster.nodes
        }
        chains = {name: [s["hash"] for s in summaries] for name, summaries in lists.items()}
        assert all(len(chain) == top + 1 - first for chain in chains.values())
        for height, hashes in enumerate(zip(*chains.values()), first):
            assert len(set(hashes)) == 1, f"block {height}: {dict(zip(chains, hashes))}"
        node = self._cluster.nodes[0]
        for block in node.rpc("block", [{"block": height} for height in range(first, top + 1)]):
            if self.blocks:
                assert block["previous"] == self.blocks[-1]["hash"]
            self.blocks.append(block)
            for transaction in block["transactions"]:
                assert transaction["id"] not in self._heights, f"twice: {transaction['id']}"
                assert transaction["error"] is None, transaction
                self._heights[transaction["id"]] = block["height"]
                for action in transaction["actions"]:
                    register = (transaction["sender"], action["key"])
                    self._values[register].append((block["height"], action["text"]))

    def _one_state(self) -> bool:
        """Whether all are at one height now; if so, with one state and block."""
        said = [node.client.status() for node in self._cluster.nodes]
        if len({status["height"] for status in said}) != 1:
            return False
        assert len({(status["block_hash"], status["state_root"]) for status in said}) == 1, said
        return True

    def _check_acknowledged(self, history: History) -> None:
        """Each is where its client was told, on every node."""
        acknowledged = history.acknowledged
        for operation in acknowledged:
            assert self._heights.get(operation.id) == operation.height, operation
        parameters = [{"id": operation.id} for operation in acknowledged]
        answers = {n.name: n.rpc("transaction", parameters) for n in self._cluster.nodes}
        for operation, *found in zip(acknowledged, *answers.values()):
            places = {(each["status"], each["height"], each["index"]) for each in found}
            assert len(places) == 1, (operation, places)
            assert found[0]["status"] == "committed", operation

    def _check_reads(self, history: History) -> None:
        """Every read saw the state as of the height it was told; the fresh ones one register."""
        reads = history.reads
        assert {True, False} <= {read.fresh for read in reads}, "clients did not read enough"
        for operation in reads:
            if operation.height is not None:
                expected = self._value(operation.register, operation.height)
                assert operation.value == expected, (operation, expected)
        for register in {o.register for o in history.operations}:
            fault = unexplained(calls(history, register))
            assert fault is None, f"not linearizable: {register}: {fault}"

    def _value(self, register: tuple[str, str], height: int) -> str | None:
        found = [value for at, value in self._values[register] if at <= height]
        return found[-1] if found else None


def calls(history: History, register: tuple[str, str]) -> list[Call]:
    """The writes and fresh reads of one register; reads without an answer say nothing."""
    return [
        Call("write" if o.kind == "write" else "read", o.value, o.start, o.end, o.node)
        for o in list(history.operations)
        if o.register == register and (o.kind == "write" or (o.fresh and o.end is not None))
    ]
