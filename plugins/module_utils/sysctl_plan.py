# Copyright: (c) 2026, Holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The plan of kernel_params: from what is and what is wanted to what changes. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Callable, Mapping, Sequence

from ansible_collections.holdfast.chain.plugins.module_utils import hugepages
from ansible_collections.holdfast.chain.plugins.module_utils.plan import Change, Plan
from ansible_collections.holdfast.chain.plugins.module_utils.sysctl import (
    GLOB,
    Document,
    ParameterError,
    checked_key,
    checked_value,
    display,
    same_value,
)
from ansible_collections.holdfast.chain.plugins.module_utils.sysctl_boot import (
    RIVALS,
    Boot,
    Write,
    wildcard_matches,
)
from ansible_collections.holdfast.chain.plugins.module_utils.sysctl_kernel import one_way, rank

HEADER = "# Managed by Ansible (holdfast.chain.kernel_params)\n"


@dataclass(frozen=True)
class Request:
    """What a task asks for. wishes: value by key, keys possibly with wildcards."""

    file: str
    wishes: Mapping[str, str]
    switches: Mapping[str, str]
    present: bool = True
    purge: bool = False
    allow_overridden: bool = False
    skip_not_applicable: bool = True

    @property
    def stem(self) -> str:
        """What the names of all files of the task start with."""
        return self.file.rpartition("/")[2][: -len(".conf")]


@dataclass(frozen=True)
class Observed:
    """What a host is like. values: wanted value by existing key; live: what the kernel shows.

    not_applicable: cause by key or switch. problems: what makes the request impossible here.
    switch_boot: for a text of the own file, what each switch is set to at boot.
    links: by name of a link that enables a service at boot, its target; only those missing.
    """

    boot: Boot
    text: str | None
    values: Mapping[str, str]
    live: Mapping[str, str | None]
    hidden: frozenset[str]
    not_applicable: Mapping[str, str]
    problems: Sequence[str]
    init: str
    switch_file: tuple[str, int] | None
    switch_text: str | None
    switch_live: Mapping[str, str | None]
    switch_boot: Callable[[str | None], Mapping[str, hugepages.Decision]]
    links: Mapping[str, str]
    modes: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Planned:
    """A plan, and what carrying it out takes. files: text and mode by name, None to remove."""

    plan: Plan
    writes: Sequence[tuple[str, str]]
    switches: Mapping[str, str]
    files: Mapping[str, tuple[str, int] | None]
    links: Mapping[str, str]
    keys: Mapping[str, Mapping[str, Any]]


def wishes_of(sysctl: Mapping[Any, Any], with_values: bool) -> dict[str, str]:
    """The wanted values by key; ParameterError with all that is wrong with them."""
    wishes: dict[str, str] = {}
    problems: list[str] = []
    for name, raw in sysctl.items():
        try:
            key = checked_key(name)
            value = checked_value(key, raw) if with_values else ""
        except ParameterError as error:
            problems.append(str(error))
            continue
        if key in wishes and not same_value(key, wishes[key], value):
            problems.append(
                f"sysctl: {display(key)} is given twice, as {wishes[key]} and as {value}; keep one"
            )
        wishes[key] = value
    for key, rival in RIVALS.items():
        given = [wishes.get(name) for name in (key, rival)]
        if key < rival and all(value not in (None, "", "0") for value in given):
            problems.append(
                f"sysctl: {display(key)} and {display(rival)} exclude each other: the kernel sets "
                "one to 0 when the other is set; keep one"
            )
    if problems:
        raise ParameterError("; ".join(problems))
    return dict(sorted(wishes.items(), key=lambda item: rank(item[0])))


def plan(request: Request, observed: Observed) -> Planned:
    """What has to change; ParameterError with all problems, before anything does."""
    problems = list(observed.problems)
    if not request.skip_not_applicable:
        problems += [
            f"{_label(name)} cannot be set here: {cause}; leave it out for this host, or set "
            "not_applicable=skip"
            for name, cause in observed.not_applicable.items()
        ]
    text = planned_text(request, observed)
    boot = observed.boot.with_file(request.file, text)
    switch_text = _planned_switch_text(request, observed)
    decisions = observed.switch_boot(switch_text)
    keys = _report(request, observed, boot, text, decisions)
    if request.present and not request.allow_overridden:
        problems += _overridden(request, keys)
    if problems:
        raise ParameterError("; ".join(problems))
    writes = _writes(observed) if request.present else []
    switches = _switch_writes(request, observed) if request.present else {}
    files: dict[str, tuple[str, int] | None] = {}
    changes = _live_changes(observed, writes, switches)
    changes += _file_changes(request, observed, text, files)
    changes += _switch_file_changes(observed, switch_text, files)
    changes += [
        Change(name, None, target, "the service that sets them at boot is in no runlevel")
        for name, target in observed.links.items()
    ]
    return Planned(Plan(changes), writes, switches, files, dict(observed.links), keys)


