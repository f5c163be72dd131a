# SPDX-License-Identifier: Apache-2.0
"""Mutual TLS 1.3 between members: contexts, and who a certificate says the peer is."""

import ssl
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol
from weakref import WeakSet

import structlog
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes

from holdfast_node.chain.names import spiffe_id
from holdfast_node.errors import ConfigError
from holdfast_node.net.revocation import UNREADABLE, Revocations, read_revocations
from holdfast_node.net.wire import PeerError

_log = structlog.get_logger(__name__)

# X509_V_ERR_CERT_NOT_YET_VALID and X509_V_ERR_CERT_HAS_EXPIRED of OpenSSL's x509_vfy.h.
_OUTSIDE_VALIDITY: Final = frozenset({9, 10})
# For how long a session outlives the trust in its peer's CA, to be replaced in good order.
GRACE_SECONDS: Final = 10.0


@dataclass(frozen=True)
class Identity:
    """Who a verified certificate is about; times in Unix seconds."""

    name: str
    not_before: float
    not_after: float
    certificate: x509.Certificate


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
    start, end = parsed.not_valid_before_utc, parsed.not_valid_after_utc
    return Identity(name, start.timestamp(), end.timestamp(), parsed)


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
class Loaded:
    """Everything that was read from the files at one time, proved to fit together."""

    server: ssl.SSLContext
    client: ssl.SSLContext
    identity: Identity
    revocations: Revocations
    issuers: tuple[x509.Certificate, ...]  # our own intermediates, and every root
    roots: frozenset[x509.Certificate]

    @property
    def summary(self) -> dict[str, str]:
        """Serial number, and SHA-256 of each root and list: to compare with the files."""
        roots = sorted(root.fingerprint(hashes.SHA256()).hex() for root in self.roots)
        return {
            "serial": f"{self.identity.certificate.serial_number:x}",
            "roots": ",".join(roots),
            "crls": ",".join(self.revocations.fingerprints),
        }


class Guarded(Protocol):
    """A session that stands on a certificate, ours and the peer's."""

    @property
    def identity(self) -> Identity: ...

    def end_by(self, when: float, fault: PeerError) -> None:
        """End at Unix time `when` at the latest; at once if that has passed."""


