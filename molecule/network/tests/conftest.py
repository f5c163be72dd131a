# SPDX-License-Identifier: GPL-3.0-or-later
"""Fixtures of the network scenario; a failing test shows the logs of all nodes."""

from __future__ import annotations

from typing import Any, Iterator

import pytest
from support import Network


@pytest.fixture(scope="session")
def nodes() -> Network:
    """The network as it was deployed."""
    return Network()


@pytest.fixture
def network(nodes: Network) -> Iterator[Network]:
    """The network with every node in step, before the test and after it."""
    nodes.settle()
    yield nodes
    nodes.settle()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Any:
    """Add the nodes' logs to the report of a failure."""
    report = yield
    network = getattr(item, "funcargs", {}).get("nodes")
    if report.failed and network is not None:
        for node in network:
            report.sections.append((f"journal of {node.name}", node.journal()))
    return report
