# SPDX-License-Identifier: GPL-3.0-or-later
"""One network for all faults: each leaves it whole, and what it did is audited."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import Callable, ContextManager, Iterator

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import isolation
from audit import Auditor
from cluster import Cluster, work_folder
from load import History, under_load

TEST_SECONDS = 240  # four nodes and the clients on a machine that may be busy


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give these tests the time they need."""
    for item in items:
        if item.path.parent == Path(__file__).parent:
            item.add_marker(pytest.mark.timeout(TEST_SECONDS))


@pytest.fixture(scope="session")
def network() -> Iterator[Cluster]:
    """Four validators, in step."""
    if isolation.MARK not in os.environ:
        how = "run it with `make test-faults`, which gives it namespaces of its own"
        pytest.skip(os.environ.get(isolation.NOT_RUN) or how)
    folder = Path(tempfile.mkdtemp(prefix="holdfast-faults-", dir=work_folder()))
    cluster = Cluster(folder)
    try:
        cluster.set_up()
        yield cluster
    finally:
        cluster.tear_down()
        shutil.rmtree(folder)


@pytest.fixture(scope="session")
def auditor(network: Cluster) -> Auditor:
    return Auditor(network)


Fault = Callable[[], ContextManager[History]]


@pytest.fixture
def fault(network: Cluster, auditor: Auditor) -> Iterator[Fault]:
    """`with fault() as history:` clients work in the body; then all is mended and audited."""

    @contextmanager
    def during() -> Iterator[History]:
        try:
            with under_load(network) as history:
                yield history
                network.mend()
            auditor.audit(history)
        except BaseException as error:
            error.add_note("\n".join(node.tail() for node in network.nodes))
            raise

    yield during
    network.mend()  # also after a failure: the next test is to have a whole network
