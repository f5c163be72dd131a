#!/usr/bin/python
# Copyright: (c) 2026, Holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: ulimits
short_description: Give a user and a service their resource limits, also while it runs
version_added: 0.1.0
author:
  - Holdfast contributors (@holdfast)
description:
  - Gives limits to the sessions of a user (a file in C(limits.d) for pam_limits), to a service (a
    drop-in of its systemd unit, or C(rc_ulimit) in OpenRC's C(conf.d)), or to both in one task.
    limits.conf does not apply to services, whatever user they run as.
  - Reads back C(/proc/PID/limits) of every process of the running service, and gives them the
    limits in place. It never restarts a service; where a limit cannot be given in place the result
    says that a restart is needed, and why.
  - Refuses, before anything changes, a soft limit above the hard one, more files than
    C(fs.nr_open), and more than the container it runs in can give. All of these would be ignored or
    cut without a word.
  - All or nothing. What a run that was killed has left is taken back by the next one, which says
    so.
extends_documentation_fragment:
  - holdfast.chain.attributes
options:
  limits:
    description:
      - Limits by name. Each is a number for both sides, V(unlimited), or C(soft) and C(hard).
      - Names are V(as), V(core), V(cpu), V(data), V(fsize), V(memlock), V(msgqueue), V(nofile),
        V(nproc), V(rtprio), V(sigpending), V(stack).
      - Sizes are bytes and times are seconds, everywhere. The module converts to what each file
        counts in.
      - With O(state=absent) the values do not matter, and an empty one stands for all.
    type: dict
    default: {}
  user:
    description:
      - The user whose sessions get the limits. Also C(@group) or C(*), as in limits.conf.
    type: str
  service:
    description:
      - The service that gets them, such as V(chrony), V(holdfast-node@v1), or V(holdfast-node@) for
        all instances of a template.
    type: str
  file:
    description: Name of the file in C(limits.d) and of the drop-in.
    type: str
    default: 90-holdfast.conf
  apply_running:
    description: Whether the processes of the running service get the limits now.
    type: bool
    default: true
  ceiling:
    description:
      - What to do about a limit above what this container can give.
      - V(refuse) fails with the number. V(lower) gives the most there is, and lists it in
        RV(lowered).
    type: str
    choices: [refuse, lower]
    default: refuse
  allow_overridden:
    description: Whether a limit may be one that another file overrides.
    type: bool
    default: false
  state:
    description:
      - V(absent) removes what this module made for the user and the service. Running processes keep
        their limits.
    type: str
    choices: [present, absent]
    default: present
notes:
  - OpenRC gives soft and hard one value.
  - To change processes it needs CAP_SYS_RESOURCE, which containers usually lack.
seealso:
  - module: holdfast.chain.kernel_params
"""

EXAMPLES = r"""
- name: Room for many connections, for the user and the running service
  holdfast.chain.ulimits:
    user: holdfast
    service: holdfast-node@v1
    limits:
      nofile: 131072
      nproc: 16384
  register: given

- name: Ask for a restart only where one is needed
  ansible.builtin.debug:
    msg: "{{ given.service.restart_reasons }}"
  when: given.service.restart_needed

- name: A soft limit that the daemon may raise, and memory it may lock
  holdfast.chain.ulimits:
    service: holdfast-node@v1
    limits:
      nofile: {soft: 65536, hard: 131072}
      memlock: unlimited

- name: Back to what the system gives
  holdfast.chain.ulimits:
    user: holdfast
    service: holdfast-node@v1
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
      description: A limit in a file, or of the running service.
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
user:
  description: What sessions of the user get; null if none was given.
  returned: success
  type: dict
  contains:
    name:
      description: The user.
      type: str
    limits:
      description: By name, C(soft), C(hard), what is C(effective), and C(overridden_by).
      type: dict
    not_applicable:
      description: Why nothing reads limits.d on this host; null if it is read.
      type: str
service:
  description: What the service gets; null if none was given.
  returned: success
  type: dict
  contains:
    name:
      description: The service.
      type: str
    running:
      description: Whether it has processes.
      type: bool
    pids:
      description: Its processes.
      type: list
      elements: int
    limits:
      description: By name, C(soft), C(hard) and C(overridden_by).
      type: dict
    restart_needed:
      description: Whether some of its processes keep other limits until a restart.
      type: bool
    restart_reasons:
      description: Which, and why.
      type: list
      elements: str
lowered:
  description: Limits that were lowered to what the container can give.
  returned: success
  type: dict
ceiling:
  description: The most this container can give, by name; empty where there is no such bound.
  returned: success
  type: dict
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

import re
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.holdfast.chain.plugins.module_utils.hostfs import Host, HostError
from ansible_collections.holdfast.chain.plugins.module_utils.limits import (
    ITEMS,
    LimitError,
    limits_of,
)
from ansible_collections.holdfast.chain.plugins.module_utils.limits_apply import run
from ansible_collections.holdfast.chain.plugins.module_utils.limits_plan import Request
from ansible_collections.holdfast.chain.plugins.module_utils.services import unit_name
from ansible_collections.holdfast.chain.plugins.module_utils.transaction import TransactionError


def request_of(params: dict[str, Any]) -> Request:
    """The options of a task, checked; LimitError names the one that is wrong."""
    present = params["state"] == "present"
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*\.conf", params["file"]):
        raise LimitError(
            f"file: '{params['file']}' would not be read: expected a name of letters, digits, '-', "
            "'_' and '.' that ends in .conf, without a folder"
        )
    if params["user"] is not None and not re.fullmatch(r"\*|[@%]?[^\s#*]+", params["user"]):
        raise LimitError(f"user: '{params['user']}' is no name of a user, @group or *")
    if params["service"] is not None:
        try:
            unit_name(params["service"])
        except ValueError as error:
            raise LimitError(str(error)) from None
    unknown = sorted(set(params["limits"]) - set(ITEMS))
    if unknown and not present:
        raise LimitError(f"limits: '{unknown[0]}' is no limit: expected one of {', '.join(ITEMS)}")
    if present and not params["limits"]:
        raise LimitError("limits: nothing is asked for; name some, or set state=absent")
    return Request(
        limits=limits_of(params["limits"]) if present else {},
        user=params["user"],
        service=params["service"],
        file=params["file"],
        present=present,
        names=tuple(params["limits"]),
        apply_running=params["apply_running"],
        allow_overridden=params["allow_overridden"],
        lower=params["ceiling"] == "lower",
    )


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "limits": {"type": "dict", "default": {}},
            "user": {"type": "str"},
            "service": {"type": "str"},
            "file": {"type": "str", "default": "90-holdfast.conf"},
            "apply_running": {"type": "bool", "default": True},
            "ceiling": {"type": "str", "choices": ["refuse", "lower"], "default": "refuse"},
            "allow_overridden": {"type": "bool", "default": False},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        },
        required_one_of=[["user", "service"]],
        supports_check_mode=True,
    )
    try:
        result, warnings = run(Host(), request_of(module.params), module.check_mode)
    except (LimitError, HostError) as error:
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
