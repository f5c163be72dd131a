#!/usr/bin/python
# Copyright: (c) 2026, Holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: clock_info
short_description: How wrong a host's clock can be, by chrony
version_added: 0.1.0
author:
  - Holdfast contributors (@holdfast)
description:
  - Asks chronyd for the offset of the clock, the most it can be wrong, its sources and its history,
    and judges them against a bound. Changes nothing.
  - Tells no clock daemon apart from one that is not synchronised, and that from one that has lost
    its sources, which chrony itself goes on to call synchronised.
options:
  bound_ms:
    description: Milliseconds the error bound may have.
    type: float
    default: 100
  warning_ms:
    description: Milliseconds of the error bound, or of its history's p99, that are worth a warning.
    type: float
    default: 50
  allow_local:
    description:
      - Whether the host may be its own reference (chrony's directive C(local)), as the time host of
        a group without any other is. Otherwise such a clock counts as not synchronised.
    type: bool
    default: false
  window:
    description: Seconds of the tracking log that p99 is taken over.
    type: int
    default: 3600
  tracking_log:
    description: The log that C(log tracking) of chrony makes. At most its last MiB is read.
    type: path
    default: /var/log/chrony/tracking.log
  wait:
    description:
      - What to wait for, V(synchronised) for a selected source, V(bound) for an error bound of at
        most O(bound_ms). Without a daemon there is nothing to wait for.
      - That it did not come is no failure by itself, see O(require).
    type: str
    choices: [none, synchronised, bound]
    default: none
  wait_timeout:
    description: Seconds to wait at most.
    type: int
    default: 60
  require:
    description: Whether a verdict other than V(within) and V(warning) fails the task.
    type: bool
    default: false
notes:
  - chronyc talks to chronyd over its socket, which only root and chrony's user may do. For others
    it tries the local network, and the tracking log may be closed to them.
  - It takes chrony 4.0 or newer.
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
seealso:
  - name: chronyc
    description: Its reports, and the formula of the error bound.
    link: https://chrony-project.org/documentation.html
"""

EXAMPLES = r"""
- name: See how good the clock is
  holdfast.chain.clock_info:
  register: clock

- name: Tell it
  ansible.builtin.debug:
    msg: "{{ clock.verdict }}: {{ clock.reason }}"

- name: Go on only with a clock that is right to 100 ms, and give chrony a minute to get there
  holdfast.chain.clock_info:
    bound_ms: 100
    wait: bound
    wait_timeout: 60
    require: true

- name: Judge the time host of a group that has no other
  holdfast.chain.clock_info:
    allow_local: true
    require: true
"""

RETURN = r"""
verdict:
  description:
    - V(within) the bound, above the V(warning) level, V(beyond) the bound, V(not_synchronised) or,
      where no chronyd runs, V(no_daemon).
  returned: always
  type: str
reason:
  description: Why, with its numbers.
  returned: always
  type: str
synchronised:
  description: Whether the clock follows a source, or itself where O(allow_local=true).
  returned: always
  type: bool
offset_seconds:
  description: How far the clock is ahead of the true time, null if that is not known.
  returned: always
  type: float
error_bound_seconds:
  description:
    - The most it can be wrong, if the reference its sources go back to is right. It is the amount
      of the offset, the root dispersion and half of the root delay.
  returned: always
  type: float
bound_seconds:
  description: O(bound_ms) in seconds.
  returned: always
  type: float
warning_seconds:
  description: O(warning_ms) in seconds.
  returned: always
  type: float
root_delay_seconds:
  description: The way to the reference and back.
  returned: always
  type: float
root_dispersion_seconds:
  description: The uncertainty that has gathered on the way and since the last update.
  returned: always
  type: float
p99_seconds:
  description:
    - In 99 of 100 updates of the window the clock was found to be off by this or less. Null without
      a tracking log.
  returned: always
  type: float
p99_samples:
  description: Updates in the window.
  returned: always
  type: int
p99_since:
  description: When the first of them was, in seconds since the epoch.
  returned: always
  type: float
stratum:
  description: Steps to the reference.
  returned: always
  type: int
reference:
  description: The source it follows.
  returned: always
  type: str
local_reference:
  description: Whether it follows itself.
  returned: always
  type: bool
last_update:
  description: When it last heard of its source, in seconds since the epoch.
  returned: always
  type: float
frequency_ppm:
  description: How fast the clock would be by itself.
  returned: always
  type: float
leap_status:
  description: As chrony says it.
  returned: always
  type: str
  sample: Normal
sources:
  description: All time sources.
  returned: always
  type: list
  elements: dict
  contains:
    name:
      description: As it is configured.
      type: str
    mode:
      description: V(server), V(peer) or V(refclock).
      type: str
    state:
      description: V(selected), V(combined), V(not combined), V(unusable), V(falseticker) or
        V(too variable).
      type: str
    stratum:
      description: Its own steps to the reference.
      type: int
    poll:
      description: Seconds between requests, as a power of two.
      type: int
    reach:
      description: Which of the last eight requests it answered, the newest in the lowest bit.
      type: int
    last_sample_age:
      description: Seconds since its last answer, null without one.
      type: int
    offset:
      description: Seconds the time chronyd keeps was ahead of it at the last sample.
      type: float
    error:
      description: How far that can be wrong.
      type: float
installed:
  description: Whether the host has chronyd.
  returned: always
  type: bool
version:
  description: Which.
  returned: always
  type: str
running:
  description: Whether it runs.
  returned: always
  type: bool
observes_only:
  description: Whether it only measures the clock (C(chronyd -x)).
  returned: always
  type: bool
other_daemons:
  description: Others that set this clock, each with C(name) and C(pid).
  returned: always
  type: list
  elements: dict
may_set_time:
  description: Whether anybody on this host may set its clock.
  returned: always
  type: bool
may_not_set_time_because:
  description: Why not, or empty.
  returned: always
  type: str
kernel:
  description:
    - What the kernel was told by whatever daemon, on the machine itself or, in a container, on the
      machine below. C(synchronised), C(max_error) and C(estimated_error) in seconds. Null where it
      may not be asked. It takes no part in the verdict.
  returned: always
  type: dict
waited_seconds:
  description: How long it waited.
  returned: always
  type: float
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.holdfast.chain.plugins.module_utils.clock import (
    FIT,
    ClockError,
    Limits,
)
from ansible_collections.holdfast.chain.plugins.module_utils.clock_read import (
    condition,
    look,
    wait,
)
from ansible_collections.holdfast.chain.plugins.module_utils.hostfs import Host

WAY_OUT = {
    "beyond": "see whether its sources are good and near enough (chronyc sources -v)",
    "not_synchronised": "see that its sources can be reached (UDP port 123) and agree with each "
    "other (chronyc sources -v)",
    "no_daemon": "install and start chrony, for example with the role holdfast.chain.clock",
}


def limits_of(params: dict[str, Any]) -> Limits:
    """The bounds in seconds. Raises ValueError naming the option that does not fit."""
    if not 0 < params["warning_ms"] <= params["bound_ms"]:
        raise ValueError(
            f"warning_ms = {params['warning_ms']}, bound_ms = {params['bound_ms']}: expected "
            "0 < warning_ms <= bound_ms; give both in milliseconds"
        )
    for name in ("window", "wait_timeout"):
        if params[name] < 0:
            raise ValueError(f"{name} = {params[name]}: expected seconds, 0 or more")
    return Limits(params["bound_ms"] / 1000, params["warning_ms"] / 1000, params["allow_local"])


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "bound_ms": {"type": "float", "default": 100},
            "warning_ms": {"type": "float", "default": 50},
            "allow_local": {"type": "bool", "default": False},
            "window": {"type": "int", "default": 3600},
            "tracking_log": {"type": "path", "default": "/var/log/chrony/tracking.log"},
            "wait": {
                "type": "str",
                "choices": ["none", "synchronised", "bound"],
                "default": "none",
            },
            "wait_timeout": {"type": "int", "default": 60},
            "require": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    options = module.params
    host = Host()
    try:
        limits = limits_of(options)
        found = wait(
            lambda: look(host, options["tracking_log"], options["window"], limits),
            condition(options["wait"]),
            options["wait_timeout"],
        )
    except (ValueError, ClockError) as error:
        module.fail_json(msg=str(error))
    except OSError as error:
        module.fail_json(msg=f"reading the host: {error}")
    if options["require"] and found["verdict"] not in FIT:
        module.fail_json(
            msg="clock: {verdict} after {waited_seconds} s: {reason}; {}".format(
                WAY_OUT[found["verdict"]], **found
            ),
            **found,
        )
    if found["verdict"] == "warning":
        module.warn("clock: " + found["reason"])
    if found["running"] and found["other_daemons"] and not found["observes_only"]:
        others = ", ".join(daemon["name"] for daemon in found["other_daemons"])
        module.warn(f"clock: chronyd and {others} both set it; stop and disable one")
    module.exit_json(changed=False, **found)


if __name__ == "__main__":
    main()
