#!/usr/bin/python
# Copyright: (c) 2026, Holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: kernel_params
short_description: Set a profile of kernel parameters, now and for every boot
version_added: 0.1.0
author:
  - Holdfast contributors (@holdfast)
description:
  - Sets kernel parameters (sysctls) and transparent huge pages in the running kernel and in one
    named file for the next boots. One task takes a whole profile.
  - All or nothing. If the kernel refuses one value, or shows another one than was set, every live
    value and file is put back. A run that was killed, or lost its power, is repaired by the next
    one, which says so.
  - Knows which program sets parameters at boot on the host (systemd-sysctl, procps, BusyBox under
    OpenRC), in which order that reads its folders, and that C(ufw) and C(tuned) come later. A
    wanted value that another file would override is an error that names the file.
  - Touches no file but its own, and in that only the lines of the keys that change.
extends_documentation_fragment:
  - holdfast.chain.attributes
options:
  sysctl:
    description:
      - Values by name. Names are understood as in sysctl.d, with dots or slashes, and with
        wildcards such as V(net.ipv4.conf.*.rp_filter). A name given outright is left alone by
        wildcards.
      - A value is a number, a text, or a list of them.
      - A name the kernel does not have is an error that suggests similar ones.
      - With O(state=absent) the values do not matter.
      - Parameters that hold a secret are refused, since everybody can read their files.
    type: dict
    default: {}
  transparent_hugepages:
    description:
      - When the kernel uses huge pages without being asked.
      - Kept by C(tmpfiles.d) under systemd and by a script in C(local.d) under OpenRC, in a file
        called after O(file).
    type: str
    choices: [always, madvise, never]
  transparent_hugepages_defrag:
    description: How hard the kernel works to have huge pages ready.
    type: str
    choices: [always, defer, defer+madvise, madvise, never]
  file:
    description:
      - Name of the file in C(/etc/sysctl.d). Files are read in the order of their names and the
        last one wins.
    type: str
    default: 90-holdfast.conf
  purge:
    description:
      - Whether assignments in the file that this task does not name are removed. Comments stay. The
        kernel keeps a removed value until the next boot.
    type: bool
    default: false
  allow_overridden:
    description:
      - Whether a wanted value may be one that another file overrides at boot. It is then set, and
        RV(parameters) says what overrides it.
    type: bool
    default: false
  not_applicable:
    description:
      - What to do about parameters that belong to the machine and not to this container.
      - V(skip) lists them with the cause in RV(not_applicable). V(fail) fails, changing nothing.
    type: str
    choices: [skip, fail]
    default: skip
  state:
    description:
      - V(absent) removes the named O(sysctl) keys and huge page switches from the files, or the
        files altogether where none are named. The kernel keeps its values until the next boot.
    type: str
    choices: [present, absent]
    default: present
notes:
  - Values are compared as the kernel means them. Blanks between numbers do not count, nor does
    rounding that the kernel's documentation states.
  - A parameter that cannot be read back is set once, when its line enters the file.
  - Some parameters reach into others (V(net.ipv4.ip_forward) resets a whole family,
    V(vm.dirty_bytes) and V(vm.dirty_ratio) exclude each other). What they reach is put back as well
    if the task fails.
seealso:
  - module: holdfast.chain.ulimits
"""

EXAMPLES = r"""
- name: A profile for a node
  holdfast.chain.kernel_params:
    sysctl:
      net.core.somaxconn: 65535
      net.ipv4.tcp_rmem: [4096, 131072, 16777216]
      net.ipv4.tcp_keepalive_time: 60
      vm.swappiness: 1
      fs.file-max: 2097152
    transparent_hugepages: never

- name: Nothing in the file but what is named here
  holdfast.chain.kernel_params:
    file: 95-router.conf
    purge: true
    sysctl:
      net.ipv4.ip_forward: 1
      net.ipv4.conf.*.rp_filter: 2
      net.ipv4.conf.lo.rp_filter: 0

- name: See what would override it, without failing
  holdfast.chain.kernel_params:
    sysctl:
      vm.swappiness: 1
    allow_overridden: true
  register: profile

- name: Take it all back from the next boot on
  holdfast.chain.kernel_params:
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
      description: A parameter, a file, or a parameter in a file.
      type: str
    before:
      description: What was there; null if nothing was, or it cannot be read.
      type: raw
    after:
      description: What is there now; null if it was removed.
      type: raw
    reason:
      description: Why.
      type: str
parameters:
  description: What is known of each wanted parameter, wildcards resolved, after the task.
  returned: success
  type: dict
  contains:
    wanted:
      description: The wanted value.
      type: str
    live:
      description: What the kernel shows; null if it shows nothing. In check mode, before the task.
      type: str
    persisted:
      description: The value in the task's own file.
      type: str
    effective_at_boot:
      description: The value it will have after the next boot; null for the kernel's default.
      type: str
    effective_from:
      description: The file that decides that.
      type: str
    overridden_by:
      description: The file that keeps the wanted value from lasting; null if none does.
      type: str
not_applicable:
  description: Parameters that cannot be set on this system, with the cause.
  returned: success
  type: dict
repaired:
  description: What was put back because an earlier run had been cut short.
  returned: success
  type: list
  elements: str
file:
  description: The file.
  returned: success
  type: str
  sample: /etc/sysctl.d/90-holdfast.conf
read_at_boot_by:
  description: The program that reads it at boot on this host.
  returned: success
  type: str
  sample: systemd-sysctl
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

import re
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.holdfast.chain.plugins.module_utils.hostfs import Host, HostError
from ansible_collections.holdfast.chain.plugins.module_utils.sysctl import ParameterError
from ansible_collections.holdfast.chain.plugins.module_utils.sysctl_apply import run
from ansible_collections.holdfast.chain.plugins.module_utils.sysctl_plan import (
    Request,
    wishes_of,
)
from ansible_collections.holdfast.chain.plugins.module_utils.transaction import TransactionError


def request_of(params: dict[str, Any]) -> Request:
    """The options of a task, checked; ParameterError names the one that is wrong."""
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*\.conf", params["file"]):
        raise ParameterError(
            f"file: '{params['file']}' is not read at boot: expected a name of letters, digits, "
            "'-', '_' and '.' that ends in .conf, without a folder"
        )
    present = params["state"] == "present"
    switches = {
        "enabled": params["transparent_hugepages"],
        "defrag": params["transparent_hugepages_defrag"],
    }
    return Request(
        file=f"/etc/sysctl.d/{params['file']}",
        wishes=wishes_of(params["sysctl"], with_values=present),
        switches={name: value for name, value in switches.items() if value is not None},
        present=present,
        purge=params["purge"],
        allow_overridden=params["allow_overridden"],
        skip_not_applicable=params["not_applicable"] == "skip",
    )


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "sysctl": {"type": "dict", "default": {}},
            "transparent_hugepages": {"type": "str", "choices": ["always", "madvise", "never"]},
            "transparent_hugepages_defrag": {
                "type": "str",
                "choices": ["always", "defer", "defer+madvise", "madvise", "never"],
            },
            "file": {"type": "str", "default": "90-holdfast.conf"},
            "purge": {"type": "bool", "default": False},
            "allow_overridden": {"type": "bool", "default": False},
            "not_applicable": {"type": "str", "choices": ["skip", "fail"], "default": "skip"},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        },
        supports_check_mode=True,
    )
    try:
        result, warnings = run(Host(), request_of(module.params), module.check_mode)
    except (ParameterError, HostError) as error:
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
