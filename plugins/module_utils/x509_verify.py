# Copyright: (c) 2026, Holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Path validation of a Holdfast identity: RFC 5280, section 6, and the rules of the profile.

Stricter than a TLS library: the root is pinned, the leaf carries exactly the wanted names, and a
certificate never outlives its issuer. Pure: the time is a parameter. Every finding has its own
reason, and all of them are reported at once.
"""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
from typing import Any, Iterator, NamedTuple, Sequence
from urllib.parse import urlsplit

from ansible_collections.holdfast.chain.plugins.module_utils.names import Names
from ansible_collections.holdfast.chain.plugins.module_utils.x509 import (
    extended_usages,
    extension,
    fingerprint,
    is_signed_by,
    key_weakness,
    names_of,
    not_after,
    not_before,
    timestamp,
)
from ansible_collections.holdfast.chain.plugins.module_utils.x509_crl import find_revocation

with contextlib.suppress(ImportError):  # x509.CRYPTOGRAPHY_ERROR tells
    from cryptography import x509


class Problem(NamedTuple):
    reason: str
    message: str


class CertPath(NamedTuple):
    """A certification path: the leaf, what lies between in order of issuance, the root."""

    leaf: x509.Certificate
    intermediates: Sequence[x509.Certificate]
    root: x509.Certificate

    def certificates(self) -> list[x509.Certificate]:
        """From the leaf to the root."""
        return [self.leaf, *self.intermediates, self.root]


def verify(
    path: CertPath,
    root_fingerprint: str,
    names: Names,
    usage: Sequence[str],
    moment: datetime.datetime,
    *,
    crls: Sequence[x509.CertificateRevocationList] = (),
) -> list[Problem]:
    """Everything that is wrong with an identity's certificates; empty means: may be installed.

    root_fingerprint: SHA-256 of the one root that is trusted, lower-case hex.
    names: what the leaf must carry, no less and no more. usage: some of x509.USAGES.
    crls: lists of what is revoked; those of other CAs than the path's do not matter.
    """
    return [
        *_root_problems(path.root, root_fingerprint),
        *_link_problems(path),
        *_authority_problems(path),
        *_leaf_problems(path.leaf, names, usage),
        *_constraint_problems(path),
        *_validity_problems(path, moment),
        *_general_problems(path),
        *_revocation_problems(path, crls),
    ]


def _title(certificate: x509.Certificate) -> str:
    return f"certificate '{certificate.subject.rfc4514_string()}'"


def _root_problems(root: x509.Certificate, wanted: str) -> Iterator[Problem]:
    found = fingerprint(root)
    if found != wanted:
        yield Problem(
            "root_not_pinned",
            f"root_certificate: fingerprint is {found}, but root_fingerprint pins {wanted}: "
            "the certificates come from another CA, or the pin is of another one",
        )
    if root.issuer != root.subject or not is_signed_by(root, root.public_key()):
        yield Problem("root_not_self_signed", f"{_title(root)} is no root: not signed by itself")


def _link_problems(path: CertPath) -> Iterator[Problem]:
    """Names and signatures along the path (RFC 5280, 6.1.3 a 1 and a 4)."""
    certificates = path.certificates()
    for child, issuer in zip(certificates, certificates[1:]):
        claimed = extension(child, x509.AuthorityKeyIdentifier)
        held = extension(issuer, x509.SubjectKeyIdentifier)
        if child.issuer != issuer.subject:
            yield Problem(
                "issuer_mismatch",
                f"{_title(child)} was issued by '{child.issuer.rfc4514_string()}', not by "
                f"'{issuer.subject.rfc4514_string()}', which follows it in the chain",
            )
        elif claimed and held and claimed.key_identifier not in (None, held.digest):
            yield Problem(
                "issuer_key_mismatch",
                f"{_title(child)} was issued with another key than the one of {_title(issuer)}",
            )
        elif not is_signed_by(child, issuer.public_key()):
            yield Problem(
                "bad_signature",
                f"{_title(child)}: its signature is not by {_title(issuer)}, or uses an algorithm "
                "outside of SHA-2 with ECDSA or RSA, and Ed25519",
            )


def _authority_problems(path: CertPath) -> Iterator[Problem]:
    """Whether each issuer may issue what is below it (RFC 5280, 6.1.4 k to n)."""
    issuers = [*path.intermediates, path.root]
    for depth, issuer in enumerate(issuers):
        basic = extension(issuer, x509.BasicConstraints)
        usage = extension(issuer, x509.KeyUsage)
        if basic is None or not basic.ca:
            yield Problem("issuer_not_a_ca", f"{_title(issuer)} is not a CA (basicConstraints)")
        elif basic.path_length is not None and basic.path_length < depth:
            yield Problem(
                "path_too_long",
                f"{_title(issuer)} allows {basic.path_length} CAs below it; the chain has {depth}",
            )
        if usage is None or not usage.key_cert_sign:
            yield Problem(
                "issuer_key_usage", f"{_title(issuer)} may not sign certificates (keyUsage)"
            )


def _leaf_problems(leaf: x509.Certificate, names: Names, usage: Sequence[str]) -> Iterator[Problem]:
    basic = extension(leaf, x509.BasicConstraints)
    if basic is not None and basic.ca:
        yield Problem("leaf_is_a_ca", f"{_title(leaf)} is a CA itself: it could issue identities")
    key_usage = extension(leaf, x509.KeyUsage)
    if key_usage is None or not key_usage.digital_signature:
        yield Problem("leaf_key_usage", f"{_title(leaf)} lacks keyUsage digitalSignature")
    elif key_usage.key_cert_sign or key_usage.crl_sign:
        yield Problem("leaf_key_usage", f"{_title(leaf)} may sign certificates or CRLs (keyUsage)")
    extended = list(extension(leaf, x509.ExtendedKeyUsage) or ())
    wanted = extended_usages(usage)
    if sorted(extended, key=str) != sorted(wanted, key=str):
        yield Problem(
            "leaf_extended_key_usage",
            f"{_title(leaf)}: extendedKeyUsage is {_oids(extended)}: expected {_oids(wanted)}",
        )
    found = names_of(leaf)
    if not found:
        yield Problem("names_missing", f"{_title(leaf)} has no subjectAltName")
    elif found != names:
        yield Problem(
            "names_differ",
            f"{_title(leaf)} is for {', '.join(found.listed())}: "
            f"expected {', '.join(names.listed())}",
        )


def _oids(identifiers: Sequence[Any]) -> str:
    return ", ".join(sorted(item.dotted_string for item in identifiers)) or "absent"


def _validity_problems(path: CertPath, moment: datetime.datetime) -> Iterator[Problem]:
    certificates = path.certificates()
    for certificate in certificates:
        if moment < not_before(certificate):
            yield Problem(
                "not_yet_valid",
                f"{_title(certificate)} is valid from {timestamp(not_before(certificate))}, but "
                f"it is {timestamp(moment)} here: compare the clocks of this host and the CA",
            )
        if moment >= not_after(certificate):  # as OpenSSL has it, and mtls_request
            yield Problem(
                "expired",
                f"{_title(certificate)} expired {timestamp(not_after(certificate))}; it is "
                f"{timestamp(moment)} here",
            )
    for child, issuer in zip(certificates, certificates[1:]):
        if not_before(child) < not_before(issuer) or not_after(child) > not_after(issuer):
            yield Problem(
                "outlives_issuer",
                f"{_title(child)} is valid outside of the validity of its issuer "
                f"'{issuer.subject.rfc4514_string()}'",
            )


def _revocation_problems(
    path: CertPath, crls: Sequence[x509.CertificateRevocationList]
) -> Iterator[Problem]:
    certificates = path.certificates()
    for child, issuer in zip(certificates, certificates[1:]):
        entry = find_revocation(child, issuer, crls)
        if entry is not None:
            yield Problem(
                "revoked",
                f"{_title(child)} was revoked {timestamp(entry.moment)} ({entry.reason}): ask for "
                "a new one, with a new key",
            )


def _general_problems(path: CertPath) -> Iterator[Problem]:
    """Key strength, and critical extensions that nobody here understands (RFC 5280, 4.2)."""
    for certificate in path.certificates():
        weakness = key_weakness(certificate.public_key())
        if weakness:
            yield Problem("weak_key", f"{_title(certificate)}: {weakness}")
        for item in certificate.extensions:
            if item.critical and not isinstance(
                item.value,
                (
                    x509.BasicConstraints,
                    x509.KeyUsage,
                    x509.ExtendedKeyUsage,
                    x509.NameConstraints,
                    x509.SubjectAlternativeName,
                ),
            ):
                yield Problem(
                    "unknown_critical_extension",
                    f"{_title(certificate)}: critical extension {item.oid.dotted_string} is not "
                    "understood",
                )


def _constraint_problems(path: CertPath) -> Iterator[Problem]:
    """Name constraints of every CA against the leaf (RFC 5280, 6.1.3 b and c)."""
    names = [*(extension(path.leaf, x509.SubjectAlternativeName) or ())]
    names.append(x509.DirectoryName(path.leaf.subject))
    for authority in [*path.intermediates, path.root]:
        constraints = extension(authority, x509.NameConstraints)
        if constraints is None:
            continue
        for name in names:
            permitted = [
                base for base in constraints.permitted_subtrees or () if type(base) is type(name)
            ]
            excluded = [
                base for base in constraints.excluded_subtrees or () if type(base) is type(name)
            ]
            outside = permitted and not any(is_within(name, base) for base in permitted)
            if outside or any(is_within(name, base) for base in excluded):
                yield Problem(
                    "name_constraints",
                    f"{_title(path.leaf)}: {_shown(name)} is outside of what {_title(authority)} "
                    "may name (nameConstraints)",
                )


def _shown(name: Any) -> str:
    return name.value.rfc4514_string() if isinstance(name, x509.DirectoryName) else str(name.value)


def is_within(name: Any, base: Any) -> bool:
    """Whether a general name lies in the subtree of a base of the same kind (RFC 5280, 4.2.1.10).

    Kinds without a rule here are within nothing: as a permitted subtree that refuses, and leaves
    carry no such names anyway.
    """
    if isinstance(base, x509.DNSName):
        return _domain_within(name.value, base.value, subdomains=True)
    if isinstance(base, x509.UniformResourceIdentifier):
        return _domain_within(urlsplit(name.value).hostname or "", base.value, subdomains=False)
    if isinstance(base, x509.IPAddress):
        network = ipaddress.ip_network(str(base.value))
        address = ipaddress.ip_address(str(name.value))
        return address.version == network.version and address in network
    if isinstance(base, x509.DirectoryName):
        wanted = list(base.value.rdns)
        return list(name.value.rdns)[: len(wanted)] == wanted
    return False


def _domain_within(host: str, base: str, subdomains: bool) -> bool:
    """A base with a leading dot means its subdomains only; without, the host itself as well."""
    host, base = host.lower(), base.lower()
    if base.startswith("."):
        return host.endswith(base)
    return host == base or (subdomains and host.endswith("." + base))
