# Copyright: (c) 2026, Holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Revoking on the CA: what goes into the log, and the revocation list that every CA gets from it.

The log is the truth, a list follows from it: a crash between the two is made good by the next run.
A list by each CA whose root is trusted, <its folder>/crl.pem.
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Iterator, Mapping, NamedTuple, Sequence

from ansible_collections.holdfast.chain.plugins.module_utils.plan import Change, Plan
from ansible_collections.holdfast.chain.plugins.module_utils.transaction import Transaction
from ansible_collections.holdfast.chain.plugins.module_utils.x509 import (
    RefusedError,
    fingerprint,
    not_after,
    not_before,
    timestamp,
    to_pem,
)
from ansible_collections.holdfast.chain.plugins.module_utils.x509_ca import (
    BACKDATE,
    CRL,
    Authority,
    removals,
)
from ansible_collections.holdfast.chain.plugins.module_utils.x509_crl import (
    KEY_REASONS,
    Entry,
    crl_problems,
    entries_of,
    load_crls,
    make_crl,
    next_update,
    number_of,
    this_update,
)
from ansible_collections.holdfast.chain.plugins.module_utils.x509_log import (
    Issued,
    Log,
    line,
    record_lines,
)
from ansible_collections.holdfast.chain.plugins.module_utils.x509_restored import (
    Restored,
    recover,
)
from ansible_collections.holdfast.chain.plugins.module_utils.x509_rollover import Authorities

_MAX_HOURS = 24 * 3650


@dataclass(frozen=True)
class Wishes:
    """What the options of mtls_crl ask for.

    revoke: {"name" or "serial", "reason"} each. hours: how long a list is good for.
    renew_before: a new list is due with less than this part of its time left.
    """

    revoke: Sequence[Mapping[str, Any]] = ()
    readmit: Sequence[str] = ()
    hours: int = 720
    renew_before: float = 0.5
    force: bool = False

    @classmethod
    def asked(cls, params: Mapping[str, Any]) -> Wishes:
        """From the module's options; ValueError where they do not fit."""
        hours, part = params["next_update_hours"], params["renew_before"]
        if not 1 <= hours <= _MAX_HOURS:
            raise ValueError(f"next_update_hours: {hours}: expected 1 to {_MAX_HOURS}")
        if not 0 < part < 1:
            raise ValueError(f"renew_before: {part}: expected a fraction above 0 and below 1")
        return cls(params["revoke"], params["readmit"], hours, part, params["force"])

    def once_done(self) -> Wishes:
        """What must hold afterwards: force asks for a deed, not for a state."""
        return replace(self, force=False)


class Revocation(NamedTuple):
    """A certificate that this run revokes; without one, a name that is to get none any more."""

    name: str
    issued: Issued | None
    reason: str


class Issue(NamedTuple):
    """A list that is to be made, for which CA, and what it is to hold."""

    authority: Authority
    entries: Sequence[Entry]
    number: int


@dataclass(frozen=True)
class RevokePlan:
    """plan: what changes. restored: what hosts know better. issues: lists that are to be made."""

    plan: Plan
    restored: Restored
    revocations: Sequence[Revocation]
    readmitted: Sequence[str]
    issues: Sequence[Issue]


def living(found: Authorities, moment: datetime.datetime) -> list[Authority]:
    """The CAs that need a list: of one that has ended, no certificate is valid any more."""
    return [one for one in found.all() if moment < not_after(one.intermediate)]


def read_lists(found: Authorities, moment: datetime.datetime) -> dict[Path, Any]:
    """The revocation list of each living CA by its folder; None where there is no sound one."""
    lists: dict[Path, Any] = {}
    for one in living(found, moment):
        path = one.base / CRL
        lists[one.base] = None
        if path.exists():
            try:
                (crl,) = load_crls(path.read_text("ascii", "replace"), str(path))
            except (RefusedError, ValueError):
                continue
            faults = {reason for reason, _text in crl_problems(crl, [one.intermediate], moment)}
            if faults <= {"crl_expired", "crl_not_yet_valid"}:
                lists[one.base] = crl
    return lists


def plan_revoke(
    found: Authorities,
    lists: Mapping[Path, Any],
    wishes: Wishes,
    moment: datetime.datetime,
    published: Sequence[Any] = (),
) -> RevokePlan:
    """What mtls_crl has to do on the CA; pure. published: lists that hosts have."""
    restored = recover(living(found, moment), lists, published, found.log)
    revocations = list(_revocations(found.log, wishes.revoke, moment))
    readmitted = [name for name in dict.fromkeys(wishes.readmit) if name in found.log.barred]
    both = sorted(set(wishes.readmit) & {one.name for one in revocations})
    if both:
        text = f"revoke, readmit: {', '.join(both)}: in both: expected in one of them"
        raise RefusedError([("contradiction", text)])
    changes = [change for one in found.all() for change in removals(one)]
    changes += restored.changes()
    changes += [_told(one) for one in revocations]
    changes += [
        Change(f"name {name}", f"revoked ({found.log.barred[name].reason})", "may be signed",
               "it is let in again")
        for name in readmitted
    ]  # fmt: skip
    issues = []
    for one in living(found, moment):
        present = restored.lists.get(one.base, lists[one.base])
        entries = _entries(one, present, found.log, revocations, moment)
        earliest = max(moment, not_before(one.intermediate))
        reason = _due(present, entries, wishes, moment, earliest)
        if present is not lists[one.base]:
            reason = f"hosts have a newer one, number {number_of(present)}: this CA was restored"
        if reason is None:
            continue
        previous = -1 if present is None else number_of(present)
        number = max(previous + 1, int(moment.timestamp()))
        issues.append(Issue(one, entries, number))
        before = None
        if present is not None:
            before = {"revoked": _serials(entries_of(present)), "number": number_of(present)}
        after = {"revoked": _serials(entries), "valid_hours": wishes.hours}
        changes.append(Change(str(one.base / CRL), before, after, reason))
    return RevokePlan(Plan(changes), restored, revocations, readmitted, issues)


