# Copyright: (c) 2026, Holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Releases on a host: read what is installed, plan, install, activate.

``<base>/releases/<release>/`` is a virtual environment each, complete once it has ``release.json``;
``<base>/current`` is a relative link to one of them. ``<base>/release.keys`` has the public keys
that releases are taken from, one a line.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Iterable, Mapping

from ansible_collections.holdfast.chain.plugins.module_utils import bundle_format, bundle_seal
from ansible_collections.holdfast.chain.plugins.module_utils.files import leftovers
from ansible_collections.holdfast.chain.plugins.module_utils.plan import Change, Plan
from ansible_collections.holdfast.chain.plugins.module_utils.transaction import Transaction

MARKER = "release.json"
KEYS = "release.keys"
RELEASE_NAME = re.compile(r"[0-9A-Za-z][0-9A-Za-z.+_-]{0,99}")
_TIMEOUT = 600


class ReleaseError(Exception):
    """A release could not be installed or activated; the message names it and the way out."""


@dataclass(frozen=True)
class Installed:
    """A complete release. sha256: of the archive it came from. installed_at: Unix seconds."""

    sha256: str
    installed_at: float


@dataclass(frozen=True)
class State:
    """What a base folder holds. incomplete: cut short by a crash. debris: left by one.

    pinned: the public keys releases are taken from.
    """

    base: Path
    complete: Mapping[str, Installed] = field(default_factory=dict)
    incomplete: frozenset[str] = frozenset()
    debris: tuple[str, ...] = ()
    current: str | None = None
    pinned: tuple[str, ...] = ()

    def folder(self, release: str) -> Path:
        return self.base / "releases" / release


@dataclass(frozen=True)
class Wanted:
    """state: present, active or absent. sha256: of the archive; None if it is not known.

    trusted: the public keys to pin, () to leave those that are. first: to pin where none is.
    """

    release: str
    state: str
    sha256: str | None
    keep: int
    trusted: tuple[str, ...] = ()
    first: tuple[str, ...] = ()

    def keys(self, state: State) -> tuple[str, ...]:
        """What is to be pinned, and so what an archive may be signed with."""
        return self.trusted or state.pinned or self.first


def read_state(base: Path) -> State:
    """What is installed under base, which need not exist. Raises ReleaseError."""
    complete: dict[str, Installed] = {}
    incomplete = set()
    releases = base / "releases"
    debris = tuple(str(path) for folder in (base, releases) for path in leftovers(folder))
    for folder in sorted(releases.iterdir()) if releases.is_dir() else []:
        if str(folder) in debris or folder.is_symlink() or not folder.is_dir():
            continue
        try:
            marker = json.loads((folder / MARKER).read_text())
            complete[folder.name] = Installed(marker["sha256"], float(marker["installed_at"]))
        except (OSError, ValueError, KeyError, TypeError):
            incomplete.add(folder.name)
    link = base / "current"
    current = Path(os.readlink(str(link))).name if link.is_symlink() else None
    return State(base, complete, frozenset(incomplete), debris, current, _pinned(base / KEYS))


def _pinned(path: Path) -> tuple[str, ...]:
    try:
        lines = path.read_text().split()
    except FileNotFoundError:
        return ()
    try:
        return bundle_seal.public_keys(lines, str(path))
    except ValueError as error:
        raise ReleaseError(f"{error}; put it right, or remove the file to pin anew") from error


def plan(state: State, wanted: Wanted) -> Plan:
    """The changes that lead from state to wanted. Raises ReleaseError for what must not be done."""
    changes: list[Change] = []
    if wanted.state == "absent":
        if state.current == wanted.release:
            raise ReleaseError(
                f"release = {wanted.release}: it is the active one and cannot be removed; activate "
                "another release first"
            )
        doomed = {wanted.release} & (set(state.complete) | state.incomplete)
        return Plan(changes + _removals(state, doomed, "it is to be absent"))
    keys = wanted.keys(state)
    if keys != state.pinned:
        reason = "releases are taken from these keys"
        if not wanted.trusted:
            reason = "releases are taken from the key of the first one"
        before = list(state.pinned) or None
        changes.append(Change(str(state.base / KEYS), before, list(keys), reason))
    installed = state.complete.get(wanted.release)
    if installed is None or wanted.sha256 not in (None, installed.sha256):
        if installed is not None:
            reason = "it was installed from another archive"
        elif wanted.release in state.incomplete:
            reason = "an earlier installation was cut short"
        else:
            reason = "it is not installed"
        changes.append(
            Change(
                str(state.folder(wanted.release)),
                {"sha256": installed.sha256} if installed else None,
                {"sha256": wanted.sha256},
                reason,
            )
        )
    current = state.current
    if wanted.state == "active" and current != wanted.release:
        changes.append(
            Change(str(state.base / "current"), current, wanted.release, "it is to be active")
        )
        current = wanted.release
    kept = _kept(state, wanted, current)
    surplus = set(state.complete) - kept
    changes += _removals(state, surplus, f"more than the {wanted.keep} releases to keep")
    cut_short = state.incomplete - {wanted.release}
    changes += _removals(state, cut_short, "an earlier installation was cut short")
    changes += [
        Change(path, "left over", None, "left by a run that was cut short") for path in state.debris
    ]
    return Plan(changes)


def installs(state: State, wanted: Wanted, planned: Plan) -> bool:
    """Whether a plan unpacks the archive."""
    folder = str(state.folder(wanted.release))
    return any(change.target == folder and change.after is not None for change in planned)


