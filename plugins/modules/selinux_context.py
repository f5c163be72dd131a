#!/usr/bin/python
# Copyright: (c) 2026, Holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: selinux_context
short_description: File contexts, ports and booleans of a profile in one SELinux transaction
version_added: 0.2.0
author:
  - Holdfast contributors (@holdfast)
description:
  - Makes ordered file contexts, types of ports and booleans what a task says, in one transaction of
    C(semanage import) however many there are. Where all is as wanted, semanage is not started.
  - Looks for files whose labels differ from what the policy will give them, and labels those alone.
    Each shows up in RV(changes), in check mode too.
  - Refuses, before anything changes, types, users, ranges and booleans that the loaded policy does
    not know, and targets it would never look at.
  - All or nothing. If semanage or a label fails, the former customisations and labels are put back.
    What a run that was killed has left is taken back by the next one, which says so.
  - On a host without SELinux nothing is changed, and RV(status) says what there is.
extends_documentation_fragment:
  - holdfast.chain.attributes
options:
  contexts:
    description:
      - Rules that give files their labels, in order. Of rules that match, the last wins. Rules of
        others keep their places.
    type: list
    elements: dict
    default: []
    suboptions:
      target:
        description: Regular expression for whole paths, such as V(/srv/www(/.*\)?).
        type: str
        required: true
      type:
        description: The type. V(<<none>>) leaves the files as they are.
        type: str
        required: true
      ftype:
        description:
          - The kind of file that the rule is for. V(a) any, V(f) file, V(d) directory, V(l)
            symbolic link, V(s) socket, V(p) pipe, V(c) and V(b) devices.
        type: str
        choices: [a, b, c, d, f, l, p, s]
        default: a
      seuser:
        description: The user of the context. Without it, V(system_u), or as it is.
        type: str
      range:
        description: The range of the context. Without it, V(s0), or as it is.
        type: str
  ports:
    description:
      - Types of ports. One that the policy gives another type is redefined; the reason in
        RV(changes) says from whom it is taken.
    type: list
    elements: dict
    default: []
    suboptions:
      port:
        description: A port, or a range such as V(30303-30304).
        type: str
        required: true
      proto:
        description: The protocol.
        type: str
        choices: [tcp, udp, dccp, sctp]
        default: tcp
      type:
        description: The type.
        type: str
        required: true
      range:
        description: The range of the context.
        type: str
  booleans:
    description:
      - Booleans by name, kept for every boot and set in the kernel.
      - With O(state=absent) the values do not matter.
    type: dict
    default: {}
  purge:
    description:
      - Prefixes. Local file contexts whose target begins with one, and local ports and booleans
        whose type or name begins with one, are removed where the task does not name them.
    type: list
    elements: str
    default: []
  relabel:
    description:
      - Whether files below the targets are looked through for wrong labels, and labelled.
      - As with restorecon, the type decides, and types that are given by hand are left alone. For
        rules with O(contexts[].seuser) or O(contexts[].range) the whole label decides.
    type: bool
    default: true
  not_applicable:
    description:
      - What to do on a host without SELinux.
      - V(skip) changes nothing and gives the cause in RV(not_applicable). V(fail) fails.
    type: str
    choices: [skip, fail]
    default: skip
  state:
    description:
      - V(absent) removes the local definitions of what is named. Types do not matter then.
    type: str
    choices: [present, absent]
    default: present
notes:
  - Needs C(semanage) (package policycoreutils-python-utils) where something is to change. Check
    mode does without it; what types the policy gives to ports is then unknown, and it says so.
  - A target that begins with an expression, such as V(/.*\\.key), is installed. Files for it are
    not looked for over the whole system.
seealso:
  - module: holdfast.chain.selinux_policy
"""

EXAMPLES = r"""
- name: A web root, its port, and what the server may do
  holdfast.chain.selinux_context:
    contexts:
      - {target: '/srv/www(/.*)?', type: httpd_sys_content_t}
      - {target: '/srv/www/upload(/.*)?', type: httpd_sys_rw_content_t}
    ports:
      - {port: 8081, type: http_port_t}
    booleans:
      httpd_can_network_connect: true

- name: Nothing below the folder, and no port of the type, but what is named here
  holdfast.chain.selinux_context:
    contexts:
      - {target: '/srv/www(/.*)?', type: httpd_sys_content_t}
    purge: [/srv/www, http_port_t]

- name: See what SELinux there is
  holdfast.chain.selinux_context:
  register: selinux

