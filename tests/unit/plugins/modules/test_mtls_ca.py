# Copyright: (c) 2026, Holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""mtls_ca: made once, never replaced, keys sealed."""

from __future__ import annotations

import shutil
import stat
import subprocess
from pathlib import Path
from typing import Any, Callable

import pytest
from ansible_collections.holdfast.chain.plugins.module_utils.x509 import (
    extension,
    load_certificate,
    not_after,
    not_before,
)
from ansible_collections.holdfast.chain.plugins.module_utils.x509_ca import BACKDATE
from cryptography import x509

PASSPHRASE = "correct horse battery staple"


@pytest.fixture
def arguments(tmp_path: Path) -> dict[str, Any]:
    """Options for a CA in a directory that does not exist yet."""
    return {
        "directory": str(tmp_path / "deep" / "ca"),
        "common_name": "Demo",
        "trust_domain": "demo.example",
        "passphrase": PASSPHRASE,
    }


def test_check_apply_apply_check(
    arguments: dict[str, Any],
    tmp_path: Path,
    run_module: Callable[..., Any],
    snapshot: Callable[..., Any],
) -> None:
    """Check mode plans what apply does and touches nothing; the second run plans nothing."""
    before = snapshot(tmp_path)
    checked = run_module("mtls_ca", arguments, check=True)
    assert snapshot(tmp_path) == before
    applied = run_module("mtls_ca", arguments)
    assert applied["changed"]
    assert checked["changes"] == applied["changes"]
    assert checked["diff"] == applied["diff"]
    made = snapshot(tmp_path)
    again = run_module("mtls_ca", arguments)
    assert not again["changed"]
    assert again["root_fingerprint"] == applied["root_fingerprint"]
    assert not run_module("mtls_ca", arguments, check=True)["changed"]
    assert snapshot(tmp_path) == made


@pytest.mark.parametrize("key_type", ["p384", "ed25519", "rsa3072"])
def test_certificates_have_the_profile(
    arguments: dict[str, Any], run_module: Callable[..., Any], key_type: str
) -> None:
    """CA bits, path lengths, usages, identifiers and name constraints as documented."""
    result = run_module("mtls_ca", {**arguments, "key_type": key_type})
    root = load_certificate(result["root_certificate"], "root")
    intermediate = load_certificate(result["intermediate_certificate"], "intermediate")
    for certificate, length, days in ((root, 1, 3650), (intermediate, 0, 1825)):
        basic = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
        assert basic.critical
        assert (basic.value.ca, basic.value.path_length) == (True, length)
        usage = certificate.extensions.get_extension_for_class(x509.KeyUsage)
        assert usage.critical
        assert usage.value.key_cert_sign
        assert usage.value.crl_sign
        assert not usage.value.digital_signature
        constraints = certificate.extensions.get_extension_for_class(x509.NameConstraints)
        assert constraints.critical
        assert [base.value for base in constraints.value.permitted_subtrees] == ["demo.example"]
        assert (not_after(certificate) - not_before(certificate) - BACKDATE).days == days
        assert 0 < certificate.serial_number < 2**159
        authority = extension(certificate, x509.AuthorityKeyIdentifier)
        assert authority.key_identifier == extension(root, x509.SubjectKeyIdentifier).digest
    assert root.serial_number != intermediate.serial_number
    assert intermediate.issuer == root.subject != intermediate.subject


