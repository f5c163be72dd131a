# Copyright: (c) 2026, Holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The revocation lists of a host: <identity directory>/crl.pem, one list per issuing CA.

Beside the generations and not in one: lists come and go without touching key and certificate. The
file is replaced in one step; what does not verify never gets there.
"""

from __future__ import annotations

import contextlib
import datetime
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Sequence

from ansible_collections.holdfast.chain.plugins.module_utils.files import (
    Account,
    account_ids,
    exists,
    leftovers,
)
from ansible_collections.holdfast.chain.plugins.module_utils.identity import (
    Attributes,
    Identity,
    attributes_of,
)
from ansible_collections.holdfast.chain.plugins.module_utils.plan import Change, Plan
from ansible_collections.holdfast.chain.plugins.module_utils.transaction import Transaction
from ansible_collections.holdfast.chain.plugins.module_utils.x509 import (
    RefusedError,
    extension,
    is_signed_by,
    not_after,
    to_pem,
)
from ansible_collections.holdfast.chain.plugins.module_utils.x509_crl import (
    crl_facts,
    crl_problems,
    digest_of,
    is_from,
    load_crls,
    number_of,
    same_issuer,
)

with contextlib.suppress(ImportError):  # x509.CRYPTOGRAPHY_ERROR tells
    from cryptography import x509

CRL = "crl.pem"
_MODE = 0o644


@dataclass(frozen=True)
class Published:
    """The lists on a host.

    fault: why what is there cannot be used; None if it can, or is absent. debris: what interrupted
    runs left.
    """

    path: Path
    crls: Sequence[x509.CertificateRevocationList] = ()
    fault: str | None = None
    attributes: Attributes | None = None
    debris: Sequence[Path] = ()

    def facts(self, moment: datetime.datetime) -> dict[str, Any]:
        """What modules return about them."""
        return {
            "file": str(self.path),
            "crls": [crl_facts(crl, moment) for crl in self.crls],
            "fault": self.fault,
        }

    @property
    def pem(self) -> str:
        """All of them in PEM."""
        return "".join(map(to_pem, self.crls))


def read_published(directory: Path, during_transaction: bool = False) -> Published:
    """The lists beside an identity.

    during_transaction: the temporary names beside them are those of one that is not over.
    """
    path = directory / CRL
    debris: list[Path] = []
    if not during_transaction:
        debris = [each for each in leftovers(directory) if each.name.endswith("-" + CRL)]
    published = Published(path, debris=tuple(debris))
    if not exists(path):
        return published
    published = replace(published, attributes=attributes_of(path))
    try:
        crls = load_crls(path.read_text("ascii", "replace"), str(path))
    except (OSError, RefusedError) as error:
        return replace(published, fault=str(error))
    return replace(published, crls=tuple(crls))


def trusted_issuers(
    roots: Sequence[x509.Certificate], candidates: Sequence[x509.Certificate]
) -> list[x509.Certificate]:
    """The roots, and those of the candidates that are CAs directly below one of them."""
    found = list(roots)
    for candidate in candidates:
        basic = extension(candidate, x509.BasicConstraints)
        if basic is not None and basic.ca and candidate not in found:
            above = (root for root in roots if root.subject == candidate.issuer)
            if any(is_signed_by(candidate, root.public_key()) for root in above):
                found.append(candidate)
    return found


@dataclass(frozen=True)
class Issuers:
    """Whose lists count on a host, as trusted_issuers() has them.

    known: below the roots that are trusted now or soon. lasting: without those whose root is going.
    """

    known: Sequence[x509.Certificate]
    lasting: Sequence[x509.Certificate]

    def may_count(self, crl: x509.CertificateRevocationList, moment: datetime.datetime) -> bool:
        """Whether a list that was published here before is of a CA below a root trusted here.

        That CA itself may be forgotten: after two renewals no generation is from it, and the CA
        that followed it does not tell of it for ever. Its list counts until its root is gone, or
        itself has ended, since then nothing that it issued is valid.
        """
        for issuer in self.known:
            if is_from(crl, issuer):
                return moment < not_after(issuer)
        roots = [one for one in self.known if one.subject == one.issuer]
        return any(
            not any(one.issuer == root.subject for one in self.known if one not in roots)
            for root in roots
        )


@dataclass(frozen=True)
class PublishPlan:
    """plan: what changes. crls: all lists that are to be there; write: whether to write them."""

    plan: Plan
    crls: Sequence[x509.CertificateRevocationList]
    write: bool


def plan_publish(
    present: Published,
    given: Sequence[x509.CertificateRevocationList],
    issuers: Issuers,
    identity: Identity,
    *,
    owner: tuple[Account, Account],
    moment: datetime.datetime,
) -> PublishPlan:
    """What mtls_crl has to do on a host. Reads owners' numbers only.

    Lists that are there and of another CA than the given ones stay, as long as their CA is trusted:
    a list by a root comes on another way than those of the issuing CAs.

    Raises RefusedError with everything that is wrong with the given lists.
    """
    problems = [fault for crl in given for fault in crl_problems(crl, issuers.known, moment)]
    problems += _set_problems(given, present, identity, issuers.lasting, moment)
    if problems:
        raise RefusedError(problems)
    kept = [
        crl
        for crl in present.crls
        if not any(same_issuer(crl, one) for one in given) and issuers.may_count(crl, moment)
    ]
    wanted = [*given, *kept]
    digests = [digest_of(crl) for crl in wanted]
    write = digests != [digest_of(crl) for crl in present.crls]
    changes = [
        Change(str(path), "present", None, "left by an interrupted run") for path in present.debris
    ]
    if write:
        before = _told(present.crls) if present.crls else present.fault
        changes.append(
            Change(str(present.path), before, _told(wanted), "newer revocation lists were verified")
        )
    elif present.attributes is not None:
        change = _attribute_change(present.path, present.attributes, owner)
        changes += [change] if change else []
    return PublishPlan(Plan(changes), wanted, write)


def _set_problems(
    given: Sequence[x509.CertificateRevocationList],
    present: Published,
    identity: Identity,
    lasting: Sequence[x509.Certificate],
    moment: datetime.datetime,
) -> list[tuple[str, str]]:
    """Lists that are older than what is there, and the one that is missing.

    None is missed for an identity whose own CA is not trusted any more: it is due anyway.
    """
    problems = []
    for index, crl in enumerate(given):
        title = f"revocation list of '{crl.issuer.rfc4514_string()}'"
        if any(same_issuer(crl, other) for other in given[:index]):
            problems.append(("crl_duplicate", f"{title}: given twice: expected one list per CA"))
        for old in present.crls:
            if not same_issuer(crl, old):
                continue
            newer = number_of(crl) > number_of(old) or digest_of(crl) == digest_of(old)
            if not newer:
                text = (
                    f"{title}: number {number_of(crl)} is given, {number_of(old)} is there: "
                    "expected a newer list: what was revoked would count as good again"
                )
                problems.append(("crl_older", text))
    current = identity.current
    if current is not None and current.intermediates:
        issuer = current.intermediates[0]
        ended = not_after(issuer) <= moment  # then no list of it is made any more
        if issuer in lasting and not ended and not any(is_from(crl, issuer) for crl in given):
            text = (
                f"crl: no list of '{issuer.subject.rfc4514_string()}', which issued the "
                "certificate in use here: whoever checks would refuse all of its certificates"
            )
            problems.append(("crl_incomplete", text))
    return problems


def _told(crls: Sequence[x509.CertificateRevocationList]) -> list[str]:
    return [
        f"{crl.issuer.rfc4514_string()}, number {number_of(crl)}, {len(list(crl))} revoked"
        for crl in crls
    ]


def _attribute_change(
    path: Path, found: Attributes, owner: tuple[Account, Account]
) -> Change | None:
    try:
        uid, gid = account_ids(*owner)
    except LookupError:
        return Change(str(path), "owner", f"{owner[0]}:{owner[1]}", "its owner is to be another")
    if found.mode == _MODE and uid in (-1, found.uid) and gid in (-1, found.gid):
        return None
    before = {"mode": f"{found.mode:04o}", "owner": found.uid, "group": found.gid}
    after = {
        "mode": f"{_MODE:04o}",
        "owner": found.uid if uid == -1 else uid,
        "group": found.gid if gid == -1 else gid,
    }
    return Change(str(path), before, after, "everybody reads it, only its owner changes it")


def apply_publish(
    transaction: Transaction,
    planned: PublishPlan,
    present: Published,
    owner: tuple[Account, Account],
) -> None:
    """Carry out what plan_publish planned."""
    for path in present.debris:
        transaction.remove(path)
    if not present.path.parent.is_dir():
        transaction.make_directory(present.path.parent, 0o755)
    if planned.write:
        content = "".join(map(to_pem, planned.crls)).encode("ascii")
        transaction.write_file(present.path, content, _MODE, *owner)
    elif present.attributes is not None:
        transaction.set_attributes(present.path, _MODE, *owner)
