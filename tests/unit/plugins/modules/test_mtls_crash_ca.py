# Copyright: (c) 2026, Holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Signing, revoking, publishing and rolling over, with power going at any moment (crash.py)."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.holdfast.chain.plugins.module_utils.x509_crl import load_crls
from ansible_collections.holdfast.chain.plugins.module_utils.x509_log import read_log
from ansible_collections.holdfast.chain.plugins.module_utils.x509_rollover import read_authorities
from crash import DIED, DONE, FAILED, each_moment, in_child, no_temporary_names, public_state

PASSPHRASE = "correct horse battery staple"
NEW_PASSPHRASE = "tragic mule capacitor"


class Saved:
    """A directory that is put back between two attempts."""

    def __init__(self, directory: Path, place: Path) -> None:
        self.directory, self.place = directory, place
        shutil.copytree(directory, place, symlinks=True)
        self.before = public_state(directory)

    def reset(self) -> None:
        """Back to what it was."""
        shutil.rmtree(self.directory)
        shutil.copytree(self.place, self.directory, symlinks=True)


@pytest.fixture
def ready(host: Any, tmp_path: Path) -> Any:
    """A host with an identity and its CA."""
    host.renew()
    return host


def _saved(directory: Path, tmp_path: Path) -> Saved:
    return Saved(directory, tmp_path / "saved")


def test_a_crash_while_signing_returns_nothing_that_is_not_on_record(
    ready: Any, tmp_path: Path
) -> None:
    """The log is whole afterwards: a torn line is told apart, and later ones are not spoilt."""
    request = ready.request(force=True)["request"]
    state = _saved(ready.ca, tmp_path)
    assert in_child(lambda: ready.sign(request), ready.ca, 1, die=True) == DIED
    assert public_state(ready.ca) == state.before  # killed before the first byte
    log = ready.ca / "issued.jsonl"
    whole = log.read_bytes()
    ready.sign(request)
    line = log.read_bytes()[len(whole) :]
    for length in range(0, len(line), 37):  # the write itself, cut short anywhere
        log.write_bytes(whole + line[:length])
        found = read_log(ready.ca)
        assert len(found.issued) == 1
        assert len(found.torn) == (length > 0)
        assert not ready.sign(request).failed
        assert len(read_log(ready.ca).issued) == 2
        assert log.read_bytes().startswith(whole + line[:length])


def test_a_crash_while_revoking_is_made_good(ready: Any, tmp_path: Path) -> None:
    """On record or not, on the list or not: the next run brings both to what was asked for."""
    ready.crl()
    serial = ready.request()["current"]["serial"]
    state = _saved(ready.ca, tmp_path)
    recorded = []

    def revoke() -> Any:
        return ready.crl(revoke=[{"name": "v1"}])

    for _status in each_moment(revoke, ready.ca, state.reset, die=True):
        found = read_log(ready.ca)
        recorded.append(bool(found.revoked))
        assert not found.torn
        # Even a run that knows nothing of the revocation finishes one that is on record.
        if found.revoked:
            assert ready.crl()["crls"][0]["revoked"] == [serial]
        result = revoke()
        assert result["crls"][0]["revoked"] == [serial]
        assert not revoke()["changed"]
        assert no_temporary_names(ready.ca / "authority")
    assert set(recorded) == {True, False}


def test_a_failing_disk_while_revoking_takes_everything_back(ready: Any, tmp_path: Path) -> None:
    ready.crl()
    state = _saved(ready.ca, tmp_path)
    failures = 0
    for status in each_moment(
        lambda: ready.crl(revoke=[{"name": "v1"}]), ready.ca, state.reset, die=False
    ):
        if status == FAILED:
            failures += 1
            assert public_state(ready.ca) == state.before
    assert failures >= 4


