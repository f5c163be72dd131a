# Copyright: (c) 2026, Holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What chrony says of a clock, and what that is worth. Pure.

Times are seconds. An offset is how far this clock is ahead of the true time: negative if it is
slow. Formats: chronyc(1), "tracking" and "sources" with -c; chrony.conf(5), "log".
"""

from __future__ import annotations

import calendar
import math
import time
from dataclasses import dataclass
from typing import Any, Iterable, Sequence

VERDICTS = ("within", "warning", "beyond", "not_synchronised", "no_daemon")
FIT = ("within", "warning")
LOCAL_REFERENCE = "7F7F0101"
_NEVER = 2**32 - 1  # "last sample received", where there was none
_MODES = {"^": "server", "=": "peer", "#": "refclock"}
_STATES = {
    "*": "selected",
    "+": "combined",
    "-": "not combined",
    "?": "unusable",
    "x": "falseticker",
    "~": "too variable",
}


class ClockError(Exception):
    """chronyc said something that is no report of the kind that was asked for."""


@dataclass(frozen=True)
class Tracking:
    """chronyd's view of this clock; last_update: seconds since the epoch, 0 if there was none."""

    reference_id: str
    reference: str
    stratum: int
    last_update: float
    offset: float
    frequency_ppm: float
    root_delay: float
    root_dispersion: float
    leap_status: str

    @property
    def synchronised(self) -> bool:
        """Whether chronyd has taken over a time, from its own clock's included."""
        return self.leap_status != "Not synchronised"

    @property
    def is_local(self) -> bool:
        """Whether the reference is this very clock, by the directive ``local``."""
        return self.reference_id == LOCAL_REFERENCE

    @property
    def error_bound(self) -> float:
        """The most this clock can be wrong, if the reference at the top is right.

        chronyc(1), "Root dispersion": clock_error <= |system_time_offset| + root_dispersion +
        (0.5 * root_delay).
        """
        return abs(self.offset) + self.root_dispersion + self.root_delay / 2


@dataclass(frozen=True)
class Source:
    """A time source. reach: which of the last eight requests were answered, newest in bit 0."""

    name: str
    mode: str
    state: str
    stratum: int
    poll: int
    reach: int
    last_sample_age: int | None
    offset: float
    error: float


@dataclass(frozen=True)
class Percentile:
    """p99 of how far the clock was off at the updates of a window; since: epoch seconds."""

    seconds: float
    samples: int
    since: float


@dataclass(frozen=True)
class Observed:
    """All that was read. tracking is None where no chronyd answers, with the cause in silence."""

    tracking: Tracking | None = None
    silence: str = ""
    sources: Sequence[Source] = ()
    p99: Percentile | None = None
    installed: bool = False
    version: str | None = None
    pids: Sequence[int] = ()
    observes_only: bool = False
    other_daemons: Sequence[tuple[str, int]] = ()
    obstacle: str = ""
    kernel: dict[str, Any] | None = None


@dataclass(frozen=True)
class Limits:
    """Bounds of the verdict; allow_local: whether this clock may be its own reference."""

    bound: float
    warning: float
    allow_local: bool = False


def parse_tracking(text: str) -> Tracking:
    """From ``chronyc -c tracking``. Raises ClockError."""
    parts = _fields(text, 14, "tracking")[0]
    try:
        return Tracking(
            reference_id=parts[0],
            reference=parts[1],
            stratum=int(parts[2]),
            last_update=float(parts[3]),
            # chronyc shows what it is going to add: positive for a slow clock
            offset=0.0 - float(parts[4]),
            frequency_ppm=float(parts[7]),
            root_delay=float(parts[10]),
            root_dispersion=float(parts[11]),
            leap_status=parts[13],
        )
    except ValueError as error:
        raise ClockError(f"chronyc -c tracking: {error} in {text.strip()!r}") from None


def parse_sources(text: str) -> list[Source]:
    """From ``chronyc -c sources``; no line is no source. Raises ClockError."""
    return [_source(parts) for parts in _fields(text, 10, "sources")]


def _source(parts: Sequence[str]) -> Source:
    try:
        age = int(parts[6])
        return Source(
            name=parts[2],
            mode=_MODES.get(parts[0], parts[0]),
            state=_STATES.get(parts[1], parts[1]),
            stratum=int(parts[3]),
            poll=int(parts[4]),
            reach=int(parts[5], 8),
            last_sample_age=None if age == _NEVER else age,
            offset=float(parts[7]),
            error=float(parts[9]),
        )
    except ValueError as error:
        raise ClockError(f"chronyc -c sources: {error} in {','.join(parts)!r}") from None


def _fields(text: str, least: int, report: str) -> list[list[str]]:
    """The lines of a CSV report; one without all its fields is none. chronyc quotes nothing."""
    rows = [line.split(",") for line in text.splitlines() if line.strip()]
    if any(len(row) < least for row in rows) or (report == "tracking" and len(rows) != 1):
        raise ClockError(
            f"chronyc -c {report}: expected {least} fields a line, got {text.strip()[:200]!r}"
        )
    return rows


def parse_tracking_log(lines: Iterable[str]) -> list[tuple[float, float]]:
    """(epoch seconds, how far the clock was off) for each update in a tracking log.

    What the clock was off by is the measured offset (positive: fast) less the correction still to
    be made at that moment (positive: slow). Only with both is it right while a large correction is
    under way, and with ``chronyd -x``, which corrects nothing. Updates without a source are left
    out, as are headings and lines that were cut.
    """
    found = []
    for line in lines:
        parts = line.split()
        if len(parts) < 14 or parts[7] == "?":
            continue
        try:
            moment = calendar.timegm(time.strptime(f"{parts[0]} {parts[1]}", "%Y-%m-%d %H:%M:%S"))
            found.append((float(moment), float(parts[6]) - float(parts[10])))
        except ValueError:
            continue
    return found


