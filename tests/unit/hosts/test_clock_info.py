# Copyright: (c) 2026, Holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""clock_info: what it reads on a host, how long it waits, and the module as Ansible calls it."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path
from typing import Any, Callable

import pytest
import yaml
from ansible_collections.holdfast.chain.plugins.module_utils import clock_read
from ansible_collections.holdfast.chain.plugins.module_utils.clock import ClockError
from ansible_collections.holdfast.chain.plugins.modules import clock_info
from fake_host import FakeHost
from test_clock import GONE, GONE_SOURCES, LOCAL, LOG, NOT_YET, NOW, SLOW, SOURCES, TRACKING, moment

ASK_TRACKING = "chronyc -c -N tracking"
ASK_SOURCES = "chronyc -c -N sources -a"
LOG_FILE = "/var/log/chrony/tracking.log"
ALL = "000001ffffffffff"
WITHOUT_SYS_TIME = "00000000a80435fb"


def runs(
    host: FakeHost, tracking: str = TRACKING["4.3"], sources: str = SOURCES["4.0"]
) -> FakeHost:
    """Put chrony and a chronyd that answers on a machine."""
    host.put("/usr/sbin/chronyd", "", 0o755)
    host.programs["/usr/sbin/chronyd -v"] = (0, "chronyd (chrony) version 4.3 (+CMDMON)\n", "")
    host.programs[ASK_TRACKING] = (0, tracking, "")
    host.programs[ASK_SOURCES] = (0, sources, "")
    daemon(host, 70, "chronyd", "/usr/sbin/chronyd\0-F\x001\0")
    daemon(host, 71, "chronyd", "/usr/sbin/chronyd\0-F\x001\0")
    machine(host)
    return host


def machine(host: FakeHost, capabilities: str = ALL, users: str = "0 0 4294967295") -> None:
    host.put("/proc/1/status", f"Name:\tinit\nCapBnd:\t{capabilities}\n")
    host.put("/proc/self/uid_map", f"{users.replace(' ', '          ')}\n")


def daemon(host: FakeHost, pid: int, comm: str, arguments: str, spaces: str = "") -> None:
    host.put(f"/proc/{pid}/comm", comm + "\n")
    host.put(f"/proc/{pid}/cmdline", arguments)
    host.put(f"/proc/{pid}/status", f"Name:\t{comm}\nNSpid:\t{pid}{spaces}\n")


def silent(host: FakeHost) -> FakeHost:
    host.programs[ASK_TRACKING] = (1, "506 Cannot talk to daemon\n", "")
    machine(host)
    return host


def read(host: FakeHost) -> Any:
    return clock_read.read(host, LOG_FILE, 3600, NOW)


def test_a_host_with_chrony(host: FakeHost) -> None:
    runs(host).put(LOG_FILE, LOG)
    found = read(host)
    assert found.tracking.reference == "server"
    assert len(found.sources) == 3
    assert (found.installed, found.version, found.pids) == (True, "4.3", [70, 71])
    assert (found.observes_only, found.other_daemons, found.obstacle) == (False, [], "")
    assert (found.p99.samples, found.p99.since) == (3, moment("2026-11-21 06:38:05"))
    assert found.p99.seconds == pytest.approx(0.2000107)


def test_a_host_without(host: FakeHost) -> None:
    host.programs[ASK_TRACKING] = (127, "", "chronyc: not found")
    found = read(host)
    assert (found.tracking, found.silence) == (None, "chronyc: not found")
    assert (found.installed, found.version, found.pids, found.p99) == (False, None, [], None)
    assert not any(command[0] == "/usr/sbin/chronyd" for command in host.ran)


@pytest.mark.parametrize("report", [ASK_TRACKING, ASK_SOURCES])
def test_a_daemon_that_hangs_is_not_waited_for(host: FakeHost, report: str) -> None:
    runs(host)
    answer = host.run

    def hang(command: Any, timeout: float = 60) -> Any:
        if " ".join(command) == report:
            raise subprocess.TimeoutExpired(command, timeout)
        return answer(command, timeout)

    host.run = hang  # type: ignore[method-assign]
    found = read(host)
    assert (found.tracking, found.sources) == (None, [])
    assert found.silence == "no answer in 10 s"


def test_an_answer_that_is_no_report_is_an_error(host: FakeHost) -> None:
    runs(host, tracking="501 Not authorised\n")
    with pytest.raises(ClockError, match="501 Not authorised"):
        read(host)


