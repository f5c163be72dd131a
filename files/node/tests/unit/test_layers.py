# SPDX-License-Identifier: Apache-2.0
"""Who may know whom inside the node; the picture is in the project's architecture page."""

import ast
from pathlib import Path

import pytest

import holdfast_node

ROOT = Path(holdfast_node.__file__).parent

# A layer may import itself, errors.py, and what is named here.
LAYERS = {
    "chain": set(),
    "consensus": {"chain"},
    "storage": {"chain"},
    "ledger": {"chain", "storage"},
    "snapshot": {"chain", "storage", "ledger"},
    "simulation": {"chain", "consensus", "storage", "snapshot"},
    "net": {"chain"},
    "observe": set(),
    "api": {"chain", "observe"},
}
# Nothing that could make two runs of one seed differ.
FORBIDDEN_IN_CONSENSUS = {
    "anyio", "asyncio", "datetime", "os", "random", "secrets", "select", "socket", "ssl",
    "threading", "time", "uuid",
}  # fmt: skip


def imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module or "")
    return names


@pytest.mark.parametrize("layer", LAYERS)
def test_a_layer_knows_only_those_below(layer: str) -> None:
    """An import against the arrows would make the layer untestable alone."""
    allowed = LAYERS[layer] | {layer, "errors"}
    for path in sorted((ROOT / layer).rglob("*.py")):
        for name in imported(path):
            if name.startswith("holdfast_node."):
                assert name.split(".")[1] in allowed, f"{path.name} imports {name}"


def test_consensus_has_no_input_or_output() -> None:
    """No clock, no randomness, no sockets, no event loop: hence the simulator."""
    for layer in ("consensus", "chain"):
        for path in sorted((ROOT / layer).rglob("*.py")):
            roots = {name.split(".")[0] for name in imported(path)}
            assert not roots & FORBIDDEN_IN_CONSENSUS, path.name


def test_node_knows_nothing_of_ansible() -> None:
    """The node is deployed by the collection, and does not know it."""
    for path in sorted(ROOT.rglob("*.py")):
        assert not any("ansible" in name for name in imported(path)), path.name
