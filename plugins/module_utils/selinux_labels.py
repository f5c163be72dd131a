# Copyright: (c) 2026, Holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which files bear another label than the policy gives them, and giving it to them."""

from __future__ import annotations

import os
import stat
from collections import defaultdict
from types import MappingProxyType
from typing import Callable, Collection, Iterable, Iterator, Mapping, Sequence

from ansible_collections.holdfast.chain.plugins.module_utils.plan import Change
from ansible_collections.holdfast.chain.plugins.module_utils.selinux import (
    META,
    FileContext,
    Substitution,
    parse_context,
    substituted,
)
from ansible_collections.holdfast.chain.plugins.module_utils.selinux_host import Selinux

_NAMED = 20  # changes of one kind below one folder that are listed one by one
Lookup = Callable[[str, int], "str | None"]


def policy_order(rules: Iterable[FileContext]) -> list[FileContext]:
    """Rules of policy modules in the order libsemanage installs them: the most particular last.

    As semanage_fc_sort: what has no expression in it comes last; then the longer the part before
    the first special character, the longer altogether, and what names a kind of file, the later.
    """

    def place(rule: FileContext) -> tuple[bool, int, int, bool]:
        length = len(rule.target)
        first = next((i for i, c in enumerate(rule.target) if c in META), length)
        slashes = rule.target.count("\\")
        return first == length, first, length - slashes, rule.ftype != "a"

    return sorted(rules, key=place)


def rules_text(groups: Iterable[Iterable[FileContext]]) -> str:
    """Groups of rules as one file_contexts file; of what matches, the last wins."""
    return "".join(rule.render() + "\n" for group in groups for rule in group)


def below(roots: Iterable[str]) -> list[str]:
    """The roots without those that are below another one."""
    kept: list[str] = []
    for root in sorted(set(roots)):
        if not any(root == other or root.startswith(other + "/") for other in kept):
            kept.append(root)
    return kept


def walk(selinux: Selinux, root: str) -> Iterator[tuple[str, int]]:
    """Every file from a root down with its mode, folders before what is in them."""
    host = selinux.host
    try:
        mode = host.path(root).lstat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return
    yield root, mode
    folders = [root] if stat.S_ISDIR(mode) else []
    while folders:
        folder = folders.pop()
        try:
            with os.scandir(str(host.path(folder))) as entries:
                found = sorted(entries, key=lambda entry: entry.name)
        except FileNotFoundError:
            continue  # gone meanwhile
        for entry in found:
            path = f"{folder}/{entry.name}"
            try:
                mode = entry.stat(follow_symlinks=False).st_mode
            except FileNotFoundError:
                continue
            yield path, mode
            if stat.S_ISDIR(mode):
                folders.append(path)


def differences(
    selinux: Selinux,
    roots: Iterable[str],
    lookup: Lookup,
    *,
    customizable: Collection[str] = (),
    exact: Collection[str] = (),
    repaired: Mapping[str, str] = MappingProxyType({}),
) -> dict[str, tuple[str, str]]:
    """By path, the label a file has and the one it is to have, where they differ.

    As restorecon: the type counts, and a type that is given by hand is left alone. Contexts in
    ``exact`` count in all their parts. repaired: labels that files will have before, by path.
    """
    found = {}
    for root in below(roots):
        for path, mode in walk(selinux, root):
            told = lookup(path, mode)
            if told is None:
                continue
            now = repaired.get(path) or selinux.label(path)
            if now is None or told == now:
                continue
            has, wants = parse_context(now), parse_context(told)
            if has.type in customizable:
                continue
            if told not in exact:
                if has.type == wants.type:
                    continue
                wants = has._replace(type=wants.type)
            found[path] = (now, str(wants))
    return found


def installed_lookup(
    selinux: Selinux,
) -> tuple[Lookup, Callable[[], None]]:
    """Labels by the installed policy, and what to call when they are not needed any more."""
    labels = selinux.labels()
    return labels.lookup, labels.close


def rehearsed_lookup(
    selinux: Selinux, text: str, substitutions: Sequence[Sequence[Substitution]]
) -> tuple[Lookup, Callable[[], None]]:
    """Labels by rules that are not installed yet."""
    labels = selinux.labels(text)
    return (lambda path, mode: labels.lookup(substituted(path, *substitutions), mode)), labels.close


def label_changes(
    found: Mapping[str, tuple[str, str]], roots: Iterable[str], reason: str
) -> list[Change]:
    """Differences as changes: many of one kind below one root are one change, with their number."""
    tops = below(roots)
    groups: dict[tuple[str, str, str], list[str]] = defaultdict(list)
    for path, (before, after) in found.items():
        top = next(top for top in tops if path == top or path.startswith(top + "/"))
        groups[top, before, after].append(path)
    changes = []
    for (top, before, after), paths in groups.items():
        if len(paths) <= _NAMED:
            changes += [Change(f"label of {path}", before, after, reason) for path in paths]
        else:
            target = f"labels below {top} that were {parse_context(before).type}"
            target += f", to be {parse_context(after).type}"
            sides = [f"{len(paths)} files {label}" for label in (before, after)]
            changes.append(Change(target, *sides, reason))
    return changes


def give(selinux: Selinux, wanted: Mapping[str, str], former: Mapping[str, str]) -> None:
    """Label files; if one fails, those before it have their former labels again.

    A file that is gone needs none.
    """
    done: list[str] = []
    for path, label in wanted.items():
        try:
            selinux.set_label(path, label)
        except FileNotFoundError:
            continue
        except OSError as error:
            for labelled in reversed(done):
                selinux.set_label(labelled, former[labelled])
            text = f"label {path} {label}: {error.strerror or error}"
            raise OSError(error.errno, text) from error
        done.append(path)
