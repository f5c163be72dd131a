# Copyright: (c) 2026, Holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Issuing: what a request may ask for, the certificate it gets, and the record of it."""

from __future__ import annotations

import contextlib
import datetime
from dataclasses import dataclass
from typing import Container, Iterator, Mapping, Sequence

from ansible_collections.holdfast.chain.plugins.module_utils.names import Names
from ansible_collections.holdfast.chain.plugins.module_utils.x509 import (
    RefusedError,
    alternative_names,
    extended_usages,
    extension,
    fingerprint,
    key_fingerprint,
    key_weakness,
    names_of,
    not_after,
    not_before,
    signing_hash,
    subject,
    timestamp,
)
from ansible_collections.holdfast.chain.plugins.module_utils.x509_ca import (
    BACKDATE,
    Authority,
    certificate_builder,
    key_usage,
)
from ansible_collections.holdfast.chain.plugins.module_utils.x509_log import Log, line
from ansible_collections.holdfast.chain.plugins.module_utils.x509_verify import is_within

with contextlib.suppress(ImportError):  # x509.CRYPTOGRAPHY_ERROR tells
    from cryptography import x509


@dataclass(frozen=True)
class Order:
    """One request and what the operator allows it to ask for."""

    name: str
    request: x509.CertificateSigningRequest
    allowed: Names
    usage: Sequence[str]


def order_problems(
    orders: Sequence[Order], authority: Authority, log: Log, moment: datetime.datetime
) -> list[tuple[str, str]]:
    """Everything that forbids to sign these orders; empty means: all may be signed.

    Two orders with one name or one key are refused as well, and so is a key that another name has
    a valid certificate for: hosts that share a key share an identity, which is how cloned machines
    show. What was revoked does not come back by asking again.
    """
    problems: list[tuple[str, str]] = []
    seen: dict[str, str] = {}
    for order in orders:
        prefix = f"requests: '{order.name}': "
        problems += [(reason, prefix + text) for reason, text in _problems(order, authority)]
        key = key_fingerprint(order.request.public_key())
        for identity, what in ((order.name, "name"), (key, "key")):
            if identity in seen:
                problems.append(
                    ("duplicate", f"{prefix}has the same {what} as request '{seen[identity]}'")
                )
            seen[identity] = order.name
    owners = {one.public_key_sha256: one.name for one in log.valid(moment)}
    revoked = log.revoked_keys()
    for order in orders:
        problems += _history_problems(order, log, owners, revoked)
    return problems


def _history_problems(
    order: Order, log: Log, owners: Mapping[str | None, str], revoked: Container[str]
) -> Iterator[tuple[str, str]]:
    """What the log says against an order; owners: who has a valid certificate for a key."""
    prefix = f"requests: '{order.name}': "
    key = key_fingerprint(order.request.public_key())
    owner = owners.get(key, order.name)
    if owner != order.name:
        yield ("duplicate", f"{prefix}has the same key as '{owner}' has a valid certificate for")
    if key in revoked:
        yield (
            "key_revoked",
            f"{prefix}a certificate for this very key was revoked: a new key is needed",
        )
    barred = log.barred.get(order.name)
    if barred is not None:
        yield (
            "name_revoked",
            f"{prefix}was revoked {timestamp(barred.moment)} ({barred.reason}): to let it in "
            "again, give its name to mtls_crl as 'readmit'",
        )


def _problems(order: Order, authority: Authority) -> Iterator[tuple[str, str]]:
    request = order.request
    if not request.is_signature_valid:
        yield "bad_signature", "the request is not signed by the key it is for"
    weakness = key_weakness(request.public_key())
    if weakness:
        yield "weak_key", weakness
    asked = names_of(request)
    if not asked:
        yield "names_missing", "the request asks for no name (subjectAltName)"
    beyond = asked.beyond(order.allowed)
    if beyond:
        yield (
            "names_not_allowed",
            f"the request asks for {', '.join(beyond)}; allowed is "
            f"{', '.join(order.allowed.listed())}",
        )
    if order.allowed.uri and asked.uri != order.allowed.uri:
        yield "names_missing", f"the request does not ask for {', '.join(order.allowed.uri)}"
    yield from _constraint_problems(asked, authority)
    yield from _extension_problems(request, order.usage)


