# Copyright: (c) 2026, Holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Roles that set up hosts: defaults, argument specs and README tables are one truth."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROLES = Path(__file__).resolve().parents[3] / "roles"


def load(role: str, name: str) -> Any:
    return yaml.safe_load((ROLES / role / name).read_text(encoding="utf-8"))


@pytest.mark.parametrize("role", ["kernel", "limits"])
def test_specs_defaults_and_readme_agree(role: str) -> None:
    options = load(role, "meta/argument_specs.yml")["argument_specs"]["main"]["options"]
    defaults = load(role, "defaults/main.yml")
    assert {name: option["default"] for name, option in options.items()} == defaults
    readme = (ROLES / role / "README.md").read_text(encoding="utf-8")
    table = re.findall(r"^\| `(\w+)` \| (.*?) \|", readme, re.M)
    assert [name for name, _default in table] == list(defaults)
    for name, shown in table:
        value = defaults[name]
        if isinstance(value, (str, bool)) and value != "":
            assert shown == f"`{str(value).lower() if isinstance(value, bool) else value}`"
    tasks = "".join(path.read_text(encoding="utf-8") for path in (ROLES / role / "tasks").iterdir())
    unused = [name for name in defaults if not re.search(rf"\b{name}\b", tasks)]
    assert unused == []
