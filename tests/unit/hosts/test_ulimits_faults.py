# Copyright: (c) 2026, Holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""ulimits: whatever fails or kills it, the host is as before or the next run repairs it."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.holdfast.chain.plugins.module_utils.limits_apply import run
from ansible_collections.holdfast.chain.plugins.module_utils.transaction import TransactionError
from fake_host import FakeHost, build
from faults import DiskFullError, at_each_call, failing_at, killed_at, numbers
from test_ulimits import ask, with_service

GIVE = ask(user="node", service="node@v1")
TAKE = ask(user="node", service="node@v1", present=False)
# Changes nothing by itself, and is the same task to the journal.
NOTHING = ask(user="node", service="node@v1", present=False, limits={"stack": None})


def prepared(root: Path, present: bool) -> FakeHost:
    host = with_service(build(root, "systemd"))
    if not present:
        run(host, GIVE, check=False)
    return host


@pytest.mark.parametrize("present", [True, False])
def test_a_failure_at_any_step_leaves_the_host_as_it_was(tmp_path: Path, present: bool) -> None:
    failed = 0
    host = prepared(tmp_path / "0", present)
    before = host.everything()
    for number in numbers():
        with pytest.MonkeyPatch.context() as patch:
            done = at_each_call(patch, host, failing_at(number))
            try:
                _result, warnings = run(host, GIVE if present else TAKE, check=False)
            except (TransactionError, DiskFullError):
                failed += 1
                assert host.everything() == before, f"call {number}"
                continue
        if done() < number:
            break
        assert warnings, f"call {number} failed, and nobody was told"
        host = prepared(tmp_path / str(number), present)
    assert failed > 8


@pytest.mark.parametrize("present", [True, False])
def test_killed_at_any_step_the_next_run_repairs_and_says_so(tmp_path: Path, present: bool) -> None:
    request = GIVE if present else TAKE
    whole = prepared(tmp_path / "whole", present)
    run(whole, request, check=False)
    wanted = whole.everything()
    host = prepared(tmp_path / "0", present)
    before = host.everything()
    told = 0
    for number in numbers():
        if not killed_at(number, host, lambda host=host: run(host, request, check=False)):
            break
        left = {name: item for name, item in host.everything().items() if "/.holdfast" not in name}
        promised = run(host, NOTHING, check=True)[0]
        result = run(host, NOTHING, check=False)[0]
        assert result["changes"] == promised["changes"]
        after = host.everything()
        assert after in (before, wanted), f"killed before call {number}"
        if after == wanted:  # it had got to the end
            host = prepared(tmp_path / str(number), present)
        elif any(left.get(name) != before[name] for name in before):
            assert result["repaired"], "it repaired, and said nothing"
            told += 1
    assert number > 8
    assert told > 1
