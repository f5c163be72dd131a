# Copyright: (c) 2026, Holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The signature of a bundle's manifest, and the keys it is believed from.

It lies beside the archive, so that a change of key changes no archive. Verified on controllers and
hosts with the standard library alone; made on the controller (bundle_key).
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Iterable

from ansible_collections.holdfast.chain.plugins.module_utils import ed25519

SUFFIX = ".sig"
_KEY = re.compile(r"[0-9a-f]{64}")
_SIGNATURE = re.compile(r"[0-9a-f]{128}")
_MAX_BYTES = 4096


class SealError(Exception):
    """A signature is not there or not to be believed; the message says why and the way out."""


@dataclass(frozen=True)
class Seal:
    """public_key: 32 bytes, signature: 64 bytes, both as lower-case hexadecimal digits."""

    public_key: str
    signature: str

    def to_bytes(self) -> bytes:
        """As it is in the file beside the archive."""
        content = {"public_key": self.public_key, "signature": self.signature}
        return (json.dumps(content, indent=2) + "\n").encode()


def public_keys(given: Iterable[str], option: str) -> tuple[str, ...]:
    """Public keys in the order given, each once. Raises ValueError naming the option."""
    keys = []
    for text in given:
        key = str(text).strip()
        if not _KEY.fullmatch(key):
            raise ValueError(
                f"{option} = {key}: expected 64 hexadecimal digits, as node_bundle returned them "
                "in public_key"
            )
        if key not in keys:
            keys.append(key)
    return tuple(keys)


def read(archive: Path) -> Seal:
    """The seal beside an archive. Raises SealError."""
    path = Path(str(archive) + SUFFIX)
    try:
        with path.open("rb") as stream:
            found = json.loads(stream.read(_MAX_BYTES).decode())
        seal = Seal(found["public_key"], found["signature"])
        intact = _KEY.fullmatch(seal.public_key) and _SIGNATURE.fullmatch(seal.signature)
    except OSError as error:
        raise SealError(
            f"{path}: {error.strerror}; a bundle is the archive and the signature beside it, "
            "give both"
        ) from error
    except (ValueError, KeyError, TypeError):
        intact = None
    if not intact:
        raise SealError(f"{path}: it is no signature as node_bundle writes it; copy it again")
    return seal


def check(manifest: bytes, seal: Seal, trusted: Iterable[str], what: str) -> None:
    """Raise SealError unless a trusted key signed these very bytes; what: names the archive."""
    keys = list(trusted)
    if seal.public_key not in keys:
        raise SealError(
            f"{what}: signed by the unknown key {seal.public_key}, expected "
            f"{' or '.join(keys) or 'a key that is pinned, and none is'}; if this key is to be "
            "trusted, name it in node_bundle_public_keys (trusted_keys), otherwise do not install"
        )
    key, signature = bytes.fromhex(seal.public_key), bytes.fromhex(seal.signature)
    if not ed25519.verify(key, signature, manifest):
        raise SealError(
            f"{what}: wrong signature: manifest.json is not what {seal.public_key} signed; copy "
            "archive and signature again, or gather them again with node_bundle"
        )
