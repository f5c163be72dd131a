# SPDX-License-Identifier: GPL-3.0-or-later
"""Run layers of tests and add up honestly: ``python tests/run.py lint unit ...``.

Layers that leave a core idle run beside each other where they follow each other, and images are
made beside what needs none; what such a layer prints comes in one piece when it is done. Each lint
tool, each check of a role's scenario and each other Molecule run counts as one test; pytest and
ansible-test are counted from the JUnit files they write. A layer that ends before it could count
anything is one failure. The exit code is 0 only if nothing failed.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Callable, Iterator, Sequence
from xml.etree import ElementTree as Xml

ROOT = Path(__file__).resolve().parents[1]
NODE = ROOT / "files" / "node"
STATE = ROOT / ".holdfast"
REPORTS = STATE / "reports"
sys.path.insert(0, str(ROOT / "molecule"))
sys.path.insert(0, str(ROOT / "tests" / "faults"))

import isolation  # noqa: E402 -- of the layer of faults, which is no installed package
import scenarios  # noqa: E402 -- it needs the lab, which is no installed package
from lab.shell import (  # noqa: E402
    LabError,
    NotToBeHadError,
    capture,
    environment,
    given_back,
    say,
    stream,
)
from lab.vm.build import prepare, provide  # noqa: E402

# What Ansible's rules are for; the node, the lab and the tests have tools of their own.
SHIPPED = re.compile(
    r"(plugins|roles|playbooks|inventories|meta|changelogs|docs|tests/sanity)/|galaxy.yml|[A-Z]+\.md"
)
ROOM = 2 * 2**30  # bytes free in memory, of which these tests take a small part
# Where the tools print for people who are not there: a width, and no colours in log files.
STEADY = {} if sys.stdout.isatty() else {"COLUMNS": "160", "NO_COLOR": "1"}


@dataclass
class Count:
    """How many tests of a layer had which end, and what could not be run here."""

    passed: int = 0
    failed: int = 0
    skipped: int = 0
    not_run: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def add(self, other: Count) -> None:
        """Add the counts of another layer or tool."""
        self.passed += other.passed
        self.failed += other.failed
        self.skipped += other.skipped
        self.not_run += other.not_run
        self.failures += other.failures


def run(command: list[str], cwd: Path = ROOT, **variables: str) -> bool:
    """Run with output going where ours goes; whether it ended with 0."""
    say(f"    $ {' '.join(command)}")
    env = environment(**STEADY, **variables)
    done = subprocess.run(command, cwd=cwd, env=env, stdin=subprocess.DEVNULL, check=False)
    return done.returncode == 0


def one(name: str, passed: bool) -> Count:
    """A tool as a single test."""
    return Count(passed=1) if passed else Count(failed=1, failures=[name])


def junit(paths: list[Path], name: str, passed: bool) -> Count:
    """Add up JUnit files of one program; a failed program counts at least one failure."""
    count = Count()
    for path in paths:
        for case in Xml.parse(path).getroot().iter("testcase"):  # noqa: S314 -- written by our tools
            if case.find("failure") is not None or case.find("error") is not None:
                count.failed += 1
                count.failures.append(f"{case.get('classname')}::{case.get('name')}")
            elif case.find("skipped") is not None:
                count.skipped += 1
            else:
                count.passed += 1
    if not passed and not count.failed:
        count.add(Count(failed=1, failures=[f"{name} (see its output above)"]))
    if passed and not count.passed + count.skipped:
        count.add(Count(failed=1, failures=[f"{name}: ended well, but no test was counted"]))
    return count


def pytest(
    name: str, target: str, cwd: Path = ROOT, prefix: Sequence[str] = (), **variables: str
) -> Count:
    """Run pytest on a folder, by a command that `prefix` begins, and count its report."""
    report = REPORTS / f"{name}.xml"
    report.unlink(missing_ok=True)
    command = [sys.executable, "-m", "pytest", "-q", "--tb=short", target, f"--junit-xml={report}"]
    passed = run([*prefix, *command], cwd, **variables)
    return junit([report] if report.exists() else [], name, passed)


def lint() -> Count:
    """Style, correctness rules and types."""
    count = one("ruff", run(["ruff", "check", "."]))
    count.add(one("ruff (node)", run(["ruff", "check", "."], NODE)))
    count.add(one("mypy (node)", run(["mypy"], NODE)))
    count.add(one("yamllint", run(["yamllint", "--strict", "."])))
    command = ["ansible-lint", "--offline", "--strict", "--profile", "production"]
    count.add(one("ansible-lint", run(command)))
    return count


def tracked() -> list[str]:
    """Files of the checkout, new ones included, without what is ignored."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listing = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return [name for name in listing.split("\0") if name and (ROOT / name).is_file()]


