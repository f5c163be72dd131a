# Copyright: (c) 2026, Holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads what the plan of kernel_params depends on, and sorts out what cannot be set."""

from __future__ import annotations

from ansible_collections.holdfast.chain.plugins.module_utils import hugepages
from ansible_collections.holdfast.chain.plugins.module_utils.hostfs import Host
from ansible_collections.holdfast.chain.plugins.module_utils.hugepages import HugePages
from ansible_collections.holdfast.chain.plugins.module_utils.sysctl import (
    GLOB,
    display,
    same_value,
)
from ansible_collections.holdfast.chain.plugins.module_utils.sysctl_boot import read_boot
from ansible_collections.holdfast.chain.plugins.module_utils.sysctl_kernel import Kernel
from ansible_collections.holdfast.chain.plugins.module_utils.sysctl_plan import Observed, Request

_RUNLEVELS = "/etc/runlevels"


def read(host: Host, kernel: Kernel, pages: HugePages, request: Request) -> Observed:
    """All that the plan depends on; changes nothing."""
    init = host.init_system()
    boot = read_boot(host, kernel.exists)
    values, not_applicable, problems = _sort_out(kernel, request)
    if host.is_link(request.file):
        problems.append(
            f"file: {request.file} is a symbolic link to {host.real(request.file)}: somebody has "
            "masked or moved it; remove the link, or choose another name"
        )
    place = hugepages.place(init, request.stem)
    if place is None and request.switches and request.present:
        problems.append(
            "transparent_hugepages: this host runs neither systemd nor OpenRC, so there is no "
            "place to keep them for the next boot; leave the option out"
        )
    for switch in request.switches:
        cause = pages.obstacle(switch)
        if cause is not None and request.present:
            not_applicable[switch] = cause
    links = {}
    if request.present:
        applicable = [name for name in request.switches if name not in not_applicable]
        links = _missing_services(host, init, bool(values), bool(applicable), problems)
        if not request.allow_overridden:
            problems += _masked(host, init, bool(values))
    live = {key: kernel.read(key) for key in values}
    own = place[0] if place else ""
    own_mode = (host.attributes(request.file) or {}).get("mode")
    return Observed(
        boot=boot,
        text=host.read(request.file),
        values=values,
        live=live,
        hidden=frozenset(key for key, shown in live.items() if shown is None),
        not_applicable=not_applicable,
        problems=problems,
        init=init,
        switch_file=place,
        switch_text=host.read(own) if own else None,
        switch_live={switch: pages.read(switch) for switch in request.switches},
        switch_boot=lambda text: hugepages.at_boot(host, init, own, text) if own else {},
        links=links,
        modes={} if own_mode is None else {request.file: own_mode},
    )


def _sort_out(kernel: Kernel, request: Request) -> tuple[dict[str, str], dict[str, str], list[str]]:
    """Wanted values by existing key, causes of what this system cannot set, and problems."""
    values: dict[str, str] = {}
    not_applicable: dict[str, str] = {}
    problems: list[str] = []
    for wish, value in request.wishes.items():
        if not GLOB.search(wish):
            names = [wish]
        else:
            names = [name for name in kernel.expand(wish) if name not in request.wishes]
            if not names and request.present:
                problems.append(
                    f"sysctl: {display(wish)} stands for no parameter of this kernel that is not "
                    "named otherwise; check its spelling"
                )
        for name in names:
            fault = _fault(kernel, name) if request.present else None
            cause = None
            if request.present and fault is None:
                cause = kernel.obstacle(name) if kernel.exists(name) else kernel.absence(name)
            if cause is not None:
                not_applicable[name] = cause
            elif GLOB.search(wish) and request.present and not kernel.settable(name):
                continue  # a wildcard does not ask for what only shows something
            elif fault is not None:
                problems.append(fault)
            elif request.present or kernel.exists(name):
                if name in values and not same_value(name, value, values[name]):
                    problems.append(
                        f"sysctl: two wildcards stand for {display(name)} and give it "
                        f"{values[name]} and {value}; name it outright"
                    )
                values[name] = value
    return values, not_applicable, problems


def _fault(kernel: Kernel, key: str) -> str | None:
    """Why a name can be set on no system of this kind; None if it can, or is not shown here."""
    if not kernel.exists(key):
        return None if kernel.absence(key) is not None else _unknown(kernel, key)
    if kernel.is_group(key):
        return (
            f"sysctl: {display(key)} is a group of parameters; name one of them, or all with "
            f"{display(key)}.*"
        )
    if not kernel.settable(key) and kernel.obstacle(key) is None:
        return f"sysctl: {display(key)} only shows something, it cannot be set; remove it"
    return None


def _unknown(kernel: Kernel, key: str) -> str:
    """What to say about a name that the kernel does not have."""
    text = f"sysctl: this kernel has no parameter {display(key)}"
    module = kernel.module_for(key)
    if module is not None:
        return f"{text}; it comes with the kernel module {module}: load that first"
    similar = kernel.similar(key)
    if similar:
        return f"{text}; did you mean {' or '.join(similar)}?"
    return f"{text}; remove it, or load the kernel module that brings it"


def _missing_services(
    host: Host, init: str, parameters: bool, switches: bool, problems: list[str]
) -> dict[str, str]:
    """Links that OpenRC needs to carry the files out at boot."""
    if init != "openrc":
        return {}
    missing = {}
    for needed, service, level in ((parameters, "sysctl", "boot"), (switches, "local", "default")):
        if not needed:
            continue
        levels = host.names(_RUNLEVELS)
        if any(host.is_link(f"{_RUNLEVELS}/{name}/{service}") for name in levels):
            continue
        if not host.exists(f"/etc/init.d/{service}"):
            problems.append(
                f"/etc/init.d/{service} does not exist, so nothing would set the values at boot; "
                "install OpenRC's own services"
            )
        else:
            missing[f"{_RUNLEVELS}/{level}/{service}"] = f"/etc/init.d/{service}"
    return missing


def _masked(host: Host, init: str, parameters: bool) -> list[str]:
    """systemd's reader of the folders can be switched off."""
    unit = "/etc/systemd/system/systemd-sysctl.service"
    if init == "systemd" and parameters and host.is_link(unit) and host.real(unit) == "/dev/null":
        return [
            "systemd-sysctl.service is masked, so nothing would set the values at boot: run "
            "'systemctl unmask systemd-sysctl', or set allow_overridden=true"
        ]
    return []
