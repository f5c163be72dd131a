# Copyright: (c) 2026, Holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A policy module in CIL from declared needs. Pure: equal needs give equal text.

The reference policy (Debian's ``default``) and that of the RHEL family (``targeted``) share their
classes, their base types and the attribute ``domain``, which is all that is taken for granted here.
Names that only one of them has stand in ``optional`` blocks, which the policy compiler leaves out
where a name is missing. CIL needs no compiler on the host: libsemanage reads it itself.
"""

from __future__ import annotations

import re
from typing import Iterator

from ansible_collections.holdfast.chain.plugins.module_utils.selinux import Context, FileContext
from ansible_collections.holdfast.chain.plugins.module_utils.selinux_needs import (
    AllowNeed,
    Needs,
    PortNeed,
    TalkNeed,
)

LOOK = "getattr open read search ioctl lock"
READ = "getattr open read ioctl lock map"
RUN = "getattr open read execute map"
SOCKET = (
    "create read write append getattr setattr getopt setopt bind connect listen accept shutdown "
    "ioctl lock"
)
CHANGE_DIR = f"{LOOK} write add_name remove_name create rmdir rename reparent setattr"
CHANGE_FILE = f"{READ} write append create unlink link rename setattr"
# The kernel counts capabilities beyond the 32nd as a class of their own.
LATE_CAPABILITIES = [
    "audit_read",
    "block_suspend",
    "bpf",
    "checkpoint_restore",
    "mac_admin",
    "mac_override",
    "perfmon",
    "syslog",
    "wake_alarm",
]
_LEVELS = "((s0) (s0))"
_FILECON = re.compile(r'^\(filecon "([^"]+)" (\w+) \(system_u object_r (\w+) ', re.M)


def render(needs: Needs) -> str:
    """The text of the module."""
    sections = (
        ("Types", _types(needs)),
        ("The domain and how it is entered", _entry(needs)),
        ("Itself, and what every program needs", _itself(needs)),
        ("Network", _network(needs)),
        ("Its files", _files(needs)),
        ("Services of the host", _services(needs)),
        ("Others, and anything else", _others(needs)),
        ("Labels", _labels(needs)),
    )
    lines = [f"; Domain {needs.domain}, managed by Ansible (holdfast.chain.selinux_policy)"]
    for title, rules in sections:
        section = list(rules)
        if section:
            lines += ["", f"; {title}", *section]
    return "\n".join(lines) + "\n"


def own_types(needs: Needs) -> list[str]:
    """Types of files that the module declares."""
    kinds = ["exec"]
    kinds += ["conf"] if any(not need.secret for need in needs.read) else []
    kinds += ["key"] if any(need.secret for need in needs.read) else []
    kinds += ["data"] if needs.write else []
    return [needs.type(kind) for kind in kinds]


def own_ports(needs: Needs) -> list[PortNeed]:
    """Ports that get the daemon's own type, each once."""
    ports = [port for port in (*needs.bind, *needs.connect) if port.type is None]
    return sorted(dict.fromkeys(ports))


def allow(source: str, target: str, object_class: str, permissions: str) -> str:
    """An allow rule."""
    return f"(allow {source} {target} ({object_class} ({permissions})))"


class _Optionals:
    """Blocks that are left out where a name in them is missing; names stay the same each time."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix

    def __call__(self, name: str, *rules: str) -> str:
        body = "\n  ".join(rules)
        return f"(optional {self._prefix}_{name}\n  {body})"


def _types(needs: Needs) -> Iterator[str]:
    optional = _Optionals(needs.name)
    yield f"(type {needs.domain})"
    yield f"(roletype system_r {needs.domain})"
    yield f"(roletype object_r {needs.domain})"
    yield f"(typeattributeset domain ({needs.domain}))"
    if needs.permissive:
        yield f"(typepermissive {needs.domain})"
    for name in own_types(needs):
        yield f"(type {name})"
        yield f"(roletype object_r {name})"
        yield f"(typeattributeset file_type ({name}))"
        if name != needs.type("key"):
            # what backup and monitoring may read; a key is nobody's but the daemon's
            for attribute in ("non_auth_file_type", "non_security_file_type"):
                rule = f"(typeattributeset {attribute} ({name}))"
                yield optional(f"{name}_{attribute}", rule)
    for attribute in ("exec_type", "entry_type"):
        rule = f"(typeattributeset {attribute} ({needs.type('exec')}))"
        yield optional(attribute, rule)
    if own_ports(needs):
        yield f"(type {needs.type('port')})"
        yield f"(roletype object_r {needs.type('port')})"
        yield f"(typeattributeset port_type ({needs.type('port')}))"


def _entry(needs: Needs) -> Iterator[str]:
    domain, program = needs.domain, needs.type("exec")
    yield allow(domain, program, "file", f"entrypoint ioctl lock {RUN}")
    if not needs.from_init:
        return
    yield f"(typetransition init_t {program} process {domain})"
    yield allow("init_t", program, "file", RUN)
    # rlimitinh: without it the kernel takes the limits back that the unit gives
    yield allow(
        "init_t",
        domain,
        "process",
        "transition rlimitinh getattr getpgid setsched setrlimit signal signull sigkill sigstop",
    )
    # units with NoNewPrivileges, and programs on file systems mounted nosuid
    yield allow("init_t", domain, "process2", "nnp_transition nosuid_transition")
    yield allow("init_t", domain, "dir", "getattr open read search")
    yield allow("init_t", domain, "file", "getattr open read write")
    yield allow("init_t", domain, "lnk_file", "getattr read")
    yield allow(domain, "init_t", "fd", "use")
    yield allow(domain, "init_t", "process", "sigchld")
    yield allow(domain, "init_t", "fifo_file", "getattr read write append ioctl")
    # standard output is a socket that systemd made
    yield allow(domain, "init_t", "unix_stream_socket", "getattr getopt read write append ioctl")
    # units with Type=notify
    yield allow(domain, "init_t", "unix_dgram_socket", "sendto")
    optional = _Optionals(needs.name)
    for name in ("init_runtime_t", "init_var_run_t"):
        yield optional(
            f"notify_{name}",
            allow(domain, name, "dir", "getattr search"),
            allow(domain, name, "sock_file", "getattr open write"),
        )
    for name in own_types(needs)[1:]:
        yield allow("init_t", name, "dir", f"{CHANGE_DIR} mounton relabelfrom relabelto")
        yield allow("init_t", name, "file", f"{CHANGE_FILE} mounton relabelfrom relabelto")
        yield allow("init_t", name, "lnk_file", "getattr read create unlink rename setattr")


def _itself(needs: Needs) -> Iterator[str]:
    domain = needs.domain
    optional = _Optionals(needs.name)
    yield allow(
        domain,
        domain,
        "process",
        "fork sigchld sigkill sigstop signal signull getattr getcap getsched setsched getpgid "
        "setpgid getsession getrlimit",
    )
    yield allow(domain, domain, "fifo_file", "getattr open read write append ioctl lock")
    yield allow(domain, domain, "unix_stream_socket", f"{SOCKET} connectto")
    yield allow(domain, domain, "unix_dgram_socket", f"{SOCKET} sendto")
    yield allow(domain, domain, "dir", LOOK)
    yield allow(domain, domain, "file", f"{READ} write append")
    yield allow(domain, domain, "lnk_file", "getattr read")
    for name in ("root_t", "etc_t", "usr_t", "var_t", "var_lib_t", "lib_t", "bin_t"):
        yield allow(domain, name, "dir", LOOK)
        yield allow(domain, name, "lnk_file", "getattr read")
    for name in ("etc_t", "usr_t", "lib_t"):
        yield allow(domain, name, "file", READ)
    yield allow(domain, "lib_t", "file", RUN)
    yield allow(domain, "fs_t", "filesystem", "getattr")
    for name in ("null_device_t", "zero_device_t"):
        yield allow(domain, name, "chr_file", f"{READ} write append")
    for name in ("urandom_device_t", "random_device_t"):
        yield allow(domain, name, "chr_file", READ)
    yield allow(domain, "proc_t", "dir", LOOK)
    yield allow(domain, "proc_t", "file", READ)
    for name in ("locale_t", "ld_so_cache_t", "passwd_file_t", "cpu_online_t"):
        yield optional(
            f"read_{name}",
            allow(domain, name, "file", READ),
            allow(domain, name, "dir", LOOK),
            allow(domain, name, "lnk_file", "getattr read"),
        )
    yield optional("loader", allow(domain, "ld_so_t", "file", RUN))
    for name in ("var_run_t", "runtime_t"):
        yield optional(f"search_{name}", allow(domain, name, "dir", "getattr search"))
    for object_class, names in (("capability", False), ("capability2", True)):
        asked = [name for name in needs.capabilities if (name in LATE_CAPABILITIES) is names]
        if asked:
            words = "all" if {"*", "all"} & set(asked) else " ".join(asked)
            yield allow(domain, domain, object_class, words)


def _network(needs: Needs) -> Iterator[str]:
    domain = needs.domain
    protocols = sorted({port.proto for port in (*needs.bind, *needs.connect)})
    if "resolve_names" in needs.services:
        protocols = sorted({*protocols, "tcp", "udp"})
    for proto in protocols:
        yield allow(domain, domain, f"{proto}_socket", SOCKET)
    for proto in sorted({port.proto for port in needs.bind}):
        yield allow(domain, "node_type", f"{proto}_socket", "node_bind")
    for verb, ports in (("name_bind", needs.bind), ("name_connect", needs.connect)):
        targets = {(port.type or needs.type("port"), port.proto) for port in ports}
        for name, proto in sorted(targets):
            # sending a datagram is no connection that the kernel would ask about
            if verb == "name_bind" or proto != "udp":
                yield allow(domain, name, f"{proto}_socket", verb)


def _files(needs: Needs) -> Iterator[str]:
    domain, own = needs.domain, own_types(needs)
    for kind in ("conf", "key"):
        if needs.type(kind) in own:
            yield allow(domain, needs.type(kind), "dir", LOOK)
            yield allow(domain, needs.type(kind), "file", READ)
            yield allow(domain, needs.type(kind), "lnk_file", "getattr read")
    if needs.type("data") in own:
        yield allow(domain, needs.type("data"), "dir", CHANGE_DIR)
        for object_class in ("file", "sock_file"):
            yield allow(domain, needs.type("data"), object_class, CHANGE_FILE)
        yield allow(
            domain, needs.type("data"), "lnk_file", "getattr read create unlink rename setattr"
        )
    if needs.credentials:
        # LoadCredential: a file system in memory that the unit alone sees
        optional = _Optionals(needs.name)
        for name in ("ramfs_t", "tmpfs_t", "init_runtime_t", "init_var_run_t"):
            yield optional(
                f"credentials_{name}",
                allow(domain, name, "dir", LOOK),
                allow(domain, name, "file", "getattr open read ioctl lock"),
            )


def _services(needs: Needs) -> Iterator[str]:
    given = {
        "resolve_names": _resolve_names,
        "journal": _journal,
        "certificates": _certificates,
        "interpreter": _interpreter,
    }
    for name in sorted(set(needs.services)):
        yield from given[name](needs)


def _resolve_names(needs: Needs) -> Iterator[str]:
    domain, optional = needs.domain, _Optionals(needs.name)
    yield allow(domain, "net_conf_t", "dir", LOOK)
    yield allow(domain, "net_conf_t", "file", READ)
    yield allow(domain, "net_conf_t", "lnk_file", "getattr read")
    yield allow(domain, "dns_port_t", "tcp_socket", "name_connect")
    # getaddrinfo asks the kernel which addresses there are
    yield allow(
        domain,
        domain,
        "netlink_route_socket",
        "create read write getattr getopt setopt bind connect nlmsg_read",
    )
    for name in ("systemd_resolved_runtime_t", "systemd_resolved_var_run_t"):
        yield optional(
            f"resolved_{name}",
            allow(domain, name, "dir", LOOK),
            allow(domain, name, "file", READ),
            allow(domain, name, "sock_file", "getattr open write"),
            allow(domain, "systemd_resolved_t", "unix_stream_socket", "connectto"),
        )


def _journal(needs: Needs) -> Iterator[str]:
    domain, optional = needs.domain, _Optionals(needs.name)
    yield allow(domain, "devlog_t", "sock_file", "getattr open write")
    yield allow(domain, "devlog_t", "lnk_file", "getattr read")
    for name in ("syslogd_runtime_t", "syslogd_var_run_t"):
        yield optional(
            f"journal_{name}",
            allow(domain, name, "dir", "getattr search"),
            allow(domain, name, "sock_file", "getattr open write"),
        )
    yield allow(domain, "syslogd_t", "unix_dgram_socket", "sendto")
    yield allow(domain, "syslogd_t", "unix_stream_socket", "connectto")


def _certificates(needs: Needs) -> Iterator[str]:
    yield allow(needs.domain, "cert_t", "dir", LOOK)
    yield allow(needs.domain, "cert_t", "file", READ)
    yield allow(needs.domain, "cert_t", "lnk_file", "getattr read")


def _interpreter(needs: Needs) -> Iterator[str]:
    """An interpreter runs in the domain of its script, and needs no transition of its own."""
    yield allow(needs.domain, "bin_t", "file", RUN)
    optional = _Optionals(needs.name)
    for name in ("sysctl_t", "sysctl_vm_t", "sysctl_kernel_t", "sysctl_vm_overcommit_t"):
        yield optional(
            f"read_{name}",
            allow(needs.domain, name, "dir", "getattr search"),
            allow(needs.domain, name, "file", "getattr open read"),
        )


def _others(needs: Needs) -> Iterator[str]:
    for talk in needs.talk_to:
        yield from _talk(needs.domain, talk)
    for need in needs.allow:
        yield _allow(needs.domain, need)


def _talk(domain: str, talk: TalkNeed) -> Iterator[str]:
    if talk.over == "dbus":
        yield allow(domain, talk.domain, "dbus", "send_msg")
        yield allow(talk.domain, domain, "dbus", "send_msg")
        yield allow(domain, "system_dbusd_t", "unix_stream_socket", "connectto")
        yield allow(domain, "system_dbusd_t", "dbus", "acquire_svc send_msg")
        return
    yield allow(domain, talk.socket or "", "sock_file", "getattr open write")
    verb = "connectto" if talk.over == "unix_stream" else "sendto"
    yield allow(domain, talk.domain, f"{talk.over}_socket", verb)


def _allow(domain: str, need: AllowNeed) -> str:
    target = domain if need.type == "self" else need.type
    permissions = "all" if "*" in need.permissions else " ".join(need.permissions)
    return allow(domain, target, need.object_class, permissions)


def _labels(needs: Needs) -> Iterator[str]:
    for target in needs.executables:
        yield filecon(target, "file", needs.type("exec"))
    for need in needs.read:
        yield filecon(need.target, "any", needs.type("key" if need.secret else "conf"))
    for need in needs.write:
        yield filecon(need.target, "any", needs.type("data"))
    for port in own_ports(needs):
        span = str(port.low) if port.low == port.high else f"({port.low} {port.high})"
        yield f"(portcon {port.proto} {span} {_context(needs.type('port'))})"


def _context(name: str) -> str:
    return f"(system_u object_r {name} {_LEVELS})"


def filecon(target: str, kind: str, name: str) -> str:
    """A rule for the labels of files."""
    return f'(filecon "{target}" {kind} {_context(name)})'


def file_rules(text: str) -> list[FileContext]:
    """The rules for files in a module that `render` made."""
    kinds = {"any": "a", "file": "f"}
    return [
        FileContext(target, kinds[kind], Context("system_u", "object_r", name, "s0"))
        for target, kind, name in _FILECON.findall(text)
    ]


def declared(text: str) -> set[str]:
    """The types a module declares."""
    return set(re.findall(r"^\(type (\w+)\)$", text, re.M))


def relied_on(text: str) -> set[str]:
    """Types of others that a module cannot do without: optional blocks are indented."""
    words: set[str] = set()
    for line in text.splitlines():
        if line.startswith(("(allow ", "(typetransition ")):
            words.update(re.findall(r"\b[a-z]\w*_t\b", line))
    return words - declared(text)
