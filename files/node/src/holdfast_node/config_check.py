# SPDX-License-Identifier: Apache-2.0
"""What only the whole configuration, and the files it names, can show to be wrong."""

import os
from collections.abc import Iterable
from datetime import datetime, timedelta, timezone
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Final
from warnings import catch_warnings, simplefilter

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.utils import CryptographyDeprecationWarning

from holdfast_node.chain.genesis import Genesis, parse_genesis
from holdfast_node.config_reader import Endpoint
from holdfast_node.errors import ConfigError
from holdfast_node.files import read_file
from holdfast_node.keys import load_key, read_private
from holdfast_node.net.revocation import read_revocations

if TYPE_CHECKING:
    from holdfast_node.config import Config

MAX_GENESIS_BYTES: Final = 16_777_216
_MAX_PEM_BYTES: Final = 1_048_576
_UNREADABLE: Final = (
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
    CryptographyDeprecationWarning,
)
# Renewal is due when a third is left; whoever reads this warning has missed it.
_EXPIRING: Final = 0.2


def read_genesis(path: Path) -> Genesis:
    """Read a genesis file of at most 16 MiB. Raises `ConfigError` with every fault."""
    return parse_genesis(read_file(path, MAX_GENESIS_BYTES, "a genesis file"), str(path))


def examine_config(
    config: "Config", credentials: Path | None, faults: list[str], warnings: list[str]
) -> None:
    """Add what is wrong to `faults`, and what soon will be to `warnings`."""
    _check_listeners(config, faults)
    _check_consensus(config, faults)
    _check_peers(config, faults)
    _check_data_dir(config.data_dir, faults)
    try:
        genesis = read_genesis(config.genesis)
    except ConfigError as error:
        faults += [f"genesis = {fault}" for fault in error.faults]
    else:
        _check_membership(config, genesis, faults)
        _check_validator_key(config, genesis, credentials, faults)
    _check_tls(config, faults, warnings)


def _check_listeners(config: "Config", faults: list[str]) -> None:
    listeners = [
        ("p2p.listen", config.p2p.listen),
        ("p2p.sync_listen", config.p2p.sync_listen),
        ("api.listen", config.api.listen),
    ]
    faults += [
        f'{key} = "{endpoint}": expected another port than {other}; give each listener its own'
        for i, (key, endpoint) in enumerate(listeners)
        for other, taken in listeners[:i]
        if _collide(endpoint, taken)
    ]


def _collide(one: Endpoint, other: Endpoint) -> bool:
    anywhere = {"0.0.0.0", "::"}
    same_host = one.host == other.host or bool(anywhere & {one.host, other.host})
    return one.port == other.port and same_host


def _check_consensus(config: "Config", faults: list[str]) -> None:
    pace = config.consensus
    for low, high in (
        ("block_interval_ms", "empty_block_interval_ms"),
        ("block_interval_ms", "view_timeout_ms"),
        ("view_timeout_ms", "view_timeout_max_ms"),
    ):
        if getattr(pace, low) > getattr(pace, high):
            faults.append(
                f"consensus.{low} = {getattr(pace, low)}: expected at most consensus.{high}, "
                f"which is {getattr(pace, high)}; lower the first or raise the second"
            )


def _check_peers(config: "Config", faults: list[str]) -> None:
    for i, peer in enumerate(config.peers):
        if peer.name == config.name:
            faults.append(
                f'peers[{i}].name = "{peer.name}": expected other members only; remove this node'
            )
    seen: dict[tuple[str, str], str] = {}
    for i, peer in enumerate(config.peers):
        endpoints = (("address", peer.address), ("sync_address", peer.sync_address))
        values = [("name", "name", peer.name)]
        values += [(key, "address", str(endpoint)) for key, endpoint in endpoints]
        for key, what, value in values:
            first = seen.setdefault((what, value), f"peers[{i}].{key}")
            if first != f"peers[{i}].{key}":
                faults.append(
                    f'peers[{i}].{key} = "{value}": expected a value of its own, but {first} has '
                    "it too; correct one of them"
                )


