# Copyright: (c) 2026, Holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""ulimits on a host: apply what was planned, prove it, repair what was cut short."""

from __future__ import annotations

import errno
from typing import Any, Mapping, Sequence

from ansible_collections.holdfast.chain.plugins.module_utils import services
from ansible_collections.holdfast.chain.plugins.module_utils.hostfs import Host, View
from ansible_collections.holdfast.chain.plugins.module_utils.limits import (
    ITEMS,
    Limit,
    LimitError,
    parse_proc,
)
from ansible_collections.holdfast.chain.plugins.module_utils.limits_files import unit_value
from ansible_collections.holdfast.chain.plugins.module_utils.limits_plan import (
    Observed,
    Planned,
    Process,
    Request,
    plan,
)
from ansible_collections.holdfast.chain.plugins.module_utils.limits_read import read
from ansible_collections.holdfast.chain.plugins.module_utils.plan import Change, Plan
from ansible_collections.holdfast.chain.plugins.module_utils.transaction import Transaction
from ansible_collections.holdfast.chain.plugins.module_utils.undo_journal import (
    AS_BEFORE,
    FOREIGN,
    OURS,
    Entry,
    Journal,
    Kind,
    describe,
    described,
    text_before,
)

_MOST_ROUNDS = 5  # a service that keeps forking faster than this ends up in the report


class NotProvedError(Exception):
    """A limit reads back as another one than was given."""


