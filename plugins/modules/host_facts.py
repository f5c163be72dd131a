#!/usr/bin/python
# Copyright: (c) 2026, Holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: host_facts
short_description: What a host has that a node needs
version_added: 0.1.0
author:
  - Holdfast contributors (@holdfast)
description:
  - Reads the Pythons of a host, its C library, machine, room on disk, and how far its clock is
    from the controller's. Changes nothing.
  - From these follows the C(target), the kind of bundle M(holdfast.chain.node_bundle) has to
    gather for the host.
  - An action plugin measures the clock, as half of the round trip of one module run, and says how
    far that can be wrong.
options:
  python:
    description:
      - The interpreter for the node.
      - Without it, C(/usr/bin/python3) is taken if it is new enough, else the newest there is.
    type: path
  paths:
    description: Where to measure free space. A path that does not exist yet counts as its parent.
    type: list
    elements: path
    default: [/opt, /var/lib]
  collect:
    description:
      - Whether a host that cannot be reached or cannot run modules is an answer rather than a
        failure. The fact then has only C(error), in words.
    type: bool
    default: false
attributes:
  check_mode:
    support: full
    description: It only reads.
  diff_mode:
    support: none
    description: It only reads.
  platform:
    support: full
    description: Linux.
    platforms: linux
"""

EXAMPLES = r"""
- name: See what the hosts have
  holdfast.chain.host_facts:

- name: Use one Python in particular
  holdfast.chain.host_facts:
    python: /usr/bin/python3.11
"""

RETURN = r"""
ansible_facts:
  description: Facts of the host.
  returned: always
  type: dict
  contains:
    holdfast_host:
      description: What was found.
      returned: always
      type: dict
      contains:
        python:
          description: C(path) and C(version) of the interpreter for the node, or null.
          returned: always
          type: dict
        libc:
          description: V(glibc), V(musl), or empty.
          returned: always
          type: str
        libc_version:
          description: Its version.
          returned: always
          type: str
        machine:
          description: The machine's name, such as V(x86_64).
          returned: always
          type: str
        target:
          description:
            - What to gather a bundle for, as M(holdfast.chain.node_bundle) takes it, with its
              C(key). Null where none can be made.
          returned: always
          type: dict
        target_fault:
          description: Why there is no target.
          returned: always
          type: str
        cryptography:
          description: Whether the Python that runs modules has the library of this name.
          returned: always
          type: bool
        distributions:
          description: What the host is and is like, from its os-release.
          returned: always
          type: list
          elements: str
          sample: [centos, rhel, fedora]
        free_bytes:
          description: Free bytes by path.
          returned: always
          type: dict
        clock:
          description: C(seconds) the host is ahead of the controller, and C(error), how far that
            can be wrong.
          returned: always
          type: dict
        error:
          description: Why nothing could be found out.
          returned: when O(collect=true) and the host could not be asked
          type: str
"""

import time

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.holdfast.chain.plugins.module_utils import host


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "python": {"type": "path"},
            "paths": {"type": "list", "elements": "path", "default": ["/opt", "/var/lib"]},
            "collect": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    try:
        found = host.describe(module.params["python"], module.params["paths"])
    except OSError as error:
        module.fail_json(msg=f"paths = {error.filename}: {error.strerror}")
    found["time"] = time.time()
    module.exit_json(changed=False, ansible_facts={"holdfast_host": found})


if __name__ == "__main__":
    main()
