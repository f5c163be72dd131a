# SPDX-License-Identifier: GPL-3.0-or-later
"""Namespaces of our own for everything the faults do: network, mounts, processes.

Whatever happens to a run, the kernel removes its bridges, rules, mounts and processes with the
last namespace, and nothing of it was ever seen by the machine. Without root a user namespace gives
the same, where the kernel lets users have one.
"""

from __future__ import annotations

import os
import shutil
import subprocess

MARK = "HOLDFAST_FAULTS_ISOLATED"
NOT_RUN = "HOLDFAST_FAULTS_NOT_RUN"
PROGRAMS = {"unshare": "util-linux", "nsenter": "util-linux", "ip": "iproute2", "nft": "nftables"}
# What the tests do, once, to learn whether they may.
_PROBE = """set -e
mount -t tmpfs tmpfs /run
ip link add bridge0 type bridge
ip netns add one
ip link add one type veth peer name eth0 netns one
nsenter --net=/run/netns/one nft add table inet t
nsenter --net=/run/netns/one nft 'add chain inet t c { type filter hook input priority 0; }'
"""


def command() -> list[str]:
    """What to put in front of a command to run it isolated."""
    unshare = ["unshare", "--net", "--mount", "--propagation", "private"]
    unshare += ["--pid", "--fork", "--kill-child=KILL", "--mount-proc"]
    if os.geteuid() != 0:
        unshare += ["--user", "--map-root-user"]
    return [*unshare, "env", f"PATH={_path()}", f"{MARK}=1"]


def _path() -> str:
    """With the folders of `ip` and `nft`, which users do not have on it everywhere."""
    return f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"


def unavailable() -> str:
    """Why isolation cannot be had here; empty if it can."""
    missing = {
        package for name, package in PROGRAMS.items() if shutil.which(name, path=_path()) is None
    }
    if missing:
        return f"missing: {', '.join(sorted(missing))} (apt-get install them)"
    probe = [*command(), "sh", "-c", _PROBE]
    done = subprocess.run(probe, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return ""
    said = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[0]
    return f"no namespaces with bridge, veth and nftables: {said}"
