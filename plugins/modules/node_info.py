#!/usr/bin/python
# Copyright: (c) 2026, Holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: node_info
short_description: Status of a node, and of the network as it sees it
version_added: 0.1.0
author:
  - Holdfast contributors (@holdfast)
description:
  - Asks a node over its HTTP interface, and waits for what is asked for.
  - Ready means that the node is in step with the network, by its own C(/readyz); a node that
    answers while it is still catching up is not ready.
options:
  url:
    description: The node's HTTP interface, as seen from the host the task runs on.
    type: str
    default: http://127.0.0.1:8545
  wait:
    description:
      - What to wait for. With V(none) the node is asked once and every answer is fine, that it does
        not run included.
    type: str
    choices: [none, reachable, ready]
    default: none
  min_height:
    description: Also wait until the node has this block.
    type: int
    default: -1
  wait_timeout:
    description: Seconds to wait at most; what is missing then is a failure.
    type: int
    default: 60
  timeout:
    description: Seconds for one request.
    type: int
    default: 5
attributes:
  check_mode:
    support: full
    description: It only reads.
  diff_mode:
    support: none
    description: It only reads.
  platform:
    support: full
    description: Any with Python.
    platforms: posix
"""

EXAMPLES = r"""
- name: Wait until the node is in step with the network
  holdfast.chain.node_info:
    wait: ready
    wait_timeout: 120
  register: node

- name: Say what it sees
  ansible.builtin.debug:
    msg: "height {{ node.status.height }}, leader {{ node.status.leader }}"
"""

RETURN = r"""
reachable:
  description: Whether the node answered.
  returned: always
  type: bool
ready:
  description: Whether it is in step with the network.
  returned: always
  type: bool
reason:
  description: Why it is not; empty if it is.
  returned: always
  type: str
height:
  description: Its last committed block, -1 if it told none.
  returned: always
  type: int
status:
  description: Its C(/v1/status) as it is; empty if it told none.
  returned: always
  type: dict
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.holdfast.chain.plugins.module_utils import node_api


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "url": {"type": "str", "default": "http://127.0.0.1:8545"},
            "wait": {"type": "str", "default": "none", "choices": ["none", "reachable", "ready"]},
            "min_height": {"type": "int", "default": -1},
            "wait_timeout": {"type": "int", "default": 60},
            "timeout": {"type": "int", "default": 5},
        },
        supports_check_mode=True,
    )
    options = module.params
    if not options["url"].startswith(("http://", "https://")):
        module.fail_json(msg="url = {}: expected http://HOST:PORT".format(options["url"]))
    answer, lacks = node_api.wait(
        lambda: node_api.ask(options["url"], options["timeout"]),
        lambda answer: node_api.shortfalls(answer, options["wait"], options["min_height"]),
        options["wait_timeout"],
    )
    result = {
        "changed": False,
        "reachable": answer.reachable,
        "ready": answer.ready,
        "reason": answer.reason,
        "height": answer.height,
        "status": answer.status,
    }
    if lacks:
        module.fail_json(
            msg="{}: after {} s {}. See the node's log on the host".format(
                options["url"], options["wait_timeout"], "; ".join(lacks)
            ),
            **result,
        )
    module.exit_json(**result)


if __name__ == "__main__":
    main()
