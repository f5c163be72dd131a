# Copyright: (c) 2026, Holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A certificate authority for tests that also makes what a real one never would."""

from __future__ import annotations

import datetime
import ipaddress
from pathlib import Path
from typing import Any, Callable

import pytest
from ansible_collections.holdfast.chain.plugins.module_utils.x509 import (
    load_certificate,
    load_private_key,
    make_key,
    now,
    to_pem,
)
from ansible_collections.holdfast.chain.plugins.module_utils.x509_ca import (
    Parameters,
    key_usage,
    make_authority,
)
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

PASSPHRASE = "correct horse battery staple"
TRUST_DOMAIN = "demo.example"
SERVER, CLIENT = ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH
DAY = datetime.timedelta(days=1)


class Pki:
    """A CA made some days ago by the collection's own code, its keys open for misuse."""

    def __init__(self, days_ago: int = 30, common_name: str = "Demo") -> None:
        self.parameters = Parameters(common_name, TRUST_DOMAIN, "p384", 3650, 1825)
        self.files = make_authority(self.parameters, PASSPHRASE, now() - days_ago * DAY)
        self.root = self._certificate("root.pem")
        self.intermediate = self._certificate("intermediate.pem")
        self.root_key = load_private_key(self.files["root-key.pem"], PASSPHRASE)
        self.intermediate_key = load_private_key(self.files["intermediate-key.pem"], PASSPHRASE)

    def _certificate(self, name: str) -> x509.Certificate:
        return load_certificate(self.files[name].decode(), name)

    def install(self, directory: Path) -> None:
        """Put the CA where mtls_sign finds it."""
        (directory / "authority").mkdir(parents=True, mode=0o700)
        directory.chmod(0o700)
        for name, content in self.files.items():
            path = directory / "authority" / name
            path.write_bytes(content)
            path.chmod(0o600 if "key" in name else 0o644)

    def authority(self, path_length: int | None = 0, **changed: Any) -> tuple[Any, Any]:
        """Another intermediate under the root: its key and its certificate."""
        key = make_key("p384")
        defaults: dict[str, Any] = {
            "names": None,
            "basic": x509.BasicConstraints(True, path_length),
            "usage": key_usage(key_cert_sign=True, crl_sign=True),
            "extended": (),
            "common_name": "Other Issuing CA",
            "issuer": self.root,
            "issuer_key": self.root_key,
            "start": now() - 20 * DAY,
            "end": now() + 1000 * DAY,
        }
        return key, self.leaf(key.public_key(), **{**defaults, **changed})

    def leaf(
        self,
        public_key: Any,
        *,
        names: list[Any] | None,
        common_name: str = "v1",
        basic: Any = x509.BasicConstraints(False, None),  # noqa: B008 - immutable
        usage: Any = None,
        extended: tuple[Any, ...] = (SERVER, CLIENT),
        issuer: Any = None,
        issuer_key: Any = None,
        start: datetime.datetime | None = None,
        end: datetime.datetime | None = None,
        key_identifier: bytes | None = None,
        hash_algorithm: Any = None,
        extra: tuple[tuple[Any, bool], ...] = (),
    ) -> x509.Certificate:
        """A certificate as asked, however wrong; by default a good one from the intermediate."""
        issuer = issuer or self.intermediate
        issuer_key = issuer_key or self.intermediate_key
        identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key())
        if key_identifier:
            identifier = x509.AuthorityKeyIdentifier(key_identifier, None, None)
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)]))
            .issuer_name(issuer.subject)
            .public_key(public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(start or now() - datetime.timedelta(minutes=5))
            .not_valid_after(end or now() + 10 * DAY)
            .add_extension(basic, critical=True)
            .add_extension(usage or key_usage(digital_signature=True), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
            .add_extension(identifier, critical=False)
        )
        if extended:
            builder = builder.add_extension(x509.ExtendedKeyUsage(extended), critical=False)
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        for value, critical in extra:
            builder = builder.add_extension(value, critical=critical)
        return builder.sign(issuer_key, hash_algorithm or hashes.SHA384())


def general_names(dns: list[str], ip: list[str], uri: list[str]) -> list[Any]:
    """What goes into a subjectAltName."""
    return [
        *map(x509.DNSName, dns),
        *(x509.IPAddress(ipaddress.ip_address(address)) for address in ip),
        *map(x509.UniformResourceIdentifier, uri),
    ]


@pytest.fixture(scope="session")
def pki() -> Pki:
    """The network's own CA, 30 days old."""
    return Pki()


@pytest.fixture(scope="session")
def other_pki() -> Pki:
    """A stranger's CA that calls itself the same."""
    return Pki()


class Host:
    """One host and its CA, driven through the modules as a play would."""

    spiffe_id = f"spiffe://{TRUST_DOMAIN}/chain/demo/node/v1"

    def __init__(self, base: Path, pki: Pki, run_module: Callable[..., Any]) -> None:
        self.pki = pki
        self.run = run_module
        self.ca = base / "ca"
        self.directory = base / "tls"
        self.names: dict[str, Any] = {
            "dns": ["v1.demo.example"],
            "ip": ["192.0.2.11", "2001:db8::11"],
            "spiffe_id": self.spiffe_id,
        }
        self.fingerprint = pki.root.fingerprint(hashes.SHA256()).hex()

    @property
    def alternatives(self) -> list[Any]:
        """The names, for Pki.leaf."""
        return general_names(self.names["dns"], self.names["ip"], [self.names["spiffe_id"]])

    def request(self, check: bool = False, **changed: Any) -> Any:
        """Run mtls_request."""
        arguments = {
            "directory": str(self.directory),
            "common_name": "v1",
            "root_fingerprint": self.fingerprint,
            **self.names,
            **changed,
        }
        return self.run("mtls_request", arguments, check=check)

    def sign(self, request: str, check: bool = False, **changed: Any) -> Any:
        """Run mtls_sign for this host's request."""
        if not self.ca.exists():
            self.pki.install(self.ca)
        arguments = {
            "directory": str(self.ca),
            "passphrase": PASSPHRASE,
            "requests": [{"name": "v1", "request": request, **self.names}],
            **changed,
        }
        return self.run("mtls_sign", arguments, check=check)

    def install(self, certificate: str, check: bool = False, **changed: Any) -> Any:
        """Run mtls_certificate."""
        arguments = {
            "directory": str(self.directory),
            "certificate": certificate,
            "chain": to_pem(self.pki.intermediate),
            "root_certificate": to_pem(self.pki.root),
            "root_fingerprint": self.fingerprint,
            **self.names,
            **changed,
        }
        return self.run("mtls_certificate", arguments, check=check)

    def crl(self, check: bool = False, **changed: Any) -> Any:
        """Run mtls_crl on the CA."""
        arguments = {"directory": str(self.ca), "passphrase": PASSPHRASE, **changed}
        return self.run("mtls_crl", arguments, check=check)

    def publish(self, crl: str, check: bool = False, **changed: Any) -> Any:
        """Run mtls_crl on the host."""
        arguments = {"directory": str(self.directory), "state": "installed", "crl": crl, **changed}
        return self.run("mtls_crl", arguments, check=check)

    def roll(self, state: str = "present", check: bool = False, **changed: Any) -> Any:
        """Run mtls_ca on the host's CA."""
        arguments = {
            "directory": str(self.ca),
            "common_name": "Demo",
            "trust_domain": TRUST_DOMAIN,
            "passphrase": PASSPHRASE,
            "state": state,
            **changed,
        }
        return self.run("mtls_ca", arguments, check=check)

    def trust(self, roots: list[dict[str, str]], check: bool = False, **changed: Any) -> Any:
        """Run mtls_certificate for the roots alone."""
        arguments = {
            "directory": str(self.directory),
            "trusted_roots": roots,
            **self.names,
            **changed,
        }
        return self.run("mtls_certificate", arguments, check=check)

    def renew(self, **changed: Any) -> str:
        """The whole way from request to identity in use; the certificate."""
        request = self.request(**changed)
        assert request["request"], request.text
        signed = self.sign(request["request"])
        certificate: str = signed["certificates"]["v1"]["certificate"]
        installed = self.install(certificate)
        assert not installed.failed, installed.text
        return certificate


@pytest.fixture
def host(tmp_path: Path, pki: Pki, run_module: Callable[..., Any]) -> Host:
    """A host without identity."""
    return Host(tmp_path, pki, run_module)
