# Copyright: (c) 2026, Holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The key that signs releases, on the controller: made once, read, used. Never leaves its file."""

from __future__ import annotations

import os
import stat
import traceback
from pathlib import Path

from ansible_collections.holdfast.chain.plugins.module_utils.bundle_seal import Seal

CRYPTOGRAPHY_ERROR: str | None = None
try:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
except ImportError:
    CRYPTOGRAPHY_ERROR = traceback.format_exc()


class KeyFileError(Exception):
    """The key's file cannot be used; the message names it and the way out, and nothing of it."""


def new_key() -> bytes:
    """A fresh private key as PKCS#8 PEM."""
    return Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


class Signer:
    """Signs manifests with one private key."""

    def __init__(self, pem: bytes, path: Path) -> None:
        try:
            key = serialization.load_pem_private_key(pem, None)
        except (ValueError, TypeError) as error:
            raise KeyFileError(
                f"signing_key = {path}: expected an unencrypted private key as PKCS#8 PEM; give "
                "another path to have one made"
            ) from error
        if not isinstance(key, Ed25519PrivateKey):
            raise KeyFileError(
                f"signing_key = {path}: expected an Ed25519 key; give another path to have one made"
            )
        self._key = key
        raw = serialization.Encoding.Raw, serialization.PublicFormat.Raw
        self.public_key: str = key.public_key().public_bytes(*raw).hex()

    def seal(self, manifest: bytes) -> Seal:
        """The signature of a manifest's bytes; the same each time."""
        return Seal(self.public_key, self._key.sign(manifest).hex())


def load(path: Path) -> Signer | None:
    """The signer of a key file; None if there is none yet. Raises KeyFileError, OSError."""
    try:
        handle = os.open(str(path), os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    with os.fdopen(handle, "rb") as stream:
        mode = stat.S_IMODE(os.fstat(stream.fileno()).st_mode)
        if mode & 0o077:
            raise KeyFileError(
                f"signing_key = {path}: mode {mode:04o} lets others at it, expected 0600; if "
                "nobody else can have read it, set that, otherwise make a new key"
            )
        return Signer(stream.read(65536), path)
