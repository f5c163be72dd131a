# Copyright: (c) 2026, Holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A host's identity and a new CA: power goes at any moment, and the disk fails (crash.py)."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from pathlib import Path
from typing import Any, Callable

import pytest
from ansible_collections.holdfast.chain.plugins.module_utils.identity import read_identity
from ansible_collections.holdfast.chain.plugins.module_utils.x509 import load_certificate
from crash import (
    DIED,
    FAILED,
    each_moment,
    in_child,
    no_temporary_names,
    public_state,
)


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
        self.before = public_state(host.directory)

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
    for status in each_moment(renewal.install, host.directory, renewal.reset, die=True):
        assert status == DIED
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
        assert no_temporary_names(host.directory)
        assert len(list((host.directory / "generations").iterdir())) == 2
    assert set(ends) == {renewal.serial(renewal.old), renewal.serial(renewal.new)}


def test_a_failing_disk_while_installing_takes_everything_back(renewal: Renewal) -> None:
    """Or, once the swap is committed, only the clean-up is incomplete, and the next run does it."""
    host, failures = renewal.host, 0
    for status in each_moment(renewal.install, host.directory, renewal.reset, die=False):
        if status == FAILED:
            failures += 1
            assert public_state(host.directory) == renewal.before
        else:
            assert read_identity(host.directory).current.path.name == renewal.serial(renewal.new)
            assert not host.request()["renewal_needed"]
            assert no_temporary_names(host.directory)
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

    for _status in each_moment(host.request, host.directory, reset, die=True):
        found = read_identity(host.directory)
        assert found.current.leaf == load_certificate(old, "x")
        assert host.request()["request"]
        assert not host.request()["changed"]
        assert no_temporary_names(host.directory)


def test_a_failing_disk_while_asking_takes_everything_back(host: Any, tmp_path: Path) -> None:
    def reset() -> None:
        shutil.rmtree(host.directory, ignore_errors=True)

    for status in each_moment(host.request, host.directory, reset, die=False):
        assert status == FAILED
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

    for status in each_moment(make, directory, reset, die):
        assert (directory / "authority").exists() in (False, die)
        if status == FAILED:
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
    assert in_child(lambda: host.sign(request), host.ca, 1, die=False) == FAILED
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