def sanity() -> Count:
    """ansible-test sanity, on a copy at the path it demands, with a home of its own."""
    home = STATE / "sanity"  # keeps its virtual environments
    bootstrap_pip(home)
    # not below the checkout, whose .gitignore would tell ansible-test to ignore all of it
    with tempfile.TemporaryDirectory() as place:
        copy = Path(place) / "ansible_collections" / "holdfast" / "chain"
        for name in filter(SHIPPED.match, tracked()):
            target = copy / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target)
        command = ["ansible-test", "sanity", "--color", "no", "--junit"]
        passed = run(command, copy, HOME=str(home), PATH=path_of_pythons())
        return junit(sorted(copy.glob("tests/output/junit/*.xml")), "ansible-test sanity", passed)


def path_of_pythons() -> str:
    """PATH for ansible-test, which takes every pythonX.Y on it for a Python that works.

    With pyenv most of them are stand-ins that fail; the Pythons they stand for come in their place.
    """
    folders = [Path(name) for name in environment()["PATH"].split(os.pathsep)]
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    kept = [folder for folder in folders if not folder.is_relative_to(pyenv / "shims")]
    return os.pathsep.join(map(str, [*kept, *sorted(pyenv.glob("versions/*/bin"))]))


def bootstrap_pip(home: Path) -> None:
    """Let ansible-test make its environments without its download site: pip comes from PyPI.

    It looks for get_pip_<version>.py in its cache first; ours starts with Python's own ensurepip.
    It also hides pip's variables (proxies, certificates) from what it runs, but not a pip.conf.
    """
    cache = home / ".ansible" / "test" / "cache"
    cache.mkdir(parents=True, exist_ok=True)
    (cache / "get_pip_24_2.py").write_text(
        "import ensurepip, os, subprocess, sys\n"
        "env = dict(os.environ)  # ensurepip turns pip's configuration off\n"
        "ensurepip.bootstrap()\n"
        "pip = [sys.executable, '-m', 'pip', 'install', '--quiet', '--upgrade']\n"
        "sys.exit(subprocess.call([*pip, 'pip==24.2'], env=env))\n"
    )
    listing = capture([sys.executable, "-m", "pip", "config", "list"])
    options = dict(re.findall(r"^(?:global|:env:)\.([a-z-]+)='(.*)'$", listing, re.MULTILINE))
    if "SSL_CERT_FILE" in os.environ:
        options.setdefault("cert", os.environ["SSL_CERT_FILE"])
    conf = home / ".config" / "pip" / "pip.conf"
    conf.parent.mkdir(parents=True, exist_ok=True)
    conf.touch(mode=0o600)  # an index address may hold a password
    lines = [f"{name} = {value}" for name, value in options.items()]
    conf.write_text("\n".join(["[global]", *lines, ""]))


@contextmanager
def folder_in_memory() -> Iterator[dict[str, str]]:
    """TMPDIR for tests that make and remove tens of thousands of files, if memory has room."""
    shared = Path("/dev/shm")  # noqa: S108 -- a folder of its own is made in it
    facts = os.statvfs(shared) if os.access(shared, os.W_OK) else None
    if not facts or facts.f_flag & os.ST_NOEXEC or facts.f_bavail * facts.f_frsize < ROOM:
        yield {}
        return
    with tempfile.TemporaryDirectory(prefix="hf-", dir=shared) as place:  # short: sockets are in it
        yield {"TMPDIR": place}