def _check_membership(config: "Config", genesis: Genesis, faults: list[str]) -> None:
    if genesis.chain_id != config.chain_id:
        faults.append(
            f'chain_id = "{config.chain_id}": expected "{genesis.chain_id}" as in '
            f"{config.genesis}; correct it, or give the genesis of this chain"
        )
    validators = {validator.name for validator in genesis.validators}
    for i, peer in enumerate(config.peers):
        # Others become validators by agreement, which the chain knows and the genesis does not.
        if peer.name in validators and peer.role != "validator":
            faults.append(
                f'peers[{i}].role = "{peer.role}": expected "validator", for the genesis has '
                f"validator {peer.name}; correct the role or the name"
            )
    missing = validators - {peer.name for peer in config.peers} - {config.name}
    faults += [
        f"peers: validator {name} of the genesis is missing: expected every validator; add it"
        for name in sorted(missing)
    ]


def _check_validator_key(
    config: "Config", genesis: Genesis, credentials: Path | None, faults: list[str]
) -> None:
    wanted = {v.name: v.public_key.lower() for v in genesis.validators}.get(config.name)
    if config.validator_key is None:
        if wanted:
            faults.append(
                f"validator_key is missing: expected the key of {config.name}, which is a "
                "validator in the genesis; add its path, or credential:NAME"
            )
        return
    stated = f'validator_key = "{config.validator_key}"'
    # Who is not in the genesis votes once the validators have agreed on its name and key.
    try:
        key = load_key(config.validator_key, credentials)
    except ConfigError as error:
        faults += [f"validator_key = {fault}" for fault in error.faults]
        return
    if wanted and key.public_key.hex() != wanted:
        faults.append(
            f"{stated}: its public key is {key.public_key.hex()}: expected {wanted}, the key of "
            f"{config.name} in the genesis; install the right key"
        )


def _check_data_dir(path: Path, faults: list[str]) -> None:
    """It must be a folder to write to, or one that can be made in its parent."""
    way_out = "create it and give it to the user that runs the node"
    stated = f'data_dir = "{path}"'
    if not path.exists() and not path.is_symlink():
        if not os.access(path.parent, os.W_OK | os.X_OK):
            faults.append(f"{stated}: cannot be made in its parent: expected a folder; {way_out}")
    elif not path.is_dir():
        faults.append(f"{stated}: not a folder: expected a folder; {way_out}")
    elif not os.access(path, os.R_OK | os.W_OK | os.X_OK):
        faults.append(f"{stated}: not writable: expected a folder to write to; {way_out}")


def _check_tls(config: "Config", faults: list[str], warnings: list[str]) -> None:
    chain = _certificates(config.tls.certificate, "tls.certificate", faults)
    roots = _certificates(config.tls.ca, "tls.ca", faults)
    stated = f'tls.certificate = "{config.tls.certificate}"'
    if chain:
        _check_identity(chain[0], config.spiffe_id, stated, faults)
        _check_validity(chain, stated, faults)
        _check_renewal(chain[0], stated, warnings)
        _check_revocation(config, chain, roots, faults, warnings)
    ends = [root for root in roots if chain and _leads_to(chain, root)]
    _check_validity(ends, f'tls.ca = "{config.tls.ca}"', faults)
    # One that is on its way out, or in, is none of ours.
    _check_validity([r for r in roots if r not in ends], f'tls.ca = "{config.tls.ca}"', warnings)
    if chain and roots and not ends:
        faults.append(
            f"{stated}: not signed by the CA of tls.ca: expected the leaf, then each issuer up to "
            f"the root in {config.tls.ca}; install the chain and the CA of one network"
        )
    _check_tls_key(config.tls.key, chain[0] if chain else None, faults)


