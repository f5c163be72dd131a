# Copyright: (c) 2026, Holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Asks chronyd, the kernel and /proc about a clock, and waits for it. Changes nothing."""

from __future__ import annotations

import ctypes
import io
import re
import subprocess
import time
from typing import Any, Callable

from ansible_collections.holdfast.chain.plugins.module_utils.clock import (
    FIT,
    Limits,
    Observed,
    Percentile,
    Source,
    Tracking,
    parse_sources,
    parse_tracking,
    parse_tracking_log,
    percentile,
    result,
)
from ansible_collections.holdfast.chain.plugins.module_utils.hostfs import Host

CHRONYD = "/usr/sbin/chronyd"
# Names as the kernel has them: cut to 15 characters. busybox, ntp, ntpsec and openntpd are ntpd.
OTHER_DAEMONS = {
    "ntpd": "ntpd",
    "systemd-timesyn": "systemd-timesyncd",
    "phc2sys": "phc2sys",
}
_CAP_SYS_TIME = 25
_ANSWER_SECONDS = 10
_TAIL_BYTES = 1024 * 1024  # about 35 hours of a log with an update every 16 s
_LONGEST_PAUSE = 2.0
_STA_UNSYNC = 0x0040
_TIME_ERROR = 5


def read(host: Host, tracking_log: str, window: float, now: float) -> Observed:
    """All there is to know. Raises ClockError for an answer that is no report."""
    daemons = processes(host)
    pids = [pid for name, pid in daemons if name == "chronyd"]
    installed = host.exists(CHRONYD)
    tracking, sources, silence = ask(host)
    return Observed(
        tracking=tracking,
        silence=silence,
        sources=sources,
        p99=read_log(host, tracking_log, window, now) if tracking else None,
        installed=installed,
        version=version(host) if installed else None,
        pids=pids,
        observes_only=any(_only_observes(host, pid) for pid in pids),
        other_daemons=[(name, pid) for name, pid in daemons if name != "chronyd"],
        obstacle=obstacle(host),
        kernel=kernel_clock(),
    )


def ask(host: Host) -> tuple[Tracking | None, list[Source], str]:
    """chronyd's reports over its socket; or None, no sources and why it says nothing.

    From chrony 4.0 on: -N shows the names of the configuration and asks no DNS, -a also shows
    sources whose name has no address yet.
    """
    texts = []
    for report in (["tracking"], ["sources", "-a"]):
        try:
            code, out, err = host.run(["chronyc", "-c", "-N", *report], _ANSWER_SECONDS)
        except subprocess.TimeoutExpired:
            return None, [], f"no answer in {_ANSWER_SECONDS} s"
        if code != 0:
            # it prints its own refusals ("506 Cannot talk to daemon") where reports go
            return None, [], (out.strip() or err.strip() or f"chronyc ended with {code}")
        texts.append(out)
    return parse_tracking(texts[0]), parse_sources(texts[1]), ""


def version(host: Host) -> str | None:
    """Such as "4.3"."""
    try:
        told = re.search(r"version (\S+)", host.run([CHRONYD, "-v"], _ANSWER_SECONDS)[1])
    except subprocess.TimeoutExpired:
        return None
    return told.group(1) if told else None


def read_log(host: Host, name: str, window: float, now: float) -> Percentile | None:
    """p99 over the end of a tracking log; None if there is none or it may not be read."""
    try:
        with host.path(host.real(name)).open("rb") as stream:
            size = stream.seek(0, io.SEEK_END)
            stream.seek(max(0, size - _TAIL_BYTES))
            tail = stream.read(_TAIL_BYTES)
    except OSError:
        return None
    lines = tail.decode("ascii", "replace").splitlines()
    if size > _TAIL_BYTES:
        del lines[0]  # its beginning may be cut off
    return percentile(parse_tracking_log(lines), now, window)


