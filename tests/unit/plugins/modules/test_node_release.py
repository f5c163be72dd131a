# Copyright: (c) 2026, Holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Releases on a host: installed for real from a small archive, without a network."""

from __future__ import annotations

import ensurepip
import hashlib
import json
import sys
import sysconfig
from pathlib import Path

import bundles
import pytest
from ansible_collections.holdfast.chain.plugins.module_utils import bundle_format, release

PYTHON = "{}.{}".format(*sys.version_info[:2])
# a distribution may keep it elsewhere, for all its Pythons
WHEELS = sysconfig.get_config_var("WHEEL_PKG_DIR") or Path(ensurepip.__file__).parent / "_bundled"
PIP = sorted(Path(WHEELS).glob("pip-*.whl"))
STARTS = "import sys\ndef main():\n    print('holdfast-node, version 1.0')\n"

pytestmark = pytest.mark.skipif(not PIP, reason="this Python comes without pip's own wheel")


def wheel(program: str) -> bytes:
    """A wheel of holdfast-node 1.0 with this as its program."""
    return bundles.wheel(
        "holdfast-node",
        "1.0",
        files={
            "holdfast_node/__init__.py": program,
            "holdfast_node-1.0.dist-info/entry_points.txt": "[console_scripts]\n"
            "holdfast-node = holdfast_node:main\n",
        },
    )


@pytest.fixture
def make(tmp_path):
    """make(release): the options that install it, from an archive made here."""

    def made(name: str = "1.0-a", program: str = STARTS, python: str = PYTHON, **different):
        content = wheel(program)
        files = {
            "wheels/holdfast_node-1.0-py3-none-any.whl": content,
            "installer/" + PIP[-1].name: PIP[-1].read_bytes(),
            "requirements.txt": b"holdfast-node==1.0 --hash=sha256:%s\n"
            % hashlib.sha256(content).hexdigest().encode(),
        }
        about = {"release": name, "version": "1.0", "python": python, "target": "test"}
        path = tmp_path / (name + ".tar")
        path.write_bytes(bundle_format.pack(about, files))
        bundles.sign(path)
        options = {
            "release": name,
            "public_key": bundles.ONE.public_key,
            "archive": str(path),
            "sha256": bundle_format.sha256_of(path),
            "base": str(tmp_path / "opt"),
            "python": sys.executable,
            "state": "active",
        }
        return {**options, **different}

    return made


@pytest.fixture
def installed(tmp_path):
    """Release 1.0-a, as good as installed and active; returns a picture of it."""
    folder = tmp_path / "opt" / "releases" / "1.0-a"
    folder.mkdir(parents=True)
    (folder / "release.json").write_text(json.dumps({"sha256": "a" * 64, "installed_at": 1}))
    (tmp_path / "opt" / "current").symlink_to("releases/1.0-a")

    def same() -> bool:
        base = folder.parents[1]
        return (
            (base / "current").resolve() == folder
            and sorted(path.name for path in base.iterdir()) == ["current", "releases"]
            and [path.name for path in folder.parent.iterdir()] == ["1.0-a"]
            and [path.name for path in folder.iterdir()] == ["release.json"]
        )

    assert same()
    return same


@pytest.fixture
def quick(monkeypatch):
    """Installs nothing but the marker, for what is not about installing."""
    monkeypatch.setattr(
        release.Installer,
        "_install",
        lambda self, folder, _: (
            folder.mkdir(),
            (folder / "release.json").write_text(
                json.dumps({"sha256": self._sha256, "installed_at": self._now})
            ),
        ),
    )


