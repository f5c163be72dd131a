# Copyright: (c) 2026, Holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a daemon needs of its host, and which needs would give it more than they seem to. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Iterator, Mapping, NamedTuple, Sequence

from ansible_collections.holdfast.chain.plugins.module_utils.selinux import (
    UNCLAIMED_PORTS,
    SelinuxError,
    Substitution,
    check_target,
    stem,
)

SERVICES = ("certificates", "interpreter", "journal", "resolve_names")
CHANNELS = ("dbus", "unix_dgram", "unix_stream")
_NAME = re.compile(r"[a-z][a-z0-9_]{1,40}")
_WORD = re.compile(r"[a-z][a-z0-9_]*")
WIDEST_RANGE = 256  # ports; more is as good as all of them

# Folders whose own label the whole system relies on, and those below which everything is of it.
SYSTEM_FOLDERS = frozenset(
    [
        "/", "/bin", "/boot", "/dev", "/etc", "/home", "/lib", "/lib64", "/media", "/mnt", "/opt",
        "/proc", "/root", "/run", "/sbin", "/srv", "/sys", "/usr", "/usr/bin", "/usr/lib",
        "/usr/lib64", "/usr/libexec", "/usr/local", "/usr/local/bin", "/usr/local/lib",
        "/usr/local/sbin", "/usr/sbin", "/usr/share", "/var", "/var/cache", "/var/lib", "/var/log",
        "/var/run", "/var/spool", "/var/tmp", "/tmp",  # noqa: S108 -- named to be refused
    ]
)
SYSTEM_TREES = [
    "/boot", "/dev", "/etc/audit", "/etc/group", "/etc/group-", "/etc/gshadow", "/etc/gshadow-",
    "/etc/krb5.keytab", "/etc/pam.d", "/etc/passwd", "/etc/passwd-", "/etc/pki/tls/private",
    "/etc/profile", "/etc/profile.d", "/etc/security", "/etc/selinux", "/etc/shadow",
    "/etc/shadow-", "/etc/ssh", "/etc/ssl/private", "/etc/sudoers", "/etc/sudoers.d",
    "/etc/systemd", "/lib/modules", "/proc", "/root/.ssh", "/sys", "/usr/lib/modules",
    "/usr/lib/systemd", "/var/lib/selinux", "/var/log/audit", "/var/spool/cron",
]
# What root runs at times, and what is loaded into every program: with whatever follows the name.
SYSTEM_NAMES = ("/etc/anacrontab", "/etc/cron.", "/etc/crontab", "/etc/ld.so.")
PROGRAM_TREES = ("/bin", "/lib", "/lib64", "/sbin", "/usr")

SECRET_TYPES = {
    "shadow_t": "everybody's passwords",
    "passwd_shadow_t": "everybody's passwords",
    "sshd_key_t": "the host keys of ssh",
    "ssh_home_t": "everybody's ssh keys",
    "krb5_keytab_t": "the keys of the host's services",
    "auditd_log_t": "the audit log",
    "security_t": "SELinux itself",
    "selinux_config_t": "SELinux itself",
    "policy_config_t": "SELinux itself",
    "semanage_store_t": "SELinux itself",
    "memory_device_t": "the memory of the kernel",
    "nvram_device_t": "the machine's firmware",
    "fixed_disk_device_t": "every file on the disks",
    "removable_device_t": "every file on the disks",
    "proc_kcore_t": "the memory of the kernel",
}
# What the whole system runs or is configured by: fine to read, not to write.
SHARED_TYPES = [
    "bin_t", "boot_t", "default_t", "etc_runtime_t", "etc_t", "init_exec_t", "ld_so_cache_t",
    "ld_so_t", "lib_t", "locale_t", "modules_object_t", "net_conf_t", "root_t", "shell_exec_t",
    "src_t", "systemd_unit_t", "tmp_t", "usr_t", "var_lib_t", "var_log_t", "var_run_t", "var_t",
    "cert_t", "user_home_t", "user_home_dir_t", "admin_home_t",
]
POWERFUL_DOMAINS = [
    "init_t", "initrc_t", "kernel_t", "sysadm_t", "systemd_t", "unconfined_service_t",
    "unconfined_t",
]
READING = frozenset(["getattr", "ioctl", "lock", "map", "open", "read", "search", "watch"])
DANGEROUS_CLASSES = {
    "bpf": "it loads programs into the kernel",
    "kernel_service": "it overrides labels in the kernel",
    "lockdown": "it reaches the memory of the kernel",
    "memprotect": "it maps page zero",
    "perf_event": "it watches every process",
    "security": "it changes the policy",
    "system": "it loads modules into the kernel",
}
DANGEROUS_PERMISSIONS = frozenset(
    [
        "all", "dyntransition", "entrypoint", "execheap", "execmem", "execmod", "execstack",
        "mmap_zero", "mount", "mounton", "ptrace", "quotamod", "relabelfrom", "relabelto",
        "remount", "setcurrent", "setexec", "setfscreate", "setkeycreate", "setsockcreate",
        "transition", "unmount",
    ]
)
DANGEROUS_CAPABILITIES = {
    "audit_control": "it may turn the audit off",
    "bpf": "it may load programs into the kernel",
    "dac_override": "file permissions do not bind it",
    "dac_read_search": "file permissions do not keep it from reading",
    "linux_immutable": "it may undo what protects files",
    "mac_admin": "it may give labels the policy does not know",
    "mac_override": "it may pass over SELinux",
    "mknod": "it may make devices",
    "net_admin": "it may change the host's network and firewall",
    "perfmon": "it may watch every process",
    "setfcap": "it may give programs capabilities",
    "sys_admin": "it is as good as root",
    "sys_boot": "it may restart the machine",
    "sys_chroot": "it may leave its root directory",
    "sys_module": "it may load modules into the kernel",
    "sys_ptrace": "it may read every process",
    "sys_rawio": "it may reach devices and memory",
}


