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
from ansible_collections.holdfast.chain.plugins.module_utils.selinux_cil import relied_on, render
from ansible_collections.holdfast.chain.plugins.module_utils.selinux_needs import (
    SERVICES,
    Needs,
    PathNeed,
    PortNeed,
)
from fake_selinux import TYPES, FakeSelinux, build

NAMES = ("selinux_context", "selinux_policy")
ALL = Needs(
    "mydaemon",
    ("/opt/mydaemon/bin/mydaemon",),
    bind=(PortNeed("tcp", 7070, 7070),),
    read=(PathNeed("/etc/mydaemon"),),
    write=(PathNeed("/var/lib/mydaemon"),),
    services=SERVICES,
    credentials=True,
)


def load(name: str) -> Any:
    return importlib.import_module(f"ansible_collections.holdfast.chain.plugins.modules.{name}")


def examples(name: str) -> list[dict[str, Any]]:
    """The tasks in a module's EXAMPLES that call it, as options."""
    tasks = yaml.safe_load(load(name).EXAMPLES)
    called = f"holdfast.chain.{name}"
    return [task[called] or {} for task in tasks if called in task]


@pytest.fixture(autouse=True)
def whole_policy(monkeypatch: pytest.MonkeyPatch) -> None:
    """The stand-in knows every type that a module relies on."""
    monkeypatch.setattr("fake_selinux.TYPES", TYPES | relied_on(render(ALL)))


@pytest.fixture
def used(monkeypatch: pytest.MonkeyPatch, selinux: FakeSelinux) -> FakeSelinux:
    """SELinux of a host in a directory, which the modules find."""
    for name in NAMES:
        monkeypatch.setattr(load(name), "Selinux", lambda _host: selinux)
    monkeypatch.setattr(selinux.host, "run", lambda *_words, **_options: (1, "", "<no matches>"))
    return selinux


@pytest.mark.parametrize(
    ("name", "number"), [(name, n) for name in NAMES for n in range(len(examples(name)))]
)
def test_documented_example(
    name: str,
    number: int,
    used: FakeSelinux,
    run_module: Callable[..., Any],
    snapshot: Callable[[Path], Any],
) -> None:
    options = examples(name)[number]
    if options.get("state") == "absent":
        run_module(name, examples(name)[0])
    before = snapshot(Path(used.host.root))
    promised = run_module(name, options, check=True)
    assert not promised.failed, promised.text
    assert promised["changed"] is bool(options)
    assert snapshot(Path(used.host.root)) == before, "check mode touched the host"
    done = run_module(name, options)
    assert not done.failed, done.text
    assert done["changes"] == promised["changes"]
    assert done["diff"] == promised["diff"]
    assert done["status"] == "enforcing"
    assert done["not_applicable"] is None
    assert run_module(name, options)["changed"] is False


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        (NAMES[0], {"purge": ["/"]}, "purge: '/' would take away what others made"),
        (NAMES[0], {"ports": [{"port": "80-70", "type": "http_port_t"}]}, "is no port"),
        (NAMES[0], {"booleans": {"httpd_can_network_connect": "perhaps"}}, "expected true or"),
        (NAMES[0], {"contexts": [{"target": "/srv/www", "type": "bni_t"}]}, "did you mean bin_t"),
        (NAMES[1], {"name": "mydaemon"}, "executables: nothing to enter the domain by"),
        (NAMES[1], {**examples(NAMES[1])[0], "priority": 0}, "priority: 0: expected a number"),
        (NAMES[1], {**examples(NAMES[1])[0], "denials_since": "x"}, "denials_since: 'x': expected"),
        (NAMES[1], {**examples(NAMES[1])[0], "capabilities": ["*"]}, "give force=true"),
        (NAMES[1], {**examples(NAMES[1])[0], "services": ["dns"]}, "value of services must be one"),
    ],
)
def test_wrong_options_are_named_and_nothing_changes(  # noqa: PLR0917 -- fixtures
    name: str,
    options: dict[str, Any],
    message: str,
    used: FakeSelinux,
    run_module: Callable[..., Any],
    snapshot: Callable[[Path], Any],
) -> None:
    before = snapshot(Path(used.host.root))
    outcome = run_module(name, options)
    assert outcome.failed
    assert message in outcome["msg"]
    assert snapshot(Path(used.host.root)) == before


@pytest.mark.parametrize("name", NAMES)
def test_a_refusal_tells_what_was_undone(
    name: str, used: FakeSelinux, run_module: Callable[..., Any]
) -> None:
    used.remember(immutable=["/opt/x/bin/daemon"])
    options = {
        NAMES[0]: {"contexts": [{"target": "/opt/x/bin/daemon", "type": "etc_t"}]},
        NAMES[1]: {"name": "mydaemon", "executables": ["/opt/x/bin/daemon"]},
    }[name]
    outcome = run_module(name, options)
    assert outcome.failed
    assert "/opt/x/bin/daemon" in outcome["msg"]
    assert len(outcome["undone"]) == 1
    assert outcome["not_undone"] == []


@pytest.mark.parametrize("name", NAMES)
def test_a_host_without_selinux_is_told_and_may_be_an_error(
    name: str,
    used: FakeSelinux,
    run_module: Callable[..., Any],
    snapshot: Callable[[Path], Any],
) -> None:
    used.host.path("/sys/fs/selinux/enforce").unlink()
    before = snapshot(Path(used.host.root))
    outcome = run_module(name, examples(name)[0])
    assert (outcome["changed"], outcome["status"]) == (False, "disabled")
    assert "does not run SELinux" in outcome["not_applicable"]
    assert run_module(name, {**examples(name)[0], "not_applicable": "fail"}).failed
    assert snapshot(Path(used.host.root)) == before


def test_a_permissive_host_is_changed_too(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, run_module: Callable[..., Any]
) -> None:
    selinux = build(tmp_path / "permissive", mode="permissive")
    monkeypatch.setattr(load(NAMES[0]), "Selinux", lambda _host: selinux)
    outcome = run_module(NAMES[0], examples(NAMES[0])[0])
    assert (outcome["changed"], outcome["status"]) == (True, "permissive")
