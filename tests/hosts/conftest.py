# SPDX-License-Identifier: GPL-3.0-or-later
"""Fixtures of the checks on hosts; a failing check shows the end of its host's log."""

from __future__ import annotations

from typing import Any, Callable

import pytest
import testinfra

Host = Any  # testinfra's Host has no types worth the name


@pytest.fixture
def peer(host: Host) -> Callable[[str], Host]:
    """The other hosts of a scenario: peer("server")."""
    container = host.backend.name
    lab = container.removesuffix(str(host.check_output("hostname")))
    return lambda name: testinfra.get_host(f"podman://{lab}{name}")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Any:
    """Add the end of the host's log to the report of a failure."""
    report = yield
    host = getattr(item, "funcargs", {}).get("host")
    if report.failed and host is not None:
        command = "journalctl -n 40 --no-pager || tail -n 40 /var/log/messages"
        report.sections.append(("log of the host", host.run(command).stdout))
    return report
