# Copyright: (c) 2026, Holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Gathering on the controller; pip itself is stood in for, since tests have no package index."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest
from ansible_collections.holdfast.chain.plugins.module_utils import bundle

DIGEST = "sha256:" + "ab" * 32
GLIBC = {"python": "3.11", "libc": "glibc", "libc_version": "2.36", "machine": "x86_64"}
MUSL = {**GLIBC, "libc": "musl", "libc_version": "1.2.4"}


class Pip:
    """Does what the Gatherer asks pip for, and keeps the commands."""

    def __init__(self) -> None:
        self.commands: list = []
        self.error = ""

    def __call__(self, command, what):
        self.commands.append(command)
        if self.error and self.error in what:
            raise bundle.GatherError(f"could not {what}: no index")
        if "wheel" in command:
            folder = Path(command[command.index("--wheel-dir") + 1])
            folder.mkdir()
            (folder / "holdfast_node-1.2.3-py3-none-any.whl").write_bytes(b"node")
            return
        folder = Path(command[command.index("--dest") + 1])
        folder.mkdir()
        wanted = Path(command[command.index("--requirement") + 1]).read_text()
        for line in wanted.splitlines():
            name, version = line.split(" ")[0].split("==")
            (folder / f"{name}-{version}-py3-none-any.whl").write_bytes(name.encode())


@pytest.fixture
def pip(monkeypatch):
    stand_in = Pip()
    monkeypatch.setattr(bundle.Gatherer, "_run", lambda _, command, what: stand_in(command, what))
    return stand_in


@pytest.fixture
def options(tmp_path):
    source = tmp_path / "node"
    (source / "src" / "holdfast_node").mkdir(parents=True)
    (source / "src" / "holdfast_node" / "__init__.py").write_text("")
    (source / "pyproject.toml").write_text('[project]\nname = "x"\nversion = "1.2.3"\n')
    (source / "lock").write_text(
        f"anyio==4 --hash={DIGEST}\ntomli==2 ; python_version < '3.11' --hash={DIGEST}\n"
    )
    (source / "tools").write_text(f"pip==26 --hash={DIGEST}\n")
    return {
        "source": str(source),
        "lock": str(source / "lock"),
        "tools": str(source / "tools"),
        "destination": str(tmp_path / "out"),
        "targets": [GLIBC, MUSL],
    }


def test_check_apply_apply_check(options, pip, run_module, snapshot, tmp_path):
    before = snapshot(tmp_path)
    planned = run_module("node_bundle", options, check=True)
    assert planned["changed"]
    assert {found["sha256"] for found in planned["bundles"].values()} == {""}
    assert snapshot(tmp_path) == before
    assert not pip.commands

    done = run_module("node_bundle", options)
    assert done["changed"]
    assert done["release"] == planned["release"]
    assert done["changes"] == planned["changes"]
    assert sorted(done["bundles"]) == ["cp311-glibc2.34-x86_64", "cp311-musl1.2-x86_64"]
    assert snapshot(Path(options["source"])) == {
        path: found for path, found in before.items() if path.startswith(options["source"])
    }, "the source folder must not be written to"

    asked = len(pip.commands)
    after = snapshot(tmp_path)
    for check in (False, True):
        again = run_module("node_bundle", options, check=check)
        assert not again["changed"]
        assert again["bundles"] == done["bundles"]
    assert len(pip.commands) == asked, "what was gathered once must need no index"
    assert snapshot(tmp_path) == after


def test_the_bytes_are_the_same_again(options, pip, run_module, tmp_path):
    first = run_module("node_bundle", options)["bundles"]
    second = run_module("node_bundle", {**options, "destination": str(tmp_path / "two")})
    for target, found in second["bundles"].items():
        assert found["sha256"] == first[target]["sha256"]
        assert Path(found["archive"]).read_bytes() == Path(first[target]["archive"]).read_bytes()


def test_an_archive_has_what_its_target_needs(options, pip, run_module):
    options["targets"] = [{**GLIBC, "python": "3.10"}]
    (found,) = run_module("node_bundle", options)["bundles"].values()
    with tarfile.open(found["archive"]) as archive:
        assert archive.getnames() == [
            "manifest.json",
            "installer/pip-26-py3-none-any.whl",
            "requirements.txt",
            "wheels/anyio-4-py3-none-any.whl",
            "wheels/holdfast_node-1.2.3-py3-none-any.whl",
            "wheels/tomli-2-py3-none-any.whl",
        ]
    download = pip.commands[-1]
    assert download[download.index("--python-version") + 1] == "3.10"
    assert "manylinux2014_x86_64" in download
    for option in ("--require-hashes", "--only-binary=:all:", "--no-deps"):
        assert option in download


def test_equal_targets_are_gathered_once(options, pip, run_module):
    options["targets"] = [GLIBC, {**GLIBC, "libc_version": "2.35"}, {**GLIBC, "key": "x"}]
    assert len(run_module("node_bundle", options)["bundles"]) == 1
    assert len(pip.commands) == 3


def test_a_damaged_archive_is_gathered_again(options, pip, run_module):
    found = run_module("node_bundle", options)["bundles"]["cp311-musl1.2-x86_64"]
    Path(found["archive"]).write_bytes(b"cut short")
    again = run_module("node_bundle", options)
    assert [change["reason"] for change in again["changes"]] == ["it is not what was once gathered"]
    assert again["bundles"]["cp311-musl1.2-x86_64"] == found


@pytest.mark.parametrize("error", ["download pip", "build the node", "wheels for cp311-musl"])
def test_a_failure_leaves_no_archive_at_all(options, pip, run_module, tmp_path, error):
    pip.error = error
    outcome = run_module("node_bundle", options)
    assert outcome.failed
    assert "no index" in outcome["msg"]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("different", "said"),
    [
        ({"source": "/nowhere"}, "source = /nowhere"),
        ({"lock": "/nowhere"}, "/nowhere: No such file"),
        ({"targets": [{**GLIBC, "machine": "s390x"}]}, "machine = s390x"),
        ({"targets": [{**GLIBC, "python": "3.8"}]}, "python = 3.8"),
        ({"targets": [{**GLIBC, "libc_version": "new"}]}, "'new' is no version"),
    ],
)
def test_wrong_options_are_named(options, pip, run_module, different, said):
    outcome = run_module("node_bundle", {**options, **different})
    assert outcome.failed
    assert said in outcome["msg"]
    assert not pip.commands
