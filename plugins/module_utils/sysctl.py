# Copyright: (c) 2026, Holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Names, values and files of kernel parameters. Pure: nothing here touches a host.

A parameter is known by one form inside: its path below /proc/sys, ``net/ipv4/conf/eth0.100/mtu``.
Users see the dotted form, with the two separators exchanged: ``net.ipv4.conf.eth0/100.mtu``.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from typing import Any, Iterator

GLOB = re.compile(r"[*?\[]")
_SEPARATOR = re.compile(r"[./]")
_EXCHANGE = str.maketrans("./", "/.")
_FIT_FOR_A_KEY = re.compile(r"[^\s=#;\\\x00-\x1f\x7f]+")
# Readable by everybody in a file of this kind, and printed by every tool that handles it.
_SECRETS = re.compile(r"(^|/)(stable_secret|tcp_fastopen_key)$")


class ParameterError(ValueError):
    """A name or value that no kernel could take; the message says what was expected."""


def parse_key(text: str) -> str:
    """The path of a name as a user or a file gives it.

    As sysctl.d(5) has it: if the first separator is a slash, dots are part of names; if it is a
    dot, the two are exchanged. Repeated and outer separators do not count.
    """
    first = _SEPARATOR.search(text)
    path = text if first is None or first.group() == "/" else text.translate(_EXCHANGE)
    return "/".join(part for part in path.split("/") if part)


def checked_key(text: Any) -> str:
    """parse_key() of a name that a user gave; ParameterError for what cannot be one."""
    text = str(text).strip()
    if text.startswith("/proc/sys/"):
        text = text[len("/proc/sys/") :]
    path = parse_key(text)
    parts = path.split("/")
    if not _FIT_FOR_A_KEY.fullmatch(text) or text.startswith("-") or "" in parts:
        raise ParameterError(
            f"sysctl: '{text}' is no name of a kernel parameter: expected words joined by dots or "
            "slashes, such as net.core.somaxconn"
        )
    if ".." in parts or "." in parts:
        raise ParameterError(f"sysctl: '{text}' leaves /proc/sys: '.' and '..' are no names")
    if _SECRETS.search(path):
        raise ParameterError(
            f"sysctl: {display(path)} holds a secret, and files, diffs and logs of kernel "
            "parameters are readable by everybody; set it by a unit with a credential instead"
        )
    return path


def display(path: str) -> str:
    """The dotted form of a path, for people."""
    return path.translate(_EXCHANGE)


def file_form(path: str) -> str:
    """The form for files: dotted; with slashes where a name has a dot of its own.

    systemd, procps and BusyBox all read either as the same parameter.
    """
    return path if "." in path else display(path)


def checked_value(key: str, raw: Any) -> str:
    """A value as text with single blanks; ParameterError for what a parameter cannot hold."""
    if isinstance(raw, bool) or (isinstance(raw, str) and raw in ("True", "False")):
        raise ParameterError(
            f"sysctl: {display(key)} = {str(raw).lower()}: a kernel parameter is a number or a "
            f"text; write {int(str(raw) == 'True')}"
        )
    if isinstance(raw, (list, tuple)):
        return " ".join(checked_value(key, item) for item in raw)
    if isinstance(raw, float) or raw is None or isinstance(raw, dict):
        raise ParameterError(
            f"sysctl: {display(key)} = {raw}: expected a whole number, a text or a list of them"
        )
    text = str(raw).strip()
    if re.search(r"[\x00-\x08\x0a-\x1f\x7f]", text):
        raise ParameterError(f"sysctl: {display(key)}: the value is more than one line")
    return re.sub(r"[ \t]+", " ", text) if _numbers(text) is not None else text


def _numbers(text: str) -> list[int] | None:
    """The numbers a value consists of, as the kernel reads them (0x and 0 prefixes); else None."""
    numbers = []
    for word in text.split():
        match = re.fullmatch(r"(-?)(0[xX][0-9a-fA-F]+|\d+)", word)
        if match is None:
            return None
        digits = match.group(2)
        if digits[:2] in ("0x", "0X"):
            base = 16
        else:
            base = 8 if digits[0] == "0" and set(digits) <= set("01234567") else 10
        numbers.append(int(match.group(1) + digits, base))
    return numbers


def _ranges(text: str) -> set[int] | None:
    """The numbers in a list such as ``8545,30303-30304``; None if it is no such list."""
    found: set[int] = set()
    for item in filter(None, text.replace(",", " ").split()):
        first, _dash, last = item.partition("-")
        if not first.isdigit() or (last and not last.isdigit()):
            return None
        found.update(range(int(first), int(last or first) + 1))
    return found


# Kept by the kernel in timer ticks, so it shows the next multiple of a tick, which is 10 ms at most
# (Documentation/networking/ip-sysctl.rst; include/linux/jiffies.h).
_IN_TICKS = re.compile(r"net/ipv[46]/neigh/[^/]+/\w+_ms|net/ipv6/route/\w+_ms")
_LONGEST_TICK_MS = 10
# Kept as a set of ports, shown as the shortest list of ranges (same document).
_PORT_SETS = re.compile(r"net/ipv4/ip_local_reserved_ports")


