# Copyright: (c) 2026, Holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which processes run a daemon's program, and which are in its domain.

A process gets its domain when it starts a program, and keeps it: a policy that comes later does not
confine it, and one that goes leaves it without a domain.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Iterator, NamedTuple, Sequence

from ansible_collections.holdfast.chain.plugins.module_utils.hostfs import Host
from ansible_collections.holdfast.chain.plugins.module_utils.selinux import SelinuxError
from ansible_collections.holdfast.chain.plugins.module_utils.selinux_host import Selinux
from ansible_collections.holdfast.chain.plugins.module_utils.selinux_needs import Needs, Refusal

_GONE = " (deleted)"
_HEAD = 512  # bytes; the kernel looks at 256 for the interpreter, pip's launchers have two lines
_NAMED = 10  # processes that are listed


class Process(NamedTuple):
    """program: the file it runs, of a script the script. context: what it runs in."""

    pid: int
    program: str
    context: str


def _processes(selinux: Selinux) -> Iterator[tuple[int, str, str]]:
    """Number, program and context of all; those that have none, or end meanwhile, are left out."""
    host = selinux.host
    for name in host.names("/proc"):
        if name.isdigit():
            try:
                program = os.readlink(str(host.path(f"/proc/{name}/exe")))
            except OSError:
                continue  # a thread of the kernel
            context = selinux.domain_of(int(name))
            if context.count(":") >= 2:
                end = len(program) - len(_GONE) if program.endswith(_GONE) else None
                yield int(name), program[:end], context


def outside(selinux: Selinux, needs: Needs) -> list[Process]:
    """Processes that run the program and are not in its domain; a restart brings them there.

    Empty where the daemon is not started by the host: then nothing is to bring it there.
    """
    if not needs.from_init:
        return []
    wanted = [re.compile(target) for target in needs.executables]
    found = []
    for pid, program, context in _processes(selinux):
        if context.split(":")[2] != needs.domain:
            for path in (program, *_scripts(selinux.host, pid)):
                if any(one.fullmatch(path) for one in wanted):
                    found.append(Process(pid, path, context))
                    break
    return found


def inside(selinux: Selinux, domain: str) -> list[Process]:
    """Processes in a domain, whatever they run."""
    found = (Process(*each) for each in _processes(selinux))
    return [each for each in found if each.context.split(":")[2] == domain]


def _scripts(host: Host, pid: int) -> Iterator[str]:
    """What an interpreter was given to run: its first words that are scripts for it."""
    words = (host.read_kernel(f"/proc/{pid}/cmdline") or "").split("\0")
    interpreter = words[0].rpartition("/")[2]
    for word in words[1:4]:
        if word.startswith("/"):
            path = _resolved(host, word)
            try:
                with host.path(path).open("rb") as stream:
                    head = stream.read(_HEAD).decode("utf-8", "replace")
            except OSError:
                continue
            # an editor has it as its argument too
            if head.startswith("#!") and interpreter in re.split(r"[\s/!]+", head):
                yield path


def _resolved(host: Host, name: str) -> str:
    """A name without symbolic links, as labels are by it."""
    root = Path(host.root or "/").resolve()
    try:
        return f"/{host.path(name).resolve().relative_to(root)}"
    except (ValueError, RuntimeError):  # links out of the root, or in a circle
        return name


def shown(processes: Sequence[Process]) -> str:
    """``712 (/opt/x/bin/x)``, and how many there are besides."""
    text = ", ".join(f"{each.pid} ({each.program})" for each in processes[:_NAMED])
    more = len(processes) - _NAMED
    return f"{text} and {more} more" if more > 0 else text


def check_unused(selinux: Selinux, needs: Needs, force: bool) -> list[Refusal]:
    """What is forced. SelinuxError where a domain is to go while processes are in it."""
    processes = inside(selinux, needs.domain)
    if processes and not force:
        raise SelinuxError(
            f"state: absent, and these processes run in {needs.domain}: {shown(processes)}. They "
            "would go on with no domain that the policy knows, and be denied what they do next: "
            "stop them first, or give force=true"
        )
    why = f"these processes lose their domain: {shown(processes)}"
    return [Refusal("state absent", why)] if processes else []
