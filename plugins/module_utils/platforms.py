# Copyright: (c) 2026, Holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The platforms a bundle can be made for: one table of names.

A target is what decides which wheels fit a host: CPython's minor version, the C library and its
level, the machine. Levels are those wheels are published for; a host takes the highest that its
library reaches, so that hosts of different distributions share one bundle.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Mapping

OLDEST_PYTHON = (3, 10)
MACHINES = ("x86_64", "aarch64")
# Per C library: its wheel tag, the levels wheels are published for, and the first level there was.
_LIBC: dict[str, tuple[str, tuple[tuple[int, int], ...], tuple[int, int]]] = {
    "glibc": ("manylinux", ((2, 34), (2, 28), (2, 17)), (2, 5)),
    "musl": ("musllinux", ((1, 2),), (1, 1)),
}
# Names from before PEP 600, which some wheels still carry alone.
_OLD_NAMES = {(2, 17): "manylinux2014", (2, 12): "manylinux2010", (2, 5): "manylinux1"}


class UnsupportedPlatformError(ValueError):
    """No wheels are published for such a host; the message says what would fit."""


@dataclass(frozen=True)
class Target:
    """python: "3.11". libc: glibc or musl. level: (2, 34). machine: x86_64 or aarch64."""

    python: str
    libc: str
    level: tuple[int, int]
    machine: str

    @property
    def key(self) -> str:
        """Its name in file names and results, such as ``cp311-glibc2.34-x86_64``."""
        interpreter = "cp" + self.python.replace(".", "")
        return f"{interpreter}-{self.libc}{self.level[0]}.{self.level[1]}-{self.machine}"

    def describe(self) -> dict[str, str]:
        """As the options of a module; ``parse_target`` reads it back."""
        return {
            "key": self.key,
            "python": self.python,
            "libc": self.libc,
            "libc_version": "{}.{}".format(*self.level),
            "machine": self.machine,
        }

    def platform_tags(self) -> list[str]:
        """Every platform tag of a wheel that runs there, the newest first."""
        name, _levels, first = _LIBC[self.libc]
        tags = []
        for minor in range(self.level[1], first[1] - 1, -1):
            tags.append(f"{name}_{self.level[0]}_{minor}_{self.machine}")
            old = _OLD_NAMES.get((self.level[0], minor)) if self.libc == "glibc" else None
            if old:
                tags.append(f"{old}_{self.machine}")
        return tags

    def markers(self) -> dict[str, str]:
        """The environment that a lock file's markers are evaluated in (PEP 508 names)."""
        return {
            "implementation_name": "cpython",
            "implementation_version": self.python + ".0",
            "os_name": "posix",
            "platform_machine": self.machine,
            "platform_python_implementation": "CPython",
            "platform_release": "",
            "platform_system": "Linux",
            "platform_version": "",
            "python_full_version": self.python + ".0",
            "python_version": self.python,
            "sys_platform": "linux",
        }


def version_pair(text: str) -> tuple[int, int]:
    """(3, 11) of "3.11" or "3.11.4"; raises ValueError for what has no two leading numbers."""
    parts = str(text).split(".")
    if len(parts) < 2:
        raise ValueError(f"'{text}' is no version: expected two numbers, such as 3.11")
    return int(parts[0]), int(parts[1])


def parse_target(options: Mapping[str, Any]) -> Target:
    """The target a host belongs to, from its python, libc, libc_version and machine.

    Raises UnsupportedPlatformError naming the value that does not fit.
    """
    python = version_pair(options["python"])
    if python < OLDEST_PYTHON:
        raise UnsupportedPlatformError(
            "python = {}: the node needs {}.{} or newer; install one and name it in "
            "node_python".format(options["python"], *OLDEST_PYTHON)
        )
    machine = options["machine"]
    if machine not in MACHINES:
        raise UnsupportedPlatformError(
            "machine = {}: wheels exist for {}".format(machine, " and ".join(MACHINES))
        )
    libc = options["libc"]
    if libc not in _LIBC:
        raise UnsupportedPlatformError(
            "libc = {}: wheels exist for {}".format(libc, " and ".join(sorted(_LIBC)))
        )
    has = version_pair(options["libc_version"])
    levels = [level for level in _LIBC[libc][1] if level <= has]
    if not levels:
        raise UnsupportedPlatformError(
            "libc_version = {}: expected {} {}.{} or newer; use a newer distribution".format(
                options["libc_version"], libc, *min(_LIBC[libc][1])
            )
        )
    return Target("{}.{}".format(*python), libc, levels[0], machine)