def percentile(
    samples: Sequence[tuple[float, float]], now: float, window: float
) -> Percentile | None:
    """p99 (nearest rank) of the last ``window`` seconds; None without samples in it."""
    recent = [(moment, abs(off)) for moment, off in samples if abs(now - moment) <= window]
    if not recent:
        return None
    ordered = sorted(off for _moment, off in recent)
    rank = math.ceil(0.99 * len(ordered))
    return Percentile(ordered[rank - 1], len(ordered), min(moment for moment, _off in recent))


def judge(observed: Observed, limits: Limits, now: float) -> tuple[str, str]:
    """The verdict, one of VERDICTS, and why, as a sentence with its numbers."""
    tracking = observed.tracking
    if tracking is None:
        return _judge_silence(observed)
    if not tracking.synchronised:
        return "not_synchronised", f"chronyd has no time yet: {_of_sources(observed.sources)}"
    if tracking.is_local:
        shown = f"its own clock is its reference (local, stratum {tracking.stratum})"
        if limits.allow_local:
            return "within", f"{shown}: others are measured by it"
        return "not_synchronised", f"{shown}: {_of_sources(observed.sources)}"
    told = (
        f"error bound {_ms(tracking.error_bound)} (offset {_ms(tracking.offset, '+')}, root "
        f"dispersion {_ms(tracking.root_dispersion)}, root delay {_ms(tracking.root_delay)})"
    )
    if not any(source.state == "selected" for source in observed.sources):
        # chrony goes on to call itself synchronised, with a dispersion that grows
        ago = max(0.0, now - tracking.last_update)
        return (
            "not_synchronised",
            f"no source is selected any more, the last update was {ago:.0f} s ago: "
            f"{_of_sources(observed.sources)}; {told}",
        )
    return _judge_bound(tracking.error_bound, observed.p99, limits, told)


def _judge_bound(
    error_bound: float, p99: Percentile | None, limits: Limits, told: str
) -> tuple[str, str]:
    level = f"the warning level of {_ms(limits.warning)}"
    if error_bound > limits.bound:
        return "beyond", f"{told} is above the bound of {_ms(limits.bound)}"
    if error_bound > limits.warning:
        return "warning", f"{told} is above {level}"
    if p99 is not None and p99.seconds > limits.warning:
        return (
            "warning",
            f"{told} is fine now, but p99 of {p99.samples} updates was {_ms(p99.seconds)}, above "
            f"{level}",
        )
    return "within", told


def _judge_silence(observed: Observed) -> tuple[str, str]:
    if observed.pids:
        pids = ", ".join(str(pid) for pid in observed.pids)
        return (
            "not_synchronised",
            f"chronyd runs (process {pids}) but cannot be asked: {observed.silence}",
        )
    if observed.installed:
        reason = "chrony is installed, but chronyd does not run"
        if observed.obstacle:
            reason += f" ({observed.obstacle})"
    else:
        reason = "chrony is not installed"
    if observed.other_daemons:
        names = ", ".join(f"{name} (process {pid})" for name, pid in observed.other_daemons)
        reason += f"; {names} runs, which tells no error bound"
    return "no_daemon", reason


def _of_sources(sources: Sequence[Source]) -> str:
    """The state of the sources in words."""
    if not sources:
        return "it has no sources"
    shown = ", ".join(
        f"{source.name} {'is ' + source.state if source.reach else 'does not answer'}"
        for source in sources[:4]
    )
    more = f" and {len(sources) - 4} more" if len(sources) > 4 else ""
    return shown + more


def _ms(seconds: float, sign: str = "") -> str:
    return f"{seconds * 1000:{sign}.3f} ms"


def result(observed: Observed, limits: Limits, now: float) -> dict[str, Any]:
    """What the module returns: verdict and reason, and every number behind them."""
    verdict, reason = judge(observed, limits, now)
    tracking, p99 = observed.tracking, observed.p99
    known = tracking is not None and tracking.synchronised
    return {
        "verdict": verdict,
        "reason": reason,
        "synchronised": verdict in ("within", "warning", "beyond"),
        "bound_seconds": limits.bound,
        "warning_seconds": limits.warning,
        "offset_seconds": tracking.offset if tracking and known else None,
        "error_bound_seconds": tracking.error_bound if tracking and known else None,
        "root_delay_seconds": tracking.root_delay if tracking and known else None,
        "root_dispersion_seconds": tracking.root_dispersion if tracking and known else None,
        "last_update": tracking.last_update if tracking and known else None,
        "frequency_ppm": tracking.frequency_ppm if tracking else None,
        "stratum": tracking.stratum if tracking and known else None,
        "reference": tracking.reference if tracking and known else None,
        "leap_status": tracking.leap_status if tracking else None,
        "local_reference": bool(tracking and tracking.is_local),
        "p99_seconds": p99.seconds if p99 else None,
        "p99_samples": p99.samples if p99 else 0,
        "p99_since": p99.since if p99 else None,
        "sources": [dict(vars(source)) for source in observed.sources],
        "installed": observed.installed,
        "version": observed.version,
        "running": bool(observed.pids) or tracking is not None,
        "observes_only": observed.observes_only,
        "other_daemons": [{"name": name, "pid": pid} for name, pid in observed.other_daemons],
        "may_set_time": not observed.obstacle,
        "may_not_set_time_because": observed.obstacle,
        "kernel": observed.kernel,
    }
