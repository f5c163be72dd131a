# Copyright: (c) 2026, Holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads what the plan of ulimits depends on: files, processes, what the system allows."""

from __future__ import annotations

import contextlib
import grp
import pwd

from ansible_collections.holdfast.chain.plugins.module_utils import services
from ansible_collections.holdfast.chain.plugins.module_utils.hostfs import Host, HostError
from ansible_collections.holdfast.chain.plugins.module_utils.limits import UNLIMITED, parse_proc
from ansible_collections.holdfast.chain.plugins.module_utils.limits_files import sets_rc_ulimit
from ansible_collections.holdfast.chain.plugins.module_utils.limits_plan import (
    Observed,
    Process,
    Request,
)

LIMITS_D = "/etc/security/limits.d"
_CAP_SYS_RESOURCE = 24


def read(host: Host, request: Request) -> Observed:
    """All that the plan depends on; changes nothing."""
    init = host.init_system()
    problems: list[str] = []
    user_file = f"{LIMITS_D}/{request.file}"
    user_files, obstacle = _read_users(host, request, problems)
    service_file, files, overriding = "", [], None
    processes: list[Process] = []
    if request.service is not None:
        service_file, files, overriding = _read_service(host, init, request, problems)
        processes = _read_processes(host, init, request.service)
    nr_open = host.read_kernel("/proc/sys/fs/nr_open")
    return Observed(
        init=init,
        user_file=user_file,
        user_files=user_files,
        user_obstacle=obstacle,
        service_file=service_file,
        service_text=host.read(service_file) if service_file else None,
        service_files=files,
        overriding=overriding,
        processes=processes,
        ceiling=_ceiling(host),
        nr_open=int(nr_open) if nr_open and nr_open.isdigit() else None,
        problems=problems,
    )


def _read_users(
    host: Host, request: Request, problems: list[str]
) -> tuple[list[tuple[str, str]], str | None]:
    """What pam_limits reads, and why it does not."""
    if request.user is None:
        return [], None
    if request.present:
        problems += _unknown_domain(host, request.user)
    names = ["/etc/security/limits.conf", *host.match(f"{LIMITS_D}/*.conf")]
    texts = [(name, text) for name, text in ((n, host.read(n)) for n in names) if text is not None]
    return texts, _without_pam_limits(host)


def _unknown_domain(host: Host, domain: str) -> list[str]:
    """A problem for a user or group that does not exist."""
    if domain == "*" or ":" in domain:
        return []
    database, name, what = "/etc/passwd", domain, "user"
    if domain[0] in "@%":
        database, name, what = "/etc/group", domain[1:], "group"
    lines = (host.read(database) or "").splitlines()
    if not name or any(line.split(":", 1)[0] == name for line in lines):
        return []
    with contextlib.suppress(KeyError):  # directories such as LDAP
        (grp.getgrnam if what == "group" else pwd.getpwnam)(name)
        return []
    return [f"user: {what} '{name}' does not exist; create it first"]


def _without_pam_limits(host: Host) -> str | None:
    """Why sessions here get no limits from limits.d; None if they do."""
    folders = ["/lib", "/usr/lib", "/lib64", "/usr/lib64"]
    folders += [f"{top}/{name}" for top in ("/lib", "/usr/lib") for name in host.names(top)]
    if not any(host.exists(f"{folder}/security/pam_limits.so") for folder in folders):
        return "this host has no pam_limits, so nothing reads limits.d"
    for name in host.names("/etc/pam.d"):
        for line in (host.read(f"/etc/pam.d/{name}") or "").splitlines():
            if "pam_limits.so" in line.split("#", 1)[0]:
                return None
    return "no service in /etc/pam.d uses pam_limits.so, so nothing reads limits.d"


def _read_service(
    host: Host, init: str, request: Request, problems: list[str]
) -> tuple[str, list[tuple[str, str]], str | None]:
    """The own file for a service, all its files in order, and what decides over OpenRC's."""
    service = request.service or ""
    if init == "systemd":
        unit = services.unit_name(service)
        own = f"/etc/systemd/system/{unit}.d/{request.file}"
        unit_file = services.fragment(host, unit)
        if unit_file is None:
            if request.present:
                problems.append(
                    f"service: this host has no unit {unit}; install it first, or check the name"
                )
            return own, [], None
        names = [unit_file, *services.dropins(host, unit)]
        return own, [(name, host.read(name) or "") for name in names], None
    if init != "openrc":
        raise HostError("service: this host runs neither systemd nor OpenRC; give a user only")
    script = f"/etc/init.d/{service}"
    own = f"/etc/conf.d/{service}"
    if not host.exists(script):
        if request.present:
            problems.append(f"service: this host has no {script}; install it first")
        return own, [], None
    overriding = script if sets_rc_ulimit(host.read(script) or "") else None
    for name in host.names("/etc/runlevels"):  # read in place of conf.d's own file
        if host.exists(f"{own}.{name}"):
            overriding = f"{own}.{name}"
    return own, [], overriding


def _read_processes(host: Host, init: str, service: str) -> list[Process]:
    status = host.read_kernel("/proc/self/status") or ""
    capable = _has_capability(status, "CapEff") and _in_first_namespace(host)
    own_uids = set(_uids(status))
    found = []
    for pid in services.processes(host, init, service):
        text = host.read_kernel(f"/proc/{pid}/limits")
        if text:
            uids = set(_uids(host.read_kernel(f"/proc/{pid}/status") or ""))
            found.append(
                Process(
                    pid,
                    services.start_time(host, pid),
                    parse_proc(text),
                    adjustable=capable,
                    lowerable=bool(uids) and uids == own_uids,
                )
            )
    return found


def _uids(status: str) -> list[str]:
    line = next((line for line in status.splitlines() if line.startswith("Uid:")), "")
    return line.split()[1:4]


def _has_capability(status: str, which: str) -> bool:
    for line in status.splitlines():
        name, _colon, value = line.partition(":")
        if name == which:
            return bool(int(value.strip(), 16) >> _CAP_SYS_RESOURCE & 1)
    return False


def _in_first_namespace(host: Host) -> bool:
    """The kernel counts the capability only in the first user namespace."""
    words = (host.read_kernel("/proc/self/uid_map") or "").split()
    return words == ["0", "0", "4294967295"]


def _ceiling(host: Host) -> dict[str, int]:
    """The most a process started by PID 1 can get, where PID 1 itself may not have more."""
    status = host.read_kernel("/proc/1/status") or ""
    if not status or (_has_capability(status, "CapBnd") and _in_first_namespace(host)):
        return {}
    limits = parse_proc(host.read_kernel("/proc/1/limits") or "")
    return {name: limit.hard for name, limit in limits.items() if limit.hard != UNLIMITED}