def _check_identity(leaf: x509.Certificate, wanted: str, stated: str, faults: list[str]) -> None:
    try:
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    except x509.ExtensionNotFound:
        uris = []
    if uris != [wanted]:
        carried = ", ".join(uris) or "no URI"
        faults.append(
            f"{stated}: carries {carried}: expected exactly {wanted}; have it issued for this "
            "name, chain and trust domain, or correct them"
        )


def _check_validity(
    certificates: Iterable[x509.Certificate], stated: str, faults: list[str]
) -> None:
    now = datetime.now(timezone.utc)
    for certificate in certificates:
        start, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
        subject = f"{stated}: {certificate.subject.rfc4514_string()}"
        valid = "expected a valid certificate"
        if now > end:
            faults.append(f"{subject} expired at {end.isoformat()}: {valid}; renew it")
        elif now < start:
            faults.append(
                f"{subject} is valid from {start.isoformat()}: {valid}; check this host's clock"
            )


def _check_renewal(leaf: x509.Certificate, stated: str, warnings: list[str]) -> None:
    start, end = leaf.not_valid_before_utc, leaf.not_valid_after_utc
    left = end - datetime.now(timezone.utc)
    if timedelta() < left < (end - start) * _EXPIRING:
        subject = leaf.subject.rfc4514_string()
        warnings.append(f"{stated}: {subject} expires at {end.isoformat()}; renew it")


def _check_revocation(
    config: "Config",
    chain: list[x509.Certificate],
    roots: list[x509.Certificate],
    faults: list[str],
    warnings: list[str],
) -> None:
    if config.tls.crl is None:
        return
    try:
        revocations = read_revocations(config.tls.crl, (*chain[1:], *roots))
    except ConfigError as error:
        faults += error.faults
        return
    stated = f'tls.crl = "{config.tls.crl}"'
    if revocations.covers(chain[0]):
        subject = chain[0].subject.rfc4514_string()
        faults.append(
            f'{stated}: revokes {subject}, the certificate in "{config.tls.certificate}": expected '
            "one that peers accept; renew it"
        )
    if revocations.is_stale:
        warnings.append(
            f"{stated}: out of date: expected a newer one; renew it (playbook rotate_certs)"
        )


def _leads_to(chain: list[x509.Certificate], root: x509.Certificate) -> bool:
    """Whether each certificate is signed by the next one, and the last by (or is) the root."""
    if any(not _issued(below, above) for below, above in pairwise(chain)):
        return False
    return chain[-1] == root or _issued(chain[-1], root)


def _issued(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (*_UNREADABLE, InvalidSignature):
        return False
    return True


def _check_tls_key(path: Path, leaf: x509.Certificate | None, faults: list[str]) -> None:
    stated = f'tls.key = "{path}"'
    try:
        key = load_pem_private_key(read_private(path), password=None)
    except ConfigError as error:
        faults += [f"tls.key = {fault}" for fault in error.faults]
        return
    except _UNREADABLE:
        # What the library says of a key is not passed on: it has seen the key.
        faults.append(f"{stated}: expected an unencrypted private key in PEM; install it")
        return
    form = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if leaf and key.public_key().public_bytes(*form) != leaf.public_key().public_bytes(*form):
        faults.append(
            f"{stated}: not the key of tls.certificate: expected a pair; install both as one"
        )


def _certificates(path: Path, key: str, faults: list[str]) -> list[x509.Certificate]:
    try:
        data = read_file(path, _MAX_PEM_BYTES, "PEM certificates")
    except ConfigError as error:
        faults += [f"{key} = {fault}" for fault in error.faults]
        return []
    try:
        with catch_warnings():
            # What the library warns of, say a negative serial number, it will refuse one day.
            simplefilter("error", CryptographyDeprecationWarning)
            found = x509.load_pem_x509_certificates(data)
            for certificate in found:  # most of it is only parsed when it is asked for
                _ = certificate.subject.rfc4514_string(), certificate.extensions
                _ = certificate.public_key()
    except _UNREADABLE:
        faults.append(f'{key} = "{path}": expected certificates in PEM; install them')
        return []
    return found
