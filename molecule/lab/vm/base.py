# SPDX-License-Identifier: GPL-3.0-or-later
"""The base of every machine: a labelled disk, its kernel, and the memory of a booted machine.

Kept below .holdfast/vm/<key>, where the key covers the definition, qemu and the processor.
"""

from __future__ import annotations

import platform
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomllib

from ..machine import found
from ..shell import STATE, NotToBeHadError, capture
from ..tools import digest

HERE = Path(__file__).parent
KEPT = STATE / "vm"
QEMU = "qemu-system-x86_64"
SOURCES = ("debian-12.toml", "prepare.sh", "build.py", "qemu.py")  # what a base depends on


@dataclass(frozen=True)
class Base:
    """Files of a base; `memory` is written last, so it is there only if all the rest is."""

    folder: Path

    @property
    def disk(self) -> Path:
        """Raw ext4 file system, as it was when the memory was saved."""
        return self.folder / "disk.raw"

    @property
    def memory(self) -> Path:
        """The migration stream of a machine that has booted."""
        return self.folder / "memory"

    @property
    def accelerator(self) -> Path:
        """Says `kvm` or `tcg`."""
        return self.folder / "accelerator"

    @property
    def kernel(self) -> Path:
        """The kernel, which qemu boots directly."""
        return self.folder / "vmlinuz"

    @property
    def initrd(self) -> Path:
        """The initial RAM file system with the drivers of the disk."""
        return self.folder / "initrd.img"

    @property
    def key(self) -> Path:
        """The private key of root's ssh login."""
        return self.folder / "id_ed25519"

    @property
    def known_hosts(self) -> Path:
        """The host key, under the name `machine`."""
        return self.folder / "known_hosts"


def definition() -> dict[str, Any]:
    """What the machine is made of."""
    return tomllib.loads((HERE / "debian-12.toml").read_text())


def wanted_base() -> Base:
    """Where the base is to be; NotToBeHadError where nothing could resume from it."""
    if platform.machine() != "x86_64":
        raise NotToBeHadError(f"its packages are for x86-64, this machine is {platform.machine()}")
    if not found((QEMU,)):
        raise NotToBeHadError(f"{QEMU} is not installed: `sudo make test-vm` installs it")
    version = capture([QEMU, "--version"]).encode()
    processor = re.search(r"^model name.*$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    made_on = processor.group().encode() if processor else b""
    parts = (version, made_on, *((HERE / name).read_bytes() for name in SOURCES))
    return Base(KEPT / digest(*parts)[:12])