- name: Take it away again
  holdfast.chain.selinux_context:
    contexts:
      - {target: '/srv/www(/.*)?', type: httpd_sys_content_t}
    booleans:
      httpd_can_network_connect: true
    state: absent
"""

RETURN = r"""
changes:
  description: What was, or in check mode would be, changed.
  returned: success
  type: list
  elements: dict
  contains:
    target:
      description: A file context, a port, a boolean, or the label of a file.
      type: str
    before:
      description: What was there; null if nothing was.
      type: raw
    after:
      description: What is there now; null if it was removed.
      type: raw
    reason:
      description: Why.
      type: str
status:
  description:
    - V(enforcing), V(permissive), V(disabled), or V(absent) where the host has no SELinux at all.
  returned: success
  type: str
policy:
  description: The type of its policy; empty where there is none.
  returned: success
  type: str
  sample: targeted
not_applicable:
  description: Why nothing could be done on this host; null where SELinux works.
  returned: success
  type: str
missing_tools:
  description: Those of C(semanage) and C(semodule) that are not installed, where SELinux works.
  returned: success
  type: list
  elements: str
repaired:
  description: What was put back because an earlier run had been cut short.
  returned: success
  type: list
  elements: str
undone:
  description: Steps that were taken back.
  returned: failure
  type: list
  elements: str
not_undone:
  description: Steps that could not be taken back, with why.
  returned: failure
  type: list
  elements: str
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.parsing.convert_bool import boolean
from ansible_collections.holdfast.chain.plugins.module_utils.hostfs import Host, HostError
from ansible_collections.holdfast.chain.plugins.module_utils.selinux import (
    FILE_TYPES,
    PROTOCOLS,
    SelinuxError,
    parse_span,
)
from ansible_collections.holdfast.chain.plugins.module_utils.selinux_apply import run_on
from ansible_collections.holdfast.chain.plugins.module_utils.selinux_host import Selinux
from ansible_collections.holdfast.chain.plugins.module_utils.selinux_plan import (
    Request,
    WantedFile,
    WantedPort,
)
from ansible_collections.holdfast.chain.plugins.module_utils.transaction import TransactionError


def request_of(params: dict[str, Any]) -> Request:
    """The options of a task, checked; SelinuxError names the one that is wrong."""
    for prefix in params["purge"]:
        if len(prefix.strip("/")) < 2:
            raise SelinuxError(
                f"purge: '{prefix}' would take away what others made: expected a longer prefix"
            )
    return Request(
        files=tuple(
            WantedFile(item["target"], item["ftype"], item["type"], item["seuser"], item["range"])
            for item in params["contexts"]
        ),
        ports=tuple(
            WantedPort(
                port["proto"], *parse_span(port["port"], "ports"), port["type"], port["range"]
            )
            for port in params["ports"]
        ),
        booleans={name: value_of(name, value) for name, value in params["booleans"].items()},
        purge=tuple(params["purge"]),
        relabel=params["relabel"],
        present=params["state"] == "present",
        skip_not_applicable=params["not_applicable"] == "skip",
    )


def value_of(name: str, value: Any) -> bool:
    """The value of a boolean."""
    try:
        return bool(boolean(value))
    except TypeError:
        raise SelinuxError(f"booleans: {name} = '{value}': expected true or false") from None


def main() -> None:
    """Entry point."""
    text = {"type": "str"}
    needed = {"type": "str", "required": True}
    module = AnsibleModule(
        argument_spec={
            "contexts": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    "target": needed,
                    "type": needed,
                    "ftype": {"type": "str", "choices": sorted(FILE_TYPES), "default": "a"},
                    "seuser": text,
                    "range": text,
                },
            },
            "ports": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    "port": needed,
                    "proto": {"type": "str", "choices": list(PROTOCOLS), "default": "tcp"},
                    "type": needed,
                    "range": text,
                },
            },
            "booleans": {"type": "dict", "default": {}},
            "purge": {"type": "list", "elements": "str", "default": []},
            "relabel": {"type": "bool", "default": True},
            "not_applicable": {"type": "str", "choices": ["skip", "fail"], "default": "skip"},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        },
        supports_check_mode=True,
    )
    try:
        request = request_of(module.params)
        result, warnings = run_on(Selinux(Host()), request, module.check_mode)
    except (SelinuxError, HostError) as error:
        module.fail_json(msg=str(error))
    except TransactionError as error:
        module.fail_json(msg=str(error), undone=error.undone, not_undone=error.not_undone)
    except OSError as error:
        module.fail_json(msg=f"reading the host: {error}")
    for warning in warnings:
        module.warn(warning)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
