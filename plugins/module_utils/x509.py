# Copyright: (c) 2026, Holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keys, certificates and requests: load, make, compare. Works with cryptography 3.4 and later.

What later versions added (load_pem_x509_certificates, not_valid_before_utc,
verify_directly_issued_by) is done here with what 3.4 has.
"""

from __future__ import annotations

import datetime
import hashlib
import ipaddress
import re
import traceback
from typing import Any, Sequence

from ansible_collections.holdfast.chain.plugins.module_utils.names import Names

CRYPTOGRAPHY_ERROR: str | None = None
try:
    from cryptography import x509
    from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
except ImportError:
    CRYPTOGRAPHY_ERROR = traceback.format_exc()

KEY_TYPES = ("p384", "ed25519", "rsa3072")
USAGES = ("server", "client")

_MAX_PEM = 65536  # bytes; a chain of RSA certificates is a tenth of it
_MIN_RSA_BITS = 3072  # 128-bit strength, NIST SP 800-57 part 1, table 2
_CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)


class RefusedError(Exception):
    """What was given or found cannot be used; the module fails and nothing was changed.

    problems: list of (reason, message): a stable word and a sentence for a person.
    """

    def __init__(self, problems: Sequence[tuple[str, str]]) -> None:
        self.problems = list(problems)
        super().__init__("; ".join(message for _reason, message in self.problems))

    def result(self) -> dict[str, Any]:
        """Arguments for fail_json."""
        return {
            "msg": str(self),
            "problems": [
                {"reason": reason, "message": message} for reason, message in self.problems
            ],
        }


def now() -> datetime.datetime:
    """The time, aware, in whole seconds as certificates have it."""
    return datetime.datetime.now(datetime.timezone.utc).replace(microsecond=0)


def timestamp(moment: datetime.datetime) -> str:
    """RFC 3339 in UTC, such as 2026-01-31T12:00:00Z."""
    return moment.astimezone(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def not_before(certificate: x509.Certificate) -> datetime.datetime:
    """Start of validity, aware."""
    if hasattr(certificate, "not_valid_before_utc"):
        return certificate.not_valid_before_utc
    return certificate.not_valid_before.replace(tzinfo=datetime.timezone.utc)


def not_after(certificate: x509.Certificate) -> datetime.datetime:
    """End of validity, aware."""
    if hasattr(certificate, "not_valid_after_utc"):
        return certificate.not_valid_after_utc
    return certificate.not_valid_after.replace(tzinfo=datetime.timezone.utc)


def check_fingerprint(text: str, option: str = "root_fingerprint") -> str:
    """A SHA-256 fingerprint as 64 lower-case hex digits; colons and capitals are accepted."""
    plain = text.replace(":", "").lower()
    if not re.fullmatch(r"[0-9a-f]{64}", plain):
        raise RefusedError(
            [("bad_fingerprint", f"{option}: '{text}': expected a SHA-256 of 64 hex digits")]
        )
    return plain


def fingerprint(certificate: x509.Certificate) -> str:
    """SHA-256 of the DER encoding, lower-case hex."""
    return hashlib.sha256(to_der(certificate)).hexdigest()


def key_fingerprint(public_key: Any) -> str:
    """SHA-256 of the SubjectPublicKeyInfo, lower-case hex: equal keys, equal fingerprints."""
    encoded = public_key.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return hashlib.sha256(encoded).hexdigest()


def to_der(certificate: x509.Certificate) -> bytes:
    """DER encoding of a certificate."""
    return certificate.public_bytes(serialization.Encoding.DER)


def to_pem(item: Any) -> str:
    """PEM text of a certificate, request or revocation list, ending in a newline."""
    text: str = item.public_bytes(serialization.Encoding.PEM).decode("ascii")
    return text


def load_certificates(text: str, what: str) -> list[x509.Certificate]:
    """All certificates in PEM text, in order; RefusedError if there is none or one is broken."""
    if len(text) > _MAX_PEM:
        raise RefusedError([("unreadable", f"{what}: longer than {_MAX_PEM} bytes; not a chain")])
    blocks = _CERTIFICATE.findall(text)
    if not blocks or "PRIVATE KEY-----" in text:
        raise RefusedError(
            [("unreadable", f"{what}: expected certificates in PEM and nothing else")]
        )
    try:
        return [_load_certificate(block) for block in blocks]
    except unparsable() as error:
        raise RefusedError([("unreadable", f"{what}: not a certificate: {error}")]) from error


def unparsable() -> tuple[type[Exception], ...]:
    """What the library raises on broken or unknown encodings."""
    return (
        ValueError,
        UnsupportedAlgorithm,
        x509.DuplicateExtension,
        x509.InvalidVersion,
        x509.UnsupportedGeneralNameType,
    )


def _load_certificate(block: str) -> x509.Certificate:
    certificate = x509.load_pem_x509_certificate(block.encode("ascii", "replace"))
    list(certificate.extensions)  # parsed on demand: what is broken must show here
    certificate.public_key()
    return certificate


def load_certificate(text: str, what: str) -> x509.Certificate:
    """The one certificate in PEM text; RefusedError if there are none or several."""
    certificates = load_certificates(text, what)
    if len(certificates) != 1:
        raise RefusedError(
            [("unreadable", f"{what}: {len(certificates)} certificates: expected exactly one")]
        )
    return certificates[0]


def load_request(text: str, what: str) -> x509.CertificateSigningRequest:
    """A certificate signing request from PEM text; RefusedError if it is none."""
    if len(text) > _MAX_PEM:
        raise RefusedError([("unreadable", f"{what}: longer than {_MAX_PEM} bytes")])
    try:
        request = x509.load_pem_x509_csr(text.encode("ascii"))
        list(request.extensions)
        request.public_key()
    except unparsable() as error:
        raise RefusedError(
            [("unreadable", f"{what}: not a certificate signing request in PEM: {error}")]
        ) from error
    return request


def load_private_key(content: bytes, passphrase: str | None = None) -> Any:
    """A private key from PEM.

    Raises ValueError (broken, of an unknown kind, or another passphrase) or TypeError (a passphrase
    for a key that has none, or none for one that has).
    """
    password = None if passphrase is None else passphrase.encode("utf-8")
    try:
        return serialization.load_pem_private_key(content, password)
    except UnsupportedAlgorithm as error:
        raise ValueError(str(error)) from error


def make_key(key_type: str) -> Any:
    """A new private key of one of KEY_TYPES."""
    if key_type == "p384":
        return ec.generate_private_key(ec.SECP384R1())
    if key_type == "ed25519":
        return ed25519.Ed25519PrivateKey.generate()
    if key_type == "rsa3072":
        return rsa.generate_private_key(public_exponent=65537, key_size=3072)
    raise ValueError(f"key_type: '{key_type}': expected one of {', '.join(KEY_TYPES)}")


def private_pem(key: Any, passphrase: str | None = None) -> bytes:
    """PKCS#8 in PEM, encrypted if there is a passphrase."""
    encryption: Any = serialization.NoEncryption()
    if passphrase is not None:
        encryption = serialization.BestAvailableEncryption(passphrase.encode("utf-8"))
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption
    )


