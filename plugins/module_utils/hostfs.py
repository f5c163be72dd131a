# Copyright: (c) 2026, Holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A host as the domain code sees it: files below a root, programs, its init system.

Readers and planners take a Host, so that tests run them on a tree of their own, and a failure can
be put anywhere by overriding one method. Names are absolute inside the host: ``/etc/sysctl.d``.
"""

from __future__ import annotations

import fnmatch
import os
import posixpath
import resource
import subprocess
from pathlib import Path
from typing import Any, Mapping, Sequence

_LONGEST_CHAIN = 40  # as the kernel's own limit on symbolic links


class HostError(Exception):
    """The host is not in a state the module can work with; the message has the way out."""


class Host:
    """The host whose root directory is at ``root``."""

    def __init__(self, root: str = "/") -> None:
        self.root = root.rstrip("/")

    def path(self, name: str) -> Path:
        """Where an absolute name of this host is found from here; links are not followed."""
        return Path(self.root + name)

    def real(self, name: str) -> str:
        """The name that a chain of symbolic links ends at, absolute ones taken below the root."""
        for _hop in range(_LONGEST_CHAIN):
            try:
                target = os.readlink(str(self.path(name)))
            except OSError:
                return name
            name = posixpath.normpath(posixpath.join(posixpath.dirname(name), target))
        raise HostError(f"{name}: too many symbolic links")

    def exists(self, name: str) -> bool:
        """Whether anything is there, links followed."""
        return self.path(self.real(name)).exists()

    def is_link(self, name: str) -> bool:
        """Whether the name itself is a symbolic link, dangling or not."""
        return self.path(name).is_symlink()

    def read(self, name: str) -> str | None:
        """Text of a file, links followed; None if there is none.

        Bytes that are no UTF-8 survive a round through ``encode``.
        """
        try:
            content = self.path(self.real(name)).read_bytes()
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return None
        return content.decode("utf-8", "surrogateescape")

    def names(self, directory: str) -> list[str]:
        """Names in a directory in the order of their bytes; none if it does not exist."""
        try:
            entries = [entry.name for entry in self.path(self.real(directory)).iterdir()]
        except (FileNotFoundError, NotADirectoryError):
            return []
        return sorted(entries, key=os.fsencode)

    def match(self, pattern: str) -> list[str]:
        """Absolute names that a shell would expand the last component of a pattern to."""
        directory, _slash, last = pattern.rpartition("/")
        return [
            f"{directory}/{name}"
            for name in self.names(directory or "/")
            if fnmatch.fnmatchcase(name, last) and (last.startswith(".") or name[0] != ".")
        ]

    def read_kernel(self, name: str) -> str | None:
        """What a file of /proc or /sys shows, without its last newline; None if it shows nothing.

        Write-only files and those that fail while they have no value yet show nothing.
        """
        try:
            handle = os.open(str(self.path(name)), os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            pieces = list(iter(lambda: os.read(handle, 65536), b""))
        except OSError:
            return None
        finally:
            os.close(handle)
        return b"".join(pieces).decode("utf-8", "surrogateescape").rstrip("\n")

    def write_kernel(self, name: str, value: str) -> None:
        """Give a value to a file of /proc or /sys in one write; OSError has the kernel's reason."""
        handle = os.open(str(self.path(name)), os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC)
        try:
            os.write(handle, (value + "\n").encode("utf-8", "surrogateescape"))
        finally:
            os.close(handle)

    def set_limit(self, pid: int, constant: str, soft: int, hard: int) -> None:
        """Change a limit of a running process (prlimit(2)); OSError where it may not be.

        constant: such as RLIMIT_NOFILE. Unlimited is 2**64 - 1.
        """
        sides = [resource.RLIM_INFINITY if side == 2**64 - 1 else side for side in (soft, hard)]
        resource.prlimit(pid, getattr(resource, constant), (sides[0], sides[1]))

    def read_only_mount(self, name: str) -> bool:
        """Whether a name is on a mount that takes no writes."""
        return bool(os.statvfs(str(self.path(name))).f_flag & os.ST_RDONLY)

    def may_write(self, name: str) -> bool:
        """Whether this process may open it for writing."""
        return os.access(str(self.path(name)), os.W_OK)

    def mode(self, name: str) -> int:
        """The permissions of what a name leads to."""
        return self.path(name).stat().st_mode & 0o7777

    def run(self, command: Sequence[str], timeout: float = 60) -> tuple[int, str, str]:
        """Exit code, output and error output of a program; 127 where it does not exist."""
        try:
            done = subprocess.run(
                list(command),
                check=False,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=timeout,
                env={**os.environ, "LC_ALL": "C"},
            )
        except FileNotFoundError:
            return 127, "", f"{command[0]}: not found"
        return (
            done.returncode,
            done.stdout.decode("utf-8", "replace"),
            done.stderr.decode("utf-8", "replace"),
        )

    def boot_id(self) -> str:
        """A word that is another one after each boot; empty where the kernel has none."""
        return (self.read("/proc/sys/kernel/random/boot_id") or "").strip()

    def init_system(self) -> str:
        """systemd, openrc or other: the one that runs, or the one installed in an image."""
        if self.exists("/run/systemd/system"):
            return "systemd"
        if self.exists("/run/openrc"):
            return "openrc"
        for program in ("/usr/lib/systemd/systemd", "/lib/systemd/systemd"):
            if self.exists(program):
                return "systemd"
        for program in ("/sbin/openrc-run", "/usr/sbin/openrc-run", "/bin/openrc-run"):
            if self.exists(program):
                return "openrc"
        return "other"

    def systemd_runs(self) -> bool:
        """Whether systemctl has somebody to talk to."""
        return self.exists("/run/systemd/system")

    def in_container(self) -> bool:
        """Whether the kernel is shared with other systems."""
        if (self.read("/run/systemd/container") or "").strip():
            return True
        if self.exists("/run/.containerenv") or self.exists("/.dockerenv"):
            return True
        environment = self.read("/proc/1/environ") or ""
        return any(item.startswith("container=") for item in environment.split("\0"))

    def attributes(self, name: str) -> dict[str, Any] | None:
        """mode, uid and gid of a name, links not followed; None if there is none."""
        try:
            status = self.path(name).lstat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        return {"mode": status.st_mode & 0o7777, "uid": status.st_uid, "gid": status.st_gid}


class View(Host):
    """A host as it will be once some of its files have other contents; nothing is written.

    texts: by name, the text a file will have, or None where there will be none.
    """

    def __init__(self, host: Host, texts: Mapping[str, str | None]) -> None:
        super().__init__(host.root or "/")
        self._host = host
        self._texts = dict(texts)

    def read(self, name: str) -> str | None:
        """As Host.read."""
        return self._texts[name] if name in self._texts else self._host.read(name)

    def exists(self, name: str) -> bool:
        """As Host.exists."""
        if name in self._texts:
            return self._texts[name] is not None
        return self._host.exists(name)

    def names(self, directory: str) -> list[str]:
        """As Host.names."""
        names = set(self._host.names(directory))
        for changed, text in self._texts.items():
            parent, _slash, name = changed.rpartition("/")
            if parent == directory:
                names.discard(name)
                if text is not None:
                    names.add(name)
        return sorted(names, key=os.fsencode)
