# Copyright: (c) 2026, Holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""mtls_sign: all or none, nothing beyond what the operator allows, everything on record."""

from __future__ import annotations

import datetime
import json
import subprocess
import types
from pathlib import Path
from typing import Any, Callable

import pytest
from ansible_collections.holdfast.chain.plugins.module_utils import x509_issue, x509_log
from ansible_collections.holdfast.chain.plugins.module_utils.names import Names
from ansible_collections.holdfast.chain.plugins.module_utils.x509 import (
    alternative_names,
    extension,
    load_certificate,
    make_key,
    make_request,
    names_of,
    not_after,
    not_before,
    now,
    signing_hash,
    to_pem,
)
from ansible_collections.holdfast.chain.plugins.module_utils.x509_ca import key_usage
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

PASSPHRASE = "correct horse battery staple"


def _spiffe(name: str, trust_domain: str = "demo.example") -> str:
    return f"spiffe://{trust_domain}/chain/demo/node/{name}"


def _entry(name: str, key: Any = None, **changed: Any) -> dict[str, Any]:
    """An entry whose request asks for just what the entry allows."""
    allowed = {
        "dns": [f"{name}.demo.example"],
        "ip": ["192.0.2.7"],
        "spiffe_id": _spiffe(name),
    }
    names = Names.wanted(**allowed)
    request = make_request(key or make_key("p384"), name, names)
    return {"name": name, "request": request, **allowed, **changed}


def _custom(key: Any, *extensions: Any) -> str:
    """A request with these extensions, whatever they are."""
    builder = x509.CertificateSigningRequestBuilder().subject_name(
        x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "v1")])
    )
    for value in extensions:
        builder = builder.add_extension(value, critical=False)
    return to_pem(builder.sign(key, signing_hash(key)))


@pytest.fixture
def ca(tmp_path: Path, pki: Any) -> Path:
    """The directory of a CA."""
    pki.install(tmp_path / "ca")
    return tmp_path / "ca"


@pytest.fixture
def sign(ca: Path, run_module: Callable[..., Any]) -> Callable[..., Any]:
    """Run mtls_sign on entries."""

    def run(*entries: dict[str, Any], check: bool = False, **changed: Any) -> Any:
        arguments = {"directory": str(ca), "passphrase": PASSPHRASE, "requests": list(entries)}
        return run_module("mtls_sign", {**arguments, **changed}, check=check)

    return run


def test_signs_a_fleet_in_one_call_and_records_it(
    sign: Callable[..., Any], ca: Path, pki: Any
) -> None:
    fleet = [_entry(f"v{number}") for number in range(1, 6)]
    result = sign(*fleet)
    assert result["changed"]
    assert set(result["certificates"]) == {entry["name"] for entry in fleet}
    assert result["root_certificate"] == to_pem(pki.root)
    lines = [json.loads(line) for line in (ca / "issued.jsonl").read_text().splitlines()]
    assert len(lines) == 5
    for entry, line in zip(fleet, lines):
        issued = result["certificates"][entry["name"]]
        assert issued["chain"] == to_pem(pki.intermediate)
        assert line["serial"] == issued["serial"]
        assert line["names"] == names_of(load_certificate(issued["certificate"], "x")).listed()
    assert len({line["serial"] for line in lines}) == 5
    assert (ca / "issued.jsonl").stat().st_mode & 0o777 == 0o600


