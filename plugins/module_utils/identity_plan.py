# Copyright: (c) 2026, Holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Planners for a host's identity, and carrying out what they planned.

The planners are pure: they get what read_identity() found, what is wanted and the time.
"""

from __future__ import annotations

import contextlib
import datetime
import grp
import hashlib
import json
import pwd
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable, Sequence

from ansible_collections.holdfast.chain.plugins.module_utils.files import Account, account_ids
from ansible_collections.holdfast.chain.plugins.module_utils.identity import (
    CA,
    CERTIFICATE,
    CHAIN,
    KEY,
    MANIFEST,
    REQUEST,
    Attributes,
    Generation,
    Identity,
)
from ansible_collections.holdfast.chain.plugins.module_utils.names import Names
from ansible_collections.holdfast.chain.plugins.module_utils.plan import Change, Plan
from ansible_collections.holdfast.chain.plugins.module_utils.transaction import Transaction
from ansible_collections.holdfast.chain.plugins.module_utils.x509 import (
    fingerprint,
    key_fingerprint,
    key_type_of,
    make_key,
    make_request,
    names_of,
    not_after,
    not_before,
    private_pem,
    timestamp,
    to_pem,
)

with contextlib.suppress(ImportError):  # x509.CRYPTOGRAPHY_ERROR tells
    from cryptography import x509

_KEPT_GENERATIONS = 2
_KEY_MODE = 0o600


@dataclass(frozen=True)
class Owner:
    """Who owns private keys: as asked, and in numbers.

    ids: -1 for what was not asked for; None where an account does not exist (yet).
    """

    user: Account
    group: Account
    ids: tuple[int, int] | None

    @classmethod
    def resolve(cls, user: Account, group: Account) -> Owner:
        """Look the accounts up."""
        try:
            return cls(user, group, account_ids(user, group))
        except LookupError:
            return cls(user, group, None)

    def change(self, key: Path, found: Attributes) -> Change | None:
        """What is wrong with the attributes of a private key; None if nothing is."""
        uid, gid = (None, None) if self.ids is None else self.ids
        fits = found.mode == _KEY_MODE and uid in (-1, found.uid) and gid in (-1, found.gid)
        if fits:
            return None
        before = {
            "mode": f"{found.mode:04o}",
            "owner": _account_name(found.uid, pwd.getpwuid),
            "group": _account_name(found.gid, grp.getgrgid),
        }
        after = {
            "mode": f"{_KEY_MODE:04o}",
            "owner": before["owner"] if self.user is None else str(self.user),
            "group": before["group"] if self.group is None else str(self.group),
        }
        return Change(str(key), before, after, "only its owner may read a private key")


def _account_name(number: int, lookup: Callable[[int], Any]) -> str:
    try:
        return str(lookup(number)[0])
    except KeyError:
        return str(number)


@dataclass(frozen=True)
class Wanted:
    """What the host's identity is to be; times and fractions as in mtls_request's options."""

    names: Names
    key_type: str
    root_fingerprint: str | None
    renew_before: float
    force: bool = False


def renewal_reasons(
    identity: Identity, wanted: Wanted, moment: datetime.datetime
) -> list[tuple[str, str]]:
    """Why a new certificate is due: a word and a sentence each; empty if it is not. Pure."""
    current = identity.current
    if current is None:
        reason = "pair_mismatch" if identity.mismatch else "missing"
        return [(reason, identity.fault or "there is no certificate yet")]
    return [
        *_expiry_reasons(current.leaf, wanted.renew_before, moment),
        *_difference_reasons(current, wanted),
        *([("forced", "renewal was asked for (force)")] if wanted.force else []),
    ]


def _expiry_reasons(
    leaf: x509.Certificate, renew_before: float, moment: datetime.datetime
) -> list[tuple[str, str]]:
    end, start = not_after(leaf), not_before(leaf)
    left = (end - moment) / (end - start)
    if left <= 0:
        return [("expired", f"the certificate expired {timestamp(end)}")]
    if moment < start:
        return [("not_yet_valid", f"the certificate is valid only from {timestamp(start)}")]
    if left < renew_before:
        return [
            (
                "expiring",
                f"{left:.0%} of its lifetime is left until {timestamp(end)}; renewal is due "
                f"below {renew_before:.0%}",
            )
        ]
    return []


def _difference_reasons(current: Generation, wanted: Wanted) -> list[tuple[str, str]]:
    reasons = []
    found = names_of(current.leaf)
    if found != wanted.names:
        reasons.append(
            (
                "names_differ",
                f"the certificate is for {', '.join(found.listed())}; wanted is "
                f"{', '.join(wanted.names.listed())}",
            )
        )
    roots = [fingerprint(root) for root in current.roots]
    if wanted.root_fingerprint is not None and wanted.root_fingerprint not in roots:
        reasons.append(("ca_differs", "the certificate comes from another CA than the wanted one"))
    key_type = key_type_of(current.leaf.public_key())
    if key_type != wanted.key_type:
        reasons.append(("key_policy", f"the key is {key_type}; wanted is {wanted.key_type}"))
    return reasons


def pending_fits(identity: Identity, wanted: Wanted) -> bool:
    """Whether the waiting request asks for what is wanted, with a key that is not in use yet."""
    pending = identity.pending
    return (
        pending is not None
        and names_of(pending.request) == wanted.names
        and key_type_of(pending.request.public_key()) == wanted.key_type
        and (identity.current is None or pending.key_sha256 != identity.current.key_sha256)
    )


def _surplus(identity: Identity, in_use: Path | None) -> list[Path]:
    """Generations beyond the last two, once in_use is the current one."""
    others = [one.path for one in identity.generations() if one.path != in_use]
    return others[_KEPT_GENERATIONS - (in_use is not None) :]


def _removals(debris: Sequence[Path], surplus: Sequence[Path]) -> list[Change]:
    return [
        *(Change(str(path), "present", None, "left by an interrupted run") for path in debris),
        *(Change(str(path), "present", None, "older than the last two") for path in surplus),
    ]


def _described(names: Names, key_type: str) -> dict[str, Any]:
    return {"key_type": key_type, "names": names.listed()}


@dataclass(frozen=True)
class RequestPlan:
    """reasons: why a certificate is due. plan: what that changes on the host.

    make: whether a new key and request are needed. attributes_of: the key to put right, if any.
    """

    reasons: list[tuple[str, str]]
    plan: Plan
    make: bool
    remove: list[Path]
    attributes_of: Path | None


def plan_request(
    identity: Identity, wanted: Wanted, owner: Owner, moment: datetime.datetime
) -> RequestPlan:
    """What mtls_request has to do."""
    reasons = renewal_reasons(identity, wanted, moment)
    make = bool(reasons) and not pending_fits(identity, wanted)
    pending, current = identity.pending, identity.current
    target = identity.directory / "pending"
    surplus = _surplus(identity, current.path if current else None)
    changes = _removals(identity.debris, surplus)
    remove = [*identity.debris, *surplus]
    attributes = owner.change(current.path / KEY, current.key_attributes) if current else None
    if attributes:
        changes.append(attributes)
    before = None
    if pending is not None:
        before = _described(names_of(pending.request), key_type_of(pending.request.public_key()))
    if make:
        after = _described(wanted.names, wanted.key_type)
        changes.append(
            Change(str(target), before, after, "; ".join(text for _reason, text in reasons))
        )
    elif pending is not None and not reasons:
        changes.append(Change(str(target), before, None, "no certificate is due"))
    if pending is not None and (make or not reasons):
        remove.append(target)
    return RequestPlan(
        reasons, Plan(changes), make, remove, current.path / KEY if current and attributes else None
    )


def apply_request(
    transaction: Transaction,
    planned: RequestPlan,
    directory: Path,
    wanted: Wanted,
    *,
    common_name: str,
    owner: Owner,
) -> None:
    """Carry out what plan_request planned. The waiting key belongs to who runs the module."""
    for path in planned.remove:
        transaction.remove(path)
    if planned.attributes_of is not None:
        transaction.set_attributes(planned.attributes_of, _KEY_MODE, owner.user, owner.group)
    if planned.make:
        key = make_key(wanted.key_type)
        pending = directory / "pending"
        transaction.make_directory(pending, 0o700)
        transaction.write_file(pending / KEY, private_pem(key), _KEY_MODE)
        request = make_request(key, common_name, wanted.names)
        transaction.write_file(pending / REQUEST, request.encode("ascii"), 0o644)


@dataclass(frozen=True)
class Material:
    """Verified certificates that are to become the host's identity, and its key."""

    leaf: x509.Certificate
    intermediates: Sequence[x509.Certificate]
    root: x509.Certificate
    key_pem: bytes = field(repr=False)

    @property
    def files(self) -> dict[str, bytes]:
        """Name to content, the key apart."""
        leaf = to_pem(self.leaf)
        return {
            CERTIFICATE: leaf.encode("ascii"),
            CHAIN: "".join([leaf, *map(to_pem, self.intermediates)]).encode("ascii"),
            CA: to_pem(self.root).encode("ascii"),
        }

    @property
    def digests(self) -> dict[str, str]:
        """Name to SHA-256 of the content, as in the manifest."""
        return {name: hashlib.sha256(content).hexdigest() for name, content in self.files.items()}


