# Copyright: (c) 2026, Holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A host in a directory: its files are real, its kernel is a stand-in that can refuse and reset."""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path
from typing import Any, Callable

from ansible_collections.holdfast.chain.plugins.module_utils.hostfs import Host
from ansible_collections.holdfast.chain.plugins.module_utils.limits import ITEMS, parse_proc

PARAMETERS = {
    "net/core/somaxconn": "4096",
    "net/core/netdev_max_backlog": "1000",
    "net/ipv4/ip_forward": "0",
    "net/ipv4/tcp_rmem": "4096\t131072\t6291456",
    "net/ipv4/tcp_keepalive_time": "7200",
    "net/ipv4/ip_local_reserved_ports": "",
    "net/ipv4/conf/all/rp_filter": "0",
    "net/ipv4/conf/all/forwarding": "0",
    "net/ipv4/conf/default/rp_filter": "0",
    "net/ipv4/conf/default/forwarding": "0",
    "net/ipv4/conf/lo/rp_filter": "0",
    "net/ipv4/conf/lo/forwarding": "0",
    "net/ipv4/conf/eth0.100/rp_filter": "0",
    "net/ipv4/conf/eth0.100/forwarding": "0",
    "net/ipv4/neigh/default/base_reachable_time_ms": "30000",
    "vm/swappiness": "60",
    "vm/dirty_ratio": "20",
    "vm/dirty_bytes": "0",
    "vm/max_map_count": "65530",
    "vm/drop_caches": "0",
    "fs/file-max": "9223372036854775807",
    "fs/nr_open": "1048576",
    "kernel/core_pattern": "core",
    "kernel/modules_disabled": "0",
    "kernel/osrelease": "6.1.0",
    "kernel/random/boot_id": "8e5a0b3c-0000-4000-8000-000000000001",
}
# The stand-in kernel is not disturbed by faults that tests put into these.
_OPEN, _WRITE = os.open, os.write
WRITE_ONLY = ("vm/drop_caches",)
READ_ONLY = ("kernel/osrelease", "kernel/random/boot_id")
HUGE_PAGES = {
    "enabled": "always [madvise] never",
    "defrag": "always defer defer+madvise [madvise] never",
}