def test_certificate_has_the_profile(sign: Callable[..., Any], pki: Any) -> None:
    issued = sign(_entry("v1"), validity_hours=24)["certificates"]["v1"]
    leaf = load_certificate(issued["certificate"], "leaf")
    basic = leaf.extensions.get_extension_for_class(x509.BasicConstraints)
    assert basic.critical
    assert not basic.value.ca
    usage = leaf.extensions.get_extension_for_class(x509.KeyUsage)
    assert usage.critical
    assert usage.value == key_usage(digital_signature=True)
    assert set(extension(leaf, x509.ExtendedKeyUsage)) == {
        ExtendedKeyUsageOID.SERVER_AUTH,
        ExtendedKeyUsageOID.CLIENT_AUTH,
    }
    assert names_of(leaf) == Names(("v1.demo.example",), ("192.0.2.7",), (_spiffe("v1"),))
    assert 2**100 < leaf.serial_number < 2**159
    backdated = now() - not_before(leaf)
    assert datetime.timedelta(minutes=4) < backdated < datetime.timedelta(minutes=7)
    lifetime = not_after(leaf) - now()
    assert datetime.timedelta(hours=23) < lifetime <= datetime.timedelta(hours=24)
    held = extension(pki.intermediate, x509.SubjectKeyIdentifier).digest
    assert extension(leaf, x509.AuthorityKeyIdentifier).key_identifier == held


def test_check_mode_judges_and_touches_nothing(
    sign: Callable[..., Any], ca: Path, snapshot: Callable[..., Any]
) -> None:
    before = snapshot(ca)
    entry = _entry("v1")
    checked = sign(entry, check=True)
    assert checked["changed"]
    assert checked["certificates"] == {}
    assert sign({**entry, "dns": []}, check=True).failed
    assert snapshot(ca) == before
    assert sign(entry)["changes"] == checked["changes"]


def test_no_requests_no_change(
    sign: Callable[..., Any], ca: Path, snapshot: Callable[..., Any], pki: Any
) -> None:
    before = snapshot(ca)
    result = sign()
    assert not result["changed"]
    assert result["certificates"] == {}
    assert result["root_certificate"] == to_pem(pki.root)
    assert snapshot(ca) == before


def test_without_a_ca(run_module: Callable[..., Any], tmp_path: Path) -> None:
    """Nothing to sign needs no CA (check mode of a first run); something to sign does."""
    arguments = {"directory": str(tmp_path / "none"), "passphrase": PASSPHRASE, "requests": []}
    result = run_module("mtls_sign", arguments, check=True)
    assert not result.failed
    assert not result["changed"]
    result = run_module("mtls_sign", {**arguments, "requests": [_entry("v1")]})
    assert result.failed
    assert "run mtls_ca first" in result["msg"]
    assert list(tmp_path.iterdir()) == []


def _weak_rsa() -> dict[str, Any]:
    return _entry("v1", rsa.generate_private_key(public_exponent=65537, key_size=2048))


def _weak_curve() -> dict[str, Any]:
    return _entry("v1", ec.generate_private_key(ec.SECP224R1()))


def _asks_for_more() -> dict[str, Any]:
    return {**_entry("v1"), "dns": ["else.demo.example"]}


def _asks_for_other_id() -> dict[str, Any]:
    return {**_entry("v1"), "spiffe_id": _spiffe("v2")}


def _asks_for_no_id() -> dict[str, Any]:
    request = make_request(make_key("p384"), "v1", Names(dns=("v1.demo.example",)))
    return {**_entry("v1"), "request": request}


def _asks_for_nothing() -> dict[str, Any]:
    return {**_entry("v1"), "request": _custom(make_key("p384")), "spiffe_id": None}


def _other_trust_domain() -> dict[str, Any]:
    spiffe_id = _spiffe("v1", "evil.example")
    request = make_request(make_key("p384"), "v1", Names(uri=(spiffe_id,)))
    return {"name": "v1", "request": request, "spiffe_id": spiffe_id}


def _asks_with(*values: Any) -> dict[str, Any]:
    entry = _entry("v1")
    names = Names.wanted(entry["dns"], entry["ip"], entry["spiffe_id"])
    return {**entry, "request": _custom(make_key("p384"), alternative_names(names), *values)}


