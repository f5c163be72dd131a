# Copyright: (c) 2026, Holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""SELinux of a host: its state, its policy's files and names, labels, and the tools that change it.

State is read from selinuxfs and from libsemanage's store, which costs nothing; semanage and
semodule are started only to change something, and once.
"""

from __future__ import annotations

import bz2
import os
import re
import shutil
import struct
import subprocess
from typing import NamedTuple, Sequence

from ansible_collections.holdfast.chain.plugins.module_utils.hostfs import Host, HostError
from ansible_collections.holdfast.chain.plugins.module_utils.selinux import (
    Customisations,
    Substitution,
    parse_booleans,
    parse_files,
    parse_policy_ports,
    parse_ports,
    parse_substitutions,
)
from ansible_collections.holdfast.chain.plugins.module_utils.selinux_library import LABEL, Labels

FS = "/sys/fs/selinux"
CONFIG = "/etc/selinux/config"
TOOL_SECONDS = 900  # a transaction takes more than a minute on an emulated machine
PACKAGES = (
    "policycoreutils-python-utils (EL, Debian, Ubuntu: of the same name) has semanage, "
    "policycoreutils has semodule"
)


class Status(NamedTuple):
    """mode: enforcing, permissive, disabled or absent. policy: its type, such as targeted.

    cause: why nothing can be done; empty where SELinux works.
    """

    mode: str
    policy: str
    cause: str


class Selinux:
    """SELinux of one host."""

    def __init__(self, host: Host) -> None:
        self.host = host

    # -- state -------------------------------------------------------------------------------------

    def status(self) -> Status:
        """What there is. HostError where SELinux works and its policy is not where it should be."""
        enforce = self.host.read_kernel(f"{FS}/enforce")
        settings = self._settings()
        if enforce is None:
            if settings is None:
                cause = f"the kernel runs no SELinux, and there is no {CONFIG}"
                return Status("absent", "", cause)
            cause = "the kernel does not run SELinux; {} says SELINUX={}".format(
                CONFIG, settings.get("SELINUX", "")
            )
            return Status("disabled", settings.get("SELINUXTYPE", ""), cause)
        policy = (settings or {}).get("SELINUXTYPE", "targeted")
        status = Status("enforcing" if enforce.strip() == "1" else "permissive", policy, "")
        for path in (self.store(policy), self.contexts(policy)):
            if not self.host.exists(path):
                raise HostError(
                    f"{path}: SELinux is {status.mode} and the policy '{policy}' of {CONFIG} has "
                    "no such folder: install that policy, or name the one there is in SELINUXTYPE"
                )
        return status

    def _settings(self) -> dict[str, str] | None:
        text = self.host.read(CONFIG)
        if text is None:
            return None
        return {
            name: value.strip().strip("\"'")
            for name, value in re.findall(r"^\s*([A-Z]+)\s*=\s*(\S*)", text, re.M)
        }

    def store(self, policy: str) -> str:
        """The folder that libsemanage keeps the policy in."""
        config = self.host.read("/etc/selinux/semanage.conf") or ""
        named = re.search(r"^\s*store-root\s*=\s*(\S+)", config, re.M)
        return f"{named.group(1) if named else '/var/lib/selinux'}/{policy}/active"

    @staticmethod
    def contexts(policy: str) -> str:
        """The folder of file_contexts."""
        return f"/etc/selinux/{policy}/contexts/files"

    def levels(self) -> bool:
        """Whether contexts have a fourth part."""
        return (self.host.read_kernel(f"{FS}/mls") or "1").strip() != "0"

    def policy_loads(self) -> int:
        """How often the kernel was given a policy since it started."""
        try:
            page = self.host.path(f"{FS}/status").read_bytes()
        except OSError:
            return 0
        # struct selinux_kernel_status: version, sequence, enforcing, policyload, deny_unknown
        return int(struct.unpack_from("=5I", page)[3]) if len(page) >= 20 else 0

    # -- what the administrators and the policy have -----------------------------------------------

    def customisations(self, policy: str) -> Customisations:
        """The local ones, as stored."""
        store = self.store(policy)
        return Customisations(
            parse_files(self.host.read(f"{store}/file_contexts.local")),
            parse_ports(self.host.read(f"{store}/ports.local")),
            parse_booleans(self.host.read(f"{store}/booleans.local")),
        )

    def policy_file_contexts(self, policy: str) -> str:
        """Text of the policy's own file_contexts, home directories last."""
        folder = self.contexts(policy)
        texts = [self.host.read(f"{folder}/file_contexts{end}") for end in ("", ".homedirs")]
        return "\n".join(text for text in texts if text)

    def substitutions(self, policy: str) -> tuple[tuple[Substitution, ...], ...]:
        """The administrators' and the distribution's, in the order they are applied."""
        folder = self.contexts(policy)
        return tuple(
            parse_substitutions(self.host.read(f"{folder}/file_contexts.{end}"))
            for end in ("subs", "subs_dist")
        )

    def customizable_types(self, policy: str) -> set[str]:
        """Types that an administrator gives by hand, and relabelling leaves alone."""
        folder = self.contexts(policy).rpartition("/")[0]
        return set((self.host.read(f"{folder}/customizable_types") or "").split())

    def policy_ports(self) -> dict[tuple[str, int, int], str]:
        """Types by protocol and range, the policy's and the local ones; takes a second."""
        return parse_policy_ports(self.tool(["semanage", "port", "-l", "-n"]))

    def module(self, policy: str, priority: int, name: str) -> str | None:
        """The CIL of an installed module as it was given; None if there is none."""
        path = f"{self.store(policy)}/modules/{priority:03d}/{name}/cil"
        if not self.host.exists(path):
            return None
        content = self.host.path(path).read_bytes()
        if content.startswith(b"BZh"):
            content = bz2.decompress(content)
        return content.decode("utf-8", "replace")

    def module_priorities(self, policy: str, name: str) -> list[int]:
        """The priorities at which a module of that name is installed."""
        modules = f"{self.store(policy)}/modules"
        return [
            int(folder)
            for folder in self.host.names(modules)
            if folder.isdigit() and self.host.exists(f"{modules}/{folder}/{name}")
        ]

    # -- what the kernel knows ---------------------------------------------------------------------

    def valid(self, context: str) -> bool:
        """Whether the loaded policy knows every part of a context, and allows them together."""
        try:
            handle = os.open(str(self.host.path(f"{FS}/context")), os.O_RDWR | os.O_CLOEXEC)
        except OSError as error:
            raise HostError(f"{FS}/context: {error}") from None
        try:
            os.write(handle, context.encode() + b"\0")
        except OSError:
            return False
        finally:
            os.close(handle)
        return True

    def names(self) -> set[str]:
        """Words in the loaded policy, its types and attributes among them; for suggestions."""
        try:
            content = self.host.path(f"{FS}/policy").read_bytes()
        except OSError:
            return set()
        return {word.decode() for word in re.findall(rb"[a-z][a-z0-9_]{3,60}", content)}

    def permissions(self, object_class: str) -> list[str]:
        """The permissions of a class; none if the kernel has no such class."""
        return self.host.names(f"{FS}/class/{object_class}/perms")

    def boolean(self, name: str) -> bool | None:
        """Its live value; None if the policy has no such boolean."""
        text = self.host.read_kernel(f"{FS}/booleans/{name}")
        return None if text is None else text.split()[0] == "1"

    def boolean_names(self) -> list[str]:
        """All of them."""
        return self.host.names(f"{FS}/booleans")

    def set_boolean(self, name: str, value: bool) -> None:
        """Its live value, at once."""
        self.host.write_kernel(f"{FS}/booleans/{name}", str(int(value)))
        self.host.write_kernel(f"{FS}/commit_pending_bools", "1")

    def domain_of(self, pid: int) -> str:
        """The context a process runs in; empty if it has ended."""
        return (self.host.read_kernel(f"/proc/{pid}/attr/current") or "").rstrip("\0")

    # -- labels ------------------------------------------------------------------------------------

    def labels(self, file_contexts: str | None = None) -> Labels:
        """What label each path is to have: by the installed policy, or by the text of one."""
        return Labels(file_contexts)

    def label(self, path: str) -> str | None:
        """The label of a file, links not followed; None where the file system has none."""
        try:
            value = os.getxattr(str(self.host.path(path)), LABEL, follow_symlinks=False)
        except OSError:
            return None
        return value.rstrip(b"\0").decode("utf-8", "replace")

    def set_label(self, path: str, label: str) -> None:
        """Give a file a label, links not followed."""
        value = label.encode() + b"\0"
        os.setxattr(str(self.host.path(path)), LABEL, value, follow_symlinks=False)

    # -- tools -------------------------------------------------------------------------------------

    def import_script(self, lines: Sequence[str]) -> None:
        """One semanage transaction; OSError with what it said if it refused."""
        self.tool(["semanage", "import"], "".join(line + "\n" for line in lines))

    def install_module(self, priority: int, path: str) -> None:
        """Install or replace a module from a CIL file, which bears its name."""
        self.tool(["semodule", "-X", str(priority), "-i", str(self.host.path(path))])

    def remove_module(self, priority: int, name: str) -> None:
        """Remove a module at one priority."""
        self.tool(["semodule", "-X", str(priority), "-r", name])

    def missing_tools(self) -> list[str]:
        """Those of semanage and semodule that are not installed (yet)."""
        return [name for name in ("semanage", "semodule") if shutil.which(name) is None]

    def tool(self, command: Sequence[str], text: str | None = None) -> str:
        """Output of a program that was given a text; OSError if it fails, HostError without it."""
        try:
            done = subprocess.run(
                list(command),
                check=False,
                input=(text or "").encode("utf-8", "surrogateescape"),
                capture_output=True,
                timeout=TOOL_SECONDS,
                env={**os.environ, "LC_ALL": "C"},
            )
        except FileNotFoundError:
            raise HostError(f"{command[0]}: not found; {PACKAGES}") from None
        except subprocess.TimeoutExpired:
            raise OSError(f"{' '.join(command)}: no end after {TOOL_SECONDS} s") from None
        if done.returncode != 0:
            said = done.stderr.decode("utf-8", "replace").strip() or f"code {done.returncode}"
            raise OSError(f"{' '.join(command)}: {said}")
        return done.stdout.decode("utf-8", "replace")
