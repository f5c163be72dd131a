# Copyright: (c) 2026, Holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Gathering on the controller; pip itself is stood in for, since tests have no package index."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import pytest
from ansible_collections.holdfast.chain.plugins.module_utils import bundle
from bundles import wheel
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

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
            (folder / "holdfast_node-1.2.3-py3-none-any.whl").write_bytes(
                wheel("holdfast-node", "1.2.3", "Requires-Dist: anyio\n")
            )
            return
        folder = Path(command[command.index("--dest") + 1])
        folder.mkdir()
        wanted = Path(command[command.index("--requirement") + 1]).read_text()
        for line in wanted.splitlines():
            name, version = line.split(" ")[0].split("==")
            (folder / f"{name}-{version}-py3-none-any.whl").write_bytes(wheel(name, version))


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
        "signing_key": str(tmp_path / "keys" / "release.key"),
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
            "sbom.spdx.json",
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
        ({"targets": [{"python": "3.11", "libc": "musl"}]}, "expected a key, or all of"),
        ({"targets": [{"key": "debian-12"}]}, "key = debian-12: expected a name such as cp311-"),
        ({"signing_key": None}, "missing parameter(s) required by 'source': signing_key"),
        ({"carried": "/srv"}, "mutually exclusive: source|carried"),
        ({"targets": [{**GLIBC, "libc_version": "new"}]}, "'new' is no version"),
    ],
)
def test_wrong_options_are_named(options, pip, run_module, different, said):
    outcome = run_module("node_bundle", {**options, **different})
    assert outcome.failed
    assert said in outcome["msg"]
    assert not pip.commands


def test_a_target_can_be_given_by_its_name(options, pip, run_module):
    options["targets"] = [{"key": "cp312-musl1.2-aarch64"}]
    assert list(run_module("node_bundle", options)["bundles"]) == ["cp312-musl1.2-aarch64"]


def test_the_key_is_made_once_for_its_owner_alone_and_never_shown(options, pip, run_module):
    done = run_module("node_bundle", options)
    key = Path(options["signing_key"])
    assert key.stat().st_mode & 0o777 == 0o600
    assert key.parent.stat().st_mode & 0o777 == 0o700
    secret = key.read_text()
    assert "".join(secret.splitlines()[1:-1]) not in done.text
    for found in done["bundles"].values():
        beside = json.loads(Path(found["archive"] + ".sig").read_text())
        assert beside["public_key"] == done["public_key"]
    options["targets"] = [{**GLIBC, "python": "3.12"}]
    assert run_module("node_bundle", options)["public_key"] == done["public_key"]
    assert key.read_text() == secret


def test_another_key_signs_again_and_changes_no_archive(options, pip, run_module, tmp_path):
    first = run_module("node_bundle", options)
    asked = len(pip.commands)
    options["signing_key"] = str(tmp_path / "keys" / "other.key")
    second = run_module("node_bundle", options)
    assert second["public_key"] != first["public_key"]
    assert second["bundles"] == first["bundles"]
    assert {change["reason"] for change in second["changes"]} == {
        "releases are signed, and there is no key yet",
        "it has no signature by this key",
    }
    assert len(pip.commands) == asked, "a signature needs no index"
    assert not run_module("node_bundle", options)["changed"]


def test_a_lost_or_forged_signature_is_made_again(options, pip, run_module):
    done = run_module("node_bundle", options)
    lost, forged = (Path(found["archive"] + ".sig") for found in done["bundles"].values())
    before = lost.read_bytes(), forged.read_bytes()
    lost.unlink()
    content = json.loads(forged.read_text())
    forged.write_text(json.dumps({**content, "signature": "0" * 128}))
    assert len(run_module("node_bundle", options)["changes"]) == 2
    assert (lost.read_bytes(), forged.read_bytes()) == before


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ((None, 0o640), "mode 0640 lets others at it, expected 0600"),
        (("no key", 0o600), "expected an unencrypted private key as PKCS#8 PEM"),
        (("p256", 0o600), "expected an Ed25519 key"),
    ],
)
def test_a_key_that_cannot_be_used_is_named_and_kept(options, pip, run_module, fault, said):
    content, mode = fault
    run_module("node_bundle", options)
    key = Path(options["signing_key"])
    if content == "p256":
        formats = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        other = ec.generate_private_key(ec.SECP256R1())
        content = other.private_bytes(serialization.Encoding.PEM, *formats).decode()
    if content:
        key.write_text(content)
    key.chmod(mode)
    before = key.read_bytes()
    outcome = run_module("node_bundle", options)
    assert outcome.failed
    assert f"signing_key = {key}: " in outcome["msg"]
    assert said in outcome["msg"]
    assert key.read_bytes() == before


