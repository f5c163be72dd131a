# Copyright: (c) 2026, Holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""mtls_crl on the CA: what is revoked is on record, and every list follows from the record."""

from __future__ import annotations

import datetime
import json
import shutil
import stat
from pathlib import Path
from typing import Any, Callable

import pytest
from ansible_collections.holdfast.chain.plugins.module_utils.x509 import (
    load_certificate,
    make_key,
    make_request,
    now,
    to_pem,
)
from ansible_collections.holdfast.chain.plugins.module_utils.x509_crl import (
    Entry,
    entries_of,
    load_crls,
    make_crl,
    next_update,
    number_of,
    this_update,
)
from ansible_collections.holdfast.chain.plugins.modules import mtls_ca, mtls_crl, mtls_sign

HOUR = datetime.timedelta(hours=1)


@pytest.fixture
def ca(host: Any) -> Any:
    """A host whose CA signed it one certificate; its serial is host.serial."""
    certificate = host.renew()
    host.serial = f"{load_certificate(certificate, 'leaf').serial_number:x}"
    return host


def _list(result: Any) -> Any:
    (crl,) = load_crls(result["crl"], "crl")
    return crl


def _serials(result: Any) -> list[str]:
    assert not result.failed, result["msg"]
    return [serial for crl in result["crls"] for serial in crl["revoked"]]


def _at(monkeypatch: pytest.MonkeyPatch, later: datetime.timedelta) -> None:
    moment = now() + later
    for module in (mtls_crl, mtls_sign):
        monkeypatch.setattr(module, "now", lambda: moment)


@pytest.mark.parametrize("revoke", [[], [{"name": "v1"}], [{"name": "v1", "reason": "superseded"}]])
def test_check_apply_apply_check(
    ca: Any, tmp_path: Path, snapshot: Callable[..., Any], revoke: list[dict[str, str]]
) -> None:
    before = snapshot(tmp_path)
    checked = ca.crl(check=True, revoke=revoke)
    assert snapshot(tmp_path) == before
    assert checked["crl"] is None
    applied = ca.crl(revoke=revoke)
    assert applied["changed"]
    assert checked["changes"] == applied["changes"]
    assert checked["revoked_now"] == applied["revoked_now"]
    made = snapshot(tmp_path)
    for check in (False, True):
        again = ca.crl(check=check, revoke=revoke)
        assert not again["changed"], again["changes"]
        assert again["crl"] == applied["crl"]
    assert snapshot(tmp_path) == made


def test_a_list_says_when_it_was_made_and_until_when_it_is_good(ca: Any) -> None:
    crl = _list(ca.crl(next_update_hours=100))
    assert 0 <= (now() - this_update(crl)).total_seconds() - 300 < 60
    assert 0 <= (now() + 100 * HOUR - next_update(crl)).total_seconds() < 60
    path = ca.ca / "authority" / "crl.pem"
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert load_crls(path.read_text(), "x") == [crl]


def test_revoking_a_name_takes_all_its_valid_certificates(ca: Any) -> None:
    second = f"{load_certificate(ca.renew(force=True), 'leaf').serial_number:x}"
    result = ca.crl(revoke=[{"name": "v1", "reason": "key_compromise"}])
    assert sorted(one["serial"] for one in result["revoked_now"]) == sorted([ca.serial, second])
    assert _serials(result) == sorted([ca.serial, second])
    assert {entry.reason for entry in entries_of(_list(result))} == {"key_compromise"}
    lines = [json.loads(line) for line in (ca.ca / "issued.jsonl").read_text().splitlines()]
    revoked = [line for line in lines if line["event"] == "revoked"]
    assert {line["name"] for line in revoked} == {"v1"}
    assert not [line for line in lines if line["event"] == "barred"]


def test_revoking_a_serial_leaves_the_others(ca: Any) -> None:
    second = ca.renew(force=True)
    result = ca.crl(revoke=[{"serial": ca.serial.upper()}])
    assert _serials(result) == [ca.serial]
    assert not ca.crl(revoke=[{"serial": ca.serial}])["changed"]
    request = make_request(make_key("p384"), "v1", _names(second))
    assert not ca.sign(request).failed


def _names(certificate: str) -> Any:
    from ansible_collections.holdfast.chain.plugins.module_utils.x509 import (  # noqa: PLC0415
        names_of,
    )

    return names_of(load_certificate(certificate, "leaf"))


@pytest.mark.parametrize(
    ("wish", "reason"),
    [
        ({"name": "v9"}, "unknown_name"),
        ({"serial": "abc"}, "unknown_serial"),
        ({"serial": "no hex"}, "unknown_serial"),
    ],
)
def test_what_was_never_issued_cannot_be_revoked(
    ca: Any, snapshot: Callable[..., Any], wish: dict[str, str], reason: str
) -> None:
    before = snapshot(ca.ca)
    result = ca.crl(revoke=[{"name": "v1"}, wish])
    assert [problem["reason"] for problem in result["problems"]] == [reason]
    assert snapshot(ca.ca) == before