class PortNeed(NamedTuple):
    """Ports to bind or to connect to. type: one of the policy's, or None for the daemon's own."""

    proto: str
    low: int
    high: int
    type: str | None = None

    @property
    def name(self) -> str:
        """``tcp/30303``."""
        span = str(self.low) if self.low == self.high else f"{self.low}-{self.high}"
        return f"{self.proto}/{span}"


class PathNeed(NamedTuple):
    """A file, or a folder with all below it, as a regular expression.

    secret: not for others who may read configuration files.
    """

    path: str
    secret: bool = False

    @property
    def target(self) -> str:
        """As file contexts have it."""
        return self.path.rstrip("/") + "(/.*)?"


class TalkNeed(NamedTuple):
    """Another domain to talk to. socket: the type of the socket's file, for unix sockets."""

    domain: str
    over: str
    socket: str | None = None


class AllowNeed(NamedTuple):
    """Anything else: permissions of a class on a type of the policy, or on ``self``."""

    type: str
    object_class: str
    permissions: tuple[str, ...]


@dataclass(frozen=True)
class Needs:
    """All a daemon needs; the options of selinux_policy."""

    name: str
    executables: tuple[str, ...] = ()
    from_init: bool = True
    bind: tuple[PortNeed, ...] = ()
    connect: tuple[PortNeed, ...] = ()
    read: tuple[PathNeed, ...] = ()
    write: tuple[PathNeed, ...] = ()
    services: tuple[str, ...] = ()
    credentials: bool = False
    talk_to: tuple[TalkNeed, ...] = ()
    capabilities: tuple[str, ...] = ()
    allow: tuple[AllowNeed, ...] = ()
    permissive: bool = False

    @property
    def domain(self) -> str:
        """The type of its processes."""
        return self.type("")

    def type(self, kind: str) -> str:
        """One of its types: exec, conf, data, key, port."""
        return f"{self.name}_{kind}_t" if kind else f"{self.name}_t"

    def check(self, substitutions: Sequence[Substitution] = ()) -> None:
        """SelinuxError for the first need that cannot be written as policy."""
        if not _NAME.fullmatch(self.name) or self.name.endswith("_t"):
            raise SelinuxError(
                f"name: '{self.name}': expected lower-case letters, digits and '_', beginning with "
                "a letter and not ending in '_t'; the domain is the name with '_t'"
            )
        if not self.executables:
            raise SelinuxError("executables: nothing to enter the domain by: name the program")
        for target in self.executables:
            check_target(target, "executables", substitutions)
        for option, needs in (("read", self.read), ("write", self.write)):
            for need in needs:
                check_target(need.path, option, substitutions)
        for talk in self.talk_to:
            if talk.over != "dbus" and talk.socket is None:
                raise SelinuxError(
                    f"talk_to: {talk.domain} over {talk.over}: expected 'socket', the type of the "
                    "socket's file; 'ls -Z' shows it"
                )
        for word in self._words():
            if not _WORD.fullmatch(word):
                raise SelinuxError(f"'{word}' is no name of a type, class or permission")

    def _words(self) -> Iterator[str]:
        for allow in self.allow:
            yield from (allow.type, allow.object_class)
            yield from (word for word in allow.permissions if word != "*")
        yield from (word for word in self.capabilities if word != "*")
        for talk in self.talk_to:
            yield talk.domain
            yield talk.socket or talk.domain
        yield from (port.type for port in (*self.bind, *self.connect) if port.type)

    def types_of_others(self) -> dict[str, str]:
        """Types of the policy that are named, with the option that names them."""
        found = {talk.domain: "talk_to" for talk in self.talk_to}
        found.update({talk.socket: "talk_to" for talk in self.talk_to if talk.socket})
        found.update({port.type: "bind" for port in self.bind if port.type})
        found.update({port.type: "connect" for port in self.connect if port.type})
        found.update({allow.type: "allow" for allow in self.allow if allow.type != "self"})
        return found


