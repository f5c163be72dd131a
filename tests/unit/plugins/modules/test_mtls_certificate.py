# Copyright: (c) 2026, Holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""mtls_certificate: only what proves good is installed, as one, and never half."""

from __future__ import annotations

import datetime
import json
import os
import stat
import subprocess
from pathlib import Path
from typing import Any, Callable

import pytest
from ansible_collections.holdfast.chain.plugins.module_utils.identity import read_identity
from ansible_collections.holdfast.chain.plugins.module_utils.x509 import (
    load_certificate,
    load_private_key,
    now,
    to_pem,
)
from ansible_collections.holdfast.chain.plugins.module_utils.x509_ca import key_usage
from cryptography import x509
from cryptography.hazmat.primitives import hashes

DAY = datetime.timedelta(days=1)
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")


def _issue(host: Any) -> str:
    certificate: str = host.sign(host.request()["request"])["certificates"]["v1"]["certificate"]
    return certificate


def test_check_apply_apply_check(host: Any, tmp_path: Path, snapshot: Callable[..., Any]) -> None:
    certificate = _issue(host)
    before = snapshot(tmp_path)
    checked = host.install(certificate, check=True)
    assert snapshot(tmp_path) == before
    applied = host.install(certificate)
    assert applied["changed"]
    assert checked["changed"]
    assert checked["changes"] == applied["changes"]
    assert applied["current"]["sha256"] in str(
        load_certificate(certificate, "x").fingerprint(hashes.SHA256()).hex()
    )
    made = snapshot(tmp_path)
    for check in (False, True):
        assert not host.install(certificate, check=check)["changed"]
    assert snapshot(tmp_path) == made
    assert "PRIVATE" not in applied.text


def test_what_is_installed(host: Any) -> None:
    certificate = host.renew()
    current = host.directory / "current"
    serial = f"{load_certificate(certificate, 'x').serial_number:x}"
    assert os.readlink(str(current)) == f"generations/{serial}"
    assert not (host.directory / "pending").exists()
    assert (current / "certificate.pem").read_text() == certificate
    chain = certificate + to_pem(host.pki.intermediate)
    assert (current / "chain.pem").read_text() == chain
    assert (current / "ca.pem").read_text() == to_pem(host.pki.root)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in current.iterdir()}
    assert modes == {
        "key.pem": 0o600,
        "certificate.pem": 0o644,
        "chain.pem": 0o644,
        "ca.pem": 0o644,
        "manifest": 0o644,
    }
    assert "PRIVATE" not in (current / "manifest").read_text()


