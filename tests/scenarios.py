# SPDX-License-Identifier: GPL-3.0-or-later
"""The scenarios of the roles on every platform: run, told apart by check, as matrix and metrics.

A *check* is what one or more steps of a scenario show together, such as that check mode leaves a
host in use byte-identical; the steps are those of .config/molecule/config.yml, or a scenario's own.
A platform that cannot be had here, a role that a platform lacks something for, and what is left to
`make test-platforms` are *not run*, by name. What passed on a platform that is not the real thing
is a *stand-in*.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Iterable, Iterator

import yaml
from lab import images
from lab.shell import ROOT, STATE, LabError, NotToBeHadError, environment, say

REPORTS = STATE / "reports"
METRICS = REPORTS / "consistency.prom"
# What the project promises: molecule/images has a definition of each.
SUPPORTED = ("debian-12", "centos-stream-9", "alpine-3.19", "ubuntu-22.04", "ubuntu-24.04")
# The scenario with hosts of several platforms, and the one of a playbook for a host without Python.
MIXED, MIXED_PLATFORM = "default", "mixed"
BOOTSTRAP, BOOTSTRAP_PLATFORMS = "bootstrap", ("debian-12", "alpine-3.19")  # the first each day
AS_ON_DEBIAN = "as on debian-12; `make test-platforms` runs it"  # why something is not run
NODES = 4  # of a scenario that has its own inventory, whose own list is empty
# What is enough for each day, since the rest does the same there as on Debian, which has every
# scenario, or as on every platform of the mixed network, which has all roles.
DAILY = {
    "alpine-3.19": ("kernel", "limits", "node", "selinux"),
    "centos-stream-9": ("kernel", "firewall", "pki"),  # its image lacks the library of pki
    "ubuntu-22.04": ("kernel",),
    "ubuntu-24.04": (),
}
CHECKS = (
    "set up",
    "check mode, fresh",
    "converge",
    "idempotence",
    "check mode, in use",
    "refusals",
)
VERIFY = "verify"
TEAR_DOWN = "tear down"
ALL_CHECKS = (*CHECKS, VERIFY, TEAR_DOWN)
SIDE_BY_SIDE = max(2, min(4, (os.cpu_count() or 2) // 2))  # two keep two cores busy
STEP = re.compile(
    r"\[(?P<role>[\w-]+) > (?P<action>\w+)\] (?:(?P<begins>Executing)|Executed: (?P<end>.+))$"
)
COLOUR = re.compile(r"\x1b\[[0-9;]*m")


@dataclass
class Run:
    """One scenario on one platform: how each check ended and how long it took, in seconds."""

    role: str
    platform: str
    real: bool
    checks: tuple[str, ...] = ALL_CHECKS  # those its scenario has
    ends: dict[str, str] = field(default_factory=dict)  # passed, failed; absent if not reached
    seconds: dict[str, float] = field(default_factory=dict)
    reached: list[str] = field(default_factory=list)  # the check of each step that ended
    log: Path | None = None

    @property
    def report(self) -> Path:
        """What testinfra wrote, if verify was reached."""
        return REPORTS / f"{self.role}-{self.platform}.xml"

    @property
    def passed(self) -> bool:
        """Whether every check was reached and passed."""
        return all(self.ends.get(check) == "passed" for check in self.checks)

    def cell(self, check: str) -> str:
        """The end of a check as the matrix shows it."""
        if check not in self.checks:
            return "-"
        end = self.ends.get(check, "not run")
        return "stand-in" if end == "passed" and not self.real else end


def checks_of(sequence: Iterable[str]) -> list[tuple[str, str]]:
    """The steps of a test sequence as (action, the check it belongs to)."""
    found: list[tuple[str, str]] = []
    check = CHECKS[0]
    for step in sequence:
        action, _, playbook = step.partition(" ")
        converged = ("converge", "converge") in found
        if action in ("converge", "idempotence", VERIFY):
            check = action
        elif action == "destroy" and converged:
            check = TEAR_DOWN
        elif action == "check" or playbook.endswith("record.yml"):
            check = CHECKS[4] if converged else CHECKS[1]
        elif playbook.endswith("refusals.yml"):
            check = CHECKS[5]
        found.append((action, check))
    return found


def follow(run: Run, lines: Iterable[tuple[float, str]], steps: list[tuple[str, str]]) -> None:
    """Note ends and times of the checks from molecule's output: (seconds, line) pairs."""
    position, began = 0, 0.0
    for seconds, line in lines:
        found = STEP.search(COLOUR.sub("", line.rstrip()))
        if not found or found["role"] != run.role:
            continue
        if found["action"] == "destroy" and position:
            position = len(steps) - 1  # also where a step before it failed
        if position >= len(steps) or found["action"] != steps[position][0]:
            continue
        check = steps[position][1]
        if found["begins"]:
            began = seconds
            continue
        optional = found["end"].startswith("Missing playbook") and found["action"] == "prepare"
        run.seconds[check] = run.seconds.get(check, 0.0) + seconds - began
        if run.ends.get(check) != "failed":
            run.ends[check] = "passed" if found["end"] == "Successful" or optional else "failed"
        position += 1
        run.reached.append(check)
    # what ended well so far, but was not reached to its end, is not passed
    for check, end in list(run.ends.items()):
        wanted = sum(belongs == check for _, belongs in steps)
        if end == "passed" and run.reached.count(check) < wanted:
            del run.ends[check]


