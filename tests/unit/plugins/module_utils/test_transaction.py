# Copyright: (c) 2026, Holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# ruff: noqa: PT012 - the block of a transaction is the statement that raises
"""A transaction does all or nothing, and says which."""

from __future__ import annotations

import errno
import os
import stat
import tempfile
from pathlib import Path
from typing import Any, Callable

import pytest
from ansible_collections.holdfast.chain.plugins.module_utils import files
from ansible_collections.holdfast.chain.plugins.module_utils.files import leftovers, locked
from ansible_collections.holdfast.chain.plugins.module_utils.transaction import (
    Transaction,
    TransactionError,
)
from hypothesis import example, given, settings
from hypothesis import strategies as st

_ROOT = os.geteuid() == 0
_IDS = st.sampled_from([None, 0, 1, 12345] if _ROOT else [None])
_MODES = st.sampled_from([0o600, 0o640, 0o644, 0o755])
_NAMES = st.sampled_from(["a", "b", "d", "d/x", "d/y", "d/e", "d/e/z", "l", "n/o"])
_CONTENT = st.binary(max_size=20)

_STEP = st.one_of(
    st.tuples(st.just("write_file"), _NAMES, _CONTENT, _MODES, _IDS, _IDS),
    st.tuples(st.just("make_directory"), _NAMES, _MODES, _IDS, _IDS),
    st.tuples(st.just("set_attributes"), _NAMES, _MODES, _IDS, _IDS),
    st.tuples(st.just("symlink"), _NAMES, st.sampled_from(["a", "d", "nowhere"])),
    st.tuples(st.just("move"), _NAMES, _NAMES),
    st.tuples(st.just("remove"), _NAMES),
)


class BoomError(Exception):
    """What a caller's own code raises."""


def _tree(root: Path) -> None:
    (root / "a").write_bytes(b"alpha")
    (root / "a").chmod(0o640)
    (root / "d" / "e").mkdir(parents=True)
    (root / "d" / "x").write_bytes(b"x")
    (root / "d" / "e" / "z").write_bytes(b"z")
    (root / "l").symlink_to("a")
    if _ROOT:
        os.chown(str(root / "d" / "x"), 12345, 1)


def _state(root: Path, inodes: bool) -> dict[str, Any]:
    state = {}
    for path in sorted(root.rglob("*")):
        status = path.lstat()
        facts: list[Any] = [status.st_mode, status.st_uid, status.st_gid]
        if path.is_symlink():
            facts.append(os.readlink(str(path)))
        elif path.is_file():
            facts += [path.read_bytes(), status.st_mtime_ns]
        if inodes:
            facts.append(status.st_ino)
        state[str(path.relative_to(root))] = facts
    return state


def _run(transaction: Transaction, root: Path, step: tuple[Any, ...]) -> None:
    name, first, *rest = step
    if name == "move":
        rest = [root / rest[0]]
    getattr(transaction, name)(root / first, *rest)


@settings(max_examples=150, deadline=None)
@given(steps=st.lists(_STEP, max_size=8), links=st.booleans())
def test_undo_restores_every_byte_mode_and_owner(steps: list[tuple[Any, ...]], links: bool) -> None:
    """Whatever the steps, and whether one of them fails or the caller does, all is as before.

    With hard links even the inodes are the same; without (links false), the copies are as good.
    """
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        root = Path(name)
        _tree(root)
        if not links:
            patch.setattr(files.os, "link", _no_hard_links)
        before = _state(root, inodes=links)
        with pytest.raises(TransactionError) as caught, Transaction() as transaction:
            for step in steps:
                _run(transaction, root, step)
            raise BoomError
        assert caught.value.not_undone == []
        assert _state(root, inodes=links) == before


def _no_hard_links(*_arguments: Any, **_options: Any) -> None:
    raise OSError(errno.EPERM, "no hard links here")


