# SPDX-License-Identifier: Apache-2.0
"""The configuration: what the files that it names must hold; no secret is shown."""

import base64
import re
from datetime import datetime, timedelta

import pytest
from config_support import edit, the_fault
from hypothesis import given, settings
from hypothesis import strategies as st
from net_support import Pki

from holdfast_node import config_check, devnet_files
from holdfast_node.config import examine, load


def test_the_certificate_must_carry_this_nodes_name(v1, layout):
    for file in ("chain.pem", "key.pem"):
        (v1.folder / "tls" / file).write_bytes(
            (layout.members[1].folder / "tls" / file).read_bytes()
        )
    fault = the_fault(v1)
    assert "carries spiffe://devnet.localhost/chain/devnet/node/v2: expected exactly" in fault
    assert "expected exactly spiffe://devnet.localhost/chain/devnet/node/v1;" in fault


def test_certificate_and_key_must_be_a_pair(v1, layout):
    (v1.folder / "tls/key.pem").write_bytes((layout.members[1].folder / "tls/key.pem").read_bytes())
    assert "not the key of tls.certificate: expected a pair" in the_fault(v1)


def test_the_certificate_must_be_of_the_pinned_ca(v1, tmp_path):
    other = devnet_files.prepare(tmp_path / "other", 4, 26_600)
    (v1.folder / "tls/ca.pem").write_bytes((other.members[0].folder / "tls/ca.pem").read_bytes())
    assert "not signed by the CA of tls.ca" in the_fault(v1)


def add_roots(v1, tmp_path):
    """Trust another root, too, as in a rollover."""
    authority = Pki(tmp_path / "other")
    with (v1.folder / "tls/ca.pem").open("ab") as file:
        file.write((authority.folder / "ca.pem").read_bytes())


def test_every_root_in_the_file_is_trusted(v1, tmp_path):
    add_roots(v1, tmp_path)
    assert examine(v1.config)[1:] == ([], [])


def test_a_root_that_has_expired_and_is_not_ours_is_only_a_warning(v1, tmp_path, monkeypatch):
    """The other one of a rollover: it must not keep a node from starting."""
    add_roots(v1, tmp_path)  # valid for nine days
    shift_clock(monkeypatch, 10)
    _, faults, warnings = examine(v1.config)
    assert faults == []
    assert re.fullmatch(r"tls.ca = .*: CN=root expired at .*", warnings[0])


def publish(v1, tmp_path, *leaves, **how):
    """Have v1 look at a list of an authority; that one's issuer is none of v1's."""
    path = Pki(tmp_path / "lists").revoke(*leaves, **how)
    edit(v1, r"^\[tls\]\n", f'[tls]\ncrl = "{path}"\n')
    return path


def test_a_list_that_is_not_there_revokes_nothing(v1, tmp_path):
    publish(v1, tmp_path).unlink()
    assert examine(v1.config)[1:] == ([], [])
    assert load(v1.config).tls.crl is not None


def test_a_list_that_is_out_of_date_is_only_a_warning(v1, tmp_path):
    publish(v1, tmp_path, left=timedelta(hours=-1))
    _, faults, warnings = examine(v1.config)
    assert faults == []
    assert re.fullmatch(
        r"tls.crl = .*: out of date: .*; renew it \(playbook rotate_certs\)", warnings[0]
    )


def test_a_damaged_list_is_a_fault(v1, tmp_path):
    publish(v1, tmp_path).write_text("rubbish")
    assert re.fullmatch(r"tls.crl = .*: no list in it: expected .*; publish .*", the_fault(v1))


def test_a_revoked_certificate_is_a_fault(tmp_path, v1):
    pki = Pki(tmp_path / "pki")
    folder, leaf = pki.issue("v1", uris=["spiffe://devnet.localhost/chain/devnet/node/v1"])
    for file in ("chain.pem", "key.pem"):
        (v1.folder / "tls" / file).write_bytes((folder / file).read_bytes())
    (v1.folder / "tls/ca.pem").write_bytes((pki.folder / "ca.pem").read_bytes())
    edit(v1, r"^\[tls\]\n", f'[tls]\ncrl = "{pki.revoke(leaf)}"\n')
    assert re.fullmatch(r"tls.crl = .*: revokes CN=v1, .*: expected .*; renew it", the_fault(v1))