class FakeHost(Host):
    """refuse: error number by parameter; shows: what is kept of a value; after: called on a write.

    read_only: prefixes of names on read-only mounts. programs: what run() answers.
    """

    def __init__(self, root: Path) -> None:
        super().__init__(str(root))
        self.refuse: dict[str, int] = {}
        self.shows: dict[str, Callable[[str], str]] = {}
        self.read_only: list[str] = []
        self.written: list[tuple[str, str]] = []
        self.before_write: Callable[[str], None] = lambda _name: None
        self.before_limit: Callable[[str], None] = lambda _name: None
        self.untouchable: set[int] = set()
        self.programs: dict[str, tuple[int, str, str]] = {}
        self.failing_once: dict[str, tuple[int, str, str]] = {}
        self.ran: list[list[str]] = []

    def put(self, name: str, text: str, mode: int = 0o644) -> None:
        """Make a file."""
        path = self.path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        path.chmod(mode)

    def link(self, name: str, target: str) -> None:
        """Make a symbolic link."""
        path = self.path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(target)

    def parameter(self, key: str) -> str:
        """What the stand-in kernel holds."""
        return self.path(f"/proc/sys/{key}").read_text(encoding="utf-8").rstrip("\n")

    def parameters(self) -> dict[str, str]:
        """All of them."""
        top = self.path("/proc/sys")
        return {
            str(path.relative_to(top)): path.read_text(encoding="utf-8")
            for path in sorted(top.rglob("*"))
            if path.is_file()
        }

    def read_kernel(self, name: str) -> str | None:
        if self.path(name).exists() and not self.mode(name) & 0o444:
            return None
        return super().read_kernel(name)

    def read_only_mount(self, name: str) -> bool:
        return any(name.startswith(prefix) for prefix in self.read_only)

    def may_write(self, name: str) -> bool:
        return bool(self.mode(name) & 0o222)

    def write_kernel(self, name: str, value: str) -> None:
        self.before_write(name)
        key = name[len("/proc/sys/") :] if name.startswith("/proc/sys/") else name
        if self.read_only_mount(name):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), name)
        if key in self.refuse:
            raise OSError(self.refuse[key], os.strerror(self.refuse[key]), name)
        self.written.append((key, value))
        if name.startswith("/sys/"):
            self._switch(name, value)
            return
        value = self.shows.get(key, lambda text: text)(value)
        if key not in WRITE_ONLY:
            self._store(key, re.sub(r" +", "\t", value) if value[:1].isdigit() else value)
        self._reach(key, value)

    def _store(self, key: str, value: str) -> None:
        path = self.path(f"/proc/sys/{key}")
        handle = _OPEN(str(path), os.O_WRONLY | os.O_TRUNC)
        try:
            _WRITE(handle, (value + "\n").encode())
        finally:
            os.close(handle)

    def _reach(self, key: str, value: str) -> None:
        """As Linux: forwarding goes to every interface, one of a pair resets the other."""
        if key in ("net/ipv4/ip_forward", "net/ipv4/conf/all/forwarding"):
            for other in ("all", "default", "lo", "eth0.100"):
                self._store(f"net/ipv4/conf/{other}/forwarding", value)
            self._store("net/ipv4/ip_forward", value)
        pair = {"vm/dirty_ratio": "vm/dirty_bytes", "vm/dirty_bytes": "vm/dirty_ratio"}
        if key in pair:
            if key == "vm/dirty_bytes" and int(value) < 8192:
                self._store(key, "0")
                raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), key)
            self._store(pair[key], "0")

    def _switch(self, name: str, value: str) -> None:
        path = self.path(name)
        words = path.read_text(encoding="utf-8").replace("[", "").replace("]", "").split()
        if value.strip() not in words:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), name)
        shown = " ".join(f"[{word}]" if word == value.strip() else word for word in words)
        path.write_text(shown + "\n", encoding="utf-8")

    def process(
        self,
        pid: int,
        cgroup: str = "/",
        parent: int = 1,
        uid: int = 0,
        **limits: tuple[int, int],
    ) -> None:
        """A process: its control group, parent, user and limits."""
        known = {"nofile": (1024, 524288), "nproc": (4096, 4096), **limits}
        lines = ["Limit                     Soft Limit           Hard Limit           Units     "]
        for name, sides in known.items():
            soft, hard = ("unlimited" if side == 2**64 - 1 else str(side) for side in sides)
            lines.append(f"{ITEMS[name].label:<25} {soft:<20} {hard:<20} things    ")
        self.put(f"/proc/{pid}/limits", "\n".join(lines) + "\n")
        self.put(f"/proc/{pid}/cgroup", f"12:pids:/x\n1:name=systemd:{cgroup}\n0::{cgroup}\n")
        self.put(f"/proc/{pid}/status", f"Name:\tx\nUid:\t{uid}\t{uid}\t{uid}\t{uid}\n")
        fields = " ".join(str(number) for number in range(5, 22))
        self.put(f"/proc/{pid}/stat", f"{pid} (a )b) S {parent} {fields} {pid * 10} 0\n")

    def capable(self, effective: bool, bounding: bool) -> None:
        """Whether this run, and PID 1, have CAP_SYS_RESOURCE."""
        with_it, without = "000001ffffffffff", "00000000a80425fb"
        caps = f"CapEff:\t{with_it if effective else without}\n"
        self.put("/proc/self/status", f"Uid:\t0\t0\t0\t0\n{caps}")
        self.put("/proc/self/uid_map", "         0          0 4294967295\n")
        self.process(1, nofile=(20000, 20000))
        self.put("/proc/1/status", f"CapBnd:\t{with_it if bounding else without}\n")

    def limit(self, pid: int, name: str) -> tuple[int, int]:
        """A limit of a process."""
        return tuple(parse_proc(self.read(f"/proc/{pid}/limits") or "")[name])

    def set_limit(self, pid: int, constant: str, soft: int, hard: int) -> None:
        self.before_limit(f"{pid} {constant}")
        if not self.path(f"/proc/{pid}").is_dir():
            raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH))
        if pid in self.untouchable:
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))
        item = next(item for item in ITEMS.values() if item.constant == constant)
        text = self.read(f"/proc/{pid}/limits") or ""
        sides = ["unlimited" if side == 2**64 - 1 else str(side) for side in (soft, hard)]
        line = f"{item.label:<25} {sides[0]:<20} {sides[1]:<20} things    "
        changed = re.sub(rf"^{item.label}.*$", line, text, flags=re.M)
        self.path(f"/proc/{pid}/limits").write_text(changed, encoding="utf-8")

    def run(self, command: Any, timeout: float = 60) -> tuple[int, str, str]:  # noqa: ARG002
        self.ran.append(list(command))
        once = self.failing_once.pop(" ".join(command), None)
        if once is not None:
            return once
        return self.programs.get(" ".join(command), (0, "", ""))

    def everything(self) -> dict[str, Any]:
        """All files with content, mode, owner; directories and links: what undo has to restore."""
        found: dict[str, Any] = {}
        for path in sorted(Path(self.root).rglob("*")):
            status = path.lstat()
            content: Any = None
            if path.is_symlink():
                content = os.readlink(str(path))
            elif path.is_file():
                content = path.read_bytes()
            name = str(path)[len(self.root) :]
            found[name] = (status.st_mode, status.st_uid, status.st_gid, content)
        return found


