# Copyright: (c) 2026, Holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""chrony's reports and what they are judged to be worth: all of it pure.

Reports are what these versions printed, each beside a server that is there, one whose name has no
address and one that does not answer: 4.0, 4.3 (Debian 12) and 4.6.1. 4.2 (Ubuntu 22.04) and 4.5
(Enterprise Linux 9, Alpine 3.19) lie between, with the same fields.
"""

from __future__ import annotations

import calendar
import contextlib
import dataclasses
import math
import time
from typing import Any

import pytest
from ansible_collections.holdfast.chain.plugins.module_utils.clock import (
    FIT,
    VERDICTS,
    ClockError,
    Limits,
    Observed,
    Percentile,
    Source,
    Tracking,
    judge,
    parse_sources,
    parse_tracking,
    parse_tracking_log,
    percentile,
    result,
)
from hypothesis import given
from hypothesis import strategies as st

TRACKING = {
    "4.0": "0A590103,client,10,1795243985.072957296,0.000021450,-0.000000032,0.000012959,-0.021,"
    "-0.001,0.616,0.000118736,0.000020039,1.0,Normal\n",
    "4.3": "0A590102,server,9,1795243096.847281560,0.000003753,-0.000002026,0.000015260,0.876,"
    "-0.042,2.936,0.000066627,0.000006286,1.0,Normal\n",
    "4.6.1": "0A590103,client,10,1795243999.980775676,0.000023055,0.000000309,0.000005779,-0.330,"
    "0.006,0.744,0.000117535,0.000021663,1.0,Normal\n",
}
SOURCES = {
    "4.0": "^,*,client,9,0,377,1,-0.000000105,-0.000000137,0.000078170\n"
    "^,?,nosuch.invalid,0,6,0,4294967295,0.000000000,0.000000000,0.000000000\n"
    "^,?,10.89.1.99,0,7,0,4294967295,0.000000000,0.000000000,0.000000000\n",
    "4.6.1": "^,*,client,9,0,377,1,0.000001612,0.000001921,0.000079108\n"
    "^,?,nosuch.invalid,0,6,0,4294967295,0.000000000,0.000000000,0.000000000\n"
    "^,?,10.89.1.99,0,7,0,4294967295,0.000000000,0.000000000,0.000000000\n",
}
# 4.3, with a server that is 0.2 s ahead of this clock, which `chronyc tracking` then calls slow
SLOW = (
    "0A590102,10.89.1.2,2,1795244041.498450105,0.200018317,-0.000010733,0.000014269,4.679,"
    "-0.292,6.361,0.000166710,0.000021251,1.0,Normal\n"
)
NOT_YET = (
    "00000000,,0,0.000000000,-0.000000097,0.000000000,0.000000000,0.028,0.000,0.000,"
    "1.000000000,1.000000000,0.0,Not synchronised\n"
)
LOCAL = (
    "7F7F0101,,8,1795243083.899546781,0.000000000,0.000000000,0.000000000,0.000,0.000,0.000,"
    "0.000000000,0.000000000,0.0,Normal\n"
)
# Seconds after its server went away
GONE = (
    "0A590102,server,9,1795243136.288381923,0.000007540,0.000001012,0.000002039,0.028,0.013,0.184,"
    "0.000037838,0.000010125,1.0,Normal\n"
)
GONE_SOURCES = "^,?,server,8,0,0,11,0.000003209,0.000004221,0.000018979\n"
RULE = "=" * 131
LOG = f"""\
{RULE}
   Date (UTC) Time     IP Address   St   Freq ppm   Skew ppm     Offset L Co  Offset sd Rem. corr.\
 Root delay Root disp. Max. error
{RULE}
2026-11-21 06:38:04 0.0.0.0          0      0.000 1000000.000  0.000e+00 ?  0  0.000e+00\
 -0.000e+00  1.000e+00  1.000e+00  1.500e+00
