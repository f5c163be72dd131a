# Copyright: (c) 2026, Holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Key and genesis of a node; a small program stands in for the node's own."""

from __future__ import annotations

import json
import os
import sys

import pytest

PROGRAM = f"""#!{sys.executable}
import json, os, sys
arguments = sys.argv[1:]
if arguments[:2] == ["keys", "new"]:
    handle = os.open(arguments[3], os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    os.write(handle, b"secret")
if arguments[0] == "keys":
    path = arguments[-1]
    if open(path).read() != "secret":
        sys.exit(path + " is no key")
    print(json.dumps({{"public_key": "ab" * 32, "address": "hfx"}}))
elif "--chain-id" in arguments:
    named = [arguments[i + 1] for i, word in enumerate(arguments) if word == "--validator"]
    if "bad=key" in named:
        sys.exit("--validator bad=key: expected 64 hexadecimal digits")
    made = {{"chain_id": arguments[3],
            "validators": [dict(zip(("name", "public_key"), one.split("="))) for one in named]}}
    open(arguments[arguments.index("--out") + 1], "x").write(json.dumps(made))
"""
GENESIS = json.dumps({"chain_id": "demo", "validators": [{"name": "v1", "public_key": "ab" * 32}]})

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="keys belong to root")


@pytest.fixture
def command(tmp_path):
    path = tmp_path / "bin" / "holdfast-node"
    path.parent.mkdir()
    path.write_text(PROGRAM)
    path.chmod(0o755)
    return str(path)


def test_key_check_apply_apply_check(tmp_path, command, run_module, snapshot):
    key = tmp_path / "etc" / "keys" / "validator.key"
    options = {"path": str(key), "command": command}
    before = snapshot(tmp_path)
    planned = run_module("node_key", options, check=True)
    assert planned["changed"]
    assert planned["public_key"] == ""
    assert snapshot(tmp_path) == before

    made = run_module("node_key", options)
    assert made["changed"]
    assert made["public_key"] == "ab" * 32
    assert made["changes"] == planned["changes"]
    assert key.stat().st_mode & 0o777 == 0o600
    assert key.parent.stat().st_mode & 0o777 == 0o700
    assert "secret" not in made.text

    after = snapshot(tmp_path)
    for check in (False, True):
        again = run_module("node_key", options, check=check)
        assert not again["changed"]
        assert again["public_key"] == "ab" * 32
    assert snapshot(tmp_path) == after


def test_a_key_is_never_replaced(tmp_path, command, run_module):
    key = tmp_path / "keys" / "validator.key"
    key.parent.mkdir(mode=0o700)
    key.write_text("damaged")
    key.chmod(0o600)
    outcome = run_module("node_key", {"path": str(key), "command": command})
    assert outcome.failed
    assert "never replaced" in outcome["msg"]
    assert key.read_text() == "damaged"


def test_a_key_others_can_read_is_closed(tmp_path, command, run_module):
    key = tmp_path / "keys" / "validator.key"
    key.parent.mkdir(mode=0o755)
    key.write_text("secret")
    key.chmod(0o644)
    done = run_module("node_key", {"path": str(key), "command": command})
    assert [change["after"]["mode"] for change in done["changes"]] == ["0700", "0600"]
    assert key.stat().st_mode & 0o777 == 0o600


def test_no_program_is_no_fault_in_check_mode_only(tmp_path, run_module):
    options = {"path": str(tmp_path / "keys" / "k"), "command": "/nowhere/holdfast-node"}
    assert run_module("node_key", options, check=True)["changed"]
    outcome = run_module("node_key", options)
    assert outcome.failed
    assert not (tmp_path / "keys").exists()


def test_genesis_create_check_apply_apply_check(tmp_path, command, run_module, snapshot):
    path = tmp_path / "etc" / "genesis.json"
    options = {
        "path": str(path),
        "command": command,
        "chain_id": "demo",
        "validators": {"v1": "ab" * 32},
        "accounts": {"hfa": 7},
    }
    before = snapshot(tmp_path)
    planned = run_module("node_genesis", options, check=True)
    assert planned["changed"]
    assert not planned["exists"]
    assert snapshot(tmp_path) == before

    made = run_module("node_genesis", options)
    assert made["changed"]
    assert made["content"] == path.read_text()
    assert path.stat().st_mode & 0o777 == 0o644

    after = snapshot(tmp_path)
    for check in (False, True):
        again = run_module("node_genesis", options, check=check)
        assert not again["changed"]
        assert again["content"] == made["content"]
    assert snapshot(tmp_path) == after


def test_genesis_is_installed_as_it_is(tmp_path, run_module):
    path = tmp_path / "genesis.json"
    done = run_module("node_genesis", {"path": str(path), "content": GENESIS + " \n"})
    assert done["changed"]
    assert path.read_text() == GENESIS + " \n"
    assert not run_module("node_genesis", {"path": str(path), "content": GENESIS + " \n"})[
        "changed"
    ]


def test_genesis_is_never_replaced(tmp_path, run_module):
    path = tmp_path / "genesis.json"
    path.write_text(GENESIS)
    outcome = run_module("node_genesis", {"path": str(path), "content": GENESIS + " "})
    assert outcome.failed
    assert "never replaced" in outcome["msg"]
    assert path.read_text() == GENESIS


def test_reading_says_what_there_is(tmp_path, run_module):
    path = tmp_path / "genesis.json"
    assert not run_module("node_genesis", {"path": str(path)})["exists"]
    path.write_text(GENESIS)
    found = run_module("node_genesis", {"path": str(path)})
    assert found["exists"]
    assert not found["changed"]
    assert found["genesis"]["chain_id"] == "demo"


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"validators": []}', '{"validators": [1]}'])
def test_what_is_no_genesis_is_named(tmp_path, run_module, text):
    path = tmp_path / "genesis.json"
    path.write_text(text)
    outcome = run_module("node_genesis", {"path": str(path)})
    assert outcome.failed
    assert f"path = {path}: it is no genesis" in outcome["msg"]


def test_what_the_program_refuses_is_passed_on(tmp_path, command, run_module):
    path = tmp_path / "genesis.json"
    options = {"chain_id": "demo", "validators": {"bad": "key"}, "command": command}
    outcome = run_module("node_genesis", {"path": str(path), **options})
    assert outcome.failed
    assert "bad=key: expected 64" in outcome["msg"]
    assert not path.exists()
