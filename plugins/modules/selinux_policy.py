#!/usr/bin/python
# Copyright: (c) 2026, Holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: selinux_policy
short_description: Confine a daemon by an SELinux policy module made of what it needs
version_added: 0.2.0
author:
  - Holdfast contributors (@holdfast)
description:
  - Makes a policy module in CIL from what a daemon is declared to need, installs it, and labels the
    daemon's files. No policy compiler is needed on the host.
  - The daemon gets a domain of its own, C(NAME_t), and types of its own for its program, files and
    ports. It may do what is declared, what every program needs, and nothing else.
  - Needs that would give more than they ask for are refused before anything changes, with the
    reason, unless O(force) accepts them. So are types, classes and permissions that the loaded
    policy does not know.
  - The installed module is compared with what the needs give. Where they are equal, semodule is not
    started.
  - All or nothing. If semodule or a label fails, the former module and labels are put back. What a
    run that was killed has left is taken back by the next one, which says so.
  - Can report what the domain was denied, with the need that would allow it.
extends_documentation_fragment:
  - holdfast.chain.attributes
options:
  name:
    description: Name of the module. Its domain is called after it, V(mydaemon) has C(mydaemon_t).
    type: str
    required: true
  executables:
    description:
      - Regular expressions for the programs that the domain is entered by.
      - Of a script, that is the script. Its interpreter runs in the script's domain, and needs
        V(interpreter) in O(services).
    type: list
    elements: str
    default: []
  from_init:
    description: Whether systemd enters the domain when it starts the program.
    type: bool
    default: true
  bind:
    description: Ports it may listen on. They get the type C(NAME_port_t).
    type: list
    elements: dict
    default: []
    suboptions: &ports
      port:
        description: A port, or a range such as V(30303-30304).
        type: str
        required: true
      proto:
        description: The protocol.
        type: str
        choices: [tcp, udp]
        default: tcp
      type:
        description: A type of the policy that the port has already, such as V(http_cache_port_t).
        type: str
  connect:
    description: Ports it may connect to.
    type: list
    elements: dict
    default: []
    suboptions: *ports
  read:
    description:
      - Files, or folders with all below them, that it may read. Regular expressions.
      - They get the type C(NAME_conf_t), so that they are its own.
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description: Such as V(/etc/mydaemon), or V(/srv/[^/]+/conf).
        type: str
        required: true
      secret:
        description:
          - Whether they get C(NAME_key_t) instead, which other confined programs that may read
            configuration files may not read.
        type: bool
        default: false
  write:
    description:
      - Files, or folders with all below them, that it may change, such as V(/var/lib/mydaemon).
        They get the type C(NAME_data_t).
    type: list
    elements: str
    default: []
  services:
    description:
      - What it uses of the host. V(resolve_names) DNS and the files of names, V(journal) to log by
        syslog or the journal's socket, V(certificates) the host's CA certificates, V(interpreter)
        to be run by an interpreter such as Python.
    type: list
    elements: str
    choices: [certificates, interpreter, journal, resolve_names]
    default: []
  credentials:
    description: Whether it reads what its unit gives it by C(LoadCredential).
    type: bool
    default: false
  talk_to:
    description: Other domains it talks to.
    type: list
    elements: dict
    default: []
    suboptions:
      domain:
        description: The domain, such as V(postgresql_t).
        type: str
        required: true
      over:
        description: How.
        type: str
        choices: [dbus, unix_dgram, unix_stream]
        required: true
      socket:
        description: The type of the socket's file; needed for unix sockets.
        type: str
  capabilities:
    description: Capabilities it may use, such as V(net_bind_service).
    type: list
    elements: str
    default: []
  allow:
    description: Anything else it may do to types of the policy.
    type: list
    elements: dict
    default: []
    suboptions:
      type:
        description: The type, or V(self).
        type: str
        required: true
      class:
        description: The class of objects.
        type: str
        required: true
      permissions:
        description: The permissions.
        type: list
        elements: str
        required: true
  permissive:
    description:
      - Whether the domain may do everything, and what it would be denied is logged. To find out
        what a daemon needs.
    type: bool
    default: false
  priority:
    description: The priority of the module. The policy's own are at 100.
    type: int
    default: 400
  force:
    description:
      - Whether needs that give more than they ask for are accepted, and with O(state=absent) that
        processes lose their domain. RV(forced) lists them.
    type: bool
    default: false
  relabel:
    description: Whether files with labels other than the policy's are looked for, and labelled.
    type: bool
    default: true
  denials_since:
    description:
      - Report what the domain was denied since then. V(recent) (ten minutes), V(boot), V(today),
        another word of C(ausearch -ts), ISO 8601, or seconds since 1970.
    type: str
  not_applicable:
    description:
      - What to do on a host without SELinux.
      - V(skip) changes nothing and gives the cause in RV(not_applicable). V(fail) fails.
    type: str
    choices: [skip, fail]
    default: skip
  state:
    description:
      - V(absent) labels the files as if the module were not there, and removes it. While processes
        run in the domain, it is refused unless O(force) is given.
    type: str
    choices: [present, absent]
    default: present
