# SPDX-License-Identifier: Apache-2.0
"""A validator trusts its memory of votes only in the folder where it was made."""

import shutil
import time
from functools import partial
from pathlib import Path

import pytest

from holdfast_node.consensus.messages import Anchored, Doubted, Entered, Floor, Voted
from holdfast_node.consensus.probation import COPIED, MISSING, judge
from holdfast_node.errors import StorageError
from holdfast_node.storage import anchor as anchor_module
from holdfast_node.storage.anchor import SLOTS
from holdfast_node.vote_log import DATABASE, JOURNAL, VoteLog

VOTE = Voted(7, 1, b"b" * 32)


def voted(folder: Path) -> None:
    """A folder in which a validator voted at height 7."""
    folder.mkdir()
    log = VoteLog(folder)
    log.born()
    log.append([Entered(7, 1), VOTE])
    log.close()
    (folder / DATABASE).touch()


def anchors(folder: Path) -> list[str]:
    found = [name for name in SLOTS if (folder / name).exists()]
    assert found
    return found


def reopened(folder: Path) -> VoteLog:
    log = VoteLog(folder)
    log.close()
    return log


def test_the_same_folder_is_trusted(tmp_path: Path) -> None:
    """After a restart the votes of the last height bind, and nothing is in doubt."""
    voted(tmp_path / "v1")
    standing = reopened(tmp_path / "v1").standing
    assert standing.doubt is None
    assert (standing.floor, standing.records) == (6, [Entered(7, 1), VOTE])
    assert standing.may_vote(7)
    assert not standing.may_vote(6)


@pytest.mark.parametrize("again", [False, True], ids=["elsewhere", "in the same place"])
def test_a_copy_is_not(tmp_path: Path, again: bool) -> None:
    """Restored with all times and owners, under the old name too, it is a copy, and stays one."""
    folder, backup = tmp_path / "v1", tmp_path / "backup"
    voted(folder)
    shutil.copytree(folder, backup)
    time.sleep(0.02)  # the file system's clock ticks that slowly
    if again:
        shutil.rmtree(folder)
        shutil.copytree(backup, folder)
    for _ in range(2):
        log = reopened(folder if again else backup)
        assert log.standing.doubt == COPIED
        assert not log.standing.may_vote(100)
        assert not log.newborn


def put_back(backup: Path, folder: Path, how: str) -> None:
    """An older copy over a folder in use, in the ways that tools do it."""
    for path in backup.iterdir():
        place = folder / path.name
        if how == "but for the anchors" and path.name in SLOTS:
            continue
        if how == "new files":
            place.unlink(missing_ok=True)
        if how == "what differs" and place.exists():
            there, here = path.stat(), place.stat()
            if (there.st_size, there.st_mtime_ns) == (here.st_size, here.st_mtime_ns):
                continue
        place.write_bytes(path.read_bytes())
        shutil.copystat(path, place)


@pytest.mark.parametrize("how", ["in place", "new files", "what differs", "but for the anchors"])
@pytest.mark.parametrize("running", [False, True], ids=["stopped", "running"])
def test_an_older_copy_put_over_the_folder(tmp_path: Path, how: str, *, running: bool) -> None:
    """The folder is the same, its journal is not: votes of the life since would be forgotten."""
    folder, backup = tmp_path / "v1", tmp_path / "backup"
    voted(folder)
    log = VoteLog(folder) if running else None
    shutil.copytree(folder, backup)
    if log is not None:
        log.close()
    log = VoteLog(folder)
    log.append([Voted(8, 0, b"c" * 32)])
    log.close()
    time.sleep(0.02)  # the file system's clock ticks that slowly
    put_back(backup, folder, how)
    for _ in range(2):
        log = reopened(folder)
        assert log.standing.doubt == COPIED
        assert not log.standing.may_vote(100)


def test_a_copy_of_this_life_is_noticed_after_a_proper_stop(tmp_path: Path) -> None:
    """Its journal names the anchor of the running node, which is gone."""
    voted(tmp_path / "v1")
    log = VoteLog(tmp_path / "v1")
    journal = (tmp_path / "v1" / JOURNAL).read_bytes()
    log.append([Voted(8, 0, b"c" * 32)])
    log.close()
    (tmp_path / "v1" / JOURNAL).write_bytes(journal)
    assert reopened(tmp_path / "v1").standing.doubt == COPIED


