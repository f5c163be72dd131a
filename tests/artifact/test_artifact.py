# SPDX-License-Identifier: GPL-3.0-or-later
"""The collection as users get it: built, installed into an empty path, used by its full names."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = {
    "module": sorted(path.stem for path in ROOT.glob("plugins/modules/[!_]*.py")),
    "role": sorted(path.parents[1].name for path in ROOT.glob("roles/*/tasks/main.yml")),
}
BIN = Path(sys.executable).parent


def ansible(command: str, *arguments: str, collections: Path, cwd: Path) -> str:
    """Run a tool of ansible-core away from the checkout; return its output."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")}
    env["ANSIBLE_COLLECTIONS_PATH"] = str(collections)
    env["ANSIBLE_HOME"] = str(cwd / "home")
    done = subprocess.run(
        [BIN / command, *arguments], cwd=cwd, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{command} {' '.join(arguments)}:\n{done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the artifact and install it into an empty path; return that path."""
    place = tmp_path_factory.mktemp("artifact")
    path = place / "collections"
    built, away = place / "built", place / "away"
    away.mkdir()
    build = ["collection", "build", str(ROOT), "--output-path", str(built)]
    ansible("ansible-galaxy", *build, collections=path, cwd=away)
    (archive,) = built.glob("holdfast-chain-*.tar.gz")
    install = ["collection", "install", "--offline", str(archive), "-p", str(path)]
    ansible("ansible-galaxy", *install, collections=path, cwd=away)
    return path


@pytest.fixture(scope="module")
def content(installed: Path) -> Path:
    """The folder of the installed collection."""
    return installed / "ansible_collections" / "holdfast" / "chain"


@pytest.fixture(scope="module", params=["module", "role"])
def documentation(
    request: pytest.FixtureRequest, installed: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, dict[str, Any]]:
    """What ansible-doc says of all our modules, or roles, by full name."""
    names = [f"holdfast.chain.{name}" for name in SHIPPED[request.param]]
    listing = ["-t", request.param, "--json", *names]
    cwd = tmp_path_factory.mktemp("documentation")
    output = ansible("ansible-doc", *listing, collections=installed, cwd=cwd)
    return request.param, json.loads(output)


def test_everything_shipped_is_found_and_documented(
    documentation: tuple[str, dict[str, Any]],
) -> None:
    """Each module and role resolves by its full name, and its options can be read."""
    kind, found = documentation
    assert SHIPPED[kind]
    for name in SHIPPED[kind]:
        entry = found[f"holdfast.chain.{name}"]
        if kind == "role":
            assert entry["entry_points"]["main"]["options"], name
        else:
            assert entry["doc"]["short_description"], name
            assert entry["examples"], name


@pytest.mark.parametrize("inventory", ["demo", "testnet", "mainnet"])
def test_site_playbook_parses(inventory: str, installed: Path, tmp_path: Path) -> None:
    """`ansible-playbook holdfast.chain.site` works with each inventory from any folder."""
    hosts = installed / "ansible_collections" / "holdfast" / "chain" / "inventories" / inventory
    arguments = ["-i", str(hosts), "--syntax-check", "holdfast.chain.site"]
    ansible("ansible-playbook", *arguments, collections=installed, cwd=tmp_path)


def test_node_package_is_included_whole(content: Path) -> None:
    """files/node comes along with all it takes to build the wheel and to pin what it needs."""
    ours = {
        path.relative_to(ROOT)
        for path in (ROOT / "files" / "node" / "src").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and ".egg-info" not in str(path)
    }
    assert ours
    missing = [str(path) for path in ours if not (content / path).is_file()]
    assert not missing
    for name in ("pyproject.toml", "requirements.lock", "LICENSE", "README.md"):
        assert (content / "files" / "node" / name).is_file(), name


def test_nothing_of_the_workshop_is_included(content: Path) -> None:
    """No tools, tests, caches or state of the checkout reach users."""
    unwanted = {".git", ".venv", ".holdfast", ".cache", "__pycache__", "molecule", "tests", "bench"}
    found = [str(path) for path in content.rglob("*") if path.name in unwanted]
    assert not found
