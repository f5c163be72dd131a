# Copyright: (c) 2026, Holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""selinux_policy on a host: plan, install or remove a module, prove it, repair after a kill."""

from __future__ import annotations

import contextlib
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Iterator, Mapping, Sequence

from ansible_collections.holdfast.chain.plugins.module_utils import selinux_denials
from ansible_collections.holdfast.chain.plugins.module_utils.files import discard, write_new
from ansible_collections.holdfast.chain.plugins.module_utils.plan import Change, Plan
from ansible_collections.holdfast.chain.plugins.module_utils.selinux import (
    SelinuxError,
    parse_files,
    stem,
)
from ansible_collections.holdfast.chain.plugins.module_utils.selinux_apply import nothing, told
from ansible_collections.holdfast.chain.plugins.module_utils.selinux_checks import (
    check_names,
    check_store,
)
from ansible_collections.holdfast.chain.plugins.module_utils.selinux_cil import (
    declared,
    file_rules,
    own_ports,
    render,
)
from ansible_collections.holdfast.chain.plugins.module_utils.selinux_host import Selinux, Status
from ansible_collections.holdfast.chain.plugins.module_utils.selinux_journal import (
    NotProvedError,
    Repairs,
    StoreJournal,
    labels_entry,
    of_kind,
    relabel_steps,
    repair_plan,
)
from ansible_collections.holdfast.chain.plugins.module_utils.selinux_labels import (
    below,
    differences,
    installed_lookup,
    label_changes,
    policy_order,
    rehearsed_lookup,
    rules_text,
)
from ansible_collections.holdfast.chain.plugins.module_utils.selinux_needs import (
    Needs,
    Refusal,
    refusals,
)
from ansible_collections.holdfast.chain.plugins.module_utils.selinux_read import PORTS_UNKNOWN
from ansible_collections.holdfast.chain.plugins.module_utils.selinux_running import (
    check_unused,
    outside,
    shown,
)
from ansible_collections.holdfast.chain.plugins.module_utils.transaction import Transaction
from ansible_collections.holdfast.chain.plugins.module_utils.undo_journal import (
    AS_BEFORE,
    DIRECTORY,
    FOREIGN,
    HALF,
    OURS,
    Entry,
    Kind,
)

_WHY = "the policy gives it that label"


@dataclass(frozen=True)
class Request:
    """The options of a task. needs has only its name where the module is to be absent."""

    needs: Needs
    present: bool = True
    priority: int = 400
    force: bool = False
    relabel: bool = True
    denials_since: str | None = None
    skip_not_applicable: bool = True


@dataclass(frozen=True)
class Planned:
    """former, text: the module before and after; None for none. roots: where labels are seen to."""

    plan: Plan
    former: str | None
    text: str | None
    roots: tuple[str, ...]
    accepted: tuple[Refusal, ...]


def version_of(text: str | None) -> str | None:
    """A name for the contents of a module."""
    return hashlib.sha256(text.encode()).hexdigest()[:12] if text is not None else None


def plan(request: Request, now: str | None, accepted: Sequence[Refusal] = ()) -> Planned:
    """What has to change; pure."""
    text = render(request.needs) if request.present else None
    changes = []
    if text != now:
        reason = "it is to be absent"
        if text is not None:
            reason = "it is not installed" if now is None else "the needs have changed"
        changes.append(Change(f"module {request.needs.name}", now, text, reason))
    rules = file_rules(text or "") + file_rules(now or "")
    roots = below(stem(rule.target) for rule in rules) if request.relabel else []
    return Planned(Plan(changes), now, text, tuple(roots), tuple(accepted))


