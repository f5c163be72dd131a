#!/usr/bin/python
# Copyright: (c) 2026, Holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: node_key
short_description: The key of a node, made on the host and never replaced
version_added: 0.1.0
author:
  - Holdfast contributors (@holdfast)
description:
  - Makes an Ed25519 key with C(holdfast-node keys new), once, and returns its public part. The
    private part does not leave the host.
  - A key that is there is never overwritten, whatever it is; one that cannot be read is a failure.
options:
  path:
    description: The key file. Its folder is made if missing, for root alone.
    type: path
    required: true
  command:
    description: The node's program.
    type: path
    default: /opt/holdfast/current/bin/holdfast-node
attributes:
  check_mode:
    support: full
    description: Says that a key would be made. RV(public_key) is then empty, also where the
      program is not installed yet.
  diff_mode:
    support: full
    description: Shows that there is a key, never the key.
  idempotent:
    support: full
    description: There is one key for ever.
  platform:
    support: full
    description: Linux.
    platforms: linux
"""

EXAMPLES = r"""
- name: Make the validator's key
  holdfast.chain.node_key:
    path: /etc/holdfast/v1/keys/validator.key
  register: key
"""

RETURN = r"""
public_key:
  description: The public key in hexadecimal; empty if there is none yet, in check mode.
  returned: success
  type: str
address:
  description: The address that belongs to it; empty if there is none yet.
  returned: success
  type: str
changes:
  description: What was, or would be, made and why.
  returned: success
  type: list
  elements: dict
"""

import json
import stat
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.holdfast.chain.plugins.module_utils.plan import Change, Plan
from ansible_collections.holdfast.chain.plugins.module_utils.transaction import (
    Transaction,
    TransactionError,
)


def attributes(path):
    """Mode and owner of what is at path, or None."""
    if not path.exists():
        return None
    status = path.stat()
    return {"mode": f"{stat.S_IMODE(status.st_mode):04o}", "uid": status.st_uid}


def plan(folder, key, folder_is, key_is):
    """What has to be made, and which modes put right; pure."""
    wanted = {folder: {"mode": "0700", "uid": 0}, key: {"mode": "0600", "uid": 0}}
    changes = []
    for path, has in ((folder, folder_is), (key, key_is)):
        if has is None:
            changes.append(Change(str(path), None, wanted[path], "there is none yet"))
        elif has != wanted[path]:
            changes.append(Change(str(path), has, wanted[path], "nobody but root may read it"))
    return Plan(changes)


def keys(module, *arguments):
    """Run the node's ``keys`` and return the JSON it prints."""
    command = [module.params["command"], "keys", *arguments]
    code, out, err = module.run_command(command)
    if code != 0:
        raise RuntimeError((err or out).strip() or f"exit code {code}")
    return json.loads(out)


def apply(module, folder, key, planned):
    """Make what is missing; a key made before a later step failed is taken away again."""
    with Transaction() as transaction:
        for change in planned:
            if change.target == str(folder):
                transaction.make_directory(folder, 0o700, 0, 0)
            elif change.before is None:
                transaction.run(
                    lambda: keys(module, "new", "--out", str(key)),
                    key.unlink,
                    f"make the key {key}",
                )
            else:
                transaction.set_attributes(key, 0o600, 0, 0)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "command": {"type": "path", "default": "/opt/holdfast/current/bin/holdfast-node"},
        },
        supports_check_mode=True,
    )
    key = Path(module.params["path"])
    folder = key.parent
    planned = plan(folder, key, attributes(folder), attributes(key))
    if planned and not module.check_mode:
        try:
            apply(module, folder, key, planned)
        except TransactionError as error:
            module.fail_json(msg=str(error))
        left = plan(folder, key, attributes(folder), attributes(key))
        if left:
            module.fail_json(msg="made, but not as wanted afterwards", **left.result())
    shown = {"public_key": "", "address": ""}
    if key.exists() and not (module.check_mode and not Path(module.params["command"]).exists()):
        try:
            shown = keys(module, "show", str(key))
        except (RuntimeError, ValueError) as error:
            module.fail_json(
                msg=f"path = {key}: {error}. Restore the key from its backup; it is never "
                "replaced by itself"
            )
    module.exit_json(public_key=shown["public_key"], address=shown["address"], **planned.result())


if __name__ == "__main__":
    main()
