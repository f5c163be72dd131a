# Copyright: (c) 2026, Holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which value each kernel parameter gets at the next boot, and which file decides it.

Three programs read the same folders and disagree:

* systemd-sysctl takes one file per name (/etc before /run before /usr/local/lib before /usr/lib),
  orders them by name alone, and collects: the last assignment of a key wins, and a key that is
  named outright is left alone by wildcards. It does not read /etc/sysctl.conf; some distributions
  link it into /etc/sysctl.d.
* procps' ``sysctl --system`` does nearly the same, and reads /etc/sysctl.conf last.
* OpenRC with BusyBox runs ``sysctl`` on one file after the other, in the order its script has,
  knows no wildcards and no masking: on Alpine, files in /usr/lib come after those in /etc.

Firewalls and tuning daemons that write parameters later in the boot come after all of them.
"""

from __future__ import annotations

import fnmatch
import functools
import posixpath
import re
from dataclasses import dataclass, field
from typing import Callable, Iterator, Mapping, Sequence

from ansible_collections.holdfast.chain.plugins.module_utils import tuned
from ansible_collections.holdfast.chain.plugins.module_utils.hostfs import Host
from ansible_collections.holdfast.chain.plugins.module_utils.sysctl import (
    GLOB,
    Assignment,
    parse,
    same_value,
)

DIRECTORIES = (
    "/etc/sysctl.d",
    "/run/sysctl.d",
    "/usr/local/lib/sysctl.d",
    "/usr/lib/sysctl.d",
    "/lib/sysctl.d",
)
_SYSCTL_CONF = "/etc/sysctl.conf"
_OPENRC_SCRIPT = "/etc/init.d/sysctl"
# Alpine's, up to the release in which its script stopped naming the folders itself.
_ALPINE_ORDER = (
    "/run/sysctl.d/*.conf",
    "/etc/sysctl.d/*.conf",
    "/usr/local/lib/sysctl.d/*.conf",
    "/usr/lib/sysctl.d/*.conf",
    "/lib/sysctl.d/*.conf",
    _SYSCTL_CONF,
)
# Setting one of a pair to a number makes the kernel show 0 for the other
# (Documentation/admin-guide/sysctl/vm.rst).
RIVALS = {
    "vm/dirty_bytes": "vm/dirty_ratio",
    "vm/dirty_background_bytes": "vm/dirty_background_ratio",
    "vm/overcommit_kbytes": "vm/overcommit_ratio",
}
RIVALS.update({value: key for key, value in tuple(RIVALS.items())})


@dataclass(frozen=True)
class Write:
    """One assignment that takes part in a boot, and its file."""

    key: str
    value: str | None
    file: str


@dataclass(frozen=True)
class Boot:
    """The files that set kernel parameters at boot, and the rules of the program that reads them.

    reader: systemd, procps, or sequence. dialect: as sysctl.parse has it. texts: by name, all the
    files there are, whether or not they count. patterns: for a sequence, its files in order, as
    shell patterns. later: files and texts that others apply after that.
    """

    reader: str
    dialect: str
    texts: Mapping[str, str]
    patterns: Sequence[str] = ()
    later: Sequence[tuple[str, str]] = ()  # (file, text)
    exists: Callable[[str], bool] = field(default=lambda _path: True, compare=False)

    @property
    def wildcards(self) -> bool:
        """Whether the reader understands wildcards in names."""
        return self.reader != "sequence" or self.dialect == "procps"

    def with_file(self, name: str, text: str | None) -> Boot:
        """The same boot with one file having another text, or None for being absent."""
        texts = {known: kept for known, kept in self.texts.items() if known != name}
        if text is not None:
            texts[name] = text
        return Boot(self.reader, self.dialect, texts, self.patterns, self.later, self.exists)

    def files(self) -> list[str]:
        """The files that are read, in their order."""
        if self.reader == "sequence":
            return [name for pattern in self.patterns for name in self._expand(pattern)]
        chosen: dict[str, str] = {}
        for directory in DIRECTORIES:
            for name in self.texts:
                parent, base = posixpath.split(name)
                if parent == directory and base.endswith(".conf") and self._visible(base):
                    chosen.setdefault(base, name)
        ordered = [chosen[base] for base in sorted(chosen, key=lambda name: name.encode())]
        if self.reader == "procps" and _SYSCTL_CONF in self.texts:
            ordered.append(_SYSCTL_CONF)
        return ordered

    def _visible(self, base: str) -> bool:
        return self.reader == "procps" or not base.startswith(".")

    def _expand(self, pattern: str) -> list[str]:
        as_regex = re.escape(pattern).replace(r"\*", r"(?!\.)[^/]*")
        found = [name for name in self.texts if re.fullmatch(as_regex, name)]
        return sorted(found, key=lambda name: name.encode())

    @functools.cached_property
    def writes(self) -> list[Write]:
        """The assignments in the order they are carried out."""
        collected = [
            Write(self._resolved(item), item.value, name)
            for name in self.files()
            for item in parse(self.texts[name], self.dialect)
        ]
        if self.reader == "systemd":
            collected = _as_systemd(collected)
        return collected

    def _resolved(self, item: Assignment) -> str:
        if self.dialect in ("busybox", "first-word") and not self.exists(item.key):
            return _with_existing_dots(item.key, self.exists)
        return item.key

    def decide(self, key: str) -> Write | None:
        """The assignment that a parameter's value at the end of the boot comes from.

        None if nothing sets it: it keeps the kernel's default. A decision with value None is
        a line that takes the parameter out of a wildcard, likewise.
        """
        decided = self._decide_by_folders(key)
        for name, text in self.later:
            for item in parse(text, "procps"):
                if item.key == key and item.value is not None:
                    decided = Write(key, item.value, name)
        return decided

    def _decide_by_folders(self, key: str) -> Write | None:
        decided: Write | None = None
        for group in self._runs:
            found = self._decide_by(group, key)
            if found is not None and (found.value is not None or decided is None):
                decided = found
        return decided

    @functools.cached_property
    def _runs(self) -> list[list[Write]]:
        """The writes of each run of the reader: one for all files, or one per file."""
        if self.reader != "sequence":
            return [self.writes]
        return [[write for write in self.writes if write.file == name] for name in self.files()]

    def _decide_by(self, writes: Sequence[Write], key: str) -> Write | None:
        outright = [write for write in writes if write.key == key]
        if self.reader == "systemd" and outright:
            return outright[-1]
        values = [write for write in outright if write.value is not None]
        if values or not self.wildcards:
            return values[-1] if values else None
        if self.dialect == "procps":
            for write in writes:
                if write.value is None and fnmatch.fnmatchcase(key, write.key):
                    return write
        matching = [
            write
            for write in writes
            if write.value is not None
            and GLOB.search(write.key)
            and wildcard_matches(write.key, key)
        ]
        return matching[-1] if matching else None

    def rival(self, key: str) -> Write | None:
        """An assignment after a key's own that makes the kernel forget the key's value."""
        rival = RIVALS.get(key)
        if rival is None:
            return None
        own = -1
        after: Write | None = None
        for number, write in enumerate(self.writes):
            if write.key == key and write.value is not None:
                own, after = number, None
            elif write.key == rival and own >= 0 and not same_value(rival, "0", write.value or "0"):
                after = write
        return after


def _as_systemd(collected: list[Write]) -> list[Write]:
    """What its table holds in the end, in its order: a new value moves a key to the end."""
    table: dict[str, Write] = {}
    for write in collected:
        known = table.get(write.key)
        if known is not None and known.value == write.value:
            continue
        table.pop(write.key, None)
        table[write.key] = write
    return list(table.values())


def _with_existing_dots(path: str, exists: Callable[[str], bool]) -> str:
    """BusyBox takes each dot for a slash only where that leads to something that exists.

    Where a name has both, it exchanges them as others do.
    """
    if "." in path:
        return path
    text = path.replace("/", ".")
    start = 0
    while True:
        for end in range(len(text), start, -1):
            if (end == len(text) or text[end] == ".") and exists(text[:end]):
                if end == len(text):
                    return text
                text = f"{text[:end]}/{text[end + 1 :]}"
                start = end + 1
                break
        else:
            return text


def wildcard_matches(pattern: str, path: str) -> bool:
    """Whether glob(7) finds path by pattern: wildcards do not reach over a slash."""
    if not GLOB.search(pattern):
        return pattern == path
    return re.fullmatch(_as_regex(pattern), path) is not None


def _as_regex(pattern: str) -> str:
    pieces: list[str] = []
    rest = pattern
    while rest:
        bracket = re.match(r"\[(!|\^)?(\]?[^\]/]*)\]", rest)
        if bracket:
            inner = bracket.group(2).replace("\\", "\\\\").replace("[", "\\[")
            pieces.append("[{}{}]".format("^/" if bracket.group(1) else "", inner))
            rest = rest[bracket.end() :]
            continue
        pieces.append({"*": "[^/]*", "?": "[^/]"}.get(rest[0]) or re.escape(rest[0]))
        rest = rest[1:]
    return "".join(pieces)


def read_boot(host: Host, exists: Callable[[str], bool]) -> Boot:
    """The rules and files of a host. exists: whether the kernel has a parameter or group."""
    init = host.init_system()
    reader, dialect, patterns = "procps", "procps", ()
    if init == "systemd":
        reader, dialect = "systemd", "systemd"
    elif init == "openrc":
        reader, dialect, patterns = _openrc_rules(host)
    elif _is_busybox(host):
        reader, dialect, patterns = "sequence", "busybox", _ALPINE_ORDER
    names = [
        f"{directory}/{name}"
        for directory in _directories(patterns)
        for name in host.names(directory)
        if name.endswith(".conf")
    ]
    later = list(_applied_later(host))
    names.append(_SYSCTL_CONF)
    texts = {name: text for name, text in ((n, host.read(n)) for n in names) if text is not None}
    for name in names:  # a link to /dev/null masks others of its name, though it has no text
        if host.is_link(name) and host.real(name) == "/dev/null":
            texts[name] = ""
    return Boot(reader, dialect, texts, patterns, later, exists)


def _directories(patterns: Sequence[str]) -> list[str]:
    named = [posixpath.dirname(pattern) for pattern in patterns if pattern != _SYSCTL_CONF]
    return list(dict.fromkeys([*DIRECTORIES, *named]))


def _is_busybox(host: Host) -> bool:
    for program in ("/usr/sbin/sysctl", "/sbin/sysctl", "/usr/bin/sysctl", "/bin/sysctl"):
        if host.exists(program):
            return posixpath.basename(host.real(program)) == "busybox"
    return False


def _openrc_rules(host: Host) -> tuple[str, str, tuple[str, ...]]:
    """What this host's own init script does: distributions patch it, and it changed over time."""
    script = (host.read(_OPENRC_SCRIPT) or "").replace("\\\n", " ")
    busybox = _is_busybox(host)
    if not busybox and re.search(r"sysctl\b.*--system", script):
        return "procps", "procps", ()
    lists = [
        tuple(found.split())
        for found in re.findall(r"\bfor\s+\w+\s+in\s+([^;\n]*sysctl[^;\n]*)", script)
    ]
    patterns = lists[-1] if lists else _ALPINE_ORDER
    if re.search(r"sysctl\s+-w\s+\"?\$", script):
        return "sequence", "first-word", patterns
    return "sequence", "busybox" if busybox else "procps", patterns


def _applied_later(host: Host) -> Iterator[tuple[str, str]]:
    """Files whose parameters are set after the folders were applied.

    ufw sets its own when it starts; so does tuned, unless it applies the folders once more after
    that, as it does by default.
    """
    if re.search(r"^\s*ENABLED\s*=\s*[\"']?yes", host.read("/etc/ufw/ufw.conf") or "", re.M):
        found = re.search(
            r"^\s*IPT_SYSCTL\s*=\s*[\"']?([^\"'\s]+)", host.read("/etc/default/ufw") or "", re.M
        )
        if found:
            yield found.group(1), host.read(found.group(1)) or ""
    if not tuned.reapplies_folders(host):
        for setting in tuned.settings(host, "sysctl"):
            yield setting.file, f"{setting.name} = {setting.value}"