@pytest.mark.parametrize("reason", ["key_compromise", "superseded"])
def test_after_the_loss_of_a_key_a_new_one_is_signed_and_the_old_one_is_not(
    ca: Any, reason: str
) -> None:
    old = ca.request(force=True)["request"]
    ca.sign(old)
    ca.crl(revoke=[{"name": "v1", "reason": reason}])
    refused = ca.sign(old)
    assert [problem["reason"] for problem in refused["problems"]] == ["key_revoked"]
    (ca.directory / "pending" / "key.pem").unlink()
    assert not ca.sign(ca.request(force=True)["request"]).failed


@pytest.mark.parametrize("reason", ["unspecified", "cessation_of_operation"])
def test_a_name_that_was_put_out_stays_out_until_it_is_readmitted(ca: Any, reason: str) -> None:
    """Or unattended renewal would let it in again the next hour."""
    ca.crl(revoke=[{"name": "v1", "reason": reason}])
    request = ca.request(force=True)["request"]
    refused = ca.sign(request)
    assert [problem["reason"] for problem in refused["problems"]] == ["name_revoked"]
    assert "readmit" in refused["msg"]
    checked = ca.crl(check=True, readmit=["v1", "v7"])
    applied = ca.crl(readmit=["v1", "v7"])
    assert checked["changes"] == applied["changes"]
    assert len(applied["changes"]) == 1
    assert _serials(applied) == [ca.serial]
    assert not ca.crl(readmit=["v1"])["changed"]
    assert not ca.sign(request).failed