def test_keys_are_sealed_and_nothing_secret_is_told(
    arguments: dict[str, Any], run_module: Callable[..., Any]
) -> None:
    result = run_module("mtls_ca", arguments)
    assert PASSPHRASE not in result.text
    assert "PRIVATE KEY" not in result.text
    directory = Path(arguments["directory"])
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert stat.S_IMODE((directory / "authority").stat().st_mode) == 0o700
    for name in ("root-key.pem", "intermediate-key.pem"):
        path = directory / "authority" / name
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert path.read_text().startswith("-----BEGIN ENCRYPTED PRIVATE KEY-----")


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("common_name", "Other"),
        ("trust_domain", "other.example"),
        ("key_type", "ed25519"),
        ("root_days", 3000),
        ("intermediate_days", 1000),
    ],
)
def test_other_parameters_are_refused(
    arguments: dict[str, Any],
    run_module: Callable[..., Any],
    snapshot: Callable[..., Any],
    option: str,
    value: Any,
) -> None:
    """Nothing is replaced; the message says which parameter differs, in which way."""
    run_module("mtls_ca", arguments)
    before = snapshot(Path(arguments["directory"]))
    for check in (True, False):
        result = run_module("mtls_ca", {**arguments, option: value}, check=check)
        assert result.failed
        assert [problem["reason"] for problem in result["problems"]] == ["ca_differs"]
        assert option in result["msg"]
        assert f"'{value}'" in result["msg"]
    assert snapshot(Path(arguments["directory"])) == before


