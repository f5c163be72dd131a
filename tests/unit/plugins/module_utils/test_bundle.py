# Copyright: (c) 2026, Holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What goes into a release: its inputs, its name, and the lock file's entries for a platform."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from ansible_collections.holdfast.chain.plugins.module_utils.bundle import (
    GatherError,
    Inputs,
    parse_lock,
    read_inputs,
    select,
)
from ansible_collections.holdfast.chain.plugins.module_utils.platforms import parse_target

NODE = Path(__file__).resolve().parents[4] / "files" / "node"
DIGEST = "sha256:" + "ab" * 32
LOCK = f"""\
# a comment
anyio==4.16.0 \\
    --hash={DIGEST} \\
    --hash={DIGEST}
    # via starlette
tomli==2.5.0 ; python_full_version < '3.11' --hash={DIGEST}
uvloop==0.23.0 ; platform_machine == 'x86_64' \\
    --hash={DIGEST}
"""


def environment(**different: str) -> dict:
    host = {"python": "3.11", "libc": "glibc", "libc_version": "2.36", "machine": "x86_64"}
    return parse_target({**host, **different}).markers()


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "node"
    (folder / "src" / "package").mkdir(parents=True)
    (folder / "pyproject.toml").write_text('[build-system]\n[project]\nversion = "1.2.3"\n')
    (folder / "src" / "package" / "__init__.py").write_text("")
    (folder / "lock").write_text(LOCK)
    return folder


def inputs(folder: Path) -> Inputs:
    return read_inputs(folder, folder / "lock", folder / "lock")


def test_entries_of_a_lock_file():
    names = [entry.requirement for entry in parse_lock(LOCK, "lock")]
    assert names == ["anyio==4.16.0", "tomli==2.5.0", "uvloop==0.23.0"]
    assert parse_lock(LOCK, "lock")[0].line() == f"anyio==4.16.0 --hash={DIGEST} --hash={DIGEST}"


@pytest.mark.parametrize(
    ("host", "names"),
    [
        ({}, ["anyio", "uvloop"]),
        ({"python": "3.10"}, ["anyio", "tomli", "uvloop"]),
        ({"machine": "aarch64"}, ["anyio"]),
    ],
)
def test_markers_are_those_of_the_host_not_of_the_controller(host, names):
    chosen = select(parse_lock(LOCK, "lock"), environment(**host))
    assert [entry.requirement.split("==")[0] for entry in chosen] == names


@pytest.mark.parametrize(
    "line", ["anyio>=4", "anyio==4.16.0", "-r other.txt", "anyio @ https://x/y.whl"]
)
def test_what_is_not_pinned_and_hashed_is_refused(line):
    with pytest.raises(GatherError):
        parse_lock(line + "\n", "lock")


def test_the_release_is_named_after_all_that_goes_in(source):
    before = inputs(source).release
    assert before.startswith("1.2.3-")
    assert inputs(source).release == before
    for name in ("pyproject.toml", "src/package/__init__.py", "lock"):
        content = (source / name).read_text()
        (source / name).write_text(content + "# more\n")
        assert inputs(source).release != before
        (source / name).write_text(content)
    (source / "src" / "package" / "new.py").write_text("")
    assert inputs(source).release != before


def test_what_does_not_go_into_the_wheel_does_not_change_the_release(source):
    before = inputs(source).release
    for name in (
        "tests/test_x.py",
        "src/package/__pycache__/x.cpython-311.pyc",
        "src/x.egg-info/PKG",
        "src/package/.x.swp",
    ):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text("x")
    assert inputs(source).release == before


def test_the_release_is_the_same_from_another_place(source, tmp_path):
    copy = tmp_path / "elsewhere" / "node"
    shutil.copytree(str(source), str(copy))
    (copy / "pyproject.toml").chmod(0o600)
    assert inputs(copy).release == inputs(source).release


def test_a_folder_that_is_no_package_is_named(tmp_path):
    with pytest.raises(GatherError, match=r"source = .*no pyproject\.toml"):
        read_inputs(tmp_path, tmp_path, tmp_path)


def test_a_missing_lock_is_named(source):
    (source / "lock").unlink()
    with pytest.raises(GatherError, match="lock: No such file"):
        inputs(source)


@pytest.mark.parametrize("host", [{}, {"python": "3.10"}, {"libc": "musl", "libc_version": "1.2"}])
def test_the_node_s_own_lock_files_can_be_read(host):
    found = read_inputs(NODE, NODE / "requirements.lock", NODE / "tools.lock")
    names = [
        entry.requirement.split("==")[0]
        for entry in select(parse_lock(found.lock.decode(), "lock"), environment(**host))
    ]
    assert "msgspec" in names
    assert ("tomli" in names) == (host.get("python") == "3.10")
    assert len(names) == len(set(names))
