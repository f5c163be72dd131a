# Copyright: (c) 2026, Holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The plan of ulimits: from what is and what is wanted to what changes. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Mapping, Sequence

from ansible_collections.holdfast.chain.plugins.module_utils.limits import (
    ITEMS,
    Limit,
    LimitError,
    beyond_the_kernel,
    under_ceiling,
)
from ansible_collections.holdfast.chain.plugins.module_utils.limits_files import (
    conf_parse,
    conf_render,
    merged,
    pam_decides,
    pam_parse,
    pam_render,
    refuse_foreign,
    unit_parse,
    unit_render,
)
from ansible_collections.holdfast.chain.plugins.module_utils.plan import Change, Plan


@dataclass(frozen=True)
class Request:
    """What a task asks for. names: with state absent, the limits to remove; none for all."""

    limits: Mapping[str, Limit]
    user: str | None
    service: str | None
    file: str
    present: bool = True
    names: Sequence[str] = ()
    apply_running: bool = True
    allow_overridden: bool = False
    lower: bool = False


@dataclass(frozen=True)
class Process:
    """A process of the service. adjustable: whether this run may change its limits at all;
    lowerable: whether it may only lower them."""

    pid: int
    start: str | None
    limits: Mapping[str, Limit]
    adjustable: bool
    lowerable: bool = False

    def may_get(self, name: str, limit: Limit) -> bool:
        """Whether this run may give it a limit."""
        now = self.limits[name]
        return self.adjustable or (self.lowerable and limit.hard <= now.hard)


@dataclass(frozen=True)
class Observed:
    """What a host is like.

    user_files: what pam_limits reads, in order, with the texts; user_obstacle: why it reads
    nothing. service_files: unit file and drop-ins likewise, or conf.d's file. overriding: a file
    that decides over OpenRC's conf.d.
    """

    init: str
    user_file: str
    user_files: Sequence[tuple[str, str]]
    user_obstacle: str | None
    service_file: str
    service_text: str | None
    service_files: Sequence[tuple[str, str]]
    overriding: str | None
    processes: Sequence[Process]
    ceiling: Mapping[str, int]
    nr_open: int | None
    problems: Sequence[str] = ()

    @property
    def user_text(self) -> str | None:
        """The text of the own file for users."""
        return dict(self.user_files).get(self.user_file)


@dataclass(frozen=True)
class Planned:
    """A plan, and what carrying it out takes. files: text by name, None to remove."""

    plan: Plan
    files: Mapping[str, str | None]
    adjust: Sequence[tuple[Process, str, Limit]]
    limits: Mapping[str, Limit]
    user: Mapping[str, Any] | None
    service: Mapping[str, Any] | None
    lowered: Mapping[str, Any] = field(default_factory=dict)


@dataclass
class _Draft:
    """What the parts of a plan add to."""

    problems: list[str]
    files: dict[str, str | None] = field(default_factory=dict)
    changes: list[Change] = field(default_factory=list)


def plan(request: Request, observed: Observed) -> Planned:
    """What has to change; LimitError with all problems, before anything does."""
    draft = _Draft(list(observed.problems))
    limits, too_high = under_ceiling(request.limits, observed.ceiling)
    if request.present:
        draft.problems += beyond_the_kernel(request.limits, observed.nr_open)
        if not request.lower:
            draft.problems += too_high
    lowered = {
        name: limits[name].facts() for name in limits if limits[name] != request.limits[name]
    }
    user = service = None
    adjust: list[tuple[Process, str, Limit]] = []
    try:
        if request.user is not None:
            user = _plan_user(request, limits, observed, draft)
        if request.service is not None:
            service = _plan_service(request, limits, observed, draft)
    except LimitError as error:
        draft.problems.append(str(error))
    if draft.problems:
        raise LimitError("; ".join(draft.problems))
    if service is not None and request.present:
        adjust = _plan_running(request, limits, observed, draft, service)
    elif service is not None and observed.processes and observed.service_file in draft.files:
        service["restart_needed"] = True
        service["restart_reasons"] = [
            "its processes keep the removed limits until they are restarted"
        ]
    return Planned(Plan(draft.changes), draft.files, adjust, limits, user, service, lowered)


def _plan_user(
    request: Request,
    limits: Mapping[str, Limit],
    observed: Observed,
    draft: _Draft,
) -> dict[str, Any]:
    domain = request.user or ""
    report: dict[str, Any] = {"name": domain, "not_applicable": observed.user_obstacle}
    if observed.user_obstacle is not None and request.present:
        if request.service is None:
            draft.problems.append(f"user: {observed.user_obstacle}; give a service instead")
        return report
    refuse_foreign(observed.user_file, observed.user_text)
    domains = pam_parse(observed.user_text or "")
    before = domains.get(domain, {})
    after = merged(before, limits, None if request.present else request.names)
    if after:
        domains[domain] = after
    else:
        domains.pop(domain, None)
    if before != after:
        draft.files[observed.user_file] = pam_render(domains)
        draft.changes += _file_changes(f"{observed.user_file}: {domain}", before, after)
    texts = dict(observed.user_files)
    texts[observed.user_file] = (
        draft.files.get(observed.user_file, texts.get(observed.user_file)) or ""
    )
    ordered = _pam_order(texts)
    report["limits"] = {}
    for name in limits if request.present else ():
        decided = pam_decides(ordered, domain, name)
        own = decided is not None and decided[0] == limits[name]
        overridden_by = None if own or decided is None else decided[1]
        report["limits"][name] = {
            **limits[name].facts(),
            "effective": str(decided[0]) if decided else None,
            "overridden_by": overridden_by,
        }
        if overridden_by and not request.allow_overridden:
            draft.problems.append(
                f"user: {name} for {domain} would be {decided[0] if decided else ''}: "
                f"{overridden_by} is read after {observed.user_file}; change it there, choose a "
                "name for 'file' that is read later, or set allow_overridden=true"
            )
    return report


