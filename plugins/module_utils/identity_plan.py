# Copyright: (c) 2026, Holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Planner of a host's key and request, and carrying out what it planned.

The planner is pure: it gets what read_identity() found, what is wanted and the time.
"""

from __future__ import annotations

import contextlib
import datetime
import grp
import pwd
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Sequence

from ansible_collections.holdfast.chain.plugins.module_utils.files import Account, account_ids
from ansible_collections.holdfast.chain.plugins.module_utils.identity import (
    KEY,
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
    key_type_of,
    make_key,
    make_request,
    names_of,
    not_after,
    not_before,
    private_pem,
    timestamp,
)
from ansible_collections.holdfast.chain.plugins.module_utils.x509_crl import find_revocation

with contextlib.suppress(ImportError):  # x509.CRYPTOGRAPHY_ERROR tells
    from cryptography import x509

KEPT_GENERATIONS = 2
KEY_MODE = 0o600


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
        fits = found.mode == KEY_MODE and uid in (-1, found.uid) and gid in (-1, found.gid)
        if fits:
            return None
        before = {
            "mode": f"{found.mode:04o}",
            "owner": _account_name(found.uid, pwd.getpwuid),
            "group": _account_name(found.gid, grp.getgrgid),
        }
        after = {
            "mode": f"{KEY_MODE:04o}",
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
    identity: Identity,
    wanted: Wanted,
    moment: datetime.datetime,
    crls: Sequence[x509.CertificateRevocationList] = (),
) -> list[tuple[str, str]]:
    """Why a new certificate is due: a word and a sentence each; empty if it is not. Pure."""
    current = identity.current
    if current is None:
        reason = "pair_mismatch" if identity.mismatch else "missing"
        return [(reason, identity.fault or "there is no certificate yet")]
    return [
        *_expiry_reasons(current.leaf, wanted.renew_before, moment),
        *_difference_reasons(current, wanted),
        *revocation_reasons(current, crls),
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
    # Of the roots in ca.pem only the one behind the leaf: two are trusted during a rollover.
    root = None if current.root is None else fingerprint(current.root)
    if wanted.root_fingerprint not in (None, root):
        reasons.append(("ca_differs", "the certificate comes from another CA than the wanted one"))
    key_type = key_type_of(current.leaf.public_key())
    if key_type != wanted.key_type:
        reasons.append(("key_policy", f"the key is {key_type}; wanted is {wanted.key_type}"))
    return reasons


def revocation_reasons(
    current: Generation, crls: Sequence[x509.CertificateRevocationList]
) -> list[tuple[str, str]]:
    """The reason `revoked` where the lists name the leaf or one of its issuers."""
    certificates = [current.leaf, *current.intermediates]
    issuers = [*current.intermediates, *([current.root] if current.root else [])]
    for certificate, issuer in zip(certificates, issuers):
        entry = find_revocation(certificate, issuer, crls)
        if entry is not None:
            text = f"'{certificate.subject.rfc4514_string()}' was revoked {timestamp(entry.moment)}"
            return [("revoked", f"{text} ({entry.reason})")]
    return []


def pending_fits(identity: Identity, wanted: Wanted) -> bool:
    """Whether the waiting request asks for what is wanted, with a key that is not in use yet."""
    pending = identity.pending
    return (
        pending is not None
        and names_of(pending.request) == wanted.names
        and key_type_of(pending.request.public_key()) == wanted.key_type
        and (identity.current is None or pending.key_sha256 != identity.current.key_sha256)
    )


def surplus(identity: Identity, in_use: Path | None) -> list[Path]:
    """Generations beyond the last two, once in_use is the current one."""
    others = [one.path for one in identity.generations() if one.path != in_use]
    return others[KEPT_GENERATIONS - (in_use is not None) :]


def removals(debris: Sequence[Path], older: Sequence[Path]) -> list[Change]:
    """The changes that remove what interrupted runs left and what is surplus."""
    return [
        *(Change(str(path), "present", None, "left by an interrupted run") for path in debris),
        *(Change(str(path), "present", None, "older than the last two") for path in older),
    ]


def described(names: Names, key_type: str) -> dict[str, Any]:
    """A request or a certificate as one side of a change."""
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
    identity: Identity,
    wanted: Wanted,
    owner: Owner,
    moment: datetime.datetime,
    crls: Sequence[x509.CertificateRevocationList] = (),
) -> RequestPlan:
    """What mtls_request has to do; crls: the revocation lists to look at."""
    reasons = renewal_reasons(identity, wanted, moment, crls)
    make = bool(reasons) and not pending_fits(identity, wanted)
    pending, current = identity.pending, identity.current
    target = identity.directory / "pending"
    surplus_paths = surplus(identity, current.path if current else None)
    changes = removals(identity.debris, surplus_paths)
    remove = [*identity.debris, *surplus_paths]
    attributes = owner.change(current.path / KEY, current.key_attributes) if current else None
    if attributes:
        changes.append(attributes)
    before = None
    if pending is not None:
        before = described(names_of(pending.request), key_type_of(pending.request.public_key()))
    if make:
        after = described(wanted.names, wanted.key_type)
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
        transaction.set_attributes(planned.attributes_of, KEY_MODE, owner.user, owner.group)
    if planned.make:
        key = make_key(wanted.key_type)
        pending = directory / "pending"
        transaction.make_directory(pending, 0o700)
        transaction.write_file(pending / KEY, private_pem(key), KEY_MODE)
        request = make_request(key, common_name, wanted.names)
        transaction.write_file(pending / REQUEST, request.encode("ascii"), 0o644)
