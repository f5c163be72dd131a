# Copyright: (c) 2026, Holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a host has that a node needs: Python, C library, machine, room, time. Reads only."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
from pathlib import Path
from typing import Any, Sequence

from ansible_collections.holdfast.chain.plugins.module_utils.platforms import (
    OLDEST_PYTHON,
    parse_target,
    version_pair,
)

_FOLDERS = ("/usr/bin", "/usr/local/bin")
_ASK = "import sys; print('%d.%d.%d' % sys.version_info[:3])"


def interpreters(folders: Sequence[str] = _FOLDERS) -> list[dict[str, str]]:
    """The Pythons of a host as {path, version}: the default one first, then the newest."""
    found = []
    for folder in folders:
        names = [str(path) for path in Path(folder).glob("python3.*")]
        numbered = [name for name in names if re.search(r"/python3\.\d+$", name)]
        numbered.sort(key=lambda name: -int(name.rpartition(".")[2]))
        for path in [folder + "/python3", *numbered]:
            version = python_version(path)
            if version:
                found.append({"path": path, "version": version})
    return found


def python_version(path: str) -> str | None:
    """Its version, such as "3.11.4"; None if there is none at path or it does not run."""
    if not os.access(path, os.X_OK):
        return None
    try:
        done = subprocess.run(
            [path, "-I", "-c", _ASK],
            check=False,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=30,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    said = done.stdout.decode("ascii", "replace").strip()
    return said if done.returncode == 0 and re.fullmatch(r"\d+\.\d+\.\d+", said) else None


def choose(pythons: Sequence[dict[str, str]]) -> dict[str, str] | None:
    """The first that is new enough for the node; pure."""
    for python in pythons:
        if version_pair(python["version"]) >= OLDEST_PYTHON:
            return python
    return None


def c_library() -> tuple[str, str]:
    """("glibc", "2.36"), ("musl", "1.2.4") or ("", "")."""
    try:
        name, _space, version = (os.confstr("CS_GNU_LIBC_VERSION") or "").partition(" ")
    except (OSError, ValueError):
        name, version = "", ""
    if name == "glibc":
        return "glibc", version
    for loader in sorted(Path("/lib").glob("ld-musl-*.so.1")):
        done = subprocess.run(
            [str(loader)],
            check=False,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            timeout=30,
        )
        told = re.search(r"Version (\d+\.\d+\.\d+)", done.stderr.decode("ascii", "replace"))
        if told:
            return "musl", told.group(1)
    return "", ""


def has_library(name: str) -> bool:
    """Whether this Python has a package with code in it; nothing of it is run.

    A folder without any, such as a package manager leaves where caches were in it, is a namespace
    to Python: it can be found and imported, but has no origin.
    """
    spec = importlib.util.find_spec(name)
    return spec is not None and spec.has_location


def distributions(release: str = "/etc/os-release") -> list[str]:
    """What the host is and is like, as os-release says it: ["centos", "rhel", "fedora"]."""
    try:
        text = Path(release).read_text(encoding="utf-8")
    except OSError:
        return []
    told = dict(re.findall(r"^(ID|ID_LIKE)=[\"']?([a-z0-9 ._-]*)", text, re.MULTILINE))
    return f"{told.get('ID', '')} {told.get('ID_LIKE', '')}".split()


def free_bytes(path: str) -> int:
    """Room for data that an ordinary user may take, where path is or would be made."""
    where = Path(path)
    while not where.exists() and where != where.parent:
        where = where.parent
    room = os.statvfs(str(where))
    return room.f_bavail * room.f_frsize


def describe(python: str | None, paths: Sequence[str]) -> dict[str, Any]:
    """All of it. python: the interpreter to use, or None to choose one.

    target is None, with the reason in target_fault, where no bundle can be made for the host.
    """
    if python:
        version = python_version(python)
        pythons = [{"path": python, "version": version}] if version else []
    else:
        pythons = interpreters()
    chosen = choose(pythons)
    libc, libc_version = c_library()
    machine = os.uname().machine
    target, fault = None, ""
    if chosen is None:
        fault = "no Python {}.{} or newer{}; found: {}".format(
            OLDEST_PYTHON[0],
            OLDEST_PYTHON[1],
            " at " + python if python else "",
            ", ".join("{path} ({version})".format(**item) for item in pythons) or "none",
        )
    else:
        try:
            target = parse_target(
                {
                    "python": chosen["version"],
                    "libc": libc,
                    "libc_version": libc_version,
                    "machine": machine,
                }
            ).describe()
        except ValueError as error:
            fault = str(error)
    return {
        "python": chosen,
        "libc": libc,
        "libc_version": libc_version,
        "machine": machine,
        "target": target,
        "target_fault": fault,
        "cryptography": has_library("cryptography"),
        "distributions": distributions(),
        "free_bytes": {path: free_bytes(path) for path in paths},
    }
