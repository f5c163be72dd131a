# Copyright: (c) 2026, Holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""mtls_crl on a host: only lists that verify get there, and what is revoked does not come back."""

from __future__ import annotations

import contextlib
import datetime
import os
import ssl
import stat
from pathlib import Path
from typing import Any, Callable

import pytest
from ansible_collections.holdfast.chain.plugins.module_utils.x509 import (
    fingerprint,
    load_certificate,
    make_key,
    now,
    to_pem,
)
from ansible_collections.holdfast.chain.plugins.module_utils.x509_ca import key_usage
from ansible_collections.holdfast.chain.plugins.module_utils.x509_crl import Entry, make_crl
from ansible_collections.holdfast.chain.plugins.modules import mtls_crl
from cryptography import x509
from cryptography.hazmat.primitives import hashes

DAY = datetime.timedelta(days=1)
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")


@pytest.fixture
def ready(host: Any) -> Any:
    """A host with an identity and a list of its CA, number 100."""
    host.certificate = host.renew()
    assert not host.publish(to_pem(made(host, 100))).failed
    return host


def made(host: Any, number: int, *serials: int, **changed: Any) -> Any:
    """A list of the intermediate, however wrong."""
    entries = [Entry(serial, now() - DAY, "superseded") for serial in serials]
    settings = {
        "issuer": host.pki.intermediate,
        "key": host.pki.intermediate_key,
        "validity": (now() - datetime.timedelta(hours=1), now() + 9 * DAY),
        **changed,
    }
    return make_crl(settings["issuer"], settings["key"], entries, number, settings["validity"])


def _reasons(result: Any) -> set[str]:
    return {problem["reason"] for problem in result["problems"]}


def test_check_apply_apply_check(host: Any, tmp_path: Path, snapshot: Callable[..., Any]) -> None:
    host.renew()
    crl = host.crl()["crl"]
    before = snapshot(tmp_path)
    checked = host.publish(crl, check=True)
    assert snapshot(tmp_path) == before
    applied = host.publish(crl)
    assert applied["changed"]
    assert checked["changes"] == applied["changes"]
    assert (host.directory / "crl.pem").read_text() == crl
    made_files = snapshot(tmp_path)
    for check in (False, True):
        again = host.publish(crl, check=check)
        assert not again["changed"]
        assert again["crls"][0]["number"] == applied["crls"][0]["number"]
    assert snapshot(tmp_path) == made_files
    assert not host.request()["changed"]


def test_lists_of_another_authority_may_come_before_its_roots(ready: Any, other_pki: Any) -> None:
    """As where site.yml gives hosts another one: no list is missed of the CA whose root is going.

    Its list stays nevertheless, as long as its root is trusted.
    """
    another = made(ready, 5, issuer=other_pki.intermediate, key=other_pki.intermediate_key)
    root = {"certificate": to_pem(other_pki.root), "fingerprint": fingerprint(other_pki.root)}
    told = {"issuers": to_pem(other_pki.intermediate), "trusted_roots": [root]}
    published = ready.publish(to_pem(another), **told)
    assert not published.failed, published.text
    assert [crl["number"] for crl in published["crls"]] == [5, 100]
    assert not ready.publish(to_pem(another), **told)["changed"]


def test_facts_tell_the_age(ready: Any) -> None:
    (facts,) = ready.publish(to_pem(made(ready, 101, 0xABC)))["crls"]
    assert facts["revoked"] == ["abc"]
    assert facts["number"] == 101
    assert 1 <= facts["age_hours"] < 1.1
    assert 24 * 9 - 1 < facts["hours_left"] <= 24 * 9


def _not_signed_by_its_issuer(host: Any) -> str:
    # It names the right key and is signed by another one.
    forged = x509.CertificateRevocationListBuilder().issuer_name(host.pki.intermediate.subject)
    forged = forged.last_update(now() - DAY).next_update(now() + DAY)
    key = host.pki.intermediate.public_key()
    identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(key)
    forged = forged.add_extension(identifier, critical=False)
    forged = forged.add_extension(x509.CRLNumber(101), critical=False)
    return to_pem(forged.sign(make_key("p384"), hashes.SHA384()))


def _of_a_leaf(host: Any) -> str:
    """Signed by a CA that may sign certificates, but no lists."""
    key, issuer = host.pki.authority(usage=key_usage(key_cert_sign=True))
    host.issuers = to_pem(issuer)
    return to_pem(made(host, 101)) + to_pem(made(host, 101, issuer=issuer, key=key))


