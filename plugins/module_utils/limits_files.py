# Copyright: (c) 2026, Holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The three kinds of files that give limits: limits.d, unit drop-ins, OpenRC's conf.d. Pure.

Files that are wholly ours carry HEADER and are written as a whole; a file without it is somebody
else's and refused. OpenRC has one file per service, in which a marked block is ours.
"""

from __future__ import annotations

import re
from typing import Iterable, Mapping, Sequence

from ansible_collections.holdfast.chain.plugins.module_utils.limits import (
    ITEMS,
    UNLIMITED,
    Limit,
    LimitError,
    in_units,
    number,
)

HEADER = "# Managed by Ansible (holdfast.chain.ulimits)\n"

Entries = Mapping[str, Limit]


def refuse_foreign(name: str, text: str | None) -> None:
    """LimitError for a file of our name that somebody else has written."""
    if text is not None and not text.startswith(HEADER):
        raise LimitError(
            f"file: {name} exists and was not made by this module; choose another name or remove it"
        )


# limits.d


def pam_lines(text: str) -> list[tuple[str, str, str, str]]:
    """(domain, type, item, value) of each line that says something."""
    found = []
    for line in text.splitlines():
        words = line.split("#", 1)[0].split()
        if len(words) >= 4:
            found.append((words[0], words[1], words[2], words[3]))
        elif len(words) == 2 and words[1] == "-":  # no limits at all for this one
            found.append((words[0], "-", "", ""))
    return found


def pam_parse(text: str) -> dict[str, dict[str, Limit]]:
    """By domain and item, what a file says; a side it leaves open is UNLIMITED."""
    found: dict[str, dict[str, Limit]] = {}
    for domain, kind, name, value in pam_lines(text):
        amount = pam_value(name, value)
        if amount is not None:
            known = found.setdefault(domain, {}).get(name, Limit(UNLIMITED, UNLIMITED))
            found[domain][name] = Limit(
                amount if kind in ("soft", "-") else known.soft,
                amount if kind in ("hard", "-") else known.hard,
            )
    return found


def pam_value(name: str, text: str) -> int | None:
    """A value of limits.conf in the limit's own unit; None if it is not one of ours."""
    amount = number(text)
    if name not in ITEMS or amount is None:
        return None
    return amount if amount == UNLIMITED else amount * ITEMS[name].pam


def pam_render(domains: Mapping[str, Entries]) -> str | None:
    """The text of a file for all its domains; None for none."""
    lines = []
    for domain in sorted(domains):
        for name, limit in sorted(domains[domain].items()):
            soft, hard = (in_units(name, side, ITEMS[name].pam, "limits.conf") for side in limit)
            if limit.soft == limit.hard:
                lines.append(f"{domain} - {name} {hard}\n")
            else:
                lines.append(f"{domain} soft {name} {soft}\n")
                lines.append(f"{domain} hard {name} {hard}\n")
    return HEADER + "".join(lines) if lines else None


def pam_decides(
    files: Sequence[tuple[str, str]], domain: str, name: str
) -> tuple[Limit, str] | None:
    """The limit that pam_limits takes for a domain, and the file of its last word.

    Files come in their order, and among entries for the same domain the last wins (those for a
    user beat those for a group or for everybody wherever they are). None: no entry.
    """
    soft = hard = UNLIMITED
    decider = None
    for file, text in files:
        for entry, kind, item, value in pam_lines(text):
            if entry != domain or item not in (name, ""):
                continue
            amount = UNLIMITED if item == "" else pam_value(item, value)
            if amount is None:
                continue
            soft = amount if kind in ("soft", "-") else soft
            hard = amount if kind in ("hard", "-") else hard
            decider = file
    return None if decider is None else (Limit(soft, hard), decider)


# systemd

_SUFFIXES = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40, "P": 2**50, "E": 2**60}