def test_other_daemons_of_this_host_alone(host: FakeHost) -> None:
    runs(host)
    daemon(host, 80, "systemd-timesyn", "/lib/systemd/systemd-timesyncd\0")
    daemon(host, 81, "ntpd", "/usr/sbin/ntpd\0-p\0")
    daemon(host, 82, "ntpd", "/usr/sbin/ntpd\0", spaces="\t14")  # in a container on this host
    daemon(host, 83, "bash", "ntpd\0")
    assert read(host).other_daemons == [("systemd-timesyncd", 80), ("ntpd", 81)]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("chronyd\0-x\0", True),
        ("chronyd\0-F\x001\0-dx\0", True),
        ("chronyd\0-F\x001\0", False),
        ("chronyd\0-f\0/etc/x\0", False),
        ("x\0", False),
    ],
)
def test_a_daemon_that_only_observes(host: FakeHost, arguments: str, expected: bool) -> None:
    daemon(runs(host), 70, "chronyd", arguments)
    assert read(host).observes_only is expected


@pytest.mark.parametrize(
    ("capabilities", "users", "container", "told"),
    [
        (ALL, "0 0 4294967295", False, ""),
        (ALL, "0 0 4294967295", True, ""),
        (WITHOUT_SYS_TIME, "0 0 4294967295", True, "this container has no CAP_SYS_TIME"),
        (WITHOUT_SYS_TIME, "0 0 4294967295", False, "this host has no CAP_SYS_TIME"),
        (ALL, "0 100000 65536", True, "this container is a user namespace"),
    ],
)
def test_who_may_set_the_time(
    host: FakeHost, capabilities: str, users: str, container: bool, told: str
) -> None:
    machine(runs(host), capabilities, users)
    if container:
        host.put("/run/.containerenv", "")
    shown = read(host).obstacle
    assert shown.startswith(told)
    assert bool(shown) == bool(told)


