# Copyright: (c) 2026, Holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""kernel_params on a host: apply what was planned, prove it, repair what was cut short."""

from __future__ import annotations

import contextlib
from typing import Any, Callable, Mapping, Sequence

from ansible_collections.holdfast.chain.plugins.module_utils.hostfs import Host, HostError, View
from ansible_collections.holdfast.chain.plugins.module_utils.hugepages import HugePages
from ansible_collections.holdfast.chain.plugins.module_utils.plan import Change, Plan
from ansible_collections.holdfast.chain.plugins.module_utils.sysctl import display, same_value
from ansible_collections.holdfast.chain.plugins.module_utils.sysctl_kernel import Kernel, refusal
from ansible_collections.holdfast.chain.plugins.module_utils.sysctl_plan import (
    Observed,
    Planned,
    Request,
    plan,
)
from ansible_collections.holdfast.chain.plugins.module_utils.sysctl_read import read
from ansible_collections.holdfast.chain.plugins.module_utils.transaction import Transaction
from ansible_collections.holdfast.chain.plugins.module_utils.undo_journal import (
    AS_BEFORE,
    FOREIGN,
    HALF,
    OURS,
    UNKNOWN,
    Entry,
    Journal,
    Kind,
    describe,
    described,
    text_before,
)


class NotProvedError(Exception):
    """Something reads back as another value than was set."""