def test_check_apply_apply_check(make, run_module, snapshot, tmp_path):
    options, base = make(), tmp_path / "opt"
    before = snapshot(tmp_path)
    planned = run_module("node_release", options, check=True)
    assert planned["changed"]
    assert planned["current"] == "1.0-a"
    assert snapshot(tmp_path) == before

    done = run_module("node_release", options)
    assert done["changed"]
    assert done["changes"] == planned["changes"]
    assert done["releases"] == ["1.0-a"]
    program = (base / "current" / "bin" / "holdfast-node").resolve()
    assert program == base / "releases" / "1.0-a" / "bin" / "holdfast-node"
    assert not (base / "releases" / "1.0-a" / "bin" / "pip").exists()
    assert (base / "releases" / "1.0-a").stat().st_mode & 0o777 == 0o755

    after = snapshot(base)
    for check in (False, True):
        again = run_module("node_release", options, check=check)
        assert not again["changed"]
        assert again["previous"] == "1.0-a"
    assert snapshot(base) == after


@pytest.mark.parametrize(
    ("program", "said"),
    [
        ("def main():\n    raise SystemExit('cannot start')\n", "cannot start"),
        ("def main():\n    print('version 2.0')\n", "expected 1.0"),
    ],
)
def test_a_release_that_does_not_start_is_never_activated(
    make, run_module, installed, program, said
):
    outcome = run_module("node_release", make("1.0-b", program))
    assert outcome.failed
    assert said in outcome["msg"]
    assert installed()


def test_a_wrong_hash_changes_nothing(make, run_module, tmp_path):
    outcome = run_module("node_release", make(sha256="0" * 64))
    assert outcome.failed
    assert "sha256 = 000" in outcome["msg"]
    assert not (tmp_path / "opt").exists()


def test_a_broken_archive_with_the_right_hash_changes_nothing(make, run_module, tmp_path):
    options = make()
    path = Path(options["archive"])
    path.write_bytes(path.read_bytes()[:70000])
    bundles.sign(path)
    outcome = run_module("node_release", {**options, "sha256": bundle_format.sha256_of(path)})
    assert outcome.failed
    assert "no intact bundle" in outcome["msg"]
    assert not (tmp_path / "opt").exists()


@pytest.mark.parametrize(
    ("different", "said"),
    [
        ({"python": "2.7"}, "made for 2.7"),
        ({"release": "1.0-other"}, "release = 1.0-other: the archive holds 1.0-a"),
        ({"archive": "/nowhere.tar"}, "archive = /nowhere.tar: there is no such file"),
        ({"keep": 1}, "keep = 1: expected at least 2"),
        ({"release": "../evil"}, "release = ../evil: expected letters"),
        ({"sha256": None}, "give its archive (src) and its sha256"),
        ({"public_key": None}, "the host has no key pinned to check its signature with"),
        ({"public_key": "x"}, "public_key = x: expected 64 hexadecimal digits"),
        ({"trusted_keys": ["X"]}, "trusted_keys = X: expected 64 hexadecimal digits"),
        ({"public_key": bundles.OTHER.public_key}, "signed by the unknown key"),
    ],
)
def test_wrong_options_are_named_and_change_nothing(make, run_module, tmp_path, different, said):
    python = {"python": different.pop("python")} if "python" in different else {}
    outcome = run_module("node_release", {**make(**python), **different})
    assert outcome.failed
    assert said in outcome["msg"]
    assert not (tmp_path / "opt").exists()


def test_a_full_disk_takes_everything_back(make, run_module, installed, monkeypatch):
    def full(_, folder, scratch):
        (folder / "lib").mkdir(parents=True)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(release.Installer, "_install", full)
    outcome = run_module("node_release", make("1.0-b"))
    assert outcome.failed
    assert "No space left on device" in outcome["msg"]
    assert not outcome["changed"]
    assert installed()


def test_a_link_that_cannot_be_swapped_takes_the_release_back(
    make, run_module, installed, quick, monkeypatch
):
    def refuse(*_):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(release.Transaction, "symlink", refuse)
    outcome = run_module("node_release", make("1.0-b"))
    assert outcome.failed
    assert "Taken back: install release 1.0-b" in outcome["msg"]
    assert installed()