def _constraint_problems(asked: Names, authority: Authority) -> Iterator[tuple[str, str]]:
    constraints = extension(authority.intermediate, x509.NameConstraints)
    bases = (constraints.permitted_subtrees if constraints else None) or ()
    for uri in asked.uri:
        name = x509.UniformResourceIdentifier(uri)
        if not any(is_within(name, base) for base in bases):
            yield (
                "name_constraints",
                f"{uri} is outside of the trust domain of this CA "
                f"({', '.join(str(base.value) for base in bases)})",
            )


def _extension_problems(
    request: x509.CertificateSigningRequest, usage: Sequence[str]
) -> Iterator[tuple[str, str]]:
    """A request may repeat what it will get; anything else it asks for is refused by name."""
    for item in request.extensions:
        value = item.value
        if isinstance(value, x509.SubjectAlternativeName):
            fits = True
        elif isinstance(value, x509.BasicConstraints):
            fits = not value.ca
        elif isinstance(value, x509.KeyUsage):
            fits = value == key_usage(digital_signature=True)
        elif isinstance(value, x509.ExtendedKeyUsage):
            fits = set(value) <= set(extended_usages(usage))
        else:
            fits = False
        if not fits:
            yield (
                "extension_not_allowed",
                f"the request asks for extension {item.oid.dotted_string} with a value that is "
                "not given to an identity",
            )


def validity(
    authority: Authority, hours: int, moment: datetime.datetime
) -> tuple[datetime.datetime, datetime.datetime]:
    """Start and end of a leaf's validity: backdated a little, never outside of the issuer's.

    Raises RefusedError when the issuer is not valid at this moment.
    """
    issuer = authority.intermediate
    if not not_before(issuer) <= moment < not_after(issuer):
        raise RefusedError(
            [
                (
                    "ca_expired",
                    f"the issuing CA is valid from {timestamp(not_before(issuer))} to "
                    f"{timestamp(not_after(issuer))}, and it is {timestamp(moment)} here: check "
                    "the clock; a CA that has ended can only be replaced by another one (another "
                    "directory; role pki: pki_ca_directory, with pki_ca_new)",
                )
            ]
        )
    start = max(moment - BACKDATE, not_before(issuer))
    return start, min(moment + datetime.timedelta(hours=hours), not_after(issuer))


def issue(
    order: Order, authority: Authority, start: datetime.datetime, end: datetime.datetime
) -> x509.Certificate:
    """Sign one order; the caller has checked it with order_problems.

    The subject is the order's name, not what the request says; names are those of the request.
    """
    public_key = order.request.public_key()
    builder = certificate_builder(
        subject(order.name),
        authority.intermediate.subject,
        public_key,
        authority.intermediate.public_key(),
    )
    builder = builder.not_valid_before(start).not_valid_after(end)
    builder = builder.add_extension(x509.BasicConstraints(False, None), critical=True)
    builder = builder.add_extension(key_usage(digital_signature=True), critical=True)
    builder = builder.add_extension(
        x509.ExtendedKeyUsage(extended_usages(order.usage)), critical=False
    )
    builder = builder.add_extension(alternative_names(names_of(order.request)), critical=False)
    key = authority.intermediate_key
    return builder.sign(key, signing_hash(key))


def record(
    order: Order, certificate: x509.Certificate, issuer: x509.Certificate, moment: datetime.datetime
) -> bytes:
    """The line of the log for a new certificate."""
    return line(
        "issued",
        moment,
        name=order.name,
        serial=f"{certificate.serial_number:x}",
        names=names_of(certificate).listed(),
        not_before=timestamp(not_before(certificate)),
        not_after=timestamp(not_after(certificate)),
        sha256=fingerprint(certificate),
        public_key_sha256=key_fingerprint(certificate.public_key()),
        issuer_sha256=fingerprint(issuer),
    )
