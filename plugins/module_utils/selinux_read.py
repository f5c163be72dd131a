# Copyright: (c) 2026, Holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What selinux_context has to know of a host; wrong options are refused here."""

from __future__ import annotations

from ansible_collections.holdfast.chain.plugins.module_utils.selinux import (
    NO_LABEL,
    SelinuxError,
    check_target,
    close_matches,
    parse_files,
)
from ansible_collections.holdfast.chain.plugins.module_utils.selinux_host import Selinux
from ansible_collections.holdfast.chain.plugins.module_utils.selinux_plan import Observed, Request

PORTS_UNKNOWN = (
    "semanage is not installed yet: what types the policy gives to ports is not known before it is"
)


def read(selinux: Selinux, policy: str, request: Request, *, rehearsal: bool = False) -> Observed:
    """The host as it is. rehearsal: what semanage would tell may be unknown.

    Raises SelinuxError for a target, type, user, range or boolean that the policy does not know.
    """
    request.check()
    levels = selinux.levels()
    if request.present:
        check(selinux, policy, request, levels)
    local = selinux.customisations(policy)
    stored = {rule.key for rule in local.ports}
    needed = request.present and any(item.key not in stored for item in request.ports)
    known = not (needed and rehearsal and "semanage" in selinux.missing_tools())
    rules = parse_files(selinux.policy_file_contexts(policy))
    live = {name: selinux.boolean(name) for name in request.booleans}
    return Observed(
        local=local,
        levels=levels,
        live={name: value for name, value in live.items() if value is not None},
        policy_files={rule.key: rule.context for rule in rules},
        policy_ports=selinux.policy_ports() if needed and known else {},
        ports_known=known,
    )


def check(selinux: Selinux, policy: str, request: Request, levels: bool) -> None:
    """SelinuxError for the first option the policy cannot take; nothing has changed by then."""
    substitutions = [pair for each in selinux.substitutions(policy) for pair in each]
    for item in request.files:
        check_target(item.target, "contexts: target", substitutions)
        if item.type != NO_LABEL:
            option = f"contexts: {item.target}"
            check_context(
                selinux, option, item.type, user=item.seuser, level=item.range, levels=levels
            )
    for port in request.ports:
        option = f"ports: {port.proto}/{port.low}"
        check_context(selinux, option, port.type, user=None, level=port.range, levels=levels)
    for name in request.booleans:
        if selinux.boolean(name) is None:
            close = close_matches(name, selinux.boolean_names())
            raise SelinuxError(f"booleans: the policy has no boolean '{name}'{close}")


def check_context(
    selinux: Selinux, option: str, name: str, *, user: str | None, level: str | None, levels: bool
) -> None:
    """SelinuxError naming the part of a context that the loaded policy does not know."""

    def valid(its_user: str, its_level: str) -> bool:
        return selinux.valid(f"{its_user}:object_r:{name}" + (f":{its_level}" if levels else ""))

    if valid(user or "system_u", level or "s0"):
        return
    if not valid("system_u", "s0"):
        close = close_matches(name, {word for word in selinux.names() if word.endswith("_t")})
        raise SelinuxError(
            f"{option}: the loaded policy has no type '{name}'{close}; a type of your own comes "
            "from a policy module (holdfast.chain.selinux_policy), which has to be there first"
        )
    if level is not None and not valid("system_u", level):
        raise SelinuxError(f"{option}: range '{level}' is none of the policy; expected one like s0")
    raise SelinuxError(
        f"{option}: seuser '{user}' is none of the policy; expected one like system_u"
    )
