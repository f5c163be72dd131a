# Copyright: (c) 2026, Holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a host's policy and its store have against a module; nothing has changed by then."""

from __future__ import annotations

from ansible_collections.holdfast.chain.plugins.module_utils.selinux import (
    SelinuxError,
    close_matches,
)
from ansible_collections.holdfast.chain.plugins.module_utils.selinux_cil import relied_on, render
from ansible_collections.holdfast.chain.plugins.module_utils.selinux_host import Selinux
from ansible_collections.holdfast.chain.plugins.module_utils.selinux_needs import Needs


def check_names(selinux: Selinux, needs: Needs) -> None:
    """Types, classes and permissions that the loaded policy does not know are refused."""
    wanted = dict.fromkeys(relied_on(render(needs)), "the policy")
    wanted.update(needs.types_of_others())
    ending = ":s0" if selinux.levels() else ""
    for name, option in sorted(wanted.items()):
        if not selinux.valid(f"system_u:object_r:{name}{ending}"):
            known = {word for word in selinux.names() if word.endswith("_t")}
            close = close_matches(name, known)
            raise SelinuxError(f"{option}: the loaded policy has no type '{name}'{close}")
    for need in needs.allow:
        known = set(selinux.permissions(need.object_class))
        if not known:
            raise SelinuxError(f"allow: the kernel has no class '{need.object_class}'")
        unknown = sorted(set(need.permissions) - known - {"*"})
        if unknown:
            close = close_matches(unknown[0], known)
            raise SelinuxError(
                f"allow: class {need.object_class} has no permission '{unknown[0]}'{close}"
            )


def check_store(selinux: Selinux, policy: str, name: str, priority: int) -> None:
    """A module of that name that would hide this one is refused."""
    higher = [p for p in selinux.module_priorities(policy, name) if p > priority]
    if higher:
        raise SelinuxError(
            f"priority: a module '{name}' is installed at {higher[-1]}, above {priority}, and "
            f"would be used instead: 'semodule -X {higher[-1]} -r {name}' removes it"
        )
    if selinux.host.exists(f"{selinux.store(policy)}/modules/disabled/{name}"):
        raise SelinuxError(
            f"name: the module '{name}' is disabled: 'semodule -e {name}' enables it"
        )
