# Copyright: (c) 2026, Holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whatever fails or kills a run, the host is as before or the next run repairs it, and says so."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any, Callable

import pytest
from ansible_collections.holdfast.chain.plugins.module_utils import selinux_apply, selinux_module
from ansible_collections.holdfast.chain.plugins.module_utils.selinux_cil import relied_on, render
from ansible_collections.holdfast.chain.plugins.module_utils.selinux_needs import Needs, PathNeed
from ansible_collections.holdfast.chain.plugins.module_utils.selinux_plan import (
    Request,
    WantedFile,
    WantedPort,
)
from ansible_collections.holdfast.chain.plugins.module_utils.transaction import TransactionError
from fake_selinux import TYPES, FakeSelinux, build, everything
from faults import DiskFullError, at_each_call, failing_at, numbers

WWW = WantedFile("/srv/www(/.*)?", "a", "httpd_sys_content_t")
NEEDS = Needs(
    "probe",
    executables=("/opt/x/bin/daemon",),
    read=(PathNeed("/etc/x"),),
    write=(PathNeed("/var/lib/x"),),
)
CONTEXT = Request(
    (WWW, WantedFile("/srv/www/upload(/.*)?", "a", "httpd_sys_rw_content_t")),
    (WantedPort("tcp", 8080, 8080, "http_port_t"),),
    {"httpd_can_network_connect": True},
)
LEFT = Request((WantedFile("/srv/base(/.*)?", "a", "etc_t"),), (), {"httpd_enable_homedirs": False})


def context(**changes: Any) -> Callable[[FakeSelinux, bool], dict[str, Any]]:
    request = Request(**{**vars(CONTEXT), **changes})
    return lambda selinux, check=False: selinux_apply.run_on(selinux, request, check)[0]


def policy(**changes: Any) -> Callable[[FakeSelinux, bool], dict[str, Any]]:
    request = selinux_module.Request(NEEDS, **changes)
    return lambda selinux, check=False: selinux_module.run_on(selinux, request, check)[0]


# What is tried, what comes before it, and a task of the same kind that changes nothing itself.
CASES = {
    "context present": (context(), None, context(files=(), ports=(), booleans={})),
    "context absent": (context(present=False), context(), context(files=(), ports=(), booleans={})),
    "policy present": (policy(), None, None),
    "policy absent": (policy(present=False), policy(), None),
}


@pytest.fixture(autouse=True)
def whole_policy(monkeypatch: pytest.MonkeyPatch) -> None:
    """The stand-in knows every type that a module relies on."""
    monkeypatch.setattr("fake_selinux.TYPES", TYPES | relied_on(render(NEEDS)))


def prepared(root: Path, case: str) -> FakeSelinux:
    selinux = build(root)
    selinux_apply.run_on(selinux, LEFT, check=False)
    before = CASES[case][1]
    if before is not None:
        before(selinux, False)
    return selinux


def host_faults(
    patch: pytest.MonkeyPatch, selinux: FakeSelinux, strike: Callable[[str], None]
) -> Callable[[], int]:
    """As faults.at_each_call, for the tools and the kernel of SELinux too."""

    class Kernel:
        before_write: Callable[[str], None]
        before_limit: Callable[[str], None]

    kernel = Kernel()
    done = at_each_call(patch, kernel, strike)  # type: ignore[arg-type]  # it only needs hooks
    patch.setattr(selinux, "before", kernel.before_write)
    return done


@pytest.mark.parametrize("case", CASES)
def test_a_failure_at_any_step_leaves_the_host_as_it_was(tmp_path: Path, case: str) -> None:
    failed = 0
    selinux = prepared(tmp_path / "0", case)
    before = meaning(selinux)
    for number in numbers():
        with pytest.MonkeyPatch.context() as patch:
            done = host_faults(patch, selinux, failing_at(number))
            try:
                CASES[case][0](selinux, False)
            except (TransactionError, DiskFullError):
                failed += 1
                assert meaning(selinux) == before, f"call {number}"
                continue
        if done() < number:
            break
        selinux = prepared(tmp_path / str(number), case)  # it failed in cleaning up, and was told
    assert failed > 8


def meaning(selinux: FakeSelinux) -> dict[str, Any]:
    """All that counts. libsemanage leaves headers of files that are empty again."""
    found = everything(selinux)
    for name, entry in list(found.items()):
        if name.startswith("/") and isinstance(entry[1], bytes) and name.endswith(".local"):
            lines = [line for line in entry[1].splitlines() if line and not line.startswith(b"#")]
            found[name] = lines
            if not lines:
                del found[name]
        elif "policy." in name:
            del found[name]  # holds the texts above
    return found


