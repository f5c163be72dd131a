# Copyright: (c) 2026, Holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Undo of what SELinux keeps on the disk: the policy store, and the labels of files."""

from __future__ import annotations

import json
from typing import Any, Mapping, Sequence

from ansible_collections.holdfast.chain.plugins.module_utils.plan import Change, Plan
from ansible_collections.holdfast.chain.plugins.module_utils.selinux_host import Selinux
from ansible_collections.holdfast.chain.plugins.module_utils.selinux_labels import give
from ansible_collections.holdfast.chain.plugins.module_utils.transaction import (
    Transaction,
    TransactionError,
)
from ansible_collections.holdfast.chain.plugins.module_utils.undo_journal import (
    AS_BEFORE,
    HALF,
    OURS,
    Entry,
    Journal,
    Kind,
)


class NotProvedError(Exception):
    """Something reads back as another value than was given."""


class StoreJournal(Journal):
    """A journal whose entries all outlive a boot, as what they are about does."""

    def pending(self) -> list[Entry]:
        """Entries of a run that was cut short; none if there was none."""
        try:
            return list(json.loads(self._path.read_text(encoding="utf-8"))["entries"])
        except FileNotFoundError:
            return []
        except ValueError as error:
            raise TransactionError(
                f"read {self._path}", ValueError(f"{error}; look at it and remove it"), [], []
            ) from None

    def moment(self, selinux: Selinux) -> dict[str, Any]:
        """What tells later whether the kernel was given another policy since now."""
        return {"boot_id": self._host.boot_id(), "policy_loads": selinux.policy_loads()}

    def installed(self, selinux: Selinux, policy: str, entry: Entry) -> bool:
        """Whether what is in the store is also in place, and in the kernel.

        libsemanage commits to its store first, then installs, then has the kernel load: a kill in
        between leaves them different.
        """
        if not store_is_installed(selinux, policy):
            return False
        now = self.moment(selinux)
        other_boot = now["boot_id"] != entry["boot_id"]
        return other_boot or now["policy_loads"] > entry["policy_loads"]


def store_is_installed(selinux: Selinux, policy: str) -> bool:
    """Whether the files that the system uses are those of the store."""
    host, store = selinux.host, selinux.store(policy)
    top = f"/etc/selinux/{policy}"
    pairs = [
        (f"{store}/{name}", f"{top}/contexts/files/{name}")
        for name in ("file_contexts", "file_contexts.local")
    ]
    versions = [name for name in host.names(f"{top}/policy") if name.startswith("policy.")]
    if versions:
        newest = max(versions, key=lambda name: int(name.rpartition(".")[2] or 0))
        pairs.append((f"{store}/policy.kern", f"{top}/policy/{newest}"))
    for one, other in pairs:
        if host.exists(one):
            if not host.exists(other):
                return False
            if host.path(one).read_bytes() != host.path(other).read_bytes():
                return False
    return True


def labels_entry(found: Mapping[str, tuple[str, str]]) -> Entry:
    """The undo of giving files their labels."""
    return {
        "kind": "labels",
        "target": "labels",
        "before": {path: sides[0] for path, sides in found.items()},
        "after": {path: sides[1] for path, sides in found.items()},
    }


def relabel_steps(
    transaction: Transaction, selinux: Selinux, found: Mapping[str, tuple[str, str]]
) -> None:
    """Give files their labels, as one step."""
    if not found:
        return
    entry = labels_entry(found)
    transaction.run(
        lambda: give(selinux, entry["after"], entry["before"]),
        lambda: give(selinux, entry["before"], entry["after"]),
        f"give {len(found)} files their labels",
    )


def of_kind(entries: Sequence[Entry], kind: str) -> list[Entry]:
    """The entries of one kind."""
    return [entry for entry in entries if entry["kind"] == kind]


class Repairs:
    """What an earlier run of the same kind of task left."""

    def __init__(self, selinux: Selinux, journal: Journal, kinds: Mapping[str, Kind]) -> None:
        self._selinux = selinux
        self._journal = journal
        self._all = {"labels": Kind(self._assess_labels, self._fix_labels), **kinds}

    def assess(self) -> list[Entry]:
        """What a repair would put back, latest first."""
        return self._journal.assess(self._journal.pending(), self._all)

    def labels(self, entries: Sequence[Entry]) -> dict[str, str]:
        """The labels that files have once the entries are put back; of those that have others."""
        return {
            path: entry["before"][path]
            for entry in of_kind(entries, "labels")
            for path, after in entry["after"].items()
            if self._selinux.label(path) == after
        }

    def repair(self) -> tuple[list[Entry], list[str]]:
        """What was put back, and what could not be."""
        if not self._journal.cut_short():
            return [], []
        outcome = self._journal.repair(self._journal.pending(), self._all)
        left = [f"after a run that was cut short: {what}" for what in outcome.left]
        return outcome.repaired, left

    def _assess_labels(self, entry: Entry) -> str:
        """A file that is gone, or was labelled by somebody else since, is not ours to judge."""
        sides = set()
        for path, after in entry["after"].items():
            now = self._selinux.label(path)
            if now == after:
                sides.add(OURS)
            elif now == entry["before"][path]:
                sides.add(AS_BEFORE)
        if len(sides) > 1:
            return HALF
        return sides.pop() if sides else AS_BEFORE

    def _fix_labels(self, entry: Entry) -> None:
        give(self._selinux, self.labels([entry]), entry["after"])


def repair_plan(repaired: Sequence[Entry]) -> Plan:
    """Repairs as changes."""
    return Plan(
        Change(
            entry["target"],
            "as left by a run that was cut short",
            "as it was before that run",
            "an earlier run was cut short: its work is taken back",
        )
        for entry in repaired
    )
