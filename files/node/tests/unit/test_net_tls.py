# SPDX-License-Identifier: Apache-2.0
"""Certificates: who they name, and which files are fit for use."""

from datetime import timedelta

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID
from net_support import CHAIN, DOMAIN, Pki, spiffe_id

from holdfast_node.errors import ConfigError
from holdfast_node.net.tls import identity_of
from holdfast_node.net.wire import PeerError


@pytest.fixture(scope="module")
def pki(tmp_path_factory):
    return Pki(tmp_path_factory.mktemp("pki"))


def identify(pki, **issue):
    _, leaf = pki.issue("v1", **issue)
    return identity_of(leaf.public_bytes(Encoding.DER), trust_domain=DOMAIN, chain_id=CHAIN), leaf


def test_the_name_is_that_of_the_spiffe_id(pki):
    identity, leaf = identify(pki)
    assert identity.name == "v1"
    assert identity.not_after == leaf.not_valid_after_utc.timestamp()


@pytest.mark.parametrize(
    ("uris", "reason"),
    [
        ([], "not_member"),
        ([spiffe_id(DOMAIN, CHAIN, "v1"), spiffe_id(DOMAIN, CHAIN, "v2")], "not_member"),
        ([spiffe_id(DOMAIN, "other", "v1")], "other_chain"),
        ([spiffe_id("other.example", CHAIN, "v1")], "not_member"),
        ([spiffe_id(DOMAIN, CHAIN, "")], "not_member"),
        ([spiffe_id(DOMAIN, CHAIN, "v1/admin")], "not_member"),
        ([f"spiffe://{DOMAIN}/operator/v1"], "not_member"),
        ([f"https://{DOMAIN}/chain/{CHAIN}/node/v1"], "not_member"),
    ],
)
def test_any_other_name_is_refused(pki, uris, reason):
    with pytest.raises(PeerError) as caught:
        identify(pki, uris=uris)
    assert caught.value.reason == reason


def test_what_is_no_certificate_is_malformed():
    with pytest.raises(PeerError) as caught:
        identity_of(b"rubbish", trust_domain=DOMAIN, chain_id=CHAIN)
    assert caught.value.reason == "malformed"


@pytest.mark.parametrize(
    "issue",
    [
        {"lifetime": timedelta(seconds=-1)},
        {"uris": [spiffe_id(DOMAIN, CHAIN, "v9")]},
        {"uris": []},
        {"usages": [ExtendedKeyUsageOID.SERVER_AUTH]},
        {"usages": [ExtendedKeyUsageOID.CLIENT_AUTH]},
    ],
    ids=["expired", "another's", "nobody's", "server only", "client only"],
)
def test_an_unfit_certificate_is_refused_at_start(pki, issue):
    with pytest.raises(ConfigError, match=r"tls\.certificate"):
        pki.tls("v3", **issue)


def test_certificate_of_another_ca_is_refused_at_start(pki, tmp_path):
    folder, _ = Pki(tmp_path).issue("v1")
    with pytest.raises(ConfigError, match="certificate verify failed"):
        pki.load("v1", folder)


def test_missing_file_is_named(pki, tmp_path):
    with pytest.raises(ConfigError, match="No such file"):
        pki.load("v1", tmp_path)


def test_links_followed_lead_to_one_pair(pki, tmp_path, monkeypatch):
    """The link is swapped between the reading of the certificate and that of the key."""
    old, _ = pki.issue("v4")
    old = old.rename(tmp_path / "old")
    new, leaf = pki.issue("v4")
    new = new.rename(tmp_path / "new")
    current = tmp_path / "current"
    current.symlink_to(old)
    tls = pki.load("v4", current)
    real = type(tls)._load

    def swap_first(self, *paths):
        current.unlink()
        current.symlink_to(new)
        monkeypatch.setattr(type(tls), "_load", real)
        return real(self, *paths)

    monkeypatch.setattr(type(tls), "_load", swap_first)
    assert tls.load().identity.certificate == leaf


def test_fingerprint_is_another_after_each_change(pki, tmp_path):
    folder, _ = pki.issue("v5")
    folder = folder.rename(tmp_path / "v5")
    tls = pki.load("v5", folder)
    seen = [tls.fingerprint()]
    for change in (
        lambda: pki.issue("v5")[0].rename(tmp_path / "next"),
        lambda: (folder.rename(tmp_path / "before"), folder.symlink_to(tmp_path / "next")),
        pki.revoke,
        pki.crl.unlink,
    ):
        change()
        seen.append(tls.fingerprint())
    assert seen[0] == seen[1]
    assert len(set(seen)) == 3
    assert seen[2] == seen[4]