@pytest.mark.parametrize("step", ["make_anchor", "made", "append", "remove_anchor"])
@pytest.mark.parametrize("at", ["start", "stop"])
def test_a_crash_while_the_anchor_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, at: str
) -> None:
    """Before, between and after its steps the folder is the same one, and no vote is forgotten."""
    voted(tmp_path / "v1")

    def crash(*arguments: object) -> None:
        if step == "made":
            anchor_module.make_anchor(*arguments)
        raise KeyboardInterrupt

    log = VoteLog(tmp_path / "v1") if at == "stop" else None
    if step == "append":
        monkeypatch.setattr(VoteLog, "append", crash)
    else:
        name = "make_anchor" if step == "made" else step
        monkeypatch.setattr(f"holdfast_node.vote_log.{name}", crash)
    renewing = partial(VoteLog, tmp_path / "v1") if log is None else log.close
    with pytest.raises(KeyboardInterrupt):
        renewing()
    monkeypatch.undo()
    for _ in range(3):
        standing = reopened(tmp_path / "v1").standing
        assert (standing.doubt, standing.floor) == (None, 6)
        assert standing.records == [Entered(7, 1), VOTE]
        assert len(anchors(tmp_path / "v1")) == 1


def test_a_kill_leaves_no_doubt(tmp_path: Path) -> None:
    """Nothing is renewed then, and nothing has to be."""
    voted(tmp_path / "v1")
    for _ in range(3):
        log = VoteLog(tmp_path / "v1")
        log._journal.close()
        assert log.standing.doubt is None
        assert len(anchors(tmp_path / "v1")) == 1


def test_closing_twice_and_after_a_failed_write(tmp_path: Path, monkeypatch) -> None:
    """A journal that cannot be written is left as it is."""
    voted(tmp_path / "v1")
    log = VoteLog(tmp_path / "v1")
    log.close()
    log.close()
    log = VoteLog(tmp_path / "v1")
    before = anchors(tmp_path / "v1")

    def fail(_descriptor: int) -> None:
        raise OSError(5, "broken")

    monkeypatch.setattr("os.fdatasync", fail)
    with pytest.raises(StorageError):
        log.append([VOTE])
    monkeypatch.undo()
    log.close()
    assert anchors(tmp_path / "v1") == before
    assert reopened(tmp_path / "v1").standing.doubt is None


def test_a_moved_folder_is_the_same(tmp_path: Path) -> None:
    """Renaming a folder above it copies nothing."""
    voted(tmp_path / "v1")
    (tmp_path / "v1").rename(tmp_path / "v2")
    assert reopened(tmp_path / "v2").standing.doubt is None


def test_lost_journal(tmp_path: Path) -> None:
    """With blocks but no journal there may have been any votes; also after another restart."""
    voted(tmp_path / "v1")
    (tmp_path / "v1" / JOURNAL).unlink()
    assert reopened(tmp_path / "v1").standing.doubt == MISSING
    assert reopened(tmp_path / "v1").standing.doubt == MISSING


@pytest.mark.parametrize("lost", [False, True])
def test_a_new_journal_is_never_without_what_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, lost: bool
) -> None:
    """A crash right after it was made leaves what was to be said: its folder, and the doubt."""
    if lost:
        (tmp_path / DATABASE).touch()

    def crash(*_arguments: object) -> None:
        raise KeyboardInterrupt

    for name in ("append", "compact", "doubt", "born"):
        monkeypatch.setattr(VoteLog, name, crash)
    with pytest.raises(KeyboardInterrupt):
        VoteLog(tmp_path)
    monkeypatch.undo()
    log = reopened(tmp_path)
    assert (log.standing.doubt, log.newborn) == ((MISSING, False) if lost else (None, True))


def test_lost_anchor(tmp_path: Path) -> None:
    """Without the anchor nobody can tell whether the folder is a copy."""
    voted(tmp_path / "v1")
    for name in anchors(tmp_path / "v1"):
        (tmp_path / "v1" / name).unlink()
    assert reopened(tmp_path / "v1").standing.doubt == COPIED


