# SPDX-License-Identifier: Apache-2.0
"""Certificate revocation lists (RFC 5280): which certificates do not count any more.

OpenSSL's own check refuses every peer once a list is past its `nextUpdate`, or lacks for one of
several issuers: a list that nobody renewed would take the network down. Here such a list goes on
counting; that it is old is a metric (`crl_next_update_timestamp_seconds`) and a warning.
"""

import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes

from holdfast_node.errors import ConfigError

MAX_CRL_BYTES: Final = 64 * 2**20

_PEM: Final = re.compile(rb"-----BEGIN X509 CRL-----.+?-----END X509 CRL-----", re.DOTALL)
# What the library raises for certificates and lists that it cannot make anything of.
UNREADABLE: Final = (
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
)


class Revocations:
    """What the lists of a file say; without a list nothing is revoked."""

    def __init__(self, lists: Sequence[x509.CertificateRevocationList] = ()) -> None:
        self._lists = tuple((one, _key_id(one)) for one in lists)

    @property
    def fingerprints(self) -> list[str]:
        """SHA-256 of each list, hex, sorted."""
        return sorted(one.fingerprint(hashes.SHA256()).hex() for one, _ in self._lists)

    @property
    def next_update(self) -> float | None:
        """When the first of the lists should have been renewed, Unix seconds; None without one."""
        ends = [one.next_update_utc for one, _ in self._lists]
        return min((end.timestamp() for end in ends if end), default=None)

    def is_due(self, now: float, part: float) -> bool:
        """Whether one of the lists has less than this part of its time left at Unix time `now`."""
        return any(
            one.next_update_utc.timestamp() - now
            < part * (one.next_update_utc - one.last_update_utc).total_seconds()
            for one, _ in self._lists
            if one.next_update_utc
        )

    @property
    def is_stale(self) -> bool:
        """Whether a newer list should be here already."""
        return self.next_update is not None and time.time() > self.next_update

    def covers(self, certificate: x509.Certificate) -> bool:
        """Whether a list of the certificate's issuer revokes it."""
        serial, key_id = certificate.serial_number, _key_id(certificate)
        return any(
            (key_id == listed if key_id and listed else certificate.issuer == one.issuer)
            and one.get_revoked_certificate_by_serial_number(serial) is not None
            for one, listed in self._lists
        )


def read_revocations(path: Path, issuers: Sequence[x509.Certificate]) -> Revocations:
    """Read a PEM file of any number of lists; one that does not exist holds none.

    The signature is checked where the list's issuer is among `issuers`; of others (the predecessor
    of a CA that was rolled over) the file's owner is trusted, as for the roots beside it.

    Raises `ConfigError`.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_CRL_BYTES + 1)
    except FileNotFoundError:
        return Revocations()
    except OSError as error:
        raise _fault(path, error.strerror or str(error)) from error
    if len(data) > MAX_CRL_BYTES:
        raise _fault(path, f"more than {MAX_CRL_BYTES} bytes")
    found = _PEM.findall(data)
    if not found:
        raise _fault(path, "no list in it")
    lists = []
    for pem in found:
        try:
            one = x509.load_pem_x509_crl(pem)
            critical = [
                extension.oid.dotted_string for extension in one.extensions if extension.critical
            ]
            intact = all(
                one.is_signature_valid(issuer.public_key())  # type: ignore[arg-type]  # a CA's
                for issuer in issuers
                if _subject_key_id(issuer) == _key_id(one) is not None
            )
        except UNREADABLE as error:
            raise _fault(path, str(error)) from error
        name = one.issuer.rfc4514_string()
        if critical:  # a delta, or a list of some certificates only: others would pass unnoticed
            raise _fault(path, f"the list of {name} has critical extensions {', '.join(critical)}")
        if _key_id(one) is None:  # whose signature it bears could not be checked
            raise _fault(path, f"the list of {name} does not say which key signed it")
        if not intact:
            raise _fault(path, f"the list of {name} has a bad signature")
        lists.append(one)
    return Revocations(lists)


def _fault(path: Path, what: str) -> ConfigError:
    fault = (
        f'tls.crl = "{path}": {what}: expected the complete and signed revocation lists of the '
        "network's authorities in PEM; publish them again, or remove the file to revoke nothing"
    )
    return ConfigError([fault])


def _key_id(of: x509.Certificate | x509.CertificateRevocationList) -> bytes | None:
    try:
        found = of.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier)
    except x509.ExtensionNotFound:
        return None
    return found.value.key_identifier


def _subject_key_id(certificate: x509.Certificate) -> bytes | None:
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
    except x509.ExtensionNotFound:
        return None
    return found.value.digest