def stamped(stream: Iterable[str], copy: Any) -> Iterator[tuple[float, str]]:
    """Each line with its time, written to a file as it comes."""
    for line in stream:
        copy.write(line)
        yield time.monotonic(), line


def execute(run: Run, **variables: str) -> Run:
    """Run a scenario to its end; its output goes to a file."""
    name = f"{run.role}-{run.platform}"
    steps = checks_of(sequence(run.role))
    run.checks = tuple(dict.fromkeys(check for _, check in steps))
    place = STATE / "molecule" / name  # else runs of two platforms, or two checkouts, share state
    shutil.rmtree(place, ignore_errors=True)
    run.report.unlink(missing_ok=True)
    run.log = REPORTS / f"{name}.log"
    env = environment(
        HOLDFAST_PLATFORM=run.platform, MOLECULE_EPHEMERAL_DIRECTORY=str(place), **variables
    )
    with run.log.open("w") as copy, subprocess.Popen(
        ["molecule", "test", "-s", run.role],
        cwd=ROOT,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    ) as child:
        follow(run, stamped(child.stdout or (), copy), steps)
    if child.returncode and run.passed:
        run.ends[TEAR_DOWN] = "failed"
    spent = sum(run.seconds.values())
    ended = [check for check in run.checks if run.ends.get(check) != "passed"]
    say(f"    {name}: {'passed' if run.passed else 'not passed: ' + ended[0]}, {spent:.0f} s")
    if not run.passed:
        tail = run.log.read_text().splitlines()[-60:]
        say("\n".join(f"      {line}" for line in tail))
    return run


def scenario(name: str) -> dict[str, Any]:
    """What a scenario has of its own."""
    return yaml.safe_load((ROOT / "molecule" / name / "molecule.yml").read_text()) or {}


def sequence(name: str) -> list[str]:
    """The steps of a scenario: its own, or those of all."""
    shared = yaml.safe_load((ROOT / ".config/molecule/config.yml").read_text())
    own = scenario(name).get("scenario") or {}
    return list(own.get("test_sequence") or shared["scenario"]["test_sequence"])


def roles() -> list[str]:
    """The roles that have a scenario."""
    found = [path.parent.name for path in (ROOT / "molecule").glob("*/refusals.yml")]
    return sorted(role for role in found if (ROOT / "roles" / role).is_dir())


def hosts(role: str) -> int:
    """With how many hosts a scenario is, or nodes on one."""
    listed = scenario(role).get("platforms", [{}])  # that of .config/molecule/config.yml
    return len(listed) or NODES


def members() -> dict[str, str]:
    """The platform of each host of the mixed network."""
    text = (ROOT / "molecule" / MIXED / "inventory" / "hosts.yml").read_text()
    hosts = yaml.safe_load(text)["chain"]["children"]["validators"]["hosts"]
    return {name: values["lab_platform"] for name, values in hosts.items()}


@dataclass
class Plan:
    """What can be run here, once its images are there, and what cannot, with the reason."""

    runs: list[Run] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)  # images that could be had, but not made