def _pam_order(texts: Mapping[str, str]) -> list[tuple[str, str]]:
    """limits.conf first, then the drop-ins by name: the order in which pam_limits reads."""
    return sorted(texts.items(), key=lambda item: ("limits.d/" in item[0], item[0].encode()))


def _plan_service(
    request: Request,
    limits: Mapping[str, Limit],
    observed: Observed,
    draft: _Draft,
) -> dict[str, Any]:
    name = observed.service_file
    systemd = observed.init == "systemd"
    if systemd:
        refuse_foreign(name, observed.service_text)
        ours = unit_parse(observed.service_text or "")
        before = {item: limit for item, limit in ours.items() if limit is not None}
    else:
        before = conf_parse(observed.service_text or "")
    after = merged(before, limits, None if request.present else request.names)
    text = unit_render(after) if systemd else conf_render(observed.service_text, after)
    if before != after or (request.present and text != observed.service_text):
        draft.files[name] = text
        draft.changes += _file_changes(name, before, after)
        if before == after:
            draft.changes.append(
                Change(name, observed.service_text, text, "the file is not as it was written")
            )
    report: dict[str, Any] = {
        "name": request.service,
        "running": bool(observed.processes),
        "pids": [process.pid for process in observed.processes],
        "limits": {},
        "restart_needed": False,
        "restart_reasons": [],
    }
    for item in limits if request.present else ():
        by = _overriding(observed, item, limits[item], text or "")
        report["limits"][item] = {**limits[item].facts(), "overridden_by": by}
        if by is not None and not request.allow_overridden:
            draft.problems.append(
                f"service: {item} of {request.service} would be another one: {by} is read after "
                f"{name}; change it there, choose a name for 'file' that is read later, or set "
                "allow_overridden=true"
            )
    return report


def _overriding(observed: Observed, item: str, limit: Limit, text: str) -> str | None:
    """The file that decides a service's limit otherwise; None if ours does."""
    if observed.init != "systemd":
        return observed.overriding
    texts = dict(observed.service_files)
    order = [file for file, _text in observed.service_files]
    if observed.service_file not in texts:
        order = _with_dropin(order, observed.service_file)
    texts[observed.service_file] = text
    decided: tuple[Limit | None, str] | None = None
    for file in order:
        found = unit_parse(texts[file])
        if item in found:
            decided = (found[item], file)
    return None if decided is None or decided[0] == limit else decided[1]


def _with_dropin(order: Sequence[str], name: str) -> list[str]:
    """The unit file, then all drop-ins by their names, a new one among them."""
    dropins = sorted([*order[1:], name], key=lambda file: file.rpartition("/")[2].encode())
    return [*order[:1], *dropins]


def _file_changes(
    label: str, before: Mapping[str, Limit], after: Mapping[str, Limit]
) -> list[Change]:
    changes = []
    for item in sorted({*before, *after}):
        old, new = before.get(item), after.get(item)
        if old == new:
            continue
        if old is None:
            reason = "the limit is not given there"
        elif new is None:
            reason = "it is not wanted any more"
        else:
            reason = "another limit is given there"
        changes.append(
            Change(f"{label} {item}", str(old) if old else None, str(new) if new else None, reason)
        )
    return changes


def _plan_running(
    request: Request,
    limits: Mapping[str, Limit],
    observed: Observed,
    draft: _Draft,
    report: dict[str, Any],
) -> list[tuple[Process, str, Limit]]:
    """Limits to give to running processes; what they cannot be given goes into the report."""
    adjust: list[tuple[Process, str, Limit]] = []
    for item, limit in limits.items():
        other = [p for p in observed.processes if item in p.limits and p.limits[item] != limit]
        may = [p for p in other if request.apply_running and p.may_get(item, limit)]
        adjust += [(process, item, limit) for process in may]
        if may:
            values = sorted({str(process.limits[item]) for process in may})
            draft.changes.append(
                Change(
                    f"{request.service} (running): {item}",
                    ", ".join(values),
                    str(limit),
                    "running processes have another limit: "
                    + ", ".join(str(process.pid) for process in may),
                )
            )
        left = [str(process.pid) for process in other if process not in may]
        if left:
            report["restart_needed"] = True
            why = "not asked to" if not request.apply_running else "no right to, CAP_SYS_RESOURCE"
            report["restart_reasons"].append(
                f"{ITEMS[item].label.lower()} of {', '.join(left)} stays as it is ({why})"
            )
    return adjust