def _told(one: Revocation) -> Change:
    if one.issued is None:
        target, before = f"name {one.name}", "may be signed"
    else:
        target = f"certificate {one.issued.serial:x}"
        before = f"of {one.name}, valid until {timestamp(one.issued.not_after)}"
    return Change(target, before, f"revoked ({one.reason})", "revocation was asked for")


def _serials(entries: Sequence[Entry]) -> list[str]:
    return sorted(f"{entry.serial:x}" for entry in entries)


def _revocations(
    log: Log, wanted: Sequence[Mapping[str, Any]], moment: datetime.datetime
) -> Iterator[Revocation]:
    """Certificates that are still to be revoked; RefusedError for what is not on record."""
    known = {one.name for one in log.issued.values()}
    seen: set[int] = set()
    for wish in wanted:
        name, reason = wish.get("name"), wish["reason"]
        if name:
            if name not in known:
                text = f"revoke: name '{name}': no certificate was ever issued to it"
                raise RefusedError([("unknown_name", text)])
            hits = [one for one in log.valid(moment) if one.name == name]
            if reason not in KEY_REASONS and name not in log.barred:
                yield Revocation(name, None, reason)
        else:
            hits = [_of_serial(log, str(wish["serial"]))]
        for one in hits:
            done = one.serial in log.revoked or one.not_after <= moment or one.serial in seen
            if not done:
                seen.add(one.serial)
                yield Revocation(one.name, one, reason)


def _of_serial(log: Log, text: str) -> Issued:
    try:
        return log.issued[int(text.replace(":", ""), 16)]
    except (ValueError, KeyError):
        raise RefusedError(
            [
                (
                    "unknown_serial",
                    f"revoke: serial '{text}': not in the log of this CA: expected a serial number "
                    "in hex, as modules return it",
                )
            ]
        ) from None


def _entries(
    authority: Authority,
    present: Any,
    log: Log,
    revocations: Sequence[Revocation],
    moment: datetime.datetime,
) -> list[Entry]:
    """What the list of a CA is to hold.

    An entry leaves once a list that was made after the certificate's end has held it (RFC 5280,
    section 3.3). One that the log does not know (it was lost) stays for ever.
    """
    issuer = fingerprint(authority.intermediate)
    entries = {entry.serial: entry for entry in ([] if present is None else entries_of(present))}
    for serial, entry in log.revoked.items():
        if serial in log.issued and log.issued[serial].issuer_sha256 in (None, issuer):
            entries.setdefault(serial, entry)
    made = None if present is None else this_update(present)
    kept = {
        serial: entry
        for serial, entry in entries.items()
        if made is None or serial not in log.issued or log.issued[serial].not_after >= made
    }
    for one in revocations:
        if one.issued is not None and one.issued.issuer_sha256 in (None, issuer):
            kept[one.issued.serial] = Entry(one.issued.serial, moment, one.reason)
    return list(kept.values())


def _due(
    present: Any,
    entries: Sequence[Entry],
    wishes: Wishes,
    moment: datetime.datetime,
    earliest: datetime.datetime,
) -> str | None:
    """Why a new list is to be made; None if the present one will do.

    earliest: from when a list that is made now counts at the latest.
    """
    if present is None:
        return "there is no sound revocation list yet"
    if not {entry.serial for entry in entries} <= {one.serial for one in entries_of(present)}:
        return "certificates were revoked"
    if wishes.force:
        return "a new list was asked for (force)"
    start, end = this_update(present), next_update(present)
    if start > earliest:
        return f"it is from {timestamp(start)}, when the clock here was ahead: hosts refuse it"
    left = 0.0 if end is None else (end - moment) / (end - start)
    if left < wishes.renew_before:
        return f"{max(left, 0):.0%} of its time is left; due below {wishes.renew_before:.0%}"
    return None


def apply_revoke(
    transaction: Transaction,
    planned: RevokePlan,
    found: Authorities,
    wishes: Wishes,
    moment: datetime.datetime,
) -> None:
    """Carry out what plan_revoke planned: the log first."""
    for one in found.all():
        for path in one.debris:
            transaction.remove(path)
    lines = b""
    restored = planned.restored
    for entry in restored.entries:
        name = restored.names.get(entry.serial)
        serial = f"{entry.serial:x}"
        lines += line("revoked", entry.moment, name=name, serial=serial, reason=entry.reason)
    for name, entry in restored.barred.items():
        lines += line("barred", entry.moment, name=name, reason=entry.reason)
    for one in planned.revocations:
        if one.issued is None:
            lines += line("barred", moment, name=one.name, reason=one.reason)
        else:
            serial = f"{one.issued.serial:x}"
            lines += line("revoked", moment, name=one.name, serial=serial, reason=one.reason)
    for name in planned.readmitted:
        lines += line("readmitted", moment, name=name)
    if lines:
        record_lines(transaction, found.directory, lines)
    for issue in planned.issues:
        issuer = issue.authority.intermediate
        start = max(moment - BACKDATE, not_before(issuer))
        end = min(moment + datetime.timedelta(hours=wishes.hours), not_after(issuer))
        key = issue.authority.intermediate_key
        crl = make_crl(issuer, key, issue.entries, issue.number, (start, end))
        path = issue.authority.base / CRL
        transaction.write_file(path, to_pem(crl).encode("ascii"), 0o644)