def _label(name: str) -> str:
    return f"transparent_hugepages ({name})" if name in hugepages.VALUES else display(name)


def persisted_entries(request: Request, observed: Observed) -> dict[str, str]:
    """What the file has to say: wildcards as they are, or what they stand for where it must be."""
    entries: dict[str, str] = {}
    for key, value in request.wishes.items():
        if GLOB.search(key) and not observed.boot.wildcards:
            for name in observed.values:
                if wildcard_matches(key, name) and name not in request.wishes:
                    entries[name] = value
        elif GLOB.search(key) or key in observed.values:
            entries[key] = value
    return dict(sorted(entries.items(), key=lambda item: rank(item[0])))


def planned_text(request: Request, observed: Observed) -> str | None:
    """The text the own file will have; None where it will not be."""
    document = Document(observed.text or HEADER, observed.boot.dialect)
    if not request.present:
        for key in document.keys() if _everything(request) else request.wishes:
            document.remove(key)
    else:
        wanted = persisted_entries(request, observed)
        for key, value in wanted.items():
            document.set(key, value)
        if request.purge:
            spared = set(wanted) | set(request.wishes)
            for assignment in document.assignments():
                if assignment.key not in spared:
                    document.remove(assignment.key, exemptions=True)
    if document.assignments() or _comments(document.render()):
        return document.render()
    return None


def _everything(request: Request) -> bool:
    return not request.wishes and not request.switches


def _comments(text: str) -> bool:
    """Whether there is anything in a text that somebody else wrote."""
    return any(line.strip() and line + "\n" != HEADER for line in text.split("\n"))


def _planned_switch_text(request: Request, observed: Observed) -> str | None:
    if observed.switch_file is None:
        return None
    now = hugepages.parse(observed.init, observed.switch_text or "")
    if not request.present:
        keep = {} if _everything(request) else now
        wanted = {name: value for name, value in keep.items() if name not in request.switches}
    else:
        wanted = {} if request.purge else dict(now)
        applicable = {k: v for k, v in request.switches.items() if k not in observed.not_applicable}
        wanted.update(applicable)
    if wanted == now:
        return observed.switch_text
    return hugepages.render(observed.init, wanted) if wanted else None


def _writes(observed: Observed) -> list[tuple[str, str]]:
    """Values to give to the kernel, in the order to do it."""
    document = Document(observed.text or "", observed.boot.dialect)
    writes = []
    for key, value in observed.values.items():
        shown = observed.live.get(key)
        if shown is not None:
            differs = not same_value(key, value, shown)
        else:  # it cannot be read: the file tells whether it was written once
            persisted = _persisted(document, key)
            differs = persisted is None or not same_value(key, value, persisted)
        if differs:
            writes.append((key, value))
    return sorted(writes, key=lambda item: rank(item[0]))


def _switch_writes(request: Request, observed: Observed) -> dict[str, str]:
    return {
        name: value
        for name, value in request.switches.items()
        if name not in observed.not_applicable and observed.switch_live.get(name) != value
    }


def _live_changes(
    observed: Observed, writes: Sequence[tuple[str, str]], switches: Mapping[str, str]
) -> list[Change]:
    document = Document(observed.text or "", observed.boot.dialect)
    changes = []
    for key, value in writes:
        persisted = document.value(key)
        if key in observed.hidden:
            reason = "it shows no value and was not set by this file yet"
        elif persisted is not None and same_value(key, value, persisted):
            reason = "the kernel has another value than the file"
        else:
            reason = "the kernel has another value"
        if one_way(key):
            reason += "; it stays until the next boot"
        changes.append(Change(display(key), observed.live.get(key), value, reason))
    persisted_switches = hugepages.parse(observed.init, observed.switch_text or "")
    for name, value in switches.items():
        same = persisted_switches.get(name) == value
        reason = "the kernel has another value" + (" than the file" if same else "")
        changes.append(
            Change(f"{hugepages.ROOT}/{name}", observed.switch_live.get(name), value, reason)
        )
    return changes


