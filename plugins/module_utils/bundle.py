# Copyright: (c) 2026, Holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Gathers a release on the controller: the node's wheel, and the wheels its lock file names.

What goes in is read once and hashed; the hash names the release. The work happens on a copy, with
the pip and the build backend that a second lock file pins, so that equal inputs give equal bytes
on every controller.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Iterable, Mapping, Sequence

try:
    from packaging.markers import Marker, default_environment
except ImportError:  # on the controller Ansible itself needs it; nothing here runs elsewhere
    Marker = default_environment = None

from ansible_collections.holdfast.chain.plugins.module_utils import bundle_format, bundle_sbom
from ansible_collections.holdfast.chain.plugins.module_utils.platforms import Target

_SKIPPED = re.compile(r"(^|/)(__pycache__|\.[^/]*|[^/]*\.egg-info)(/|$)|\.py[co]$")
_TOP_LEVEL = ("pyproject.toml", "README.md", "LICENSE")
_HASH = re.compile(r"--hash=(sha256:[0-9a-f]{64})")
_TIMEOUT = 900


class GatherError(Exception):
    """Something could not be read, built or downloaded; the message says what and the way out."""


@dataclass(frozen=True)
class Locked:
    """One entry of a lock file. requirement: ``name==version`` without its marker."""

    requirement: str
    marker: str
    hashes: tuple[str, ...]

    def line(self) -> str:
        return " ".join([self.requirement] + ["--hash=" + value for value in self.hashes])


@dataclass(frozen=True)
class Inputs:
    """All that decides a release's content. files: the node's source by relative path."""

    files: Mapping[str, bytes]
    lock: bytes
    tools: bytes
    version: str

    @property
    def release(self) -> str:
        """Name of the release: the version and a hash of the inputs."""
        digest = hashlib.sha256(b"bundle %d" % bundle_format.FORMAT)
        named = dict(self.files)
        named["\0lock"], named["\0tools"] = self.lock, self.tools
        for name in sorted(named):
            digest.update(hashlib.sha256(name.encode()).digest())
            digest.update(hashlib.sha256(named[name]).digest())
        return f"{self.version}-{digest.hexdigest()[:12]}"


def read_inputs(source: Path, lock: Path, tools: Path) -> Inputs:
    """Read the node's source folder and both lock files. Raises GatherError."""
    if not (source / "pyproject.toml").is_file():
        raise GatherError(
            f"source = {source}: expected the folder of a Python package; it has no pyproject.toml"
        )
    files = {}
    try:
        names = [source / name for name in _TOP_LEVEL] + sorted((source / "src").rglob("*"))
        for path in names:
            relative = path.relative_to(source).as_posix()
            if path.is_file() and not _SKIPPED.search(relative):
                files[relative] = path.read_bytes()
        locks = [path.read_bytes() for path in (lock, tools)]
    except OSError as error:
        raise GatherError(f"{error.filename}: {error.strerror}") from error
    return Inputs(files, locks[0], locks[1], _version(source, files["pyproject.toml"].decode()))


def _version(source: Path, project: str) -> str:
    found = re.search(
        r'(?ms)^\[project\]$(?:(?!^\[).)*?^version = "([0-9][0-9A-Za-z.+]*)"$', project
    )
    if not found:
        raise GatherError(f"source = {source}: pyproject.toml has no literal version in [project]")
    return found.group(1)


def parse_lock(text: str, source: str) -> list[Locked]:
    """The entries of a hashed lock file in pip's format. Raises GatherError for any other line."""
    entries = []
    for line in text.replace("\\\n", " ").splitlines():
        hashes = tuple(_HASH.findall(line))
        body = _HASH.sub("", line).split("#", 1)[0].strip()
        if not body:
            continue
        requirement, _semicolon, marker = (part.strip() for part in body.partition(";"))
        if not re.fullmatch(r"[A-Za-z0-9._-]+(\[[a-z0-9,-]+\])?==[^\s=]+", requirement):
            raise GatherError(
                f"{source}: '{requirement}' is not of the form name==version; make the file with "
                "'uv pip compile --universal --generate-hashes'"
            )
        if not hashes:
            raise GatherError(f"{source}: {requirement} has no hash")
        entries.append(Locked(requirement, marker, hashes))
    return entries


def select(entries: Iterable[Locked], environment: Mapping[str, str]) -> list[Locked]:
    """Those entries whose marker holds in an environment; pip itself knows only its own."""
    return [e for e in entries if not e.marker or Marker(e.marker).evaluate(dict(environment))]