def test_a_failure_takes_a_new_key_back(options, pip, run_module):
    pip.error = "build the node"
    assert run_module("node_bundle", options).failed
    assert not Path(options["signing_key"]).exists()


@pytest.fixture
def carried(options, pip, run_module):
    """Options that take what was gathered before, and the key it is signed with."""
    done = run_module("node_bundle", options)
    return {
        "carried": options["destination"],
        "trusted_keys": [done["public_key"]],
        "targets": options["targets"],
    }, done


def test_what_was_carried_is_taken_without_an_index_or_a_change(
    carried, pip, run_module, snapshot, tmp_path
):
    options, gathered = carried
    before, asked = snapshot(tmp_path), len(pip.commands)
    for check in (True, False):
        found = run_module("node_bundle", options, check=check)
        assert not found["changed"]
        for name in ("release", "version", "public_key", "bundles"):
            assert found[name] == gathered[name]
    assert (snapshot(tmp_path), len(pip.commands)) == (before, asked)


def test_with_no_target_known_yet_the_release_is_that_of_all_that_was_carried(carried, run_module):
    options, gathered = carried
    found = run_module("node_bundle", {**options, "targets": []})
    assert (found["release"], found["bundles"]) == (gathered["release"], gathered["bundles"])


def damage(path: Path, place: bytes) -> None:
    content = bytearray(path.read_bytes())
    content[content.rindex(place)] ^= 1
    path.write_bytes(bytes(content))


@pytest.mark.parametrize(
    ("do", "said"),
    [
        (lambda tar: damage(tar, b"Name: anyio"), "wrong hash of wheels/anyio-4-py3-none-any.whl"),
        (lambda tar: damage(tar, b'"spdxVersion"'), "wrong hash of sbom.spdx.json"),
        (lambda tar: damage(tar, b'"python": "3.11"'), "wrong signature: manifest.json"),
        (lambda tar: damage(Path(f"{tar}.sig"), b'"signature"'), ".sig: it is no signature"),
        (lambda tar: Path(f"{tar}.sig").unlink(), ".sig: No such file or directory"),
        (lambda tar: tar.write_bytes(tar.read_bytes()[:4096]), "no intact bundle"),
        (
            lambda tar: tar.unlink(),
            "no bundle for cp311-musl1.2-x86_64, only for cp311-glibc2.34-x86_64; make them with "
            "'make bundle PLATFORMS=\"cp311-glibc2.34-x86_64 cp311-musl1.2-x86_64\"'",
        ),
        (
            lambda tar: tar.write_bytes(
                tar.with_name(tar.name.replace("musl1.2", "glibc2.34")).read_bytes()
            ),
            "wrong signature",
        ),
        (
            lambda tar: tar.with_name(tar.name.replace("1.2.3", "1.2.4")).write_bytes(b""),
            "several releases for cp311-musl1.2-x86_64",
        ),
    ],
)
def test_what_was_damaged_on_its_way_is_refused_by_name(carried, run_module, do, said):
    options, gathered = carried
    do(Path(gathered["bundles"]["cp311-musl1.2-x86_64"]["archive"]))
    outcome = run_module("node_bundle", options)
    assert outcome.failed
    assert said in outcome["msg"]


def test_a_bundle_under_the_name_of_another_is_refused(carried, run_module):
    options, gathered = carried
    glibc = Path(gathered["bundles"]["cp311-glibc2.34-x86_64"]["archive"])
    musl = Path(gathered["bundles"]["cp311-musl1.2-x86_64"]["archive"])
    for suffix in ("", ".sig"):
        Path(f"{musl}{suffix}").write_bytes(Path(f"{glibc}{suffix}").read_bytes())
    outcome = run_module("node_bundle", options)
    assert "it is made for cp311-glibc2.34-x86_64" in outcome["msg"]


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ([], "trusted_keys = []: expected the public key"),
        (["f" * 64], "signed by the unknown key"),
        (["key"], "trusted_keys = key: expected 64 hexadecimal digits"),
    ],
)
def test_what_is_signed_by_nobody_who_is_known_is_refused(carried, run_module, keys, said):
    options, _gathered = carried
    outcome = run_module("node_bundle", {**options, "trusted_keys": keys})
    assert outcome.failed
    assert said in outcome["msg"]


def test_bundles_of_several_runs_are_refused(carried, options, run_module, tmp_path):
    taking, gathered = carried
    musl = gathered["bundles"]["cp311-musl1.2-x86_64"]["archive"]
    other = {**options, "signing_key": str(tmp_path / "keys" / "other.key"), "targets": [MUSL]}
    second = run_module("node_bundle", other)["public_key"]
    keys = [gathered["public_key"], second]
    outcome = run_module("node_bundle", {**taking, "trusted_keys": keys})
    assert f"{musl}: it is of another key than" in outcome["msg"]