def test_retention_and_going_back(make, run_module, quick, tmp_path):
    for name in ("1.0-a", "1.0-b", "1.0-c", "1.0-d"):
        done = run_module("node_release", make(name, keep=3))
    assert done["releases"] == ["1.0-b", "1.0-c", "1.0-d"]
    back = run_module(
        "node_release",
        {"release": "1.0-b", "state": "active", "base": str(tmp_path / "opt"), "keep": 3},
    )
    assert back["changed"]
    assert back["current"] == "1.0-b"
    assert back["previous"] == "1.0-d"
    assert (tmp_path / "opt" / "current" / "release.json").exists()


def test_what_a_crash_left_is_removed(make, run_module, quick, tmp_path):
    cut = tmp_path / "opt" / "releases" / "1.0-a"
    cut.mkdir(parents=True)
    (cut / "half").write_text("")
    (tmp_path / "opt" / ".holdfast-new-x-current").symlink_to("nowhere")
    done = run_module("node_release", make())
    assert {change["reason"] for change in done["changes"]} == {
        "an earlier installation was cut short",
        "it is to be active",
        "releases are taken from the key of the first one",
        "left by a run that was cut short",
    }
    assert not (cut / "half").exists()
    names = ["current", "release.keys", "releases"]
    assert sorted(path.name for path in (tmp_path / "opt").iterdir()) == names


def pinned(tmp_path: Path) -> list:
    return (tmp_path / "opt" / "release.keys").read_text().split()


def test_the_first_release_pins_its_key(make, run_module, quick, tmp_path):
    done = run_module("node_release", make())
    assert done["trusted_keys"] == pinned(tmp_path) == [bundles.ONE.public_key]
    assert (tmp_path / "opt" / "release.keys").stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("key", [bundles.ONE, bundles.OTHER])
def test_a_release_of_another_key_is_refused_once_one_is_pinned(make, run_module, quick, key):
    """Also if it comes with its own key, as a controller that lost its key would give it."""
    run_module("node_release", make())
    options = make("1.0-b", public_key=key.public_key)
    bundles.sign(Path(options["archive"]), bundles.OTHER)
    outcome = run_module("node_release", options)
    assert outcome.failed
    assert "release = 1.0-b: " in outcome["msg"]
    assert f"signed by the unknown key {bundles.OTHER.public_key}" in outcome["msg"]
    assert "node_bundle_public_keys" in outcome["msg"]
    after = run_module("node_release", make())
    assert not after["changed"]
    assert (after["releases"], after["trusted_keys"]) == (["1.0-a"], [bundles.ONE.public_key])


def test_a_rollover_of_the_key(make, run_module, quick, tmp_path):
    run_module("node_release", make())
    other, one = bundles.OTHER.public_key, bundles.ONE.public_key
    both = run_module("node_release", make(trusted_keys=[other, one]))
    assert [change["before"] for change in both["changes"]] == [[one]]
    assert pinned(tmp_path) == [other, one]
    options = make("1.0-b", public_key=other)
    bundles.sign(Path(options["archive"]), bundles.OTHER)
    assert run_module("node_release", options)["current"] == "1.0-b"
    last = run_module("node_release", {**options, "trusted_keys": [other]})
    assert last["trusted_keys"] == pinned(tmp_path) == [other]
    assert not run_module("node_release", {**options, "trusted_keys": [other]})["changed"]


def test_without_its_signature_nothing_is_installed(make, run_module, tmp_path):
    options = make()
    Path(options["archive"] + ".sig").unlink()
    outcome = run_module("node_release", options)
    assert outcome.failed
    assert "1.0-a.tar.sig: No such file or directory" in outcome["msg"]
    assert not (tmp_path / "opt").exists()


def test_damaged_pins_are_named_not_replaced(make, run_module, quick, tmp_path):
    run_module("node_release", make())
    pins = tmp_path / "opt" / "release.keys"
    pins.write_text("cut sho")
    outcome = run_module("node_release", make("1.0-b"))
    assert outcome.failed
    assert f"{pins} = cut: expected 64 hexadecimal digits" in outcome["msg"]
    assert pins.read_text() == "cut sho"
