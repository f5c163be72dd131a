# Copyright: (c) 2026, Holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a host's firewall is now. Reads only."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from typing import Any, Mapping, Sequence

from ansible_collections.holdfast.chain.plugins.module_utils import (
    firewall_handshake,
    services,
)
from ansible_collections.holdfast.chain.plugins.module_utils import firewall_program as program
from ansible_collections.holdfast.chain.plugins.module_utils.firewall import Profile
from ansible_collections.holdfast.chain.plugins.module_utils.hostfs import Host, HostError

RECORD = program.STATE + "/loaded.json"
POLICY_FILE = "/etc/firewalld/policies/holdfast.xml"
FIREWALLD_DROPIN = "/etc/systemd/system/firewalld.service.d/50-holdfast.conf"
# As long as a change of the policy is not confirmed; before the one above.
FIREWALLD_UNDO = "/etc/systemd/system/firewalld.service.d/40-holdfast-undo.conf"
DROPIN = "50-firewall.conf"
GUARD = "/etc/init.d/firewall-gate."
RUNLEVEL = "/etc/runlevels/default"  # where guards are linked to
# What the distribution loads at boot: RHEL, Debian, Alpine.
BOOT_FILES = ("/etc/sysconfig/nftables.conf", "/etc/nftables.conf", "/etc/nftables.nft")
_MOST_ANCESTORS = 40


class FirewallHost(Host):
    """A host whose programs can be fed a text, or left behind."""

    def feed(
        self, command: Sequence[str], text: str | None = None, timeout: float = 60
    ) -> tuple[int, str, str]:
        """As run, with a text on standard input."""
        code, out, error = program.run(command, text, timeout)
        return code, out, error

    def leave(self, command: Sequence[str]) -> None:
        """Start a program that outlives this one."""
        subprocess.Popen(
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            cwd="/",
        )

    def pid(self) -> int:
        """This process."""
        return os.getpid()


@dataclass(frozen=True)
class Connection:
    """The connection that a run came over, as sshd says it; text tells it from any other."""

    text: str
    source: str
    server_port: int


@dataclass(frozen=True)
class Observed:
    """What there is.

    nft: whether the program is there. live_table, live_policy: as the programs list them, None
    where there is none. record: hashes of what was loaded last. running, open: by gate. faults: why
    the check of a gate that runs and is closed does not pass, or nothing.
    """

    init: str
    firewalld: str
    firewalld_enabled: bool
    nft: bool
    nftables_enabled: bool
    boot_file: str | None
    files: Mapping[str, str | None]
    live_table: str | None
    live_policy: str | None
    record: Mapping[str, Any]
    running: Mapping[str, bool]
    open: Mapping[str, bool]
    faults: Mapping[str, str]
    distributions: Sequence[str]


def connection(host: FirewallHost) -> Connection | None:
    """The SSH connection that this process came over; None if it came otherwise.

    sudo takes the variable away, so that the environment of an ancestor has to tell.
    """
    pid = host.pid()
    for _generation in range(_MOST_ANCESTORS):
        environment = host.read_kernel(f"/proc/{pid}/environ") or ""
        for item in environment.split("\0"):
            name, _equals, value = item.partition("=")
            words = value.split()
            if name == "SSH_CONNECTION" and len(words) == 4 and words[3].isdigit():
                return Connection(value, words[0], int(words[3]))
        after_name = (host.read_kernel(f"/proc/{pid}/stat") or "").rpartition(")")[2].split()
        if len(after_name) < 2 or int(after_name[1]) < 2:
            return None
        pid = int(after_name[1])
    return None


def distributions(host: Host) -> list[str]:
    """What os-release says the host is and is like."""
    found: list[str] = []
    for line in (host.read("/etc/os-release") or "").splitlines():
        name, _equals, value = line.partition("=")
        if name in ("ID", "ID_LIKE"):
            found += value.strip("\"'").split()
    return found


def read(host: FirewallHost, profile: Profile) -> Observed:
    """All of it, for the gates of a profile."""
    init = host.init_system()
    systemd = init == "systemd" and host.systemd_runs()
    boot_file = next((name for name in BOOT_FILES if host.exists(name)), None)
    nft, live_table = _table(host)
    firewalld = _firewalld(host) if systemd else "absent"
    running, opened, faults = {}, {}, {}
    for gate in profile.gates:
        running[gate.name] = _runs(host, init, gate.service)
        opened[gate.name] = host.exists(f"{program.RUN}/{gate.name}.nft")
        faults[gate.name] = ""
        if running[gate.name] and not opened[gate.name]:
            faults[gate.name] = _check(host, gate.check)
    return Observed(
        init=init,
        firewalld=firewalld,
        firewalld_enabled=systemd and _enabled(host, "firewalld"),
        nft=nft,
        nftables_enabled=_enabled(host, "nftables")
        if systemd
        else bool(host.match("/etc/runlevels/boot/nftables"))
        or bool(host.match("/etc/runlevels/default/nftables")),
        boot_file=boot_file,
        files={name: host.read(name) for name in sorted(_names(host, profile, boot_file, init))},
        live_table=live_table,
        live_policy=_policy(host) if firewalld == "active" else None,
        record=json.loads(host.read(RECORD) or "{}"),
        running=running,
        open=opened,
        faults=faults,
        distributions=distributions(host),
    )