def test_a_new_folder_is_newborn_until_it_votes(tmp_path: Path) -> None:
    """Restarts before the first vote change nothing; a birth or a doubt does."""
    assert reopened(tmp_path).newborn
    (tmp_path / DATABASE).touch()  # the ledger was made, then the process was killed
    assert reopened(tmp_path).newborn
    log = VoteLog(tmp_path)
    log.born()
    log.close()
    assert not reopened(tmp_path).newborn
    assert reopened(tmp_path).standing.may_vote(1)


def test_cleared_after_a_mark(tmp_path: Path) -> None:
    """Above the block with the mark it may vote, and not at or below it; restarts included."""
    voted(tmp_path / "v1")
    (tmp_path / "v1" / JOURNAL).unlink()
    log = VoteLog(tmp_path / "v1")
    log.cleared(40)
    log.close()
    for standing in (log.standing, reopened(tmp_path / "v1").standing):
        assert standing.doubt is None
        assert standing.may_vote(41)
        assert not standing.may_vote(40)


def test_accepted_copy_keeps_its_votes(tmp_path: Path) -> None:
    """Who vouches for a copy gets it back with what it knows, also after a start in doubt."""
    voted(tmp_path / "v1")
    shutil.copytree(tmp_path / "v1", tmp_path / "v2")
    assert reopened(tmp_path / "v2").standing.doubt == COPIED
    log = VoteLog(tmp_path / "v2")
    log.accept()
    log.close()
    standing = reopened(tmp_path / "v2").standing
    assert (standing.doubt, standing.floor) == (None, 6)
    assert standing.records == [Entered(7, 1), VOTE]


def test_nobody_can_vouch_for_a_lost_journal(tmp_path: Path) -> None:
    """Its votes are gone: the network has to pass them."""
    voted(tmp_path / "v1")
    (tmp_path / "v1" / JOURNAL).unlink()
    log = VoteLog(tmp_path / "v1")
    with pytest.raises(StorageError, match="vouch"):
        log.accept()
    log.close()


def test_nobody_can_vouch_for_a_copy_of_a_folder_that_lost_its_journal(tmp_path: Path) -> None:
    """The graver doubt stays, whatever happens to the folder afterwards."""
    voted(tmp_path / "v1")
    (tmp_path / "v1" / JOURNAL).unlink()
    assert reopened(tmp_path / "v1").standing.doubt == MISSING
    shutil.copytree(tmp_path / "v1", tmp_path / "v2")
    log = VoteLog(tmp_path / "v2")
    assert log.standing.doubt == MISSING
    with pytest.raises(StorageError, match="vouch"):
        log.accept()
    log.close()


def test_compaction_keeps_what_binds(tmp_path: Path) -> None:
    """A short journal says as much as a long one, and that what is below is not known."""
    voted(tmp_path / "v1")
    log = VoteLog(tmp_path / "v1")
    log.append([Entered(8, view + 1) for view in range(200)])
    before = log.size
    log.compact(7, [Entered(8, 200)])
    assert log.size < before / 10
    log.close()
    standing = reopened(tmp_path / "v1").standing
    assert (standing.floor, standing.records) == (7, [Entered(8, 200)])


def test_a_journal_of_an_earlier_release_is_taken_over(tmp_path: Path) -> None:
    """It has no anchor yet, and is no copy for that."""
    here = (1, 1)
    standing = judge([VOTE], anchor=None, new=False)
    assert standing.doubt is None
    assert judge([Anchored(*here), VOTE], anchor=here, new=False).doubt is None
    assert judge([Anchored(*here), VOTE], anchor=(1, 2), new=False).doubt == COPIED
    assert judge([Anchored(*here), Doubted("x"), Floor(3)], anchor=here, new=False).doubt is None
    assert judge([Anchored(*here), Floor(3), Doubted("x")], anchor=here, new=False).doubt == "x"
    lost = [Anchored(*here), Doubted(MISSING)]
    assert judge(lost, anchor=(2, 2), new=False).doubt == MISSING


def test_votes_cannot_be_read_by_others(tmp_path: Path) -> None:
    """The files are their owner's."""
    reopened(tmp_path)
    for name in (JOURNAL, *anchors(tmp_path)):
        assert (tmp_path / name).stat().st_mode & 0o777 == 0o600
