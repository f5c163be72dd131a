# Copyright: (c) 2026, Holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""selinux_context on a host: apply what was planned, prove it, repair what was cut short."""

from __future__ import annotations

from typing import Any, Iterable, Mapping, Sequence

from ansible_collections.holdfast.chain.plugins.module_utils.hostfs import Host, HostError
from ansible_collections.holdfast.chain.plugins.module_utils.plan import Plan
from ansible_collections.holdfast.chain.plugins.module_utils.selinux import (
    Customisations,
    customisations_of,
    parse_files,
    script,
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
    differences,
    installed_lookup,
    label_changes,
    rehearsed_lookup,
    rules_text,
)
from ansible_collections.holdfast.chain.plugins.module_utils.selinux_plan import (
    Observed,
    Planned,
    Request,
    plan,
)
from ansible_collections.holdfast.chain.plugins.module_utils.selinux_read import PORTS_UNKNOWN, read
from ansible_collections.holdfast.chain.plugins.module_utils.transaction import Transaction
from ansible_collections.holdfast.chain.plugins.module_utils.undo_journal import (
    AS_BEFORE,
    FOREIGN,
    HALF,
    OURS,
    Entry,
    Kind,
)

_WHY = "the policy gives it that label"


class Run:
    """One run of the module on a host."""

    def __init__(self, selinux: Selinux, status: Status, request: Request) -> None:
        self.selinux = selinux
        self.status = status
        self.policy = status.policy
        self.request = request
        self.journal = StoreJournal(selinux.host, "selinux_context")
        self.repairs = Repairs(selinux, self.journal, self._kinds())
        self.warnings: list[str] = []

    def check(self) -> dict[str, Any]:
        """What a run would do. Nothing is touched."""
        entries = self.repairs.assess()
        observed = read(self.selinux, self.policy, self.request, rehearsal=True)
        if not observed.ports_known:
            self.warnings.append(f"ports: {PORTS_UNKNOWN}")
        for entry in of_kind(entries, "customisations"):
            observed = Observed(**{**vars(observed), "local": customisations_of(entry["before"])})
        planned = plan(self.request, observed)
        rehearsed = bool(planned.plan) or bool(entries)
        found = self._differing(planned, rehearsed, self.repairs.labels(entries))
        return self._result(entries, planned, found)

    def execute(self) -> dict[str, Any]:
        """Repair, read, plan, apply, prove."""
        with self.journal.alone():
            repaired, left = self.repairs.repair()
            self.warnings += left
            observed = read(self.selinux, self.policy, self.request)
            planned = plan(self.request, observed)
            found = self._differing(planned, rehearsed=bool(planned.plan))
            result = self._result(repaired, planned, found)
            if planned.plan or found:
                self._apply(observed, planned, found)
            if self.journal.fault:
                self.warnings.append(self.journal.fault)
            return result

    def _differing(
        self, planned: Planned, rehearsed: bool, repaired: Mapping[str, str] | None = None
    ) -> dict[str, tuple[str, str]]:
        """Files whose label differs from what the policy gives them once the plan is done."""
        if not planned.roots:
            return {}
        if rehearsed:
            rules = parse_files(self.selinux.policy_file_contexts(self.policy))
            text = rules_text([rules, planned.wanted.files])
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
                exact=planned.exact,
                repaired=repaired or {},
            )
        finally:
            close()

    def _apply(
        self, observed: Observed, planned: Planned, found: Mapping[str, tuple[str, str]]
    ) -> None:
        changed = not planned.wanted.same(observed.local)
        names = {*planned.live, *observed.local.booleans, *planned.wanted.booleans}
        # semanage sets what it keeps in the kernel too, also what the task does not name
        live = self._live(names if changed else planned.live)
        entries: list[Entry] = []
        if changed or live:
            entries.append(
                {
                    "kind": "customisations",
                    "target": "local customisations",
                    "before": observed.local.plain(),
                    "after": planned.wanted.plain(),
                    "live_before": live,
                    "live_after": {**live, **planned.live},
                    **self.journal.moment(self.selinux),
                }
            )
        if found:
            entries.append(labels_entry(found))
        with self.journal.guarding(entries):
            transaction = Transaction()
            with transaction:
                if changed or live:
                    after = {**live, **planned.live}
                    transaction.run(
                        lambda: self._put(planned.wanted, after, observed.policy_ports),
                        lambda: self._put(observed.local, live),
                        "import the local customisations",
                    )
                relabel_steps(transaction, self.selinux, found)
                self._prove(transaction)

    def _live(self, names: Iterable[str]) -> dict[str, bool]:
        """Booleans in the kernel; a name that the policy has no more is left out."""
        values = {name: self.selinux.boolean(name) for name in names}
        return {name: value for name, value in sorted(values.items()) if value is not None}

    def _put(
        self,
        wanted: Customisations,
        live: Mapping[str, bool],
        policy_ports: Mapping[tuple[str, int, int], str] | None = None,
    ) -> None:
        """Customisations in one transaction, and booleans in the kernel; all of it or nothing."""
        before, was = self.selinux.customisations(self.policy), self._live(live)
        try:
            self._import(before, wanted, policy_ports)
            self._set(live)
        except OSError:
            # semanage may fail after its commit: when the kernel refuses the policy, for example
            self._import(self.selinux.customisations(self.policy), before)
            self._set(was)
            raise

    def _import(
        self,
        now: Customisations,
        wanted: Customisations,
        policy_ports: Mapping[tuple[str, int, int], str] | None = None,
    ) -> None:
        if not now.same(wanted):
            self.selinux.import_script(self._script(now, wanted, policy_ports))

    def _set(self, live: Mapping[str, bool]) -> None:
        for name, value in live.items():
            if self.selinux.boolean(name) is not value:
                self.selinux.set_boolean(name, value)

    def _script(
        self,
        now: Customisations,
        wanted: Customisations,
        policy_ports: Mapping[tuple[str, int, int], str] | None = None,
    ) -> list[str]:
        rules = parse_files(self.selinux.policy_file_contexts(self.policy))
        if policy_ports is None:
            known = {rule.key for rule in now.ports}
            new = any(rule.key not in known for rule in wanted.ports)
            policy_ports = self.selinux.policy_ports() if new else {}
        return script(now, wanted, {rule.key for rule in rules}, policy_ports)

    def _prove(self, transaction: Transaction) -> None:
        """Nothing is left to do; labels are looked up as the policy is now installed."""
        left = plan(self.request, read(self.selinux, self.policy, self.request))
        if left.plan:
            shown = "; ".join(f"{change.target} is {change.before}" for change in left.plan)
            raise NotProvedError(f"after the import: {shown}")
        relabel_steps(transaction, self.selinux, self._differing(left, rehearsed=False))
        still = self._differing(left, rehearsed=False)
        if still:
            path, (now, wanted) = next(iter(still.items()))
            raise NotProvedError(f"{path} keeps the label {now} after {wanted} was given to it")

    def _kinds(self) -> Mapping[str, Kind]:
        return {"customisations": Kind(self._assess, self._fix)}

    def _assess(self, entry: Entry) -> str:
        now = self.selinux.customisations(self.policy)
        before, after = (customisations_of(entry[side]) for side in ("before", "after"))
        live = {name: self.selinux.boolean(name) for name in entry["live_before"]}
        if now.same(before) and not before.same(after):
            return AS_BEFORE if live == entry["live_before"] else HALF
        if now.same(after):
            whole = live == entry["live_after"] and self.journal.installed(
                self.selinux, self.policy, entry
            )
            if before.same(after) and live == entry["live_before"]:
                return AS_BEFORE
            return OURS if whole else HALF
        return FOREIGN

    def _fix(self, entry: Entry) -> None:
        self._put(customisations_of(entry["before"]), entry["live_before"])

    def _result(
        self,
        repaired: Sequence[Entry],
        planned: Planned,
        found: Mapping[str, tuple[str, str]],
    ) -> dict[str, Any]:
        repairs = repair_plan(repaired)
        labels = Plan(label_changes(found, planned.roots, _WHY))
        self.warnings += [
            f"contexts: '{target}' may match anywhere: the whole system was not looked through for "
            "wrong labels; run restorecon where it matters"
            for target in planned.too_wide
        ]
        return {
            **(repairs + planned.plan + labels).result(),
            **told(self.status),
            "repaired": [change.target for change in repairs],
        }


def told(status: Status) -> dict[str, Any]:
    """The part of a result that says what SELinux there is."""
    return {
        "status": status.mode,
        "policy": status.policy,
        "not_applicable": status.cause or None,
    }


def nothing(status: Status, skip: bool) -> dict[str, Any]:
    """The result on a host without SELinux; HostError where that is not to be passed over."""
    if not skip:
        raise HostError(
            f"SELinux is {status.mode}: {status.cause}; install and enable it, or give "
            "not_applicable=skip"
        )
    return {**Plan().result(), **told(status), "repaired": []}


def run(host: Host, request: Request, check: bool) -> tuple[dict[str, Any], list[str]]:
    """The module's result and warnings.

    Raises SelinuxError, HostError or TransactionError; the host is then as it was.
    """
    return run_on(Selinux(host), request, check)


def run_on(selinux: Selinux, request: Request, check: bool) -> tuple[dict[str, Any], list[str]]:
    """As `run`, for an SELinux of the caller's."""
    status = selinux.status()
    if status.cause:
        return {**nothing(status, request.skip_not_applicable), "missing_tools": []}, []
    task = Run(selinux, status, request)
    result = task.check() if check else task.execute()
    return {**result, "missing_tools": selinux.missing_tools()}, task.warnings