def test_openssl_accepts_what_is_installed(host: Any) -> None:
    host.renew()
    command = ["openssl", "verify", "-x509_strict", "-purpose", "sslserver"]
    command += ["-CAfile", "ca.pem", "-untrusted", "chain.pem", "certificate.pem"]
    done = subprocess.run(
        command, cwd=host.directory / "current", capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@needs_root
def test_key_belongs_to_the_service(host: Any) -> None:
    host.install(_issue(host), owner="nobody", group="daemon")
    key = host.directory / "current" / "key.pem"
    assert (key.owner(), key.group()) == ("nobody", "daemon")
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert (key.parent / "chain.pem").owner() == "root"


def test_two_generations_are_kept_and_the_earlier_one_can_come_back(host: Any) -> None:
    first = host.renew()
    second = host.renew(force=True)
    third = host.renew(force=True)
    kept = {path.name for path in (host.directory / "generations").iterdir()}
    serials = [f"{load_certificate(one, 'x').serial_number:x}" for one in (first, second, third)]
    assert kept == set(serials[1:])
    back = host.install(second)
    assert back["changed"]
    assert back["current"]["serial"] == serials[1]
    assert not host.install(second)["changed"]
    gone = host.install(first)
    assert gone.failed
    assert gone["problems"][0]["reason"] == "key_missing"


def test_a_new_chain_for_the_same_certificate_is_a_new_generation(host: Any) -> None:
    """The files of a generation are never rewritten under a reader."""
    certificate = host.renew()
    again = host.pki.leaf(
        host.pki.intermediate.public_key(),
        names=None,
        common_name="Demo Issuing CA",
        basic=x509.BasicConstraints(True, 0),
        usage=key_usage(key_cert_sign=True, crl_sign=True),
        extended=(),
        issuer=host.pki.root,
        issuer_key=host.pki.root_key,
        start=now() - DAY,
        end=now() + 100 * DAY,
    )
    result = host.install(certificate, chain=to_pem(again))
    assert result["changed"], result.text
    assert result["current"]["path"].endswith("-2")
    assert not host.install(certificate, chain=to_pem(again))["changed"]


def test_leaf_and_root_in_the_chain_are_left_out(host: Any) -> None:
    certificate = host.renew()
    chain = certificate + to_pem(host.pki.intermediate) + to_pem(host.pki.root)
    assert not host.install(certificate, chain=chain)["changed"]


def test_a_damaged_generation_is_replaced_by_the_same_certificate(host: Any) -> None:
    certificate = host.renew()
    (host.directory / "current" / "chain.pem").write_text("damaged")
    assert host.request()["reasons"] == ["missing"]
    result = host.install(certificate)
    assert result["changed"], result.text
    assert not host.install(certificate)["changed"]
    assert host.request()["reasons"] == []
    assert len(list((host.directory / "generations").iterdir())) == 1


def test_a_stolen_certificate_is_useless_elsewhere(host: Any) -> None:
    """Key, certificate and chain of another host fit together, but not to this one."""
    certificate = _issue(host)
    (host.directory / "pending").rename(host.directory / "gone")
    result = host.install(certificate)
    assert [problem["reason"] for problem in result["problems"]] == ["key_missing"]


def test_narrow_usage_can_be_demanded(host: Any) -> None:
    request = host.request()["request"]
    entry = {"name": "v1", "request": request, "usage": ["client"], **host.names}
    signed = host.sign(request, requests=[entry])["certificates"]["v1"]["certificate"]
    assert host.install(signed).failed
    assert host.install(signed, usage=["client"])["changed"]


def test_leftovers_of_interrupted_runs_are_removed(host: Any) -> None:
    """Half a generation, temporary files and a pending key that has its certificate already."""
    certificate = _issue(host)
    pending = (host.directory / "pending" / "key.pem").read_bytes()
    request = (host.directory / "pending" / "request.pem").read_bytes()
    host.install(certificate)
    half = host.directory / "generations" / "abc"
    half.mkdir()
    (half / "key.pem").write_text("half")
    (host.directory / ".holdfast-new-1-current").symlink_to("generations/abc")
    (host.directory / "current" / ".holdfast-old-1-ca.pem").touch()
    (host.directory / "pending").mkdir(mode=0o700)
    (host.directory / "pending" / "key.pem").write_bytes(pending)
    (host.directory / "pending" / "key.pem").chmod(0o600)
    (host.directory / "pending" / "request.pem").write_bytes(request)
    checked = host.request(check=True)
    result = host.request()
    assert len(result["changes"]) == 4
    assert result["changes"] == checked["changes"]
    assert not (host.directory / "pending").exists()
    assert sorted(path.name for path in host.directory.iterdir()) == ["current", "generations"]
    assert read_identity(host.directory).debris == ()
    assert not host.request()["changed"]


def test_manifest_counts_generations(host: Any) -> None:
    host.renew()
    host.renew(force=True)
    manifest = json.loads((host.directory / "current" / "manifest").read_text())
    assert manifest["sequence"] == 2
    assert set(manifest["sha256"]) == {"certificate.pem", "chain.pem", "ca.pem"}
    load_private_key((host.directory / "current" / "key.pem").read_bytes())
