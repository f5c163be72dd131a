# Copyright: (c) 2026, Holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The archive: equal bytes for equal content, and nothing believed that was not hashed."""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import sys
import tarfile
from pathlib import Path

import ansible_collections
import pytest
from ansible_collections.holdfast.chain.plugins.module_utils import bundle_format, bundle_seal
from ansible_collections.holdfast.chain.plugins.module_utils.bundle_format import (
    BrokenBundleError,
    pack,
)
from bundles import ONE, OTHER, sign

ABOUT = {"release": "1.0-abc", "version": "1.0", "python": "3.11", "target": "cp311-x"}
FILES = {"requirements.txt": b"a==1\n", "wheels/a-1.whl": b"wheel", "installer/pip-1.whl": b"pip"}


def unpack(path: Path, into: Path) -> dict:
    """With a signature that is right, wherever one can be made."""
    try:
        seal = sign(path)
    except BrokenBundleError:
        seal = bundle_seal.Seal(ONE.public_key, "0" * 128)
    return bundle_format.unpack(path, into, seal, [ONE.public_key])


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
    about = {**ABOUT, "format": 2, "package": "holdfast-node", "files": hashes, **different}
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
        ([("manifest.json", manifest({}, format=1))], "of format 2"),
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


def test_checking_writes_nothing(tmp_path):
    path = archive(tmp_path, pack(ABOUT, FILES))
    found = bundle_format.unpack(path, None, sign(path), [ONE.public_key])
    assert found["release"] == ABOUT["release"]
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["bundle.tar", "bundle.tar.sig"]


def test_a_wrong_hash_names_file_and_both_hashes(tmp_path):
    content = tar([("manifest.json", manifest({"wheels/a": b"x"})), ("wheels/a", b"y")])
    expected, actual = (hashlib.sha256(text).hexdigest() for text in (b"x", b"y"))
    with pytest.raises(BrokenBundleError) as caught:
        unpack(archive(tmp_path, content), _fresh(tmp_path, "x"))
    assert f"wrong hash of wheels/a: expected SHA-256 {expected}, it has {actual}" in str(
        caught.value
    )


def test_every_byte_of_the_manifest_is_signed(tmp_path):
    """Whatever one changes in it, the signature is wrong before anything is read from it."""
    whole = pack(ABOUT, FILES)
    path = archive(tmp_path, whole)
    seal = sign(path)
    content = bundle_format.manifest_bytes(path)
    start = whole.index(content)
    for place in range(start, start + len(content), 7):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(bundle_seal.SealError, match="wrong signature: manifest"):
            bundle_format.unpack(path, _fresh(tmp_path, place), seal, [ONE.public_key])
        assert not list((tmp_path / f"into-{place}").iterdir())


def test_an_unknown_key_is_named_with_those_that_are_known(tmp_path):
    path = archive(tmp_path, pack(ABOUT, FILES))
    with pytest.raises(bundle_seal.SealError) as caught:
        bundle_format.unpack(path, None, sign(path, OTHER), [ONE.public_key])
    assert f"unknown key {OTHER.public_key}, expected {ONE.public_key}" in str(caught.value)


def test_the_signature_of_another_archive_is_wrong(tmp_path):
    path = archive(tmp_path, pack({**ABOUT, "release": "1.0-old"}, FILES))
    seal = sign(path)
    path = archive(tmp_path, pack(ABOUT, FILES))
    with pytest.raises(bundle_seal.SealError, match="wrong signature"):
        bundle_format.unpack(path, None, seal, [ONE.public_key])


def test_a_host_verifies_with_the_standard_library_alone(tmp_path):
    """In a Python that does not even look for other packages."""
    path = archive(tmp_path, pack(ABOUT, FILES))
    sign(path)
    program = (
        "from pathlib import Path\n"
        "from ansible_collections.holdfast.chain.plugins.module_utils import bundle_format as f\n"
        "from ansible_collections.holdfast.chain.plugins.module_utils import bundle_seal\n"
        f"path = Path({str(path)!r})\n"
        f"print(f.unpack(path, None, bundle_seal.read(path), [{ONE.public_key!r}])['release'])\n"
    )
    root = str(Path(next(iter(ansible_collections.__path__))).parent)
    done = subprocess.run(
        [sys.executable, "-S", "-c", program],
        env={"PYTHONPATH": root},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout.strip(), done.stderr) == (ABOUT["release"], "")
