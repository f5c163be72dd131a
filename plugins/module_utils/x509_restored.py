# Copyright: (c) 2026, Holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A CA that was restored from its backup learns from its hosts what it revoked since.

What hosts have counts only as far as this CA signed it: nobody else can put words into its log.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Mapping, Sequence

from ansible_collections.holdfast.chain.plugins.module_utils.plan import Change
from ansible_collections.holdfast.chain.plugins.module_utils.x509 import is_list_signed_by
from ansible_collections.holdfast.chain.plugins.module_utils.x509_ca import Authority
from ansible_collections.holdfast.chain.plugins.module_utils.x509_crl import (
    KEY_REASONS,
    Entry,
    entries_of,
    is_from,
    number_of,
)
from ansible_collections.holdfast.chain.plugins.module_utils.x509_log import Log

_WHY = "hosts have a list with it that is newer than that of this CA, which was restored"


@dataclass(frozen=True)
class Restored:
    """lists: of hosts, newer than those of the CA itself, by its folder.

    entries: what they revoke and the log does not. names: of these certificates, by serial, where
    the log knows them. barred: which of these names get no certificate any more, and why.
    """

    lists: Mapping[Path, Any]
    entries: Sequence[Entry]
    names: Mapping[int, str]
    barred: Mapping[str, Entry]

    def changes(self) -> list[Change]:
        """What is learnt, as changes of the log."""
        found = []
        for entry in self.entries:
            name = self.names.get(entry.serial, "a name that is not on record")
            target = f"certificate {entry.serial:x}"
            found.append(Change(target, f"of {name}", f"revoked ({entry.reason})", _WHY))
        for name, entry in self.barred.items():
            after = f"revoked ({entry.reason})"
            found.append(Change(f"name {name}", "may be signed", after, _WHY))
        return found

    @property
    def warning(self) -> str | None:
        """What cannot be learnt, and what to do about it."""
        if not self.lists:
            return None
        unknown = [
            f"{entry.serial:x}" for entry in self.entries if entry.serial not in self.names
        ]
        return (
            "this CA was restored from a backup that is older than the lists of its hosts. What "
            "these revoke is on record again"
            + (f", but not whose certificate {', '.join(unknown)} was" if unknown else "")
            + ". Names that were revoked since and had no valid certificate are forgotten: revoke "
            "them again"
        )


def recover(
    authorities: Sequence[Authority],
    own: Mapping[Path, Any],
    published: Sequence[Any],
    log: Log,
) -> Restored:
    """What lists of hosts say that the CA does not know; pure.

    own: the list of each authority by its folder, None where there is none. A name is barred for
    the reasons that bar it when it is revoked. One that was let in again later is barred, too:
    that it was is not in any list.
    """
    lists: dict[Path, Any] = {}
    entries: dict[int, Entry] = {}
    for one in authorities:
        issuer, present = one.intermediate, own[one.base]
        known = -1 if present is None else number_of(present)
        newer = [
            crl
            for crl in published
            if number_of(crl) > known
            and is_from(crl, issuer)
            and is_list_signed_by(crl, issuer.public_key())
        ]
        if newer:
            lists[one.base] = newest = max(newer, key=number_of)
            entries.update({entry.serial: entry for entry in entries_of(newest)})
    missing = [entry for serial, entry in entries.items() if serial not in log.revoked]
    names = {
        entry.serial: log.issued[entry.serial].name
        for entry in missing
        if entry.serial in log.issued
    }
    barred = {
        names[entry.serial]: entry
        for entry in missing
        if entry.serial in names
        and entry.reason not in KEY_REASONS
        and names[entry.serial] not in log.barred
    }
    return Restored(lists, missing, names, barred)
