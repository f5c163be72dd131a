# Copyright: (c) 2026, Holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""selinux_context: from what is and what is wanted to what changes. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Collection, Mapping, NamedTuple, Sequence

from ansible_collections.holdfast.chain.plugins.module_utils.plan import Change, Plan
from ansible_collections.holdfast.chain.plugins.module_utils.selinux import (
    NO_LABEL,
    UNCLAIMED_PORTS,
    Context,
    Customisations,
    FileContext,
    PortContext,
    SelinuxError,
    stem,
)

# Types of ports that belong to nobody in particular: to take a port out of them costs nobody.
_PURGED = "the task purges what it does not name"


class WantedFile(NamedTuple):
    """An item of ``contexts``; seuser and range are None where they are left open."""

    target: str
    ftype: str
    type: str
    seuser: str | None = None
    range: str | None = None

    @property
    def key(self) -> tuple[str, str]:
        """What tells one rule from another."""
        return self.target, self.ftype


class WantedPort(NamedTuple):
    """An item of ``ports``."""

    proto: str
    low: int
    high: int
    type: str
    range: str | None = None

    @property
    def key(self) -> tuple[str, int, int]:
        """What tells one rule from another."""
        return self.proto, self.low, self.high


@dataclass(frozen=True)
class Request:
    """The options of a task. purge: prefixes of targets, or of port types and boolean names."""

    files: tuple[WantedFile, ...] = ()
    ports: tuple[WantedPort, ...] = ()
    booleans: Mapping[str, bool] = field(default_factory=dict)
    purge: tuple[str, ...] = ()
    relabel: bool = True
    present: bool = True
    skip_not_applicable: bool = True

    def check(self) -> None:
        """SelinuxError if two items of the task contradict each other."""
        for option, items in (("contexts", self.files), ("ports", self.ports)):
            seen = set()
            for item in items:
                if item.key in seen:
                    name = " ".join(str(part) for part in item.key)
                    raise SelinuxError(f"{option}: '{name}' is named twice; keep one of them")
                seen.add(item.key)


@dataclass(frozen=True)
class Observed:
    """levels: whether contexts have a range. live: booleans in the kernel.

    policy_files: keys and contexts of the policy's own rules. policy_ports: types by range; empty
    where no port needs them. ports_known: false where a rehearsal could not read them.
    """

    local: Customisations
    levels: bool
    live: Mapping[str, bool]
    policy_files: Mapping[tuple[str, str], Context | None]
    policy_ports: Mapping[tuple[str, int, int], str]
    ports_known: bool = True


@dataclass(frozen=True)
class Planned:
    """wanted: the local customisations afterwards. live: booleans to set in the kernel.

    roots: what is to be looked at for wrong labels. exact: labels that count in all their parts.
    """

    plan: Plan
    wanted: Customisations
    live: Mapping[str, bool]
    roots: tuple[str, ...]
    exact: frozenset[str]
    too_wide: tuple[str, ...]


def plan(request: Request, observed: Observed) -> Planned:
    """What has to change; an empty plan if everything is as wanted."""
    changes: list[Change] = []
    files, touched = _files(request, observed, changes)
    ports = _ports(request, observed, changes)
    booleans, live = _booleans(request, observed, changes)
    roots: list[str] = []
    if request.relabel:
        targets = dict.fromkeys([*(item.target for item in request.files), *touched])
        roots = [stem(target) for target in targets]
    exact = {
        str(_file_context(item, observed))
        for item in request.files
        if request.present and (item.seuser or item.range) and item.type != NO_LABEL
    }
    return Planned(
        Plan(changes),
        Customisations(files, ports, booleans),
        live,
        tuple(root for root in roots if root != "/"),
        frozenset(exact),
        tuple(target for target in touched if request.relabel and stem(target) == "/"),
    )


def _file_context(item: WantedFile, observed: Observed) -> Context | None:
    """The context of a rule; what the task leaves open stays as it is, or gets the default."""
    if item.type == NO_LABEL:
        return None
    now = {rule.key: rule.context for rule in observed.local.files}.get(item.key)
    user = item.seuser or (now.user if now else "system_u")
    level = item.range or (now.range if now else "s0")
    return Context(user, "object_r", item.type, level if observed.levels else "")


def _shown(context: Context | None) -> str:
    return NO_LABEL if context is None else str(context)


def _file_target(rule: Any) -> str:
    kind = "" if rule.ftype == "a" else f" ({rule.ftype})"
    return f"file context {rule.target}{kind}"


def _purged(request: Request, name: str) -> bool:
    return any(name.startswith(prefix) for prefix in request.purge)


def _files(
    request: Request, observed: Observed, changes: list[Change]
) -> tuple[tuple[FileContext, ...], list[str]]:
    """The local rules afterwards, and the targets whose rule changes."""
    now = list(observed.local.files)
    before = {rule.key: rule for rule in now}
    named = {item.key for item in request.files}
    touched: list[str] = []
    kept: list[FileContext] = []
    for rule in now:
        absent = rule.key in named and not request.present
        purged = rule.key not in named and _purged(request, rule.target)
        if absent or purged:
            reason = "it is to be absent" if absent else _PURGED
            changes.append(Change(_file_target(rule), _shown(rule.context), None, reason))
            touched.append(rule.target)
        else:
            kept.append(rule)
    if not request.present:
        return tuple(kept), touched
    wanted = [FileContext(i.target, i.ftype, _file_context(i, observed)) for i in request.files]
    result = _arranged(kept, wanted)
    moved = _moved(kept, result)
    for rule in wanted:
        was = before.get(rule.key)
        if was is None:
            reason = "no local rule says so"
            if rule.key in observed.policy_files:
                reason = f"the policy says {_shown(observed.policy_files[rule.key])}"
            changes.append(Change(_file_target(rule), None, _shown(rule.context), reason))
        elif was.context != rule.context:
            reason = "the local rule says something else"
            change = Change(_file_target(rule), _shown(was.context), _shown(rule.context), reason)
            changes.append(change)
        elif rule.key in moved:
            reason = "of two rules that match, the last wins: it has to come after the ones before"
            order = [_position(rule, kept), _position(rule, result)]
            changes.append(Change(f"{_file_target(rule)}, its place", *order, reason))
        else:
            continue
        touched.append(rule.target)
    return tuple(result), touched