def processes(host: Host) -> list[tuple[str, int]]:
    """Clock daemons that run here, as (name, process), those of containers on it left out."""
    found = []
    for pid in sorted(int(name) for name in host.names("/proc") if name.isdigit()):
        comm = host.read_kernel(f"/proc/{pid}/comm") or ""
        name = "chronyd" if comm == "chronyd" else OTHER_DAEMONS.get(comm)
        if name is None:
            continue
        status = host.read_kernel(f"/proc/{pid}/status") or ""
        nested = re.search(r"^NSpid:\s+\d+\s+\d", status, re.M)
        if not nested:
            found.append((name, pid))
    return found


def _only_observes(host: Host, pid: int) -> bool:
    """Whether a chronyd was started with -x, on its own or among other letters."""
    arguments = (host.read_kernel(f"/proc/{pid}/cmdline") or "").split("\0")
    return any(re.fullmatch(r"-[A-Za-z0-9]*x", argument) for argument in arguments[1:])


def obstacle(host: Host) -> str:
    """Why nobody on this host may set the time; empty if it may be set."""
    bounding = re.search(r"^CapBnd:\s*([0-9a-f]+)", host.read_kernel("/proc/1/status") or "", re.M)
    place = "this container" if host.in_container() else "this host"
    if bounding and not int(bounding.group(1), 16) >> _CAP_SYS_TIME & 1:
        return f"{place} has no CAP_SYS_TIME: its clock is the machine's"
    users = (host.read_kernel("/proc/self/uid_map") or "").split()
    if users and users != ["0", "0", str(2**32 - 1)]:
        # The capability is there, but counts for nothing: the kernel wants it of the first one.
        return f"{place} is a user namespace: its clock is the machine's"
    return ""


class _Timex(ctypes.Structure):
    """The beginning of struct timex (adjtimex(2)); the rest is room for the kernel to fill."""

    _fields_ = (
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),
        ("esterror", ctypes.c_long),
        ("status", ctypes.c_int),
        ("rest", ctypes.c_byte * 512),
    )


def kernel_clock() -> dict[str, Any] | None:
    """What daemons have told the kernel, on this machine or, in a container, on the one below.

    None where that may not be asked. max_error and estimated_error are seconds; the kernel lets the
    first grow by 500 ppm between updates (adjtimex(2)).
    """
    shown = _Timex()  # modes = 0: read only
    try:
        state = ctypes.CDLL(None).adjtimex(ctypes.byref(shown))
    except (OSError, AttributeError):
        return None
    if state < 0:
        return None
    return {
        "synchronised": state != _TIME_ERROR and not shown.status & _STA_UNSYNC,
        "max_error": shown.maxerror / 1e6,
        "estimated_error": shown.esterror / 1e6,
    }


def look(host: Host, tracking_log: str, window: float, limits: Limits) -> dict[str, Any]:
    """One look: the module's result."""
    now = time.time()
    return result(read(host, tracking_log, window, now), limits, now)


def wait(
    see: Callable[[], dict[str, Any]],
    enough: Callable[[dict[str, Any]], bool],
    seconds: float,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> dict[str, Any]:
    """Look until it is enough or the time is over; the last look is never before the deadline.

    Adds waited_seconds. The clock is monotonic, since the one in question may be stepped.
    """
    began = clock()
    pause = 0.2
    while True:
        found = see()
        spent = clock() - began
        if enough(found) or spent >= seconds:
            return dict(found, waited_seconds=round(spent, 3))
        sleep(min(pause, seconds - spent))
        pause = min(pause * 1.5, _LONGEST_PAUSE)


def condition(name: str) -> Callable[[dict[str, Any]], bool]:
    """When an option ``wait`` (none, synchronised or bound) is over.

    Without a daemon at once: nobody would ever synchronise the clock.
    """
    wanted: dict[str, Callable[[dict[str, Any]], bool]] = {
        "none": lambda _found: True,
        "synchronised": lambda found: found["synchronised"] or found["verdict"] == "no_daemon",
        "bound": lambda found: found["verdict"] in (*FIT, "no_daemon"),
    }
    return wanted[name]
