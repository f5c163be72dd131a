# SPDX-License-Identifier: Apache-2.0
"""Certificates and small networks on loopback for the tests of net/."""

from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from pathlib import Path

import anyio
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from holdfast_node.chain.names import spiffe_id
from holdfast_node.net.network import Network
from holdfast_node.net.settings import NetworkSettings, PeerSettings, Timing
from holdfast_node.net.tls import Tls

CHAIN = "demo"
DOMAIN = "demo.example"
GENESIS = b"\x07" * 32
FAST = Timing(
    handshake=0.5,
    heartbeat=0.1,
    silence=1.0,
    redial_min=0.02,
    redial_max=0.1,
    renewal=0.5,
    sync_reply=0.5,
    sync_grace=0.15,
    sync_ban=0.5,
)


def name_of(text):
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def pem(*certificates):
    return b"".join(c.public_bytes(serialization.Encoding.PEM) for c in certificates)


def authority_key(key):
    return x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key())


class Pki:
    """A root, an intermediate, and what members get from it, below `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.root_key = ec.generate_private_key(ec.SECP256R1())
        self.root = self._sign("root", self.root_key.public_key(), "root", self.root_key, 1)
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.intermediate = self._sign("inter", self.key.public_key(), "root", self.root_key, 0)
        self.trust(self)

    def trust(self, *others):
        """Have those who use this folder trust these roots and no other."""
        (self.folder / "ca.pem").write_bytes(pem(*(other.root for other in others)))

    def _sign(self, subject, public_key, issuer, issuer_key, path_length):
        return (
            self._builder(subject, public_key, issuer, issuer_key, timedelta(days=9))
            .add_extension(x509.BasicConstraints(ca=True, path_length=path_length), critical=True)
            .sign(issuer_key, hashes.SHA256())
        )

    def revoke(
        self, *leaves, left=timedelta(hours=1), signed_by=None, extension=None, identified=True
    ):
        """Publish a list of these certificates; `left` until it is out of date. Its path.

        It says which key signed it if `identified`.
        """
        now = datetime.now(timezone.utc)
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(name_of("inter"))
            .last_update(now - timedelta(days=1))
            .next_update(now + left)
            .add_extension(x509.CRLNumber(1), critical=False)
        )
        if identified:
            builder = builder.add_extension(authority_key(self.key), critical=False)
        if extension is not None:
            builder = builder.add_extension(extension, critical=True)
        for leaf in leaves:
            builder = builder.add_revoked_certificate(
                x509.RevokedCertificateBuilder()
                .serial_number(leaf.serial_number)
                .revocation_date(now)
                .build()
            )
        crl = builder.sign(signed_by or self.key, hashes.SHA256())
        self.crl.write_bytes(crl.public_bytes(serialization.Encoding.PEM))
        return self.crl

    @property
    def crl(self):
        return self.folder / "crl.pem"

    @staticmethod
    def _builder(subject, public_key, issuer, issuer_key, lifetime):
        now = datetime.now(timezone.utc)
        return (
            x509.CertificateBuilder()
            .subject_name(name_of(subject))
            .issuer_name(name_of(issuer))
            .public_key(public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=1))
            .not_valid_after(now + lifetime)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
            .add_extension(authority_key(issuer_key), critical=False)
        )

    def issue(self, name, *, uris=None, lifetime=timedelta(hours=1), usages=None):
        """Write a member's key and chain; returns the folder they are in, and the leaf."""
        if uris is None:
            uris = [spiffe_id(DOMAIN, CHAIN, name)]
        usages = usages or [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        key = ec.generate_private_key(ec.SECP256R1())
        builder = self._builder(name, key.public_key(), "inter", self.key, lifetime).add_extension(
            x509.ExtendedKeyUsage(usages), critical=False
        )
        names = [x509.UniformResourceIdentifier(uri) for uri in uris]
        builder = builder.add_extension(
            x509.SubjectAlternativeName([*names, x509.DNSName("localhost")]), critical=False
        )
        leaf = builder.sign(self.key, hashes.SHA256())
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        (folder / "key.pem").write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        (folder / "chain.pem").write_bytes(pem(leaf, self.intermediate))
        return folder, leaf

    def tls(self, name, **issue) -> Tls:
        folder, _ = self.issue(name, **issue)
        return self.load(name, folder)

    def load(self, name, folder, *, of=None) -> Tls:
        """Of the files in `folder`, with trust and lists of `of`, else of this authority."""
        of = of or self
        return Tls(
            certificate=folder / "chain.pem",
            key=folder / "key.pem",
            ca=of.folder / "ca.pem",
            crl=of.crl,
            trust_domain=DOMAIN,
            chain_id=CHAIN,
            name=name,
        )


def peer(name, port=1, *, sync_port=1, role="validator"):
    """Port 1 is for peers that are never dialled."""
    return PeerSettings(name, role, "127.0.0.1", port, "127.0.0.1", sync_port)


def settings(pki, name, *peers, role="validator", tls=None, **changes) -> NetworkSettings:
    base = NetworkSettings(
        name=name,
        role=role,
        chain_id=CHAIN,
        genesis_hash=GENESIS,
        host="127.0.0.1",
        port=0,
        sync_host="127.0.0.1",
        sync_port=0,
        peers=peers,
        tls=tls or pki.tls(name),
        timing=FAST,
    )
    return replace(base, **changes)


class Recorder:
    """A `Handler` that remembers; `answer` may be replaced."""

    def __init__(self, height=0):
        self.height = height
        self.messages = []
        self.events = []

    async def on_message(self, peer, message):
        self.messages.append((peer, message))

    def on_connected(self, peer, hello):
        self.events.append(("connected", peer, hello.height))

    def on_disconnected(self, peer):
        self.events.append(("disconnected", peer))

    def hello_height(self):
        return self.height


class Slow(Recorder):
    """Takes nothing before its `gate` is set."""

    def __init__(self):
        super().__init__()
        self.gate = anyio.Event()

    async def on_message(self, peer, message):
        await self.gate.wait()
        await super().on_message(peer, message)


@dataclass
class Node:
    network: Network
    handler: Recorder
    refused: list
    port: int

    def status(self, name):
        return next(p for p in self.network.peers() if p.name == name)

    def connected(self, name):
        return self.status(name).connected


@asynccontextmanager
async def running(settings, handler=None):
    """A network that listens, stopped at the end."""
    handler = handler or Recorder()
    refused = []
    network = Network(settings, handler, on_refused=refused.append)
    async with anyio.create_task_group() as tasks:
        port = await tasks.start(network.run)
        yield Node(network, handler, refused, port)
        tasks.cancel_scope.cancel()


@asynccontextmanager
async def pair(pki, *, second=None, first=None, handlers=(None, None)):
    """v1, which dials, and v2; `first` and `second` change their settings."""
    two = settings(pki, "v2", peer("v1"), **(second or {}))
    async with running(two, handlers[1]) as v2:
        one = settings(pki, "v1", peer("v2", v2.port), **(first or {}))
        async with running(one, handlers[0]) as v1:
            yield v1, v2


async def until(condition, seconds=5.0):
    """Wait until `condition()` holds; fails after `seconds`."""
    with within(seconds):
        while not condition():  # noqa: ASYNC110  # the conditions are anything at all
            await anyio.sleep(0.005)


@contextmanager
def within(seconds):
    with anyio.fail_after(seconds):
        yield