class Run:
    """One run of the module on a host."""

    def __init__(self, host: Host, request: Request) -> None:
        self.host = host
        self.request = request
        self.kernel = Kernel(host)
        self.pages = HugePages(host)
        self.journal = Journal(host, f"kernel_params-{request.stem}")
        self.warnings: list[str] = []

    def check(self) -> dict[str, Any]:
        """What a run would do. Nothing is touched."""
        entries = self.journal.assess(self.journal.pending(), self._kinds())
        texts = {entry["target"]: text_before(entry) for entry in _of(entries, "file")}
        shown: dict[str, str] = {}
        for entry in _of(entries, "parameter"):
            shown.update(entry["collateral"])
            if entry["before"] is not None:
                shown[entry["target"]] = entry["before"]
        view = View(self.host, texts) if texts else self.host
        switches = {entry["target"]: entry["before"] for entry in _of(entries, "switch")}
        kernel, pages = Kernel(view, shown), HugePages(view, switches)
        observed = read(view, kernel, pages, self.request)
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
            observed = self._read()
            planned = plan(self.request, observed)
            if planned.plan:
                observed = self._apply(observed, planned)
            if self.journal.fault:
                self.warnings.append(self.journal.fault)
            result = self._result(repaired, observed, planned)
            if planned.plan:
                result["parameters"] = plan(self.request, observed).keys
            return result

    def _read(self) -> Observed:
        return read(self.host, self.kernel, self.pages, self.request)

    def _apply(self, observed: Observed, planned: Planned) -> Observed:
        entries = self._entries(observed, planned)
        with self.journal.guarding(entries):
            transaction = Transaction()
            with transaction:
                for entry in _of(entries, "parameter"):
                    transaction.run(
                        self._setting(entry),
                        lambda entry=entry: self._restore(entry),
                        f"set {display(entry['target'])} to {entry['after']}",
                    )
                for entry in _of(entries, "switch"):
                    transaction.run(
                        lambda entry=entry: self.pages.write(entry["target"], entry["after"]),
                        lambda entry=entry: self.pages.write(entry["target"], entry["before"]),
                        f"set transparent_hugepages ({entry['target']}) to {entry['after']}",
                    )
                for name, wanted in planned.files.items():
                    path = self.host.path(name)
                    if wanted is None:
                        transaction.remove(path)
                    else:
                        transaction.make_directory(
                            path.parent
                        ) if not path.parent.is_dir() else None
                        text, mode = wanted
                        content = text.encode("utf-8", "surrogateescape")
                        transaction.write_file(path, content, mode)
                for name, target in planned.links.items():
                    path = self.host.path(name)
                    if not path.parent.is_dir():
                        transaction.make_directory(path.parent)
                    transaction.symlink(path, target)
                after = self._read()
                self._prove(after)
        self.warnings += [f"could not remove {name}" for name in transaction.left_behind]
        return after

    def _entries(self, observed: Observed, planned: Planned) -> list[Entry]:
        """The intended undo of a plan."""
        entries: list[Entry] = [
            {
                "kind": "parameter",
                "target": key,
                "before": observed.live.get(key),
                "after": value,
                "collateral": self.kernel.collateral(key),
            }
            for key, value in planned.writes
        ]
        entries += [
            {
                "kind": "switch",
                "target": name,
                "before": observed.switch_live[name],
                "after": value,
            }
            for name, value in planned.switches.items()
        ]
        for name, wanted in planned.files.items():
            parent = name.rpartition("/")[0]
            if not self.host.exists(parent):
                entries.append({"kind": "directory", "target": parent, "before": None, "after": ""})
            after = None
            if wanted is not None:
                after = described(wanted[0].encode("utf-8", "surrogateescape"), wanted[1])
            before = describe(self.host, name)
            entries.append({"kind": "file", "target": name, "before": before, "after": after})
        for name, target in planned.links.items():
            entries.append(
                {"kind": "file", "target": name, "before": None, "after": {"link": target}}
            )
        return entries

    def _setting(self, entry: Entry) -> Callable[[], None]:
        def do() -> None:
            key, value = entry["target"], entry["after"]
            try:
                self.kernel.write(key, value)
            except OSError as error:
                # of several numbers the kernel may have taken the first ones
                with contextlib.suppress(OSError):
                    self._restore(entry)
                raise OSError(error.errno, refusal(key, value, error)) from error

        return do

    def _restore(self, entry: Entry) -> None:
        self.kernel.restore(entry["target"], entry["before"], entry["collateral"])

    def _prove(self, after: Observed) -> None:
        """Nothing is left to do, or NotProvedError with what the kernel made of it."""
        left = plan(self.request, after)
        if left.plan:
            raise NotProvedError(
                "; ".join(
                    f"{change.target} shows {change.before} after {change.after} was set"
                    for change in left.plan
                )
                + "; give the value that the kernel keeps"
            )

    def _kinds(self) -> Mapping[str, Kind]:
        return {
            "parameter": Kind(self._assess_parameter, self._restore),
            "switch": Kind(
                self._assess_switch,
                lambda entry: self.pages.write(entry["target"], entry["before"]),
            ),
        }

    def _assess_parameter(self, entry: Entry) -> str:
        key = entry["target"]
        now = self.kernel.read(key)
        if now is None:
            return UNKNOWN
        if entry["before"] is not None and same_value(key, entry["before"], now):
            # what it reaches may still be to put back, if a repair was cut short in its turn
            reached = entry["collateral"].items()
            moved = any(self.kernel.read(name) not in (None, value) for name, value in reached)
            return HALF if moved else AS_BEFORE
        return OURS if same_value(key, entry["after"], now) else FOREIGN

    def _assess_switch(self, entry: Entry) -> str:
        now = self.pages.read(entry["target"])
        if now == entry["before"]:
            return AS_BEFORE
        return OURS if now == entry["after"] else FOREIGN

    def _result(
        self, repaired: Sequence[Entry], observed: Observed, planned: Planned
    ) -> dict[str, Any]:
        repairs = Plan(_repair_change(entry) for entry in repaired)
        result = (repairs + planned.plan).result()
        result["parameters"] = planned.keys
        result["not_applicable"] = {
            display(name) if "/" in name else f"transparent_hugepages.{name}": cause
            for name, cause in observed.not_applicable.items()
        }
        result["repaired"] = [change.target for change in repairs]
        result["file"] = self.request.file
        result["read_at_boot_by"] = _reader(observed)
        return result


def _reader(observed: Observed) -> str:
    if observed.boot.reader != "sequence":
        return {"systemd": "systemd-sysctl", "procps": "procps sysctl"}[observed.boot.reader]
    return {"busybox": "BusyBox sysctl", "procps": "procps sysctl"}.get(
        observed.boot.dialect, "sysctl -w"
    )


def _of(entries: Sequence[Entry], kind: str) -> list[Entry]:
    return [entry for entry in entries if entry["kind"] == kind]


def _repair_change(entry: Entry) -> Change:
    target = display(entry["target"]) if entry["kind"] == "parameter" else entry["target"]
    before, after = entry["after"], entry["before"]
    if entry["kind"] == "file":
        before = None if entry["after"] is None else "as left by a run that was cut short"
        after = None if entry["before"] is None else "as it was before that run"
    return Change(target, before, after, "an earlier run was cut short: its work is taken back")


def run(host: Host, request: Request, check: bool) -> tuple[dict[str, Any], list[str]]:
    """The module's result and warnings.

    Raises ParameterError, HostError or TransactionError; the host is then as it was.
    """
    if not host.path("/proc/sys").is_dir():
        raise HostError("/proc/sys is not there: mount proc, kernel parameters live in it")
    task = Run(host, request)
    result = task.check() if check else task.execute()
    return result, task.warnings
