# Copyright: (c) 2026, Holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is written down of a change of the firewall before it is made.

It is all that the host's own program needs to undo the change, a confirmation to finish it, and
check mode to tell what there will be once it is undone. Reads only.
"""

from __future__ import annotations

import dataclasses
import json
import posixpath
import secrets
from typing import Any, Mapping, Sequence

from ansible_collections.holdfast.chain.plugins.module_utils import firewall_program as program
from ansible_collections.holdfast.chain.plugins.module_utils.firewall_plan import (
    Planned,
    Request,
    digest,
    mode_of,
)
from ansible_collections.holdfast.chain.plugins.module_utils.firewall_read import (
    DROPIN,
    GUARD,
    RECORD,
    RUNLEVEL,
    FirewallHost,
    Observed,
    connection,
)
from ansible_collections.holdfast.chain.plugins.module_utils.plan import Change, Plan
from ansible_collections.holdfast.chain.plugins.module_utils.undo_journal import (
    describe,
    text_before,
)

# What an undo brings back besides files and the table.
_BACK_AFTER_UNDO = ("firewalld", "firewalld_enabled", "nftables_enabled", "live_policy")


def pending_of(
    host: FirewallHost, request: Request, seen: Observed, planned: Planned
) -> dict[str, Any]:
    """All that undoing and finishing a change need; a token names it."""
    came = connection(host)
    guards = [posixpath.basename(name) for name in planned.now if name.startswith(GUARD)]
    links = [f"{RUNLEVEL}/{guard}" for guard in guards]
    names = list(dict.fromkeys([*planned.now, *planned.boot, *links, RECORD]))
    commands = []
    openrc = host.init_system() == "openrc"
    for service in planned.enable:
        if openrc:
            names.append(f"/etc/runlevels/boot/{service}")
        else:
            commands.append(["systemctl", "disable", f"{service}.service"])
    if any(name.startswith("/etc/systemd/") for name in names):
        commands.append(["systemctl", "daemon-reload"])
    if planned.start_firewalld:
        commands.append(["systemctl", "stop", "firewalld.service"])
    elif planned.reload_firewalld:
        commands.append(["firewall-cmd", "--reload"])
    commands += [["rc-service", guard, "start"] for guard in guards if runs(host, guard)]
    return {
        "token": secrets.token_hex(8),
        "boot_id": host.boot_id(),
        "undoing": False,
        "present": request.present,
        "connection": came.text if came else None,
        "within": request.confirm_within,
        "loads": planned.table is not None,
        "live": seen.live_table,
        "seen": {name: getattr(seen, name) for name in _BACK_AFTER_UNDO},
        "files": [_entry(host, planned, name) for name in names],
        "directories": _missing_directories(host, names),
        "undo_first": [["rc-service", "--ifexists", guard, "stop"] for guard in guards],
        "undo_commands": commands,
        "boot": [
            {"path": name, "content": text, "mode": mode(host, name)}
            for name, text in planned.boot.items()
        ],
        "finish_commands": [
            ["rc-update", "add", service, "boot"]
            if openrc
            else ["systemctl", "enable", f"{service}.service"]
            for service in planned.enable
        ],
    }


def _entry(host: FirewallHost, planned: Planned, name: str) -> dict[str, Any]:
    """A file: what it was before, and for those that others may edit what the change writes."""
    entry = {"path": name, "before": describe(host, name)}
    texts = [files[name] for files in (planned.now, planned.boot) if name in files]
    if texts:
        entry["wrote"] = [None if text is None else digest(text) for text in texts]
    return entry


def runs(host: FirewallHost, guard: str) -> bool:
    """Whether OpenRC runs the guard of a gate."""
    script = posixpath.join(posixpath.dirname(GUARD), guard)
    return host.exists(script) and host.run(["rc-service", guard, "status"])[0] == 0


def mode(host: FirewallHost, name: str) -> int:
    """The permissions that a file keeps, or is given."""
    return int((host.attributes(name) or {}).get("mode", mode_of(name)))


def _missing_directories(host: FirewallHost, names: Sequence[str]) -> list[str]:
    """Directories that have to be made, the outer ones first."""
    missing: list[str] = []
    for name in names:
        parent = posixpath.dirname(name)
        chain = []
        while not host.path(parent).is_dir() and parent not in missing:
            chain.append(parent)
            parent = posixpath.dirname(parent)
        missing += reversed(chain)
    return [name for name in missing if name != program.STATE]


def timer(pending: Mapping[str, Any]) -> str:
    """The unit that undoes a change nobody confirms."""
    return f"holdfast-firewall-undo-{pending['token']}"


def repairs(host: FirewallHost, pending: Mapping[str, Any] | None) -> Plan:
    """What undoing an earlier, unconfirmed change is."""
    if pending is None:
        return Plan()
    why = "an earlier run was cut short, or not confirmed: its work is taken back"
    return Plan(
        Change(
            f"{entry['path']} (unconfirmed)",
            "as left by that run",
            None if entry["before"] is None else "as it was before that run",
            why,
        )
        for entry in pending["files"]
        if not program.is_foreign(host.path(entry["path"]), entry)
    )


def as_after_undo(host: FirewallHost, seen: Observed, pending: Mapping[str, Any]) -> Observed:
    """What there will be once a pending change is taken back."""
    texts = {
        entry["path"]: text_before(entry)
        for entry in pending["files"]
        if not program.is_foreign(host.path(entry["path"]), entry)
    }
    files = {name: texts.get(name, text) for name, text in seen.files.items()}
    files.update((name, text) for name, text in texts.items() if text and _found_by_name(name))
    former = json.loads(files.get(program.GATES) or '{"gates": {}}')["gates"]
    return dataclasses.replace(
        seen,
        files=dict(sorted(files.items())),
        open={gate: is_open and gate in former for gate, is_open in seen.open.items()},
        live_table=pending["live"] if pending["loads"] else seen.live_table,
        record=json.loads(texts.get(RECORD) or "{}"),
        **pending["seen"],
    )


def _found_by_name(name: str) -> bool:
    """Whether a file counts as the module's because it is there."""
    return name.startswith(GUARD) or posixpath.basename(name) == DROPIN