def unit_parse(text: str) -> dict[str, Limit | None]:
    """Limits that the [Service] section of a unit file or drop-in sets.

    None for one that is set back to the manager's default.
    """
    found: dict[str, Limit | None] = {}
    section = ""
    by_directive = {item.directive: name for name, item in ITEMS.items()}
    for line in map(str.strip, text.splitlines()):
        if line.startswith("["):
            section = line
        directive, equals, value = (part.strip() for part in line.partition("="))
        name = by_directive.get(directive)
        if section == "[Service]" and equals and name is not None:
            found[name] = unit_value(value) if value else None
    return found


def unit_value(text: str) -> Limit | None:
    """The limits of a directive; None for what is given in another way than we write."""
    soft, colon, hard = text.partition(":")
    sides = [_unit_number(side.strip()) for side in (soft, hard if colon else soft)]
    if sides[0] is None or sides[1] is None:
        return None
    return Limit(sides[0], sides[1])


def _unit_number(text: str) -> int | None:
    if text == "infinity":
        return UNLIMITED
    match = re.fullmatch(r"(\d+)([KMGTPE]?)", text)
    return int(match.group(1)) * _SUFFIXES.get(match.group(2), 1) if match else None


def unit_render(limits: Entries) -> str | None:
    """The text of a drop-in; None for no limits."""
    lines = []
    for name, limit in sorted(limits.items()):
        soft, hard = ("infinity" if side == UNLIMITED else str(side) for side in limit)
        value = hard if soft == hard else f"{soft}:{hard}"
        lines.append(f"{ITEMS[name].directive}={value}\n")
    return f"{HEADER}[Service]\n{''.join(lines)}" if lines else None


# OpenRC

_BEGIN = "# BEGIN holdfast.chain.ulimits"
_END = "# END holdfast.chain.ulimits"
_JOINED = " (the line before had no end)"
_BLOCK = re.compile(rf"^{_BEGIN}({re.escape(_JOINED)})?\n(.*?)^{_END}\n", re.M | re.S)


def conf_parse(text: str) -> dict[str, Limit]:
    """The limits in our block of a conf.d file."""
    block = _BLOCK.search(text)
    found = {}
    by_flag = {item.flag: name for name, item in ITEMS.items()}
    for flag, value in re.findall(r"-(\w) (\w+)", block.group(2) if block else ""):
        amount = number(value)
        if flag in by_flag and amount is not None:
            name = by_flag[flag]
            value_in_units = amount if amount == UNLIMITED else amount * ITEMS[name].shell
            found[name] = Limit(value_in_units, value_in_units)
    return found


def conf_render(text: str | None, limits: Entries) -> str | None:
    """The file with our block for these limits, or without one; None if nothing would be left.

    What others have written keeps every byte. Limits they set in rc_ulimit stay in force: ours
    come after them in the same list.
    """
    words = []
    for name, limit in sorted(limits.items()):
        if limit.soft != limit.hard:
            raise LimitError(
                f"limits: {name}: OpenRC's rc_ulimit gives soft and hard one value; give one number"
            )
        value = in_units(name, limit.hard, ITEMS[name].shell, "rc_ulimit")
        words.append(f"-{ITEMS[name].flag} {value}")
    rest = text or ""
    block = _BLOCK.search(rest)
    if block:
        start = block.start() - (1 if block.group(1) else 0)
        rest = rest[:start] + rest[block.end() :]
    if not words:
        return rest or None
    joined = "" if rest.endswith("\n") or not rest else _JOINED
    return (
        f"{rest}{chr(10) if joined else ''}{_BEGIN}{joined}\n"
        f'rc_ulimit="${{rc_ulimit:-}} {" ".join(words)}"\n{_END}\n'
    )


def sets_rc_ulimit(text: str) -> bool:
    """Whether an init script, which is read after conf.d, gives rc_ulimit a value of its own."""
    return re.search(r"^\s*(export\s+)?rc_ulimit=", text, re.M) is not None


def merged(now: Entries, wanted: Entries, named: Iterable[str] | None) -> dict[str, Limit]:
    """now with wanted set; with ``named``, those are taken away instead (all, if it is empty)."""
    if named is None:
        return {**now, **wanted}
    gone = set(named)
    return {name: limit for name, limit in now.items() if gone and name not in gone}
