#!/usr/bin/python
# Copyright: (c) 2026, Holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: node_genesis
short_description: The genesis of a chain on a host, created once and the same everywhere
version_added: 0.1.0
author:
  - Holdfast contributors (@holdfast)
description:
  - Reads the genesis a host has, installs the one given, or creates one from the keys of all
    validators with C(holdfast-node genesis create).
  - A genesis is never overwritten. One that is there and differs from O(content) is a failure.
options:
  path:
    description: The genesis file. Its folder is made if missing.
    type: path
    required: true
  content:
    description: The text to install. Excludes O(validators).
    type: str
  validators:
    description: Public keys (hexadecimal) by name. Creates a genesis of them if there is none.
    type: dict
  chain_id:
    description: The chain's id. Needed with O(validators).
    type: str
  accounts:
    description: Opening balances by address.
    type: dict
    default: {}
  command:
    description: The node's program.
    type: path
    default: /opt/holdfast/current/bin/holdfast-node
attributes:
  check_mode:
    support: full
    description: Says what would be installed or created. RV(content) is empty while there is none.
  diff_mode:
    support: full
    description: Shows the SHA-256 of the file.
  idempotent:
    support: full
    description: A genesis that is there stays.
  platform:
    support: full
    description: Linux.
    platforms: linux
"""

EXAMPLES = r"""
- name: See what there is
  holdfast.chain.node_genesis:
    path: /etc/holdfast/v1/genesis.json
  register: genesis

- name: Create it
  holdfast.chain.node_genesis:
    path: /etc/holdfast/v1/genesis.json
    chain_id: demo
    validators:
      v1: 3b6a27bcceb6a42d62a3a8d02a6f0d73653215771de243a63ac048a18b59da29
  register: created
"""

RETURN = r"""
exists:
  description: Whether there is one afterwards.
  returned: success
  type: bool
content:
  description: Its text, as it is.
  returned: success
  type: str
genesis:
  description: The same, decoded.
  returned: success
  type: dict
changes:
  description: What was, or would be, written and why.
  returned: success
  type: list
  elements: dict
"""

import hashlib
import json
import tempfile
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.holdfast.chain.plugins.module_utils.plan import Change, Plan
from ansible_collections.holdfast.chain.plugins.module_utils.transaction import (
    Transaction,
    TransactionError,
)


class GenesisError(Exception):
    """The genesis cannot be what is asked for; the message says why and the way out."""


def read(path):
    """(text, decoded) of the genesis at path; (None, {}) if there is none."""
    try:
        text = path.read_text()
    except FileNotFoundError:
        return None, {}
    except (OSError, UnicodeDecodeError) as error:
        raise GenesisError(f"path = {path}: {error}") from error
    try:
        decoded = json.loads(text)
        named = [(item["name"], item["public_key"]) for item in decoded["validators"]]
    except (ValueError, KeyError, TypeError) as error:
        raise GenesisError(
            f"path = {path}: it is no genesis ({type(error).__name__}: {error}); restore it from "
            "another host of the network"
        ) from error
    if not named or "chain_id" not in decoded:
        raise GenesisError(
            f"path = {path}: it is no genesis: no validators or no chain_id; restore it "
            "from another host of the network"
        )
    return text, decoded


def plan(path, text, options):
    """At most one change: the file appears; pure. Raises GenesisError if it would be replaced."""
    wanted = options["content"]
    if text is not None:
        if wanted is not None and wanted != text:
            raise GenesisError(
                f"path = {path}: it has another genesis (SHA-256 {_sha256(text)}) than the one to "
                f"install ({_sha256(wanted)}), and a genesis is never replaced"
            )
        return Plan()
    if wanted is not None:
        return Plan([Change(str(path), None, {"sha256": _sha256(wanted)}, "there is none yet")])
    if options["validators"]:
        return Plan(
            [
                Change(
                    str(path),
                    None,
                    {"validators": sorted(options["validators"])},
                    "there is none yet",
                )
            ]
        )
    return Plan()


def _sha256(text):
    return hashlib.sha256(text.encode()).hexdigest()


def create(module):
    """The text of a new genesis. Raises GenesisError with what the node's program says."""
    options = module.params
    with tempfile.TemporaryDirectory(dir=module.tmpdir) as scratch:
        out = Path(scratch) / "genesis.json"
        command = [
            options["command"],
            "genesis",
            "create",
            "--chain-id",
            options["chain_id"],
            "--out",
            str(out),
        ]
        for name, key in sorted(options["validators"].items()):
            command += ["--validator", f"{name}={key}"]
        for address, amount in sorted(options["accounts"].items()):
            command += ["--account", f"{address}={amount}"]
        code, said, error = module.run_command(command)
        if code != 0:
            raise GenesisError(f"could not create it: {(error or said).strip()}")
        return out.read_text()


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "content": {"type": "str"},
            "validators": {"type": "dict"},
            "chain_id": {"type": "str"},
            "accounts": {"type": "dict", "default": {}},
            "command": {"type": "path", "default": "/opt/holdfast/current/bin/holdfast-node"},
        },
        mutually_exclusive=[("content", "validators")],
        required_by={"validators": ["chain_id"]},
        supports_check_mode=True,
    )
    path = Path(module.params["path"])
    try:
        text, decoded = read(path)
        planned = plan(path, text, module.params)
        if planned and not module.check_mode:
            content = module.params["content"]
            content = create(module) if content is None else content
            with Transaction() as transaction:
                if not path.parent.is_dir():
                    transaction.make_directory(path.parent)
                transaction.write_file(path, content.encode(), 0o644, 0, 0)
            text, decoded = read(path)
            plan(path, text, dict(module.params, content=content))
    except (GenesisError, TransactionError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(
        exists=text is not None, content=text or "", genesis=decoded, **planned.result()
    )


if __name__ == "__main__":
    main()