@dataclass(frozen=True)
class InstallPlan:
    """plan: what changes on the host. generation: the directory that is to be current.

    make: whether it has to be written. link: whether `current` has to be swapped.
    """

    plan: Plan
    generation: Path
    sequence: int
    make: bool
    link: bool
    remove_first: list[Path]
    remove_last: list[Path]
    attributes_of: Path | None


def plan_install(identity: Identity, material: Material, owner: Owner) -> InstallPlan:
    """What mtls_certificate has to do with certificates that have been verified."""
    digests = material.digests
    existing = next((one for one in identity.generations() if one.digests == digests), None)
    path = existing.path if existing else _free_path(identity, material.leaf)
    link = existing is None or existing is not identity.current
    surplus = _surplus(identity, path)
    changes = _removals(identity.debris, surplus)
    remove_last = list(surplus)
    if link:
        before = _shown(identity.current) if identity.current else identity.fault
        after = {
            **_described(names_of(material.leaf), key_type_of(material.leaf.public_key())),
            "serial": f"{material.leaf.serial_number:x}",
            "not_after": timestamp(not_after(material.leaf)),
            "root_sha256": fingerprint(material.root),
        }
        reason = "a verified certificate is to be installed"
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
    )


def _shown(current: Generation) -> dict[str, Any]:
    facts = current.facts()
    return {
        **_described(names_of(current.leaf), facts["key_type"]),
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
        transaction.write_file(
            generation / KEY, material.key_pem, _KEY_MODE, owner.user, owner.group
        )
        for name, content in material.files.items():
            transaction.write_file(generation / name, content, 0o644)
        manifest = {"sequence": planned.sequence, "sha256": material.digests}
        content = json.dumps(manifest, indent=2, sort_keys=True).encode("ascii") + b"\n"
        transaction.write_file(generation / MANIFEST, content, 0o644)
    if planned.attributes_of is not None:
        transaction.set_attributes(planned.attributes_of, _KEY_MODE, owner.user, owner.group)
    if planned.link:
        target = Path("generations") / planned.generation.name
        transaction.symlink(directory / "current", target)
    for path in planned.remove_last:
        transaction.remove(path)
