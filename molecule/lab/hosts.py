# SPDX-License-Identifier: GPL-3.0-or-later
"""Container hosts: systemd machines on a network of their own, found again by their label.

A *lab* is a named set of hosts (`demo`, `network`, ...). Host v1 of lab demo is the container
`holdfast-demo-v1` on the network `holdfast-demo`, where the others reach it as `v1`.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from .images import definition
from .shell import LabError, capture, say, step, succeeds

BOOT_SECONDS = 60
CAPABILITIES = "NET_ADMIN,NET_RAW,SYS_ADMIN,SYS_NICE"
# Runs before init. Without it systemd accepts ProtectSystem, PrivateTmp, MemoryMax, LoadCredential
# ... and silently does nothing or fails: units need a shared mount tree and, where controllers are
# mounted one by one (cgroup v1), write access to them; roles need the net.* sysctls. There podman
# also binds the machine's whole tree of units over the host's own part of it: hosts would share
# that, and tidy away each other's groups.
BEFORE_INIT = """\
mount --make-rshared /
if [ ! -e /sys/fs/cgroup/cgroup.controllers ]; then
  umount --lazy /sys/fs/cgroup/systemd
  for controller in systemd memory pids cpu cpuacct blkio; do
    [ ! -d /sys/fs/cgroup/$controller ] || mount -o remount,bind,rw /sys/fs/cgroup/$controller
  done
fi
mount --bind /proc/sys/net /proc/sys/net && mount -o remount,bind,rw /proc/sys/net
exec "$0"
"""


def container(lab: str, host: str) -> str:
    """The name of a host's container, which is its ansible_host."""
    return f"holdfast-{lab}-{host}"


def network(lab: str) -> str:
    """The name of a lab's network."""
    return f"holdfast-{lab}"


def existing(lab: str) -> dict[str, dict[str, Any]]:
    """What podman knows of the lab's containers, by container name."""
    labelled = ["--filter", f"label=holdfast.lab={lab}"]
    names = capture(["podman", "ps", "-a", *labelled, "--format", "{{.Names}}"]).split()
    if not names:
        return {}
    return {entry["Name"]: entry for entry in json.loads(capture(["podman", "inspect", *names]))}


def addresses(lab: str) -> dict[str, str]:
    """The address of each running host, by host name."""
    return {
        entry["Config"]["Hostname"]: entry["NetworkSettings"]["Networks"][network(lab)]["IPAddress"]
        for entry in existing(lab).values()
        if entry["State"]["Status"] == "running"
    }


def up(lab: str, names: list[str], platform: str, image: str) -> int:
    """Start the hosts that do not run and wait until they have booted; return their number."""
    label = f"holdfast.lab={lab}"
    known = existing(lab)
    running = {name for name, entry in known.items() if entry["State"]["Status"] == "running"}
    starting = [name for name in names if container(lab, name) not in running]
    if not starting:
        return 0
    with step(f"starting {', '.join(starting)} as container hosts ({platform})"):
        if not succeeds(["podman", "network", "exists", network(lab)]):
            capture(["podman", "network", "create", "--label", label, network(lab)])
        for host in starting:
            name = container(lab, host)
            if name in known:
                capture(["podman", "start", name])
            else:
                options = ["--name", name, "--hostname", host, "--label", label]
                options += ["--network", network(lab), "--network-alias", host]
                init = definition(platform)["init"]
                capture([*run_command(), *options, image, "/bin/sh", "-c", BEFORE_INIT, init])
        for host in starting:
            wait_for_boot(container(lab, host))
    return len(starting)


def run_command() -> list[str]:
    """What makes `podman run` give a host in which units are really confined."""
    command = ["podman", "run", "-d", "--systemd=always", "--cgroupns=private"]
    command += [f"--cap-add={CAPABILITIES}"]
    if Path("/sys/kernel/security/apparmor").exists():
        command += ["--security-opt=apparmor=unconfined"]  # the default profile forbids mount
    return command


def wait_for_boot(name: str) -> None:
    """Wait until systemd says that it is up; LabError with what failed or hangs."""
    deadline = time.monotonic() + BOOT_SECONDS
    inside = ["podman", "exec", name]
    while time.monotonic() < deadline:
        # right after the start there is no bus yet, so the answer may come from the next round
        if succeeds(["timeout", "20", *inside, "systemctl", "is-system-running", "--wait"]):
            return
        if succeeds([*inside, "systemctl", "is-system-running", "--quiet"]):
            return
        time.sleep(0.2)
    if not succeeds(["podman", "container", "exists", name]):
        raise LabError(f"{name} is gone before it had booted: see `podman logs {name}`")
    units = capture([*inside, "systemctl", "list-units", "--failed", "--no-legend", "--plain"])
    raise LabError(f"{name} has not booted in {BOOT_SECONDS} s; failed units: {units or 'none'}")


def down(lab: str) -> list[str]:
    """Remove the lab's containers and network, whatever state they are in; return their names."""
    removed = sorted(existing(lab))
    if removed:
        capture(["podman", "rm", "--force", "--time", "2", "--volumes", *removed])
    if succeeds(["podman", "network", "exists", network(lab)]):
        capture(["podman", "network", "rm", network(lab)])
        removed.append(f"network {network(lab)}")
    for name in removed:
        say(f"    removed: {name}")
    return removed