class Run:
    """One run of the module on a host."""

    def __init__(self, host: Host, request: Request) -> None:
        self.host = host
        self.request = request
        self.journal = Journal(host, f"ulimits-{request.file}-{request.user}-{request.service}")
        self.warnings: list[str] = []
        self._refused: dict[int, str] = {}

    def check(self) -> dict[str, Any]:
        """What a run would do. Nothing is touched."""
        entries = self.journal.assess(self.journal.pending(), self._kinds())
        texts = {entry["target"]: text_before(entry) for entry in _of(entries, "file")}
        observed = read(View(self.host, texts) if texts else self.host, self.request)
        return self._result(entries, observed, plan(self.request, observed))

    def execute(self) -> dict[str, Any]:
        """Repair, read, plan, apply, prove."""
        with self.journal.alone():
            repaired: Sequence[Entry] = []
            if self.journal.cut_short():
                outcome = self.journal.repair(self.journal.pending(), self._kinds())
                repaired = outcome.repaired
                self.warnings += [
                    f"after a run that was cut short: {left}" for left in outcome.left
                ]
                if any("/systemd/" in entry["target"] for entry in _of(repaired, "file")):
                    self._reload()
            observed = read(self.host, self.request)
            planned = plan(self.request, observed)
            result = self._result(repaired, observed, planned)
            if planned.plan:
                left = self._apply(planned)
                if self.request.present:
                    result["service"] = left.service
            if self.journal.fault:
                self.warnings.append(self.journal.fault)
            return result

    def _apply(self, planned: Planned) -> Planned:
        entries = self._entries(planned)
        reload_needed = any("/systemd/" in name for name in planned.files)
        with self.journal.guarding(entries):
            transaction = Transaction()
            with transaction:
                if reload_needed:  # its undo comes last, when the files are back
                    transaction.run(_nothing, self._reload, "make systemd read its files again")
                for name, text in planned.files.items():
                    self._change_file(transaction, entries, name, text)
                if reload_needed:
                    transaction.run(self._reload, _nothing, "systemctl daemon-reload")
                self._adjust(transaction, planned.adjust)
                after = self._prove(transaction, planned)
        self.warnings += [f"could not remove {name}" for name in transaction.left_behind]
        return after

    def _change_file(
        self, transaction: Transaction, entries: Sequence[Entry], name: str, text: str | None
    ) -> None:
        path = self.host.path(name)
        parent = name.rpartition("/")[0]
        if text is not None:
            if not path.parent.is_dir():
                transaction.make_directory(path.parent)
            attributes = self.host.attributes(name) or {}
            content = text.encode("utf-8", "surrogateescape")
            transaction.write_file(path, content, attributes.get("mode", 0o644))
        elif any(entry["target"] == parent for entry in _of(entries, "directory")):
            transaction.remove(path.parent)
        else:
            transaction.remove(path)

    def _entries(self, planned: Planned) -> list[Entry]:
        """The intended undo of a plan."""
        entries: list[Entry] = []
        for name, text in planned.files.items():
            parent = name.rpartition("/")[0]
            if text is not None and not self.host.exists(parent):
                entries.append({"kind": "directory", "target": parent, "before": None, "after": ""})
            mode = (self.host.attributes(name) or {}).get("mode", 0o644)
            after = None
            if text is not None:
                after = described(text.encode("utf-8", "surrogateescape"), mode)
            before = describe(self.host, name)
            entries.append({"kind": "file", "target": name, "before": before, "after": after})
            only = self.host.names(parent) == [name.rpartition("/")[2]]
            if text is None and parent.endswith(".service.d") and only:
                entries.append({"kind": "directory", "target": parent, "before": "", "after": None})
        entries += [
            {
                "kind": "limit",
                "target": f"{item} of process {process.pid}",
                "pid": process.pid,
                "start": process.start,
                "item": item,
                "before": list(process.limits[item]),
                "after": list(limit),
            }
            for process, item, limit in planned.adjust
        ]
        return entries

    def _adjust(
        self, transaction: Transaction, wanted: Sequence[tuple[Process, str, Limit]]
    ) -> None:
        for process, item, limit in wanted:
            before = process.limits[item]
            transaction.run(
                lambda process=process, item=item, limit=limit: self._give(process, item, limit),
                lambda process=process, item=item, limit=before: self._give(process, item, limit),
                f"give process {process.pid} {item} = {limit}",
            )

    def _give(self, process: Process, item: str, limit: Limit) -> None:
        """prlimit; a process that has ended needs none, one that may not be changed is noted."""
        try:
            self.host.set_limit(process.pid, ITEMS[item].constant, limit.soft, limit.hard)
        except ProcessLookupError:
            return
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.ENOSYS):
                raise
            self._refused[process.pid] = str(error)

    def _prove(self, transaction: Transaction, planned: Planned) -> Planned:
        """Nothing is left to do; children that were born meanwhile are given their limits too."""
        for _round in range(_MOST_ROUNDS):
            left = plan(self.request, read(self.host, self.request))
            if left.files:
                raise NotProvedError(f"{', '.join(left.files)}: differs from what was written")
            late = [item for item in left.adjust if item[0].pid not in self._refused]
            if not late:
                break
            self._adjust(transaction, late)
        self._prove_systemd(planned)
        if left.service is not None and left.adjust:
            service = dict(left.service)
            pids = sorted({process.pid for process, _item, _limit in left.adjust})
            reasons = [f"{pid}: {self._refused.get(pid, 'keeps changing')}" for pid in pids]
            service["restart_needed"] = True
            service["restart_reasons"] = [*service["restart_reasons"], *reasons]
            return Planned(left.plan, {}, (), left.limits, left.user, service)
        return left

    def _prove_systemd(self, planned: Planned) -> None:
        """What systemd itself says it will give the service."""
        service = self.request.service
        skip = not self.request.present or self.request.allow_overridden
        if service is None or skip or not self.host.systemd_runs():
            return
        unit = services.unit_name(service)
        if unit.endswith("@.service"):
            return  # only its instances can be asked about
        wanted = planned.limits
        names = [ITEMS[item].directive for item in wanted]
        properties = ",".join(name for each in names for name in (each, each + "Soft"))
        code, out, _error = self.host.run(["systemctl", "show", unit, f"--property={properties}"])
        if code != 0:
            return
        shown = dict(line.split("=", 1) for line in out.splitlines() if "=" in line)
        for item, limit in wanted.items():
            directive = ITEMS[item].directive
            told = unit_value(f"{shown.get(directive + 'Soft')}:{shown.get(directive)}")
            if directive in shown and item != "cpu" and told is not None and told != limit:
                raise NotProvedError(
                    f"systemd gives {unit} {item} = {told} after {limit} was written; look at "
                    f"'systemctl cat {unit}'"
                )

    def _reload(self) -> None:
        if not self.host.systemd_runs():
            return
        code, _out, error = self.host.run(["systemctl", "daemon-reload"])
        if code != 0:
            raise OSError(code, f"systemctl daemon-reload: {error.strip()}")

    def _kinds(self) -> Mapping[str, Kind]:
        return {"limit": Kind(self._assess_limit, self._fix_limit)}

    def _assess_limit(self, entry: Entry) -> str:
        pid = entry["pid"]
        if services.start_time(self.host, pid) != entry["start"]:
            return AS_BEFORE  # that process has ended
        now = parse_proc(self.host.read_kernel(f"/proc/{pid}/limits") or "").get(entry["item"])
        if now == tuple(entry["before"]):
            return AS_BEFORE
        return OURS if now == tuple(entry["after"]) else FOREIGN

    def _fix_limit(self, entry: Entry) -> None:
        soft, hard = entry["before"]
        self.host.set_limit(entry["pid"], ITEMS[entry["item"]].constant, soft, hard)

    def _result(
        self, repaired: Sequence[Entry], observed: Observed, planned: Planned
    ) -> dict[str, Any]:
        repairs = Plan(
            Change(
                entry["target"],
                None if entry["after"] is None else "as left by a run that was cut short",
                None if entry["before"] is None else "as it was before that run",
                "an earlier run was cut short: its work is taken back",
            )
            for entry in repaired
        )
        result = (repairs + planned.plan).result()
        result["repaired"] = [change.target for change in repairs]
        result["user"] = planned.user
        result["service"] = planned.service
        result["lowered"] = planned.lowered
        result["ceiling"] = observed.ceiling
        return result


def _nothing() -> None:
    """A step that is only there for its undo, or needs none."""


def _of(entries: Sequence[Entry], kind: str) -> list[Entry]:
    return [entry for entry in entries if entry["kind"] == kind]


def run(host: Host, request: Request, check: bool) -> tuple[dict[str, Any], list[str]]:
    """The module's result and warnings.

    Raises LimitError, HostError or TransactionError; the host is then as it was.
    """
    if request.user is None and request.service is None:
        raise LimitError("user, service: give at least one of them")
    task = Run(host, request)
    result = task.check() if check else task.execute()
    return result, task.warnings