def planned() -> Plan:
    """Make the images that can be had, and say what is run on them."""
    plan, had = Plan(), {}
    only = os.environ.get("HOLDFAST_PLATFORM") and images.named(os.environ["HOLDFAST_PLATFORM"])
    everything = bool(only) or os.environ.get("HOLDFAST_PLATFORMS") == "all"
    for platform in SUPPORTED:
        if only not in (None, "", platform):
            continue
        try:
            wanted = had[platform] = images.describe(platform)
        except NotToBeHadError as error:
            plan.missing.append(f"{platform}, all roles: {str(error).splitlines()[0]}")
            continue
        except LabError as error:
            say(f"    {platform}: {error}")
            plan.missing.append(f"{platform}, all roles: its image could not be made")
            plan.broken.append(f"image of {platform} (see above)")
            continue
        without = wanted.get("without", {})
        daily = roles() if everything else DAILY.get(platform, roles())
        left = ", ".join(role for role in roles() if role not in daily)
        if left:
            plan.missing.append(f"{platform}, {left}: {AS_ON_DEBIAN}")
        for role in daily:
            if role in without:
                plan.missing.append(f"{platform}, {role}: {without[role]}")
            else:
                plan.runs.append(Run(role, platform, wanted["kind"] == "real"))
    # the longest first, so that none is last alone
    plan.runs.sort(key=lambda run: -hosts(run.role))
    for platform in filter(had.__contains__, BOOTSTRAP_PLATFORMS):
        if everything or platform == BOOTSTRAP_PLATFORMS[0]:
            plan.runs.insert(0, Run(BOOTSTRAP, platform, had[platform]["kind"] == "real"))
        else:
            plan.missing.append(f"{platform}, {BOOTSTRAP}: {AS_ON_DEBIAN}")
    if not only:
        of_all, why = mixed(had)
        plan.runs[:0] = of_all
        plan.missing += why
    return plan


def mixed(had: dict[str, dict[str, Any]]) -> tuple[list[Run], list[str]]:
    """The network of several platforms, if all of them can be had; what its hosts do without."""
    lacking = sorted({*members().values()} - had.keys())
    if lacking:
        return [], [f"{MIXED_PLATFORM}, {MIXED}: needs {', '.join(lacking)}"]
    missing = [
        f"{MIXED_PLATFORM}, {role} on {name} ({platform}): {why}"
        for name, platform in members().items()
        for role, why in had[platform].get("without", {}).items()
    ]
    real = all(had[platform]["kind"] == "real" for platform in members().values())
    return [Run(MIXED, MIXED_PLATFORM, real)], missing


def run_all(**variables: str) -> Plan:
    """Run all scenarios that can be run, some side by side; write the metrics."""
    plan = planned()
    say(f"    {len(plan.runs)} scenarios, {SIDE_BY_SIDE} side by side; logs in .holdfast/reports")
    with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
        plan.runs = list(pool.map(lambda run: execute(run, **variables), plan.runs))
    METRICS.write_text(metrics(plan.runs))
    return plan


def matrix(runs: Iterable[Run], missing: Iterable[str]) -> str:
    """Platform x role x check as a table, and below it what was not run."""
    rows = [("platform", "role", *ALL_CHECKS)]
    rows += [
        (run.platform, run.role, *(run.cell(check) for check in ALL_CHECKS))
        for run in sorted(runs, key=lambda run: (run.platform, run.role))
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)) for row in rows]
    return "\n".join([line.rstrip() for line in lines] + [f"not run: {what}" for what in missing])


def times(runs: Iterable[Run]) -> str:
    """Where the time went: by check over all runs, and by run."""
    runs = list(runs)
    by_check = {
        check: sum(run.seconds.get(check, 0.0) for run in runs) for check in ALL_CHECKS if runs
    }
    by_run = {f"{run.role} on {run.platform}": sum(run.seconds.values()) for run in runs}
    lines = []
    for title, table in (("check", by_check), ("scenario", by_run)):
        lines.append(f"{title:<28}{'time':>9}")
        for name, spent in sorted(table.items(), key=lambda entry: -entry[1]):
            lines.append(f"{name:<28}{spent:>7.1f} s")
    return "\n".join(lines)


def label(text: str) -> str:
    """A check's name as the value of a label."""
    return re.sub(r"\W+", "_", text)


def metrics(runs: Iterable[Run]) -> str:
    """The runs in Prometheus' text format."""
    runs = list(runs)
    duration, failures = "cross_platform_test_duration_seconds", "consistency_failure_count"
    lines = [
        f"# HELP {duration} How long a check of a role took on a platform.",
        f"# TYPE {duration} gauge",
    ]
    for run in runs:
        for check, spent in run.seconds.items():
            test = f"{run.role}/{label(check)}"
            lines.append(f'{duration}{{platform="{run.platform}",test="{test}"}} {spent:.3f}')
    lines += [
        f"# HELP {failures} How many roles failed a check on a platform.",
        f"# TYPE {failures} gauge",
    ]
    for platform in sorted({run.platform for run in runs}):
        for check in ALL_CHECKS:
            failed = sum(
                run.ends.get(check) == "failed" for run in runs if run.platform == platform
            )
            lines.append(f'{failures}{{platform="{platform}",reason="{label(check)}"}} {failed}')
    return "\n".join([*lines, ""])
