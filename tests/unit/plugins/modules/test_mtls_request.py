# Copyright: (c) 2026, Holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""mtls_request: says whether a certificate is due and why; makes a key only then."""

from __future__ import annotations

import datetime
import os
import stat
from pathlib import Path
from typing import Any, Callable

import pytest
from ansible_collections.holdfast.chain.plugins.module_utils import mtls
from ansible_collections.holdfast.chain.plugins.module_utils.identity import read_identity
from ansible_collections.holdfast.chain.plugins.module_utils.names import Names
from ansible_collections.holdfast.chain.plugins.module_utils.x509 import (
    key_fingerprint,
    key_type_of,
    load_private_key,
    load_request,
    make_key,
    names_of,
    now,
    private_pem,
    to_pem,
)
from ansible_collections.holdfast.chain.plugins.modules import mtls_certificate, mtls_request

HOURS = datetime.timedelta(hours=1)
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")


def test_check_apply_apply_check(host: Any, tmp_path: Path, snapshot: Callable[..., Any]) -> None:
    before = snapshot(tmp_path)
    checked = host.request(check=True)
    assert snapshot(tmp_path) == before
    applied = host.request()
    assert applied["changed"]
    assert checked["changed"]
    assert checked["changes"] == applied["changes"]
    for result in (checked, applied):
        assert result["renewal_needed"]
        assert result["reasons"] == ["missing"]
        assert result["current"] is None
    assert checked["request"] is None
    made = snapshot(tmp_path)
    for check in (False, True):
        again = host.request(check=check)
        assert not again["changed"]
        assert again["request"] == applied["request"]
        assert again["renewal_needed"]
    assert snapshot(tmp_path) == made


def test_key_stays_on_the_host_and_in_its_owners_hands(host: Any) -> None:
    result = host.request()
    assert "PRIVATE" not in result.text
    key = host.directory / "pending" / "key.pem"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert stat.S_IMODE(key.parent.stat().st_mode) == 0o700
    assert key.read_text() not in result.text
    request = load_request(result["request"], "request")
    assert key_fingerprint(request.public_key()) == key_fingerprint(
        load_private_key(key.read_bytes()).public_key()
    )


def test_request_asks_for_the_names_and_no_more(host: Any) -> None:
    request = load_request(host.request()["request"], "request")
    assert request.is_signature_valid
    assert names_of(request) == Names.wanted(**host.names)
    assert len(list(request.extensions)) == 1
    assert request.subject.rfc4514_string() == "CN=v1"


@pytest.mark.parametrize("key_type", ["p384", "ed25519", "rsa3072"])
def test_key_types(host: Any, key_type: str) -> None:
    request = load_request(host.request(key_type=key_type)["request"], "request")
    assert key_type_of(request.public_key()) == key_type


def test_a_good_identity_needs_nothing(
    host: Any, tmp_path: Path, snapshot: Callable[..., Any]
) -> None:
    host.renew()
    before = snapshot(tmp_path)
    result = host.request()
    assert not result["changed"]
    assert not result["renewal_needed"]
    assert result["reasons"] == []
    assert result["request"] is None
    assert result["current"]["spiffe_id"] == host.spiffe_id
    assert result["current"]["root_sha256"] == [host.fingerprint]
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"dns": ["other.demo.example"]}, "names_differ"),
        ({"ip": []}, "names_differ"),
        ({"spiffe_id": "spiffe://demo.example/chain/demo/node/v2"}, "names_differ"),
        ({"key_type": "ed25519"}, "key_policy"),
        ({"root_fingerprint": "00" * 32}, "ca_differs"),
        ({"force": True}, "forced"),
        ({"renew_before": 0.9999}, "expiring"),
    ],
)
def test_reasons(host: Any, changed: dict[str, Any], reason: str) -> None:
    """Each is named, the identity in use stays, and a new key waits."""
    host.renew()
    current = (host.directory / "current").resolve()
    result = host.request(**changed)
    assert result["reasons"] == [reason]
    assert result["changed"]
    assert load_request(result["request"], "request").is_signature_valid
    assert (host.directory / "current").resolve() == current
    waiting = read_identity(host.directory)
    assert waiting.pending.key_sha256 != waiting.current.key_sha256


