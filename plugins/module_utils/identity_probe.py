# Copyright: (c) 2026, Holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which certificate a listener really serves: a TLS handshake, and nothing sent after it."""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import socket
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ansible_collections.holdfast.chain.plugins.module_utils.x509 import (
    fingerprint,
    names_of,
    not_after,
    not_before,
    timestamp,
)

with contextlib.suppress(ImportError):  # x509.CRYPTOGRAPHY_ERROR tells
    from cryptography import x509


@dataclass(frozen=True)
class Listener:
    """Where to connect, and how. server_name: for SNI, None for none.

    roots: PEM file of the roots to judge with. identity: PEM files of a chain and its key, which
    the listener may ask for. seconds: for connecting and for the handshake, each.
    """

    host: str
    port: int
    server_name: str | None = None
    roots: Path | None = None
    identity: tuple[Path, Path] | None = None
    seconds: float = 5


@dataclass(frozen=True)
class Served:
    """leaf: what was served; None if there was no handshake. trusted: None where not judged."""

    leaf: Any = None
    protocol: str | None = None
    trusted: bool | None = None
    fault: str | None = None

    def facts(self, moment: datetime.datetime) -> dict[str, Any]:
        """What modules return about it."""
        found: dict[str, Any] = {"trusted": self.trusted, "fault": self.fault}
        if self.leaf is None:
            return found
        names = names_of(self.leaf)
        return {
            **found,
            "protocol": self.protocol,
            "sha256": fingerprint(self.leaf),
            "serial": f"{self.leaf.serial_number:x}",
            "issuer": self.leaf.issuer.rfc4514_string(),
            "not_before": timestamp(not_before(self.leaf)),
            "not_after": timestamp(not_after(self.leaf)),
            "days_left": days_left(self.leaf, moment),
            "dns": list(names.dns),
            "ip": list(names.ip),
            "spiffe_id": names.uri[0] if names.uri else None,
        }


def days_left(certificate: x509.Certificate, moment: datetime.datetime) -> float:
    """Days until a certificate expires; negative afterwards."""
    return round((not_after(certificate) - moment).total_seconds() / 86400, 2)


def probe(listener: Listener) -> Served:
    """Connect and look. What goes wrong is in the answer's fault, never raised.

    Judged with the roots first; if that fails, once more without, to see what it was.
    """
    try:
        if listener.roots is None:
            return _handshake(listener, judge=False)
        return _handshake(listener, judge=True)
    except ssl.SSLCertVerificationError as error:
        verdict = f"not trusted by {listener.roots}: {error.verify_message}"
    except (OSError, ValueError) as error:
        return Served(fault=_described(listener, error))
    try:
        seen = _handshake(listener, judge=False)
    except (OSError, ValueError) as error:
        return Served(trusted=False, fault=_described(listener, error))
    return Served(seen.leaf, seen.protocol, trusted=False, fault=verdict)


def _described(listener: Listener, error: Exception) -> str:
    return f"{listener.host} port {listener.port}: {error}"


def _handshake(listener: Listener, judge: bool) -> Served:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False  # who the peer is stands in its URI name
    context.verify_mode = ssl.CERT_REQUIRED if judge else ssl.CERT_NONE
    if judge:
        context.load_verify_locations(cafile=str(listener.roots))
    if listener.identity is not None:
        chain, key = listener.identity
        # Without a password OpenSSL would ask the terminal for that of an encrypted key.
        context.load_cert_chain(str(chain), str(key), password=lambda: "")
    address = listener.host, listener.port
    name = _server_name(listener)
    with socket.create_connection(address, listener.seconds) as plain, context.wrap_socket(
        plain, server_hostname=name
    ) as secured:
        encoded = secured.getpeercert(binary_form=True)
        if encoded is None:
            raise ValueError("the listener presented no certificate")
        leaf = x509.load_der_x509_certificate(encoded)
        list(leaf.extensions)
        return Served(leaf, secured.version(), trusted=True if judge else None)


def _server_name(listener: Listener) -> str | None:
    """The name to ask for: as told, otherwise the host unless that is an address."""
    if listener.server_name is not None:
        return listener.server_name or None
    try:
        ipaddress.ip_address(listener.host)
    except ValueError:
        return listener.host
    return None
