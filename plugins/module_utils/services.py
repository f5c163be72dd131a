# Copyright: (c) 2026, Holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Services of a host: their files, their processes, whatever the init system. Reads only."""

from __future__ import annotations

import posixpath
import re
from typing import Iterator

from ansible_collections.holdfast.chain.plugins.module_utils.hostfs import Host

UNIT_FOLDERS = (
    "/etc/systemd/system",
    "/run/systemd/system",
    "/run/systemd/transient",
    "/run/systemd/generator",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
    "/run/systemd/generator.late",
)
_NAME = re.compile(r"[A-Za-z0-9:_.\\@-]+")


def unit_name(service: str) -> str:
    """The unit of a service; ``.service`` may be left out. ValueError for what is no name."""
    if not _NAME.fullmatch(service) or service.startswith((".", "-")):
        raise ValueError(f"service: '{service}' is no name of a service")
    return service if service.endswith(".service") else service + ".service"


def template_of(unit: str) -> str | None:
    """``name@.service`` of ``name@instance.service``; None for a unit that is no instance."""
    base, at, instance = unit[: -len(".service")].partition("@")
    return f"{base}@.service" if at and instance else None


def fragment(host: Host, unit: str) -> str | None:
    """The unit file of a service; None if the host has no such service."""
    for name in filter(None, (unit, template_of(unit))):
        for folder in UNIT_FOLDERS:
            path = f"{folder}/{name}"
            if host.exists(path) and host.real(path) != "/dev/null":
                return path
    return None


def dropins(host: Host, unit: str) -> list[str]:
    """The drop-ins of a unit in the order they are read: by their names, one per name."""
    chosen: dict[str, str] = {}
    for name in _dropin_names(unit):
        for folder in UNIT_FOLDERS:
            directory = f"{folder}/{name}.d"
            for file in host.names(directory):
                if file.endswith(".conf") and not file.startswith("."):
                    chosen.setdefault(file, f"{directory}/{file}")
    return [chosen[file] for file in sorted(chosen, key=lambda name: name.encode())]


def _dropin_names(unit: str) -> Iterator[str]:
    """The names whose drop-in folders count for a unit, the most particular first."""
    yield unit
    template = template_of(unit)
    if template:
        yield template
    base = unit[: -len(".service")].partition("@")[0]
    while "-" in base:
        base = base.rpartition("-")[0]
        yield f"{base}-.service"
    yield "service"


def processes(host: Host, init: str, service: str) -> list[int]:
    """The processes of a running service, in order; none if it does not run.

    For a systemd template (``name@``), those of all its instances.
    """
    if init == "systemd":
        return _in_unit(host, unit_name(service))
    return _of_openrc(host, service)


def _all_pids(host: Host) -> list[int]:
    return sorted(int(name) for name in host.names("/proc") if name.isdigit())


def _in_unit(host: Host, unit: str) -> list[int]:
    """Found by the control group each process is in, which holds for v1, v2 and hybrid."""
    escaped = re.escape(unit)
    if unit.endswith("@.service"):
        escaped = re.escape(unit[: -len(".service")]) + r"[^/]+\.service"
    line = re.compile(rf"^\d+:(?:name=systemd)?:(?:/[^\n]*)?/{escaped}(?:/|$)", re.M)
    found = []
    for pid in _all_pids(host):
        groups = host.read_kernel(f"/proc/{pid}/cgroup")
        if groups and line.search(groups):
            found.append(pid)
    return found


def _of_openrc(host: Host, service: str) -> list[int]:
    """The pids OpenRC has noted for a service, what is below them, and its control group."""
    noted: set[int] = set()
    for file in _pid_notes(host, service):
        text = (host.read(file) or "").strip()
        if text.isdigit() and host.exists(f"/proc/{text}/stat"):
            noted.add(int(text))
    parents = {}
    group = re.compile(rf"^\d+:[^:]*:(?:/[^\n]*)?/(?:openrc[./])?{re.escape(service)}(?:/|$)", re.M)
    for pid in _all_pids(host):
        stat = host.read_kernel(f"/proc/{pid}/stat") or ""
        after_name = stat.rpartition(")")[2].split()
        if len(after_name) > 1:
            parents[pid] = int(after_name[1])
        if group.search(host.read_kernel(f"/proc/{pid}/cgroup") or ""):
            noted.add(pid)
    found = set(noted)
    grown = True
    while grown:
        grown = False
        for pid, parent in parents.items():
            if parent in found and pid not in found:
                found.add(pid)
                grown = True
    return sorted(found)


def _pid_notes(host: Host, service: str) -> Iterator[str]:
    """Files that hold a pid of the service."""
    yield f"/run/supervise-{service}.pid"
    state = "/run/openrc"
    yield f"{state}/options/{service}/child_pid"
    named = host.read(f"{state}/options/{service}/pidfile")
    if named:
        yield named.strip()
    for name in host.names(f"{state}/daemons/{service}"):
        text = host.read(f"{state}/daemons/{service}/{name}") or ""
        for path in re.findall(r"^pidfile=(/\S+)", text, re.M):
            yield posixpath.normpath(path)


def start_time(host: Host, pid: int) -> str | None:
    """When a process began, in the kernel's ticks: tells it from a later one of the same number."""
    stat = host.read_kernel(f"/proc/{pid}/stat")
    fields = (stat or "").rpartition(")")[2].split()
    return fields[19] if len(fields) > 19 else None
