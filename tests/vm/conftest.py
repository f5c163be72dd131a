# SPDX-License-Identifier: GPL-3.0-or-later
"""A machine for every test: clean and booted, with a kernel of its own and SELinux enforcing."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Iterator

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "molecule"))

from lab.vm.build import provide
from lab.vm.guest import Guest

TEST_SECONDS = 1200  # a machine that computes slowly, on a computer that is busy


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give these tests the time they need, where they do not say so themselves."""
    for item in items:
        if item.path.parent == Path(__file__).parent and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(TEST_SECONDS))


@pytest.fixture(scope="session")
def _machine() -> Iterator[Guest]:
    with Guest(provide()) as guest:
        yield guest


@pytest.fixture
def machine(_machine: Guest) -> Guest:
    """The machine, resumed from its base if an earlier test used it.

    run(), sh(): commands over ssh as root. module(), play(): Ansible over ssh. reboot(),
    power_cut(), restore(). See lab.vm.guest.Guest.
    """
    _machine.restore()
    return _machine


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Show what Ansible said, and the end of the journal, with a failure."""
    outcome = yield
    report = outcome.get_result()
    guest = getattr(item, "funcargs", {}).get("machine")
    if report.failed and report.when == "call" and guest is not None:
        report.sections.append(("machine", guest.story()))