def _tampered() -> dict[str, Any]:
    """The public key replaced by another one: what a man in the middle would do."""
    key, other = make_key("ed25519"), make_key("ed25519")
    entry = _entry("v1", key)
    request = x509.load_pem_x509_csr(entry["request"].encode())
    raw = [one.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw) for one in (key, other)]
    der = request.public_bytes(Encoding.DER).replace(raw[0], raw[1])
    return {**entry, "request": to_pem(x509.load_der_x509_csr(der))}


@pytest.mark.parametrize(
    ("make", "reasons"),
    [
        (_weak_rsa, ["weak_key"]),
        (_weak_curve, ["weak_key"]),
        (_asks_for_more, ["names_not_allowed"]),
        (_asks_for_other_id, ["names_not_allowed", "names_missing"]),
        (_asks_for_no_id, ["names_missing"]),
        (_asks_for_nothing, ["names_missing"]),
        (_other_trust_domain, ["name_constraints"]),
        (_tampered, ["bad_signature"]),
        (lambda: _asks_with(x509.BasicConstraints(True, None)), ["extension_not_allowed"]),
        (lambda: _asks_with(key_usage(key_cert_sign=True)), ["extension_not_allowed"]),
        (
            lambda: _asks_with(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING])),
            ["extension_not_allowed"],
        ),
        (lambda: _asks_with(x509.OCSPNoCheck()), ["extension_not_allowed"]),
        (lambda: {**_entry("v1"), "request": "no PEM"}, ["unreadable"]),
        (lambda: {**_entry("v1"), "request": "x" * 70000}, ["unreadable"]),
    ],
)
def test_one_bad_request_and_nothing_is_signed(
    sign: Callable[..., Any],
    ca: Path,
    snapshot: Callable[..., Any],
    make: Callable[[], dict[str, Any]],
    reasons: list[str],
) -> None:
    before = snapshot(ca)
    result = sign(_entry("v2"), make())
    assert result.failed
    assert [problem["reason"] for problem in result["problems"]] == reasons
    assert "'v1'" in result["msg"]
    assert snapshot(ca) == before


def test_repeating_what_an_identity_gets_is_fine(sign: Callable[..., Any]) -> None:
    entry = _asks_with(
        x509.BasicConstraints(False, None),
        key_usage(digital_signature=True),
        x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]),
    )
    assert not sign(entry).failed


def test_asking_for_less_gives_less(sign: Callable[..., Any]) -> None:
    """Allowed is the upper bound, except for the SPIFFE id, which must be asked for."""
    request = make_request(make_key("p384"), "anything", Names(uri=(_spiffe("v1"),)))
    issued = sign({**_entry("v1"), "request": request})["certificates"]["v1"]
    leaf = load_certificate(issued["certificate"], "leaf")
    assert names_of(leaf) == Names(uri=(_spiffe("v1"),))
    assert leaf.subject.rfc4514_string() == "CN=v1"


def test_usage_can_be_narrowed(sign: Callable[..., Any]) -> None:
    issued = sign({**_entry("v1"), "usage": ["client"]})["certificates"]["v1"]
    leaf = load_certificate(issued["certificate"], "leaf")
    assert list(extension(leaf, x509.ExtendedKeyUsage)) == [ExtendedKeyUsageOID.CLIENT_AUTH]


@pytest.mark.parametrize("what", ["name", "key"])
def test_two_hosts_with_one_name_or_key_are_refused(sign: Callable[..., Any], what: str) -> None:
    key = make_key("p384")
    second = _entry("v1") if what == "name" else _entry("v2", key)
    result = sign(_entry("v1", key), second)
    assert result.failed
    assert [problem["reason"] for problem in result["problems"]] == ["duplicate"]
    assert f"the same {what}" in result["msg"]


def test_unfit_options_are_refused(sign: Callable[..., Any]) -> None:
    assert "validity_hours: 0" in sign(validity_hours=0)["msg"]
    assert "requests: 'v1': dns: 'a_b'" in sign({**_entry("v1"), "dns": ["a_b"]})["msg"]
    wrong = sign(_entry("v1"), passphrase="tragic mule capacitor")
    assert wrong["problems"][0]["reason"] == "wrong_passphrase"
    assert "tragic mule" not in wrong.text


