# SPDX-License-Identifier: Apache-2.0
"""Ledgers and configurations on disk, for the tests of several files."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from ledger_samples import Clock, open_ledger

from holdfast_node import devnet_files
from holdfast_node.ledger.ledger import Ledger


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def ledger(tmp_path: Path, clock: Clock) -> Iterator[Ledger]:
    opened = open_ledger(tmp_path, clock=clock)
    yield opened
    opened.store.close()


@pytest.fixture
def other(tmp_path_factory: pytest.TempPathFactory, clock: Clock) -> Iterator[Ledger]:
    """A second node of the same chain."""
    opened = open_ledger(tmp_path_factory.mktemp("other"), clock=clock)
    yield opened
    opened.store.close()


@pytest.fixture
def layout(tmp_path):
    """Four validators that may run as they are."""
    return devnet_files.prepare(tmp_path, 4, 26_600)


@pytest.fixture
def v1(layout):
    return layout.members[0]
