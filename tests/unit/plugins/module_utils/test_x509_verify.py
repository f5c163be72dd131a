# Copyright: (c) 2026, Holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Subtrees of name constraints, against the rules of RFC 5280 and against OpenSSL."""

from __future__ import annotations

import ipaddress
import subprocess
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.holdfast.chain.plugins.module_utils.names import Names
from ansible_collections.holdfast.chain.plugins.module_utils.x509 import (
    fingerprint,
    make_key,
    names_of,
    now,
    to_pem,
)
from ansible_collections.holdfast.chain.plugins.module_utils.x509_ca import key_usage
from ansible_collections.holdfast.chain.plugins.module_utils.x509_verify import (
    CertPath,
    is_within,
    verify,
)
from cryptography import x509
from cryptography.x509.oid import NameOID


def _dns(name: str) -> Any:
    return x509.DNSName(name)


def _uri(name: str) -> Any:
    return x509.UniformResourceIdentifier(name)


def _ip(text: str) -> Any:
    value = ipaddress.ip_network(text) if "/" in text else ipaddress.ip_address(text)
    return x509.IPAddress(value)


def _cn(*names: str) -> Any:
    attributes = [x509.NameAttribute(NameOID.COMMON_NAME, name) for name in names]
    return x509.DirectoryName(x509.Name(attributes))


_CASES = [
    (_dns("demo.example"), _dns("demo.example"), True),
    (_dns("a.b.demo.example"), _dns("demo.example"), True),
    (_dns("baddemo.example"), _dns("demo.example"), False),
    (_dns("demo.example"), _dns("a.demo.example"), False),
    (_dns("DEMO.example"), _dns("demo.EXAMPLE"), True),
    (_uri("spiffe://demo.example/a"), _uri("demo.example"), True),
    (_uri("spiffe://a.demo.example/a"), _uri("demo.example"), False),
    (_uri("spiffe://a.demo.example/a"), _uri(".demo.example"), True),
    (_uri("spiffe://demo.example/a"), _uri(".demo.example"), False),
    (_uri("spiffe://evil.example/demo.example"), _uri("demo.example"), False),
    (_uri("spiffe://demo.example.evil.example/a"), _uri("demo.example"), False),
    (_ip("192.0.2.7"), _ip("192.0.2.0/24"), True),
    (_ip("192.0.3.7"), _ip("192.0.2.0/24"), False),
    (_ip("2001:db8::1"), _ip("192.0.2.0/24"), False),
    (_ip("2001:db8::1"), _ip("2001:db8::/32"), True),
]


@pytest.mark.parametrize(("name", "base", "within"), _CASES)
def test_subtrees(name: Any, base: Any, within: bool) -> None:
    assert is_within(name, base) is within


def test_directory_names_compare_from_the_front() -> None:
    assert is_within(_cn("a", "b"), _cn("a"))
    assert not is_within(_cn("b", "a"), _cn("a"))


@pytest.mark.parametrize("excluded", [False, True])
@pytest.mark.parametrize(("name", "base", "within"), _CASES)
def test_verdicts_agree_with_openssl(
    pki: Any, tmp_path: Path, *, name: Any, base: Any, within: bool, excluded: bool
) -> None:
    """An intermediate with this one subtree, permitted or excluded, over a leaf with this name."""
    subtrees = [None, [base]] if excluded else [[base], None]
    key, issuer = pki.authority(extra=((x509.NameConstraints(*subtrees), True),))
    leaf_key = make_key("p384")
    # The root's own constraint only knows the trust domain of the tests.
    leaf = pki.leaf(leaf_key.public_key(), names=[name], issuer=issuer, issuer_key=key)
    path = CertPath(leaf, [issuer], pki.root)
    problems = verify(path, fingerprint(pki.root), names_of(leaf), ("server", "client"), now())
    reasons = {problem.reason for problem in problems}
    for file, certificate in (("ca", pki.root), ("sub", issuer), ("leaf", leaf)):
        (tmp_path / f"{file}.pem").write_text(to_pem(certificate))
    done = subprocess.run(
        ["openssl", "verify", "-x509_strict", "-CAfile", "ca.pem", "-untrusted", "sub.pem",
         "leaf.pem"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    outside_of_root = isinstance(name, x509.UniformResourceIdentifier) and (
        not name.value.startswith("spiffe://demo.example/")
    )
    allowed = within is not excluded and not outside_of_root
    assert reasons == (set() if allowed else {"name_constraints"})
    assert (done.returncode == 0) is allowed, done.stderr


def test_names_of_a_stranger_kind_make_an_identity_differ(pki: Any) -> None:
    names = [_dns("v1.demo.example"), x509.RegisteredID(x509.ObjectIdentifier("1.2.3.4"))]
    leaf = pki.leaf(
        make_key("p384").public_key(), names=names, usage=key_usage(digital_signature=True)
    )
    path = CertPath(leaf, [pki.intermediate], pki.root)
    problems = verify(
        path,
        fingerprint(pki.root),
        Names(dns=("v1.demo.example",)),
        ("server", "client"),
        now(),
    )
    assert [problem.reason for problem in problems] == ["names_differ"]
