# Copyright: (c) 2026, Holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A CA follows another one: in order, resumable, and at no moment without trust."""

from __future__ import annotations

import datetime
import shutil
import subprocess
from pathlib import Path
from typing import Any, Callable

import pytest
from ansible_collections.holdfast.chain.plugins.module_utils.x509 import (
    load_certificates,
    now,
    to_pem,
)
from ansible_collections.holdfast.chain.plugins.module_utils.x509_crl import make_crl
from ansible_collections.holdfast.chain.plugins.modules import mtls_ca, mtls_sign

DAY = datetime.timedelta(days=1)
NEW_PASSPHRASE = "tragic mule capacitor"


@pytest.fixture
def ready(host: Any) -> Any:
    """A host with an identity of its CA."""
    host.renew()
    return host


def _folders(host: Any) -> list[str]:
    return sorted(path.name for path in host.ca.iterdir() if path.is_dir())


def _reasons(result: Any) -> list[str]:
    return [problem["reason"] for problem in result["problems"]]


def _fingerprints(result: Any) -> list[str]:
    return [root["fingerprint"] for root in result["trusted_roots"]]


def _verifies(host: Any) -> bool:
    """OpenSSL: the certificate in use, by the roots in use."""
    done = subprocess.run(
        ["openssl", "verify", "-x509_strict", "-CAfile", "ca.pem", "-untrusted", "chain.pem",
         "certificate.pem"],
        cwd=host.directory / "current", capture_output=True, check=False,
    )  # fmt: skip
    return done.returncode == 0


def _peer_verifies(host: Any, peer: Path) -> bool:
    """OpenSSL: the certificate in use, by the roots of a peer."""
    done = subprocess.run(
        ["openssl", "verify", "-CAfile", str(peer / "current" / "ca.pem"), "-untrusted",
         "chain.pem", "certificate.pem"],
        cwd=host.directory / "current", capture_output=True, check=False,
    )  # fmt: skip
    return done.returncode == 0


def test_the_whole_way(ready: Any, tmp_path: Path, snapshot: Callable[..., Any]) -> None:
    """Each phase checked, done, repeated; a peer that is a phase behind is always understood."""
    old = ready.fingerprint
    peer = tmp_path / "peer"

    def step(state: str) -> Any:
        before = snapshot(ready.ca)
        checked = ready.roll(state, check=True, replaces=old)
        assert snapshot(ready.ca) == before
        done = ready.roll(state, replaces=old)
        assert done["changed"], done.text
        assert checked["changes"] == done["changes"]
        made = snapshot(ready.ca)
        for check in (False, True):
            assert not ready.roll(state, check=check, replaces=old)["changed"]
            assert not ready.roll(check=check)["changed"]  # what site.yml asks in between
        assert snapshot(ready.ca) == made
        shutil.rmtree(peer, ignore_errors=True)
        shutil.copytree(ready.directory, peer, symlinks=True)
        return done

    both = step("trust_both")
    assert both["phase"] == "trust_both"
    assert both["root_fingerprint"] == old == _fingerprints(both)[0]
    new = _fingerprints(both)[1]
    assert len(load_certificates(both["issuers"], "x")) == 2
    key = (ready.directory / "current" / "key.pem").read_bytes()
    serial = ready.request()["current"]["serial"]
    checked = ready.trust(both["trusted_roots"], check=True)
    trusted = ready.trust(both["trusted_roots"])
    assert trusted["changed"], trusted.text
    assert checked["changes"] == trusted["changes"]
    assert trusted["current"]["serial"] == serial
    assert set(trusted["current"]["root_sha256"]) == {old, new}
    assert (ready.directory / "current" / "key.pem").read_bytes() == key
    for check in (False, True):
        assert not ready.trust(both["trusted_roots"], check=check)["changed"]
    assert ready.request(root_fingerprint=both["root_fingerprint"])["reasons"] == []
    assert _verifies(ready)
    assert _peer_verifies(ready, peer)

    reissue = step("reissue")
    assert reissue["root_fingerprint"] == new
    assert _fingerprints(reissue) == [new, old]
    asked = ready.request(root_fingerprint=new)
    assert asked["reasons"] == ["ca_differs"]
    refused = ready.roll("drop_old", replaces=old)
    assert _reasons(refused) == ["still_in_use"]
    assert "v1 (until " in refused["msg"]
    signed = ready.sign(asked["request"])
    issued = signed["certificates"]["v1"]
    installed = ready.install(
        issued["certificate"],
        chain=issued["chain"],
        root_certificate=None,
        root_fingerprint=new,
        trusted_roots=signed["trusted_roots"],
    )
    assert installed["changed"], installed.text
    assert installed["current"]["issuer_root_sha256"] == new
    assert ready.request(root_fingerprint=new)["reasons"] == []
    assert _verifies(ready)
    assert _peer_verifies(ready, peer)

    dropped = step("drop_old")
    assert dropped["phase"] == "single"
    assert _fingerprints(dropped) == [new]
    assert _folders(ready) == ["authority", "retired"]
    assert ready.trust(dropped["trusted_roots"])["current"]["root_sha256"] == [new]
    assert _verifies(ready)
    assert _peer_verifies(ready, peer)
    # The playbook once more, from its start: that rollover is over, and no other one begins.
    for state in ("trust_both", "reissue", "drop_old"):
        assert not ready.roll(state, replaces=old)["changed"]


