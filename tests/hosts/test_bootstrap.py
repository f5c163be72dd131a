# SPDX-License-Identifier: GPL-3.0-or-later
"""A host that had no Python; `host` comes from testinfra's --hosts."""

from __future__ import annotations

import hashlib
import json
import ssl
import subprocess
import threading
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Iterator

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from lab.shell import ROOT, STATE, environment

Host = Any  # testinfra's Host has no types worth the name
OURS = "/opt/holdfast-python"
HERE = "127.0.0.1"

# Each run of the playbook takes some ten seconds.
pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def packed(host: Host) -> Path:
    """Where the archives are that the host packed before it lost its Python."""
    return STATE / host.backend.name.removeprefix("holdfast-").removesuffix("-host")


def digest(path: Path) -> str:
    """The SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def run(packed: Path, *words: str, **values: str) -> subprocess.CompletedProcess[str]:
    """Run the playbook as a user does, whose cache is the scenario's."""
    trusted = values.pop("trusted", "")
    values = {"bootstrap_hosts": "host", "lab_name": packed.name, **values}
    command = ["ansible-playbook", "holdfast.chain.bootstrap", *words, "-i", "host,"]
    command += ["-i", str(ROOT / "molecule/shared/inventory.yml"), "-e", json.dumps(values)]
    env = environment(XDG_CACHE_HOME=str(packed / "cache"))
    if trusted:
        env["SSL_CERT_FILE"] = trusted
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False, cwd=ROOT)


def bootstrap(packed: Path, *words: str, **values: str) -> str:
    """The output of a run that ends well."""
    done = run(packed, *words, **values)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def refused(packed: Path, *says: str, **values: str) -> None:
    """A run that fails, and says this."""
    done = run(packed, **values)
    said = " ".join((done.stdout + done.stderr).split())
    assert done.returncode == 2, said
    assert [text for text in says if text not in said] == [], said


@contextmanager
def served(folder: Path, context: ssl.SSLContext | None = None) -> Iterator[tuple[str, list[str]]]:
    """A web server for the files of a folder: its address, and what it was asked for."""
    asked: list[str] = []

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, text: str, *values: object) -> None:
            asked.append(text % values)

    with ThreadingHTTPServer((HERE, 0), partial(Handler, directory=str(folder))) as server:
        if context:
            server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            scheme = "https" if context else "http"
            yield f"{scheme}://{HERE}:{server.server_address[1]}", asked
        finally:
            server.shutdown()
            thread.join()