notes:
  - Needs C(semodule) (package policycoreutils) where something is to change, and C(semanage) where
    ports are; check mode does without them. O(denials_since) needs C(ausearch) and a running
    auditd.
  - A daemon that runs already stays outside of its domain until it is started again.
    RV(restart_needed) and a warning say so. An administrator's own run of the program counts too.
seealso:
  - module: holdfast.chain.selinux_context
"""

EXAMPLES = r"""
- name: Confine a daemon
  holdfast.chain.selinux_policy:
    name: mydaemon
    executables: [/opt/mydaemon/bin/mydaemon]
    bind:
      - port: 7070
    connect:
      - port: 7070
    read:
      - path: /etc/mydaemon
      - path: /etc/mydaemon/key\.pem
        secret: true
    write: [/var/lib/mydaemon]
    services: [resolve_names, journal, certificates]

- name: What was it denied in the last ten minutes?
  holdfast.chain.selinux_policy:
    name: mydaemon
    executables: [/opt/mydaemon/bin/mydaemon]
    write: [/var/lib/mydaemon]
    denials_since: recent
  register: mydaemon

- name: Show the needs that would allow it
  ansible.builtin.debug:
    msg: "{{ mydaemon.denials | map(attribute='need') | select }}"

- name: Take it away again
  holdfast.chain.selinux_policy:
    name: mydaemon
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
      description: The module, or the label of a file.
      type: str
    before:
      description: What was there, the module's text for one; null if nothing was.
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
domain:
  description: The domain; null if the module is absent.
  returned: success
  type: str
  sample: mydaemon_t
version:
  description: Changes with the contents of the module; null if it is absent.
  returned: success
  type: str
  sample: 1f0c9a3be2d4
forced:
  description: What O(force) accepted, with why.
  returned: success
  type: list
  elements: str
restart_needed:
  description: Whether processes that run the program were started outside of the domain.
  returned: success
  type: bool
processes:
  description: Those processes.
  returned: success
  type: list
  elements: dict
  contains:
    pid:
      description: Its number.
      type: int
    program:
      description: The program, of a script the script.
      type: str
    context:
      description: The context it runs in.
      type: str
denials:
  description: What the domain was denied. Null without O(denials_since), and without an audit log.
  returned: success
  type: list
  elements: dict
  contains:
    source:
      description: The type that asked.
      type: str
    target:
      description: The type it asked for.
      type: str
    class:
      description: The class of what it asked for.
      type: str
    permissions:
      description: What it asked for.
      type: list
      elements: str
    command:
      description: Name of the program.
      type: str
    path:
      description: Path or name of the file; null if there is none.
      type: str
    port:
      description: The port; null if there is none.
      type: int
    permissive:
      description: Whether it was allowed nevertheless.
      type: bool
    need:
      description: The option of this module that would allow it; null if there is none to advise.
      type: str
    count:
      description: How often.
      type: int
    first:
      description: When first, in UTC.
      type: str
    last:
      description: When last, in UTC.
      type: str
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

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.holdfast.chain.plugins.module_utils.hostfs import Host, HostError
from ansible_collections.holdfast.chain.plugins.module_utils.selinux import SelinuxError
from ansible_collections.holdfast.chain.plugins.module_utils.selinux_host import Selinux
from ansible_collections.holdfast.chain.plugins.module_utils.selinux_module import run_on
from ansible_collections.holdfast.chain.plugins.module_utils.selinux_options import (
    ARGUMENT_SPEC,
    request_of,
)
from ansible_collections.holdfast.chain.plugins.module_utils.transaction import TransactionError


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec=ARGUMENT_SPEC,
        supports_check_mode=True,
    )
    try:
        result, warnings = run_on(Selinux(Host()), request_of(module.params), module.check_mode)
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