def test_a_name_without_a_valid_certificate_can_be_kept_out(
    ca: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    _at(monkeypatch, 24 * 40 * HOUR)
    result = ca.crl(revoke=[{"name": "v1"}])
    assert result["revoked_now"] == []
    assert result["changed"]
    assert not ca.crl(revoke=[{"name": "v1"}])["changed"]
    refused = ca.sign(ca.request(force=True)["request"])
    assert [problem["reason"] for problem in refused["problems"]] == ["name_revoked"]


def test_in_and_out_at_once_is_a_contradiction(ca: Any) -> None:
    assert "revoke, readmit: v1" in ca.crl(revoke=[{"name": "v1"}], readmit=["v1"])["msg"]


def test_a_new_list_is_made_before_the_old_one_runs_out(
    ca: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With less than half of its time left, and whenever it is asked for; numbers rise."""
    first = ca.crl(next_update_hours=100)
    _at(monkeypatch, 45 * HOUR)
    assert not ca.crl(next_update_hours=100)["changed"]
    _at(monkeypatch, 55 * HOUR)
    second = ca.crl(next_update_hours=100)
    assert second["changed"]
    assert "of its time is left" in second["changes"][0]["reason"]
    third = ca.crl(next_update_hours=100, force=True)
    numbers = [number_of(_list(result)) for result in (first, second, third)]
    assert numbers[0] < numbers[1] < numbers[2] == numbers[1] + 1
    _at(monkeypatch, 500 * HOUR)  # long past its end
    assert number_of(_list(ca.crl())) > numbers[2]


def test_a_list_of_a_clock_that_was_ahead_is_made_anew(
    ca: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hosts refuse it as long as it is from the future."""
    with monkeypatch.context() as ahead:
        _at(ahead, 400 * 24 * HOUR)
        early = ca.crl()
    assert ca.publish(early["crl"])["problems"][0]["reason"] == "crl_not_yet_valid"
    made = ca.crl()
    assert "the clock here was ahead" in made["changes"][0]["reason"]
    assert number_of(_list(made)) > number_of(_list(early))
    assert ca.publish(made["crl"])["changed"]
    assert not ca.crl()["changed"]


@pytest.mark.parametrize("phase", ["trust_both", "reissue"])
def test_a_ca_that_has_ended_holds_nobody_up(
    ca: Any, monkeypatch: pytest.MonkeyPatch, phase: str
) -> None:
    """In the middle of a rollover: the list of the other one is kept fresh, and published."""
    ca.crl()
    monkeypatch.setattr(mtls_ca, "now", lambda: now() + 1000 * 24 * HOUR)
    ca.roll("trust_both")
    if phase == "reissue":
        ca.roll("reissue")
    _at(monkeypatch, 1800 * 24 * HOUR)  # the first one lives for 1825 days, and is 30 days old
    made = ca.crl(force=True)
    assert made["changed"], made.text
    assert [one["issuer"] for one in made["crls"]] == ["CN=Demo Issuing CA G2"]
    told = {"issuers": made["issuers"], "trusted_roots": made["trusted_roots"]}
    published = ca.publish(made["crl"], **told)
    assert published["changed"], published.text
    assert not ca.crl()["changed"]


def test_what_was_revoked_after_the_backup_stays_revoked(
    ca: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The hosts' lists say it, and get a newer one; the name is barred as before."""
    ca.publish(ca.crl()["crl"])
    shutil.copytree(ca.ca, tmp_path / "backup")
    _at(monkeypatch, HOUR)
    ca.crl(revoke=[{"name": "v1"}])
    request = {"name": "v2", "request": ca.request(force=True)["request"], **ca.names}
    issued = ca.sign("", requests=[request])["certificates"]["v2"]
    _at(monkeypatch, 2 * HOUR)
    revoked = ca.crl(revoke=[{"name": "v2", "reason": "key_compromise"}])
    ca.publish(revoked["crl"])
    shutil.rmtree(ca.ca)
    (tmp_path / "backup").rename(ca.ca)
    _at(monkeypatch, 3 * HOUR)
    has = ca.run("mtls_info", {"directory": str(ca.directory)})["crl"]["pem"]
    checked = ca.crl(published=[has, has], check=True)
    made = ca.crl(published=[has, has])
    assert checked["changes"] == made["changes"]
    said = made.text + capsys.readouterr().err
    assert f"not whose certificate {issued['serial']} was" in said
    assert _serials(made) == sorted([ca.serial, issued["serial"]])
    assert made["barred"] == ["v1"]
    assert number_of(_list(made)) > number_of(_list(revoked))
    for published in ([has], [made["crl"]], []):
        assert not ca.crl(published=published)["changed"]
    assert ca.publish(made["crl"])["changed"]
    assert "name_revoked" in str(ca.sign(ca.request(force=True)["request"])["problems"])


def test_no_host_can_invent_a_revocation(ca: Any, other_pki: Any) -> None:
    """Only lists that this CA signed tell it something."""
    ca.crl()
    serial = int(ca.serial, 16)
    entries = [Entry(serial, now() - HOUR, "unspecified")]
    forged = [
        make_crl(issuer, other_pki.intermediate_key, entries, 2**40, (now() - HOUR, now() + HOUR))
        for issuer in (ca.pki.intermediate, other_pki.intermediate)
    ]
    done = ca.crl(published=[to_pem(crl) for crl in forged])
    assert not done["changed"], done.text
    assert "published: " in ca.crl(published=["none"])["msg"]


def test_an_entry_leaves_after_it_was_on_a_list_past_its_certificates_end(
    ca: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RFC 5280, section 3.3: not before."""
    ca.crl(revoke=[{"name": "v1"}])
    _at(monkeypatch, 24 * 31 * HOUR)  # the certificate lived for 30 days
    assert _serials(ca.crl(force=True)) == [ca.serial]
    _at(monkeypatch, 24 * 32 * HOUR)
    assert _serials(ca.crl(force=True)) == []
    assert not ca.crl()["changed"]


def test_an_entry_whose_record_was_lost_stays(ca: Any) -> None:
    """Somebody revoked it: a lost log is no reason to trust it again."""
    ca.crl(revoke=[{"name": "v1"}])
    (ca.ca / "issued.jsonl").unlink()
    assert not ca.crl()["changed"]
    assert _serials(ca.crl(force=True)) == [ca.serial]


def test_a_damaged_list_is_made_anew_from_the_log(ca: Any) -> None:
    ca.crl(revoke=[{"name": "v1"}])
    (ca.ca / "authority" / "crl.pem").write_text("damaged")
    assert _serials(ca.crl()) == [ca.serial]


def test_a_torn_line_of_the_log_is_told_and_left_out(
    ca: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    with (ca.ca / "issued.jsonl").open("ab") as stream:
        stream.write(b'{"event": "revoked", "name": "v1", "ser')
    result = ca.crl()
    assert not result.failed
    assert _serials(result) == []
    # Ansible writes warnings to stderr once its controller half is loaded in the process.
    assert "line 2 of the log was cut short" in result.text + capsys.readouterr().err
    assert _serials(ca.crl(revoke=[{"name": "v1"}])) == [ca.serial]


def test_unfit_options_are_refused_by_name(ca: Any, tmp_path: Path) -> None:
    assert ca.crl(next_update_hours=0)["msg"].startswith("next_update_hours: 0")
    assert ca.crl(renew_before=1.5)["msg"].startswith("renew_before: 1.5")
    assert "one of the following" in ca.crl(revoke=[{"reason": "superseded"}])["msg"]
    assert "run mtls_ca first" in ca.crl(directory=str(tmp_path / "none"))["msg"]
    wrong = ca.crl(passphrase="tragic mule capacitor")
    assert wrong["problems"][0]["reason"] == "wrong_passphrase"
    assert "tragic mule" not in wrong.text
    assert "PRIVATE" not in ca.crl().text