@settings(max_examples=100, deadline=None)
@given(steps=st.lists(_STEP, max_size=8))
@example([("remove", "d/x"), ("remove", "d"), ("write_file", "d", b"", 0o600, None, None)])
def test_nothing_is_left_behind(steps: list[tuple[Any, ...]]) -> None:
    """Committed or rolled back, no temporary name stays."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        _tree(root)
        try:
            with Transaction() as transaction:
                for step in steps:
                    _run(transaction, root, step)
        except TransactionError:
            pass
        else:
            assert transaction.left_behind == []
        assert [path for path in root.rglob("*") if path.name.startswith(".")] == []


def test_committed_steps_have_their_effect(tmp_path: Path) -> None:
    _tree(tmp_path)
    with Transaction() as transaction:
        transaction.write_file(tmp_path / "a", b"beta", 0o600)
        transaction.make_directory(tmp_path / "p" / "q", 0o700)
        transaction.write_file(tmp_path / "p" / "q" / "f", b"new", 0o644)
        transaction.symlink(tmp_path / "l", "d")
        transaction.move(tmp_path / "d" / "x", tmp_path / "y")
        transaction.remove(tmp_path / "d" / "e")
    assert (tmp_path / "a").read_bytes() == b"beta"
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "p" / "q").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "p").stat().st_mode) == 0o755
    assert (tmp_path / "p" / "q" / "f").read_bytes() == b"new"
    assert os.readlink(str(tmp_path / "l")) == "d"
    assert (tmp_path / "y").read_bytes() == b"x"
    assert sorted(path.name for path in (tmp_path / "d").iterdir()) == []


def test_move_replaces_a_tree(tmp_path: Path) -> None:
    _tree(tmp_path)
    with Transaction() as transaction:
        transaction.move(tmp_path / "a", tmp_path / "d")
    assert (tmp_path / "d").read_bytes() == b"alpha"
    assert not (tmp_path / "a").exists()


def test_write_replaces_a_link_and_leaves_its_target(tmp_path: Path) -> None:
    _tree(tmp_path)
    with Transaction() as transaction:
        transaction.write_file(tmp_path / "l", b"own")
    assert not (tmp_path / "l").is_symlink()
    assert (tmp_path / "a").read_bytes() == b"alpha"


@pytest.mark.skipif(not _ROOT, reason="only root can give files away")
def test_write_keeps_the_owner_unless_asked(tmp_path: Path) -> None:
    _tree(tmp_path)
    with Transaction() as transaction:
        transaction.write_file(tmp_path / "d" / "x", b"new")
        transaction.write_file(tmp_path / "a", b"new", owner="nobody", group=1)
    status = (tmp_path / "d" / "x").stat()
    assert (status.st_uid, status.st_gid) == (12345, 1)
    assert (tmp_path / "a").stat().st_uid != 0
    assert (tmp_path / "a").stat().st_gid == 1


def test_error_names_the_step_its_cause_and_what_was_taken_back(tmp_path: Path) -> None:
    with pytest.raises(TransactionError) as caught, Transaction() as transaction:
        transaction.write_file(tmp_path / "one", b"1")
        transaction.write_file(tmp_path / "none" / "two", b"2")
    error = caught.value
    assert error.step == f"write {tmp_path / 'none' / 'two'}"
    assert isinstance(error.cause, FileNotFoundError)
    assert error.undone == [f"write {tmp_path / 'one'}"]
    assert error.step in str(error)
    assert error.undone[0] in str(error)


def test_error_of_the_caller_is_placed_after_the_last_step(tmp_path: Path) -> None:
    with pytest.raises(TransactionError) as caught, Transaction() as transaction:
        transaction.write_file(tmp_path / "one", b"1")
        raise BoomError
    assert caught.value.step == f"after write {tmp_path / 'one'}"
    assert not (tmp_path / "one").exists()


def test_unknown_account_is_named_and_nothing_changes(tmp_path: Path) -> None:
    message = "user 'no-such-user' does not exist"
    with pytest.raises(TransactionError, match=message), Transaction() as transaction:
        transaction.write_file(tmp_path / "one", b"1", owner="no-such-user")
    assert list(tmp_path.iterdir()) == []


def test_run_undoes_in_reverse_order_and_only_what_was_done() -> None:
    done: list[str] = []

    def fail() -> None:
        raise BoomError

    with pytest.raises(TransactionError) as caught, Transaction() as transaction:
        assert transaction.run(lambda: 42, lambda: done.append("first"), "first") == 42
        transaction.run(lambda: None, lambda: done.append("second"), "second")
        transaction.run(fail, lambda: done.append("third"), "third")
    assert done == ["second", "first"]
    assert caught.value.step == "third"
    assert caught.value.undone == ["second", "first"]


def test_what_cannot_be_undone_is_reported_and_the_rest_is_undone(tmp_path: Path) -> None:
    def fail() -> None:
        raise BoomError("stuck")

    with pytest.raises(TransactionError) as caught, Transaction() as transaction:
        transaction.write_file(tmp_path / "one", b"1")
        transaction.run(lambda: None, fail, "start")
        transaction.run(lambda: None, None, "tell")
        raise BoomError
    assert caught.value.not_undone == ["tell (it has no undo)", "start (stuck)"]
    assert caught.value.undone == [f"write {tmp_path / 'one'}"]
    assert "repair by hand" in str(caught.value)
    assert not (tmp_path / "one").exists()


def test_exit_rolls_back_and_stays_an_exit(tmp_path: Path) -> None:
    """fail_json of a module raises SystemExit; it must not be turned into something else."""
    with pytest.raises(SystemExit), Transaction() as transaction:
        transaction.write_file(tmp_path / "one", b"1")
        raise SystemExit(1)
    assert list(tmp_path.iterdir()) == []


def test_serves_one_block_only(tmp_path: Path) -> None:
    with Transaction() as transaction:
        transaction.write_file(tmp_path / "one", b"1")
    with pytest.raises(RuntimeError, match="outside"):
        transaction.write_file(tmp_path / "two", b"2")
    with pytest.raises(RuntimeError, match="one with block"), transaction:
        pass
    assert not (tmp_path / "two").exists()


def test_a_directory_is_not_replaced_by_a_file_or_link(tmp_path: Path) -> None:
    _tree(tmp_path)
    steps: list[Callable[[Transaction], None]] = [
        lambda one: one.write_file(tmp_path / "d", b""),
        lambda one: one.symlink(tmp_path / "d", "a"),
    ]
    for step in steps:
        with pytest.raises(TransactionError, match="is a directory"), Transaction() as one:
            step(one)
    assert (tmp_path / "d" / "x").read_bytes() == b"x"


def test_a_full_disk_takes_nothing_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the new content cannot be written, the old one is still there under its name."""
    (tmp_path / "f").write_bytes(b"old")

    def full(_handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(TransactionError, match="No space left"), Transaction() as transaction:
        transaction.write_file(tmp_path / "f", b"new")
    monkeypatch.undo()
    assert (tmp_path / "f").read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["f"]


def test_leftovers_finds_only_names_of_transactions(tmp_path: Path) -> None:
    for name in (".holdfast-new-1-x", ".hidden", "x"):
        (tmp_path / name).touch()
    assert leftovers(tmp_path) == [tmp_path / ".holdfast-new-1-x"]
    assert leftovers(tmp_path / "missing") == []


def test_lock_keeps_others_out_and_makes_no_file(tmp_path: Path) -> None:
    waiting = locked(tmp_path, seconds=0.05)
    with locked(tmp_path / "not" / "there"), pytest.raises(TimeoutError, match="another run"):
        waiting.__enter__()
    with locked(tmp_path, seconds=0.05):
        assert list(tmp_path.iterdir()) == []