def same_value(key: str, wanted: str, shown: str) -> bool:
    """Whether what the kernel or a file shows is the wanted value.

    Blanks between numbers and the base of a number do not count; nor does what the kernel's
    documentation says about how it rounds or orders a parameter.
    """
    if wanted.strip() == shown.strip():
        return True
    numbers, shown_numbers = _numbers(wanted), _numbers(shown)
    if _PORT_SETS.fullmatch(key):
        ports, shown_ports = _ranges(wanted), _ranges(shown)
        return ports is not None and ports == shown_ports
    if numbers is None or shown_numbers is None:
        return False
    if _IN_TICKS.fullmatch(key) and len(numbers) == len(shown_numbers) == 1:
        return 0 <= shown_numbers[0] - numbers[0] < _LONGEST_TICK_MS
    return bool(numbers) and numbers == shown_numbers


@dataclass(frozen=True)
class Assignment:
    """One line of a file that says something about a parameter.

    line: its index. key: path, possibly with wildcards. value: None for a ``-key`` line, which
    exempts the parameter from wildcards. forgiving: a ``-`` in front, errors do not count.
    """

    line: int
    key: str
    value: str | None
    forgiving: bool = False


def parse(text: str, dialect: str) -> list[Assignment]:
    """The assignments of a file, in their order, as its reader understands them.

    dialect: systemd, procps, busybox (``sysctl -p``), or first-word (OpenRC's loop over
    ``sysctl -w``). Lines their reader skips or refuses are left out.
    """
    return list(_parsed(text, dialect))


@functools.lru_cache(maxsize=512)  # one run asks for the same few texts for each key
def _parsed(text: str, dialect: str) -> tuple[Assignment, ...]:
    parser = _PARSERS[dialect]
    lines = enumerate(text.split("\n"))
    return tuple(assignment for number, line in lines for assignment in parser(number, line))


def _parse_systemd(number: int, line: str) -> Iterator[Assignment]:
    line = line.strip()
    if not line or line[0] in "#;":
        return
    key, equals, value = line.partition("=")
    forgiving = key.startswith("-")
    if equals or forgiving:
        path = parse_key(key[forgiving:].strip())
        if path:
            yield Assignment(number, path, value.strip() if equals else None, forgiving)


def _parse_busybox(number: int, line: str) -> Iterator[Assignment]:
    line = line.strip()
    if not line or line[0] in "#;":
        return
    key, _equals, value = line.partition("=")
    key, value = key.strip(), value.strip()
    # A dash is part of the name to it, and an empty value an error.
    if key and value and not key.startswith("-"):
        yield Assignment(number, parse_key(key), value)


def _parse_first_word(number: int, line: str) -> Iterator[Assignment]:
    words = line.replace(" = ", "=", 1).split()
    if words and not words[0].startswith("#"):
        yield from _parse_busybox(number, words[0])


_PARSERS = {
    "systemd": _parse_systemd,
    "procps": _parse_systemd,
    "busybox": _parse_busybox,
    "first-word": _parse_first_word,
}


class Document:
    """A file of kernel parameters, of which only the lines that are set or removed change."""

    def __init__(self, text: str, dialect: str) -> None:
        self._lines = text.split("\n")
        self._dialect = dialect

    def assignments(self) -> list[Assignment]:
        """What its lines say now."""
        return parse(self.render(), self._dialect)

    def value(self, key: str) -> str | None:
        """The value the file gives to a key by itself: the last one; None if it gives none."""
        values = [item.value for item in self.assignments() if item.key == key]
        return values[-1] if values else None

    def keys(self) -> list[str]:
        """Keys that get a value, in the order of their first lines."""
        return list(
            dict.fromkeys(item.key for item in self.assignments() if item.value is not None)
        )

    def set(self, key: str, value: str) -> None:
        """Give a key one value: in the place of its last line, or at the end.

        Earlier lines of the same key go: they would say something else.
        """
        mine = [item for item in self.assignments() if item.key == key]
        text = f"{file_form(key)} = {value}".rstrip()
        if mine:
            if mine[-1].value is None or not same_value(key, value, mine[-1].value):
                forgiving = mine[-1].forgiving and mine[-1].value is not None
                self._lines[mine[-1].line] = ("-" if forgiving else "") + text
            self._drop([item.line for item in mine[:-1]])
        else:
            while self._lines and not self._lines[-1].strip():
                self._lines.pop()
            self._lines += [text, ""]

    def remove(self, key: str, exemptions: bool = False) -> None:
        """Remove the lines that give a key a value, and those that exempt it if asked to."""
        self._drop(
            [
                item.line
                for item in self.assignments()
                if item.key == key and (exemptions or item.value is not None)
            ]
        )

    def _drop(self, numbers: list[int]) -> None:
        for number in reversed(numbers):
            del self._lines[number]

    def render(self) -> str:
        """The text."""
        return "\n".join(self._lines)