@pytest.mark.parametrize("die", [True, False])
def test_a_list_is_published_whole_or_not_at_all(ready: Any, tmp_path: Path, die: bool) -> None:
    first = ready.crl()["crl"]
    ready.publish(first)
    second = ready.crl(force=True)["crl"]
    state = _saved(ready.directory, tmp_path)
    path, ends = ready.directory / "crl.pem", set()
    for status in each_moment(lambda: ready.publish(second), ready.directory, state.reset, die=die):
        ends.add(path.read_text() == second)
        assert path.read_text() in (first, second)
        assert load_crls(path.read_text(), "x")
        if status == FAILED:
            assert public_state(ready.directory) == state.before
        assert not ready.publish(second).failed
        assert not ready.publish(second)["changed"]
        assert not ready.request()["changed"]
        assert no_temporary_names(ready.directory)
    assert True in ends


@pytest.mark.parametrize("state", ["trust_both", "reissue", "drop_old"])
def test_a_crash_in_any_phase_of_a_rollover_leaves_a_ca_that_signs(
    ready: Any, tmp_path: Path, state: str
) -> None:
    """Before the phase or after it, never between; signing goes on, and the phase can be redone."""
    if state != "trust_both":
        ready.roll("trust_both")
    if state == "drop_old":
        ready.roll("reissue")
        ready.crl(revoke=[{"name": "v1", "reason": "superseded"}])
    request = ready.request(force=True)["request"]
    before = {"trust_both": "single", "reissue": "trust_both", "drop_old": "reissue"}[state]
    after = {"trust_both": "trust_both", "reissue": "reissue", "drop_old": "single"}[state]
    saved = _saved(ready.ca, tmp_path)
    for _status in each_moment(lambda: ready.roll(state), ready.ca, saved.reset, die=True):
        found = read_authorities(ready.ca, PASSPHRASE)
        assert found.phase in (before, after)
        assert not ready.sign(request, check=True).failed
        assert not ready.crl(check=True).failed
        done = ready.roll(state)
        assert done["phase"] == after, done.text
        assert not ready.roll(state)["changed"]
        assert not read_authorities(ready.ca, PASSPHRASE).interrupted


@pytest.mark.parametrize("state", ["trust_both", "reissue"])
def test_a_failing_disk_in_a_rollover_takes_everything_back(
    ready: Any, tmp_path: Path, state: str
) -> None:
    if state == "reissue":
        ready.roll("trust_both")
    saved = _saved(ready.ca, tmp_path)
    failures = 0
    for status in each_moment(lambda: ready.roll(state), ready.ca, saved.reset, die=False):
        failures += status == FAILED
        if status == FAILED:
            assert public_state(ready.ca) == saved.before
    assert failures >= 2


def test_a_crash_while_the_passphrase_changes_locks_nobody_out(ready: Any, tmp_path: Path) -> None:
    saved = _saved(ready.ca, tmp_path)
    both = {"passphrase": NEW_PASSPHRASE, "old_passphrase": PASSPHRASE}
    for _status in each_moment(lambda: ready.roll(**both), ready.ca, saved.reset, die=True):
        assert not ready.roll(**both).failed
        assert not ready.roll(passphrase=NEW_PASSPHRASE)["changed"]
        assert PASSPHRASE not in json.dumps(
            [path.read_text() for path in ready.ca.rglob("*") if path.is_file()]
        )


@pytest.mark.parametrize("die", [True, False])
def test_trust_alone_is_swapped_like_a_pair(ready: Any, tmp_path: Path, die: bool) -> None:
    roots = ready.roll("trust_both")["trusted_roots"]
    serial = ready.request()["current"]["serial"]
    saved = _saved(ready.directory, tmp_path)
    ends = set()
    for status in each_moment(lambda: ready.trust(roots), ready.directory, saved.reset, die=die):
        assert status != DONE
        current = ready.request(check=True)["current"]
        assert current["serial"] == serial
        ends.add(len(current["root_sha256"]))
        assert not ready.trust(roots).failed
        assert not ready.trust(roots)["changed"]
        assert not ready.request()["renewal_needed"]
        assert no_temporary_names(ready.directory)
    assert ends == {1, 2}
