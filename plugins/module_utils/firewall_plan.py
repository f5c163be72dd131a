# Copyright: (c) 2026, Holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From what a host lets in to what it shall let in. Pure."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any, Mapping

from ansible_collections.holdfast.chain.plugins.module_utils import firewall_render as render
from ansible_collections.holdfast.chain.plugins.module_utils.firewall import FirewallError, Profile
from ansible_collections.holdfast.chain.plugins.module_utils.firewall_handshake import (
    PROGRAM as HANDSHAKE,
)
from ansible_collections.holdfast.chain.plugins.module_utils.firewall_program import (
    GATES,
    PROGRAM,
    TABLE,
    TABLE_FILE,
)
from ansible_collections.holdfast.chain.plugins.module_utils.firewall_read import (
    FIREWALLD_DROPIN,
    FIREWALLD_UNDO,
    GUARD,
    POLICY_FILE,
    Observed,
    dropin_name,
)
from ansible_collections.holdfast.chain.plugins.module_utils.plan import Change, Plan

_PROGRAMS = (PROGRAM, HANDSHAKE)


@dataclass(frozen=True)
class Request:
    """What is wanted. backend: auto, nftables or firewalld. programs: their texts by path.

    confirm_within: seconds until an unconfirmed change is undone; 0 for no confirmation.
    """

    profile: Profile
    backend: str
    present: bool
    confirm_within: int
    programs: Mapping[str, str]


@dataclass(frozen=True)
class Planned:
    """What is to be done.

    now: files that change at once, which by themselves keep nobody out. boot: those that decide
    about the next boot, written once the change is confirmed. table: the text to load, empty to
    remove the table, None to leave it. enable: services for the next boot.
    """

    plan: Plan
    backend: str
    now: Mapping[str, str | None]
    boot: Mapping[str, str | None]
    table: str | None
    start_firewalld: bool
    reload_firewalld: bool
    enable: tuple[str, ...]
    opening: tuple[str, ...]
    closing: tuple[str, ...]

    @property
    def loads(self) -> bool:
        """Whether what the kernel lets in changes."""
        return self.table is not None or self.start_firewalld or self.reload_firewalld


def mode_of(name: str) -> int:
    """The permissions a file is given."""
    if name.startswith(GUARD) or name in _PROGRAMS:
        return 0o755
    return 0o600 if name == GATES else 0o644


def digest(text: str) -> str:
    """What a record knows a text by."""
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


def backend_of(request: Request, seen: Observed) -> str:
    """The backend; FirewallError where the one that is asked for cannot be."""
    chosen = request.backend
    if chosen == "auto":
        of_red_hat = {"rhel", "fedora", "centos"} & set(seen.distributions)
        chosen = "firewalld" if seen.firewalld == "active" or of_red_hat else "nftables"
    if chosen == "firewalld" and seen.init != "systemd":
        raise FirewallError(
            f"backend = firewalld: this host runs {seen.init}, expected systemd; use nftables"
        )
    if chosen == "nftables" and seen.firewalld == "active" and request.present:
        raise FirewallError(
            "backend = nftables: firewalld is active here and would refuse what the rules let in; "
            "use backend=firewalld, or stop and disable firewalld first"
        )
    return chosen


def plan(request: Request, seen: Observed) -> Planned:
    """What to do. FirewallError for what cannot be done on this host."""
    backend = backend_of(request, seen)
    wanted = _wanted(request, seen, backend)
    table = render.table(request.profile) if request.present else ""
    changes: list[Change] = []
    now: dict[str, str | None] = {}
    boot: dict[str, str | None] = {}
    for name, before in seen.files.items():
        after = wanted[name]
        if before == after:
            continue
        (boot if name in _boot_names(seen) else now)[name] = after
        changes.append(Change(name, _shown(name, before), _shown(name, after), _why(before, after)))
    if POLICY_FILE in now:  # the undo comes before what it takes back, and goes after it is kept
        interpreter = request.programs[PROGRAM].partition("\n")[0][len("#!") :]
        now = {FIREWALLD_UNDO: render.firewalld_undo(interpreter), **now}
        boot[FIREWALLD_UNDO] = None
    load = None
    fits = _as_recorded(seen.record.get("table"), table, seen.live_table)
    if request.present and not fits:
        load = table
        live = None if seen.live_table is None else "another one"
        reason = "the kernel's rules are not those of this profile"
        changes.append(Change(f"table {TABLE}", live, "as in this profile", reason))
    elif not request.present and seen.live_table is not None:
        load = ""
        changes.append(Change(f"table {TABLE}", "loaded", None, "it is to be removed"))
    start, reload = _firewalld(request, seen, backend, now, changes)
    enable = _enable(request, seen, backend, changes)
    opening, closing = _gates(request, seen, changes)
    return Planned(Plan(changes), backend, now, boot, load, start, reload, enable, opening, closing)


