# Copyright: (c) 2026, Holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The modules as Ansible calls them: options, results, and every documented example."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any, Callable

import pytest
import yaml
from fake_host import FakeHost
from test_ulimits import with_service

PREFIX = "holdfast.chain."


def examples(name: str) -> list[dict[str, Any]]:
    """The tasks in a module's EXAMPLES that call it, as options."""
    module = importlib.import_module(f"ansible_collections.holdfast.chain.plugins.modules.{name}")
    tasks = yaml.safe_load(module.EXAMPLES)
    return [task[PREFIX + name] for task in tasks if PREFIX + name in task]


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, FakeHost], None]:
    """Let a module find a host in a directory."""

    def put(name: str, host: FakeHost) -> None:
        module = f"ansible_collections.holdfast.chain.plugins.modules.{name}"
        monkeypatch.setattr(importlib.import_module(module), "Host", lambda: host)

    return put


def host_with_all(host: FakeHost) -> FakeHost:
    with_service(host)
    host.put("/etc/passwd", "root:x:0:0::/:/bin/sh\nholdfast:x:999:999::/:/bin/sh\n")
    host.put("/usr/lib/systemd/system/holdfast-node@.service", "[Service]\nExecStart=/x\n")
    host.process(500, "/system.slice/holdfast-node@v1.service", uid=999)
    return host


@pytest.mark.parametrize(
    ("name", "number"),
    [(name, n) for name in ("kernel_params", "ulimits") for n in range(len(examples(name)))],
)
def test_documented_example(  # noqa: PLR0917 -- fixtures
    name: str,
    number: int,
    host: FakeHost,
    use: Callable[[str, FakeHost], None],
    run_module: Callable[..., Any],
    snapshot: Callable[[Path], Any],
) -> None:
    use(name, host_with_all(host))
    options = examples(name)[number]
    if options.get("state") == "absent":
        run_module(name, examples(name)[0])
    before = snapshot(Path(host.root))
    promised = run_module(name, options, check=True)
    assert not promised.failed, promised.text
    assert promised["changed"] is True
    assert snapshot(Path(host.root)) == before, "check mode touched the host"
    done = run_module(name, options)
    assert not done.failed, done.text
    assert done["changes"] == promised["changes"]
    assert done["diff"] == promised["diff"]
    assert run_module(name, options)["changed"] is False


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("kernel_params", {"sysctl": {"vm.swapiness": 1}}, "did you mean vm.swappiness?"),
        ("kernel_params", {"file": "../x.conf"}, "ends in .conf, without a folder"),
        ("kernel_params", {"sysctl": {"vm.swappiness": True}}, "write 1"),
        ("ulimits", {"user": "root"}, "limits: nothing is asked for"),
        ("ulimits", {"user": "a b", "limits": {"nofile": 1}}, "user: 'a b' is no name"),
        ("ulimits", {"service": "../x", "limits": {"nofile": 1}}, "is no name of a service"),
        ("ulimits", {"limits": {"nofile": 1}}, "one of the following is required: user, service"),
        ("ulimits", {"user": "root", "file": "x", "limits": {"nofile": 1}}, "would not be read"),
    ],
)
def test_wrong_options_are_named_and_nothing_changes(  # noqa: PLR0917 -- fixtures
    name: str,
    options: dict[str, Any],
    message: str,
    host: FakeHost,
    use: Callable[[str, FakeHost], None],
    run_module: Callable[..., Any],
    snapshot: Callable[[Path], Any],
) -> None:
    use(name, host_with_all(host))
    before = snapshot(Path(host.root))
    outcome = run_module(name, options)
    assert outcome.failed
    assert message in outcome["msg"]
    assert snapshot(Path(host.root)) == before


def test_a_refusal_tells_what_was_undone(
    host: FakeHost, use: Callable[[str, FakeHost], None], run_module: Callable[..., Any]
) -> None:
    host.refuse["vm/swappiness"] = 22
    use("kernel_params", host)
    outcome = run_module(
        "kernel_params", {"sysctl": {"net.core.somaxconn": 65535, "vm.swappiness": 900}}
    )
    assert outcome.failed
    assert outcome["undone"] == ["set net.core.somaxconn to 65535"]
    assert outcome["not_undone"] == []
    assert host.parameter("net/core/somaxconn") == "4096"


def test_results_have_what_is_documented(
    host: FakeHost, use: Callable[[str, FakeHost], None], run_module: Callable[..., Any]
) -> None:
    host_with_all(host)
    for name in ("kernel_params", "ulimits"):
        use(name, host)
        module = importlib.import_module(
            f"ansible_collections.holdfast.chain.plugins.modules.{name}"
        )
        documented = {
            key
            for key, entry in yaml.safe_load(module.RETURN).items()
            if entry["returned"] == "success"
        }
        outcome = run_module(name, examples(name)[0])
        assert set(outcome) - {"changed", "diff", "invocation"} == documented