def gates(wanted: Profile, seen: Observed) -> dict[str, Any]:
    """What is known of each gate."""
    return {
        gate.name: {
            "service": gate.service,
            "running": seen.running[gate.name],
            "open": seen.open[gate.name],
            "reason": seen.faults[gate.name],
        }
        for gate in wanted.gates
    }


def dropin_name(service: str) -> str:
    """Where a gate hooks into the unit of its service."""
    return f"/etc/systemd/system/{services.unit_name(service)}.d/{DROPIN}"


def _check(host: FirewallHost, command: Sequence[str]) -> str:
    """Why a check does not pass; our own is there before it is installed."""
    if command and command[0] == firewall_handshake.PROGRAM:
        return firewall_handshake.handshake(firewall_handshake.parser().parse_args(command[1:]))
    return program.check(command, host.feed)


def _names(host: Host, profile: Profile, boot_file: str | None, init: str) -> list[str]:
    """Files that are the module's, or may have to be."""
    names = [program.PROGRAM, firewall_handshake.PROGRAM, program.GATES, program.TABLE_FILE]
    names += [POLICY_FILE, FIREWALLD_DROPIN]
    names += [boot_file] if boot_file else []
    if init == "openrc":
        gates = {gate.name for gate in profile.gates}
        gates |= {name[len(GUARD) :] for name in host.match(GUARD + "*")}
        names += [GUARD + gate for gate in sorted(gates)]
    else:
        found = {dropin_name(gate.service) for gate in profile.gates}
        for folder in host.match("/etc/systemd/system/*.service.d"):
            found |= {f"{folder}/{DROPIN}"} & {f"{folder}/{name}" for name in host.names(folder)}
        names += sorted(found)
    return names


def _table(host: FirewallHost) -> tuple[bool, str | None]:
    """Whether nft is there, and the live table without what changes by itself."""
    family, name = program.TABLE.split()
    code, out, error = host.feed(["nft", "-s", "-t", "list", "table", family, name])
    if code == 127:
        return False, None
    if code == 0:
        return True, out
    if "No such file" in error:
        return True, None
    raise HostError(
        f"nft list table: {error.strip()}; expected to read the kernel's rules: run as root "
        "(become), in a container with CAP_NET_ADMIN"
    )


def _firewalld(host: FirewallHost) -> str:
    """active, inactive or absent."""
    if host.run(["systemctl", "is-active", "--quiet", "firewalld.service"])[0] == 0:
        return "active"
    return "inactive" if services.fragment(host, "firewalld.service") else "absent"


def _policy(host: FirewallHost) -> str | None:
    """The live policy; not asked for where it is not, since firewalld logs that as an error."""
    if "holdfast" not in host.run(["firewall-cmd", "--get-policies"])[1].split():
        return None
    code, out, _error = host.run(["firewall-cmd", "--info-policy=holdfast"])
    return out if code == 0 else None


def _enabled(host: FirewallHost, service: str) -> bool:
    return host.run(["systemctl", "is-enabled", f"{service}.service"])[1].strip() == "enabled"


def _runs(host: Host, init: str, service: str) -> bool:
    if init == "systemd":
        state = host.run(["systemctl", "is-active", services.unit_name(service)])[1].strip()
        return state in ("active", "reloading")
    return bool(services.processes(host, init, service))


def programs(interpreter: str) -> dict[str, str]:
    """The host's own programs as they are installed, by path.

    interpreter: that of this module; the distribution's own is taken where there is one.
    """
    if os.access("/usr/bin/python3", os.X_OK):
        interpreter = "/usr/bin/python3"
    texts = {}
    for module in (program, firewall_handshake):
        # By the one way that all loaders have: a zip file's, a folder's, Mitogen's.
        source = module.__spec__.loader.get_source(module.__name__)
        if not source:
            raise HostError(
                f"{module.__name__}: its own text cannot be read here, and {module.PROGRAM} is "
                "made of it; run the module by Ansible's own strategy"
            )
        texts[module.PROGRAM] = f"#!{interpreter} -I\n{source}"
    return texts