class Run:
    """One run of the module on a host."""

    def __init__(self, selinux: Selinux, status: Status, request: Request, rehearsal: bool) -> None:
        self._rehearsal = rehearsal
        self.selinux = selinux
        self.status = status
        self.policy = status.policy
        self.request = request
        name = f"selinux_policy-{request.needs.name}-{request.priority}"
        self.journal = StoreJournal(selinux.host, name)
        self.repairs = Repairs(selinux, self.journal, {"module": Kind(self._assess, self._fix)})
        self.warnings: list[str] = []

    def check(self) -> dict[str, Any]:
        """What a run would do. Nothing is touched."""
        entries = self.repairs.assess()
        now = self._module()
        for entry in of_kind(entries, "module"):
            now = entry["before"]
        planned = self._plan(now)
        found = self._differing(planned, rehearsed=True, repaired=self.repairs.labels(entries))
        return self._result(entries, planned, found)

    def execute(self) -> dict[str, Any]:
        """Repair, read, plan, apply, prove."""
        with self.journal.alone():
            if self.journal.cut_short():
                discard(self._source())
            repaired, left = self.repairs.repair()
            self.warnings += left
            now = self._module()
            planned = self._plan(now)
            found = self._differing(planned, rehearsed=bool(planned.plan))
            result = self._result(repaired, planned, found)
            if planned.plan or found:
                self._apply(planned, found)
            if self.journal.fault:
                self.warnings.append(self.journal.fault)
            return result

    def _module(self) -> str | None:
        return self.selinux.module(self.policy, self.request.priority, self.request.needs.name)

    def _plan(self, now: str | None) -> Planned:
        accepted: list[Refusal] = []
        if self.request.present:
            accepted = self._check(now)
        elif now is not None:
            accepted = check_unused(self.selinux, self.request.needs, self.request.force)
        return plan(self.request, now, accepted)

    def _check(self, now: str | None) -> list[Refusal]:
        """SelinuxError for needs that cannot or must not be met; returns those that are forced."""
        needs, selinux = self.request.needs, self.selinux
        substitutions = [pair for each in selinux.substitutions(self.policy) for pair in each]
        needs.check(substitutions)
        self._refuse(refusals(needs))
        check_names(selinux, needs)
        check_store(selinux, self.policy, needs.name, self.request.priority)
        ports: Mapping[tuple[str, int, int], str] = {}
        if render(needs) != now and (needs.bind or needs.connect):
            if self._rehearsal and "semanage" in selinux.missing_tools():
                self.warnings.append(f"bind, connect: {PORTS_UNKNOWN}")
            else:
                ports = selinux.policy_ports()
        for port in own_ports(needs):
            given = ports.get(port[:3])
            if given not in (None, needs.type("port")):
                raise SelinuxError(
                    f"bind, connect: {port.name} is {given} already: give that as its 'type', or "
                    "take the port from it first with holdfast.chain.selinux_context"
                )
        accepted = refusals(needs, ports)
        self._refuse(accepted)
        return accepted

    def _refuse(self, found: Sequence[Refusal]) -> None:
        if found and not self.request.force:
            lines = "; ".join(str(refusal) for refusal in found)
            raise SelinuxError(
                f"these needs give more than they ask for: {lines}. Ask for less, or give "
                "force=true to accept all of it"
            )

    def _differing(
        self, planned: Planned, rehearsed: bool, repaired: Mapping[str, str] | None = None
    ) -> dict[str, tuple[str, str]]:
        if not planned.roots:
            return {}
        if rehearsed:
            installed = parse_files(self.selinux.policy_file_contexts(self.policy))
            gone = declared(planned.former or "")
            kept = [r for r in installed if r.context is None or r.context.type not in gone]
            base = policy_order([*kept, *file_rules(planned.text or "")])
            text = rules_text([base, self.selinux.customisations(self.policy).files])
            substitutions = self.selinux.substitutions(self.policy)
            lookup, close = rehearsed_lookup(self.selinux, text, substitutions)
        else:
            lookup, close = installed_lookup(self.selinux)
        try:
            customizable = self.selinux.customizable_types(self.policy)
            return differences(
                self.selinux,
                planned.roots,
                lookup,
                customizable=customizable,
                repaired=repaired or {},
            )
        finally:
            close()

    def _apply(self, planned: Planned, found: Mapping[str, tuple[str, str]]) -> None:
        entries: list[Entry] = []
        if planned.plan:
            entries.append(
                {
                    "kind": "module",
                    "target": f"module {self.request.needs.name}",
                    "before": planned.former,
                    "after": planned.text,
                    **self.journal.moment(self.selinux),
                }
            )
        if found:
            # Files of a module that goes are labelled first: its types must not outlive it on disk.
            place = len(entries) if planned.text is not None else 0
            entries.insert(place, labels_entry(found))
        with self.journal.guarding(entries):
            transaction = Transaction()
            with transaction:
                if planned.text is None:
                    relabel_steps(transaction, self.selinux, found)
                if planned.plan:
                    verb = "remove" if planned.text is None else "install"
                    transaction.run(
                        lambda: self._put(planned.text),
                        lambda: self._put(planned.former),
                        f"{verb} module {self.request.needs.name}",
                    )
                if planned.text is not None:
                    relabel_steps(transaction, self.selinux, found)
                self._prove(transaction, planned)

    def _source(self) -> Path:
        """semodule wants a file that bears the module's name."""
        return self.selinux.host.path(f"{DIRECTORY}/{self.request.needs.name}.cil")

    @contextlib.contextmanager
    def _as_file(self, text: str) -> Iterator[None]:
        try:
            write_new(self._source(), text.encode(), 0o600, (-1, -1), None)
            # semodule is confined too: of what is not its own it reads next to nothing
            store = self.selinux.label(self.selinux.store(self.policy))
            if store is not None:
                self.selinux.set_label(f"{DIRECTORY}/{self.request.needs.name}.cil", store)
            yield
        finally:
            try:
                discard(self._source())
            except OSError as error:  # harmless: the next run removes it
                self.journal.fault = f"could not remove {self._source()}: {error}"

    def _put(self, text: str | None) -> None:
        """Install a text as the module, or remove it; if that fails, it is as it was."""
        before = self._module()
        if text == before:
            return
        try:
            self._change(text)
        except OSError:
            # semodule may fail after its commit: when the kernel refuses the policy, for example
            if self._module() != before:
                self._change(before)
            raise

    def _change(self, text: str | None) -> None:
        if text is None:
            self.selinux.remove_module(self.request.priority, self.request.needs.name)
            return
        with self._as_file(text):
            self.selinux.install_module(
                self.request.priority, f"{DIRECTORY}/{self.request.needs.name}.cil"
            )

    def _prove(self, transaction: Transaction, planned: Planned) -> None:
        """The module reads back as it was given, its domain is in the kernel, labels are right."""
        name = self.request.needs.name
        if self._module() != planned.text:
            raise NotProvedError(f"module {name} reads back as another one than was installed")
        ending = ":s0" if self.selinux.levels() else ""
        known = self.selinux.valid(f"system_u:object_r:{self.request.needs.domain}{ending}")
        wanted = bool(self.selinux.module_priorities(self.policy, name))
        if planned.plan and known is not wanted:
            state = "does not know" if wanted else "still knows"
            raise NotProvedError(f"the kernel {state} {self.request.needs.domain}")
        relabel_steps(transaction, self.selinux, self._differing(planned, rehearsed=False))
        still = self._differing(planned, rehearsed=False)
        if still:
            path, (now, wanted) = next(iter(still.items()))
            raise NotProvedError(f"{path} keeps the label {now} after {wanted} was given to it")

    def _assess(self, entry: Entry) -> str:
        now = self._module()
        if now == entry["before"]:
            return AS_BEFORE
        if now == entry["after"]:
            whole = self.journal.installed(self.selinux, self.policy, entry)
            return OURS if whole else HALF
        return FOREIGN

    def _fix(self, entry: Entry) -> None:
        self._put(entry["before"])

    def _result(
        self,
        repaired: Sequence[Entry],
        planned: Planned,
        found: Mapping[str, tuple[str, str]],
    ) -> dict[str, Any]:
        labels = Plan(label_changes(found, planned.roots, _WHY))
        self.warnings += [f"forced: {refusal}" for refusal in planned.accepted]
        return {
            **(repair_plan(repaired) + planned.plan + labels).result(),
            **told(self.status),
            "repaired": [entry["target"] for entry in repaired],
            "domain": self.request.needs.domain if planned.text is not None else None,
            "version": version_of(planned.text),
            "forced": [str(refusal) for refusal in planned.accepted],
        }


def run_on(selinux: Selinux, request: Request, check: bool) -> tuple[dict[str, Any], list[str]]:
    """The module's result and warnings.

    Raises SelinuxError, HostError or TransactionError; the host is then as it was.
    """
    status = selinux.status()
    needs = request.needs
    others: dict[str, Any] = {"denials": None, "restart_needed": False, "processes": []}
    if request.denials_since is not None:
        selinux_denials.start_of(request.denials_since)
    if status.cause:
        result = nothing(status, request.skip_not_applicable)
        return {**result, "domain": None, "version": None, "forced": [], **others}, []
    task = Run(selinux, status, request, rehearsal=check)
    result = task.check() if check else task.execute()
    if request.denials_since is not None:
        denials = selinux_denials.read(selinux.host, needs.domain, request.denials_since)
        others["denials"] = denials
        if denials is None:
            task.warnings.append("denials_since: the audit log cannot be read; install auditd")
    if request.present:
        processes = outside(selinux, needs)
        others["restart_needed"] = bool(processes)
        others["processes"] = [process._asdict() for process in processes]
        if processes:
            task.warnings.append(
                f"not confined: {shown(processes)} started outside of {needs.domain} and stay "
                "there until they are started again"
            )
    return {**result, **others}, task.warnings
