# Copyright: (c) 2026, Holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Roles: what their specifications say is what their defaults do and their READMEs tell.

``make docs`` writes the tables of the READMEs anew.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROLES = Path(__file__).resolve().parents[3] / "roles"
NAMES = sorted(path.parents[1].name for path in ROLES.glob("*/meta/argument_specs.yml"))
LONGEST = 80  # of a default that is shown
TABLE = re.compile(r"(<!-- table of meta/argument_specs.yml.*-->\n).*(<!-- end -->)", re.DOTALL)


def load(role: str, path: str) -> dict[str, Any]:
    return yaml.safe_load((ROLES / role / path).read_text()) or {}


def options(role: str) -> dict[str, Any]:
    return load(role, "meta/argument_specs.yml")["argument_specs"]["main"]["options"]


def table(role: str) -> str:
    """The variables of a role as the rows of its README."""
    rows = ["", "| variable | type | default | what |", "|---|---|---|---|"]
    for name, option in options(role).items():
        default = "*required*" if option.get("required") else ""
        if "default" in option:
            text = json.dumps(option["default"])
            default = f"`{text}`" if len(text) <= LONGEST else "see `defaults/main.yml`"
        kind = option["type"] + (f" of {option['elements']}" if "elements" in option else "")
        if "choices" in option:
            kind = " ".join(f"`{choice}`" if choice else "empty" for choice in option["choices"])
        told = option["description"]
        text = " ".join(told if isinstance(told, list) else [told])
        text = re.sub(r"[CMOV]\(([^)]*)\)", r"`\1`", text)
        text = re.sub(r"P\(([^#)]*)#filter\)", r"`\1`", text)
        rows.append(f"| `{name}` | {kind} | {default} | {text} |")
    return "\n".join([*rows, "", ""])


@pytest.mark.parametrize("role", NAMES)
def test_every_default_is_specified_and_the_same(role):
    specified, defaults = options(role), load(role, "defaults/main.yml")
    assert set(defaults) <= set(specified)
    for name, option in specified.items():
        assert name.startswith(role + "_")
        assert option.get("required", False) == (name not in defaults), name
        if "default" in option:
            assert option["default"] == defaults[name], name
        elif name in defaults:
            assert "{{" in str(defaults[name]), f"{name} has a default worth telling"


@pytest.mark.parametrize("role", NAMES)
def test_every_variable_is_used(role):
    used = "".join(
        path.read_text()
        for place in ("tasks", "templates", "vars", "handlers")
        for path in (ROLES / role / place).rglob("*")
        if path.is_file()
    )
    assert [name for name in options(role) if not re.search(rf"\b{name}\b", used)] == []


@pytest.mark.parametrize("role", NAMES)
def test_the_readme_has_the_table_of_the_specification(role):
    readme = (ROLES / role / "README.md").read_text()
    found = TABLE.search(readme)
    assert found
    assert found.group(0) == found.group(1) + table(role) + found.group(2)


def rewrite() -> None:
    """Put the tables into the READMEs."""
    for role in NAMES:
        path = ROLES / role / "README.md"
        path.write_text(
            TABLE.sub(lambda found, role=role: found[1] + table(role) + found[2], path.read_text())
        )


if __name__ == "__main__":
    rewrite()
