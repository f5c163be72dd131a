# Copyright: (c) 2026, Holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a module is going to change, and why.

A planner is a pure function from what is and what is wanted to a Plan. The plan is all that check
mode shows and all that is applied otherwise. Secrets never go into a Change: put a public key's
fingerprint or a word such as ``"a new private key"`` there instead.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Set
from dataclasses import dataclass
from typing import Any, Iterable, Iterator


@dataclass(frozen=True)
class Change:
    """One thing that differs from what is wanted.

    target: what is changed: a path, a key, a unit; unique within its plan.
    before, after: the values; None means that the target is absent.
    reason: why, as a sentence for a person.
    """

    target: str
    before: Any
    after: Any
    reason: str


class Plan:
    """An ordered list of changes; false when there is nothing to do."""

    def __init__(self, changes: Iterable[Change] = ()) -> None:
        self.changes: tuple[Change, ...] = tuple(changes)

    def __bool__(self) -> bool:
        return bool(self.changes)

    def __len__(self) -> int:
        return len(self.changes)

    def __iter__(self) -> Iterator[Change]:
        return iter(self.changes)

    def __add__(self, other: Plan) -> Plan:
        return Plan(self.changes + other.changes)

    def __repr__(self) -> str:
        return f"Plan({list(self.changes)!r})"

    def diff(self) -> dict[str, str]:
        """Both sides as YAML-like text, for ``--diff``; equal plans give equal text."""
        return {
            "before": _render((change.target, change.before) for change in self.changes),
            "after": _render((change.target, change.after) for change in self.changes),
        }

    def result(self) -> dict[str, Any]:
        """The common part of every module's result: changed, changes and diff."""
        return {
            "changed": bool(self),
            "changes": [
                {
                    "target": change.target,
                    "before": _plain(change.before),
                    "after": _plain(change.after),
                    "reason": change.reason,
                }
                for change in self.changes
            ],
            "diff": self.diff(),
        }


def _plain(value: Any) -> Any:
    """The value in types that JSON knows, in a stable order.

    Raises TypeError for anything else: bytes above all are often key material.
    """
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(value[key]) for key in sorted(value, key=str)}
    if isinstance(value, Set):
        return sorted((_plain(item) for item in value), key=str)
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    raise TypeError(
        f"a Change holds a {type(value).__name__}: expected text, numbers, lists or mappings"
    )


def _render(sides: Iterable[tuple[str, Any]]) -> str:
    """Text of one side of a diff; a target that is absent on this side is left out."""
    lines: list[str] = []
    for target, value in sides:
        if value is not None:
            lines.extend(_lines(target, _plain(value), ""))
    return "".join(line + "\n" for line in lines)


def _lines(label: str, value: Any, indent: str) -> Iterator[str]:
    """The lines of ``label: value``, nested values two columns further in."""
    deeper = indent + "  "
    if isinstance(value, dict) and value:
        yield f"{indent}{label}:"
        for key, item in value.items():
            yield from _lines(key, item, deeper)
    elif isinstance(value, list) and value:
        yield f"{indent}{label}:"
        for item in value:
            yield f"{deeper}- {_scalar(item)}"
    elif isinstance(value, str) and "\n" in value:
        yield f"{indent}{label}: |"
        for line in value.splitlines():
            yield deeper + line
    else:
        yield f"{indent}{label}: {_scalar(value)}"


def _scalar(value: Any) -> str:
    """Text stays bare unless it could be taken for something else; the rest is JSON."""
    if isinstance(value, str) and value.strip() == value and value not in ("", "true", "false"):
        return value
    return json.dumps(value, sort_keys=True)
