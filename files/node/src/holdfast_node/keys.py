# SPDX-License-Identifier: Apache-2.0
"""Ed25519 key files: PKCS#8 PEM (RFC 8410), readable by their owner only.

A key that systemd hands to the service is named `credential:NAME` and lies in
`$CREDENTIALS_DIRECTORY`.
"""

import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from holdfast_node.chain.crypto import PrivateKey, account_of, format_address
from holdfast_node.errors import ConfigError
from holdfast_node.files import write_new

_CREDENTIAL: Final = re.compile(r"credential:([A-Za-z0-9_][A-Za-z0-9_.-]{0,99})")
_MAX_KEY_FILE_BYTES: Final = 16_384


@dataclass(frozen=True)
class KeySource:
    """Where a key is: a path, or the name of a systemd credential."""

    path: Path | None = None
    credential: str | None = None

    def __str__(self) -> str:
        return str(self.path) if self.path else f"credential:{self.credential}"


def parse_key_source(value: Any) -> KeySource:
    """Read an absolute path or `credential:NAME`; raises `ValueError`."""
    text = value if isinstance(value, str) else ""
    credential = _CREDENTIAL.fullmatch(text)
    if credential:
        return KeySource(credential=credential[1])
    if not text.startswith("/") or "\x00" in text or "\n" in text:
        raise ValueError("neither an absolute path nor a credential")
    return KeySource(path=Path(text))


def new_key(path: Path) -> PrivateKey:
    """Make a key and write it to `path`, which must not exist; mode 0600.

    Raises `ConfigError`.
    """
    key = PrivateKey(os.urandom(32))
    form = Ed25519PrivateKey.from_private_bytes(key.seed)
    pem = form.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    write_new(path, pem, 0o600)
    return key


def load_key(source: KeySource | Path, credentials: Path | None = None) -> PrivateKey:
    """Read a key; `credentials` stands for `$CREDENTIALS_DIRECTORY` if given.

    Raises `ConfigError` with the path and never with what the file contains.
    """
    if isinstance(source, Path):
        source = KeySource(path=source)
    path = resolve(source, credentials)
    data = read_private(path, credential=source.credential is not None)
    try:
        loaded = load_pem_private_key(data, password=None)
    # Every way in which a key can be unusable: no PEM, encrypted, of an unknown algorithm.
    except (ValueError, TypeError, UnsupportedAlgorithm):
        loaded = None
    if not isinstance(loaded, Ed25519PrivateKey):
        raise ConfigError(
            [f"{path}: expected an Ed25519 key in PEM; make one with 'holdfast-node keys new'"]
        )
    return PrivateKey(loaded.private_bytes_raw())


def resolve(source: KeySource, credentials: Path | None = None) -> Path:
    """The path of a key. Raises `ConfigError` if there is no folder of credentials."""
    if source.path:
        return source.path
    folder = credentials or os.environ.get("CREDENTIALS_DIRECTORY")
    if not folder:
        fault = f"{source}: $CREDENTIALS_DIRECTORY is not set: expected systemd's LoadCredential="
        way_out = "name the folder with --credentials, or give a path"
        raise ConfigError([f"{fault}{source.credential}:PATH; {way_out}"])
    return Path(folder) / str(source.credential)


def read_private(path: Path, *, credential: bool = False) -> bytes:
    """Read a private file of at most 16 KiB that nobody but its owner may read.

    Where systemd grants a service its credentials by an access control list, the file's group bits
    show the mask of that list; so with `credential` they are not looked at.

    Raises `ConfigError`.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise ConfigError([f"{path}: {error.strerror}: expected a readable private key"]) from error
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise ConfigError([f"{path}: not a file: expected a private key"])
        others = stat.S_IRWXO if credential else stat.S_IRWXO | stat.S_IRWXG
        if status.st_mode & others:
            mode = stat.S_IMODE(status.st_mode)
            fault = f"{path}: mode {mode:04o}: expected 0600, its owner's only"
            raise ConfigError([f"{fault}; chmod 600 it, and renew it if others may have read it"])
        data = os.read(descriptor, _MAX_KEY_FILE_BYTES + 1)
    finally:
        os.close(descriptor)
    if len(data) > _MAX_KEY_FILE_BYTES:
        raise ConfigError([f"{path}: more than {_MAX_KEY_FILE_BYTES} bytes: not a private key"])
    return data


def describe_key(key: PrivateKey) -> dict[str, str]:
    """What may be known of a key: public key in hexadecimal, and address."""
    return {
        "public_key": key.public_key.hex(),
        "address": format_address(account_of(key.public_key)),
    }