def key_type_of(public_key: Any) -> str:
    """One of KEY_TYPES where it fits, otherwise a description such as rsa2048 or secp256r1."""
    if isinstance(public_key, ec.EllipticCurvePublicKey):
        return "p384" if public_key.curve.name == "secp384r1" else public_key.curve.name
    if isinstance(public_key, ed25519.Ed25519PublicKey):
        return "ed25519"
    if isinstance(public_key, rsa.RSAPublicKey):
        return f"rsa{public_key.key_size}"
    return type(public_key).__name__


def key_weakness(public_key: Any) -> str | None:
    """Why a key is not good enough for an identity; None if it is."""
    found = key_type_of(public_key)
    if isinstance(public_key, rsa.RSAPublicKey):
        good = public_key.key_size >= _MIN_RSA_BITS
    else:
        good = found in ("p384", "ed25519", "secp256r1", "secp521r1")
    if good:
        return None
    return f"key is {found}: expected p384, p256, p521, ed25519 or RSA of {_MIN_RSA_BITS} bits"


def signing_hash(private_key: Any) -> Any:
    """The hash to sign with: none of its own for Ed25519, SHA-384 otherwise."""
    return None if isinstance(private_key, ed25519.Ed25519PrivateKey) else hashes.SHA384()


def is_signed_by(certificate: x509.Certificate, issuer_key: Any) -> bool:
    """Whether the signature is by this public key, with a hash of the SHA-2 family or Ed25519."""
    return _signature_fits(certificate, certificate.tbs_certificate_bytes, issuer_key)


