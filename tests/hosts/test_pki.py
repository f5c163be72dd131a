# SPDX-License-Identifier: GPL-3.0-or-later
"""What the role pki leaves on a host; `host` comes from testinfra's --hosts.

Everything is asked of both identities of a host: that of the authority on the controller, and that
of the authority on the host `ca`.
"""

from __future__ import annotations

import base64
import datetime
import io
import ssl
import tarfile
from pathlib import Path
from typing import Any, Callable

import pytest
from cryptography import x509

Host = Any  # testinfra's Host has no types worth the name
Peer = Callable[[str], Host]
FOLDERS = ("/etc/prober/tls", "/etc/prober/tls-by-host")
AUTHORITY = "/var/lib/holdfast-ca/prober.example"
PARTS = ("current/key.pem", "current/chain.pem", "current/ca.pem", "crl.pem")


@pytest.fixture(params=FOLDERS)
def folder(request: pytest.FixtureRequest) -> str:
    """The folder of an identity."""
    return str(request.param)


@pytest.fixture
def name(host: Host) -> str:
    """The host's name in the inventory."""
    return str(host.check_output("hostname"))


def fetch(host: Host, folder: str, place: Path) -> Path:
    """A copy of an identity; that it can be had is root's doing."""
    packed = host.check_output(f"cd {folder} && tar -ch {' '.join(PARTS)} | base64")
    place.mkdir()
    with tarfile.open(fileobj=io.BytesIO(base64.b64decode(packed))) as archive:
        for part in PARTS:
            member = archive.extractfile(part)
            assert member is not None
            (place / Path(part).name).write_bytes(member.read())
    return place


def context(identity: Path, purpose: ssl.Purpose) -> ssl.SSLContext:
    """TLS 1.3 with this identity; the other side's certificate is demanded, and not revoked."""
    made = ssl.create_default_context(purpose, cafile=str(identity / "ca.pem"))
    made.minimum_version = ssl.TLSVersion.TLSv1_3
    made.verify_mode = ssl.CERT_REQUIRED
    made.load_verify_locations(cafile=str(identity / "crl.pem"))
    made.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF | ssl.VERIFY_X509_STRICT
    made.load_cert_chain(identity / "chain.pem", identity / "key.pem")
    return made


def shake_hands(client: ssl.SSLContext, server: ssl.SSLContext, name: str) -> None:
    """A handshake in memory; ssl.SSLError if either side refuses the other."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    sides = [
        client.wrap_bio(to_client, to_server, server_hostname=name),
        server.wrap_bio(to_server, to_client, server_side=True),
    ]
    while sides:
        for side in list(sides):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
            sides.remove(side)


@pytest.mark.parametrize("called", ["b", "b.prober.example"])
def test_hosts_trust_each_other(peer: Peer, folder: str, tmp_path: Path, called: str) -> None:
    """Either side shows its chain, and checks the other's up to the same root."""
    a, b = (fetch(peer(name), folder, tmp_path / name) for name in "ab")
    shake_hands(context(a, ssl.Purpose.SERVER_AUTH), context(b, ssl.Purpose.CLIENT_AUTH), called)


def test_host_does_not_pass_for_the_other(peer: Peer, folder: str, tmp_path: Path) -> None:
    """A certificate of the same authority, but of another name."""
    a, b = (fetch(peer(name), folder, tmp_path / name) for name in "ab")
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        shake_hands(context(a, ssl.Purpose.SERVER_AUTH), context(b, ssl.Purpose.CLIENT_AUTH), "a")


def test_the_authorities_are_two(peer: Peer, tmp_path: Path) -> None:
    """Neither takes what the other one signed."""
    a = fetch(peer("a"), FOLDERS[0], tmp_path / "a")
    b = fetch(peer("b"), FOLDERS[1], tmp_path / "b")
    with pytest.raises(ssl.SSLError):
        shake_hands(context(a, ssl.Purpose.SERVER_AUTH), context(b, ssl.Purpose.CLIENT_AUTH), "b")