def _kept(state: State, wanted: Wanted, current: str | None) -> frozenset[str]:
    """The releases that stay: the wanted, the active, the one active before it, then the newest."""
    newest = sorted(state.complete, key=lambda name: (-state.complete[name].installed_at, name))
    order = [wanted.release, current, state.current, *newest]
    kept: list[str] = []
    for name in order:
        if name is not None and name not in kept:
            kept.append(name)
    return frozenset(kept[: max(wanted.keep, 2)])


def _removals(state: State, releases: Iterable[str], reason: str) -> list[Change]:
    return [Change(str(state.folder(name)), "installed", None, reason) for name in sorted(releases)]


def apply(state: State, wanted: Wanted, planned: Plan, install: Any) -> list[str]:
    """Carry out a plan; returns what could not be cleaned up afterwards.

    install(folder) makes the release in a folder that does not exist, or raises and leaves
    nothing. Raises TransactionError with everything put back.
    """
    folder, link = state.folder(wanted.release), state.base / "current"
    with Transaction() as transaction:
        for change in planned:
            if change.target == str(state.base / KEYS):
                if not state.base.is_dir():
                    transaction.make_directory(state.base)
                content = "".join(key + "\n" for key in wanted.keys(state))
                transaction.write_file(change.target, content.encode(), 0o644)
            elif change.target == str(folder) and change.after is not None:
                if not folder.parent.is_dir():
                    transaction.make_directory(folder.parent)
                transaction.remove(folder)
                transaction.run(
                    lambda: install(folder),
                    lambda: shutil.rmtree(str(folder)),
                    f"install release {wanted.release}",
                )
            elif change.target == str(link):
                transaction.symlink(link, Path("releases") / wanted.release)
            else:
                transaction.remove(change.target)
    return transaction.left_behind


class Installer:
    """Makes a release from an archive with one Python of the host.

    keys: the public keys it may be signed with.
    """

    def __init__(
        self, archive: Path, wanted: Wanted, python: str, now: float, keys: tuple[str, ...]
    ) -> None:
        self._archive = archive
        self._keys = keys
        self._release = wanted.release
        self._python = python
        self._sha256 = wanted.sha256
        self._now = now

    def __call__(self, folder: Path) -> None:
        """Make the release.

        Raises ReleaseError, BrokenBundleError, SealError, OSError, and leaves nothing.
        """
        try:
            with tempfile.TemporaryDirectory() as scratch:
                # Modes of what is made here must not depend on the umask of who connects.
                before = os.umask(0o022)
                try:
                    self._install(folder, Path(scratch))
                finally:
                    os.umask(before)
        except BaseException:
            shutil.rmtree(str(folder), ignore_errors=True)
            raise

    def _install(self, folder: Path, scratch: Path) -> None:
        seal = bundle_seal.read(self._archive)
        manifest = bundle_format.unpack(self._archive, scratch, seal, self._keys)
        if manifest["release"] != self._release:
            raise ReleaseError(
                "release = {}: the archive holds {}; give the archive that node_bundle returned "
                "for it".format(self._release, manifest["release"])
            )
        has = self._run([self._python, "-c", _SAY_VERSION], scratch, "run " + self._python)
        if has != manifest["python"]:
            raise ReleaseError(
                "python = {}: it is {}, the archive is made for {}; gather one for this "
                "host".format(self._python, has, manifest["python"])
            )
        self._run(
            [self._python, "-m", "venv", "--without-pip", str(folder)],
            scratch,
            "make the virtual environment",
        )
        pip = next((scratch / "installer").glob("pip-*.whl"))
        self._run(
            [
                str(folder / "bin" / "python"),
                str(pip) + "/pip",
                "--isolated",
                "install",
                "--no-index",
                "--no-cache-dir",
                "--no-deps",
                "--require-hashes",
                "--quiet",
                "--disable-pip-version-check",
                "--no-warn-script-location",
                "--root-user-action",
                "ignore",
                "--find-links",
                str(scratch / "wheels"),
                "--requirement",
                str(scratch / bundle_format.REQUIREMENTS),
            ],
            scratch,
            "install the wheels",
        )
        self._prove_it_starts(folder, manifest, scratch)
        marker = {
            "release": self._release,
            "version": manifest["version"],
            "target": manifest["target"],
            "sha256": self._sha256,
            "installed_at": self._now,
        }
        (folder / MARKER).write_text(json.dumps(marker, indent=2, sort_keys=True) + "\n")
        os.sync()  # thousands of small files: the marker must not reach the disk before them

    def _prove_it_starts(self, folder: Path, manifest: Mapping[str, Any], scratch: Path) -> None:
        command = str(folder / "bin" / bundle_format.PACKAGE)
        said = self._run([command, "--version"], scratch, "start the release")
        if manifest["version"] not in said.split():
            raise ReleaseError(
                "release = {}: '{} --version' says '{}', expected {}".format(
                    self._release, bundle_format.PACKAGE, said, manifest["version"]
                )
            )

    def _run(self, command: list[str], scratch: Path, what: str) -> str:
        """Standard output, stripped. The environment of who connects has no part in it."""
        environment = {
            "PATH": os.defpath,
            "LANG": "C.UTF-8",
            "HOME": str(scratch),
            "TMPDIR": str(scratch),
        }
        try:
            done = subprocess.run(
                command,
                check=False,
                env=environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=_TIMEOUT,
                cwd=str(scratch),
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise ReleaseError(f"could not {what}: {error}") from error
        if done.returncode != 0:
            said = (done.stderr or done.stdout).decode("utf-8", "replace").strip().splitlines()
            raise ReleaseError("could not {}: {}".format(what, "\n".join(said[-8:])))
        return done.stdout.decode("utf-8", "replace").strip()


_SAY_VERSION = "import sys; print('%d.%d' % sys.version_info[:2])"
