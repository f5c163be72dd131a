# Copyright: (c) 2026, Holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What tuned, where it is used, sets at each start: it undoes what others have persisted."""

from __future__ import annotations

import configparser
import re
from typing import NamedTuple

from ansible_collections.holdfast.chain.plugins.module_utils.hostfs import Host

_PROFILES = ("/etc/tuned/profiles", "/etc/tuned", "/usr/lib/tuned/profiles", "/usr/lib/tuned")
_DEEPEST = 20  # profiles that include each other in a circle end somewhere


class Setting(NamedTuple):
    """One option of a section in the active profile, and the file it is in."""

    name: str
    value: str
    file: str


def _active(host: Host) -> list[str]:
    """Names of the active profiles; none where tuned does not start at boot."""
    started = any(
        host.is_link(f"/etc/systemd/system/{target}.wants/tuned.service")
        for target in ("multi-user.target", "basic.target")
    )
    return (host.read("/etc/tuned/active_profile") or "").split() if started else []


def reapplies_folders(host: Host) -> bool:
    """Whether it applies the sysctl folders again after its own values (its default)."""
    text = host.read("/etc/tuned/tuned-main.conf") or ""
    return not re.search(r"^\s*reapply_sysctl\s*=\s*(0|false|no)\s*$", text, re.M | re.I)


def settings(host: Host, section: str) -> list[Setting]:
    """The options of a section as the active profiles set them, in their order."""
    found: dict[str, Setting] = {}
    for profile in _active(host):
        for setting in _of_profile(host, profile, section, 0):
            found[setting.name] = setting
    return list(found.values())


def _of_profile(host: Host, profile: str, section: str, depth: int) -> list[Setting]:
    for directory in _PROFILES:
        name = f"{directory}/{profile}/tuned.conf"
        text = host.read(name)
        if text is not None:
            break
    else:
        return []
    parser = configparser.RawConfigParser(strict=False, allow_no_value=True, delimiters=("=",))
    parser.optionxform = str  # type: ignore[assignment, method-assign] # names of parameters
    try:
        parser.read_string(text)
    except configparser.Error:
        return []  # tuned refuses such a profile as well
    found: list[Setting] = []
    if depth < _DEEPEST:
        for included in parser.get("main", "include", fallback="").replace(",", " ").split():
            found += _of_profile(host, included, section, depth + 1)
    if parser.has_section(section):
        found += [
            Setting(option, (value or "").strip().strip('"'), name)
            for option, value in parser.items(section)
            if option not in ("type", "replace", "enabled", "priority")
        ]
    return found