def unit() -> Count:
    """Unit tests of the collection and of the node."""
    # What passed is removed at once: memory is not for keeping it.
    options = "-n 2 --dist worksteal -o tmp_path_retention_policy=failed"
    with folder_in_memory() as place:
        count = pytest("unit", "tests/unit", PYTEST_ADDOPTS=options, **place)
        options += " --ignore=tests/network"
        count.add(pytest("node", "tests", NODE, PYTEST_ADDOPTS=options, **place))
    return count


def loopback() -> Count:
    """Real nodes on this machine's loopback, by their own command."""
    # short time-outs, so not beside what takes all processors; two files at a time
    return pytest("loopback", "tests/network", NODE, PYTEST_ADDOPTS="-n 2 --dist loadfile")


def images() -> Count:
    """What container hosts and virtual machines start from."""
    broken = scenarios.planned().broken
    count = Count(failed=len(broken), failures=broken)
    # What cannot be had, and why, is said by the layers that need it.
    with suppress(NotToBeHadError):
        count.add(virtual_machine())
    return count


def virtual_machine() -> Count:
    """Make what virtual machines start from; NotToBeHadError where this machine can have none."""
    try:
        prepare()
        provide()
    except NotToBeHadError:
        raise
    except LabError as error:
        say(f"    {error}")
        return one("making the virtual machine (see its output above)", False)
    return Count()


def artifact() -> Count:
    """The built collection, installed where the checkout is not."""
    return pytest("artifact", "tests/artifact")


def faults() -> Count:
    """Four real nodes in namespaces: machines, disks, clocks and links that fail under load."""
    reason = isolation.unavailable()
    prefix = [] if reason else isolation.command()
    options = "--durations=0 --durations-min=5"
    variables = {isolation.NOT_RUN: reason, "PYTEST_ADDOPTS": options}
    count = pytest("faults", "tests/faults", prefix=prefix, **variables)
    count.not_run += skipped_with_reasons(REPORTS / "faults.xml")
    return count


def skipped_with_reasons(report: Path) -> list[str]:
    """What was skipped and why, for a layer that skips only what cannot be had on the machine."""
    cases = Xml.parse(report).getroot().iter("testcase") if report.exists() else ()  # noqa: S314 -- written by our tools
    return [
        f"{case.get('classname')}::{case.get('name')}: {skip.get('message')}"
        for case in cases
        for skip in case.iter("skipped")
    ]


def network() -> Count:
    """The whole network on container hosts."""
    report = REPORTS / "network.xml"
    report.unlink(missing_ok=True)
    command = ["molecule", "test", "-s", "network"]
    say(f"    $ {' '.join(command)}")
    try:
        lines = stream(command, env=environment(**STEADY))
    except LabError:
        lines = []
    # molecule passes over a step whose playbook it does not find, and calls that a success
    complete = any(re.search(r"\bmissing=0\b.*\bfailed=0\b", line) for line in lines)
    count = one("molecule test -s network", complete)
    if report.exists():
        count.add(junit([report], "testinfra", True))
    return count


def roles() -> Count:
    """Each role on each platform that can be had, in container hosts of its own."""
    plan = scenarios.run_all(**STEADY)
    count = Count(failed=len(plan.broken), failures=plan.broken, not_run=plan.missing)
    for one_run in plan.runs:
        name = f"{one_run.role} on {one_run.platform}"
        for check in one_run.checks:
            end = one_run.ends.get(check)
            if end is None:
                count.not_run.append(f"{name}, {check}: a check before it failed")
            elif check != scenarios.VERIFY:
                count.add(one(f"{name}: {check}", end == "passed"))
            else:
                report = [one_run.report] if one_run.report.exists() else []
                count.add(junit(report, f"{name}: {check}", end == "passed"))
    say("\n" + scenarios.times(plan.runs))
    say("\n" + scenarios.matrix(plan.runs, count.not_run))
    say(f"metrics: {scenarios.METRICS.relative_to(ROOT)}")
    return count


def vm() -> Count:
    """A virtual machine: a kernel of its own, SELinux enforcing, reboots and power cuts."""
    try:
        made = virtual_machine()
    except NotToBeHadError as error:
        say(f"    {error}")
        reason = str(error).partition("\n")[0]
        files = sorted((ROOT / "tests" / "vm").glob("test_*.py"))
        return Count(not_run=[f"{file.relative_to(ROOT)}: {reason}" for file in files])
    if made.failed:
        return made
    # two machines at a time; and where the time went
    options = "-n 2 --dist worksteal --durations=0 --durations-min=5"
    return pytest("vm", "tests/vm", PYTEST_ADDOPTS=options)