def _boot_names(seen: Observed) -> tuple[str | None, ...]:
    return (TABLE_FILE, FIREWALLD_DROPIN, seen.boot_file)


def _wanted(request: Request, seen: Observed, backend: str) -> dict[str, str | None]:
    """The text of every file that is this module's."""
    wanted: dict[str, str | None] = dict.fromkeys(seen.files)
    if seen.boot_file is not None:
        wanted[seen.boot_file] = render.without_include(seen.files[seen.boot_file] or "")
    if not request.present:
        return wanted
    profile = request.profile
    wanted.update(request.programs)
    wanted[GATES] = render.gates_file(profile)
    wanted[TABLE_FILE] = render.table(profile)
    if backend == "firewalld":
        wanted[POLICY_FILE] = render.policy(profile)
        wanted[FIREWALLD_DROPIN] = render.firewalld_dropin()
    elif seen.boot_file is not None:
        wanted[seen.boot_file] = render.with_include(seen.files[seen.boot_file] or "")
    for gate in profile.gates:
        if seen.init == "openrc":
            wanted[GUARD + gate.name] = render.guard_script(gate)
        else:
            wanted[dropin_name(gate.service)] = render.dropin(gate)
    return wanted


def _firewalld(
    request: Request,
    seen: Observed,
    backend: str,
    now: Mapping[str, str | None],
    changes: list[Change],
) -> tuple[bool, bool]:
    """Whether firewalld is to be started, or to read its files again."""
    if backend != "firewalld" or not request.present:
        return False, seen.firewalld == "active" and POLICY_FILE in now
    text = render.policy(request.profile)
    if seen.firewalld != "active":
        changes.append(Change("firewalld", seen.firewalld, "active", "it is to be the firewall"))
        return True, False
    if not _as_recorded(seen.record.get("policy"), text, seen.live_policy):
        before = None if seen.live_policy is None else "another one"
        reason = "firewalld's policy is not that of this profile"
        changes.append(Change("firewalld policy holdfast", before, "as in this profile", reason))
        return False, True
    return False, False


def _enable(
    request: Request, seen: Observed, backend: str, changes: list[Change]
) -> tuple[str, ...]:
    enabled = seen.firewalld_enabled if backend == "firewalld" else seen.nftables_enabled
    if enabled or not request.present:
        return ()
    changes.append(Change(f"{backend} at boot", "disabled", "enabled", "rules are to be back then"))
    return (backend,)


def _gates(
    request: Request, seen: Observed, changes: list[Change]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Gates that are not as their services are."""
    opening, closing = [], []
    for gate in request.profile.gates if request.present else ():
        runs, is_open = seen.running[gate.name], seen.open[gate.name]
        if runs and not is_open and not seen.faults[gate.name]:
            opening.append(gate.name)
            reason = f"{gate.service} runs and passes its check"
            changes.append(Change(f"gate {gate.name}", "closed", "open", reason))
        elif is_open and not runs:
            closing.append(gate.name)
            changes.append(Change(f"gate {gate.name}", "open", "closed", f"{gate.service} is down"))
    return tuple(opening), tuple(closing)


def _as_recorded(record: Any, text: str, live: str | None) -> bool:
    """Whether the live rules are those that once came of loading a text."""
    if live is None or not record:
        return False
    return bool(record == {"file": digest(text), "live": digest(live)})


def _shown(name: str, text: str | None) -> str | None:
    """A program is not for a diff."""
    return (
        text if text is None or name not in _PROGRAMS else f"a program, SHA-256 {digest(text)[:12]}"
    )


def _why(before: str | None, after: str | None) -> str:
    if before is None:
        return "it is not there"
    return "it is not wanted any more" if after is None else "its content differs"
