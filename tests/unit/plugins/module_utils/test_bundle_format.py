# Copyright: (c) 2026, Holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The archive: equal bytes for equal content, and nothing believed that was not hashed."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from pathlib import Path

import pytest
from ansible_collections.holdfast.chain.plugins.module_utils import bundle_format
from ansible_collections.holdfast.chain.plugins.module_utils.bundle_format import (
    BrokenBundleError,
    pack,
    unpack,
)

ABOUT = {"release": "1.0-abc", "version": "1.0", "python": "3.11", "target": "cp311-x"}
FILES = {"requirements.txt": b"a==1\n", "wheels/a-1.whl": b"wheel", "installer/pip-1.whl": b"pip"}


def archive(tmp_path: Path, content: bytes) -> Path:
    path = tmp_path / "bundle.tar"
    path.write_bytes(content)
    return path


def tar(members: list) -> bytes:
    """A tar of (name or TarInfo, content) pairs."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as made:
        for name, content in members:
            member = name if isinstance(name, tarfile.TarInfo) else tarfile.TarInfo(name)
            member.size = len(content)
            made.addfile(member, io.BytesIO(content))
    return out.getvalue()


def manifest(files: dict, **different: object) -> bytes:
    hashes = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    about = {**ABOUT, "format": 1, "package": "holdfast-node", "files": hashes, **different}
    return json.dumps(about).encode()


def test_packing_twice_in_any_order_gives_the_same_bytes():
    assert pack(ABOUT, FILES) == pack(ABOUT, dict(reversed(list(FILES.items()))))


def test_what_was_packed_comes_out(tmp_path):
    into = tmp_path / "into"
    into.mkdir()
    found = unpack(archive(tmp_path, pack(ABOUT, FILES)), into)
    assert {key: found[key] for key in ABOUT} == ABOUT
    assert {
        path.relative_to(into).as_posix(): path.read_bytes()
        for path in into.rglob("*")
        if path.is_file()
    } == FILES


def test_every_cut_is_noticed(tmp_path):
    """An archive cut at any block, or with any one byte of a file changed, is refused."""
    whole = pack(ABOUT, FILES)
    end = whole.rindex(b"wheel") + len(b"wheel")
    for size in range(0, end, 512):
        with pytest.raises(BrokenBundleError):
            unpack(archive(tmp_path, whole[:size]), _fresh(tmp_path, size))
    for content in FILES.values():
        place = whole.rindex(content)
        damaged = whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :]
        with pytest.raises(BrokenBundleError, match="wrong hash"):
            unpack(archive(tmp_path, damaged), _fresh(tmp_path, f"d{place}"))


def _fresh(tmp_path: Path, name: object) -> Path:
    folder = tmp_path / f"into-{name}"
    folder.mkdir()
    return folder


@pytest.mark.parametrize(
    ("members", "fault"),
    [
        ([("other", b"")], "does not start with"),
        ([("manifest.json", b"{")], "manifest.json"),
        ([("manifest.json", manifest({}, format=2))], "of format 1"),
        ([("manifest.json", manifest({}, release=""))], "lacks release"),
        ([("manifest.json", manifest({"../evil": b"x"})), ("../evil", b"x")], "outside"),
        ([("manifest.json", manifest({"/evil": b"x"})), ("/evil", b"x")], "outside"),
        ([("manifest.json", manifest({"wheels/..": b"x"}))], "outside"),
        ([("manifest.json", manifest({})), ("wheels/extra", b"x")], "unexpected member"),
        ([("manifest.json", manifest({"wheels/a": b"x"}))], "missing wheels/a"),
    ],
)
def test_what_the_manifest_does_not_cover_is_refused(tmp_path, members, fault):
    into = _fresh(tmp_path, "x")
    with pytest.raises(BrokenBundleError, match=fault):
        unpack(archive(tmp_path, tar(members)), into)
    assert not (tmp_path / "evil").exists()


def test_a_link_in_place_of_a_file_is_refused(tmp_path):
    link = tarfile.TarInfo("wheels/a")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    content = tar([("manifest.json", manifest({"wheels/a": b""})), (link, b"")])
    with pytest.raises(BrokenBundleError, match="unexpected member"):
        unpack(archive(tmp_path, content), _fresh(tmp_path, "x"))


def test_a_file_larger_than_allowed_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(bundle_format, "MAX_FILE_BYTES", 4)
    with pytest.raises(BrokenBundleError, match="larger than 4 bytes"):
        unpack(archive(tmp_path, pack(ABOUT, FILES)), _fresh(tmp_path, "x"))
