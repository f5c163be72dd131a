# SPDX-License-Identifier: GPL-3.0-or-later
"""What this machine lacks to run container hosts, and how it differs from podman's defaults.

Peculiarities of a machine are found here and nowhere else: scenarios and images know none.
"""

from __future__ import annotations

import os
import resource
import shutil
import sys
from pathlib import Path
from typing import Iterable

from .shell import (
    BIN,
    CONTAINERS_CONF,
    STATE,
    LabError,
    capture,
    environment,
    say,
    step,
    stream,
    succeeds,
)

CGROUP = Path("/sys/fs/cgroup")
PODMAN_NOFILE = 1048576  # what podman asks the kernel for as root, unless configured otherwise
CAP_SYS_RESOURCE = 24
PYTHONS = ((3, 11), (3, 13))  # what the locked ansible-core runs on, from and to
COMPLETE = "import ensurepip, venv"  # distributions have these in a package of their own

# Where a package's essential program may be: present anywhere means nothing to install.
PROGRAMS = {
    "podman": ("podman",),
    "netavark": ("/usr/lib/podman/netavark", "/usr/libexec/podman/netavark"),
    "aardvark-dns": ("/usr/lib/podman/aardvark-dns", "/usr/libexec/podman/aardvark-dns"),
    "iptables": ("iptables",),
    "nftables": ("nft",),
    "iproute2": ("ip",),
}


def require_root() -> None:
    """Container hosts need real capabilities, hence a rootful podman."""
    if os.geteuid() != 0:
        msg = "container hosts need root: run it as root, or with `sudo make ...`"
        raise LabError(msg)


def found(candidates: Iterable[str]) -> bool:
    """Whether one of these programs (a name, or a path) is on the machine."""
    # the lab's own way into hosts is called as the program that it needs
    folders = environment()["PATH"].split(os.pathsep)
    search = os.pathsep.join(folder for folder in folders if folder != str(BIN))
    return any(shutil.which(candidate, path=search) for candidate in candidates)


def unified_cgroups() -> bool:
    """Whether the machine has cgroup v2 alone."""
    return (CGROUP / "cgroup.controllers").exists()


def missing_packages() -> list[str]:
    """Debian/Ubuntu packages without which the lab can not start hosts."""
    missing = [package for package, where in PROGRAMS.items() if not found(where)]
    # crun refuses a hybrid cgroup tree; elsewhere either runtime will do
    if not found(("runc",) if not unified_cgroups() else ("runc", "crun")):
        missing.append("runc")
    return missing


def install(packages: list[str]) -> None:
    """Install packages with apt, one line for each; raise LabError where there is no apt."""
    if not packages:
        return
    require_root()
    if not found(("apt-get",)):
        raise LabError(
            "this machine has no apt; install these (or what they are called here) "
            "yourself and start again: " + " ".join(packages)
        )
    for package in packages:
        say(f"    missing: {package}")
    env = environment(DEBIAN_FRONTEND="noninteractive")
    apt = ["apt-get", "-q", "-o", "DPkg::Lock::Timeout=300"]
    with step(f"installing {len(packages)} package(s) with apt"):
        capture([*apt, "update"], env=env)
        known = [name for name in packages if succeeds(["apt-cache", "show", name])]
        if "netavark" in packages and "netavark" not in known:
            # podman 3 (Ubuntu 22.04) resolves names through a CNI plugin instead
            known += ["containernetworking-plugins"]
            known += ["golang-github-containernetworking-plugin-dnsname"]
        command = [*apt, "install", "-y", "--no-install-recommends", *known]
        stream(command, env=env, show=lambda line: line if line.startswith("Setting") else None)
    remember(known)


def remember(packages: list[str]) -> None:
    """Keep the names of what was installed, so that `demo-down` can say what stays."""
    STATE.mkdir(exist_ok=True)
    with (STATE / "packages.txt").open("a") as file:
        file.writelines(f"{name}\n" for name in packages)


def python_for_tools() -> str:
    """An interpreter the locked tools run on, installed where there is none."""
    first, last = PYTHONS
    names = [f"python3.{minor}" for minor in range(last[1], first[1] - 1, -1)]
    own = [sys.executable] if first <= sys.version_info[:2] <= last else []
    # a name on PATH may be a version manager's stand-in for a Python it does not have
    there = [name for name in own + names if succeeds([name, "-c", ""])]
    complete = [name for name in there if succeeds([name, "-c", COMPLETE])]
    chosen = next(iter(complete + there), "")
    if not chosen:
        name = f"python{first[0]}.{first[1]}"
        install([name, f"{name}-venv"])
        chosen = name if found([name]) else ""
    if not chosen:
        raise LabError(
            f"the tools need Python {first[0]}.{first[1]} to {last[0]}.{last[1]}, this is "
            f"{sys.version.split()[0]}: install one of {', '.join(names)}"
        )
    if not succeeds([chosen, "-c", COMPLETE]):
        version = capture([chosen, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"])
        install([f"python{version.strip()}-venv"])
    return chosen


def lacks_resource_capability() -> bool:
    """Whether root may not raise limits here, as inside a container or a small virtual machine."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            return not int(line.split()[1], 16) >> CAP_SYS_RESOURCE & 1
    return False


def containers_conf() -> str:
    """The settings podman needs on this machine beyond its defaults; empty on most machines."""
    text = ""
    if not unified_cgroups():
        text += '[engine]\nruntime = "runc"\n'
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if lacks_resource_capability() and 0 <= files < PODMAN_NOFILE:
        # podman lowers its own process limit to pid_max, and can not hand out more than that
        tasks = int(Path("/proc/sys/kernel/pid_max").read_text())
        allowed = resource.getrlimit(resource.RLIMIT_NPROC)[1]
        tasks = min(tasks, allowed) if allowed >= 0 else tasks
        limits = f'"nofile={files}:{files}", "nproc={tasks}:{tasks}"'
        text += f"[containers]\ndefault_ulimits = [{limits}]\n"
    return text


def prepare() -> None:
    """Install what is missing and write podman's settings where this machine needs any."""
    require_root()
    install(missing_packages())
    STATE.mkdir(exist_ok=True)
    text = containers_conf()
    if not text:
        CONTAINERS_CONF.unlink(missing_ok=True)
    elif not CONTAINERS_CONF.exists() or CONTAINERS_CONF.read_text() != text:
        CONTAINERS_CONF.write_text(text)
        say(f"    podman settings for this machine: {CONTAINERS_CONF.relative_to(STATE.parent)}")