LAYERS: dict[str, Callable[[], Count]] = {
    "lint": lint,
    "sanity": sanity,
    "unit": unit,
    "artifact": artifact,
    "images": images,
    "roles": roles,
    "loopback": loopback,
    "faults": faults,
    "vm": vm,
    "network": network,
}


# They mostly have one process at work, and touch nothing of each other's.
SIDE_BY_SIDE = ("lint", "sanity", "artifact")
# One of each two leaves much of the processors idle, and neither needs what the other makes: images
# wait for downloads and the disk, nodes for their clocks and links. The network has half of them to
# spare, but beside the virtual machine both together took as long as one after the other.
BESIDE_THE_NEXT = {("images", "unit"), ("loopback", "faults")}
COUNTS = "HOLDFAST_TEST_COUNTS"  # where a layer of its own process leaves its count


def alone(name: str) -> tuple[str, Count, float]:
    """Run a layer; its name, count and time in seconds."""
    say(f"\n==> {name}: {(LAYERS[name].__doc__ or '').splitlines()[0]}")
    started = time.monotonic()
    with given_back():
        count = LAYERS[name]()
    return name, count, time.monotonic() - started


def beside(name: str) -> tuple[str, Count, float]:
    """The same in a process of its own, which prints at its end."""
    say(f"\n==> {name}: runs beside others, and is shown when it is done")
    log, counts = REPORTS / f"{name}.log", REPORTS / f"{name}.json"
    counts.unlink(missing_ok=True)
    started = time.monotonic()
    env = environment(**STEADY, **{COUNTS: str(counts)})
    with log.open("wb") as stream:
        subprocess.run(
            [sys.executable, __file__, name], cwd=ROOT, env=env, check=False,
            stdin=subprocess.DEVNULL, stdout=stream, stderr=subprocess.STDOUT,
        )  # fmt: skip
    say(log.read_text(errors="replace").rstrip())
    if not counts.exists():
        return name, one(f"{name} (it ended early, see above)", False), time.monotonic() - started
    return name, Count(**json.loads(counts.read_text())), time.monotonic() - started


def results(names: list[str]) -> Iterator[tuple[str, Count, float]]:
    """Run layers in their order; those that may, beside each other."""
    for together, group in groupby(names, lambda name: name in SIDE_BY_SIDE):
        layers = list(group)
        if together and len(layers) > 1:
            with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
                yield from pool.map(beside, layers)
            continue
        with ThreadPoolExecutor() as pool:
            others = []
            for name, following in zip(layers, [*layers[1:], ""]):
                if (name, following) in BESIDE_THE_NEXT:
                    others.append(pool.submit(beside, name))
                    continue
                yield alone(name)
                yield from (other.result() for other in others)
                others.clear()


def main(names: list[str]) -> int:
    """Run the named layers, print where the time went, and end with the sum in one line."""
    unknown = [name for name in names if name not in LAYERS]
    if unknown or not names:
        sys.stderr.write(f"tests/run.py: expected some of {', '.join(LAYERS)}, got {names}\n")
        return 2
    REPORTS.mkdir(parents=True, exist_ok=True)
    total, table, began = Count(), [], time.monotonic()
    for name, count, spent in results(names):
        row = f"{count.passed:>7}{count.failed:>8}{count.skipped:>9}{spent:>9.1f} s"
        table.append(f"{name:<10}{row}")
        total.add(count)
    if COUNTS in os.environ:
        Path(os.environ[COUNTS]).write_text(json.dumps(dataclasses.asdict(total)))
        return 1 if total.failed else 0
    say("\nlayer      passed  failed  skipped     time")
    say("\n".join(table))
    say(f"all together {time.monotonic() - began:.0f} s")
    for failure in total.failures:
        say(f"failed: {failure}")
    for what in total.not_run:
        say(f"not run: {what}")
    say(f"{total.passed} passed, {total.failed} failed, {total.skipped} skipped")
    return 1 if total.failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
