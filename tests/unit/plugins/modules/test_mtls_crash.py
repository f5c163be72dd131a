# Copyright: (c) 2026, Holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Power goes at any moment, and any one operation on the disk may fail.

A child process runs a module under an audit hook that counts the operations which change
something below a directory. At a chosen one it either dies on the spot (no clean-up runs, as with
kill -9) or gets an error from the disk. Every operation is tried in turn.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any, Callable, Iterator

import pytest
from ansible_collections.holdfast.chain.plugins.module_utils.files import LEFTOVER_PREFIX
from ansible_collections.holdfast.chain.plugins.module_utils.identity import read_identity
from ansible_collections.holdfast.chain.plugins.module_utils.x509 import load_certificate

_CHANGES = ("os.rename", "os.link", "os.symlink", "os.mkdir", "os.remove", "os.rmdir", "os.chmod",
            "os.chown", "os.truncate")  # fmt: skip
_DIED, _FAILED, _DONE = 77, 3, 0


def _changes_something(event: str, arguments: tuple[Any, ...], below: str) -> bool:
    if event == "open":
        path, _mode, flags = arguments
        if not isinstance(flags, int) or not flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            return False
        return isinstance(path, str) and path.startswith(below)
    # rmtree passes names relative to an open directory: they are inside of what it removes
    return event in _CHANGES and (
        str(arguments[0]).startswith(below) or not str(arguments[0]).startswith("/")
    )