class Refusal(NamedTuple):
    """need: the option and what it asks for. why: what it would give besides."""

    need: str
    why: str

    def __str__(self) -> str:
        return f"{self.need}: {self.why}"


def refusals(
    needs: Needs, policy_ports: Mapping[tuple[str, int, int], str] | None = None
) -> list[Refusal]:
    """Needs that would give more than they ask for. policy_ports: types by range, where known."""
    found: list[Refusal] = []
    found += _path_refusals(needs)
    found += _port_refusals(needs, policy_ports or {})
    found += _talk_refusals(needs)
    found += _capability_refusals(needs)
    found += _allow_refusals(needs)
    return found


def _inside(path: str, tree: str) -> bool:
    return path == tree or path.startswith(tree.rstrip("/") + "/")


def _system_tree(top: str) -> str | None:
    """What of the system a path is in, or has below it; None for nothing."""
    for tree in SYSTEM_TREES:
        if _inside(top, tree) or _inside(tree, top):
            return tree
    return top if top.startswith(SYSTEM_NAMES) else None


def _path_refusals(needs: Needs) -> Iterator[Refusal]:
    named = [("executables", target, target) for target in needs.executables]
    named += [("read", need.path, need.target) for need in needs.read]
    named += [("write", need.path, need.target) for need in needs.write]
    for option, path, target in named:
        top, need = stem(target), f"{option} {path}"
        tree = _system_tree(top)
        if top in SYSTEM_FOLDERS:
            yield Refusal(need, f"it would take all of {top} away from the rest of the system")
        elif tree:
            yield Refusal(need, f"{tree} belongs to the system, and others stop working without it")
        elif option == "write" and any(_inside(top, tree) for tree in PROGRAM_TREES):
            yield Refusal(need, "programs of the system are below it")
        if option == "write":
            for program in needs.executables:
                if _inside(stem(program), top) or _inside(top, stem(program)):
                    yield Refusal(need, f"it could replace its own program {program}")


def _port_refusals(
    needs: Needs, policy_ports: Mapping[tuple[str, int, int], str]
) -> Iterator[Refusal]:
    for option, ports in (("bind", needs.bind), ("connect", needs.connect)):
        for port in ports:
            need = f"{option} {port.name}"
            if port.type in UNCLAIMED_PORTS:
                yield Refusal(need, f"{port.type} is every port that has no other type")
            elif port.type and option == "bind":
                others = sorted(
                    str(low) if low == high else f"{low}-{high}"
                    for (proto, low, high), name in policy_ports.items()
                    if name == port.type and proto == port.proto and (low, high) != port[1:3]
                )
                if others:
                    yield Refusal(need, f"with {port.type} it may also bind {', '.join(others)}")
            elif port.high - port.low >= WIDEST_RANGE:
                yield Refusal(need, f"{port.high - port.low + 1} ports are as good as all of them")


def _talk_refusals(needs: Needs) -> Iterator[Refusal]:
    for talk in needs.talk_to:
        if talk.domain in POWERFUL_DOMAINS or talk.domain.startswith("unconfined"):
            yield Refusal(f"talk_to {talk.domain}", "what runs there may do anything on its behalf")


def _capability_refusals(needs: Needs) -> Iterator[Refusal]:
    for capability in needs.capabilities:
        need = f"capabilities {capability}"
        if capability in ("*", "all"):
            yield Refusal(need, "all capabilities are root")
        elif capability in DANGEROUS_CAPABILITIES:
            yield Refusal(need, DANGEROUS_CAPABILITIES[capability])


def _allow_refusals(needs: Needs) -> Iterator[Refusal]:
    for allow in needs.allow:
        need = f"allow {allow.type}:{allow.object_class} {' '.join(allow.permissions)}"
        for why in _whys(allow):
            yield Refusal(need, why)


def _whys(allow: AllowNeed) -> Iterator[str]:
    asked = set(allow.permissions)
    if "*" in asked:
        yield "it stands for every permission of the class, those to come included: name them"
    if allow.object_class.startswith("cap"):
        yield "capabilities go into the option 'capabilities'"
    if allow.object_class in DANGEROUS_CLASSES:
        yield DANGEROUS_CLASSES[allow.object_class]
    dangerous = sorted(asked & DANGEROUS_PERMISSIONS)
    if dangerous:
        words = ", ".join(dangerous)
        yield f"{words} would let it out of its confinement, or change that of others"
    if allow.type in SECRET_TYPES:
        yield f"it would reach {SECRET_TYPES[allow.type]}"
    elif allow.type in SHARED_TYPES and asked - READING - {"execute", "execute_no_trans"}:
        yield f"{allow.type} is what the whole system uses; name the folder in 'write' instead"
    if allow.type in POWERFUL_DOMAINS or allow.type.startswith("unconfined"):
        yield "what runs there may do anything on its behalf"