def killed_at(number: int, selinux: FakeSelinux, work: Callable[[], Any]) -> bool:
    """Run work in a child that is killed -9 before its number-th call; whether it got that far."""
    child = os.fork()
    if child == 0:
        left = [number]

        def strike(_name: str) -> None:
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)

        code = 1
        try:
            with pytest.MonkeyPatch.context() as patch:
                host_faults(patch, selinux, strike)
                work()
            code = 0
        finally:
            os._exit(code)
    _pid, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return True
    assert os.WEXITSTATUS(status) == 0, "the run failed without any fault"
    return False


@pytest.mark.parametrize("reboot", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_killed_at_any_step_the_next_run_repairs_and_says_so(
    tmp_path: Path, case: str, reboot: bool
) -> None:
    run = CASES[case][0]
    whole = prepared(tmp_path / "whole", case)
    run(whole, False)
    if reboot:  # what was kept until then is decided by it
        whole.reboot()
    wanted = meaning(whole)
    selinux = prepared(tmp_path / "0", case)
    before = meaning(selinux)
    told = 0
    for number in numbers():
        if not killed_at(number, selinux, lambda selinux=selinux: run(selinux, False)):
            break
        if reboot:
            selinux.reboot()
        left = {name: item for name, item in meaning(selinux).items() if "holdfast" not in name}
        promised = run(selinux, True)
        result = run(selinux, False)
        assert after(result) == after(promised), f"killed before call {number}"
        assert run(selinux, False)["changed"] is False
        if reboot:
            selinux.reboot()
        assert meaning(selinux) == wanted, f"killed before call {number}"
        if any(left.get(name) != before[name] for name in before) and left != wanted:
            told += bool(result["repaired"])
            assert result["repaired"] or result["changed"], f"call {number}: said nothing"
        selinux = prepared(tmp_path / str(number), case)
    assert number > 8
    assert told > 1


def after(result: dict[str, Any]) -> list[tuple[Any, Any]]:
    """What changes to what. Which type a port has below a local definition, nothing tells."""
    return [(change["target"], change["after"]) for change in result["changes"]]


@pytest.mark.parametrize("case", ["context present", "context absent"])
def test_killed_at_any_step_a_task_without_changes_puts_all_back(tmp_path: Path, case: str) -> None:
    run, _first, idle = CASES[case]
    assert idle is not None
    selinux = prepared(tmp_path / "0", case)
    before = meaning(selinux)
    whole = prepared(tmp_path / "whole", case)
    run(whole, False)
    wanted = meaning(whole)
    for number in numbers():
        if not killed_at(number, selinux, lambda selinux=selinux: run(selinux, False)):
            break
        idle(selinux, False)
        after = meaning(selinux)
        assert after in (before, wanted), f"killed before call {number}"
        if after == wanted:
            selinux = prepared(tmp_path / str(number), case)
    assert number > 8


def test_a_policy_the_kernel_refuses_after_the_commit_is_taken_back(tmp_path: Path) -> None:
    for case in ("context present", "policy present"):
        selinux = prepared(tmp_path / case.replace(" ", "-"), case)
        before = meaning(selinux)
        selinux.kernel_refuses = True
        with pytest.raises(TransactionError, match="load_policy returned error"):
            CASES[case][0](selinux, False)
        assert meaning(selinux) == before


def test_a_label_that_cannot_be_given_takes_all_back(tmp_path: Path) -> None:
    for case, path in (("context present", "/srv/www/upload/a"), ("policy present", "/etc/x/conf")):
        selinux = prepared(tmp_path / case.replace(" ", "-"), case)
        selinux.remember(immutable=[path])
        before = meaning(selinux)
        with pytest.raises(TransactionError, match=f"label {path}") as caught:
            CASES[case][0](selinux, False)
        assert any("import" in step or "install" in step for step in caught.value.undone)
        assert meaning(selinux) == before


def test_what_somebody_else_changed_since_is_left_and_told(tmp_path: Path) -> None:
    selinux = prepared(tmp_path / "host", "context present")
    run = CASES["context present"][0]
    for number in numbers():
        assert killed_at(number, selinux, lambda selinux=selinux: run(selinux, False))
        if selinux.customisations("targeted").ports:
            break
        selinux = prepared(tmp_path / str(number), "context present")
    selinux.import_script(["port -d -p tcp 8080"])
    request = Request()
    _result, warnings = selinux_apply.run_on(selinux, request, check=False)
    assert any("changed since by somebody else" in warning for warning in warnings)
