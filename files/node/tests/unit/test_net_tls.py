# SPDX-License-Identifier: Apache-2.0
"""Certificates: who they name, and which files are fit for use."""

import shutil
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


def test_reload_takes_a_new_certificate(pki):
    tls = pki.tls("v4")
    before, contexts = tls.not_after, (tls.server, tls.client)
    pki.issue("v4", lifetime=timedelta(hours=2))
    assert tls.reload()
    assert tls.not_after > before
    assert tls.server is not contexts[0]
    assert tls.client is not contexts[1]


def test_reload_keeps_what_works_when_the_new_files_do_not(pki):
    """Key of the old pair, certificate of the new one: the state in the middle of a bad renewal."""
    tls = pki.tls("v5")
    before, server = tls.not_after, tls.server
    folder, _ = pki.issue("v5")
    other, _ = pki.issue("v6")
    shutil.copy(other / "key.pem", folder / "key.pem")
    assert not tls.reload()
    assert tls.not_after == before
    assert tls.server is server
