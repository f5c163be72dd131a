# Copyright: (c) 2026, Holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The model of a boot against the programs themselves, each in a root of its own.

systemd-sysctl and procps' sysctl of the machine, and BusyBox where there is one, run in a chroot
whose /proc/sys is a plain directory. What they write there is what the model has to predict.
"""

from __future__ import annotations

import os
import random
import re
import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import Callable

import pytest
from ansible_collections.holdfast.chain.plugins.module_utils import hugepages
from ansible_collections.holdfast.chain.plugins.module_utils.sysctl_boot import Boot, read_boot
from ansible_collections.holdfast.chain.plugins.module_utils.sysctl_kernel import Kernel
from fake_host import FakeHost

KEYS = [
    "vm/a",
    "vm/b",
    "net/ipv4/conf/all/x",
    "net/ipv4/conf/lo/x",
    "net/ipv4/conf/eth0.100/x",
    "net/ipv4/conf/lo/y",
]
NAMES = [
    "vm.a",
    "vm/b",
    "vm/a",
    "vm.b",
    "net.ipv4.conf.all.x",
    "net/ipv4/conf/lo/x",
    "net.ipv4.conf.eth0/100.x",
    "net/ipv4/conf/eth0.100/x",
    "net.ipv4.conf.*.x",
    "net/ipv4/conf/lo/?",
    "net.ipv4.conf.[al]*.x",
    "net.ipv4.conf.eth0.100.x",
    "vm.*",
]
FORMS = [
    "{name} = {value}",
    "{name}={value}",
    "  {name}\t=  {value}  ",
    "-{name} = {value}",
    "-{name}",
    "# {name} = {value}",
    "; {name} = {value}",
    "{name} {value}",
    "{name} = {value} {value}",
    "",
]
FOLDERS = ["/etc/sysctl.d", "/run/sysctl.d", "/usr/local/lib/sysctl.d", "/usr/lib/sysctl.d"]
FILES = ["10-a.conf", "50-b.conf", "90-c.conf", ".hidden.conf", "99-d.confx", "9-e.conf"]


def random_tree(host: FakeHost, seed: int, wide_exemptions: bool = True) -> None:
    """Folders full of lines that readers disagree about."""
    dice = random.Random(seed)  # noqa: S311 -- a test has to be the same each time
    names = [f"{folder}/{file}" for folder in FOLDERS for file in FILES if dice.random() < 0.4]
    for name in [*names, "/etc/sysctl.conf"]:
        lines = [
            dice.choice(FORMS).format(name=dice.choice(NAMES), value=dice.randrange(1, 100))
            for _line in range(dice.randrange(1, 6))
        ]
        if not wide_exemptions:
            lines = [line for line in lines if not re.fullmatch(r"-[^=]*[*?\[][^=]*", line)]
        host.put(name, "\n".join(lines) + "\n")
    if dice.random() < 0.3:
        host.path("/etc/sysctl.d/50-b.conf").unlink(missing_ok=True)
        host.link("/etc/sysctl.d/50-b.conf", "/dev/null")
    if dice.random() < 0.5:
        host.link("/etc/sysctl.d/99-sysctl.conf", "../sysctl.conf")
    for key in KEYS:
        host.put(f"/proc/sys/{key}", "0\n")


def install(host: FakeHost, program: str) -> None:
    """A program and the libraries it needs, where the chroot finds them."""
    listing = subprocess.run(["ldd", program], check=False, capture_output=True, text=True).stdout
    for path in [program, *re.findall(r"(/\S+)", listing)]:
        target = host.path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(os.path.realpath(path), target)
    host.put("/dev/null", "")


def in_chroot(host: FakeHost, *command: str) -> None:
    """Run it; what it thinks of the lines is its own affair, what it wrote is what counts."""
    subprocess.run(
        ["chroot", host.root, *command], check=False, capture_output=True, cwd="/", timeout=60
    )


def values(host: FakeHost) -> dict[str, str]:
    return {key: host.parameter(key) for key in KEYS}


def predicted(boot: Boot) -> dict[str, str]:
    found = {}
    for key in KEYS:
        decision = boot.decide(key)
        found[key] = decision.value if decision and decision.value is not None else "0"
    return found


def needs(program: str | None) -> str:
    if program is None or os.geteuid() != 0:
        pytest.skip("not run: needs root (chroot) and the program itself on this machine")
    return program


def program(*names: str) -> str | None:
    return next((name for name in names if Path(name).exists()), None)


@pytest.mark.parametrize("seed", range(12))
def test_systemd(tmp_path: Path, make_host: Callable[[str], FakeHost], seed: int) -> None:
    tool = needs(program("/usr/lib/systemd/systemd-sysctl", "/lib/systemd/systemd-sysctl"))
    host = make_host("systemd")
    random_tree(host, seed)
    expected = predicted(read_boot(host, Kernel(host).exists))
    install(host, tool)
    in_chroot(host, tool)
    assert values(host) == expected


@pytest.mark.parametrize("seed", range(12))
def test_procps(make_host: Callable[[str], FakeHost], seed: int) -> None:
    tool = needs(program("/usr/sbin/sysctl", "/sbin/sysctl"))
    host = make_host("procps-openrc")
    # procps 4.0.2 ignores exemptions with wildcards, later ones do not: the model has the latter
    random_tree(host, seed, wide_exemptions=False)
    expected = predicted(read_boot(host, Kernel(host).exists))
    install(host, tool)
    in_chroot(host, tool, "--system")
    assert values(host) == expected


def install_busybox(host: FakeHost) -> None:
    """The machine's own, or Alpine's from the folder of root file systems (HOLDFAST_IMAGES)."""
    own = shutil.which("busybox")
    if own is not None:
        install(host, own)
        shutil.copy2(host.path(own), host.path("/bin/busybox"))
        return
    folder = Path(os.environ.get("HOLDFAST_IMAGES", "/nonexistent"))
    archives = sorted(folder.glob("alpine-*/*minirootfs*.tar.gz"))
    if not archives or os.geteuid() != 0:
        pytest.skip("not run: needs root and BusyBox, on PATH or in HOLDFAST_IMAGES/alpine-*/")
    with tarfile.open(archives[-1]) as archive:
        for member in archive.getmembers():
            if re.fullmatch(r"\./(bin/busybox|lib/(ld-musl|libc\.musl)[^/]*)", member.name):
                archive.extract(member, host.root)  # three names, checked above


@pytest.mark.parametrize("seed", range(12))
def test_busybox(make_host: Callable[[str], FakeHost], seed: int) -> None:
    host = make_host("openrc")
    random_tree(host, seed)
    boot = read_boot(host, Kernel(host).exists)
    expected = predicted(boot)
    host.path("/bin/busybox").unlink()
    install_busybox(host)
    for name in boot.files():
        in_chroot(host, "/bin/busybox", "sysctl", "-p", name)
    assert values(host) == expected


@pytest.mark.parametrize("kinds", ["w w w", "w w+ w", "w! w w"])
def test_systemd_tmpfiles(make_host: Callable[[str], FakeHost], kinds: str) -> None:
    tool = shutil.which("systemd-tmpfiles")
    if tool is None:
        pytest.skip("not run: needs systemd-tmpfiles on this machine")
    host = make_host("systemd")
    switch = f"{hugepages.ROOT}/enabled"
    folders = ["/usr/lib/tmpfiles.d", "/etc/tmpfiles.d", "/run/tmpfiles.d"]
    for folder, name, kind, value in zip(
        folders, ["20-a", "50-own", "10-b"], kinds.split(), ["always", "never", "madvise"]
    ):
        host.put(f"{folder}/{name}.conf", f"{kind} {switch} - - - - {value}\n")
    host.put("/etc/tmpfiles.d/10-b.conf", "# in place of the one in /run\n")
    host.put(switch, "")
    own = "/etc/tmpfiles.d/50-own.conf"
    decided = hugepages.at_boot(host, "systemd", own, host.read(own))
    subprocess.run(
        [tool, "--create", "--boot", f"--root={host.root}"], check=True, capture_output=True
    )
    assert host.read(switch) == decided["enabled"].value == "always"
