# Copyright: (c) 2026, Holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Local customisations of an SELinux policy, as libsemanage stores them and semanage takes them.

Pure: parse, render, and the script of ``semanage import`` that makes one set of customisations out
of another. Formats: file_contexts(5), and what libsemanage writes to ``active/*.local``.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass, field
from typing import Any, Collection, Iterable, Mapping, NamedTuple, Sequence

# How semanage calls a kind of file, and how file_contexts does.
FILE_TYPES = {
    "a": "",
    "b": "-b",
    "c": "-c",
    "d": "-d",
    "f": "--",
    "l": "-l",
    "p": "-p",
    "s": "-s",
}
_BY_MARK = {mark: name for name, mark in FILE_TYPES.items()}
PROTOCOLS = ("tcp", "udp", "dccp", "sctp")
NO_LABEL = "<<none>>"
# Types of ports that nobody has asked for yet.
UNCLAIMED_PORTS = frozenset(
    f"{kind}port_t" for kind in ("", "unreserved_", "ephemeral_", "reserved_", "hi_reserved_")
)
_PORT = re.compile(r"portcon\s+(\w+)\s+(\d+)(?:\s*-\s*(\d+))?\s+(\S+)$")
META = frozenset(".^$?*+|[({")


class SelinuxError(ValueError):
    """An option that cannot be: names the option, its value, what was expected, the way out."""


class Context(NamedTuple):
    """A security context; ``range`` is empty where the policy has no levels."""

    user: str
    role: str
    type: str
    range: str

    def __str__(self) -> str:
        return ":".join(part for part in self if part)


def parse_context(text: str) -> Context:
    """``system_u:object_r:bin_t:s0``; ValueError for what has fewer than three parts."""
    parts = text.split(":", 3)
    if len(parts) < 3:
        raise ValueError(f"'{text}' is no security context")
    return Context(parts[0], parts[1], parts[2], parts[3] if len(parts) > 3 else "")


class FileContext(NamedTuple):
    """A rule that gives files their label; context None stands for ``<<none>>``."""

    target: str
    ftype: str
    context: Context | None

    @property
    def key(self) -> tuple[str, str]:
        """What tells one rule from another."""
        return self.target, self.ftype

    def render(self) -> str:
        """As a line of file_contexts."""
        mark = FILE_TYPES[self.ftype]
        label = NO_LABEL if self.context is None else str(self.context)
        return " ".join(part for part in (self.target, mark, label) if part)


class PortContext(NamedTuple):
    """A type for a range of ports."""

    proto: str
    low: int
    high: int
    context: Context

    @property
    def key(self) -> tuple[str, int, int]:
        """What tells one rule from another."""
        return self.proto, self.low, self.high

    @property
    def name(self) -> str:
        """``tcp/8080`` or ``tcp/30303-30304``."""
        return f"{self.proto}/{self.span}"

    @property
    def span(self) -> str:
        """``8080`` or ``30303-30304``."""
        return str(self.low) if self.low == self.high else f"{self.low}-{self.high}"

    def render(self) -> str:
        """As a line of ports.local."""
        span = self.span.replace("-", " - ")
        return f"portcon {self.proto} {span} {self.context}"


@dataclass(frozen=True)
class Customisations:
    """What a host's administrators have added to the policy, in the order it is stored."""

    files: tuple[FileContext, ...] = ()
    ports: tuple[PortContext, ...] = ()
    booleans: Mapping[str, bool] = field(default_factory=dict)

    def same(self, other: Customisations) -> bool:
        """Whether both mean the same; the order counts for file contexts alone."""
        return (
            self.files == other.files
            and set(self.ports) == set(other.ports)
            and dict(self.booleans) == dict(other.booleans)
        )

    def plain(self) -> dict[str, Any]:
        """As JSON takes it; `customisations_of` reads it back."""
        return {
            "files": [item.render() for item in self.files],
            "ports": [item.render() for item in self.ports],
            "booleans": dict(self.booleans),
        }


def customisations_of(plain: Mapping[str, Any]) -> Customisations:
    """What `Customisations.plain` made."""
    return Customisations(
        parse_files("\n".join(plain["files"])),
        parse_ports("\n".join(plain["ports"])),
        dict(plain["booleans"]),
    )


def _lines(text: str | None) -> list[str]:
    stripped = (line.strip() for line in (text or "").splitlines())
    return [line for line in stripped if line and not line.startswith("#")]


def parse_files(text: str | None) -> tuple[FileContext, ...]:
    """Lines of a file_contexts file; what is none is passed over, as libselinux does."""
    found = []
    for line in _lines(text):
        parts = line.split()
        if len(parts) == 2:
            parts.insert(1, "")
        if len(parts) != 3 or parts[1] not in _BY_MARK:
            continue
        context = None if parts[2] == NO_LABEL else parse_context(parts[2])
        found.append(FileContext(parts[0], _BY_MARK[parts[1]], context))
    return tuple(found)


def parse_ports(text: str | None) -> tuple[PortContext, ...]:
    """Lines of ports.local."""
    found = []
    for line in _lines(text):
        match = _PORT.match(line)
        if match:
            proto, low, high, context = match.groups()
            found.append(PortContext(proto, int(low), int(high or low), parse_context(context)))
    return tuple(found)


def parse_booleans(text: str | None) -> dict[str, bool]:
    """Lines of booleans.local."""
    found = {}
    for line in _lines(text):
        name, equals, value = line.partition("=")
        if equals:
            found[name.strip()] = value.strip() in ("1", "true", "on")
    return found


def parse_policy_ports(text: str) -> dict[tuple[str, int, int], str]:
    """The output of ``semanage port -l -n``: the type by protocol, first and last port."""
    found = {}
    for line in text.splitlines():
        parts = line.split(None, 2)
        if len(parts) != 3 or parts[1] not in PROTOCOLS:
            continue
        for span in parts[2].split(","):
            low, _dash, high = span.strip().partition("-")
            if low.isdigit():
                found[parts[1], int(low), int(high or low)] = parts[0]
    return found


def parse_span(value: Any, option: str) -> tuple[int, int]:
    """First and last port of ``8080`` or ``30303-30304``; SelinuxError for anything else."""
    match = re.fullmatch(r"(\d{1,5})(?:-(\d{1,5}))?", str(value).strip())
    if match:
        low, high = int(match.group(1)), int(match.group(2) or match.group(1))
        if 1 <= low <= high <= 65535:
            return low, high
    raise SelinuxError(
        f"{option}: '{value}' is no port: expected a number from 1 to 65535, or a range such as "
        "30303-30304"
    )


class Substitution(NamedTuple):
    """A line of file_contexts.subs: what is below ``alias`` is labelled as if below ``path``."""

    alias: str
    path: str


def parse_substitutions(text: str | None) -> tuple[Substitution, ...]:
    """Lines of file_contexts.subs and file_contexts.subs_dist."""
    pairs = (line.split() for line in _lines(text))
    return tuple(Substitution(*pair) for pair in pairs if len(pair) == 2)


def substituted(path: str, *lists: Sequence[Substitution]) -> str:
    """The path whose label a path gets: each list of substitutions in turn, its last match wins."""
    for substitutions in lists:
        for alias, instead in reversed(substitutions):
            if path == alias or path.startswith(alias.rstrip("/") + "/"):
                path = instead + path[len(alias) :]
                break
    return path


def check_target(target: str, option: str, substitutions: Iterable[Substitution] = ()) -> None:
    """SelinuxError for a regular expression that file_contexts cannot hold, or never sees."""
    if not target.startswith("/"):
        raise SelinuxError(
            f"{option}: '{target}' matches nothing: expected an absolute path, or a regular "
            "expression that begins with '/'"
        )
    if re.search(r"[\s\"\0]", target):
        raise SelinuxError(
            f"{option}: '{target}': blanks and double quotes cannot be written in file contexts: "
            "write '.' in their place"
        )
    try:
        re.compile(target)
    except re.error as error:
        raise SelinuxError(
            f"{option}: '{target}' is no regular expression: {error}; put '\\' before a character "
            "that stands for itself"
        ) from None
    for alias, path in substitutions:
        if target.startswith(alias.rstrip("/") + "/"):
            instead = path + target[len(alias) :]
            raise SelinuxError(
                f"{option}: '{target}' is never looked at: the policy labels {alias} as if it were "
                f"{path}; write '{instead}'"
            )


def stem(target: str) -> str:
    """The deepest folder or file that everything the target matches is, or is below.

    ``/opt/x(/.*)?`` gives /opt/x, ``/opt/x/[^/]+/bin`` gives /opt/x; escapes are taken off.
    """
    tail = re.search(r"\(/\.\*\)\?\$?$", target)
    literal = target[: tail.start()] if tail else target
    taken = ""
    position = 0
    while position < len(literal):
        character = literal[position]
        following = literal[position + 1 : position + 2]
        if character == "\\" and following and not following.isalnum():  # \d and \w are classes
            taken += literal[position + 1]
            position += 2
            continue
        if character in META or character == "\\" or following in ("?", "*", "{"):
            # what comes before belongs to the expression, back to the last folder
            return taken.rpartition("/")[0] or "/"
        taken += character
        position += 1
    return taken or "/"


def close_matches(name: str, known: Collection[str]) -> str:
    """``; did you mean bin_t or sbin_t?``, or nothing where nothing is close."""
    close = difflib.get_close_matches(name, sorted(known), n=3, cutoff=0.7)
    return f"; did you mean {' or '.join(close)}?" if close else ""


def script(
    now: Customisations,
    wanted: Customisations,
    policy_files: Collection[tuple[str, str]] = (),
    policy_ports: Collection[tuple[str, int, int]] = (),
) -> list[str]:
    """Lines for ``semanage import`` that make ``wanted`` of ``now``, in that order; pure.

    policy_files, policy_ports: keys that the policy itself has, which semanage modifies and does
    not add. What does not change, and stands before everything that does, is not touched.
    """
    lines = _file_lines(now.files, wanted.files, policy_files)
    lines += _port_lines(now.ports, wanted.ports, policy_ports)
    return lines + _boolean_lines(now.booleans, wanted.booleans)


def _staying(now: Sequence[Any], wanted: Sequence[Any]) -> int:
    """How many of the first wanted items can stay where they are."""
    places = {item.key: place for place, item in enumerate(now)}
    last = -1
    for count, item in enumerate(wanted):
        place = places.get(item.key, -1)
        if place <= last:
            return count
        last = place
    return len(wanted)


def _file_lines(
    now: Sequence[FileContext],
    wanted: Sequence[FileContext],
    in_policy: Collection[tuple[str, str]],
) -> list[str]:
    staying = _staying(now, wanted)
    kept = {item.key: item for item in wanted[:staying]}
    before = {item.key: item for item in now}
    lines = [f'fcontext -d -f {item.ftype} "{item.target}"' for item in now if item.key not in kept]
    lines += [_file_line("-m", item) for item in kept.values() if before[item.key] != item]
    for item in wanted[staying:]:
        lines.append(_file_line("-m" if item.key in in_policy else "-a", item))
    return lines


def _file_line(action: str, item: FileContext) -> str:
    if item.context is None:
        label = f"-t {NO_LABEL}"
    else:
        label = f"-s {item.context.user} -t {item.context.type}"
        if item.context.range:
            label += f" -r {item.context.range}"
    return f'fcontext {action} -f {item.ftype} {label} "{item.target}"'


def _port_lines(
    now: Sequence[PortContext],
    wanted: Sequence[PortContext],
    in_policy: Collection[tuple[str, int, int]],
) -> list[str]:
    """No port is taken away and given again: whether the policy has it too would be a guess."""
    before = {item.key: item for item in now}
    after = {item.key for item in wanted}
    lines = [f"port -d -p {item.proto} {item.span}" for item in now if item.key not in after]
    for item in wanted:
        known = item.key in before or item.key in in_policy
        if before.get(item.key) != item:
            lines.append(_port_line("-m" if known else "-a", item))
    return lines


def _port_line(action: str, item: PortContext) -> str:
    level = f" -r {item.context.range}" if item.context.range else ""
    return f"port {action} -t {item.context.type}{level} -p {item.proto} {item.span}"


def _boolean_lines(now: Mapping[str, bool], wanted: Mapping[str, bool]) -> list[str]:
    """semanage cannot take one boolean away: all go, and those that stay are set again."""
    again = not set(now) <= set(wanted)
    lines = ["boolean -D"] if again else []
    for name, value in wanted.items():
        if again or now.get(name) is not value:
            lines.append(f"boolean -m --{'on' if value else 'off'} {name}")
    return lines
