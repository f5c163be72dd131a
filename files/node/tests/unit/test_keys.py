# SPDX-License-Identifier: Apache-2.0
"""Key files: private, never overwritten, never shown."""

import errno
import os
import stat

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from hypothesis import given
from hypothesis import strategies as st

from holdfast_node.chain.crypto import verify
from holdfast_node.errors import ConfigError
from holdfast_node.files import write_new
from holdfast_node.keys import KeySource, describe_key, load_key, new_key, parse_key_source, resolve


def pem(key, encryption=None):
    encryption = encryption or NoEncryption()
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)


def the_fault(*arguments):
    with pytest.raises(ConfigError) as raised:
        load_key(*arguments)
    assert len(raised.value.faults) == 1
    return raised.value.faults[0]


def test_a_new_key_is_read_back_and_signs(tmp_path):
    made = new_key(tmp_path / "a.key")
    loaded = load_key(tmp_path / "a.key")
    assert loaded.public_key == made.public_key
    assert verify(made.public_key, b"message", loaded.sign(b"message"))
    assert describe_key(loaded) == describe_key(made)
    assert describe_key(made)["address"].startswith("hf")


def test_a_new_key_is_its_owners_only_whatever_the_umask(tmp_path):
    before = os.umask(0)
    try:
        new_key(tmp_path / "a.key")
        os.umask(0o777)
        new_key(tmp_path / "b.key")
    finally:
        os.umask(before)
    for name in ("a.key", "b.key"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600


def test_a_key_is_never_overwritten(tmp_path):
    path = tmp_path / "a.key"
    new_key(path)
    before = path.read_bytes()
    with pytest.raises(ConfigError, match="never overwritten"):
        new_key(path)
    assert path.read_bytes() == before


def test_a_link_is_not_followed_to_write_a_key_elsewhere(tmp_path):
    (tmp_path / "a.key").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigError, match="never overwritten"):
        new_key(tmp_path / "a.key")
    assert not (tmp_path / "elsewhere").exists()


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"none/a\.key: No such file"):
        new_key(tmp_path / "none/a.key")


def test_a_file_that_could_not_be_written_leaves_nothing_behind(tmp_path, monkeypatch):
    """Half a key would stand in the way of the next try."""

    def full(_descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ConfigError, match="No space left on device"):
        new_key(tmp_path / "a.key")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o620, 0o601])
def test_a_key_that_others_can_touch_is_refused(tmp_path, mode):
    path = tmp_path / "a.key"
    new_key(path)
    path.chmod(mode)
    assert the_fault(path).startswith(f"{path}: mode {mode:04o}: expected 0600")


@pytest.mark.parametrize("mode", [0o400, 0o600])
def test_a_key_of_its_owner_is_taken(tmp_path, mode):
    path = tmp_path / "a.key"
    new_key(path)
    path.chmod(mode)
    assert load_key(path)


def test_a_credentials_group_bits_are_the_mask_of_its_access_list(tmp_path, monkeypatch):
    """systemd may grant the service its credential by an ACL, and then 0440 is what one sees."""
    new_key(tmp_path / "validator.key")
    (tmp_path / "validator.key").chmod(0o440)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert load_key(KeySource(credential="validator.key"))
    (tmp_path / "validator.key").chmod(0o444)
    assert "mode 0444" in the_fault(KeySource(credential="validator.key"))


def test_a_credential_needs_its_folder(tmp_path, monkeypatch):
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    source = KeySource(credential="validator.key")
    assert "LoadCredential=validator.key:PATH" in the_fault(source)
    assert resolve(source, tmp_path) == tmp_path / "validator.key"
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", "/run/credentials/x")
    assert str(resolve(source)) == "/run/credentials/x/validator.key"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"secret-that-must-not-show",
        b"-----BEGIN PRIVATE KEY-----\nsecret-that-must-not-show\n-----END PRIVATE KEY-----\n",
        pem(ec.generate_private_key(ec.SECP256R1())),
        pem(ed25519.Ed25519PrivateKey.generate(), BestAvailableEncryption(b"passphrase")),
    ],
)
def test_what_is_no_plain_ed25519_key_is_refused_without_showing_it(tmp_path, content):
    write_new(tmp_path / "a.key", content, 0o600)
    assert the_fault(tmp_path / "a.key") == (
        f"{tmp_path}/a.key: expected an Ed25519 key in PEM; make one with 'holdfast-node keys new'"
    )


def test_a_key_of_openssl_is_taken(tmp_path):
    """PKCS#8 is what `openssl genpkey -algorithm ed25519` writes."""
    key = ed25519.Ed25519PrivateKey.generate()
    write_new(tmp_path / "a.key", pem(key), 0o600)
    assert load_key(tmp_path / "a.key").public_key == key.public_key().public_bytes_raw()


def test_what_is_no_file_or_too_long_is_not_read(tmp_path):
    assert "not a file" in the_fault(tmp_path)
    os.mkfifo(tmp_path / "pipe", 0o600)
    assert "not a file" in the_fault(tmp_path / "pipe")
    write_new(tmp_path / "long.key", b"x" * 16_385, 0o600)
    assert "more than 16384 bytes" in the_fault(tmp_path / "long.key")
    assert "No such file" in the_fault(tmp_path / "none.key")


def test_sources_of_keys():
    assert parse_key_source("credential:validator.key") == KeySource(credential="validator.key")
    assert str(parse_key_source("/etc/a.key")) == "/etc/a.key"
    assert str(parse_key_source("credential:a")) == "credential:a"


@given(
    st.text()
    | st.none()
    | st.integers()
    | st.sampled_from(
        ["credential:", "credential:../x", "credential:a/b", "credential:.x", "a.key", "/a\nb"]
    )
)
def test_other_sources_of_keys_are_refused(value):
    """A credential's name cannot lead out of its folder, and a path is absolute."""
    if isinstance(value, str) and value.startswith("/") and not {"\n", "\x00"} & set(value):
        return
    with pytest.raises(ValueError, match="neither"):
        parse_key_source(value)