def build(root: Path, init: str) -> FakeHost:
    """A host with systemd, openrc (BusyBox, Alpine's script), procps-openrc or no known init."""
    host = FakeHost(root)
    for directory in ("/etc/sysctl.d", "/usr/lib/sysctl.d", "/run", "/var/lib", "/etc/tmpfiles.d"):
        host.path(directory).mkdir(parents=True, exist_ok=True)
    for key, value in PARAMETERS.items():
        mode = 0o200 if key in WRITE_ONLY else 0o444 if key in READ_ONLY else 0o644
        host.put(f"/proc/sys/{key}", value + "\n", mode)
    for name, text in HUGE_PAGES.items():
        host.put(f"/sys/kernel/mm/transparent_hugepage/{name}", text + "\n")
    if init == "systemd":
        host.path("/run/systemd/system").mkdir(parents=True)
    elif init in ("openrc", "procps-openrc"):
        host.path("/run/openrc").mkdir(parents=True)
        for directory in ("/etc/local.d", "/etc/runlevels/boot", "/etc/runlevels/default"):
            host.path(directory).mkdir(parents=True)
        body = (
            "for i in /run/sysctl.d/*.conf \\\n\t/etc/sysctl.d/*.conf \\\n"
            "\t/usr/lib/sysctl.d/*.conf /etc/sysctl.conf; do\n\tsysctl -p $i\ndone\n"
        )
        system = "sysctl ${quiet} --system\n"
        host.put("/etc/init.d/sysctl", body if init == "openrc" else system, 0o755)
        host.put("/etc/init.d/local", "#!/sbin/openrc-run\n", 0o755)
        host.link("/etc/runlevels/boot/sysctl", "/etc/init.d/sysctl")
        host.link("/etc/runlevels/default/local", "/etc/init.d/local")
        if init == "openrc":
            host.put("/bin/busybox", "", 0o755)
            host.link("/sbin/sysctl", "/bin/busybox")
        else:
            host.put("/sbin/sysctl", "", 0o755)
    host.capable(effective=True, bounding=True)
    return host