def is_list_signed_by(crl: x509.CertificateRevocationList, issuer_key: Any) -> bool:
    """The same for a revocation list; cryptography 3.4 itself does not know Ed25519 there."""
    return _signature_fits(crl, crl.tbs_certlist_bytes, issuer_key)


def _signature_fits(signed: Any, content: bytes, issuer_key: Any) -> bool:
    try:
        algorithm = signed.signature_hash_algorithm
        if isinstance(issuer_key, ed25519.Ed25519PublicKey):
            issuer_key.verify(signed.signature, content)
        elif not isinstance(algorithm, (hashes.SHA256, hashes.SHA384, hashes.SHA512)):
            return False
        elif isinstance(issuer_key, ec.EllipticCurvePublicKey):
            issuer_key.verify(signed.signature, content, ec.ECDSA(algorithm))
        elif isinstance(issuer_key, rsa.RSAPublicKey):
            issuer_key.verify(signed.signature, content, padding.PKCS1v15(), algorithm)
        else:
            return False
    except (InvalidSignature, UnsupportedAlgorithm):
        return False
    return True


def extension(holder: Any, kind: Any) -> Any:
    """The value of an extension of a certificate or request; None if it has none."""
    try:
        return holder.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None


def names_of(holder: Any) -> Names:
    """The subject alternative names of a certificate or request."""
    alternatives = extension(holder, x509.SubjectAlternativeName) or ()
    kinds: dict[str, list[str]] = {"dns": [], "ip": [], "uri": [], "other": []}
    for name in alternatives:
        if isinstance(name, x509.DNSName):
            kinds["dns"].append(name.value)
        elif isinstance(name, x509.IPAddress):
            kinds["ip"].append(str(name.value))
        elif isinstance(name, x509.UniformResourceIdentifier):
            kinds["uri"].append(name.value)
        else:
            kinds["other"].append(str(name))
    return Names.found(**kinds)


def alternative_names(names: Names) -> x509.SubjectAlternativeName:
    """The extension that carries these names."""
    general: list[Any] = [x509.DNSName(name) for name in names.dns]
    general += [x509.IPAddress(ipaddress.ip_address(address)) for address in names.ip]
    general += [x509.UniformResourceIdentifier(uri) for uri in names.uri]
    return x509.SubjectAlternativeName(general)


def subject(common_name: str) -> x509.Name:
    """A distinguished name of nothing but a common name."""
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def extended_usages(usage: Sequence[str]) -> list[Any]:
    """The object identifiers for some of USAGES."""
    identifiers = {
        "server": ExtendedKeyUsageOID.SERVER_AUTH,
        "client": ExtendedKeyUsageOID.CLIENT_AUTH,
    }
    return [identifiers[word] for word in USAGES if word in usage]


def make_request(private_key: Any, common_name: str, names: Names) -> str:
    """A signing request in PEM that asks for these names and nothing else."""
    builder = x509.CertificateSigningRequestBuilder()
    builder = builder.subject_name(subject(common_name))
    builder = builder.add_extension(alternative_names(names), critical=False)
    return to_pem(builder.sign(private_key, signing_hash(private_key)))