class Gatherer:
    """Builds archives in a scratch folder with one controller Python."""

    def __init__(self, inputs: Inputs, python: str, scratch: Path) -> None:
        self._inputs = inputs
        self._python = python
        self._scratch = scratch
        self._tools = scratch / "tools"
        self._pip: list[str] = []
        self._wheel = scratch

    def prepare(self) -> None:
        """Fetch the pinned tools and build the node's wheel. Raises GatherError."""
        if Marker is None:
            raise GatherError(
                f"{self._python} on the controller lacks the library packaging: install it there"
            )
        entries = parse_lock(self._inputs.tools.decode(), "tools")
        wanted = self._requirements("tools.txt", select(entries, default_environment()))
        self._run(
            [*self._any_pip(), *_DOWNLOAD, "--requirement", wanted, "--dest", str(self._tools)],
            "download pip and the build backend",
        )
        self._pip = [self._python, str(self._only(self._tools, "pip-*.whl")) + "/pip"]
        source = self._scratch / "source"
        for name, content in self._inputs.files.items():
            path = source / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
            path.chmod(0o644)
        built = self._scratch / "built"
        self._run(
            [
                *[*self._pip, "wheel", "--no-deps", "--no-index", "--no-cache-dir"],
                *["--find-links", str(self._tools), "--wheel-dir", str(built), str(source)],
            ],
            "build the node's wheel",
        )
        self._wheel = self._only(built, "*.whl")
        if self._wheel.name.split("-")[1] != self._inputs.version:
            raise GatherError(
                f"built {self._wheel.name}, but pyproject.toml says version {self._inputs.version}"
            )

    def archive(self, target: Target) -> bytes:
        """The finished archive for one target. Raises GatherError."""
        entries = select(parse_lock(self._inputs.lock.decode(), "lock"), target.markers())
        wanted = self._requirements(f"{target.key}.txt", entries)
        wheels = self._scratch / target.key
        platforms: list[str] = []
        for tag in target.platform_tags():
            platforms += ["--platform", tag]
        self._run(
            [
                *[*self._pip, *_DOWNLOAD, "--requirement", wanted, "--dest", str(wheels)],
                *["--implementation", "cp", "--python-version", target.python, *platforms],
            ],
            f"download the wheels for {target.key}",
        )
        files = {}
        pinned = []
        for path in [*sorted(wheels.glob("*.whl")), self._wheel]:
            name, version = path.name.split("-")[:2]
            content = path.read_bytes()
            files[bundle_format.WHEELS + path.name] = content
            pinned.append(
                f"{name}=={version} --hash=sha256:{hashlib.sha256(content).hexdigest()}\n"
            )
        if len(pinned) != len(entries) + 1:
            raise GatherError(
                f"{target.key}: {len(pinned)} wheels for {len(entries) + 1} requirements"
            )
        files[bundle_format.REQUIREMENTS] = "".join(sorted(pinned)).encode()
        installer = self._only(self._tools, "pip-*.whl")
        files[bundle_format.INSTALLER + installer.name] = installer.read_bytes()
        described = {
            "release": self._inputs.release,
            "version": self._inputs.version,
            "python": target.python,
            "target": target.key,
        }
        try:
            files[bundle_format.SBOM] = bundle_sbom.document(described, files, target.markers())
        except bundle_sbom.WheelError as error:
            raise GatherError(f"{target.key}: {error}") from error
        return bundle_format.pack(described, files)

    def _requirements(self, name: str, entries: Sequence[Locked]) -> str:
        path = self._scratch / name
        path.write_text("".join(entry.line() + "\n" for entry in entries))
        return str(path)

    def _only(self, folder: Path, pattern: str) -> Path:
        found = list(folder.glob(pattern))
        if len(found) != 1:
            raise GatherError(
                f"expected one {pattern}, found {sorted(path.name for path in found)}; "
                "the tools lock must name it"
            )
        return found[0]

    def _any_pip(self) -> list[str]:
        """Whatever pip the controller has; it only fetches the pinned one."""
        if importlib.util.find_spec("pip"):
            return [self._python, "-m", "pip"]
        bundled = importlib.util.find_spec("ensurepip")
        folder = Path(bundled.origin).parent / "_bundled" if bundled and bundled.origin else None
        wheels = sorted(folder.glob("pip-*.whl")) if folder else []
        if wheels:
            return [self._python, str(wheels[-1]) + "/pip"]
        raise GatherError(
            f"{self._python} on the controller has no pip: install it there (package "
            "python3-pip, or 'python -m ensurepip')"
        )

    def _run(self, command: list[str], what: str) -> None:
        environment: dict[str, Any] = dict(os.environ)
        environment.update(
            SOURCE_DATE_EPOCH=str(bundle_format.EPOCH),
            PYTHONHASHSEED="0",
            PIP_DISABLE_PIP_VERSION_CHECK="1",
            PIP_NO_INPUT="1",
        )
        try:
            done = subprocess.run(
                command,
                check=False,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=_TIMEOUT,
                cwd=str(self._scratch),
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise GatherError(f"could not {what}: {error}") from error
        if done.returncode != 0:
            lines = done.stdout.decode("utf-8", "replace").strip().splitlines()[-8:]
            raise GatherError("could not {}: {}".format(what, "\n".join(lines)))


_DOWNLOAD = ["download", "--no-deps", "--require-hashes", "--only-binary=:all:", "--quiet"]