def _critical(host: Any) -> str:
    """Only about some certificates: taken for a full list it would hide the others."""
    builder = x509.CertificateRevocationListBuilder().issuer_name(host.pki.intermediate.subject)
    builder = builder.last_update(now() - DAY).next_update(now() + DAY)
    key = host.pki.intermediate.public_key()
    builder = builder.add_extension(
        x509.AuthorityKeyIdentifier.from_issuer_public_key(key), critical=False
    )
    builder = builder.add_extension(x509.CRLNumber(101), critical=False)
    builder = builder.add_extension(x509.DeltaCRLIndicator(100), critical=True)
    return to_pem(builder.sign(host.pki.intermediate_key, hashes.SHA384()))


@pytest.mark.parametrize(
    ("wrong", "reasons"),
    [
        (lambda _host: "no list at all", {"unreadable"}),
        (lambda host: to_pem(made(host, 101)).replace("\nMIH", "\nMIX"), {"unreadable"}),
        (lambda host: to_pem(made(host, 99)), {"crl_older"}),
        (lambda host: to_pem(made(host, 100, 0xABC)), {"crl_older"}),
        (
            lambda host: to_pem(made(host, 101, validity=(now() - 2 * DAY, now() - DAY))),
            {"crl_expired"},
        ),
        (
            lambda host: to_pem(made(host, 101, validity=(now() + DAY, now() + 2 * DAY))),
            {"crl_not_yet_valid"},
        ),
        (_not_signed_by_its_issuer, {"crl_bad_signature"}),
        (_of_a_leaf, {"crl_issuer_usage"}),
        (_critical, {"crl_not_complete"}),
        (lambda host: to_pem(made(host, 101)) + to_pem(made(host, 102)), {"crl_duplicate"}),
    ],
)  # fmt: skip
def test_a_wrong_list_is_refused_and_the_good_one_stays(
    ready: Any, snapshot: Callable[..., Any], wrong: Callable[[Any], str], reasons: set[str]
) -> None:
    before = snapshot(ready.directory)
    ready.issuers = None
    crl = wrong(ready)
    for check in (True, False):
        result = ready.publish(crl, check=check, issuers=ready.issuers)
        assert result.failed, result.text
        assert _reasons(result) == reasons
    assert snapshot(ready.directory) == before


def test_a_list_of_a_stranger_is_refused(
    ready: Any, other_pki: Any, snapshot: Callable[..., Any]
) -> None:
    """Even together with ours, and even if its issuer is given: no trusted root is behind it."""
    before = snapshot(ready.directory)
    theirs = made(ready, 7, issuer=other_pki.intermediate, key=other_pki.intermediate_key)
    both = to_pem(made(ready, 101)) + to_pem(theirs)
    for issuers in (None, to_pem(other_pki.intermediate)):
        assert _reasons(ready.publish(both, issuers=issuers)) == {"crl_issuer_unknown"}
    alone = ready.publish(to_pem(theirs))
    assert _reasons(alone) == {"crl_issuer_unknown", "crl_incomplete"}
    assert snapshot(ready.directory) == before


def test_roots_can_be_given_and_are_pinned(host: Any, other_pki: Any) -> None:
    """On a host without an identity, a proxy for example."""
    crl = host_crl = to_pem(made(host, 1))
    assert "no identity in use" in host.publish(crl)["msg"]
    roots = [{"certificate": to_pem(host.pki.root), "fingerprint": host.fingerprint}]
    issuers = to_pem(host.pki.intermediate)
    wrong = [{**roots[0], "fingerprint": fingerprint(other_pki.root)}]
    assert _reasons(host.publish(crl, trusted_roots=wrong, issuers=issuers)) == {"root_not_pinned"}
    assert _reasons(host.publish(crl, trusted_roots=roots)) == {"crl_issuer_unknown"}
    assert host.publish(crl, trusted_roots=roots, issuers=issuers)["changed"]
    assert (host.directory / "crl.pem").read_text() == host_crl


def test_a_list_by_the_root_comes_on_its_own_and_stays(ready: Any) -> None:
    """Made on the offline machine; the next list of the intermediate does not take it away."""
    by_root = made(ready, 1, issuer=ready.pki.root, key=ready.pki.root_key)
    result = ready.publish(to_pem(made(ready, 101)) + to_pem(by_root))
    assert [crl["number"] for crl in result["crls"]] == [101, 1]
    result = ready.publish(to_pem(made(ready, 102)))
    assert [crl["number"] for crl in result["crls"]] == [102, 1]
    assert not ready.publish(to_pem(made(ready, 103)) + to_pem(by_root), check=True).failed


