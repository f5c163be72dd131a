# SPDX-License-Identifier: Apache-2.0
"""The folder of a development network: identities, keys, genesis and configurations.

Keys, genesis and data stay when a folder is used again. Certificates are made anew at every start,
by an authority whose key is never written anywhere.
"""

import fcntl
import ipaddress
import json
import os
import time
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from holdfast_node.chain.crypto import PrivateKey, account_of, format_address
from holdfast_node.chain.genesis import Genesis, GenesisValidator
from holdfast_node.chain.names import spiffe_id
from holdfast_node.config_check import read_genesis
from holdfast_node.errors import ConfigError
from holdfast_node.files import write_new
from holdfast_node.keys import load_key, new_key

CHAIN_ID: Final = "devnet"
TRUST_DOMAIN: Final = "devnet.localhost"
HOST: Final = "127.0.0.1"
FUNDS: Final = 1_000_000_000
PORTS_PER_NODE: Final = 10

_MARKER: Final = ".holdfast-devnet"
_CERTIFICATE_DAYS: Final = 30


@dataclass(frozen=True)
class Member:
    """A validator on loopback: `port` is the first of its three."""

    name: str
    folder: Path
    port: int

    @property
    def ports(self) -> tuple[int, int, int]:
        """Consensus, block catch-up and API."""
        return self.port, self.port + 1, self.port + 2

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port + 2}"

    @property
    def config(self) -> Path:
        return self.folder / "config.toml"

    @property
    def log(self) -> Path:
        return self.folder / "node.log"


@dataclass(frozen=True)
class Layout:
    """A prepared folder. `funded` has all the money, `guest` is somebody to send some to."""

    folder: Path
    members: tuple[Member, ...]
    funded: Path
    guest: Path

    @property
    def guest_address(self) -> str:
        return format_address(account_of(load_key(self.guest).public_key))


def claim(folder: Path) -> int:
    """Take `folder` for one devnet as long as the returned descriptor is open.

    Raises `ConfigError` if it holds anything else, or another devnet uses it.
    """
    marker = folder / _MARKER
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not marker.exists() and any(folder.iterdir()):
            raise ConfigError(
                [f'--dir = "{folder}": expected a new or empty folder, or one that devnet made']
            )
        descriptor = os.open(marker, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ConfigError(
            [f'--dir = "{folder}": {error.strerror}: expected a folder to write to']
        ) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        raise ConfigError(
            [f'--dir = "{folder}": in use by another devnet; stop that one or choose another']
        ) from error
    return descriptor


def prepare(folder: Path, validators: int, base_port: int) -> Layout:
    """Make what is missing in `folder` (absolute, claimed) for so many validators.

    Raises `ConfigError` if the folder's genesis has another number of them.
    """
    _check_size(folder / "genesis.json", validators)
    members = tuple(
        Member(f"v{i + 1}", folder / f"v{i + 1}", base_port + i * PORTS_PER_NODE)
        for i in range(validators)
    )
    layout = Layout(folder, members, folder / "funded.key", folder / "guest.key")
    for member in members:
        (member.folder / "tls").mkdir(parents=True, exist_ok=True)
        (member.folder / "data").mkdir(exist_ok=True)
    _write_genesis(layout)
    _write_identities(members)
    for member in members:
        member.config.write_text(render_config(member, members, folder / "genesis.json"))
    return layout


def _write_genesis(layout: Layout) -> None:
    path = layout.folder / "genesis.json"
    if path.exists():
        return
    funded = format_address(account_of(_key(layout.funded).public_key))
    genesis = Genesis(
        chain_id=CHAIN_ID,
        time_ms=time.time_ns() // 1_000_000,
        validators=[
            GenesisValidator(m.name, _key(m.folder / "validator.key").public_key.hex())
            for m in layout.members
        ],
        accounts={funded: FUNDS},
    )
    _key(layout.guest)
    write_new(path, genesis.to_json(), 0o644)


def _check_size(genesis: Path, validators: int) -> None:
    present = len(read_genesis(genesis).validators) if genesis.exists() else validators
    if present != validators:
        fault = f"--validators = {validators}: expected {present}, as in {genesis}"
        raise ConfigError([f"{fault}; choose another --dir"])


def _key(path: Path) -> PrivateKey:
    return load_key(path) if path.exists() else new_key(path)


def _write_identities(members: tuple[Member, ...]) -> None:
    now = datetime.now(timezone.utc)
    authority = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "holdfast devnet")])
    root = (
        _certificate(name, name, authority.public_key(), now)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(signs_certificates=True), critical=True)
        .add_extension(
            x509.SubjectKeyIdentifier.from_public_key(authority.public_key()), critical=False
        )
        .sign(authority, hashes.SHA256())
    )
    for member in members:
        key = ec.generate_private_key(ec.SECP256R1())
        leaf = _leaf(member, key.public_key(), authority, root, now)
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        for file, data in (
            ("key.pem", pem),
            ("chain.pem", leaf.public_bytes(Encoding.PEM)),
            ("ca.pem", root.public_bytes(Encoding.PEM)),
        ):
            path = member.folder / "tls" / file
            path.unlink(missing_ok=True)
            write_new(path, data, 0o600)


def _leaf(
    member: Member,
    key: ec.EllipticCurvePublicKey,
    authority: ec.EllipticCurvePrivateKey,
    root: x509.Certificate,
    now: datetime,
) -> x509.Certificate:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, member.name)])
    identity = spiffe_id(TRUST_DOMAIN, CHAIN_ID, member.name)
    names: list[x509.GeneralName] = [
        x509.UniformResourceIdentifier(identity),
        x509.DNSName("localhost"),
        x509.IPAddress(ipaddress.ip_address(HOST)),
    ]
    usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    issuer_key = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.public_key())
    return (
        _certificate(subject, root.subject, key, now)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(issuer_key, critical=False)
        .sign(authority, hashes.SHA256())
    )


def _certificate(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, now: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=1))
        .not_valid_after(now + timedelta(days=_CERTIFICATE_DAYS))
    )


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def render_config(member: Member, members: tuple[Member, ...], genesis: Path) -> str:
    """The `config.toml` of a member, as TOML."""
    p2p, sync, api = member.ports
    tls = member.folder / "tls"
    lines = [
        f"chain_id = {_text(CHAIN_ID)}",
        f"name = {_text(member.name)}",
        f"data_dir = {_text(member.folder / 'data')}",
        f"genesis = {_text(genesis)}",
        f"validator_key = {_text(member.folder / 'validator.key')}",
        "",
        "[p2p]",
        f"listen = {_text(f'{HOST}:{p2p}')}",
        f"sync_listen = {_text(f'{HOST}:{sync}')}",
        "",
        "[api]",
        f"listen = {_text(f'{HOST}:{api}')}",
        "",
        "[tls]",
        f"certificate = {_text(tls / 'chain.pem')}",
        f"key = {_text(tls / 'key.pem')}",
        f"ca = {_text(tls / 'ca.pem')}",
        f"trust_domain = {_text(TRUST_DOMAIN)}",
    ]
    for peer in members:
        if peer is not member:
            p2p, sync, _ = peer.ports
            lines += [
                "",
                "[[peers]]",
                f"name = {_text(peer.name)}",
                f"address = {_text(f'{HOST}:{p2p}')}",
                f"sync_address = {_text(f'{HOST}:{sync}')}",
                'role = "validator"',
            ]
    return "\n".join(lines) + "\n"


def _text(value: str | Path) -> str:
    """A basic string of TOML: JSON's is one, but for the character JSON does not escape."""
    return json.dumps(str(value)).replace("\x7f", "\\u007f")