def test_colons_and_capitals_in_the_pin_do_not_matter(host: Any) -> None:
    host.renew()
    pin = ":".join(host.fingerprint[i : i + 2] for i in range(0, 64, 2)).upper()
    assert host.request(root_fingerprint=pin)["reasons"] == []
    assert host.request(root_fingerprint="")["reasons"] == []


@pytest.mark.parametrize(
    ("start", "end", "reason"),
    [(-10, -1, "expired"), (1, 10, "not_yet_valid"), (-7, 3, "expiring")],
)
def test_reasons_of_time(host: Any, start: int, end: int, reason: str) -> None:
    _install_by_hand(host, now() + start * HOURS, now() + end * HOURS)
    assert host.request()["reasons"] == [reason]


@pytest.mark.parametrize(
    ("days", "reasons"),
    [(-1, ["not_yet_valid"]), (0, []), (19, []), (21, ["expiring"]), (30, ["expired"]),
     (4000, ["expired"])],
)  # fmt: skip
def test_the_clock_moves_on(
    host: Any, monkeypatch: pytest.MonkeyPatch, days: int, reasons: list[str]
) -> None:
    """A certificate of 30 days, and the host's clock set by hand; the pair in use stays."""
    certificate = host.renew()
    moment = now() + days * 24 * HOURS
    monkeypatch.setattr(mtls_request, "now", lambda: moment)
    monkeypatch.setattr(mtls_certificate, "now", lambda: moment)
    assert host.request()["reasons"] == reasons
    refused = host.install(certificate)
    valid = 0 <= days < 30
    assert refused.failed is not valid
    if not valid:
        expected = "not_yet_valid" if days < 0 else "expired"
        assert expected in {problem["reason"] for problem in refused["problems"]}
    assert (host.directory / "current" / "certificate.pem").read_text() == certificate


def test_more_than_the_fraction_left_is_not_due(host: Any) -> None:
    _install_by_hand(host, now() - 6 * HOURS, now() + 4 * HOURS)
    assert host.request()["reasons"] == []


def _install_by_hand(host: Any, start: datetime.datetime, end: datetime.datetime) -> None:
    """An identity whose validity the modules would not install, made by altering a good one."""
    import hashlib  # noqa: PLC0415
    import json  # noqa: PLC0415

    host.renew()
    generation = (host.directory / "current").resolve()
    key = load_private_key((generation / "key.pem").read_bytes())
    leaf = to_pem(host.pki.leaf(key.public_key(), names=host.alternatives, start=start, end=end))
    (generation / "certificate.pem").write_text(leaf)
    manifest = json.loads((generation / "manifest").read_text())
    manifest["sha256"]["certificate.pem"] = hashlib.sha256(leaf.encode()).hexdigest()
    (generation / "manifest").write_text(json.dumps(manifest))


def test_a_mismatched_pair_is_seen(host: Any) -> None:
    host.renew()
    key = host.directory / "current" / "key.pem"
    key.write_bytes(private_pem(make_key("p384")))
    assert host.request()["reasons"] == ["pair_mismatch"]


@pytest.mark.parametrize("name", ["key.pem", "certificate.pem", "chain.pem", "ca.pem", "manifest"])
def test_damage_is_seen(host: Any, name: str) -> None:
    host.renew()
    path = host.directory / "current" / name
    path.write_bytes(path.read_bytes()[:40])
    result = host.request()
    assert result["reasons"] == ["missing"]
    assert str(path.resolve().parent) in result["changes"][0]["reason"]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda pending: (pending / "request.pem").unlink(),
        lambda pending: (pending / "key.pem").write_bytes(private_pem(make_key("p384"))),
        lambda pending: (pending / "key.pem").write_text("half a k"),
        lambda pending: (pending / "key.pem").chmod(0o644),
        lambda pending: (pending / "request.pem").write_text("no request"),
    ],
)
def test_a_broken_pending_is_made_anew(host: Any, spoil: Callable[[Path], None]) -> None:
    """Half made, mixed up or readable to others: the key has not been used, so it costs nothing."""
    first = host.request()
    spoil(host.directory / "pending")
    result = host.request()
    assert result["changed"]
    assert result["request"] != first["request"]
    assert not host.request()["changed"]


