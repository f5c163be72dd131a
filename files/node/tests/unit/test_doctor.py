# SPDX-License-Identifier: Apache-2.0
"""The doctor names what is wrong, changes nothing, and says what a start repairs by itself."""

import os
import shutil
import sqlite3
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner
from ledger_samples import ALICE, GENESIS, commit, open_ledger, transaction

from holdfast_node.cli import doctor as cli_doctor
from holdfast_node.consensus.messages import Voted
from holdfast_node.doctor import examine
from holdfast_node.errors import ConfigError
from holdfast_node.vote_log import DATABASE, JOURNAL, VoteLog


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A validator's data folder with three blocks and a vote at height 4."""
    place = tmp_path / "data"
    place.mkdir()
    votes = VoteLog(place)
    votes.born()
    votes.append([Voted(height, 0, bytes(32)) for height in range(1, 5)])
    votes.close()
    ledger = open_ledger(place)
    for nonce in range(3):
        commit(ledger, [transaction(ALICE, nonce)])
    ledger.store.close()
    return place


def findings(folder: Path, *, validator: bool = True) -> dict[str, str]:
    """Text by grade, in one string each."""
    found: dict[str, str] = {"ok": "", "note": "", "fault": ""}
    for finding in examine(folder, GENESIS, validator=validator):
        found[finding.grade] += finding.text + "\n"
    return found


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_a_sound_folder(folder: Path) -> None:
    """Nothing is found, nothing is changed."""
    before = content(folder)
    found = findings(folder)
    assert (found["note"], found["fault"]) == ("", "")
    assert "3 blocks, linked and certified" in found["ok"]
    assert "may vote above height 3" in found["ok"]
    assert content(folder) == before


def test_a_torn_journal_is_a_note(folder: Path) -> None:
    """A start cuts it; the doctor leaves it."""
    path = folder / JOURNAL
    path.write_bytes(path.read_bytes() + b"\xf5HFr\x00\x00")
    before = content(folder)
    found = findings(folder)
    assert "the last 6 bytes are half a write" in found["note"]
    assert found["fault"] == ""
    assert content(folder) == before


def test_damage_in_the_middle_of_the_journal_is_a_fault(folder: Path) -> None:
    """It is named by its byte, with the way out."""
    path = folder / JOURNAL
    damaged = bytearray(path.read_bytes())
    damaged[40] ^= 0xFF
    path.write_bytes(damaged)
    found = findings(folder)
    assert "is damaged at byte" in found["fault"]
    assert "move it away and start the node" in found["fault"]


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("DELETE FROM blocks WHERE height = 2", "block 2 of 3 is missing"),
        ("UPDATE blocks SET certified = substr(certified, 2) WHERE height = 2", "block 2 is dam"),
        ("UPDATE state SET leaf = zeroblob(32)", "state has root"),
        ("UPDATE chain SET genesis_hash = zeroblob(32)", "another genesis"),
    ],
)
def test_a_damaged_database_is_a_fault(folder: Path, statement: str, expected: str) -> None:
    """Whatever does not agree with itself is named."""
    connection = sqlite3.connect(folder / DATABASE)
    connection.execute(statement)
    connection.commit()
    connection.close()
    assert expected in findings(folder)["fault"]


def test_a_lost_database_is_a_note(folder: Path) -> None:
    """The journal still knows how far the validator was: no vote until the blocks are back."""
    for path in folder.glob(DATABASE + "*"):
        path.unlink()
    found = findings(folder)
    assert found["fault"] == ""
    assert "fetches the chain" in found["note"]
    assert "the journal knows of block 3, the block log ends at 0" in found["note"]


def test_a_copy_and_a_lost_journal_are_told(folder: Path, tmp_path: Path) -> None:
    """Both will start, and follow without a vote."""
    time.sleep(0.02)  # the file system's clock ticks that slowly
    shutil.copytree(folder, tmp_path / "copy")
    assert "is a copy" in findings(tmp_path / "copy")["note"]
    (folder / JOURNAL).unlink()
    assert "journal is missing" in findings(folder)["note"]


def test_an_observer_has_no_votes(folder: Path) -> None:
    """Nothing is said of a journal that it does not need."""
    (folder / JOURNAL).unlink()
    found = findings(folder, validator=False)
    assert (found["note"], found["fault"]) == ("", "")


def test_only_the_owner_vouches_for_a_copy(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another user, root too, would leave a journal that the node cannot write."""
    time.sleep(0.02)  # the file system's clock ticks that slowly
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    config = SimpleNamespace(data_dir=copy, role="validator", read_genesis=lambda: GENESIS)
    monkeypatch.setattr(cli_doctor, "examine_config", lambda *_: (config, [], []))
    before = content(copy)
    owner = os.geteuid()
    arguments = ["--accept-copy", "--config", "config.toml"]
    monkeypatch.setattr(cli_doctor.os, "geteuid", lambda: owner + 1)
    refused = CliRunner().invoke(cli_doctor.command, arguments)
    assert isinstance(refused.exception, ConfigError)
    assert f"belongs to uid {owner}, as uid {owner + 1} nobody" in str(refused.exception)
    assert content(copy) == before
    monkeypatch.undo()
    monkeypatch.setattr(cli_doctor, "examine_config", lambda *_: (config, [], []))
    done = CliRunner().invoke(cli_doctor.command, arguments)
    assert done.exit_code == 0, done.output
    assert "it may vote above height 3" in done.output