2026-11-21 06:38:05 10.89.1.2        9      0.000 1000000.000 -1.168e-05 N  1  2.391e-05\
 -0.000e+00  8.081e-05  3.893e-01  1.500e+00
2026-11-21 06:38:05 10.89.1.2        9    -27.549    637.974  2.620e-06 N  1  7.518e-06\
  1.168e-05  5.061e-05  6.368e-04  6.591e-01
2026-11-21 06:54:01 10.89.1.2        2      4.679      6.361 -1.073e-05 N  1  9.339e-06\
  2.000e-01  1.667e-04  1.784e-05  2.001e-01
"""
NOW = 1795244042.0
LIMITS = Limits(bound=0.1, warning=0.05)


def tracking(**changes: Any) -> Tracking:
    return dataclasses.replace(parse_tracking(TRACKING["4.3"]), **changes)


def source(state: str = "selected", reach: int = 255, name: str = "server") -> Source:
    return Source(name, "server", state, 8, 6, reach, 1, 0.0, 1e-5)


def observed(**changes: Any) -> Observed:
    return dataclasses.replace(
        Observed(tracking=tracking(), sources=(source(),), installed=True, pids=(7, 8)), **changes
    )


@pytest.mark.parametrize("version", sorted(TRACKING))
def test_tracking_of_every_version(version: str) -> None:
    found = parse_tracking(TRACKING[version])
    assert found.synchronised
    assert not found.is_local
    assert found.reference in ("client", "server")
    assert found.stratum in (9, 10)
    assert 1795243000 < found.last_update < NOW
    assert 0 < found.root_dispersion < 3e-5
    assert found.root_delay > 6e-5
    assert found.leap_status == "Normal"


def test_error_bound_is_chronys_own_formula() -> None:
    found = parse_tracking(TRACKING["4.3"])
    assert found.error_bound == pytest.approx(0.000003753 + 0.000006286 + 0.000066627 / 2)


def test_a_slow_clock_has_a_negative_offset() -> None:
    found = parse_tracking(SLOW)
    assert found.offset == -0.200018317
    assert found.error_bound == pytest.approx(0.200122923)


def test_a_clock_without_a_reference() -> None:
    found = parse_tracking(NOT_YET)
    assert not found.synchronised
    assert found.stratum == 0
    assert not math.copysign(1, parse_tracking(LOCAL).offset) < 0, "no offset is shown as -0.0"
    assert parse_tracking(LOCAL).is_local


@pytest.mark.parametrize("version", sorted(SOURCES))
def test_sources_of_every_version(version: str) -> None:
    used, unknown, silent = parse_sources(SOURCES[version])
    assert (used.name, used.mode, used.state, used.reach) == ("client", "server", "selected", 255)
    assert used.last_sample_age == 1
    assert 7e-5 < used.error < 8e-5
    for other in (unknown, silent):
        assert (other.state, other.reach, other.last_sample_age) == ("unusable", 0, None)
    assert [unknown.name, silent.name] == ["nosuch.invalid", "10.89.1.99"]


@pytest.mark.parametrize(
    ("line", "mode", "state", "reach"),
    [
        ("=,+,peer,2,6,177,3,0.1,0.1,0.2", "peer", "combined", 0o177),
        ("#,*,PPS0,0,4,377,3,0.1,0.1,0.2", "refclock", "selected", 255),
        ("^,-,far,3,6,1,3,0.1,0.1,0.2", "server", "not combined", 1),
        ("^,x,liar,1,6,377,3,0.1,0.1,0.2", "server", "falseticker", 255),
        ("^,~,noisy,1,6,377,3,0.1,0.1,0.2", "server", "too variable", 255),
    ],
)
def test_kinds_of_sources(line: str, mode: str, state: str, reach: int) -> None:
    (found,) = parse_sources(line)
    assert (found.mode, found.state, found.reach) == (mode, state, reach)


@pytest.mark.parametrize(
    ("parse", "text", "told"),
    [
        (parse_tracking, "506 Cannot talk to daemon\n", "expected 14 fields a line"),
        (parse_tracking, "", "expected 14 fields a line"),
        (parse_tracking, TRACKING["4.3"] * 2, "expected 14 fields a line"),
        (parse_tracking, TRACKING["4.3"].replace("server,9", "server,nine"), "nine"),
        (parse_sources, "^,*,server,9,0", "expected 10 fields a line"),
        (parse_sources, "^,*,server,9,0,999,1,0.1,0.1,0.1", "999"),
    ],
)
def test_what_is_no_report_is_refused(parse: Any, text: str, told: str) -> None:
    with pytest.raises(ClockError, match=told):
        parse(text)


@given(st.text())
def test_any_text_is_a_report_or_refused(text: str) -> None:
    for parse, number in ((parse_tracking, 14), (parse_sources, 10)):
        with contextlib.suppress(ClockError):
            parse(text)
            assert all(line.count(",") >= number - 1 for line in text.splitlines() if line.strip())


def moment(text: str) -> float:
    return float(calendar.timegm(time.strptime(text, "%Y-%m-%d %H:%M:%S")))


def test_log_tells_how_far_the_clock_was_off() -> None:
    """The correction that is still to be made counts: the last clock is 0.2 s slow."""
    found = parse_tracking_log(LOG.splitlines())
    assert found == [
        (moment("2026-11-21 06:38:05"), pytest.approx(-1.168e-05)),
        (moment("2026-11-21 06:38:05"), pytest.approx(2.620e-06 - 1.168e-05)),
        (moment("2026-11-21 06:54:01"), pytest.approx(-0.2000107)),
    ]


@given(st.lists(st.text() | st.sampled_from(LOG.splitlines()), max_size=8), st.integers(0, 200))
def test_a_damaged_log_never_fails(lines: list[str], cut: int) -> None:
    whole = sum(line in LOG.splitlines()[4:] for line in lines)
    assert len(parse_tracking_log(lines)) == whole
    last = LOG.splitlines()[-1]
    found = parse_tracking_log([last[:cut]])
    # what was cut in its last column, which nothing here reads, is still whole
    assert found == (parse_tracking_log([last]) if cut > last.rindex(" ") + 1 else [])


@given(
    st.lists(st.floats(-10, 10, allow_nan=False), min_size=1, max_size=400),
    st.integers(0, 5000),
)
def test_p99_leaves_at_most_one_in_a_hundred_above(offsets: list[float], old: int) -> None:
    samples = [(NOW - number, off) for number, off in enumerate(offsets)]
    found = percentile([(NOW - 10000 - old, 1e9), *samples], NOW, 3600)
    assert found is not None
    assert found.samples == len(offsets)
    assert found.since == NOW - len(offsets) + 1
    above = sum(abs(off) > found.seconds for off in offsets)
    assert above <= len(offsets) / 100
    assert found.seconds in {abs(off) for off in offsets}
    below = sum(abs(off) < found.seconds for off in offsets)
    assert below < len(offsets) * 0.99, "a smaller one would do"


def test_no_update_in_the_window_is_no_p99() -> None:
    assert percentile([(NOW - 3601, 1.0)], NOW, 3600) is None
    assert percentile([], NOW, 3600) is None


JUDGED = {
    "near": (observed(), "within", ["error bound 0.043 ms"]),
    "slow": (
        observed(tracking=parse_tracking(SLOW)),
        "beyond",
        ["error bound 200.123 ms", "offset -200.018 ms", "dispersion 0.021 ms", "100.000 ms"],
    ),
    "uncertain": (
        observed(tracking=tracking(offset=0.0, root_delay=0.09, root_dispersion=0.06)),
        "beyond",
        ["error bound 105.000 ms", "offset +0.000 ms", "root delay 90.000 ms"],
    ),
    "a little": (
        observed(tracking=tracking(offset=0.06)),
        "warning",
        ["error bound 60", "above the warning level of 50.000 ms"],
    ),
    "was off": (
        observed(p99=Percentile(0.3, 220, NOW - 3600)),
        "warning",
        ["p99 of 220 updates was 300.000 ms"],
    ),
    "was fine": (observed(p99=Percentile(0.04, 220, NOW - 3600)), "within", ["0.043 ms"]),
    "just started": (
        observed(tracking=parse_tracking(NOT_YET), sources=(source("unusable", 0, "a.example"),)),
        "not_synchronised",
        ["no time yet", "a.example does not answer"],
    ),
    "without sources": (
        observed(tracking=parse_tracking(NOT_YET), sources=()),
        "not_synchronised",
        ["it has no sources"],
    ),
    "server gone": (
        observed(tracking=parse_tracking(GONE), sources=parse_sources(GONE_SOURCES)),
        "not_synchronised",
        ["no source is selected any more", "906 s ago", "server does not answer", "0.037 ms"],
    ),
    "falsetickers": (
        observed(sources=[source("falseticker", name=f"s{number}") for number in range(6)]),
        "not_synchronised",
        ["s0 is falseticker", "s3 is falseticker and 2 more"],
    ),
    "its own": (
        observed(tracking=parse_tracking(LOCAL), sources=()),
        "not_synchronised",
        ["its own clock is its reference (local, stratum 8)"],
    ),
    "mute": (
        observed(tracking=None, silence="506 Cannot talk to daemon"),
        "not_synchronised",
        ["chronyd runs (process 7, 8) but cannot be asked: 506 Cannot talk to daemon"],
    ),
    "stopped": (
        observed(tracking=None, pids=()),
        "no_daemon",
        ["chrony is installed, but chronyd does not run"],
    ),
    "container": (
        observed(tracking=None, pids=(), obstacle="this container has no CAP_SYS_TIME"),
        "no_daemon",
        ["does not run (this container has no CAP_SYS_TIME)"],
    ),
    "nothing": (Observed(), "no_daemon", ["chrony is not installed"]),
    "another": (
        Observed(other_daemons=[("systemd-timesyncd", 55)]),
        "no_daemon",
        ["chrony is not installed; systemd-timesyncd (process 55) runs", "no error bound"],
    ),
}


@pytest.mark.parametrize("case", sorted(JUDGED))
def test_verdict_with_its_numbers(case: str) -> None:
    what, verdict, told = JUDGED[case]
    found, reason = judge(what, LIMITS, NOW)
    assert found == verdict
    assert [text for text in told if text not in reason] == []
    shown = result(what, LIMITS, NOW)
    assert (shown["verdict"], shown["reason"]) == (verdict, reason)
    assert shown["synchronised"] == (verdict in ("within", "warning", "beyond"))
    assert (shown["error_bound_seconds"] is None) == (shown["offset_seconds"] is None)


def test_every_verdict_is_reached() -> None:
    assert {verdict for _what, verdict, _told in JUDGED.values()} == set(VERDICTS)
    assert set(FIT) < set(VERDICTS)


def test_a_time_host_may_be_its_own_reference() -> None:
    allowed = dataclasses.replace(LIMITS, allow_local=True)
    found, reason = judge(JUDGED["its own"][0], allowed, NOW)
    assert found == "within"
    assert "others are measured by it" in reason
    assert judge(JUDGED["just started"][0], allowed, NOW)[0] == "not_synchronised"


@given(
    st.floats(-2, 2, allow_nan=False),
    st.floats(0, 2, allow_nan=False),
    st.floats(0, 2, allow_nan=False),
)
def test_the_bound_is_judged_with_all_of_its_uncertainty(
    offset: float, delay: float, dispersion: float
) -> None:
    clock = tracking(offset=offset, root_delay=delay, root_dispersion=dispersion)
    found, _reason = judge(observed(tracking=clock), LIMITS, NOW)
    most = abs(offset) + dispersion + delay / 2
    assert found == ("beyond" if most > 0.1 else "warning" if most > 0.05 else "within")
