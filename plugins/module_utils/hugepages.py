# Copyright: (c) 2026, Holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Transparent huge pages: what the kernel does now, and what it is told to do at boot."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Iterator, Mapping

from ansible_collections.holdfast.chain.plugins.module_utils import tuned
from ansible_collections.holdfast.chain.plugins.module_utils.hostfs import Host

ROOT = "/sys/kernel/mm/transparent_hugepage"
# Documentation/admin-guide/mm/transhuge.rst
VALUES = {
    "enabled": ("always", "madvise", "never"),
    "defrag": ("always", "defer", "defer+madvise", "madvise", "never"),
}
HEADER = "# Managed by Ansible (holdfast.chain.kernel_params)\n"
_TMPFILES = (
    "/etc/tmpfiles.d",
    "/run/tmpfiles.d",
    "/usr/local/lib/tmpfiles.d",
    "/usr/lib/tmpfiles.d",
    "/lib/tmpfiles.d",
)
_TUNED = {
    "enabled": ("transparent_hugepages", "transparent_hugepage"),
    "defrag": ("transparent_hugepage.defrag",),
}


def shown(text: str) -> str:
    """The value in brackets: ``always [madvise] never`` is madvise."""
    found = re.search(r"\[([^\]]+)\]", text)
    return found.group(1) if found else text.strip()


@dataclass(frozen=True)
class Decision:
    """A value that is set at boot, and the file that does it."""

    value: str
    file: str


class HugePages:
    """The switches of a host, by the names of their files: enabled, defrag."""

    def __init__(self, host: Host, shown_values: Mapping[str, str] | None = None) -> None:
        self._host = host
        self._shown = dict(shown_values or {})

    def read(self, switch: str) -> str | None:
        """The value in force; None where the kernel has no such switch."""
        if switch in self._shown:
            return self._shown[switch]
        text = self._host.read_kernel(f"{ROOT}/{switch}")
        return None if text is None else shown(text)

    def write(self, switch: str, value: str) -> None:
        """Set a switch; OSError with the kernel's reason."""
        self._host.write_kernel(f"{ROOT}/{switch}", value)

    def obstacle(self, switch: str) -> str | None:
        """Why it cannot be set on this system; None if it can."""
        name = f"{ROOT}/{switch}"
        if self.read(switch) is None:
            return "this kernel has no transparent huge pages"
        if self._host.read_only_mount(name) or not self._host.may_write(name):
            return "belongs to the machine: /sys is not writable here"
        return None


def place(init: str, stem: str) -> tuple[str, int] | None:
    """The file that persists them under an init system, and its mode; None where there is none."""
    if init == "systemd":
        return f"/etc/tmpfiles.d/{stem}-hugepages.conf", 0o644
    if init == "openrc":
        return f"/etc/local.d/{stem}-hugepages.start", 0o755
    return None


def render(init: str, wanted: Mapping[str, str]) -> str:
    """The text of that file."""
    if init == "systemd":
        lines = [f"w {ROOT}/{name} - - - - {value}" for name, value in wanted.items()]
        return HEADER + "".join(line + "\n" for line in lines)
    lines = [f"echo {value} > {ROOT}/{name}" for name, value in wanted.items()]
    return "#!/bin/sh\n" + HEADER + "".join(line + "\n" for line in lines)


def parse(init: str, text: str) -> dict[str, str]:
    """The switches a file of the init system sets."""
    if init == "systemd":
        line = (
            rf"^\s*[wf]\+?[!^=~$-]*\+?\s+\"?{ROOT}/(\w+)\"?\s+\S+\s+\S+\s+\S+\s+\S+\s+\"?([\w+]+)"
        )
        return dict(re.findall(line, text, re.M))
    line = rf"^\s*(?:echo|printf)\s+[\"']?([\w+]+)(?:\\n)?[\"']?\s*>\s*[\"']?{ROOT}/(\w+)"
    return {name: value for value, name in re.findall(line, text, re.M)}


def at_boot(host: Host, init: str, own: str, own_text: str | None) -> dict[str, Decision]:
    """What each switch is set to at boot if the file ``own`` had the text ``own_text``."""
    decided: dict[str, Decision] = {}
    for name, text in _texts(host, init, own, own_text):
        for switch, value in parse(init, text).items():
            if init == "systemd":  # of several lines for one path, the first is taken
                decided.setdefault(switch, Decision(value, name))
            else:
                decided[switch] = Decision(value, name)
    for setting in tuned.settings(host, "vm"):
        for switch, names in _TUNED.items():
            if setting.name in names:
                decided[switch] = Decision(setting.value, setting.file)
    return decided


def _texts(host: Host, init: str, own: str, own_text: str | None) -> Iterator[tuple[str, str]]:
    """The files that are carried out at boot, in their order."""
    chosen: dict[str, str] = {}
    directories = _TMPFILES if init == "systemd" else ("/etc/local.d",)
    suffix = ".conf" if init == "systemd" else ".start"
    for directory in directories:
        names = set(host.names(directory))
        if own.rpartition("/")[0] == directory:
            names.add(own.rpartition("/")[2])
        for name in names:
            if name.endswith(suffix) and not name.startswith("."):
                chosen.setdefault(name, f"{directory}/{name}")
    for name in sorted(chosen, key=lambda item: item.encode()):
        path = chosen[name]
        if path == own:
            if own_text is not None:
                yield path, own_text
            continue
        mode = (host.attributes(host.real(path)) or {}).get("mode", 0)
        text = host.read(path)
        if text is not None and (init == "systemd" or mode & 0o111):
            yield path, text
