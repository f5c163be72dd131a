# Copyright: (c) 2026, Holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The identity of a host on disk, and what is to be done about it.

    <directory>/pending/{key,request}.pem                a key that waits for its certificate
    <directory>/generations/<serial>/{key,certificate,chain,ca}.pem, manifest
    <directory>/current -> generations/<serial>          swapped in one step
    <directory>/crl.pem                                  see identity_crl

A generation is complete once its manifest is there and agrees with the files; it is written last.
So a crash leaves either the old pair or the new one current, and what it left half made is found
by the next run. The last two generations are kept.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Sequence

from ansible_collections.holdfast.chain.plugins.module_utils.files import (
    LEFTOVER_PREFIX,
    exists,
    leftovers,
)
from ansible_collections.holdfast.chain.plugins.module_utils.x509 import (
    RefusedError,
    fingerprint,
    is_signed_by,
    key_fingerprint,
    key_type_of,
    load_certificate,
    load_certificates,
    load_private_key,
    load_request,
    names_of,
    not_after,
    not_before,
    timestamp,
)

with contextlib.suppress(ImportError):  # x509.CRYPTOGRAPHY_ERROR tells
    from cryptography import x509

KEY, CERTIFICATE, CHAIN, CA, MANIFEST = (
    "key.pem",
    "certificate.pem",
    "chain.pem",
    "ca.pem",
    "manifest",
)
REQUEST = "request.pem"


@dataclass(frozen=True)
class Attributes:
    """Mode and numeric owner of a file."""

    mode: int
    uid: int
    gid: int


@dataclass(frozen=True)
class Generation:
    """A key with its certificates, complete and consistent; public facts only."""

    path: Path
    sequence: int
    leaf: x509.Certificate
    roots: Sequence[x509.Certificate]
    digests: dict[str, str]
    key_sha256: str
    key_attributes: Attributes
    intermediates: Sequence[x509.Certificate] = ()

    @property
    def root(self) -> x509.Certificate | None:
        """The one of its roots that the chain leads to; None if it leads to none."""
        last = self.intermediates[-1] if self.intermediates else self.leaf
        for root in self.roots:
            if root.subject == last.issuer and is_signed_by(last, root.public_key()):
                return root
        return None

    def facts(self) -> dict[str, Any]:
        """What modules return about it."""
        names = names_of(self.leaf)
        return {
            "serial": f"{self.leaf.serial_number:x}",
            "not_before": timestamp(not_before(self.leaf)),
            "not_after": timestamp(not_after(self.leaf)),
            "spiffe_id": names.uri[0] if names.uri else None,
            "dns": list(names.dns),
            "ip": list(names.ip),
            "key_type": key_type_of(self.leaf.public_key()),
            "sha256": fingerprint(self.leaf),
            "root_sha256": [fingerprint(root) for root in self.roots],
            "issuer_root_sha256": fingerprint(self.root) if self.root else None,
            "public_key_sha256": self.key_sha256,
            "path": str(self.path),
        }


@dataclass(frozen=True)
class Pending:
    """A key that waits, with its request."""

    request: x509.CertificateSigningRequest
    pem: str = field(repr=False)
    key_sha256: str = ""


@dataclass(frozen=True)
class Identity:
    """All there is in an identity's directory.

    fault: why what `current` points to is not usable; None if it is, or if there is no `current`.
    mismatch: whether that is because its key and certificate do not belong together.
    broken: the generation it is about, if there is one; it goes once another one is current.
    debris: what interrupted runs left: temporary names, incomplete generations, a broken pending.
    """

    directory: Path
    linked: bool = False
    current: Generation | None = None
    fault: str | None = None
    mismatch: bool = False
    broken: Path | None = None
    others: Sequence[Generation] = ()
    pending: Pending | None = None
    debris: Sequence[Path] = ()

    def generations(self) -> list[Generation]:
        """All complete generations, the current one first, then the newest."""
        newest = sorted(self.others, key=lambda one: one.sequence, reverse=True)
        return ([self.current] if self.current else []) + newest


class _IncompleteError(Exception):
    """A generation or a pending request is not what it should be."""


class _MismatchError(_IncompleteError):
    """A key is not the one of the certificate beside it."""


