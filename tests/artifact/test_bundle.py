# SPDX-License-Identifier: GPL-3.0-or-later
"""A release made for real, twice, from the package index; then installed where there is none."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
COLLECTIONS = ROOT / ".holdfast" / "collections"
BIN = Path(sys.executable).parent
# Making one takes half a minute, and several on a machine that does other things.
pytestmark = pytest.mark.timeout(600)
NO_INDEX = {"PIP_NO_INDEX": "1", "PIP_INDEX_URL": "http://127.0.0.1:9/", "PIP_FIND_LINKS": ""}


def run(playbook: str, place: Path, *words: str, umask: int = 0o022, **variables: str) -> str:
    """Run a playbook from another folder, with a home of its own; its output."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")}
    env["ANSIBLE_COLLECTIONS_PATH"] = str(COLLECTIONS)
    # so that neither a cache nor a key of whoever runs the tests has a part in it
    env.update(HOME=str(place), PIP_NO_CACHE_DIR="1", COLUMNS="200", **variables)
    command = [str(BIN / "ansible-playbook"), "-i", "localhost,", playbook, *words]
    done = subprocess.run(
        command, cwd=place, env=env, umask=umask, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def gathered(place: Path, target: str, umask: int) -> Path:
    """A folder of bundles for one target, as `make bundle` makes it."""
    place.mkdir()
    options = json.dumps({"bundle_directory": str(place / "out"), "bundle_platforms": target})
    run("holdfast.chain.bundle", place, "-e", options, umask=umask)
    return place / "out"


@pytest.fixture(scope="module")
def target() -> str:
    """This machine's, by the same judgement as for any host."""
    ask = "from ansible_collections.holdfast.chain.plugins.module_utils import host; import sys; "
    ask += "print(host.describe(sys.executable, [])['target']['key'])"
    env = {**os.environ, "PYTHONPATH": str(COLLECTIONS)}
    command = [sys.executable, "-c", ask]
    return subprocess.run(
        command, env=env, capture_output=True, text=True, check=True
    ).stdout.strip()


@pytest.fixture(scope="module")
def carried(tmp_path_factory: pytest.TempPathFactory, target: str) -> Path:
    """A folder that came over an air gap."""
    return gathered(tmp_path_factory.mktemp("one") / "home", target, 0o022)


def archive(folder: Path) -> Path:
    """The one archive in a folder."""
    (found,) = folder.glob("*.tar")
    return found


def key(folder: Path) -> str:
    """The key it is signed with."""
    seal: dict[str, str] = json.loads(Path(f"{archive(folder)}.sig").read_text())
    return seal["public_key"]


def test_made_twice_it_is_the_same_byte_for_byte(
    carried: Path, target: str, tmp_path: Path
) -> None:
    """Another folder, another home, another umask, another key: the same archive."""
    second = gathered(tmp_path / "another home", target, 0o077)
    assert archive(second).name == archive(carried).name
    assert archive(second).read_bytes() == archive(carried).read_bytes()
    assert key(second) != key(carried)


def test_its_list_of_packages_is_valid_and_complete(carried: Path, tmp_path: Path) -> None:
    """As judged by an independent program; every wheel stands in it with a licence or a remark."""
    with tarfile.open(archive(carried)) as opened:
        stream = opened.extractfile("sbom.spdx.json")
        assert stream
        content = stream.read()
        wheels = {name for name in opened.getnames() if name.endswith(".whl")}
    path = tmp_path / "sbom.spdx.json"
    path.write_bytes(content)
    # The validator's own libraries warn about each other; that is not what is tested.
    command = [sys.executable, "-W", "ignore", "-m", "spdx_tools.spdx.clitools.pyspdxtools"]
    done = subprocess.run(
        [*command, "--version", "SPDX-2.3", "-i", str(path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    packages: list[dict[str, Any]] = json.loads(content)["packages"]
    assert {package.get("packageFileName") for package in packages} - {None} == wheels
    for package in packages:
        if "packageFileName" in package:
            said = package["licenseDeclared"] != "NOASSERTION" or package["licenseComments"]
            assert said, package["name"]


def test_a_standard_tool_verifies_its_signature(carried: Path, tmp_path: Path) -> None:
    """As docs/packaging.md says it is done without Holdfast."""
    with tarfile.open(archive(carried)) as opened:
        stream = opened.extractfile("manifest.json")
        assert stream
        (tmp_path / "manifest").write_bytes(stream.read())
    seal = json.loads(Path(f"{archive(carried)}.sig").read_text())
    # RFC 8410: an Ed25519 public key as SubjectPublicKeyInfo
    der = bytes.fromhex("302a300506032b6570032100" + seal["public_key"])
    (tmp_path / "key").write_bytes(der)
    (tmp_path / "signature").write_bytes(bytes.fromhex(seal["signature"]))
    command = ["openssl", "pkeyutl", "-verify", "-pubin", "-keyform", "DER", "-inkey", "key"]
    command += ["-rawin", "-in", "manifest", "-sigfile", "signature"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_it_installs_where_there_is_no_index(carried: Path, target: str, tmp_path: Path) -> None:
    """What the role's tasks do, with a base that is no system folder; the program starts."""
    base = tmp_path / "opt"
    taken = {"carried": str(carried), "trusted_keys": [key(carried)], "targets": [{"key": target}]}
    bundle = "bundle.bundles[" + json.dumps(target) + "]"
    release = {
        "release": "{{ bundle.release }}",
        "src": "{{ " + bundle + ".archive }}",
        "sha256": "{{ " + bundle + ".sha256 }}",
        "public_key": "{{ bundle.public_key }}",
        "python": sys.executable,
        "base": str(base),
        "state": "active",
    }
    play = {
        "hosts": "localhost",
        "connection": "local",
        "gather_facts": False,
        "vars": {"ansible_python_interpreter": sys.executable},
        "tasks": [
            {"name": "take", "holdfast.chain.node_bundle": taken, "register": "bundle"},
            {"name": "install", "holdfast.chain.node_release": release},
        ],
    }
    (tmp_path / "play.yml").write_text(json.dumps([play]))
    run(str(tmp_path / "play.yml"), tmp_path, **NO_INDEX)
    program = base / "current" / "bin" / "holdfast-node"
    said = subprocess.run([program, "--version"], capture_output=True, text=True, check=True)
    assert said.stdout.startswith("holdfast-node ")
    assert (base / "release.keys").read_text().split() == [key(carried)]


def test_the_role_takes_what_was_carried(carried: Path, tmp_path: Path) -> None:
    """In check mode, since it is for hosts: the release is found, verified and planned."""
    role = {"name": "holdfast.chain.node", "tasks_from": "install"}
    play = {
        "hosts": "localhost",
        "connection": "local",
        "gather_facts": True,
        "vars": {
            "ansible_python_interpreter": sys.executable,
            "chain_id": "test",
            "chain_trust_domain": "example.org",
            "node_python": sys.executable,
            "node_bundle_carried": str(carried),
            "node_bundle_public_keys": [key(carried)],
            "node_members": [],
        },
        "tasks": [{"name": "install", "ansible.builtin.include_role": role}],
    }
    (tmp_path / "play.yml").write_text(json.dumps([play]))
    output = run(str(tmp_path / "play.yml"), tmp_path, "--check", "--diff", **NO_INDEX)
    release = archive(carried).name.split("-cp")[0].split("holdfast-node-")[1]
    assert f"/opt/holdfast/releases/{release}" in output
    assert key(carried) in output