def test_certificate_has_the_names_and_no_other(host: Host, folder: str, name: str) -> None:
    """DNS names and SPIFFE id."""
    chain = x509.load_pem_x509_certificates(host.file(f"{folder}/current/chain.pem").content)
    names = chain[0].extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == [name, f"{name}.prober.example"]
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    assert uris == [f"spiffe://prober.example/host/{name}"]
    assert len(list(names)) == 3


def test_same_root_and_different_keys(peer: Peer, folder: str, tmp_path: Path) -> None:
    """One authority, and a key for each that was made where it is."""
    a, b = (fetch(peer(name), folder, tmp_path / name) for name in "ab")
    files = [Path(part).name for part in PARTS]
    same = {file for file in files if (a / file).read_bytes() == (b / file).read_bytes()}
    assert same == {"ca.pem", "crl.pem"}


def test_key_is_its_owners_alone(host: Host, folder: str) -> None:
    """Not even the group reads it."""
    key = host.file(host.check_output(f"readlink -f {folder}/current/key.pem"))
    assert (key.user, key.group, key.mode) == ("nobody", "root", 0o600)


def test_a_fresh_list_that_everybody_reads(host: Host, folder: str) -> None:
    """Of the issuer in the chain, nobody on it, good for more than half of its time."""
    file = host.file(f"{folder}/crl.pem")
    assert (file.user, file.mode) == ("root", 0o644)
    crl = x509.load_pem_x509_crl(file.content)
    issuer = x509.load_pem_x509_certificates(host.file(f"{folder}/current/chain.pem").content)[1]
    assert crl.is_signature_valid(issuer.public_key())
    assert len(list(crl)) == 0
    left = crl.next_update_utc - datetime.datetime.now(datetime.timezone.utc)
    assert datetime.timedelta(days=15) < left <= datetime.timedelta(days=30)


def test_no_key_of_the_authority_is_on_the_host(host: Host) -> None:
    """It stays where it signs."""
    assert host.check_output("grep -rl 'PRIVATE KEY' /etc/prober")
    assert host.run("grep -r ENCRYPTED /etc/prober").rc == 1  # read, and nothing found
    assert not host.file(AUTHORITY).exists


def test_the_authority_on_a_host_is_roots_alone(peer: Peer) -> None:
    """And its keys are encrypted; there is no identity beside it that nobody asked for."""
    ca = peer("ca")
    assert not ca.file("/etc/prober").exists
    folder = ca.file(AUTHORITY)
    assert (folder.user, folder.mode) == ("root", 0o700)
    keys = ca.check_output(f"find {AUTHORITY} -name '*key*.pem'").split()
    assert len(keys) == 2
    for key in map(ca.file, keys):
        assert (key.user, key.mode) == ("root", 0o600)
        assert "BEGIN ENCRYPTED PRIVATE KEY" in key.content_string


def test_both_authorities_give_the_same(host: Host) -> None:
    """Files, modes and owners, and every field of the certificates that names no key or time."""

    def listing(folder: str) -> set[tuple[str, str, str]]:
        """Below it: serial numbers, which differ, left out."""
        lines = host.check_output(f"find {folder} -exec stat -c '%n %A %U:%G' {{}} +").splitlines()
        found = set()
        for line in lines:
            path, mode, owner = line.split()
            parts = Path(path).relative_to(folder).parts
            serial = len(parts) > 1 and parts[0] == "generations"
            found.add(("/".join(["", *parts[2:]] if serial else parts), mode, owner))
        return found

    def profile(folder: str) -> list[Any]:
        chain = host.file(f"{folder}/current/chain.pem").content
        roots = host.file(f"{folder}/current/ca.pem").content
        return [
            (
                one.subject,
                one.issuer,
                one.not_valid_after_utc - one.not_valid_before_utc,
                one.signature_algorithm_oid,
                [
                    (extension.critical, extension.value)
                    for extension in one.extensions
                    if "KeyIdentifier" not in type(extension.value).__name__
                ],
            )
            for pem in (chain, roots)
            for one in x509.load_pem_x509_certificates(pem)
        ]

    assert listing(FOLDERS[0]) == listing(FOLDERS[1])
    assert len(profile(FOLDERS[0])) == 3
    assert profile(FOLDERS[0]) == profile(FOLDERS[1])