def certificate(folder: Path) -> Path:
    """A certificate for this machine, with its key, signed by itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "archives")])
    now = datetime.now(timezone.utc)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address(HERE))]), False)
        .sign(key, hashes.SHA256())
    )
    path = folder / "server.pem"
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        + made.public_bytes(serialization.Encoding.PEM)
    )
    return path


def test_distribution_still_has_none(host: Host) -> None:
    """So that everything so far ran on the one that was brought."""
    assert host.run("command -v python3").rc != 0
    assert host.file(f"{OURS}/current/bin/python3").exists


def test_role_ran_on_it(host: Host) -> None:
    """Its outcome is in the kernel."""
    assert host.check_output("cat /proc/sys/net/core/somaxconn") == "65535"


def test_only_root_can_change_it(host: Host) -> None:
    """It runs modules as root."""
    assert not host.check_output(f"find {OURS} ! -user root -o -perm /022 ! -type l")


def test_nothing_is_left_of_what_was_refused(host: Host) -> None:
    """One interpreter and the link to it, though others were tried."""
    assert len(host.check_output(f"ls -A {OURS}").split()) == 2


def test_upgrade_and_removal(host: Host, packed: Path) -> None:
    """Another archive takes the place of the first; then all of it goes."""
    other = packed / "other.tar.gz"
    # a gzip file may have another one, here an empty one, behind it
    other.write_bytes(
        (packed / "good.tar.gz").read_bytes()
        + subprocess.check_output(["gzip", "-c"], stdin=subprocess.DEVNULL)
    )
    before = host.check_output(f"readlink {OURS}/current")
    wanted = {"bootstrap_python": str(other), "bootstrap_sha256": digest(other)}
    assert "changed=1 " in bootstrap(packed, "--check", **wanted)
    assert host.check_output(f"readlink {OURS}/current") == before
    assert "changed=1 " in bootstrap(packed, **wanted)
    assert host.check_output(f"readlink {OURS}/current") == f"{digest(other)}/python"
    assert sorted(host.check_output(f"ls {OURS}").split()) == sorted([digest(other), "current"])
    assert "changed=0 " in bootstrap(packed, **wanted)
    assert list((packed / "cache" / "holdfast").iterdir()) == []
    assert "changed=1 " in bootstrap(packed, bootstrap_state="absent")
    assert not host.file(OURS).exists
    assert "changed=0 " in bootstrap(packed, bootstrap_state="absent")


def test_archive_from_an_address(host: Host, packed: Path) -> None:
    """Fetched once, kept by its hash; another file than was wanted reaches no host."""
    good = packed / "good.tar.gz"
    with served(packed) as (address, asked):
        wanted = {"bootstrap_python": f"{address}/good.tar.gz"}
        other = {**wanted, "bootstrap_sha256": digest(packed / "bad.tar.gz")}
        refused(packed, f"bootstrap_python = {address}", "with bootstrap_sha256 = ", **other)
        assert not host.file(OURS).exists
        wanted["bootstrap_sha256"] = digest(good)
        asked.clear()
        for _time in range(2):
            assert "changed=1 " in bootstrap(packed, **wanted)
            assert len(asked) == 1
            assert host.check_output(f"readlink {OURS}/current") == f"{digest(good)}/python"
            host.check_output(f"rm -r {OURS}")


def test_archive_by_https(host: Host, packed: Path, tmp_path: Path) -> None:
    """From a server whose certificate the controller trusts, and from no other."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate(tmp_path))
    other = tmp_path / "other.tar.gz"
    other.write_bytes((packed / "good.tar.gz").read_bytes() + b"\0")  # not in the cache
    with served(tmp_path, context) as (address, asked):
        wanted = {"bootstrap_python": f"{address}/{other.name}", "bootstrap_sha256": digest(other)}
        refused(packed, f"bootstrap_python = {address}", "whose certificate it trusts", **wanted)
        assert asked == []
        assert not host.file(OURS).exists
        assert "changed=1 " in bootstrap(packed, **wanted, trusted=str(tmp_path / "server.pem"))
        assert len(asked) == 1
    host.check_output(f"rm -r {OURS}")


def test_host_that_cannot_unpack_it(host: Host, packed: Path) -> None:
    """Refused by its name before anything is carried; a wrong name changes no more."""
    wrong = packed / "wrong.tar.gz"
    wrong.write_bytes(b"\xfd7zXZ\0 and no more")
    wanted = {"bootstrap_python": str(wrong), "bootstrap_sha256": digest(wrong)}
    refused(packed, "bootstrap_python: needs xz, which this host has not", **wanted)
    wanted["bootstrap_python"] = str(wrong.rename(packed / "right.tar.xz"))
    refused(packed, "right.tar.xz: needs xz", "expected a tar.gz", **wanted)
    if host.run("command -v zstd").rc:
        wanted["bootstrap_python"] = "other.tar.zst"
        refused(packed, "other.tar.zst: needs zstd", "expected a tar.gz", **wanted)
    assert not host.file(OURS).exists


def test_archive_packed_with_zstd(host: Host, packed: Path) -> None:
    """In the other layout, with `install` in it, as full builds have."""
    full = packed / "full.tar.zst"
    if not full.exists():
        pytest.skip("not run: this host's package manager could not bring zstd")
    wanted = {"bootstrap_python": str(full), "bootstrap_sha256": digest(full)}
    assert "changed=1 " in bootstrap(packed, **wanted)
    assert host.check_output(f"readlink {OURS}/current") == f"{digest(full)}/python/install"
    host.check_output(f"rm -r {OURS}")