def _in_child(run: Callable[[], Any], below: Path, moment: int, die: bool) -> int:
    """Run a module in a child that is hit at its moment-th change; how it ended."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    status = 99
    try:
        count = 0

        def hook(event: str, arguments: tuple[Any, ...]) -> None:
            nonlocal count
            if not _changes_something(event, arguments, str(below)):
                return
            count += 1
            if count == moment:
                if die:
                    os._exit(_DIED)
                raise OSError(errno.EIO, "Input/output error")

        sys.addaudithook(hook)
        outcome = run()
        status = _FAILED if outcome.failed else _DONE
        if status == _DONE and count < moment:
            status = _DONE
        elif status == _DONE:
            status = 1  # hit, and nobody noticed: only clean-up after the commit may do that
    finally:
        os._exit(status)


def _each_moment(
    run: Callable[[], Any], below: Path, reset: Callable[[], None], die: bool
) -> Iterator[int]:
    """Hit every change in turn; yields how the child ended, stops when none is left to hit."""
    for moment in range(1, 400):
        reset()
        status = _in_child(run, below, moment, die)
        assert status in (_DIED, _FAILED, _DONE, 1), status
        if status == _DONE:
            assert moment > 5, "the hook did not hit anything"
            return
        yield status
    pytest.fail("never came to an end")


def _public_state(directory: Path) -> dict[str, Any]:
    """Contents, modes and owners; not times, which a rollback cannot and need not restore."""
    state: dict[str, Any] = {}
    for path in sorted(directory.rglob("*")):
        status = path.lstat()
        content: Any = None
        if path.is_symlink():
            content = os.readlink(str(path))
        elif path.is_file():
            content = path.read_bytes()
        name = str(path.relative_to(directory))
        state[name] = (status.st_mode, status.st_uid, status.st_gid, content)
    return state


def _no_temporary_names(directory: Path) -> bool:
    return not any(LEFTOVER_PREFIX in str(path) for path in directory.rglob("*"))


class Renewal:
    """A host with a good identity and a signed certificate for other names."""

    def __init__(self, host: Any, tmp_path: Path) -> None:
        self.host, self.saved = host, tmp_path / "saved"
        self.old = host.renew()
        # Two earlier generations, so that the renewal also has one to remove.
        self.old = host.renew(force=True)
        host.names = {**host.names, "dns": ["new.demo.example"]}
        self.request = host.request()["request"]
        self.new = host.sign(self.request)["certificates"]["v1"]["certificate"]
        shutil.copytree(host.directory, self.saved, symlinks=True)
        self.before = _public_state(host.directory)

    def reset(self) -> None:
        """Back to the state before the installation."""
        shutil.rmtree(self.host.directory)
        shutil.copytree(self.saved, self.host.directory, symlinks=True)

    def install(self) -> Any:
        """Install the new certificate."""
        return self.host.install(self.new)

    def serial(self, certificate: str) -> str:
        """Name of the generation."""
        return f"{load_certificate(certificate, 'x').serial_number:x}"


@pytest.fixture
def renewal(host: Any, tmp_path: Path) -> Renewal:
    """A renewal that is about to be installed."""
    return Renewal(host, tmp_path)


def test_a_crash_while_installing_leaves_a_matching_pair(renewal: Renewal) -> None:
    """The old pair or the new one, complete; the next runs finish the job and clear up."""
    host, ends = renewal.host, []
    for status in _each_moment(renewal.install, host.directory, renewal.reset, die=True):
        assert status == _DIED
        found = read_identity(host.directory)
        assert found.current is not None, found.fault
        serial = f"{found.current.leaf.serial_number:x}"
        assert serial in (renewal.serial(renewal.old), renewal.serial(renewal.new))
        ends.append(serial)
        if len(ends) % 2:  # the next run installs at once, or asks first as a play does
            assert not renewal.install().failed
        asked = host.request()
        assert not asked.failed, asked.text
        if asked["renewal_needed"]:
            assert asked["request"] == renewal.request
            assert renewal.install()["changed"]
        assert not renewal.install()["changed"]
        assert not host.request()["changed"]
        assert read_identity(host.directory).debris == ()
        assert _no_temporary_names(host.directory)
        assert len(list((host.directory / "generations").iterdir())) == 2
    assert set(ends) == {renewal.serial(renewal.old), renewal.serial(renewal.new)}


def test_a_failing_disk_while_installing_takes_everything_back(renewal: Renewal) -> None:
    """Or, once the swap is committed, only the clean-up is incomplete, and the next run does it."""
    host, failures = renewal.host, 0
    for status in _each_moment(renewal.install, host.directory, renewal.reset, die=False):
        if status == _FAILED:
            failures += 1
            assert _public_state(host.directory) == renewal.before
        else:
            assert read_identity(host.directory).current.path.name == renewal.serial(renewal.new)
            assert not host.request()["renewal_needed"]
            assert _no_temporary_names(host.directory)
    assert failures > 20


def test_a_crash_while_asking_costs_nothing(host: Any, tmp_path: Path) -> None:
    """The pair in use stays, and the next run has one whole request waiting."""
    old = host.renew()
    host.names = {**host.names, "dns": ["new.demo.example"]}
    saved = tmp_path / "saved"
    shutil.copytree(host.directory, saved, symlinks=True)

    def reset() -> None:
        shutil.rmtree(host.directory)
        shutil.copytree(saved, host.directory, symlinks=True)

    for _status in _each_moment(host.request, host.directory, reset, die=True):
        found = read_identity(host.directory)
        assert found.current.leaf == load_certificate(old, "x")
        assert host.request()["request"]
        assert not host.request()["changed"]
        assert _no_temporary_names(host.directory)


def test_a_failing_disk_while_asking_takes_everything_back(host: Any, tmp_path: Path) -> None:
    def reset() -> None:
        shutil.rmtree(host.directory, ignore_errors=True)

    for status in _each_moment(host.request, host.directory, reset, die=False):
        assert status == _FAILED
        assert not host.directory.exists()


@pytest.mark.parametrize("die", [True, False])
def test_a_ca_is_made_whole_or_not_at_all(
    tmp_path: Path, run_module: Callable[..., Any], die: bool
) -> None:
    directory = tmp_path / "ca"
    arguments = {
        "directory": str(directory),
        "common_name": "Demo",
        "trust_domain": "demo.example",
        "passphrase": "correct horse battery staple",
    }

    def make() -> Any:
        return run_module("mtls_ca", arguments)

    def reset() -> None:
        shutil.rmtree(directory, ignore_errors=True)

    for status in _each_moment(make, directory, reset, die):
        assert (directory / "authority").exists() in (False, die)
        if status == _FAILED:
            assert not directory.exists()
        assert not make().failed
        assert not make()["changed"]
        assert [path.name for path in directory.iterdir()] == ["authority"]


def test_signing_while_the_disk_fails_returns_no_certificate(host: Any) -> None:
    """What is not on record does not leave the CA."""
    request = host.request()["request"]
    host.sign(request)
    log = host.ca / "issued.jsonl"
    before = log.read_bytes()
    assert _in_child(lambda: host.sign(request), host.ca, 1, die=False) == _FAILED
    assert log.read_bytes() == before


def test_two_runs_take_turns(host: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """While another run holds the directory, this one waits, and gives up with a clear message."""
    host.renew()
    handle = os.open(str(host.directory), os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        monkeypatch.setattr("time.sleep", lambda _seconds: None)
        moments = iter(range(0, 1000, 30))
        monkeypatch.setattr("time.monotonic", lambda: float(next(moments)))
        result = host.request(force=True)
    finally:
        os.close(handle)
    assert result.failed
    assert "another run" in result["msg"]
    assert json.loads(result.text)["failed"] is True
