# Copyright: (c) 2026, Holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Folders and files as one change: what is there, what has to change, and who has to accept it."""

from __future__ import annotations

import grp
import os
import pwd
import re
import stat
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Iterable, Mapping

from ansible_collections.holdfast.chain.plugins.module_utils.plan import Change, Plan

_TIMEOUT = 120


class RefusedError(Exception):
    """A program did not accept a new content; the message has what it said."""


@dataclass(frozen=True)
class Item:
    """A folder (content is None) or a file. mode: a number."""

    path: str
    mode: int
    owner: str
    group: str
    content: str | None = None
    check: tuple[str, ...] = ()

    def state(self) -> dict[str, Any]:
        """As read() would describe it."""
        found = {"mode": f"{self.mode:04o}", "owner": self.owner, "group": self.group}
        return found if self.content is None else dict(found, content=self.content)


def parse(options: Mapping[str, Any]) -> Item:
    """An item from a module's suboptions. Raises ValueError for a mode that is none."""
    if not re.fullmatch(r"0?[0-7]{3,4}", options["mode"]):
        raise ValueError(
            f"mode = {options['mode']} of {options['path']}: expected an octal text such as '0644'"
        )
    return Item(
        options["path"],
        int(options["mode"], 8),
        options["owner"],
        options["group"],
        options.get("content"),
        tuple(options.get("check") or ()),
    )


def read(items: Iterable[Item]) -> dict[str, dict[str, Any]]:
    """What is at each path; absent ones are left out. Raises ValueError for another kind."""
    found = {}
    for item in items:
        path = Path(item.path)
        try:
            status = path.lstat()
        except (FileNotFoundError, NotADirectoryError):
            continue
        wanted = stat.S_ISDIR if item.content is None else stat.S_ISREG
        if not wanted(status.st_mode):
            kind = "folder" if item.content is None else "regular file"
            raise ValueError(f"path = {path}: it is no {kind}; move it away by hand")
        found[item.path] = {
            "mode": f"{stat.S_IMODE(status.st_mode):04o}",
            "owner": _name(pwd.getpwuid, status.st_uid),
            "group": _name(grp.getgrgid, status.st_gid),
        }
        if item.content is not None:
            found[item.path]["content"] = path.read_bytes().decode("utf-8", "replace")
    return found


def _name(lookup: Any, number: int) -> str:
    try:
        return str(lookup(number)[0])
    except KeyError:
        return str(number)


def plan(items: Iterable[Item], found: Mapping[str, Mapping[str, Any]]) -> Plan:
    """A change for each item that differs; pure."""
    changes = []
    for item in items:
        has, wanted = found.get(item.path), item.state()
        if has is None:
            changes.append(Change(item.path, None, wanted, "it does not exist"))
        elif dict(has) != wanted:
            differing = [key for key in wanted if has.get(key) != wanted[key]]
            changes.append(
                Change(
                    item.path,
                    {key: has[key] for key in differing},
                    {key: wanted[key] for key in differing},
                    f"its {' and '.join(differing)} {'differ' if differing[1:] else 'differs'}",
                )
            )
    return Plan(changes)


def check(item: Item) -> None:
    """Have the item's program judge its content, given in memory: nothing touches the disk.

    Raises RefusedError, OSError.
    """
    handle = os.memfd_create("holdfast-check")
    try:
        os.write(handle, (item.content or "").encode())
        place = f"/proc/{os.getpid()}/fd/{handle}"
        done = subprocess.run(
            [part.replace("%s", place) for part in item.check],
            check=False,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=_TIMEOUT,
        )
    finally:
        os.close(handle)
    if done.returncode != 0:
        said = done.stdout.decode("utf-8", "replace").replace(place, item.path).strip()
        raise RefusedError(
            f"{item.check[0]} refuses the new content: "
            f"{said or 'exit code ' + str(done.returncode)}"
        )
