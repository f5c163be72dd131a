# SPDX-License-Identifier: GPL-3.0-or-later
"""The Python tools from the hashed lock in .venv, and the Ansible collections they need."""

from __future__ import annotations

import hashlib
import re
import shutil
import tempfile
import zipfile
from pathlib import Path

from .machine import python_for_tools
from .shell import COLLECTIONS, ROOT, STATE, VENV, environment, say, step, stream

LOCK = ROOT / "requirements.txt"
NODE = ROOT / "files" / "node"
# Galaxy is not reachable everywhere, PyPI is: its package `ansible` carries the collections.
BUNDLE = """\
ansible==14.5.0 --hash=sha256:245623ccc2d31d0f6f4bdb63168d550cad305fb032cc43d96e8f61ce8ab0ba84
"""
BUNDLE_PYTHON = "3.12"  # the bundle's own demand; its collections also run on older ones
WANTED = ("containers/podman",)  # as in requirements.yml


def digest(*parts: bytes) -> str:
    """SHA-256 over the parts, to tell whether something made earlier still fits."""
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


def locked(name: str) -> str:
    """The entry of one package in the lock, hashes included."""
    found = re.search(rf"^{name}==.*?(?=^\S)", LOCK.read_text(), re.MULTILINE | re.DOTALL)
    if not found:
        raise KeyError(f"{name} is not in {LOCK.name}")
    return found.group()


def make_venv() -> None:
    """Make .venv hold exactly the lock, and the node's own command in editable form."""
    wanted = digest(LOCK.read_bytes(), (NODE / "pyproject.toml").read_bytes())
    stamp = VENV / "holdfast-lock.sha256"
    if stamp.exists() and stamp.read_text() == wanted:
        return
    pip = [str(VENV / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "-q"]
    with step("making .venv from requirements.txt"):
        if not (VENV / "bin" / "python").exists():
            stream([python_for_tools(), "-m", "venv", str(VENV)])
        with tempfile.TemporaryDirectory() as scratch:
            only_uv = Path(scratch) / "uv.txt"
            only_uv.write_text(locked("uv"))
            stream([*pip, "install", "--require-hashes", "-r", str(only_uv)])
        env = environment(VIRTUAL_ENV=str(VENV), UV_NO_PROGRESS="1", UV_LINK_MODE="copy")
        stream(["uv", "pip", "sync", "--require-hashes", str(LOCK)], env=env, show=summary)
        editable = ["uv", "pip", "install", "--no-deps", "--no-build-isolation", "-e", str(NODE)]
        stream(editable, env=env, show=summary)
    stamp.write_text(wanted)


def summary(line: str) -> str | None:
    """Of uv's output, the lines that say what happened to how many packages."""
    return line if re.match(r"(Resolved|Prepared|Installed|Uninstalled|error)", line) else None


def get_collections() -> None:
    """Unpack the wanted collections, and link the checkout in as holdfast.chain."""
    own = COLLECTIONS / "ansible_collections" / "holdfast" / "chain"
    if not own.is_symlink() or own.resolve() != ROOT:
        own.parent.mkdir(parents=True, exist_ok=True)
        own.unlink(missing_ok=True)
        own.symlink_to(ROOT)
    stamp = COLLECTIONS / "bundle.sha256"
    wanted = digest(BUNDLE.encode(), *(name.encode() for name in WANTED))
    if stamp.exists() and stamp.read_text() == wanted:
        return
    with step(f"fetching collections: {', '.join(WANTED).replace('/', '.')}"):
        place = STATE / "bundle"
        place.mkdir(parents=True, exist_ok=True)
        lock = place / "bundle.txt"
        lock.write_text(BUNDLE)
        pip = [str(VENV / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "-q"]
        download = [*pip, "download", "--no-deps", "--only-binary=:all:", "--require-hashes"]
        download += ["--python-version", BUNDLE_PYTHON, "--dest", str(place), "-r", str(lock)]
        stream(download)
        with zipfile.ZipFile(next(place.glob("*.whl"))) as wheel:
            for name in WANTED:
                folder = f"ansible_collections/{name}/"
                shutil.rmtree(COLLECTIONS / folder, ignore_errors=True)
                members = [member for member in wheel.namelist() if member.startswith(folder)]
                wheel.extractall(COLLECTIONS, members)
                say(f"    {name.replace('/', '.')}: {len(members)} files")
        shutil.rmtree(place)
    stamp.write_text(wanted)
