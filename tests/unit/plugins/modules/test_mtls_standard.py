# Copyright: (c) 2026, Holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""RFC 5280 by two others, pkilint and OpenSSL, for certificates and lists of each kind."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any, Callable

import pytest
from ansible_collections.holdfast.chain.plugins.module_utils.names import Names
from ansible_collections.holdfast.chain.plugins.module_utils.x509 import make_key, make_request

PASSPHRASE = "correct horse battery staple"
KEY_TYPES = ("p384", "ed25519", "rsa3072")
NAMES: dict[str, Any] = {
    "dns": ["v1.demo.example"],
    "ip": ["192.0.2.7", "2001:db8::7"],
    "spiffe_id": "spiffe://demo.example/chain/demo/node/v1",
}
_FOREIGN_SCHEME = re.compile(r'Invalid URI syntax: "spiffe(://[^"]+)"')


@pytest.fixture(params=KEY_TYPES)
def made(request: Any, tmp_path: Path, run_module: Callable[..., Any]) -> Path:
    """Files of a CA in a rollover, of identities it signed before and after, and of its lists."""
    options = {"directory": str(tmp_path / "ca"), "passphrase": PASSPHRASE}
    ca = {**options, "common_name": "Demo", "trust_domain": "demo.example"}
    ca["key_type"] = request.param
    run_module("mtls_ca", ca)

    def sign(key_type: str, usage: list[str]) -> str:
        csr = make_request(make_key(key_type), "v1", Names.wanted(**NAMES))
        entry = {"name": "v1", "request": csr, "usage": usage, **NAMES}
        result = run_module("mtls_sign", {**options, "requests": [entry]})
        certificate: str = result["certificates"]["v1"]["certificate"]
        return certificate

    for key_type in KEY_TYPES:
        (tmp_path / f"leaf-{key_type}.pem").write_text(sign(key_type, ["server", "client"]))
    (tmp_path / "leaf-client.pem").write_text(sign("p384", ["client"]))
    run_module("mtls_crl", options)
    (tmp_path / "crl-empty.pem").write_text((tmp_path / "ca/authority/crl.pem").read_text())
    run_module("mtls_crl", {**options, "revoke": [{"name": "v1", "reason": "superseded"}]})
    for state in ("trust_both", "reissue"):
        run_module("mtls_ca", {**ca, "state": state})
    (tmp_path / "leaf-successor.pem").write_text(sign("p384", ["server", "client"]))
    revoke = [{"name": "v1", "reason": reason} for reason in ("key_compromise", "unspecified")]
    run_module("mtls_crl", {**options, "revoke": revoke})
    return tmp_path


def _lint(program: str, *arguments: str) -> list[str]:
    """Findings of pkilint from NOTICE up, each as 'code (SEVERITY): text'."""
    command = [str(Path(sys.executable).with_name(program)), "lint", "-s", "NOTICE", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    findings = [line.strip() for line in done.stdout.splitlines() if line.startswith("    ")]
    assert done.returncode == len(findings), done.stdout + done.stderr
    return findings


def test_pkilint_finds_nothing_in_certificates(made: Path) -> None:
    """Of URIs it knows those of the web only; what it says of ours it must not say of https."""
    pytest.importorskip("pkilint", reason="not run: pkilint is not installed")
    from validators import url  # noqa: PLC0415 - what pkilint judges URIs with

    cas = sorted(made.glob("ca/*/*.pem"))
    files = [path for path in cas if path.name in ("root.pem", "intermediate.pem")]
    leaves = sorted(made.glob("leaf-*.pem"))
    assert (len(files), len(leaves)) == (4, 5)
    for path in [*files, *leaves]:
        findings = _lint("lint_pkix_cert", str(path))
        foreign = [_FOREIGN_SCHEME.search(finding) for finding in findings]
        assert all(foreign), findings
        assert len(foreign) == (path in leaves)
        assert all(url("https" + match.group(1)) is True for match in foreign if match)


def test_pkilint_finds_nothing_in_lists(made: Path) -> None:
    pytest.importorskip("pkilint", reason="not run: pkilint is not installed")
    lists = [*made.glob("ca/*/crl.pem"), made / "crl-empty.pem"]
    assert len(lists) == 3
    for path in lists:
        assert _lint("lint_crl", "-t", "CRL", "-p", "PKIX", str(path)) == []


def test_openssl_agrees(made: Path) -> None:
    """Strictly, with lists and without: good for both ends, and revoked where it is."""

    def verify(leaf: str, ca: str, *options: str) -> str:
        base = made / "ca" / ca
        command = ["openssl", "verify", "-x509_strict", "-CAfile", str(base / "root.pem")]
        command += ["-untrusted", str(base / "intermediate.pem"), *options, str(made / leaf)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        return "" if done.returncode == 0 else done.stdout + done.stderr

    names = ["-verify_hostname", "v1.demo.example", "-verify_ip", "2001:db8::7"]
    old = [f"leaf-{key_type}.pem" for key_type in KEY_TYPES]
    for leaf, ca in [*((leaf, "predecessor") for leaf in old), ("leaf-successor.pem", "authority")]:
        for purpose in ("sslserver", "sslclient"):
            assert verify(leaf, ca, "-purpose", purpose, *names) == ""
        crl = str(made / "ca" / ca / "crl.pem")
        assert "certificate revoked" in verify(leaf, ca, "-crl_check", "-CRLfile", crl)
    empty = str(made / "crl-empty.pem")
    assert verify(old[0], "predecessor", "-crl_check", "-CRLfile", empty) == ""
    assert "leaf-client" not in verify("leaf-client.pem", "predecessor", "-purpose", "sslclient")
    assert "purpose" in verify("leaf-client.pem", "predecessor", "-purpose", "sslserver")
    assert verify("leaf-successor.pem", "predecessor")  # by the other root: no
