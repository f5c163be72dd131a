# Copyright: (c) 2026, Holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The archive in which a release travels from the controller to a host.

A plain tar (wheels are compressed already) with ``manifest.json``, ``requirements.txt``, the
wheels of the node and all it depends on, and pip's own wheel to install them with. Equal content
gives equal bytes. Who opens one checks every byte against the manifest before using any.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from pathlib import Path
from typing import Any, Mapping

FORMAT = 1
PACKAGE = "holdfast-node"
MANIFEST = "manifest.json"
REQUIREMENTS = "requirements.txt"
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


def unpack(path: Path, into: Path) -> dict[str, Any]:
    """Write the archive's files under an existing empty folder and return the manifest.

    Only regular files that the manifest names are written, and only if every one of them has the
    hash it says. Raises BrokenBundleError, OSError.
    """
    try:
        with tarfile.open(str(path), "r:") as archive:
            manifest = _manifest(path, archive)
            missing = set(manifest["files"])
            for member in archive:
                if member.name == MANIFEST:
                    continue
                wanted = manifest["files"].get(member.name)
                if wanted is None or not member.isreg() or member.name not in missing:
                    raise BrokenBundleError(_broken(path, "unexpected member " + member.name))
                content = _content(path, archive, member)
                if hashlib.sha256(content).hexdigest() != wanted:
                    raise BrokenBundleError(_broken(path, "wrong hash of " + member.name))
                missing.discard(member.name)
                target = into / member.name
                target.parent.mkdir(exist_ok=True)
                target.write_bytes(content)
    except (tarfile.TarError, EOFError) as error:
        raise BrokenBundleError(_broken(path, str(error))) from error
    if missing:
        raise BrokenBundleError(_broken(path, "missing " + ", ".join(sorted(missing))))
    return manifest


def _manifest(path: Path, archive: tarfile.TarFile) -> dict[str, Any]:
    first = archive.next()
    if first is None or first.name != MANIFEST or not first.isreg():
        raise BrokenBundleError(_broken(path, "it does not start with " + MANIFEST))
    try:
        manifest = json.loads(_content(path, archive, first).decode())
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
    return f"{path} is no intact bundle: {fault}; gather it again with node_bundle"