def test_of_a_long_log_only_the_end_is_read(
    host: FakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = LOG.splitlines()[-1]
    bad = line.replace("2.000e-01", "9.000e+00", 1)
    monkeypatch.setattr(clock_read, "_TAIL_BYTES", 3 * (len(line) + 1) + 10)
    runs(host).put(LOG_FILE, "\n".join([bad] * 50 + [line] * 3) + "\n")
    found = read(host).p99
    assert found.samples == 3
    assert found.seconds == pytest.approx(0.2000107)


def test_the_kernel_is_asked_and_not_told() -> None:
    """On this very machine: whatever it says, asking twice shows the same kind of thing."""
    found = clock_read.kernel_clock()
    if found is not None:
        assert isinstance(found["synchronised"], bool)
        assert 0 <= found["max_error"] <= 16.001
        assert 0 <= found["estimated_error"] <= 16.001


class Time:
    """A clock that only sleeping moves."""

    def __init__(self) -> None:
        self.now = 0.0
        self.looks: list[float] = []

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.now += seconds


def waited(verdicts: Callable[[float], str], wanted: str, seconds: float) -> tuple[Any, Time]:
    watch = Time()

    def see() -> dict[str, Any]:
        watch.looks.append(watch.now)
        verdict = verdicts(watch.now)
        return {"verdict": verdict, "synchronised": verdict in ("within", "warning", "beyond")}

    found = clock_read.wait(see, clock_read.condition(wanted), seconds, watch.clock, watch.sleep)
    return found, watch


def test_waiting_ends_when_it_came() -> None:
    found, watch = waited(
        lambda now: "beyond" if now > 5 else "not_synchronised", "synchronised", 60
    )
    assert found["synchronised"]
    assert 5 < found["waited_seconds"] <= 7.01
    assert watch.looks[-1] == pytest.approx(found["waited_seconds"], abs=0.001)


def test_waiting_for_the_bound_goes_on_while_it_is_beyond() -> None:
    found, _watch = waited(lambda now: "warning" if now > 9 else "beyond", "bound", 60)
    assert found["verdict"] == "warning"
    assert found["waited_seconds"] > 9


def test_waiting_ends_at_its_deadline_with_a_last_look() -> None:
    found, watch = waited(lambda _now: "not_synchronised", "bound", 7)
    assert found["verdict"] == "not_synchronised"
    assert watch.looks[-1] == pytest.approx(7)
    assert max(later - sooner for sooner, later in zip(watch.looks, watch.looks[1:])) <= 2.001


@pytest.mark.parametrize("wanted", ["synchronised", "bound"])
def test_nobody_is_waited_for_without_a_daemon(wanted: str) -> None:
    found, watch = waited(lambda _now: "no_daemon", wanted, 60)
    assert (found["waited_seconds"], watch.looks) == (0, [0.0])


def test_without_waiting_there_is_one_look() -> None:
    _found, watch = waited(lambda _now: "not_synchronised", "none", 60)
    assert watch.looks == [0.0]


@pytest.fixture
def call(
    host: FakeHost, monkeypatch: pytest.MonkeyPatch, run_module: Callable[..., Any]
) -> Callable[..., Any]:
    """Call the module on the host: call(options, check=False)."""
    monkeypatch.setattr(clock_info, "Host", lambda: host)
    monkeypatch.setattr(clock_read.time, "sleep", lambda _seconds: pytest.fail("it waited"))
    return lambda options, **more: run_module("clock_info", options, **more)


EXAMPLES = [
    task["holdfast.chain.clock_info"]
    for task in yaml.safe_load(clock_info.EXAMPLES)
    if "holdfast.chain.clock_info" in task
]


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
@pytest.mark.parametrize("check", [False, True])
def test_documented_example(
    number: int,
    check: bool,
    host: FakeHost,
    call: Callable[..., Any],
    snapshot: Callable[[Path], Any],
) -> None:
    options = EXAMPLES[number] or {}
    runs(host, LOCAL if options.get("allow_local") else TRACKING["4.3"])
    before = snapshot(Path(host.root))
    outcome = call(options, check=check)
    assert not outcome.failed, outcome.text
    assert outcome["changed"] is False
    assert outcome["verdict"] == "within"
    assert snapshot(Path(host.root)) == before


def test_results_are_what_is_documented(host: FakeHost, call: Callable[..., Any]) -> None:
    documented = yaml.safe_load(clock_info.RETURN)
    runs(host).put(LOG_FILE, LOG)
    outcome = call({"window": int(time.time())})
    assert set(outcome) - {"changed", "invocation", "warnings"} == set(documented)
    assert set(outcome["sources"][0]) == set(documented["sources"]["contains"])
    kinds = {
        "str": str,
        "bool": bool,
        "float": (float, int),
        "int": int,
        "list": list,
        "dict": dict,
    }
    for name, entry in documented.items():
        if outcome[name] is not None:
            assert isinstance(outcome[name], kinds[entry["type"]]), name
    assert outcome["p99_samples"] == 3


def test_no_daemon_is_told_apart_from_no_time(host: FakeHost, call: Callable[..., Any]) -> None:
    silent(host)
    outcome = call({})
    assert (outcome["verdict"], outcome["running"]) == ("no_daemon", False)
    assert (outcome["offset_seconds"], outcome["error_bound_seconds"]) == (None, None)
    runs(host, NOT_YET, GONE_SOURCES)
    outcome = call({})
    assert (outcome["verdict"], outcome["running"]) == ("not_synchronised", True)
    assert (outcome["offset_seconds"], outcome["error_bound_seconds"]) == (None, None)
    runs(host, GONE, GONE_SOURCES)
    outcome = call({})
    assert outcome["verdict"] == "not_synchronised"
    assert outcome["leap_status"] == "Normal", "chrony itself goes on to say so"
    assert outcome["error_bound_seconds"] > 0


@pytest.mark.parametrize(
    ("prepare", "told"),
    [
        (silent, ["no_daemon", "chrony is not installed", "the role holdfast.chain.clock"]),
        (
            lambda host: runs(host, SLOW),
            ["beyond", "200.123 ms", "-200.018 ms", "0.021 ms", "0.167 ms", "100.000 ms"],
        ),
        (
            lambda host: runs(host, NOT_YET, GONE_SOURCES),
            ["not_synchronised", "server does not answer", "UDP port 123"],
        ),
    ],
)
def test_what_is_required_fails_with_all_numbers(
    prepare: Callable[[FakeHost], Any], told: list[str], host: FakeHost, call: Callable[..., Any]
) -> None:
    prepare(host)
    assert not call({}).failed
    outcome = call({"require": True})
    assert outcome.failed
    assert [text for text in told if text not in outcome["msg"]] == []
    assert set(yaml.safe_load(clock_info.RETURN)) <= set(outcome)


def test_a_warning_is_a_warning_and_no_failure(host: FakeHost, call: Callable[..., Any]) -> None:
    runs(host, SLOW)
    outcome = call({"bound_ms": 300, "warning_ms": 150, "require": True})
    assert not outcome.failed
    assert outcome["verdict"] == "warning"
    assert "above the warning level of 150.000 ms" in outcome.text


def test_two_daemons_on_one_clock_are_warned_of(
    host: FakeHost, call: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    runs(host)
    assert "both set it" not in call({}).text + capsys.readouterr().err
    daemon(host, 80, "systemd-timesyn", "/lib/systemd/systemd-timesyncd\0")
    outcome = call({})
    assert outcome["other_daemons"] == [{"name": "systemd-timesyncd", "pid": 80}]
    # Ansible writes warnings to stderr once its controller half is loaded in the process.
    warned = outcome.text + capsys.readouterr().err
    assert "chronyd and systemd-timesyncd both set it" in warned


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"warning_ms": 200}, "warning_ms = 200.0, bound_ms = 100.0: expected"),
        ({"warning_ms": 0}, "0 < warning_ms <= bound_ms"),
        ({"window": -1}, "window = -1: expected seconds"),
        ({"wait_timeout": -5}, "wait_timeout = -5"),
    ],
)
def test_wrong_options_are_named(
    options: dict[str, Any], told: str, host: FakeHost, call: Callable[..., Any]
) -> None:
    runs(host)
    outcome = call(options)
    assert outcome.failed
    assert told in outcome["msg"]
