# SPDX-License-Identifier: GPL-3.0-or-later
"""Making the base: bootstrap, label, boot once, save the memory.

Making it needs root (a root file system, security labels); running it does not.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from pathlib import Path

from ..images import ROOM, TMPFS, bootstrap
from ..machine import found, install
from ..shell import LabError, NotToBeHadError, capture, say, step
from .base import HERE, KEPT, QEMU, Base, definition, wanted_base
from .guest import Guest
from .qemu import BARE, PROCESSORS

# Packages, and the program that shows that one is there.
PROGRAMS = {
    "qemu-system-x86": QEMU,
    "mmdebstrap": "mmdebstrap",
    "e2fsprogs": "mke2fs",
    "openssh-client": "ssh-keygen",
}
PROBE_SECONDS = 20  # it takes two where KVM works
UDEV_PARTS = ("hooks", "scripts/init-top", "scripts/init-bottom")


def prepare() -> None:
    """Install what this machine lacks to make and run virtual machines."""
    try:
        install([package for package, program in PROGRAMS.items() if not found((program,))])
    except LabError as error:
        raise NotToBeHadError(str(error)) from error


def provide() -> Base:
    """The base, made if there is none for this definition; others are removed then."""
    wanted = wanted_base()
    KEPT.mkdir(parents=True, exist_ok=True)
    with (KEPT / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not wanted.memory.exists():
            if os.geteuid() != 0:
                raise NotToBeHadError("making it needs root: run it as root, or with `sudo make`")
            for entry in KEPT.glob("*/"):
                shutil.rmtree(entry)
            wanted.folder.mkdir()
            make_disk(wanted)
            choose_accelerator(wanted)
            boot(wanted)
    return wanted


def choose_accelerator(target: Base) -> None:
    """KVM if the kernel gets as far as its first program with it: not every /dev/kvm does that."""
    chosen = "tcg"
    if os.access("/dev/kvm", os.R_OK | os.W_OK):
        # a first program that fails at once is a panic, and that with -no-reboot the end of qemu
        line = "console=ttyS0 panic=-1 loglevel=4 rdinit=/bin/false"
        command = ["timeout", str(PROBE_SECONDS), *BARE, *PROCESSORS["kvm"], "-m", "512"]
        command += ["-no-reboot", "-serial", "stdio", "-append", line]
        command += ["-kernel", str(target.kernel), "-initrd", str(target.initrd)]
        with step("trying KVM"), contextlib.suppress(LabError):
            if "Attempted to kill init! exitcode=0x00000100" in capture(command):
                chosen = "kvm"
    say(f"    accelerator: {chosen}")
    target.accelerator.write_text(chosen)


def boot(target: Base) -> None:
    """Boot the disk once and save the memory that then belongs to it."""
    with step("booting it for the first time"), Guest(target, keep_writes=True) as guest:
        guest.settle()
        failed = guest.sh("systemctl list-units --failed --plain --no-legend")
        mode = guest.sh("getenforce")
        if failed or mode != "Enforcing":
            raise LabError(f"the machine has booted, but SELinux is {mode}, failed units: {failed}")
        say(f"    {guest.sh('systemd-analyze | head -1')}")
        guest.sh("sync; fstrim /; echo 3 >/proc/sys/vm/drop_caches")
        guest.disconnect()
        memory = target.folder / "memory.part"
        guest.running.save(memory)
        memory.rename(target.memory)
    used = target.memory.stat().st_size + target.disk.stat().st_blocks * 512
    say(f"    {target.folder.name}: {used >> 20} MiB")


def make_disk(target: Base) -> None:
    """Bootstrap, prepare and label a root file system, and make the disk, kernel and keys of it."""
    wanted = definition()
    capture(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "lab", "-f", str(target.key)])
    scratch = TMPFS if shutil.disk_usage(TMPFS).free > ROOM else target.folder
    with tempfile.TemporaryDirectory(dir=scratch, prefix="holdfast-vm-") as place:
        root = Path(place) / "root"
        bootstrap(wanted, root, initrd_options(wanted["drivers"]))
        with step("preparing it for SELinux, and labelling it"):
            public = target.key.with_suffix(".pub").read_text().strip()
            run_inside(root, HERE / "prepare.sh", public, *wanted["policy"])
        shutil.copy(next((root / "boot").glob("vmlinuz-*")), target.kernel)
        shutil.copy(next((root / "boot").glob("initrd.img-*")), target.initrd)
        host_key = (root / "etc/ssh/ssh_host_ed25519_key.pub").read_text()
        target.known_hosts.write_text(f"machine {host_key}")
        with step("making its disk"):
            with target.disk.open("wb") as file:
                file.truncate(gibibytes(wanted["size"]))
            capture(["mke2fs", "-q", "-t", "ext4", "-d", str(root), str(target.disk)])


def gibibytes(text: str) -> int:
    """Bytes of a size such as 4G."""
    return int(text.removesuffix("G")) << 30


def initrd_options(drivers: list[str]) -> list[str]:
    """Hooks for mmdebstrap that make the kernel's package build a small initial RAM file system."""
    lines = "\\n".join(drivers)
    udev = [f"/usr/share/initramfs-tools/{part}/udev" for part in UDEV_PARTS]
    return [
        *(f"--dpkgopt=path-exclude={path}" for path in udev),
        '--essential-hook=mkdir -p "$1/etc/initramfs-tools/conf.d"',
        '--essential-hook=echo MODULES=list >"$1/etc/initramfs-tools/conf.d/machine"',
        f'--essential-hook=printf "{lines}\\n" >"$1/etc/initramfs-tools/modules"',
    ]


def run_inside(root: Path, script: Path, *arguments: str) -> None:
    """Run a script in a root file system that has /proc, in a mount namespace that ends with it."""
    shutil.copy(script, root / script.name)
    inside = 'mount -t proc proc "$1/proc"; exec chroot "$@"'
    command = ["unshare", "--mount", "sh", "-ec", inside, "sh", str(root)]
    command += ["/bin/sh", f"/{script.name}", *arguments]
    capture(command)
    (root / script.name).unlink()