@pytest.mark.parametrize(
    ("option", "value", "expected"),
    [
        ("passphrase", "short", "at least 12"),
        ("trust_domain", "demo", "at least one dot"),
        ("trust_domain", "Demo.Example", "lower case"),
        ("trust_domain", "192.0.2.1", "at least one dot"),
        ("common_name", "x" * 54, "characters"),
        ("root_days", 0, "expected 1 to"),
        ("intermediate_days", 4000, "outlive"),
        ("directory", "relative/ca", "absolute"),
    ],
)
def test_unfit_options_are_refused_by_name(
    arguments: dict[str, Any],
    tmp_path: Path,
    run_module: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    *,
    option: str,
    value: Any,
    expected: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run_module("mtls_ca", {**arguments, option: value})
    assert result.failed
    assert expected in result["msg"]
    if option != "directory":
        assert result["msg"].startswith(f"{option}: ")
        assert list(tmp_path.iterdir()) == []


def test_wrong_passphrase_is_refused_without_repeating_it(
    arguments: dict[str, Any], run_module: Callable[..., Any]
) -> None:
    run_module("mtls_ca", arguments)
    result = run_module("mtls_ca", {**arguments, "passphrase": "tragic mule capacitor"})
    assert result.failed
    assert result["problems"][0]["reason"] == "wrong_passphrase"
    assert "tragic mule" not in result.text


def test_root_key_may_be_taken_away(
    arguments: dict[str, Any], run_module: Callable[..., Any]
) -> None:
    """An offline root is the point of having one."""
    made = run_module("mtls_ca", arguments)
    assert made["root_key_present"]
    (Path(arguments["directory"]) / "authority" / "root-key.pem").unlink()
    result = run_module("mtls_ca", arguments)
    assert not result["changed"]
    assert not result["root_key_present"]
    assert result["root_fingerprint"] == made["root_fingerprint"]


@pytest.mark.parametrize("name", ["root.pem", "intermediate.pem", "intermediate-key.pem"])
def test_a_damaged_ca_is_never_made_anew(
    arguments: dict[str, Any],
    run_module: Callable[..., Any],
    snapshot: Callable[..., Any],
    name: str,
) -> None:
    run_module("mtls_ca", arguments)
    directory = Path(arguments["directory"])
    (directory / "authority" / name).unlink()
    before = snapshot(directory)
    result = run_module("mtls_ca", arguments)
    assert result.failed
    assert result["problems"][0]["reason"] == "ca_damaged"
    assert name in result["msg"]
    assert snapshot(directory) == before


def test_parts_of_two_cas_are_refused(
    arguments: dict[str, Any], run_module: Callable[..., Any], tmp_path: Path
) -> None:
    run_module("mtls_ca", arguments)
    other = {**arguments, "directory": str(tmp_path / "other")}
    run_module("mtls_ca", other)
    name = "authority/intermediate-key.pem"
    shutil.copy(tmp_path / "other" / name, Path(arguments["directory"]) / name)
    result = run_module("mtls_ca", arguments)
    assert result.failed
    assert "is not the key of the certificate" in result["msg"]


def test_modes_are_repaired(arguments: dict[str, Any], run_module: Callable[..., Any]) -> None:
    run_module("mtls_ca", arguments)
    directory = Path(arguments["directory"])
    key = directory / "authority" / "intermediate-key.pem"
    key.chmod(0o644)
    directory.chmod(0o755)
    checked = run_module("mtls_ca", arguments, check=True)
    assert stat.S_IMODE(key.stat().st_mode) == 0o644
    result = run_module("mtls_ca", arguments)
    assert result["changes"] == checked["changes"]
    assert {(change["target"], change["after"]) for change in result["changes"]} == {
        (str(key), "0600"),
        (str(directory), "0700"),
    }
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert not run_module("mtls_ca", arguments)["changed"]


def test_an_abandoned_attempt_is_cleared_away(
    arguments: dict[str, Any], run_module: Callable[..., Any]
) -> None:
    """What a crash leaves never was a CA: nothing could have been signed by it."""
    directory = Path(arguments["directory"])
    (directory / ".authority.new").mkdir(parents=True)
    (directory / ".authority.new" / "root-key.pem").write_text("half")
    result = run_module("mtls_ca", arguments)
    assert result["changed"]
    assert [path.name for path in directory.iterdir()] == ["authority"]


def test_openssl_accepts_the_intermediate(
    arguments: dict[str, Any], run_module: Callable[..., Any]
) -> None:
    run_module("mtls_ca", arguments)
    base = Path(arguments["directory"]) / "authority"
    command = ["openssl", "verify", "-x509_strict", "-CAfile", "root.pem", "intermediate.pem"]
    done = subprocess.run(command, cwd=base, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_none_is_made_beside_the_one_that_hosts_have(
    arguments: dict[str, Any], run_module: Callable[..., Any], tmp_path: Path
) -> None:
    """Another controller, or a lost folder: whose root, where it was looked for, and how."""
    theirs = "ab" * 32
    in_use = {"v1": [theirs], "v2": [theirs.upper()], "v5": []}
    for check in (True, False):
        refused = run_module("mtls_ca", {**arguments, "in_use": in_use}, check=check)
        assert [problem["reason"] for problem in refused["problems"]] == ["another_ca"]
        for said in (f"v1, v2: {theirs}", arguments["directory"], "there is none", "backup"):
            assert said in refused["msg"]
        assert "v5" not in refused["msg"]
    assert list(tmp_path.iterdir()) == []


def test_the_hosts_own_one_is_taken(
    arguments: dict[str, Any], run_module: Callable[..., Any]
) -> None:
    """By hosts that trust its root, that of its successor, or one it has retired; by new hosts."""
    first = run_module("mtls_ca", {**arguments, "in_use": {"v1": []}})["root_fingerprint"]
    for state in ("trust_both", "reissue", "drop_old"):
        assert not run_module("mtls_ca", {**arguments, "in_use": {"v1": [first]}})["changed"]
        done = run_module("mtls_ca", {**arguments, "state": state, "in_use": {"v1": [first]}})
        assert done["changed"]
    second = done["root_fingerprint"]
    in_use = {"slow": [first], "v1": [second], "both": [first, second], "new": []}
    assert not run_module("mtls_ca", {**arguments, "in_use": in_use})["changed"]
    stranger = {**in_use, "v9": ["cd" * 32]}
    refused = run_module("mtls_ca", {**arguments, "in_use": stranger})
    assert f"the one there has {second}" in refused["msg"]
    assert f"({'v9'}: {'cd' * 32})" in refused["msg"]


@pytest.mark.parametrize("wrong", [{"v1": ["abc"]}, {"v1": "ab" * 32}])
def test_in_use_must_be_fingerprints(
    arguments: dict[str, Any], run_module: Callable[..., Any], wrong: dict[str, Any]
) -> None:
    """The name of the host is told."""
    refused = run_module("mtls_ca", {**arguments, "in_use": wrong})
    assert refused.failed
    assert "in_use: v1" in refused["msg"]
