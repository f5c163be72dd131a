#!/usr/bin/python
# Copyright: (c) 2026, Holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: file_set
short_description: Folders and files as one change, checked before they replace what is there
version_added: 0.1.0
author:
  - Holdfast contributors (@holdfast)
description:
  - Brings a set of folders and files into the wanted state, all of it or nothing.
  - A file can name a program that has to accept its new content first. If one does not, nothing is
    changed and the task fails with what the program said.
  - Contents are shown in diffs and results. Do not use it for secrets.
options:
  folders:
    description: Folders that have to exist.
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description: The folder. Missing parents are made with mode 0755, owned by root.
        type: path
        required: true
      mode:
        description: Its mode, as an octal text.
        type: str
        default: "0755"
      owner:
        description: Its owner.
        type: str
        default: root
      group:
        description: Its group.
        type: str
        default: root
  files:
    description: Files that have to exist with this content.
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description: The file. Its folder has to exist or be among O(folders).
        type: path
        required: true
      content:
        description: Its content.
        type: str
        required: true
      mode:
        description: Its mode, as an octal text.
        type: str
        default: "0644"
      owner:
        description: Its owner.
        type: str
        default: root
      group:
        description: Its group.
        type: str
        default: root
      check:
        description:
          - Program and arguments that exit with 0 for content that is fine; C(%s) stands for the
            path of the new content.
          - It runs only if the content is going to change, after O(folders) are made.
        type: list
        elements: str
        default: []
extends_documentation_fragment:
  - holdfast.chain.attributes
attributes:
  check_mode:
    description: Reads and plans without touching anything. A program that is there is asked, and a
      refusal is a warning.
  diff_mode:
    description: Shows contents before and after.
  idempotent:
    support: full
    description: What is as wanted is left alone.
"""

EXAMPLES = r"""
- name: Write the configuration once the program itself accepts it
  holdfast.chain.file_set:
    folders:
      - path: /etc/example
    files:
      - path: /etc/example/config.toml
        content: "{{ lookup('ansible.builtin.template', 'config.toml.j2') }}"
        check: [/usr/bin/example, check, "%s"]
"""

RETURN = r"""
changed_paths:
  description: What was, or would be, changed.
  returned: success
  type: list
  elements: str
refused:
  description: In check mode, what programs have against new contents.
  returned: success
  type: list
  elements: str
changes:
  description: The same with before, after and the reason.
  returned: success
  type: list
  elements: dict
"""

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.holdfast.chain.plugins.module_utils import file_set
from ansible_collections.holdfast.chain.plugins.module_utils.transaction import (
    Transaction,
    TransactionError,
)

ATTRIBUTES = {
    "path": {"type": "path", "required": True},
    "owner": {"type": "str", "default": "root"},
    "group": {"type": "str", "default": "root"},
}
FOLDER = dict(ATTRIBUTES, mode={"type": "str", "default": "0755"})
FILE = dict(
    ATTRIBUTES,
    mode={"type": "str", "default": "0644"},
    content={"type": "str", "required": True},
    check={"type": "list", "elements": "str", "default": []},
)


def apply(wanted, planned):
    """Make folders, have new contents checked, write files; all or nothing."""
    targets = {change.target for change in planned}
    with Transaction() as transaction:
        for item in wanted:
            if item.path in targets and item.content is None:
                transaction.make_directory(item.path, item.mode, item.owner, item.group)
        for item in wanted:
            if item.path in targets and item.check:
                transaction.run(
                    lambda item=item: file_set.check(item), lambda: None, f"check {item.path}"
                )
        for item in wanted:
            if item.path in targets and item.content is not None:
                transaction.write_file(
                    item.path, item.content.encode(), item.mode, item.owner, item.group
                )
    return transaction.left_behind


def rehearse(wanted, planned):
    """What programs that are there already say against new contents; nothing is written."""
    targets = {change.target for change in planned}
    refused = []
    for item in wanted:
        if item.path in targets and item.check and Path(item.check[0]).exists():
            try:
                file_set.check(item)
            except file_set.RefusedError as error:
                refused.append(f"{item.path}: {error}")
    return refused


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "folders": {"type": "list", "elements": "dict", "default": [], "options": FOLDER},
            "files": {"type": "list", "elements": "dict", "default": [], "options": FILE},
        },
        supports_check_mode=True,
    )
    try:
        wanted = [file_set.parse(item) for item in module.params["folders"]]
        wanted += [file_set.parse(item) for item in module.params["files"]]
        planned = file_set.plan(wanted, file_set.read(wanted))
        if planned and not module.check_mode:
            for name in apply(wanted, planned):
                module.warn(f"could not remove {name}; it is harmless")
            left = file_set.plan(wanted, file_set.read(wanted))
            if left:
                module.fail_json(msg="written, but not as wanted afterwards", **left.result())
    except (ValueError, OSError, TransactionError) as error:
        module.fail_json(msg=str(error))
    refused = rehearse(wanted, planned) if module.check_mode else []
    for text in refused:
        module.warn(f"a real run would fail: {text}")
    module.exit_json(
        changed_paths=[change.target for change in planned], refused=refused, **planned.result()
    )


if __name__ == "__main__":
    main()
