# SPDX-License-Identifier: Apache-2.0
"""Mutual TLS 1.3 between members: contexts, and who a certificate says the peer is."""

import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog
from cryptography import x509

from holdfast_node.chain.names import spiffe_id
from holdfast_node.errors import ConfigError
from holdfast_node.net.wire import PeerError

_log = structlog.get_logger(__name__)

# X509_V_ERR_CERT_NOT_YET_VALID and X509_V_ERR_CERT_HAS_EXPIRED of OpenSSL's x509_vfy.h.
_OUTSIDE_VALIDITY: Final = frozenset({9, 10})


@dataclass(frozen=True)
class Identity:
    """Who a verified certificate is about; `not_after` in Unix seconds."""

    name: str
    not_after: float


def identity_of(certificate: bytes, *, trust_domain: str, chain_id: str) -> Identity:
    """Read the node's name from a certificate (DER) whose signature has been verified already.

    Raises `PeerError`: "other_chain" if it is of another chain, "not_member" if its only URI is no
    node of `trust_domain`, "malformed" if it cannot be read.
    """
    try:
        parsed = x509.load_der_x509_certificate(certificate)
        names = parsed.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    except x509.ExtensionNotFound:
        uris = []
    except (
        ValueError,
        x509.DuplicateExtension,
        x509.InvalidVersion,
        x509.UnsupportedGeneralNameType,
    ) as error:
        raise PeerError("malformed", f"unreadable certificate: {error}") from error
    expected = spiffe_id(trust_domain, chain_id, "")
    if len(uris) != 1:
        raise PeerError(
            "not_member", f"certificate with {len(uris)} URI names: expected one, {expected}<name>"
        )
    (uri,) = uris
    name = uri.removeprefix(expected)
    if name == uri or not name or "/" in name:
        message = f"certificate of {uri[:200]!r}: expected {expected}<name>"
        if name == uri and uri.startswith(f"spiffe://{trust_domain}/chain/"):
            raise PeerError("other_chain", message)
        raise PeerError("not_member", message)
    return Identity(name, parsed.not_valid_after_utc.timestamp())


def tls_fault(error: ssl.SSLError) -> PeerError:
    """Say in the terms of `Reason` why a TLS handshake failed."""
    if isinstance(error, ssl.SSLCertVerificationError):
        if error.verify_code in _OUTSIDE_VALIDITY:
            return PeerError("expired", f"certificate refused: {error.verify_message}")
        return PeerError("wrong_ca", f"certificate refused: {error.verify_message}")
    if isinstance(error, (ssl.SSLEOFError, ssl.SSLZeroReturnError)):
        return PeerError("aborted", "closed by the peer during the handshake")
    return PeerError("tls", f"TLS handshake failed: {error.reason or error}")


@dataclass(frozen=True)
class _Contexts:
    server: ssl.SSLContext
    client: ssl.SSLContext
    identity: Identity


class Tls:
    """The TLS contexts of this node, renewed together.

    `certificate` is the chain (leaf first), `ca` the only root trusted; both PEM files. The leaf
    must carry spiffe://<trust_domain>/chain/<chain_id>/node/<name> as its only URI.

    Raises `ConfigError` if the files cannot be used.
    """

    def __init__(
        self,
        *,
        certificate: Path,
        key: Path,
        ca: Path,
        trust_domain: str,
        chain_id: str,
        name: str,
    ) -> None:
        self.trust_domain = trust_domain
        self.chain_id = chain_id
        self._name = name
        self._certificate = certificate
        self._key = key
        self._ca = ca
        self._contexts = self._load()

    @property
    def server(self) -> ssl.SSLContext:
        return self._contexts.server

    @property
    def client(self) -> ssl.SSLContext:
        return self._contexts.client

    @property
    def not_after(self) -> float:
        """When our certificate expires, Unix seconds."""
        return self._contexts.identity.not_after

    def identity_of(self, certificate: bytes) -> Identity:
        """As the function of this name, for our trust domain and chain."""
        return identity_of(certificate, trust_domain=self.trust_domain, chain_id=self.chain_id)

    def reload(self) -> bool:
        """Read the files again; new connections use them.

        If they cannot be used the old contexts go on serving, the fault is logged, and the answer
        is False.
        """
        try:
            self._contexts = self._load()
        except ConfigError as error:
            _log.error("tls_reload_refused", faults=error.faults, not_after=self.not_after)
            return False
        _log.info("tls_reloaded", not_after=self.not_after)
        return True

    def _load(self) -> _Contexts:
        try:
            server = self._context(ssl.PROTOCOL_TLS_SERVER)
            client = self._context(ssl.PROTOCOL_TLS_CLIENT)
            leaf = _handshake_with_itself(server, client)
            identity = self.identity_of(leaf)
        except (OSError, PeerError) as error:  # ssl.SSLError is an OSError
            fault = (
                f"tls.certificate = {self._certificate}, tls.key = {self._key}, "
                f"tls.ca = {self._ca}: {error}: expected a valid chain and its key, signed "
                "under that CA for both client and server; renew the node's certificate"
            )
            raise ConfigError([fault]) from error
        if identity.name != self._name:
            fault = (
                f"tls.certificate = {self._certificate}: is for node {identity.name!r}: "
                f"expected {self._name!r}, the name of this node"
            )
            raise ConfigError([fault])
        return _Contexts(server, client, identity)

    def _context(self, protocol: "ssl._SSLMethod") -> ssl.SSLContext:
        context = ssl.SSLContext(protocol)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.check_hostname = False  # who the peer is stands in its URI name, not in a host name
        context.verify_mode = ssl.CERT_REQUIRED
        if protocol == ssl.PROTOCOL_TLS_SERVER:
            context.num_tickets = 0  # every connection proves its certificate anew
        context.load_verify_locations(cafile=self._ca)
        context.load_cert_chain(self._certificate, self._key, password=_no_passphrase)
        return context


def _no_passphrase() -> str:
    """Keep OpenSSL from asking the terminal for the passphrase of an encrypted key."""
    return ""


def _handshake_with_itself(server: ssl.SSLContext, client: ssl.SSLContext) -> bytes:
    """Prove in memory that key, chain, root, usages and dates fit; returns the leaf (DER).

    Raises `ssl.SSLError`.
    """
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    sides = [
        server.wrap_bio(to_server, to_client, server_side=True),
        client.wrap_bio(to_client, to_server),
    ]
    for _ in range(2):  # two flights from each side complete TLS 1.3
        for side in reversed(sides):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
    leaf = sides[0].getpeercert(binary_form=True)
    if leaf is None:
        raise ssl.SSLError("no certificate was presented")
    return leaf
