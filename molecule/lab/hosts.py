# SPDX-License-Identifier: GPL-3.0-or-later
"""Container hosts: small machines on a network of their own, found again by their label.

A *lab* is a named set of hosts (`demo`, `network`, ...). Host v1 of lab demo is the container
`holdfast-demo-v1` on the network `holdfast-demo`, where the others reach it as `v1`.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Mapping

from . import images, networks
from .shell import STATE, LabError, capture, say, step, succeeds

IDENTIFIERS = STATE / "containers"  # by name, for bin/podman
BOOT_SECONDS = 60
REMOVAL_SECONDS = 120
CAPABILITIES = "NET_ADMIN,NET_RAW,SYS_ADMIN,SYS_NICE"
# Runs before init: roles need the net.* sysctls.
SYSCTLS = """\
mount --bind /proc/sys/net /proc/sys/net && mount -o remount,bind,rw /proc/sys/net
"""
# Without this systemd accepts ProtectSystem, PrivateTmp, MemoryMax, LoadCredential ... and silently
# does nothing or fails: units need a shared mount tree and, where controllers are mounted one by
# one (cgroup v1), write access to them. There podman also binds the machine's whole tree of units
# over the host's own part of it: hosts would share that, and tidy away each other's groups, those
# included that podman is just about to put a process into. So init starts only where it is gone.
CONFINEMENT = """\
mount --make-rshared /
if [ ! -e /sys/fs/cgroup/cgroup.controllers ]; then
  umount --lazy /sys/fs/cgroup/systemd
  grep -qx 1 /sys/fs/cgroup/systemd/cgroup.procs || { echo "no control groups of its own"; exit 1; }
  for controller in systemd memory pids cpu cpuacct blkio; do
    [ ! -d /sys/fs/cgroup/$controller ] || mount -o remount,bind,rw /sys/fs/cgroup/$controller
  done
fi
"""


@dataclass(frozen=True)
class Manager:
    """What a service manager needs as process 1 of a container, and how it says that it is up."""

    option: str  # for podman run
    before: str  # shell commands before it starts
    booted: str  # shell command that ends with 0 once it has booted; may wait for that
    failed: str  # shell command that lists what failed to start


MANAGERS = {
    "systemd": Manager(
        option="--systemd=always",
        before=CONFINEMENT + SYSCTLS,
        # right after the start there is no bus yet, so the answer may come from the next round
        booted="timeout 20 systemctl is-system-running --wait || "
        "systemctl is-system-running --quiet",
        failed="systemctl list-units --failed --no-legend --plain",
    ),
    "openrc": Manager(
        option="--systemd=false",
        before=SYSCTLS,
        booted="grep -qx default /run/openrc/softlevel && [ ! -e /run/openrc/rc.starting ]",
        failed="rc-status --crashed",
    ),
}


def container(lab: str, host: str) -> str:
    """The name of a host's container, which is its ansible_host."""
    return f"holdfast-{lab}-{host}"


def existing(lab: str) -> dict[str, dict[str, Any]]:
    """What podman knows of the lab's containers, by container name."""
    labelled = ["--filter", f"label={networks.LABEL}={lab}"]
    names = capture(["podman", "ps", "-a", *labelled, "--format", "{{.Names}}"]).split()
    if not names:
        return {}
    return {entry["Name"]: entry for entry in json.loads(capture(["podman", "inspect", *names]))}


def labs() -> list[str]:
    """The labs that have containers in this storage, or a network left over from them."""
    options = ["--filter", f"label={networks.LABEL}"]
    options += ["--format", f'{{{{index .Labels "{networks.LABEL}"}}}}']
    listed = capture(["podman", "ps", "-a", *options])
    return sorted({*listed.split(), *networks.labs()})


def addresses(lab: str) -> dict[str, str]:
    """The address of each running host, by host name."""
    network = networks.network(lab)
    return {
        entry["Config"]["Hostname"]: entry["NetworkSettings"]["Networks"][network]["IPAddress"]
        for entry in existing(lab).values()
        if entry["State"]["Status"] == "running"
    }


def up(lab: str, names: Mapping[str, str]) -> int:
    """Start the hosts that do not run and wait until they have booted; return their number.

    names: the platform of each host.
    """
    label = f"{networks.LABEL}={lab}"
    known = existing(lab)
    running = {name for name, entry in known.items() if entry["State"]["Status"] == "running"}
    starting = {
        host: platform for host, platform in names.items() if container(lab, host) not in running
    }
    if not starting:
        return 0
    kinds = {platform: images.describe(platform) for platform in sorted({*starting.values()})}
    managers = {host: MANAGERS[kinds[platform]["manager"]] for host, platform in starting.items()}
    told = ", ".join(f"{host} ({platform})" for host, platform in starting.items())
    with step(f"starting container hosts: {told}"):
        network = networks.provide(lab)
        for host, platform in starting.items():
            name, manager, kind = container(lab, host), managers[host], kinds[platform]
            if name in known:
                capture(["podman", "start", name])
            else:
                options = ["--name", name, "--hostname", host, "--label", label]
                options += ["--network", network, "--network-alias", host]
                init = ["/bin/sh", "-c", manager.before + 'exec "$0"', kind["init"]]
                identifier = capture([*run_command(manager), *options, kind["name"], *init])
                IDENTIFIERS.mkdir(exist_ok=True)
                (IDENTIFIERS / name).write_text(identifier)
        for host, manager in managers.items():
            wait_for_boot(container(lab, host), manager)
    return len(starting)


def run_command(manager: Manager) -> list[str]:
    """What makes `podman run` give a host in which units are really confined."""
    command = ["podman", "run", "-d", manager.option, "--cgroupns=private"]
    command += [f"--cap-add={CAPABILITIES}"]
    # a machine has no filter either, and making one is half of what entering a host costs
    command += ["--security-opt=seccomp=unconfined"]
    if Path("/sys/kernel/security/apparmor").exists():
        command += ["--security-opt=apparmor=unconfined"]  # the default profile forbids mount
    return command


def wait_for_boot(name: str, manager: Manager) -> None:
    """Wait until its manager says that it is up; LabError with what failed or hangs."""
    deadline = time.monotonic() + BOOT_SECONDS
    inside = ["podman", "exec", name, "/bin/sh", "-c"]
    while time.monotonic() < deadline:
        if succeeds([*inside, manager.booted]):
            return
        time.sleep(0.2)
    if capture(["podman", "ps", "-q", "--filter", f"name=^{name}$"]).strip() == "":
        raise LabError(f"{name} ended before it had booted: see `podman logs {name}`")
    failed = capture([*inside, manager.failed])
    raise LabError(f"{name} has not booted in {BOOT_SECONDS} s; failed: {failed.strip() or 'none'}")


def down(lab: str) -> list[str]:
    """Remove the lab's containers and network, whatever state they are in; return their names."""
    removed = sorted(existing(lab))
    if removed:
        # Killed at once: asked to stop first, a host that ends just when podman's patience does
        # makes the kill, and with it the removal, fail.
        remove = ["podman", "rm", "--force", "--time", "0", "--volumes"]
        capture(["timeout", str(REMOVAL_SECONDS), *remove, *removed])
    for name in removed:
        (IDENTIFIERS / name).unlink(missing_ok=True)
        say(f"    removed: {name}")
    return removed + networks.remove(lab)