def _file_changes(
    request: Request,
    observed: Observed,
    text: str | None,
    files: dict[str, tuple[str, int] | None],
) -> list[Change]:
    mode_differs = text is not None and observed.modes.get(request.file, 0o644) != 0o644
    if text == observed.text and not mode_differs:
        return []
    files[request.file] = None if text is None else (text, 0o644)
    old = Document(observed.text or "", observed.boot.dialect)
    new = Document(text or "", observed.boot.dialect)
    changes = []
    for key in dict.fromkeys([*old.keys(), *new.keys()]):
        before, after = old.value(key), new.value(key)
        if before != after:
            if before is None:
                reason = "it would be lost at the next boot"
            elif after is None:
                reason = "it is not wanted any more; the kernel keeps its value until the next boot"
            else:
                reason = "the file has another value"
            changes.append(Change(f"{request.file}: {display(key)}", before, after, reason))
    if mode_differs:
        changes.append(
            Change(
                f"{request.file}: mode",
                f"{observed.modes[request.file]:04o}",
                "0644",
                "the file has other permissions",
            )
        )
    if not changes:
        changes.append(
            Change(request.file, observed.text, text, "lines for one key contradict each other")
        )
    return changes


def _switch_file_changes(
    observed: Observed, text: str | None, files: dict[str, tuple[str, int] | None]
) -> list[Change]:
    if observed.switch_file is None or text == observed.switch_text:
        return []
    name, mode = observed.switch_file
    files[name] = None if text is None else (text, mode)
    reason = "they would be lost at the next boot" if text else "they are not wanted any more"
    return [Change(name, observed.switch_text, text, reason)]


def _report(
    request: Request,
    observed: Observed,
    boot: Boot,
    text: str | None,
    decisions: Mapping[str, hugepages.Decision],
) -> dict[str, dict[str, Any]]:
    """What a user learns per key, as it is once the plan is carried out."""
    document = Document(text or "", observed.boot.dialect)
    report: dict[str, dict[str, Any]] = {}
    for key, value in observed.values.items():
        decision = boot.decide(key)
        rival = boot.rival(key)
        at_boot = decision.value if decision else None
        wrong = at_boot is None or not same_value(key, value, at_boot)
        by = rival or (decision if wrong else None)
        report[display(key)] = {
            "wanted": value if request.present else None,
            "live": observed.live.get(key),
            "persisted": _persisted(document, key),
            "effective_at_boot": None if rival else at_boot,
            "effective_from": (rival or decision or Write(key, None, "")).file or None,
            "overridden_by": by.file if by and request.present else None,
        }
    own = observed.switch_file[0] if observed.switch_file else None
    for name in request.switches:
        chosen = decisions.get(name)
        if name in observed.not_applicable:
            continue
        wanted = request.switches[name] if request.present else None
        report[f"transparent_hugepages.{name}"] = {
            "wanted": wanted,
            "live": observed.switch_live.get(name),
            "persisted": wanted,
            "effective_at_boot": chosen.value if chosen else None,
            "effective_from": chosen.file if chosen else None,
            "overridden_by": (
                chosen.file if chosen and chosen.value != wanted and chosen.file != own else None
            ),
        }
    return report


def _persisted(document: Document, key: str) -> str | None:
    value = document.value(key)
    if value is not None:
        return value
    matching = [
        item.value
        for item in document.assignments()
        if GLOB.search(item.key) and wildcard_matches(item.key, key)
    ]
    return matching[-1] if matching else None


def _overridden(request: Request, keys: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Wanted values that another file, or how files are read here, keeps from lasting."""
    problems = []
    for name, key in keys.items():
        wanted, by, at_boot = key["wanted"], key["overridden_by"], key["effective_at_boot"]
        if by == request.file:
            problems.append(
                f"{name} = {wanted} would be {at_boot} after the next boot: the program that reads "
                f"{by} here does not take the whole value; install procps' sysctl on this host"
            )
        elif by is not None:
            what = f"sets it to {at_boot}" if at_boot is not None else "takes it out of wildcards"
            if at_boot is None and not name.startswith("transparent"):
                what = "sets the parameter that excludes it, or takes it out of wildcards,"
            problems.append(
                f"{name} = {wanted} would not last: {by} {what} at boot, after {request.file}; "
                "change it there, choose a name for 'file' that is read later, or set "
                "allow_overridden=true"
            )
        elif at_boot is None and not name.startswith("transparent"):
            problems.append(
                f"{name} = {wanted} would not last: nothing reads {request.file} at boot on this "
                "host; see which folders its init script for sysctl names, or set "
                "allow_overridden=true"
            )
    return problems
