# Copyright: (c) 2026, Holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Certificate revocation lists (RFC 5280, section 5): load, make, judge. Pure, time is a parameter.

Full lists only: no deltas, no scope narrower than their issuer. Works with cryptography 3.4.
"""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import re
from typing import Any, Iterable, Iterator, NamedTuple, Sequence

from ansible_collections.holdfast.chain.plugins.module_utils.x509 import (
    RefusedError,
    extension,
    is_list_signed_by,
    signing_hash,
    timestamp,
    unparsable,
)

with contextlib.suppress(ImportError):  # x509.CRYPTOGRAPHY_ERROR tells
    from cryptography import x509
    from cryptography.hazmat.primitives import serialization

# RFC 5280, section 5.3.1, without what a CA of one network has no use for.
REASONS = (
    "unspecified",
    "key_compromise",
    "affiliation_changed",
    "superseded",
    "cessation_of_operation",
    "privilege_withdrawn",
)
# These are about a key: its owner may come back with a new one. The others are about the name.
KEY_REASONS = ("key_compromise", "superseded")

_MAX_PEM = 16 * 1024 * 1024  # bytes; a hundred thousand entries are about 5 MiB
_CRL = re.compile(r"-----BEGIN X509 CRL-----.+?-----END X509 CRL-----", re.DOTALL)


class Entry(NamedTuple):
    """One revoked certificate; reason is one of REASONS, or another name the standard has."""

    serial: int
    moment: datetime.datetime
    reason: str


def load_crls(text: str, what: str) -> list[x509.CertificateRevocationList]:
    """All lists in PEM text, in order; RefusedError if there is none, or a broken one."""
    if len(text) > _MAX_PEM:
        raise RefusedError([("unreadable", f"{what}: longer than {_MAX_PEM} bytes")])
    blocks = _CRL.findall(text)
    if not blocks or "PRIVATE KEY-----" in text:
        raise RefusedError(
            [("unreadable", f"{what}: expected revocation lists (X509 CRL) in PEM, nothing else")]
        )
    try:
        return [_load(block) for block in blocks]
    except unparsable() as error:
        raise RefusedError([("unreadable", f"{what}: no revocation list: {error}")]) from error


def _load(block: str) -> x509.CertificateRevocationList:
    crl = x509.load_pem_x509_crl(block.encode("ascii", "replace"))
    list(crl.extensions)  # parsed on demand: what is broken must show here
    return crl


def this_update(crl: x509.CertificateRevocationList) -> datetime.datetime:
    """When the list was made, aware."""
    if hasattr(crl, "last_update_utc"):
        return crl.last_update_utc
    return crl.last_update.replace(tzinfo=datetime.timezone.utc)


def next_update(crl: x509.CertificateRevocationList) -> datetime.datetime | None:
    """When the next list is to be there at the latest, aware; None if the list does not say."""
    if hasattr(crl, "next_update_utc"):
        return crl.next_update_utc
    return crl.next_update and crl.next_update.replace(tzinfo=datetime.timezone.utc)


def number_of(crl: x509.CertificateRevocationList) -> int:
    """Its number, which rises from list to list; -1 if it has none."""
    value = extension(crl, x509.CRLNumber)
    return -1 if value is None else int(value.crl_number)


def digest_of(crl: x509.CertificateRevocationList) -> str:
    """SHA-256 of the DER encoding, lower-case hex."""
    return hashlib.sha256(crl.public_bytes(serialization.Encoding.DER)).hexdigest()


def entries_of(crl: x509.CertificateRevocationList) -> list[Entry]:
    """What is revoked, in the order of the list."""
    return [_entry(item) for item in crl]


def _entry(item: x509.RevokedCertificate) -> Entry:
    if hasattr(item, "revocation_date_utc"):
        moment = item.revocation_date_utc
    else:
        moment = item.revocation_date.replace(tzinfo=datetime.timezone.utc)
    reason = extension(item, x509.CRLReason)
    name = "unspecified" if reason is None else reason.reason.name
    return Entry(item.serial_number, moment, name)


def crl_facts(crl: x509.CertificateRevocationList, moment: datetime.datetime) -> dict[str, Any]:
    """What modules return about a list; ages in hours, negative once it is past its time."""
    end = next_update(crl)
    left = None if end is None else round((end - moment).total_seconds() / 3600, 2)
    return {
        "issuer": crl.issuer.rfc4514_string(),
        "number": number_of(crl),
        "this_update": timestamp(this_update(crl)),
        "next_update": None if end is None else timestamp(end),
        "age_hours": round((moment - this_update(crl)).total_seconds() / 3600, 2),
        "hours_left": left,
        "revoked": sorted(f"{entry.serial:x}" for entry in entries_of(crl)),
        "sha256": digest_of(crl),
    }


def is_from(crl: x509.CertificateRevocationList, issuer: x509.Certificate) -> bool:
    """Whether a list names this CA as its issuer: by name, and by key where it says which."""
    claimed = extension(crl, x509.AuthorityKeyIdentifier)
    held = extension(issuer, x509.SubjectKeyIdentifier)
    if claimed is not None and held is not None and claimed.key_identifier is not None:
        same_key = claimed.key_identifier == held.digest
    else:
        same_key = is_list_signed_by(crl, issuer.public_key())
    return crl.issuer == issuer.subject and same_key


def same_issuer(one: x509.CertificateRevocationList, other: x509.CertificateRevocationList) -> bool:
    """Whether two lists are of one CA and one key of it, going by what they say."""
    keys = [extension(crl, x509.AuthorityKeyIdentifier) for crl in (one, other)]
    identifiers = [None if key is None else key.key_identifier for key in keys]
    return one.issuer == other.issuer and identifiers[0] == identifiers[1]


def crl_problems(
    crl: x509.CertificateRevocationList,
    issuers: Iterable[x509.Certificate],
    moment: datetime.datetime,
) -> Iterator[tuple[str, str]]:
    """Everything that forbids to trust a list; issuers are CAs that are trusted themselves."""
    title = f"revocation list of '{crl.issuer.rfc4514_string()}', number {number_of(crl)}"
    issuer = next((one for one in issuers if is_from(crl, one)), None)
    if issuer is None:
        yield (
            "crl_issuer_unknown",
            f"{title}: its issuer is not among the certificates that lead to a trusted root: give "
            "it in 'issuers', or trust its root first",
        )
    else:
        yield from _issuer_problems(crl, issuer, title)
    end = next_update(crl)
    if this_update(crl) > moment:
        yield (
            "crl_not_yet_valid",
            f"{title} is from {timestamp(this_update(crl))}, but it is {timestamp(moment)} here: "
            "compare the clocks of this host and the CA",
        )
    if end is None or end <= moment:
        text = "says no end of its time" if end is None else f"was to be replaced {timestamp(end)}"
        yield ("crl_expired", f"{title} {text}; it is {timestamp(moment)} here: issue a new one")
    for item in crl.extensions:
        if item.critical or isinstance(item.value, x509.DeltaCRLIndicator):
            yield (
                "crl_not_complete",
                f"{title}: extension {item.oid.dotted_string}: expected a full list without "
                "critical extensions",
            )


def _issuer_problems(
    crl: x509.CertificateRevocationList, issuer: x509.Certificate, title: str
) -> Iterator[tuple[str, str]]:
    usage = extension(issuer, x509.KeyUsage)
    if not is_list_signed_by(crl, issuer.public_key()):
        yield ("crl_bad_signature", f"{title} is not signed by the CA it names")
    elif usage is None or not usage.crl_sign:
        yield ("crl_issuer_usage", f"{title}: its issuer may not sign such lists (keyUsage)")


def find_revocation(
    certificate: x509.Certificate,
    issuer: x509.Certificate,
    crls: Sequence[x509.CertificateRevocationList],
) -> Entry | None:
    """The entry of a certificate in a list by its issuer; None if it is not revoked.

    A list past its time still counts here: what was revoked stays so.
    """
    for crl in crls:
        item = crl.get_revoked_certificate_by_serial_number(certificate.serial_number)
        if item is None or not is_from(crl, issuer):
            continue
        if is_list_signed_by(crl, issuer.public_key()):
            return _entry(item)
    return None


def make_crl(
    issuer: x509.Certificate,
    key: Any,
    entries: Iterable[Entry],
    number: int,
    validity: tuple[datetime.datetime, datetime.datetime],
) -> x509.CertificateRevocationList:
    """A signed list; validity: thisUpdate and nextUpdate."""
    builder = x509.CertificateRevocationListBuilder().issuer_name(issuer.subject)
    builder = builder.last_update(validity[0]).next_update(validity[1])
    builder = builder.add_extension(x509.CRLNumber(number), critical=False)
    builder = builder.add_extension(
        x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.public_key()), critical=False
    )
    for entry in sorted(entries, key=lambda one: (one.moment, one.serial)):
        revoked = x509.RevokedCertificateBuilder().serial_number(entry.serial)
        revoked = revoked.revocation_date(entry.moment)
        if entry.reason != "unspecified":  # which is told by saying nothing (5.3.1)
            reason = x509.CRLReason(x509.ReasonFlags[entry.reason])
            revoked = revoked.add_extension(reason, critical=False)
        builder = builder.add_revoked_certificate(revoked.build())
    return builder.sign(key, signing_hash(key))