def test_never_outlives_the_issuer(sign: Callable[..., Any], pki: Any) -> None:
    issued = sign(_entry("v1"), validity_hours=24 * 3650)["certificates"]["v1"]
    leaf = load_certificate(issued["certificate"], "leaf")
    assert not_after(leaf) == not_after(pki.intermediate)


def test_a_new_ca_can_sign_at_once(run_module: Callable[..., Any], tmp_path: Path) -> None:
    """Backdating stops at the start of the issuer."""
    directory = str(tmp_path / "ca")
    made = run_module(
        "mtls_ca",
        {
            "directory": directory,
            "common_name": "New",
            "trust_domain": "demo.example",
            "passphrase": PASSPHRASE,
        },
    )
    result = run_module(
        "mtls_sign",
        {"directory": directory, "passphrase": PASSPHRASE, "requests": [_entry("v1")]},
    )
    assert not result.failed, result.text
    leaf = load_certificate(result["certificates"]["v1"]["certificate"], "leaf")
    issuer = load_certificate(made["intermediate_certificate"], "issuer")
    assert not_before(leaf) >= not_before(issuer)


@pytest.mark.parametrize("days", [-1, 1826])
def test_a_ca_outside_of_its_validity_signs_nothing(pki: Any, days: int) -> None:
    authority = types.SimpleNamespace(intermediate=pki.intermediate)
    moment = not_before(pki.intermediate) + datetime.timedelta(days=days)
    with pytest.raises(x509_issue.RefusedError, match="check the clock"):
        x509_issue.validity(authority, 24, moment)


def test_record_survives_a_torn_line_and_is_only_appended_to(
    sign: Callable[..., Any], ca: Path
) -> None:
    log = ca / "issued.jsonl"
    sign(_entry("v1"))
    with log.open("ab") as stream:
        stream.write(b'{"name": "tor')
    before = log.read_bytes()
    sign(_entry("v2"))
    after = log.read_bytes()
    assert after.startswith(before + b"\n")
    assert json.loads(after.splitlines()[-1])["name"] == "v2"


def test_record_is_cut_back_when_it_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "issued.jsonl"
    x509_log.append_lines(log, b"one\n")

    def full(_handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(x509_log.os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        x509_log.append_lines(log, b"two\n")
    assert log.read_bytes() == b"one\n"


@pytest.mark.parametrize("key_type", ["p384", "ed25519", "rsa3072"])
def test_openssl_accepts_leaves_for_both_ends(
    run_module: Callable[..., Any], tmp_path: Path, key_type: str
) -> None:
    """A CA and leaf of each kind of key, with DNS, IP and URI names, under x509_strict."""
    directory = tmp_path / "ca"
    run_module(
        "mtls_ca",
        {
            "directory": str(directory),
            "common_name": "Demo",
            "trust_domain": "demo.example",
            "passphrase": PASSPHRASE,
            "key_type": key_type,
        },
    )
    entry = _entry("v1", make_key(key_type))
    result = run_module(
        "mtls_sign",
        {"directory": str(directory), "passphrase": PASSPHRASE, "requests": [entry]},
    )
    leaf = tmp_path / "leaf.pem"
    leaf.write_text(result["certificates"]["v1"]["certificate"])
    for purpose in ("sslserver", "sslclient"):
        command = ["openssl", "verify", "-x509_strict", "-purpose", purpose]
        command += ["-verify_hostname", "v1.demo.example", "-verify_ip", "192.0.2.7"]
        command += ["-CAfile", "root.pem", "-untrusted", "intermediate.pem", str(leaf)]
        done = subprocess.run(
            command, cwd=directory / "authority", capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
