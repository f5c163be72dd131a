# Copyright: (c) 2026, Holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A host in a directory with stand-ins for nft, firewalld and systemctl, and what is asked of it.

What these hold is in files below /run/fake, so that it outlives a killed run.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
from pathlib import Path
from typing import Any, Callable, Sequence

from ansible_collections.holdfast.chain.plugins.module_utils.firewall import profile
from ansible_collections.holdfast.chain.plugins.module_utils.firewall_apply import EMPTY
from ansible_collections.holdfast.chain.plugins.module_utils.firewall_plan import Request
from ansible_collections.holdfast.chain.plugins.module_utils.firewall_program import (
    BOOT_ID,
    PROGRAM,
    RUN,
    TABLE_FILE,
    UNDO,
    Firewall,
)
from ansible_collections.holdfast.chain.plugins.module_utils.firewall_read import (
    POLICY_FILE,
    FirewallHost,
)
from fake_host import FakeHost, build

NFTABLES_CONF = "#!/usr/sbin/nft -f\n\nflush ruleset\n\ntable inet filter {\n}\n"
CHANGING = ("start", "stop", "enable", "disable", "daemon-reload", "restart", "add", "del")
PROGRAMS = {
    "/usr/local/sbin/holdfast-firewall": "#!/usr/bin/python3 -I\nfirewall\n",
    "/usr/local/sbin/holdfast-handshake": "#!/usr/bin/python3 -I\nhandshake\n",
}
P2P = {
    "name": "p2p",
    "ports": ["30303", "30304"],
    "rate": {"per_second": 10, "burst": 50},
    "gate": "node",
}
API = {"name": "api", "ports": ["8545"], "sources": ["192.0.2.0/24", "2001:db8::/32"]}
NODE = {"name": "node", "service": "holdfast-node@v1"}
UNIT = "holdfast-node@v1"
DROPIN = "/etc/systemd/system/holdfast-node@v1.service.d/50-firewall.conf"


