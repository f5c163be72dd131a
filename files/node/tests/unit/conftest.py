# SPDX-License-Identifier: Apache-2.0
"""Ledgers on disk, for the tests of several files."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from ledger_samples import Clock, open_ledger

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
