# Copyright: (c) 2026, Holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What nodes of the chain need of a firewall. Pure."""

from __future__ import annotations

import re
from typing import Any, Mapping, Sequence

from ansible_collections.holdfast.chain.plugins.module_utils.firewall_handshake import PROGRAM

GRAPHQL_PORT = 8080
RATE = {"per_second": 10, "burst": 50}
_LOOPBACK = {"0.0.0.0": "127.0.0.1", "::": "[::1]", "": "127.0.0.1"}  # noqa: S104 -- compared only


def node_firewall(
    members: Sequence[Mapping[str, Any]],
    api_sources: Sequence[str] = (),
    *,
    service: str = "holdfast-node@{name}",
    directory: str = "/etc/holdfast",
    listen: str = "0.0.0.0",  # noqa: S104 -- as nodes listen; nothing listens here
    graphql_port: int = GRAPHQL_PORT,
    rate: Mapping[str, int] | None = None,
) -> dict[str, list[dict[str, Any]]]:
    """services and gates of all nodes on one machine.

    members: as the filter members has them. service: with {name} for the node's name. The handshake
    is the node's own: on its peer port, against the identity it has. GraphQL has one port per
    machine, which belongs to the first node.
    """
    services: list[dict[str, Any]] = []
    gates = []
    host = _LOOPBACK.get(listen, f"[{listen}]" if ":" in listen else listen)
    for member in sorted(members, key=lambda item: str(item["name"])):
        name = str(member["name"])
        word = re.sub(r"[^a-z0-9]", "_", name.lower())
        api = [int(member["api_port"])]
        if not gates and graphql_port:
            api.append(int(graphql_port))
        groups: tuple[tuple[str, list[int], dict[str, Any]], ...] = (
            ("p2p", [int(member["p2p_port"])], {"rate": dict(rate or RATE)}),
            ("sync", [int(member["sync_port"])], {}),
            ("api", api, {"sources": list(api_sources)}),
        )
        for kind, ports, more in groups:
            services.append({"name": f"{kind}_{word}", "ports": ports, "gate": name, **more})
        gates.append(
            {
                "name": name,
                "service": service.replace("{name}", name),
                "check": [
                    PROGRAM,
                    f"--address={host}:{int(member['p2p_port'])}",
                    f"--identity={directory}/{name}/tls/current",
                ],
            }
        )
    return {"services": services, "gates": gates}
