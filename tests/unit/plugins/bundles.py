# Copyright: (c) 2026, Holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What tests of bundles are made of: small wheels, a key, and archives signed with it."""

from __future__ import annotations

import base64
import hashlib
import io
import zipfile
from pathlib import Path
from typing import Mapping

from ansible_collections.holdfast.chain.plugins.module_utils import (
    bundle_format,
    bundle_key,
    bundle_seal,
)
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey


def wheel(name: str, version: str, headers: str = "", files: Mapping[str, str] = {}) -> bytes:
    """A wheel; headers: further lines of its METADATA, files: its content."""
    folder = f"{name.replace('-', '_')}-{version}.dist-info/"
    metadata = f"Metadata-Version: 2.4\nName: {name}\nVersion: {version}\n{headers}"
    tags = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    content = {**files, folder + "METADATA": metadata, folder + "WHEEL": tags}
    lines = []
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as made:
        for path, text in content.items():
            made.writestr(zipfile.ZipInfo(path), text)
            digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest())
            lines.append(f"{path},sha256={digest.decode().rstrip('=')},{len(text)}\n")
        record = folder + "RECORD"
        made.writestr(zipfile.ZipInfo(record), "".join(lines) + record + ",,\n")
    return out.getvalue()


def signer(seed: int) -> bundle_key.Signer:
    """The same key for the same seed."""
    key = Ed25519PrivateKey.from_private_bytes(bytes([seed]) * 32)
    formats = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    return bundle_key.Signer(key.private_bytes(serialization.Encoding.PEM, *formats), Path("test"))


ONE, OTHER = signer(1), signer(2)


def sign(path: Path, by: bundle_key.Signer = ONE) -> bundle_seal.Seal:
    """Put a signature beside an archive, as node_bundle does, and return it."""
    seal = by.seal(bundle_format.manifest_bytes(path))
    Path(str(path) + bundle_seal.SUFFIX).write_bytes(seal.to_bytes())
    return seal