def test_an_intermediate_that_its_root_revoked_is_not_accepted_any_more(ready: Any) -> None:
    serial = ready.pki.intermediate.serial_number
    by_root = made(ready, 1, serial, issuer=ready.pki.root, key=ready.pki.root_key)
    ready.publish(to_pem(made(ready, 101)) + to_pem(by_root))
    assert ready.request()["reasons"] == ["revoked"]
    request = ready.request()["request"]
    issued = ready.sign(request)["certificates"]["v1"]["certificate"]
    assert _reasons(ready.install(issued)) == {"revoked"}


def test_a_revoked_identity_is_due_and_its_certificate_never_installed_again(ready: Any) -> None:
    serial = load_certificate(ready.certificate, "x").serial_number
    ready.publish(to_pem(made(ready, 101, serial)))
    request = ready.request()
    assert request["reasons"] == ["revoked"]
    assert _reasons(ready.install(ready.certificate)) == {"revoked"}
    issued = ready.sign(request["request"])["certificates"]["v1"]["certificate"]
    assert ready.install(issued)["changed"]
    assert ready.request()["reasons"] == []


def test_a_list_that_is_still_to_be_published_counts_for_a_request(
    ready: Any, other_pki: Any
) -> None:
    serial = load_certificate(ready.certificate, "x").serial_number
    assert ready.request(crl=to_pem(made(ready, 101, serial)))["reasons"] == ["revoked"]
    forged = made(ready, 102, serial, key=other_pki.intermediate_key)
    assert ready.request(crl=to_pem(forged))["reasons"] == []
    assert ready.request(crl="none")["problems"][0]["reason"] == "unreadable"


def test_a_damaged_file_is_told_and_replaced(
    ready: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    path = ready.directory / "crl.pem"
    path.write_text("damaged")
    asked = ready.request()
    assert not asked.failed
    # Ansible writes warnings to stderr once its controller half is loaded in the process.
    assert "revocation lists are not looked at" in asked.text + capsys.readouterr().err
    assert ready.publish(to_pem(made(ready, 5)))["changed"]


def test_what_a_crash_left_beside_it_goes(ready: Any) -> None:
    (ready.directory / ".holdfast-old-1-crl.pem").write_text("old")
    assert ready.publish(to_pem(made(ready, 100)), check=True).failed  # another list, same number
    crl = (ready.directory / "crl.pem").read_text()
    assert len(ready.publish(crl)["changes"]) == 1
    assert not list(ready.directory.glob(".holdfast*"))
    assert not ready.publish(crl)["changed"]


@needs_root
def test_owner_and_mode(ready: Any) -> None:
    path = ready.directory / "crl.pem"
    path.chmod(0o600)
    crl = path.read_text()
    checked = ready.publish(crl, check=True, owner="nobody")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    applied = ready.publish(crl, owner="nobody", group="daemon")
    assert applied["changed"]
    assert checked["changed"]
    assert (path.owner(), path.group()) == ("nobody", "daemon")
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert not ready.publish(crl, owner="nobody", group="daemon")["changed"]
    assert ready.publish(crl, owner="no-such-user").failed


def test_a_clock_past_the_end_of_the_list(ready: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    crl = (ready.directory / "crl.pem").read_text()
    monkeypatch.setattr(mtls_crl, "now", lambda: now() + 10 * DAY)
    result = ready.publish(crl)
    assert _reasons(result) == {"crl_expired"}
    assert "issue a new one" in result["msg"]


@pytest.mark.parametrize("revoked", [False, True])
def test_openssl_honours_the_published_lists(
    host: Any, pki: Any, tmp_path: Path, revoked: bool
) -> None:
    """A handshake as the node makes it: the client's certificate is checked against crl.pem."""
    host.renew()
    serial = load_certificate(
        (host.directory / "current" / "certificate.pem").read_text(), "leaf"
    ).serial_number
    by_root = made(host, 1, issuer=pki.root, key=pki.root_key)
    lists = [made(host, 1, *([serial] if revoked else [])), by_root]
    host.publish("".join(map(to_pem, lists)))
    current = host.directory / "current"
    sides = []
    for protocol in (ssl.PROTOCOL_TLS_SERVER, ssl.PROTOCOL_TLS_CLIENT):
        context = ssl.SSLContext(protocol)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_cert_chain(current / "chain.pem", current / "key.pem")
        context.load_verify_locations(cafile=current / "ca.pem")
        context.load_verify_locations(cafile=host.directory / "crl.pem")
        context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF
        sides.append(context)
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = sides[0].wrap_bio(to_server, to_client, server_side=True)
    client = sides[1].wrap_bio(to_client, to_server)

    def shake() -> None:
        for side in (client, server, client, server):
            with contextlib.suppress(ssl.SSLWantReadError):
                side.do_handshake()

    if revoked:
        with pytest.raises(ssl.SSLCertVerificationError, match="revoked"):
            shake()
    else:
        shake()
        assert server.getpeercert(binary_form=True)
