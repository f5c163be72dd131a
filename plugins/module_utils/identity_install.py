# Copyright: (c) 2026, Holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Planner of the swap to verified certificates, and carrying out what it planned.

Pure like its counterpart for requests, identity_plan. Trust is swapped with the pair: a change of
the roots alone is a new generation with the same key and certificate.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Sequence

from ansible_collections.holdfast.chain.plugins.module_utils.files import Account
from ansible_collections.holdfast.chain.plugins.module_utils.identity import (
    CA,
    CERTIFICATE,
    CHAIN,
    KEY,
    MANIFEST,
    Generation,
    Identity,
)
from ansible_collections.holdfast.chain.plugins.module_utils.identity_plan import (
    KEY_MODE,
    Owner,
    described,
    removals,
    surplus,
)
from ansible_collections.holdfast.chain.plugins.module_utils.plan import Change, Plan
from ansible_collections.holdfast.chain.plugins.module_utils.transaction import Transaction
from ansible_collections.holdfast.chain.plugins.module_utils.x509 import (
    fingerprint,
    key_fingerprint,
    key_type_of,
    names_of,
    not_after,
    timestamp,
    to_pem,
)

with contextlib.suppress(ImportError):  # x509.CRYPTOGRAPHY_ERROR tells
    from cryptography import x509


@dataclass(frozen=True)
class Material:
    """Verified certificates that are to become the host's identity, and its key.

    roots: all that are to be trusted, the one the leaf comes from first.
    """

    leaf: x509.Certificate
    intermediates: Sequence[x509.Certificate]
    roots: Sequence[x509.Certificate]
    key_pem: bytes = field(repr=False)

    @property
    def files(self) -> dict[str, bytes]:
        """Name to content, the key apart."""
        leaf = to_pem(self.leaf)
        return {
            CERTIFICATE: leaf.encode("ascii"),
            CHAIN: "".join([leaf, *map(to_pem, self.intermediates)]).encode("ascii"),
            CA: "".join(map(to_pem, self.roots)).encode("ascii"),
        }

    @property
    def digests(self) -> dict[str, str]:
        """Name to SHA-256 of the content, as in the manifest."""
        return {name: hashlib.sha256(content).hexdigest() for name, content in self.files.items()}


@dataclass(frozen=True)
class InstallPlan:
    """plan: what changes on the host. generation: the directory that is to be current.

    make: whether it has to be written. link: whether `current` has to be swapped.
    key_owner: numbers for the key where the one in use goes on being used; None: as wanted.
    """

    plan: Plan
    generation: Path
    sequence: int
    make: bool
    link: bool
    remove_first: list[Path]
    remove_last: list[Path]
    attributes_of: Path | None
    key_owner: tuple[Account, Account] | None = None


def plan_install(identity: Identity, material: Material, owner: Owner) -> InstallPlan:
    """What mtls_certificate has to do with certificates that have been verified."""
    digests = material.digests
    existing = next((one for one in identity.generations() if one.digests == digests), None)
    path = existing.path if existing else _free_path(identity, material.leaf)
    link = existing is None or existing is not identity.current
    surplus_paths = surplus(identity, path)
    changes = removals(identity.debris, surplus_paths)
    remove_last = list(surplus_paths)
    if link:
        before = _shown(identity.current) if identity.current else identity.fault
        after = {
            **described(names_of(material.leaf), key_type_of(material.leaf.public_key())),
            "serial": f"{material.leaf.serial_number:x}",
            "not_after": timestamp(not_after(material.leaf)),
            "root_sha256": ", ".join(map(fingerprint, material.roots)),
        }
        reason = "a verified certificate is to be installed"
        if identity.current is not None and identity.current.leaf == material.leaf:
            reason = "other roots or intermediates are to be beside the certificate"
        changes.append(Change(str(identity.directory / "current"), before, after, reason))
    if identity.broken is not None:
        changes.append(Change(str(identity.broken), "present", None, "it is damaged"))
        remove_last.append(identity.broken)
    attributes = owner.change(path / KEY, existing.key_attributes) if existing else None
    if attributes:
        changes.append(attributes)
    pending = identity.pending
    if pending and pending.key_sha256 == key_fingerprint(material.leaf.public_key()):
        target = identity.directory / "pending"
        changes.append(Change(str(target), "present", None, "it has its certificate"))
        remove_last.append(target)
    sequence = max((one.sequence for one in identity.generations()), default=0) + 1
    return InstallPlan(
        Plan(changes),
        path,
        sequence,
        make=existing is None,
        link=link,
        remove_first=list(identity.debris),
        remove_last=remove_last,
        attributes_of=path / KEY if attributes else None,
        key_owner=_key_owner(identity.current, material, owner),
    )


def _key_owner(
    current: Generation | None, material: Material, owner: Owner
) -> tuple[Account, Account] | None:
    """Who owns the second copy of a key: what is not asked for stays as it is."""
    if current is None or current.key_sha256 != key_fingerprint(material.leaf.public_key()):
        return None
    found = current.key_attributes
    return (
        found.uid if owner.user is None else owner.user,
        found.gid if owner.group is None else owner.group,
    )


def _shown(current: Generation) -> dict[str, Any]:
    facts = current.facts()
    return {
        **described(names_of(current.leaf), facts["key_type"]),
        "serial": facts["serial"],
        "not_after": facts["not_after"],
        "root_sha256": ", ".join(facts["root_sha256"]),
    }


def _free_path(identity: Identity, leaf: x509.Certificate) -> Path:
    """generations/<serial>, numbered where one with other files has that name (a new chain)."""
    taken = [one.path for one in identity.generations()] + [identity.broken]
    path = identity.directory / "generations" / f"{leaf.serial_number:x}"
    number = 1
    while path in taken:
        number += 1
        path = path.with_name(f"{leaf.serial_number:x}-{number}")
    return path


def apply_install(
    transaction: Transaction,
    planned: InstallPlan,
    directory: Path,
    material: Material,
    owner: Owner,
) -> None:
    """Carry out what plan_install planned; the swap of `current` is the one step that counts."""
    for path in planned.remove_first:
        transaction.remove(path)
    if planned.make:
        generation = planned.generation
        transaction.make_directory(generation, 0o755)
        user, group = planned.key_owner or (owner.user, owner.group)
        transaction.write_file(generation / KEY, material.key_pem, KEY_MODE, user, group)
        for name, content in material.files.items():
            transaction.write_file(generation / name, content, 0o644)
        manifest = {"sequence": planned.sequence, "sha256": material.digests}
        content = json.dumps(manifest, indent=2, sort_keys=True).encode("ascii") + b"\n"
        transaction.write_file(generation / MANIFEST, content, 0o644)
    if planned.attributes_of is not None:
        transaction.set_attributes(planned.attributes_of, KEY_MODE, owner.user, owner.group)
    if planned.link:
        target = Path("generations") / planned.generation.name
        transaction.symlink(directory / "current", target)
    for path in planned.remove_last:
        transaction.remove(path)
