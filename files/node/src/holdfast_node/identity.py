# SPDX-License-Identifier: Apache-2.0
"""How the TLS identity on disk stands: what a timer looks at between renewals."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Literal, TypeAlias

import msgspec
from cryptography import x509
from prometheus_client import CollectorRegistry, Gauge, write_to_textfile

from holdfast_node.config import Tls
from holdfast_node.errors import ConfigError
from holdfast_node.files import read_file
from holdfast_node.net.revocation import UNREADABLE, read_revocations

State: TypeAlias = Literal["valid", "expiring", "expired", "not_yet_valid", "revoked"]

MAX_PEM_BYTES: Final = 1_048_576
# Renewal is due when a third is left (of lists, half); what comes to this has been missed.
EXPIRING: Final = 0.2
# An authority is to be replaced while it can still sign for the whole time, twice.
ENDING: Final = 2


class Standing(msgspec.Struct, frozen=True):
    """Times in Unix seconds; `left_s` is negative after the end.

    `crl_next_update` is that of the list that is out of date first, None without a list;
    `issuer_not_after` the end of whoever ends first among the authorities behind the certificate.
    """

    name: str
    state: State
    serial: str
    not_before: float
    not_after: float
    left_s: float
    crl_next_update: float | None
    crl_stale: bool
    crl_expiring: bool
    issuer_not_after: float
    issuer_ending: bool

    @property
    def warnings(self) -> list[str]:
        """What is to be done about it; empty if nothing is."""
        found = []
        if self.state != "valid":
            days = self.left_s / 86_400
            found.append(
                f"certificate {self.serial} of {self.name} is {self.state} ({days:.2f} days left): "
                "renew it (playbook rotate_certs)"
            )
        if self.crl_stale:
            found.append("the revocation list is out of date: renew it (playbook rotate_certs)")
        elif self.crl_expiring:
            found.append("the revocation list ends soon: renew it (playbook rotate_certs)")
        if self.issuer_ending:
            days = (self.issuer_not_after - self.not_after + self.left_s) / 86_400
            found.append(
                f"the authority behind it ends in {days:.0f} days, and every certificate with it: "
                "replace it (playbook rotate_ca)"
            )
        return found


def assess(tls: Tls, name: str, now: float) -> Standing:
    """Look at certificate and revocation lists of node `name` at Unix time `now`.

    Raises `ConfigError` if a file cannot be read.
    """
    chain = _certificates(tls.certificate, "tls.certificate")
    issuers = (*chain[1:], *_certificates(tls.ca, "tls.ca"))
    leaf = chain[0]
    start, end = leaf.not_valid_before_utc.timestamp(), leaf.not_valid_after_utc.timestamp()
    state: State = "valid"
    if now > end:
        state = "expired"
    elif now < start:
        state = "not_yet_valid"
    elif end - now < EXPIRING * (end - start):
        state = "expiring"
    next_update, stale, ending = None, False, False
    if tls.crl is not None:
        revocations = read_revocations(tls.crl, issuers)
        next_update = revocations.next_update
        stale = next_update is not None and now > next_update
        ending = revocations.is_due(now, EXPIRING)
        if revocations.covers(leaf):
            state = "revoked"
    issuer_end = min(each.not_valid_after_utc.timestamp() for each in _above(leaf, issuers))
    return Standing(
        name=name,
        state=state,
        serial=f"{leaf.serial_number:x}",
        not_before=start,
        not_after=end,
        left_s=end - now,
        crl_next_update=next_update,
        crl_stale=stale,
        crl_expiring=ending,
        issuer_not_after=issuer_end,
        issuer_ending=issuer_end - now < ENDING * (end - start),
    )


def _above(leaf: x509.Certificate, issuers: Sequence[x509.Certificate]) -> list[x509.Certificate]:
    """Certificates on the way from the leaf to its root, by name; the leaf where there is none."""
    found, name = [], leaf.issuer
    for _ in issuers:
        above = next((each for each in issuers if each.subject == name), None)
        if above is None or above in found:
            break
        found.append(above)
        name = above.issuer
    return found or [leaf]


def write_metrics(standing: Standing, path: Path) -> None:
    """Write `path` for the textfile collector of node_exporter, all at once.

    Raises `ConfigError`.
    """
    registry = CollectorRegistry()
    values = {
        "begin_timestamp_seconds": ("Begin of the certificate's validity.", standing.not_before),
        "expiry_timestamp_seconds": ("End of the certificate's validity.", standing.not_after),
        "revoked": ("1 if a revocation list has the certificate.", standing.state == "revoked"),
        "crl_next_update_timestamp_seconds": (
            "When the first revocation list is out of date; NaN without one.",
            float("nan") if standing.crl_next_update is None else standing.crl_next_update,
        ),
        "issuer_expiry_timestamp_seconds": (
            "End of the first of the authorities behind the certificate.",
            standing.issuer_not_after,
        ),
        "check_timestamp_seconds": ("When this was looked at.", time.time()),
    }
    for key, (help_, value) in values.items():
        gauge = Gauge(f"holdfast_identity_{key}", help_, ["node"], registry=registry)
        gauge.labels(standing.name).set(value)
    try:
        write_to_textfile(str(path), registry)
    except OSError as error:
        fault = f"--textfile = {path}: {error.strerror}: expected a file in a folder to write to"
        raise ConfigError([fault]) from error


def _certificates(path: Path, key: str) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(read_file(path, MAX_PEM_BYTES, "PEM certificates"))
    except ConfigError as error:
        raise ConfigError([f"{key} = {fault}" for fault in error.faults]) from error
    except UNREADABLE as error:
        fault = f'{key} = "{path}": expected certificates in PEM; install them'
        raise ConfigError([fault]) from error
