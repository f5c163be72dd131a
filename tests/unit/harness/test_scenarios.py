# SPDX-License-Identifier: GPL-3.0-or-later
"""The matrix and the metrics of the roles' scenarios, from molecule's words."""

from __future__ import annotations

import json
import re
import subprocess
from itertools import count
from pathlib import Path

import pytest
import scenarios
import yaml
from lab import images
from lab.shell import QUICK, LabError, NotToBeHadError, environment
from prometheus_client.parser import text_string_to_metric_families
from scenarios import (
    ALL_CHECKS,
    BOOTSTRAP,
    MIXED,
    Run,
    checks_of,
    follow,
    matrix,
    metrics,
    scenario,
    times,
)

ROOT = Path(__file__).resolve().parents[3]
SHARED = yaml.safe_load((ROOT / ".config/molecule/config.yml").read_text())
SEQUENCE = SHARED["scenario"]["test_sequence"]
STEPS = checks_of(SEQUENCE)


def output(fail_at: int = -1, prepared: bool = True, role: str = "kernel") -> list[str]:
    """What molecule says; one step may fail, after which it only destroys."""
    lines = []
    for number, (action, _) in enumerate(STEPS):
        lines += [f"INFO     [{role} > {action}] Executing", "", "TASK [x] ****", "ok: [host]"]
        if number == fail_at:
            lines.append(f"ERROR    [{role} > {action}] \x1b[31mExecuted: Failed\x1b[0m")
            lines += [f"INFO     [{role} > cleanup] Executing"]
            lines += [f"INFO     [{role} > cleanup] Executed: Missing playbook"]
            lines += [f"INFO     [{role} > destroy] Executing"]
            return [*lines, f"INFO     [{role} > destroy] Executed: Successful"]
        missing = action == "prepare" and not prepared
        end = "Missing playbook (Remove from test_sequence)" if missing else "Successful"
        lines.append(f"INFO     [{role} > {action}] Executed: {end}")
    return [*lines, "DETAILS", f"{role} > destroy: Executed: Successful"]


def followed(lines: list[str], real: bool = True) -> Run:
    """A run that printed these lines, one a second."""
    run = Run("kernel", "debian-12", real)
    follow(run, zip(map(float, count()), lines), STEPS)
    return run


def test_scenarios_are_as_quick_as_the_lab() -> None:
    """Molecule takes no settings from Python; and two scenarios show what users have."""
    given = dict(SHARED["ansible"]["env"])
    assert given.pop("ANSIBLE_STRATEGY") == f"${{ANSIBLE_STRATEGY:-{QUICK['ANSIBLE_STRATEGY']}}}"
    rest = {name: QUICK[name] for name in QUICK if name != "ANSIBLE_STRATEGY"}
    root = "${MOLECULE_PROJECT_DIRECTORY}"
    assert {name: given[name].replace(root, str(ROOT)) for name in rest} == rest
    own = {name: scenario(name)["ansible"].get("env", {}) for name in (MIXED, BOOTSTRAP)}
    assert {env["ANSIBLE_STRATEGY"] for env in own.values()} == {"linear"}


