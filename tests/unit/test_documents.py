# Copyright: (c) 2026, Holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the documents name is there: links, make targets, roles, modules, commands."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
NAMES = [path.relative_to(ROOT).as_posix() for path in DOCUMENTS]
BLOCK = re.compile(r"```console\n(.*?)```", re.DOTALL)
# Commands that are no make target, with the test that runs them; other blocks say what they need.
RUN_ELSEWHERE = {
    ".venv/bin/holdfast-node devnet": "files/node/tests/network/test_devnet_network.py",
    "../../.venv/bin/python -m pytest": "tests/run.py",
    "../../.venv/bin/ruff check": "tests/run.py",
    "../../.venv/bin/mypy": "tests/run.py",
    ". .venv/bin/activate && molecule test -s": "tests/scenarios.py",
    "HOLDFAST_PLATFORM=": "tests/scenarios.py",
    "cd files/node && HOLDFAST_SEEDS": "files/node/tests/simulation/test_simulation.py",
}


@pytest.mark.parametrize("name", NAMES)
def test_links_lead_somewhere(name: str) -> None:
    """A link to a file of the repository that is not there is a broken promise."""
    document = ROOT / name
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", document.read_text()):
        assert (document.parent / target).exists(), target


@pytest.mark.parametrize("name", NAMES)
def test_commands_exist(name: str) -> None:
    """Every command is a make target, is run by a test, or says what it needs."""
    targets = set(re.findall(r"^([a-z-]+(?: [a-z-]+)*):", (ROOT / "Makefile").read_text(), re.M))
    known = {word for target in targets for word in target.split()} | {"lint", "sanity", "unit"}
    for block in BLOCK.findall((ROOT / name).read_text()):
        if block.startswith("# needs "):
            continue
        for line in block.splitlines():
            if line.startswith("make "):
                assert set(line.split()[1:]) <= known, line
            else:
                runner = [where for start, where in RUN_ELSEWHERE.items() if line.startswith(start)]
                assert runner, f"{line}: which test runs it?"
                assert (ROOT / runner[0]).exists()


def test_tables_name_what_exists() -> None:
    """Roles and modules in the README's tables are there, and none is left out."""
    text = (ROOT / "README.md").read_text()
    modules = set(re.findall(r"^\| `([a-z_]+)` \|", text, re.M))
    roles = set(re.findall(r"^\| \[`([a-z_]+)`\]\(roles/", text, re.M))
    assert modules == {path.stem for path in ROOT.glob("plugins/modules/*.py")}
    assert roles == {path.name for path in ROOT.glob("roles/*") if path.is_dir()}