def test_a_second_rollover_can_follow(ready: Any) -> None:
    first = ready.fingerprint
    for state in ("trust_both", "reissue"):
        ready.roll(state)
    ready.crl(revoke=[{"name": "v1", "reason": "superseded"}])
    second = ready.roll("drop_old")["root_fingerprint"]
    result = ready.roll("trust_both", replaces=second)
    names = [
        load_certificates(root["certificate"], "x")[0].subject.rfc4514_string()
        for root in result["trusted_roots"]
    ]
    assert names == ["CN=Demo Root CA G2", "CN=Demo Root CA G3"]
    assert _reasons(ready.roll("trust_both", replaces=first)) == ["unknown_root"]


def test_the_end_of_a_ca_is_told_long_before(
    ready: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """By whoever looks at it or signs with it; not any more once its successor signs."""

    def told(result: Any) -> str:
        assert not result.failed, result.text
        # Ansible writes warnings to stderr once its controller half is loaded in the process.
        return str(result.text + capsys.readouterr().err)

    request = ready.request(force=True)["request"]
    monkeypatch.setattr(mtls_ca, "now", lambda: now() + 1600 * DAY)  # of 1825, it is 30 old
    assert "replace the CA" not in told(ready.roll())
    monkeypatch.setattr(mtls_ca, "now", lambda: now() + 1650 * DAY)
    text = told(ready.roll())
    assert "intermediate.pem: ends 20" in text
    assert "root.pem: ends" not in text  # it lives for 3650 days
    for phase in ("trust_both", "reissue"):
        ready.roll(phase)
    assert "replace the CA" not in told(ready.roll())
    monkeypatch.setattr(mtls_sign, "now", lambda: now() + 1650 * DAY)
    assert "cut short" not in told(ready.sign(request, check=True))
    monkeypatch.setattr(mtls_sign, "now", lambda: now() + 3460 * DAY)
    assert "validity_hours: 720: cut short" in told(ready.sign(request))
    monkeypatch.setattr(mtls_sign, "now", lambda: now() + 3500 * DAY)
    for check in (True, False):
        assert _reasons(ready.sign(request, check=check)) == ["ca_expired"]


@pytest.mark.parametrize(
    ("done", "state", "replaces", "reason"),
    [
        ([], "reissue", None, "wrong_phase"),
        ([], "reissue", True, "wrong_phase"),
        ([], "drop_old", True, "wrong_phase"),
        (["trust_both"], "drop_old", None, "wrong_phase"),
        (["trust_both"], "drop_old", True, "wrong_phase"),
        ([], "trust_both", False, "unknown_root"),
        (["trust_both"], "reissue", False, "unknown_root"),
        (["trust_both", "reissue"], "drop_old", False, "unknown_root"),
    ],
)
def test_the_order_is_enforced(
    ready: Any,
    snapshot: Callable[..., Any],
    *,
    done: list[str],
    state: str,
    replaces: bool | None,
    reason: str,
) -> None:
    """replaces: None for none, True for the right root, False for a wrong one."""
    for one in done:
        ready.roll(one)
    before = snapshot(ready.ca)
    pin = {None: None, True: ready.fingerprint, False: "ab" * 32}[replaces]
    for check in (True, False):
        assert _reasons(ready.roll(state, check=check, replaces=pin)) == [reason]
    assert snapshot(ready.ca) == before


def test_no_phase_goes_back(ready: Any) -> None:
    for state in ("trust_both", "reissue"):
        ready.roll(state)
    assert not ready.roll("trust_both")["changed"]
    assert ready.roll("trust_both")["phase"] == "reissue"
    assert not ready.roll("trust_both", replaces=ready.fingerprint)["changed"]


def test_there_is_nothing_to_roll_over_without_a_ca(host: Any) -> None:
    assert _reasons(host.roll("trust_both")) == ["no_ca"]
    assert not host.ca.exists()


def test_the_successor_may_be_of_another_kind_but_not_of_another_trust_domain(ready: Any) -> None:
    refused = ready.roll("trust_both", trust_domain="other.example")
    assert _reasons(refused) == ["ca_differs"]
    assert _reasons(ready.roll(key_type="ed25519")) == ["ca_differs"]
    assert ready.roll("trust_both", key_type="ed25519")["changed"]
    assert _reasons(ready.roll("trust_both")) == ["ca_differs"]  # p384 now, half way
    for key_type in ("p384", "ed25519"):  # either inventory goes on working
        assert not ready.roll(key_type=key_type)["changed"]
    assert _reasons(ready.roll(key_type="rsa3072")) == ["ca_differs"]
    ready.roll("reissue", key_type="ed25519")
    asked = ready.request(force=True)["request"]
    assert not ready.sign(asked).failed


def test_each_ca_has_its_list_and_revokes_its_own(ready: Any) -> None:
    """Hosts get the lists of both before the first certificate of the successor shows up."""
    ready.roll("trust_both")
    before = ready.crl()
    assert [crl["issuer"] for crl in before["crls"]] == [
        "CN=Demo Issuing CA",
        "CN=Demo Issuing CA G2",
    ]
    assert _reasons(ready.publish(before["crl"])) == ["crl_issuer_unknown"]
    assert _reasons(ready.publish(before["crl"], issuers=before["issuers"])) == [
        "crl_issuer_unknown"  # its root comes first
    ]
    ready.trust(before["trusted_roots"])
    assert ready.publish(before["crl"], issuers=before["issuers"])["changed"]
    old = ready.request()["current"]["serial"]
    phase = ready.roll("reissue")
    signed = ready.sign(ready.request(root_fingerprint=phase["root_fingerprint"])["request"])
    new = signed["certificates"]["v1"]["serial"]
    after = ready.crl(revoke=[{"name": "v1", "reason": "superseded"}])
    assert {crl["issuer"]: crl["revoked"] for crl in after["crls"]} == {
        "CN=Demo Issuing CA G2": [new],
        "CN=Demo Issuing CA": [old],
    }
    dropped = ready.roll("drop_old")
    assert dropped["phase"] == "single"
    last = ready.crl()
    assert [crl["issuer"] for crl in last["crls"]] == ["CN=Demo Issuing CA G2"]


def test_a_revocation_reaches_a_host_that_phase_1_has_not(ready: Any, other_pki: Any) -> None:
    """The lists are of both CAs; the host trusts the old root alone, and is told of the new one."""
    serial = ready.request()["current"]["serial"]
    ready.roll("trust_both")
    lists = ready.crl(revoke=[{"name": "v1", "reason": "superseded"}])
    told = {"issuers": lists["issuers"], "trusted_roots": lists["trusted_roots"]}
    checked = ready.publish(lists["crl"], check=True, **told)
    published = ready.publish(lists["crl"], **told)
    assert published["changed"], published.text
    assert checked["changes"] == published["changes"]
    assert {crl["issuer"]: crl["revoked"] for crl in published["crls"]} == {
        "CN=Demo Issuing CA": [serial],
        "CN=Demo Issuing CA G2": [],
    }
    assert not ready.publish(lists["crl"], **told)["changed"]
    asked = ready.request()
    assert asked["reasons"] == ["revoked"]
    assert asked["current"]["root_sha256"] == [ready.fingerprint]
    stranger = make_crl(
        other_pki.intermediate, other_pki.intermediate_key, [], 9, (now() - DAY, now() + DAY)
    )
    refused = ready.publish(lists["crl"] + to_pem(stranger), **told)
    assert _reasons(refused) == ["crl_issuer_unknown"]


@pytest.mark.parametrize("renewals", [0, 1, 2])
def test_the_old_list_stays_on_a_host_that_phase_3_has_not(ready: Any, renewals: int) -> None:
    """The CA has its own list alone then; the host still trusts the old root, so needs both.

    However often it was renewed in between, when no certificate of the old CA is left on it.
    """

    def revoked(result: Any) -> dict[str, list[str]]:
        return {crl["issuer"]: crl["revoked"] for crl in result["crls"]}

    both = ready.roll("trust_both")["trusted_roots"]
    ready.trust(both)
    old = ready.request()["current"]["serial"]
    phase = ready.roll("reissue")

    def renew() -> str:
        """A certificate of the CA that signs, and the roots it tells of; its serial number."""
        pin = phase["root_fingerprint"]
        signed = ready.sign(ready.request(force=True, root_fingerprint=pin)["request"])
        issued = signed["certificates"]["v1"]
        installed = ready.install(
            issued["certificate"],
            chain=issued["chain"],
            root_certificate=None,
            root_fingerprint=pin,
            trusted_roots=signed["trusted_roots"],
        )
        assert installed["changed"], installed.text
        return str(issued["serial"])

    serials = [renew()]
    lists = ready.crl(revoke=[{"serial": old, "reason": "key_compromise"}])
    assert not ready.publish(lists["crl"], issuers=lists["issuers"]).failed
    serials += [renew() for _ in range(renewals)]
    ready.roll("drop_old")
    lists = ready.crl(revoke=[{"name": "v1", "reason": "superseded"}])
    assert [crl["issuer"] for crl in lists["crls"]] == ["CN=Demo Issuing CA G2"]
    told = {"issuers": lists["issuers"], "trusted_roots": lists["trusted_roots"]}
    published = ready.publish(lists["crl"], **told)
    assert published["changed"], published.text
    assert revoked(published) == {
        "CN=Demo Issuing CA G2": sorted(serials),
        "CN=Demo Issuing CA": [old],
    }
    for given in (told, {}):
        assert not ready.publish(lists["crl"], **given)["changed"]
    # Once the old root is gone, so is its list.
    renew()
    last = ready.publish(lists["crl"], **told)
    assert [crl["issuer"] for crl in last["crls"]] == ["CN=Demo Issuing CA G2"]


def test_trust_alone_is_checked_like_a_certificate(
    ready: Any, other_pki: Any, snapshot: Callable[..., Any]
) -> None:
    """The roots must include the one behind the certificate in use, each with its pin."""
    roots = ready.roll("trust_both")["trusted_roots"]
    before = snapshot(ready.directory)
    wrong = [{**roots[0], "fingerprint": roots[1]["fingerprint"]}, roots[1]]
    assert _reasons(ready.trust(wrong)) == ["root_not_pinned"]
    assert "issuer_mismatch" in _reasons(ready.trust(roots[1:]))
    assert _reasons(ready.trust(roots, dns=["other.demo.example"])) == ["names_differ"]
    pin = roots[1]["fingerprint"]
    assert _reasons(ready.trust(roots, root_fingerprint=pin)) == ["root_not_pinned"]
    certificate = (ready.directory / "current" / "certificate.pem").read_text()
    assert _reasons(ready.install(certificate, trusted_roots=roots[1:])) == ["root_not_trusted"]
    assert snapshot(ready.directory) == before


def test_trust_alone_needs_an_identity(host: Any) -> None:
    host.renew()
    roots = host.roll()["trusted_roots"]
    result = host.trust(roots, directory=str(host.directory.parent / "none"))
    assert _reasons(result) == ["no_identity"]


def test_roots_in_another_order_are_the_same(ready: Any) -> None:
    roots = ready.roll("trust_both")["trusted_roots"]
    ready.trust(roots)
    assert not ready.trust(roots[::-1])["changed"]


def test_a_second_copy_of_a_key_has_the_owner_of_the_first(ready: Any) -> None:
    key = ready.directory / "current" / "key.pem"
    if hasattr(shutil, "chown"):
        try:
            shutil.chown(str(key), "nobody", "daemon")
        except PermissionError:
            pytest.skip("only root can give files away")
    ready.trust(ready.roll("trust_both")["trusted_roots"])
    copy = ready.directory / "current" / "key.pem"
    assert copy.resolve() != key
    assert (copy.owner(), copy.group(), copy.stat().st_mode & 0o777) == ("nobody", "daemon", 0o600)


def test_half_a_switch_reads_as_done_and_is_finished(ready: Any) -> None:
    """Killed between the two renames of phase reissue."""
    new = ready.roll("trust_both")["trusted_roots"][1]["fingerprint"]
    (ready.ca / "authority").rename(ready.ca / "predecessor")
    signed = ready.sign(ready.request(force=True)["request"])
    assert signed["root_fingerprint"] == new
    assert not ready.crl().failed
    result = ready.roll()
    assert result["changed"]
    assert result["phase"] == "reissue"
    assert _folders(ready) == ["authority", "predecessor"]
    assert not ready.roll("reissue")["changed"]


@pytest.mark.parametrize("folders", [["successor"], ["predecessor"], ["successor", "predecessor"]])
def test_what_no_rollover_leaves_is_damage(ready: Any, folders: list[str]) -> None:
    for folder in folders:
        shutil.copytree(ready.ca / "authority", ready.ca / folder)
    if len(folders) == 1:
        shutil.rmtree(ready.ca / "authority")
    assert _reasons(ready.roll()) == ["ca_damaged"]


def test_the_passphrase_can_be_changed(ready: Any, snapshot: Callable[..., Any]) -> None:
    """Keys are encrypted anew, certificates stay; during a rollover those of both CAs."""
    ready.roll("trust_both")
    changed = {"passphrase": NEW_PASSPHRASE, "old_passphrase": "correct horse battery staple"}
    before = snapshot(ready.ca)
    checked = ready.roll(check=True, **changed)
    assert snapshot(ready.ca) == before
    result = ready.roll(**changed)
    assert checked["changes"] == result["changes"]
    assert len(result["changes"]) == 4
    assert "mule" not in result.text
    assert "horse" not in result.text
    assert not ready.roll(**changed)["changed"]
    assert not ready.roll(passphrase=NEW_PASSPHRASE)["changed"]
    assert _reasons(ready.roll()) == ["wrong_passphrase"]
    wrong = {"passphrase": "another one altogether", "old_passphrase": "that is not it"}
    assert _reasons(ready.roll(**wrong)) == ["wrong_passphrase"]


def test_half_changed_passphrases_are_finished(ready: Any) -> None:
    """One key with the new passphrase, one still with the old one."""
    changed = {"passphrase": NEW_PASSPHRASE, "old_passphrase": "correct horse battery staple"}
    saved = (ready.ca / "authority" / "root-key.pem").read_bytes()
    ready.roll(**changed)
    (ready.ca / "authority" / "root-key.pem").write_bytes(saved)
    assert len(ready.roll(**changed)["changes"]) == 1
    assert not ready.roll(passphrase=NEW_PASSPHRASE)["changed"]


def test_age_of_the_passphrase(ready: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the making of the CA, then from its last change; a successor makes it no younger."""
    assert ready.roll()["passphrase_age_days"] == 30
    assert ready.roll("trust_both")["passphrase_age_days"] == 30
    ready.roll("reissue")
    ready.crl(revoke=[{"name": "v1", "reason": "superseded"}])
    assert ready.roll("drop_old")["passphrase_age_days"] == 30
    result = ready.roll(passphrase=NEW_PASSPHRASE, old_passphrase="correct horse battery staple")
    assert result["passphrase_age_days"] == 0
    later = mtls_ca.now().replace(year=mtls_ca.now().year + 1)
    monkeypatch.setattr(mtls_ca, "now", lambda: later)
    assert ready.roll(passphrase=NEW_PASSPHRASE)["passphrase_age_days"] in (365, 366)
