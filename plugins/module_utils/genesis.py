# Copyright: (c) 2026, Holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Decides what has to happen to the genesis, from what all hosts have. Pure."""

from __future__ import annotations

import hashlib
from typing import Any, Mapping


def verdict(
    found: Mapping[str, Mapping[str, Any]],
    chain_id: str,
    validators: Mapping[str, str | None],
) -> dict[str, Any]:
    """Whether to create a genesis, which one to spread, or why neither may happen.

    found: what node_genesis read on each host of this run: {exists, content, genesis}.
    validators: public keys (hexadecimal) by name, as the inventory and the hosts have them; None
    where a key is not known in this run.
    Returns {faults: sentences, create: bool, content: text of the one to spread or ""}.
    """
    have = {name: item for name, item in found.items() if item["exists"]}
    faults: list[str] = []
    if not have:
        unknown = sorted(name for name, key in validators.items() if not key)
        if unknown:
            faults.append(
                "no host of this run has a genesis, and it can only be created from the keys of "
                "all validators; not known: {}. Run without --limit".format(", ".join(unknown))
            )
        return {"faults": faults, "create": not faults, "content": ""}
    by_hash: dict[str, list[str]] = {}
    for name in sorted(have):
        content = have[name]["content"].encode()
        by_hash.setdefault(hashlib.sha256(content).hexdigest(), []).append(name)
    if len(by_hash) > 1:
        told = "; ".join(
            "{} on {}".format(digest[:16], ", ".join(names))
            for digest, names in sorted(by_hash.items(), key=lambda kv: kv[1])
        )
        faults.append(
            f"the hosts have different genesis files (by SHA-256): {told}. They belong to "
            "different networks: move the wrong ones away by hand, with the data of their nodes"
        )
        return {"faults": faults, "create": False, "content": ""}
    first = have[sorted(have)[0]]
    faults += _differences(first["genesis"], chain_id, validators)
    return {"faults": faults, "create": False, "content": "" if faults else first["content"]}


def _differences(
    genesis: Mapping[str, Any], chain_id: str, validators: Mapping[str, str | None]
) -> list[str]:
    faults = []
    if genesis["chain_id"] != chain_id:
        faults.append(
            "chain_id = {}: the genesis on the hosts is that of {}. A chain keeps its id; use "
            "other hosts, or other instance names, for another chain".format(
                chain_id, genesis["chain_id"]
            )
        )
    agreed = {item["name"]: item["public_key"] for item in genesis["validators"]}
    added, gone = sorted(set(validators) - set(agreed)), sorted(set(agreed) - set(validators))
    if added or gone:
        faults.append(
            "the group validators differs from the genesis (added: {}; missing: {}). The genesis "
            "never changes: validators join and leave through the chain itself. Put the group "
            "back, or make a new host an observer first".format(
                ", ".join(added) or "none", ", ".join(gone) or "none"
            )
        )
    changed = sorted(
        name
        for name, key in validators.items()
        if key and name in agreed and key.lower() != agreed[name].lower()
    )
    if changed:
        faults.append(
            "the key of {} is not the one in the genesis. Restore keys/validator.key from its "
            "backup: without it the network takes this node for a stranger".format(
                ", ".join(changed)
            )
        )
    return faults