def shift_clock(monkeypatch, days):
    class Shifted(datetime):
        @classmethod
        def now(cls, tz=None):
            return datetime.now(tz) + timedelta(days=days)

    monkeypatch.setattr(config_check, "datetime", Shifted)


def test_a_certificate_that_has_expired_is_a_fault(v1, monkeypatch):
    shift_clock(monkeypatch, 31)
    _, faults, warnings = examine(v1.config)
    assert warnings == []
    assert re.fullmatch(r"tls.certificate = .*: CN=v1 expired at .*; renew it", faults[0])
    assert re.fullmatch(r"tls.ca = .*: CN=holdfast devnet expired at .*; renew it", faults[1])
    assert len(faults) == 2


def test_a_certificate_of_tomorrow_is_a_fault_of_the_clock(v1, monkeypatch):
    shift_clock(monkeypatch, -1)
    _, faults, _ = examine(v1.config)
    assert re.fullmatch(r".* CN=v1 is valid from .*; check this host's clock", faults[0])
    assert len(faults) == 2


def test_a_certificate_that_expires_soon_is_only_a_warning(v1, monkeypatch):
    shift_clock(monkeypatch, 23)
    assert examine(v1.config)[2] == []
    shift_clock(monkeypatch, 25)
    config, faults, warnings = examine(v1.config)
    assert (config.name, faults) == ("v1", [])
    assert re.search(r"CN=v1 expires at .*; renew it", warnings[0])
    assert len(warnings) == 1


@pytest.mark.parametrize("file", ["validator.key", "tls/key.pem"])
def test_keys_that_others_may_read_are_refused(v1, file):
    (v1.folder / file).chmod(0o640)
    fault = the_fault(v1)
    assert f"{v1.folder / file}: mode 0640: expected 0600" in fault
    assert fault.startswith("validator_key = " if file == "validator.key" else "tls.key = ")


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        ("tls/key.pem", "expected an unencrypted private key in PEM"),
        ("tls/chain.pem", "expected certificates in PEM"),
        ("tls/ca.pem", "expected certificates in PEM"),
        ("validator.key", "expected an Ed25519 key in PEM"),
    ],
)
def test_files_of_garbage_are_named_and_not_shown(v1, file, expected):
    (v1.folder / file).write_bytes(b"rubbish \xff\x00" * 9)
    fault = the_fault(v1)
    assert expected in fault
    assert str(v1.folder / file) in fault
    assert "rubbish" not in fault


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    return devnet_files.prepare(tmp_path_factory.mktemp("shared"), 1, 26_600).members[0]


@given(data=st.data())
@settings(deadline=None)  # of time it takes what a busy machine gives
def test_no_damage_to_a_certificate_or_key_ends_in_a_traceback(shared, data):
    """Bits flip and files are cut; at worst the damage does not matter."""
    name = data.draw(st.sampled_from(["tls/chain.pem", "tls/ca.pem", "tls/key.pem"]))
    path = shared.folder / name
    whole = path.read_bytes()
    kind = whole.split(b"\n", 1)[0][11:-5]
    der = bytearray(pem_body(whole))
    for _ in range(data.draw(st.integers(1, 3))):
        der[data.draw(st.integers(0, len(der) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        end = data.draw(st.just(len(der)) | st.integers(1, len(der)))
        path.write_bytes(as_pem(kind, bytes(der[:end])))
        config, faults, _ = examine(shared.config)
    finally:
        path.write_bytes(whole)
    assert config is not None
    assert all(fault.startswith("tls.") for fault in faults)


def pem_body(pem):
    return base64.b64decode(b"".join(pem.split(b"\n")[1:-2]))


def as_pem(kind, der):
    lines = [
        b"-----BEGIN " + kind + b"-----",
        base64.b64encode(der),
        b"-----END " + kind + b"-----",
    ]
    return b"\n".join([*lines, b""])