class FakeFirewall(FakeHost, FirewallHost):
    """broken: words of a command (or of a text fed to nft) that make it fail.

    broken_once: the same, for the first time only. my_pid: where this run looks for its ancestors.
    """

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.broken: set[str] = set()
        self.broken_once: set[str] = set()
        self.left: list[list[str]] = []
        self.commands: list[str] = []
        self.my_pid = 4000
        self.checks: dict[str, int] = {}

    def state(self, name: str) -> Any:
        """What a stand-in holds."""
        text = self.read(f"/run/fake/{name}.json")
        return json.loads(text) if text else None

    def set_state(self, name: str, value: Any) -> None:
        """Let a stand-in hold something."""
        path = self.path(f"/run/fake/{name}.json")
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", encoding="utf-8") as stream:
            stream.write(json.dumps(value))

    def units(self, kind: str) -> list[str]:
        """Units that are active, or enabled."""
        return self.state(kind) or []

    def pid(self) -> int:
        return self.my_pid

    def leave(self, command: Sequence[str]) -> None:
        self.before_write("leave")
        self.left.append(list(command))

    def run(self, command: Any, timeout: float = 60) -> tuple[int, str, str]:
        return self.feed(command, None, timeout)

    def feed(
        self, command: Sequence[str], text: str | None = None, timeout: float = 60
    ) -> tuple[int, str, str]:
        assert timeout > 0
        words = " ".join(command)
        self.commands.append(words)
        if self._changes(command):
            self.before_write(words)
        for word in (*self.broken, *self.broken_once):
            if word in words or (text is not None and word in text):
                self.broken_once.discard(word)
                return 1, "", f"{word}: stand-in is broken"
        name = command[0].replace("-", "_")
        handler: Callable[..., tuple[int, str, str]] | None = getattr(self, f"_{name}", None)
        if handler is None:
            code = self.checks.get(command[0], 127)
            return code, "", "" if code == 0 else f"{command[0]} says no"
        return handler(list(command[1:]), text)

    @staticmethod
    def _changes(command: Sequence[str]) -> bool:
        if command[0] == "nft":
            return "-f" in command and "-c" not in command
        words = ("--reload", "--on-active=45s", *CHANGING)
        return any(word in command for word in words)

    def _nft(self, options: list[str], text: str | None) -> tuple[int, str, str]:
        if "list" in options:
            table = self.state("table")
            if table is None:
                return 1, "", "Error: No such file or directory"
            return 0, table["text"] + "\n", ""
        table = self.state("table")
        for statement in self._statements(text or ""):
            if statement == "table inet holdfast":
                table = table or {"text": "", "open": []}
            elif statement == "delete table inet holdfast":
                table = None
            elif statement.startswith("table inet holdfast {"):
                table = {"text": statement, "open": []}
            elif table is None:
                return 1, "", f"Error: No such file or directory; {statement}"
            elif statement == "flush set inet holdfast open":
                table["open"] = []
            else:
                found = re.fullmatch(r"add element inet holdfast open \{ (.*) \}", statement)
                assert found, statement
                table["open"] = sorted({*table["open"], *found.group(1).split(", ")})
        if "-c" not in options:
            self.set_state("table", table)
        return 0, "", ""

    def _statements(self, text: str) -> list[str]:
        body = re.sub(r"^#.*\n", "", text, flags=re.M)
        found: list[str] = []
        while body.strip():
            block = re.match(r"\s*(table inet holdfast \{\n.*?\n\})\n", body, re.S)
            if block:
                found.append(block.group(1))
                body = body[block.end() :]
                continue
            line, _newline, body = body.lstrip().partition("\n")
            if line.startswith("include"):
                for name in self.match(f"{RUN}/*.nft"):
                    found += self._statements(self.read(name) or "")
            else:
                found.append(line)
        return found

    def _systemctl(self, options: list[str], _text: str | None) -> tuple[int, str, str]:
        verb = next(word for word in options if not word.startswith("-"))
        names = [word for word in options if not word.startswith("-")][1:]
        name = names[0].replace(".service", "") if names else ""
        if verb == "is-active":
            active = name in self.units("active")
            return (0, "active\n", "") if active else (3, "inactive\n", "")
        if verb == "is-enabled":
            enabled = name in self.units("enabled")
            return (0, "enabled\n", "") if enabled else (1, "disabled\n", "")
        kinds = {"start": "active", "stop": "active", "enable": "enabled", "disable": "enabled"}
        if verb in kinds:
            kept = set(self.units(kinds[verb])) - {name}
            kept |= {name} if verb in ("start", "enable") else set()
            self.set_state(kinds[verb], sorted(kept))
            if name == "firewalld":
                self._firewall_cmd(["--reload"], None)
        return 0, "", ""

    def _firewall_cmd(self, options: list[str], _text: str | None) -> tuple[int, str, str]:
        if options == ["--reload"]:
            active = "firewalld" in self.units("active")
            self.set_state("policy", self.read(POLICY_FILE) if active else None)
            return 0, "success\n", ""
        policy = self.state("policy")
        if options == ["--get-policies"]:
            return 0, "allow-host-ipv6" + (" holdfast" if policy else "") + "\n", ""
        assert policy, "firewalld would log an error"
        return 0, "listed: " + policy, ""

    def _firewall_offline_cmd(self, _options: list[str], _text: str | None) -> Any:
        return 0, "success\n", ""

    def _systemd_run(self, options: list[str], _text: str | None) -> tuple[int, str, str]:
        self.set_state("timer", options)
        return 0, "", ""

    def _rc_service(self, options: list[str], _text: str | None) -> tuple[int, str, str]:
        """As supervise-daemon: what ends runs the script's stop_post, which needs the lock."""
        service, verb = [word for word in options if not word.startswith("-")]
        if not self.exists(f"/etc/init.d/{service}"):
            missing = f"rc-service: service `{service}' does not exist"
            return (0, "", "") if "--ifexists" in options else (1, "", missing)
        running = self.units("guards")
        if verb == "status":
            return (0 if service in running else 3), "", ""
        if verb in ("stop", "restart") and service in running:
            if not self.exists(PROGRAM):
                return 1, "", f"{service}: {PROGRAM}: not found"
            if self.is_locked():
                return 126, "", f"{service}: stop_post waits for the lock"
            self.set_state("guards", [name for name in running if name != service])
            self.firewall().close_gate(service.partition(".")[2])
        if verb in ("start", "restart"):
            self.set_state("guards", sorted({*self.units("guards"), service}))
        return 0, "", ""

    def is_locked(self, name: str = RUN) -> bool:
        """Whether somebody holds a lock of the host's own program."""
        if not self.path(name).is_dir():
            return False
        handle = os.open(str(self.path(name)), os.O_RDONLY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(handle)
        return False

    def start_anew(self) -> None:
        """Off and on: what lives in memory is gone, what is enabled starts as its files say."""
        boot_id = self.path(BOOT_ID)
        boot_id.chmod(0o644)
        boot_id.write_text(f"boot after {self.boot_id()}\n", encoding="ascii")
        for name in self.match(f"{RUN}/*"):
            self.path(name).unlink()
        self.set_state("table", None)
        self.set_state("policy", None)
        started = [name for name in self.units("enabled") if name in ("firewalld", "nftables")]
        self.set_state("active", sorted({*started, UNIT} - {"nftables"}))
        for service in started:
            for dropin in self.match(f"/etc/systemd/system/{service}.service.d/*.conf"):
                for command in re.findall(r"^ExecStartPre=\+(.*)$", self.read(dropin) or "", re.M):
                    if command.startswith("/usr/sbin/nft -f "):
                        self._nft(["-f"], self.read(command.rpartition(" ")[2]))
                    else:
                        assert command == f"-/usr/bin/python3 -I {UNDO} boot"
                        self.firewall().undo_at_boot()
        if "firewalld" in started:
            self._firewall_cmd(["--reload"], None)
        elif "nftables" in started and TABLE_FILE in (self.read("/etc/nftables.conf") or ""):
            self._nft(["-f"], self.read(TABLE_FILE))

    def _rc_update(self, options: list[str], _text: str | None) -> tuple[int, str, str]:
        verb, service, level = options
        link = self.path(f"/etc/runlevels/{level}/{service}")
        if verb == "add" and not link.is_symlink():
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(f"/etc/init.d/{service}")
        if verb == "del" and link.is_symlink():
            link.unlink()
        return 0, "", ""

    def firewall(self) -> Firewall:
        """The host's own program."""
        return Firewall(self.root, self.feed)

    def lasting(self) -> dict[str, Any]:
        """All that undo has to restore: files, and what the kernel and the services hold."""
        return {
            name: item
            for name, item in self.everything().items()
            if not name.startswith((RUN, "/run/fake/timer", "/run/fake/table.json", "/proc"))
        } | {"table": self.state("table")}


def with_firewall(root: Path, init: str = "systemd", firewalld: str = "absent") -> FakeFirewall:
    """A host with nftables, and firewalld absent, inactive or active."""
    build(root, init)
    host = FakeFirewall(root)
    host.set_state("table", None)
    host.set_state("policy", None)
    host.set_state("active", [])
    host.set_state("enabled", [])
    host.set_state("guards", [])
    if init == "openrc":
        host.put("/etc/nftables.nft", 'include "/etc/nftables.d/*.nft"\n', 0o755)
    else:
        host.put("/etc/nftables.conf", NFTABLES_CONF, 0o755)
    host.path("/etc/systemd/system").mkdir(parents=True)
    host.path("/etc/init.d").mkdir(parents=True, exist_ok=True)
    host.path("/usr/local/sbin").mkdir(parents=True)
    if firewalld != "absent":
        host.put("/usr/lib/systemd/system/firewalld.service", "[Service]\n")
        host.path("/etc/firewalld/policies").mkdir(parents=True)
    if firewalld == "active":
        host.set_state("active", ["firewalld"])
        host.set_state("enabled", ["firewalld"])
    return host


def came_from(host: FakeFirewall, source: str, port: int = 22, client_port: int = 40000) -> None:
    """Let the run come over SSH, below sudo, which takes the variable away."""
    host.put("/proc/4000/environ", "PATH=/bin\0SUDO_USER=admin\0")
    host.put("/proc/4000/stat", "4000 (python3) S 3000 1 1\n")
    variable = f"SSH_CONNECTION={source} {client_port} 192.0.2.1 {port}"
    host.put("/proc/3000/environ", f"HOME=/root\0{variable}\0")
    host.put("/proc/3000/stat", "3000 (sh) S 1 1 1\n")


def options(**changes: Any) -> dict[str, Any]:
    """Options of the module, as Ansible gives them."""
    return {
        "services": [P2P, API],
        "gates": [NODE],
        "management_networks": [],
        "management_ports": ["22"],
        "policy": "drop",
        **changes,
    }


def ask(
    present: bool = True, backend: str = "auto", confirm_within: int = 0, **changes: Any
) -> Request:
    """A request of the module."""
    wanted = profile(options(**changes)) if present else EMPTY
    return Request(wanted, backend, present, confirm_within, PROGRAMS)
