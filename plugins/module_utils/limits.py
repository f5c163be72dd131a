# Copyright: (c) 2026, Holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Resource limits: their names everywhere, their units, and what a system allows. Pure.

A value is a whole number in the limit's own unit (bytes, seconds, or a count), or UNLIMITED.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Mapping, NamedTuple

UNLIMITED = 2**64 - 1  # as the kernel has it, so that values compare as numbers


class LimitError(ValueError):
    """A limit that cannot be had; the message has the number that could."""


class Limit(NamedTuple):
    """What a process may use, and how far it may raise that itself."""

    soft: int
    hard: int

    def __str__(self) -> str:
        if self.soft == self.hard:
            return shown(self.soft)
        return f"soft {shown(self.soft)}, hard {shown(self.hard)}"

    def facts(self) -> dict[str, Any]:
        """For results."""
        return {"soft": plain(self.soft), "hard": plain(self.hard)}


@dataclass(frozen=True)
class Item:
    """A limit's names: in Python, in systemd units, in /proc/PID/limits, for the shell.

    pam, shell: how many of its units one unit of limits.conf or of ``ulimit`` is (shell: BusyBox).
    """

    constant: str
    directive: str
    label: str
    flag: str
    pam: int = 1
    shell: int = 1
    unit: str = ""


ITEMS = {
    "as": Item("RLIMIT_AS", "LimitAS", "Max address space", "v", 1024, 1024, "bytes"),
    "core": Item("RLIMIT_CORE", "LimitCORE", "Max core file size", "c", 1024, 512, "bytes"),
    "cpu": Item("RLIMIT_CPU", "LimitCPU", "Max cpu time", "t", 60, 1, "seconds"),
    "data": Item("RLIMIT_DATA", "LimitDATA", "Max data size", "d", 1024, 1024, "bytes"),
    "fsize": Item("RLIMIT_FSIZE", "LimitFSIZE", "Max file size", "f", 1024, 512, "bytes"),
    "memlock": Item(
        "RLIMIT_MEMLOCK", "LimitMEMLOCK", "Max locked memory", "l", 1024, 1024, "bytes"
    ),
    "msgqueue": Item("RLIMIT_MSGQUEUE", "LimitMSGQUEUE", "Max msgqueue size", "q", 1, 1, "bytes"),
    "nofile": Item("RLIMIT_NOFILE", "LimitNOFILE", "Max open files", "n"),
    "nproc": Item("RLIMIT_NPROC", "LimitNPROC", "Max processes", "u"),
    "rtprio": Item("RLIMIT_RTPRIO", "LimitRTPRIO", "Max realtime priority", "r"),
    "sigpending": Item("RLIMIT_SIGPENDING", "LimitSIGPENDING", "Max pending signals", "i"),
    "stack": Item("RLIMIT_STACK", "LimitSTACK", "Max stack size", "s", 1024, 1024, "bytes"),
}
_WORDS = ("unlimited", "infinity", "-1")


def shown(value: int) -> str:
    """A value for people."""
    return "unlimited" if value == UNLIMITED else str(value)


def plain(value: int) -> Any:
    """A value for results: a number, or the word."""
    return "unlimited" if value == UNLIMITED else value


def number(text: Any) -> int | None:
    """A value as users and files write it; None if it is neither a number nor the word."""
    if isinstance(text, bool):
        return None
    text = str(text).strip()
    if text in _WORDS:
        return UNLIMITED
    return int(text) if text.isdigit() else None


def limits_of(wanted: Mapping[str, Any]) -> dict[str, Limit]:
    """The limits of a task by item; LimitError with all that is wrong with them."""
    limits: dict[str, Limit] = {}
    problems: list[str] = []
    for name, raw in wanted.items():
        if name not in ITEMS:
            problems.append(f"limits: '{name}' is no limit: expected one of {', '.join(ITEMS)}")
            continue
        sides = raw if isinstance(raw, Mapping) else {"soft": raw, "hard": raw}
        soft, hard = number(sides.get("soft")), number(sides.get("hard"))
        unit = ITEMS[name].unit
        if soft is None or hard is None or set(sides) != {"soft", "hard"}:
            problems.append(
                f"limits: {name} = {raw}: expected a whole number{' of ' + unit if unit else ''}, "
                "'unlimited', or both 'soft' and 'hard'"
            )
        elif soft > hard:
            problems.append(
                f"limits: {name}: soft {shown(soft)} is above hard {shown(hard)}; a process can "
                "raise its soft limit to the hard one, not further"
            )
        else:
            limits[name] = Limit(soft, hard)
    if problems:
        raise LimitError("; ".join(problems))
    return dict(sorted(limits.items()))


def beyond_the_kernel(limits: Mapping[str, Limit], nr_open: int | None) -> list[str]:
    """Problems with limits that no process on this kernel can have."""
    limit = limits.get("nofile")
    if limit is None or nr_open is None or limit.hard <= nr_open:
        return []
    return [
        f"limits: nofile: hard {shown(limit.hard)} is above fs.nr_open = {nr_open}, the most the "
        "kernel gives a process; ask for less, or raise fs.nr_open first (kernel_params)"
    ]


def under_ceiling(
    limits: Mapping[str, Limit], ceiling: Mapping[str, int]
) -> tuple[dict[str, Limit], list[str]]:
    """Limits lowered to what a container can give, and a sentence for each that had to be."""
    lowered = dict(limits)
    problems = []
    for name, limit in limits.items():
        most = ceiling.get(name, UNLIMITED)
        if limit.hard > most:
            lowered[name] = Limit(min(limit.soft, most), most)
            problems.append(
                f"limits: {name}: hard {shown(limit.hard)} is above {most}, the most this "
                "container can give; raise its own limit outside, or set ceiling=lower"
            )
    return lowered, problems


def in_units(name: str, value: int, per_unit: int, whose: str) -> str:
    """A value in the units of a file; LimitError where it is no whole number of them."""
    if value == UNLIMITED:
        return "unlimited"
    if value % per_unit:
        raise LimitError(
            f"limits: {name} = {value}: {whose} counts in units of {per_unit}; use a multiple"
        )
    return str(value // per_unit)


def parse_proc(text: str) -> dict[str, Limit]:
    """The limits in the text of a /proc/PID/limits."""
    found = {}
    for name, item in ITEMS.items():
        line = re.search(rf"^{re.escape(item.label)}\s+(\S+)\s+(\S+)", text, re.M)
        if line:
            soft, hard = number(line.group(1)), number(line.group(2))
            if soft is not None and hard is not None:
                found[name] = Limit(soft, hard)
    return found