def test_what_runs_quickly_has_all_processors(tmp_path: Path) -> None:
    """By itself Mitogen ties what it starts, the hosts of a scenario as well, to one or some."""
    command = {"cmd": "taskset -cp $$"}
    task = {"ansible.builtin.shell": command, "register": "seen"}
    show = {"ansible.builtin.debug": {"msg": "{{ seen.stdout }}"}}
    play = {"hosts": "localhost", "gather_facts": False, "tasks": [task, show]}
    playbook = tmp_path / "play.yml"
    playbook.write_text(json.dumps([play]))
    done = subprocess.run(
        ["ansible-playbook", str(playbook)], env=environment(**QUICK), capture_output=True,
        text=True, check=True, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    own = subprocess.run(
        ["sh", "-c", "taskset -cp $$"], capture_output=True, text=True, check=True
    ).stdout
    assert own.split(":")[1].strip() in re.findall(r"affinity list: ([\d,-]+)", done.stdout)


def test_every_check_is_in_the_sequence() -> None:
    """A column that nothing fills would be an empty promise."""
    assert list(dict.fromkeys(check for _, check in STEPS)) == list(ALL_CHECKS)


@pytest.mark.parametrize("prepared", [True, False])
def test_all_passed(prepared: bool) -> None:
    """Also without a playbook that prepares, which is optional."""
    run = followed(output(prepared=prepared))
    assert run.passed
    assert run.ends == dict.fromkeys(ALL_CHECKS, "passed")


@pytest.mark.parametrize("fail_at", range(len(STEPS)))
def test_failure_is_told_and_what_follows_is_not_run(fail_at: int) -> None:
    """Whichever step fails: its check failed, those before passed, those after are not run."""
    run = followed(output(fail_at))
    failed = STEPS[fail_at][1]
    place = ALL_CHECKS.index(failed)
    assert not run.passed
    assert run.cell(failed) == "failed"
    assert [run.cell(check) for check in ALL_CHECKS[:place]] == ["passed"] * place
    assert {run.cell(check) for check in ALL_CHECKS[place + 1 : -1]} <= {"not run"}


@pytest.mark.parametrize("length", [0, 9, 40])
def test_output_that_breaks_off_is_not_passed(length: int) -> None:
    """Molecule was killed: what was not reached to its end did not pass."""
    run = followed(output()[:length])
    assert not run.passed
    assert run.cell(scenarios.VERIFY) == "not run"


def test_missing_playbook_of_a_check_is_a_failure() -> None:
    """Molecule passes over it, and calls that a success."""
    lines = [
        line.replace("converge] Executed: Successful", "converge] Executed: Missing playbook")
        for line in output()
    ]
    assert followed(lines).cell("converge") == "failed"


def test_matrix_names_stand_ins_and_what_was_not_run() -> None:
    """A stand-in that passed is never called passed."""
    stand_in = followed(output(), real=False)
    text = matrix([followed(output()), stand_in], ["ubuntu-22.04, all roles: no image"])
    rows = text.splitlines()
    assert rows[0].split()[:2] == ["platform", "role"]
    assert "stand-in" not in rows[1]
    assert "passed" not in rows[2]
    assert rows[2].count("stand-in") == len(ALL_CHECKS)
    assert rows[3] == "not run: ubuntu-22.04, all roles: no image"


def test_metrics_are_prometheus_text() -> None:
    """Durations of what ran, failures by platform and reason, zeros included."""
    place = [check for _, check in STEPS].index("idempotence")
    families = {
        family.name: family
        for family in text_string_to_metric_families(metrics([followed(output(place))]))
    }
    durations = families["cross_platform_test_duration_seconds"].samples
    assert {sample.labels["test"] for sample in durations} >= {"kernel/converge"}
    assert all(sample.value > 0 for sample in durations)
    failures = {
        sample.labels["reason"]: sample.value
        for sample in families["consistency_failure_count"].samples
    }
    assert failures["idempotence"] == 1
    assert sum(failures.values()) == 1
    assert len(failures) == len(ALL_CHECKS)


def test_times_add_up() -> None:
    """By check and by scenario, the same sum."""
    run = followed(output())
    shown = [float(line.split()[-2]) for line in times([run]).splitlines() if line.endswith(" s")]
    assert shown[-1] == pytest.approx(sum(shown[:-1]))


@pytest.mark.parametrize("name", ["kernel", scenarios.MIXED, scenarios.BOOTSTRAP])
def test_scenario_has_the_checks_of_its_steps(name: str) -> None:
    """Its own sequence if it has one; a check it lacks is neither passed nor missed."""
    steps = checks_of(scenarios.sequence(name))
    run = Run(name, "debian-12", True, tuple(dict.fromkeys(check for _, check in steps)))
    lines = [
        line
        for action, _ in steps
        for line in (f"[{name} > {action}] Executing", f"[{name} > {action}] Executed: Successful")
    ]
    follow(run, zip(map(float, count()), lines), steps)
    assert run.passed
    assert set(ALL_CHECKS) - {"refusals"} <= set(run.checks)
    assert [check for check in ALL_CHECKS if run.cell(check) == "-"] == [
        check for check in ALL_CHECKS if check not in run.checks
    ]


def test_every_host_of_the_mixed_network_has_a_supported_platform() -> None:
    """And no two have the same."""
    platforms = list(scenarios.members().values())
    assert len(set(platforms)) == len(platforms) == 4
    assert set(platforms) <= set(scenarios.SUPPORTED)


def test_mixed_network_says_what_its_hosts_do_without() -> None:
    """By role, host and platform; and it is no run where one of its platforms cannot be had."""
    had = {platform: {"kind": "real"} for platform in scenarios.members().values()}
    had["alpine-3.19"] = {"kind": "another", "without": {"clock": "no chrony"}}
    (run,), missing = scenarios.mixed(had)
    assert not run.real
    assert missing == ["mixed, clock on v4 (alpine-3.19): no chrony"]
    del had["alpine-3.19"]
    assert scenarios.mixed(had) == ([], ["mixed, default: needs alpine-3.19"])


def test_an_image_that_cannot_be_made_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    """What cannot be had is no more than not run; the other platforms are run all the same."""

    def describe(platform: str) -> dict[str, str]:
        if platform == "alpine-3.19":
            raise NotToBeHadError("no image of it can be had\nor so")
        if platform == "ubuntu-24.04":
            raise LabError("`podman build` ended with 127")
        return {"kind": "real"}

    monkeypatch.setattr(images, "describe", describe)
    monkeypatch.delenv("HOLDFAST_PLATFORM", raising=False)
    plan = scenarios.planned()
    assert plan.broken == ["image of ubuntu-24.04 (see above)"]
    assert "alpine-3.19, all roles: no image of it can be had" in plan.missing
    assert "ubuntu-24.04, all roles: its image could not be made" in plan.missing
    assert {run.platform for run in plan.runs} == {"debian-12", "centos-stream-9", "ubuntu-22.04"}