def _position(rule: FileContext, rules: Sequence[FileContext]) -> str:
    return f"{[item.key for item in rules].index(rule.key) + 1} of {len(rules)}"


def _arranged(kept: Sequence[FileContext], wanted: Sequence[FileContext]) -> list[FileContext]:
    """The rules with the wanted ones in their order: those that are in order stay in place."""
    places = {rule.key: place for place, rule in enumerate(kept)}
    fresh = {rule.key: rule for rule in wanted}
    staying: set[tuple[str, str]] = set()
    last = -1
    for rule in wanted:
        place = places.get(rule.key, -1)
        if place <= last:
            break
        staying.add(rule.key)
        last = place
    result = [
        fresh.get(rule.key, rule) for rule in kept if rule.key not in fresh or rule.key in staying
    ]
    return result + [rule for rule in wanted if rule.key not in staying]


def _moved(kept: Sequence[FileContext], result: Sequence[FileContext]) -> set[tuple[str, str]]:
    """Rules that were there and now come after one they came before."""
    old = [rule.key for rule in kept]
    new = [rule.key for rule in result if rule.key in set(old)]
    moved = set()
    position = 0
    for key in old:
        if position < len(new) and new[position] == key:
            position += 1
        else:
            moved.add(key)
    return moved


def _ports(request: Request, observed: Observed, changes: list[Change]) -> tuple[PortContext, ...]:
    before = {rule.key: rule for rule in observed.local.ports}
    named = {item.key for item in request.ports}
    kept: list[PortContext] = []
    for rule in observed.local.ports:
        absent = rule.key in named and not request.present
        purged = rule.key not in named and _purged(request, rule.context.type)
        if absent or purged:
            reason = "it is to be absent" if absent else _PURGED
            changes.append(Change(f"port {rule.name}", rule.context.type, None, reason))
        else:
            kept.append(rule)
    if not request.present:
        return tuple(kept)
    result = {rule.key: rule for rule in kept}
    for item in request.ports:
        was = before.get(item.key)
        level = item.range or (was.context.range if was else "s0")
        context = Context("system_u", "object_r", item.type, level if observed.levels else "")
        rule = PortContext(*item.key, context)
        if was is not None:
            context = was.context._replace(type=item.type, range=context.range)
            rule = PortContext(*item.key, context)
            if was != rule:
                result[item.key] = rule
                shown = [str(one.context) for one in (was, rule)]
                reason = "the local definition says something else"
                changes.append(Change(f"port {rule.name}", *shown, reason))
            continue
        given = observed.policy_ports.get(item.key)
        if given == item.type and not item.range:
            continue  # the policy says so itself
        result[item.key] = rule
        reason = _port_reason(item, observed)
        changes.append(Change(f"port {rule.name}", given, item.type, reason))
    return tuple(result.values())


def _port_reason(item: WantedPort, observed: Observed) -> str:
    """Why, and from whom a port is taken."""
    if not observed.ports_known:
        return "no local definition says so; what the policy says is not known without semanage"
    policy = observed.policy_ports
    given = policy.get(item.key)
    if given is not None:
        return (
            f"the policy gives it {given}: services confined to that type lose the port to those "
            f"of {item.type}"
        )
    others = {
        f"{low}-{high} ({name})" if low != high else f"{low} ({name})"
        for (proto, low, high), name in policy.items()
        if (proto == item.proto and low <= item.high and item.low <= high)
        and name not in UNCLAIMED_PORTS
    }
    if others:
        return f"it takes precedence over {', '.join(sorted(others))} of the policy"
    return "it has no type of its own"


def _booleans(
    request: Request, observed: Observed, changes: list[Change]
) -> tuple[dict[str, bool], dict[str, bool]]:
    """Those stored afterwards, and those to set in the kernel."""
    stored = dict(observed.local.booleans)
    live: dict[str, bool] = {}
    for name in list(stored):
        named = name in request.booleans
        if (named and not request.present) or (not named and _purged(request, name)):
            before = stored.pop(name)
            reason = "it is to be the policy's" if named else _PURGED
            changes.append(Change(f"boolean {name}", before, None, reason))
    if not request.present:
        return stored, live
    for name, value in request.booleans.items():
        kept, now = stored.get(name), observed.live.get(name)
        if kept is not value:
            reason = "it is not kept for the next boot" if kept is None else "it is kept otherwise"
            changes.append(Change(f"boolean {name}", kept, value, reason))
            stored[name] = value
        if now is not value:
            if kept is value:
                reason = "the kernel has another value than is kept"
                changes.append(Change(f"boolean {name} (live)", now, value, reason))
            live[name] = value
    return stored, live


def types_of(request: Request) -> Collection[str]:
    """Every type a request names."""
    named = [item.type for item in (*request.files, *request.ports) if item.type != NO_LABEL]
    return dict.fromkeys(named)