def read_identity(directory: Path, during_transaction: bool = False) -> Identity:
    """What is in a directory; a missing or empty one gives an empty Identity.

    during_transaction: the temporary names in it are those of a transaction that is not over.

    Raises RefusedError where `current` is no symbolic link: somebody else's files are not touched.
    """
    link = directory / "current"
    if exists(link) and not link.is_symlink():
        raise RefusedError(
            [
                (
                    "not_an_identity",
                    f"{link}: is no symbolic link: move it away, or use another directory",
                )
            ]
        )
    base = directory / "generations"
    target = Path(os.path.realpath(str(link))) if link.is_symlink() else None
    debris = [*leftovers(directory), *leftovers(base)]
    identity = Identity(directory, linked=target is not None)
    others: list[Generation] = []
    for path in _directories(base):
        is_current = target is not None and path.resolve() == target
        try:
            generation = _read_generation(path)
        except _IncompleteError as error:
            if is_current:
                identity = replace(
                    identity,
                    fault=str(error),
                    mismatch=isinstance(error, _MismatchError),
                    broken=path,
                )
            else:
                debris.append(path)
            continue
        debris += leftovers(path)
        if is_current:
            identity = replace(identity, current=generation)
        else:
            others.append(generation)
    if target is not None and identity.current is None and identity.fault is None:
        identity = replace(
            identity, fault=f"{link}: points to {target}: no complete generation is there"
        )
    pending, broken = _read_pending(directory / "pending")
    debris += broken
    if during_transaction:
        debris = [path for path in debris if not path.name.startswith(LEFTOVER_PREFIX)]
    return replace(identity, others=tuple(others), pending=pending, debris=tuple(debris))


def _directories(base: Path) -> list[Path]:
    if not base.is_dir():
        return []
    return sorted(path for path in base.iterdir() if not path.name.startswith("."))


def _read_generation(path: Path) -> Generation:
    try:
        manifest = json.loads((path / MANIFEST).read_text("ascii"))
        recorded, sequence = dict(manifest["sha256"]), int(manifest["sequence"])
        digests = {name: _digest((path / name).read_bytes()) for name in recorded}
        leaf = load_certificate((path / CERTIFICATE).read_text("ascii"), str(path / CERTIFICATE))
        roots = load_certificates((path / CA).read_text("ascii"), str(path / CA))
        chain = load_certificates((path / CHAIN).read_text("ascii"), str(path / CHAIN))
        key = load_private_key((path / KEY).read_bytes())
        attributes = attributes_of(path / KEY)
    except (OSError, ValueError, KeyError, TypeError, RefusedError) as error:
        raise _IncompleteError(f"{path}: {error}") from error
    key_sha256 = key_fingerprint(key.public_key())
    if key_sha256 != key_fingerprint(leaf.public_key()):
        raise _MismatchError(f"{path}: {KEY} is not the key of {CERTIFICATE}")
    if digests != recorded or set(recorded) != {CERTIFICATE, CHAIN, CA}:
        raise _IncompleteError(f"{path}: files differ from its {MANIFEST}")
    return Generation(
        path,
        sequence,
        leaf,
        tuple(roots),
        digests,
        key_sha256,
        attributes,
        intermediates=tuple(chain[1:]),
    )


def _read_pending(path: Path) -> tuple[Pending | None, list[Path]]:
    """The pending request, or what is there instead of a whole one."""
    if not exists(path):
        return None, []
    try:
        key = load_private_key((path / KEY).read_bytes())
        pem = (path / REQUEST).read_text("ascii")
        request = load_request(pem, str(path / REQUEST))
        key_sha256 = key_fingerprint(key.public_key())
        secret = attributes_of(path / KEY).mode & 0o077 == 0
        sound = request.is_signature_valid and secret
    except (OSError, ValueError, TypeError, RefusedError):
        return None, [path]
    if not sound or key_sha256 != key_fingerprint(request.public_key()):
        return None, [path]
    return Pending(request, pem, key_sha256), leftovers(path)


def attributes_of(path: Path) -> Attributes:
    """Mode and owner of a file, not following links."""
    status = path.lstat()
    return Attributes(status.st_mode & 0o7777, status.st_uid, status.st_gid)


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def find_key(directory: Path, key_sha256: str) -> bytes | None:
    """The private key on this host that belongs to a public key, as it is on disk; None if none.

    The pending key comes first; those of earlier generations let a certificate be put back.
    """
    for path in [directory / "pending", *_directories(directory / "generations")]:
        try:
            content = (path / KEY).read_bytes()
            key = load_private_key(content)
        except (OSError, ValueError, TypeError):
            continue
        if key_fingerprint(key.public_key()) == key_sha256:
            return content
    return None
