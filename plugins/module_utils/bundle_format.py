# Copyright: (c) 2026, Holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The archive in which a release travels from the controller to a host.

A plain tar (wheels are compressed already) with ``manifest.json``, ``requirements.txt``, a list of
what is in it (SPDX), the wheels of the node and all it depends on, and pip's own wheel to install
them with. Equal content gives equal bytes. The manifest has the hash of every other file, and is
signed (bundle_seal); who opens an archive checks both before using any of it.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from pathlib import Path
from typing import Any, Iterable, Mapping

from ansible_collections.holdfast.chain.plugins.module_utils import bundle_seal

FORMAT = 2
PACKAGE = "holdfast-node"
MANIFEST = "manifest.json"
REQUIREMENTS = "requirements.txt"
SBOM = "sbom.spdx.json"
WHEELS = "wheels/"
INSTALLER = "installer/"
# The earliest time a zip can hold, and so the time of everything in a wheel and an archive.
EPOCH = 315532800
MAX_FILE_BYTES = 256 * 1024 * 1024


class BrokenBundleError(Exception):
    """The archive is not what its maker wrote; the message names the file and the fault."""


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's bytes, hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        for block in iter(lambda: stream.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def pack(described: Mapping[str, Any], files: Mapping[str, bytes]) -> bytes:
    """The archive's bytes.

    described: release, version, python, target key. files: content by name within the archive.
    """
    manifest = dict(described)
    manifest["format"] = FORMAT
    manifest["package"] = PACKAGE
    manifest["files"] = {
        name: hashlib.sha256(content).hexdigest() for name, content in files.items()
    }
    content = dict(files)
    content[MANIFEST] = (json.dumps(manifest, indent=2, sort_keys=True) + "\n").encode()
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for name in sorted(content, key=lambda name: (name != MANIFEST, name)):
            member = tarfile.TarInfo(name)
            member.size = len(content[name])
            member.mtime = EPOCH
            member.mode = 0o644
            archive.addfile(member, io.BytesIO(content[name]))
    return out.getvalue()


def unpack(
    path: Path, into: Path | None, seal: bundle_seal.Seal, trusted: Iterable[str]
) -> dict[str, Any]:
    """Write the archive's files under an existing empty folder and return the manifest.

    Believes nothing but a manifest that one of the trusted keys signed. Only regular files that it
    names are written, and none before it has the hash it should have. into: None only checks.
    Raises BrokenBundleError, SealError, OSError.
    """
    try:
        with tarfile.open(str(path), "r:") as archive:
            content = _first(path, archive)
            bundle_seal.check(content, seal, trusted, str(path))
            manifest = _manifest(path, content)
            missing = set(manifest["files"])
            for member in archive:
                if member.name == MANIFEST:
                    continue
                if member.name not in missing or not member.isreg():
                    raise BrokenBundleError(_broken(path, "unexpected member " + member.name))
                content = _content(path, archive, member)
                _check_hash(path, member.name, manifest["files"][member.name], content)
                missing.discard(member.name)
                if into is not None:
                    target = into / member.name
                    target.parent.mkdir(exist_ok=True)
                    target.write_bytes(content)
    except (tarfile.TarError, EOFError) as error:
        raise BrokenBundleError(_broken(path, str(error))) from error
    if missing:
        raise BrokenBundleError(_broken(path, "missing " + ", ".join(sorted(missing))))
    return manifest


def manifest_bytes(path: Path) -> bytes:
    """The manifest as it is in the archive, checked by nothing; what a signature is made over.

    Raises BrokenBundleError, OSError.
    """
    try:
        with tarfile.open(str(path), "r:") as archive:
            return _first(path, archive)
    except (tarfile.TarError, EOFError) as error:
        raise BrokenBundleError(_broken(path, str(error))) from error


def _first(path: Path, archive: tarfile.TarFile) -> bytes:
    first = archive.next()
    if first is None or first.name != MANIFEST or not first.isreg():
        raise BrokenBundleError(_broken(path, "it does not start with " + MANIFEST))
    return _content(path, archive, first)


def _manifest(path: Path, content: bytes) -> dict[str, Any]:
    try:
        manifest = json.loads(content.decode())
    except ValueError as error:
        raise BrokenBundleError(_broken(path, f"{MANIFEST}: {error}")) from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise BrokenBundleError(_broken(path, f"expected {MANIFEST} of format {FORMAT}"))
    for key in ("release", "version", "python", "target", "package"):
        if not isinstance(manifest.get(key), str) or not manifest[key]:
            raise BrokenBundleError(_broken(path, f"{MANIFEST} lacks {key}"))
    names = manifest.get("files")
    if not isinstance(names, dict) or not all(_is_inside(name) for name in names):
        raise BrokenBundleError(_broken(path, f"{MANIFEST} names files outside of it"))
    return manifest


def _check_hash(path: Path, name: str, wanted: Any, content: bytes) -> None:
    actual = hashlib.sha256(content).hexdigest()
    if actual != wanted:
        raise BrokenBundleError(
            _broken(path, f"wrong hash of {name}: expected SHA-256 {wanted}, it has {actual}")
        )


def _is_inside(name: str) -> bool:
    folder, slash, leaf = name.rpartition("/")
    return leaf not in ("", ".", "..") and folder + slash in ("", WHEELS, INSTALLER)


def _content(path: Path, archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    if member.size > MAX_FILE_BYTES:
        raise BrokenBundleError(
            _broken(path, f"{member.name} is larger than {MAX_FILE_BYTES} bytes")
        )
    stream = archive.extractfile(member)
    content = stream.read() if stream else b""
    if len(content) != member.size:
        raise BrokenBundleError(_broken(path, f"{member.name} is cut short"))
    return content


def _broken(path: Path, fault: str) -> str:
    return (
        f"{path} is no intact bundle: {fault}; copy it again, or gather it again with node_bundle"
    )
