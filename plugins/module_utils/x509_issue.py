# Copyright: (c) 2026, Holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Issuing: what a request may ask for, the certificate it gets, and the record of it."""

from __future__ import annotations

import contextlib
import datetime
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Iterator, Sequence

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


def order_problems(orders: Sequence[Order], authority: Authority) -> list[tuple[str, str]]:
    """Everything that forbids to sign these orders; empty means: all may be signed.

    Two orders with one name or one key are refused as well: two hosts that share a key share an
    identity, which is how cloned machines show.
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
    return problems


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
                    "the clock, or make a new CA",
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


def record(order: Order, certificate: x509.Certificate, moment: datetime.datetime) -> bytes:
    """One line of issued.jsonl."""
    entry: dict[str, Any] = {
        "time": timestamp(moment),
        "name": order.name,
        "serial": f"{certificate.serial_number:x}",
        "names": names_of(certificate).listed(),
        "not_before": timestamp(not_before(certificate)),
        "not_after": timestamp(not_after(certificate)),
        "sha256": fingerprint(certificate),
        "public_key_sha256": key_fingerprint(certificate.public_key()),
    }
    return json.dumps(entry, sort_keys=True).encode("ascii") + b"\n"


def append_lines(path: Path, lines: bytes) -> None:
    """Add whole lines at the end of a file and have them on the disk; 0600 when it is new.

    A line torn by an earlier crash is closed first, so that it spoils nobody but itself. On failure
    the file is cut back to what it was.
    """
    handle = os.open(str(path), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(handle, "r+b") as stream:
        size = stream.seek(0, os.SEEK_END)
        if size:
            stream.seek(size - 1)
            if stream.read(1) != b"\n":
                lines = b"\n" + lines
        try:
            stream.seek(size)
            stream.write(lines)
            stream.flush()
            os.fsync(stream.fileno())
        except OSError:
            stream.truncate(size)
            raise


def cut_back(path: Path, size: int | None) -> None:
    """Undo of append_lines: the size the file had, None if it did not exist."""
    if size is None:
        path.unlink()
    else:
        os.truncate(str(path), size)


def size_of(path: Path) -> int | None:
    """Size of a file in bytes; None if it does not exist."""
    return path.stat().st_size if path.exists() else None