def test_pending_for_other_names_is_replaced_and_one_nobody_needs_is_removed(host: Any) -> None:
    first = host.request()
    second = host.request(dns=["new.demo.example"])
    assert second["changes"][0]["before"]["names"][0] == "DNS:v1.demo.example"
    assert second["request"] != first["request"]
    host.renew()
    host.request(force=True)
    assert (host.directory / "pending").is_dir()
    result = host.request()
    assert [change["target"] for change in result["changes"]] == [str(host.directory / "pending")]
    assert not (host.directory / "pending").exists()


@needs_root
def test_owner_and_mode_of_the_key_in_use_are_repaired(host: Any) -> None:
    host.renew()
    key = host.directory / "current" / "key.pem"
    key.chmod(0o644)
    for check in (True, False):
        result = host.request(check=check, owner="nobody", group="daemon")
        assert result["changed"]
        assert result["changes"][0]["before"]["mode"] == "0644"
        assert result["changes"][0]["after"] == {
            "mode": "0600",
            "owner": "nobody",
            "group": "daemon",
        }
        assert (stat.S_IMODE(key.stat().st_mode) == 0o644) is check
    assert (key.owner(), key.group()) == ("nobody", "daemon")
    assert not host.request(owner="nobody", group="daemon")["changed"]
    assert not host.request()["changed"]


def test_an_account_that_is_missing_is_named(host: Any, snapshot: Callable[..., Any]) -> None:
    """In check mode of a first run it is not there yet, so only apply fails."""
    host.renew()
    before = snapshot(host.directory)
    assert host.request(check=True, owner="no-such-user")["changed"]
    result = host.request(owner="no-such-user")
    assert result.failed
    assert "user 'no-such-user' does not exist" in result["msg"]
    assert snapshot(host.directory) == before


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"dns": ["*.demo.example"]}, "dns: '*.demo.example' is not a DNS name"),
        ({"dns": ["192.0.2.1"]}, "dns: '192.0.2.1' is an address"),
        ({"ip": ["192.0.2.0/24"]}, "ip: '192.0.2.0/24' is not an address"),
        ({"spiffe_id": "https://demo.example/x"}, "spiffe_id: 'https://demo.example/x'"),
        ({"dns": [], "ip": [], "spiffe_id": None}, "dns, ip, spiffe_id: all are empty"),
        ({"common_name": "x" * 65}, "common_name: "),
        ({"renew_before": 1}, "renew_before: 1.0"),
        ({"root_fingerprint": "abc"}, "root_fingerprint: 'abc'"),
        ({"directory": "here"}, "directory: 'here': expected an absolute path"),
    ],
)
def test_unfit_options_are_refused(
    host: Any, monkeypatch: pytest.MonkeyPatch, changed: dict[str, Any], message: str
) -> None:
    monkeypatch.chdir(host.directory.parent)
    result = host.request(**changed)
    assert result.failed
    assert result["msg"].startswith(message)
    assert not host.directory.exists()


def test_somebody_elses_current_is_left_alone(host: Any) -> None:
    (host.directory / "current").mkdir(parents=True)
    result = host.request()
    assert result.failed
    assert result["problems"][0]["reason"] == "not_an_identity"


def test_without_the_library_check_mode_answers_for_a_new_host(
    host: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A role installs the library in the run that check mode foretells."""
    monkeypatch.setattr(mtls, "CRYPTOGRAPHY_ERROR", "ImportError: no")
    assert host.request(check=True)["reasons"] == ["missing"]
    result = host.request()
    assert result.failed
    assert "cryptography >= 3.4" in result["msg"]
    host.directory.mkdir()
    assert host.request(check=True).failed