class Tls:
    """The TLS contexts of this node, renewed together, and the sessions that stand on them.

    `certificate` is the chain (leaf first), `ca` the roots trusted, `crl` the revocation lists,
    where the file may be missing; all PEM. The leaf must carry
    spiffe://<trust_domain>/chain/<chain_id>/node/<name> as its only URI.

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
        crl: Path | None = None,
    ) -> None:
        self.trust_domain = trust_domain
        self.chain_id = chain_id
        self._name = name
        self._certificate = certificate
        self._key = key
        self._ca = ca
        self._crl = crl
        self._loaded: Loaded | None = None
        self._sessions: WeakSet[Guarded] = WeakSet()
        self._loaded = self.load()

    @property
    def loaded(self) -> Loaded:
        """What is in use now."""
        assert self._loaded is not None
        return self._loaded

    @property
    def not_after(self) -> float:
        """When our certificate expires, Unix seconds."""
        return self.loaded.identity.not_after

    def identity_of(self, certificate: bytes) -> Identity:
        """As the function of this name, for our trust domain and chain.

        Raises `PeerError`: "revoked" if a revocation list has it, too.
        """
        identity = identity_of(certificate, trust_domain=self.trust_domain, chain_id=self.chain_id)
        if self.loaded.revocations.covers(identity.certificate):
            raise _revoked(identity)
        return identity

    def guard(self, session: Guarded) -> None:
        """Have `session` ended once its peer's certificate is revoked or not trusted any more."""
        self._sessions.add(session)

    def fingerprint(self) -> tuple[object, ...]:
        """Something that is another once any of the files, or a link to it, has changed."""
        files = (self._certificate, self._key, self._ca, self._crl)
        return tuple(_trace(path) for path in files if path is not None)

    def load(self) -> Loaded:
        """Read the files and prove that they fit together; changes nothing, may run in a thread.

        Raises `ConfigError`.
        """
        while True:
            # As one: a link on the way to them may be swapped for another pair at any time.
            paths = self._resolved()
            try:
                loaded = self._load(*paths)
            except ConfigError:
                if self._resolved() != paths:
                    continue
                raise
            if self._resolved() == paths:
                return loaded

    def adopt(self, loaded: Loaded) -> None:
        """Use what was loaded from now on; on the event loop.

        Sessions that are up stay up until their certificates end, except: those of a peer that is
        revoked end at once, those of a peer under a root that is not trusted any more within
        `GRACE_SECONDS`, so that it can connect anew without a gap.
        """
        dropped = bool(self.loaded.roots - loaded.roots)
        self._loaded = loaded
        for session in list(self._sessions):
            identity = session.identity
            if loaded.revocations.covers(identity.certificate):
                session.end_by(0.0, _revoked(identity))
            elif dropped and not any(
                _issued(identity.certificate, issuer) for issuer in loaded.issuers
            ):
                fault = PeerError("wrong_ca", f"{identity.name}: its CA is not trusted any more")
                session.end_by(time.time() + GRACE_SECONDS, fault)

    def refuse(self, error: ConfigError) -> None:
        """Log why the files on disk are not in use."""
        way_out = "the identity loaded before stays in use; repair the files, or renew them"
        _log.error(
            "tls_reload_refused", faults=error.faults, not_after=self.not_after, way_out=way_out
        )

    def tell(self) -> None:
        """Log what is in use."""
        loaded = self.loaded
        _log.info(
            "tls_reloaded",
            **loaded.summary,
            not_after=self.not_after,
            crl_next_update=loaded.revocations.next_update,
        )
        if loaded.revocations.is_stale:
            _log.warning("crl_stale", next_update=loaded.revocations.next_update)
        if loaded.revocations.covers(loaded.identity.certificate):
            _log.error(
                "own_certificate_revoked",
                way_out="peers refuse this node until it has a new certificate",
            )

    def _resolved(self) -> tuple[Path, Path, Path, Path | None]:
        """Where the files are, all links followed. Raises `ConfigError`."""
        try:
            return (
                self._certificate.resolve(),
                self._key.resolve(),
                self._ca.resolve(),
                self._crl and self._crl.resolve(),
            )
        except RuntimeError as error:  # links in a circle, before Python 3.13
            raise self._unusable(error) from error

    def _load(self, certificate: Path, key: Path, ca: Path, crl: Path | None) -> Loaded:
        try:
            server = _context(ssl.PROTOCOL_TLS_SERVER, certificate, key, ca)
            client = _context(ssl.PROTOCOL_TLS_CLIENT, certificate, key, ca)
            leaf = _handshake_with_itself(server, client)
            identity = identity_of(leaf, trust_domain=self.trust_domain, chain_id=self.chain_id)
            chain = x509.load_pem_x509_certificates(certificate.read_bytes())
            roots = x509.load_pem_x509_certificates(ca.read_bytes())
        except (OSError, PeerError, *UNREADABLE) as error:  # ssl.SSLError is an OSError
            raise self._unusable(error) from error
        if identity.name != self._name:
            fault = (
                f"tls.certificate = {self._certificate}: is for node {identity.name!r}: "
                f"expected {self._name!r}, the name of this node"
            )
            raise ConfigError([fault])
        issuers = (*chain[1:], *roots)
        revocations = Revocations() if crl is None else read_revocations(crl, issuers)
        in_use = self._loaded and self._loaded.identity.certificate == identity.certificate
        if revocations.covers(identity.certificate) and not in_use:
            fault = (
                f"tls.certificate = {self._certificate}: revoked by {self._crl}: expected one that "
                "peers accept; renew the node's certificate"
            )
            raise ConfigError([fault])
        return Loaded(server, client, identity, revocations, issuers, frozenset(roots))

    def _unusable(self, error: Exception) -> ConfigError:
        fault = (
            f"tls.certificate = {self._certificate}, tls.key = {self._key}, "
            f"tls.ca = {self._ca}: {error}: expected a valid chain and its key, signed "
            "under that CA for both client and server; renew the node's certificate"
        )
        return ConfigError([fault])


def _context(protocol: "ssl._SSLMethod", certificate: Path, key: Path, ca: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False  # who the peer is stands in its URI name, not in a host name
    context.verify_mode = ssl.CERT_REQUIRED
    if protocol == ssl.PROTOCOL_TLS_SERVER:
        context.num_tickets = 0  # every connection proves its certificate anew
    context.load_verify_locations(cafile=ca)
    context.load_cert_chain(certificate, key, password=_no_passphrase)
    return context


def _revoked(identity: Identity) -> PeerError:
    serial = f"{identity.certificate.serial_number:x}"
    return PeerError("revoked", f"certificate {serial} of {identity.name!r} is revoked")


def _issued(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _trace(path: Path) -> tuple[object, ...]:
    try:
        seen = path.stat()
    except OSError as error:
        return (error.errno,)
    return path.resolve(), seen.st_ino, seen.st_size, seen.st_mtime_ns


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
