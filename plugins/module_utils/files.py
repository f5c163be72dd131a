# Copyright: (c) 2026, Holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Atomic primitives on files that Transaction is made of, and the lock between runs."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import grp
import os
import pwd
import secrets
import shutil
import stat
import time
from pathlib import Path
from typing import Any, Callable, Iterator, Union

from ansible_collections.holdfast.chain.plugins.module_utils.selinux_library import (
    LABEL,
    label_for_place,
)

LEFTOVER_PREFIX = ".holdfast-"

# What link(2) says on file systems without hard links, or for a file with too many of them.
_NO_HARD_LINK = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV)

PathName = Union[str, "os.PathLike[str]"]
Account = Union[str, int, None]


@contextlib.contextmanager
def locked(directory: PathName, seconds: float = 60) -> Iterator[None]:
    """Keep other runs out of a directory, which need not exist, or may come to while it is locked.

    The locks are on the directory itself and on the nearest folder above it that exists, which a
    run that finds no directory shares with one that finds it just made. They make no file and end
    with the process. Raises TimeoutError when another run still holds one after that many seconds.
    """
    own = Path(directory).absolute()
    above = own.parent
    while not above.is_dir():
        above = above.parent
    deadline = time.monotonic() + seconds
    with contextlib.ExitStack() as held:
        for folder in (above, own):
            if folder.is_dir():
                handle = os.open(str(folder), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                held.callback(os.close, handle)
                while not _lock(handle):
                    if time.monotonic() > deadline:
                        raise TimeoutError(
                            f"{folder}: another run has been changing it for {seconds:.0f} s; wait "
                            "for it to end and run again"
                        )
                    time.sleep(0.1)
        yield


def _lock(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def leftovers(directory: PathName) -> list[Path]:
    """Names in a directory that a transaction cut short by a crash left there, sorted.

    Only for directories that one task at a time changes: a running transaction has them as well.
    """
    try:
        entries = sorted(Path(directory).iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []
    return [entry for entry in entries if entry.name.startswith(LEFTOVER_PREFIX)]


def beside(path: Path, kind: str) -> Path:
    """A new name in the same directory, hence on the same file system; kind: new or old."""
    return path.with_name(f"{LEFTOVER_PREFIX}{kind}-{secrets.token_hex(6)}-{path.name[:40]}")


def exists(path: Path) -> bool:
    """Whether there is anything at path, a dangling link included."""
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def refuse_directory(path: Path) -> None:
    """IsADirectoryError where a file or link is to be put over a real directory."""
    if path.is_dir() and not path.is_symlink():
        raise IsADirectoryError(errno.EISDIR, "is a directory; remove it first", str(path))


def _account_id(account: Account, lookup: Callable[[str], Any]) -> int:
    """The number of a user or group; -1 (chown's "leave it") for None."""
    if account is None:
        return -1
    if isinstance(account, int):
        return account
    try:
        return int(lookup(account)[2])
    except KeyError:
        if account.isdigit():
            return int(account)
        kind = "user" if lookup is pwd.getpwnam else "group"
        raise LookupError(f"{kind} '{account}' does not exist; create it first") from None


def account_ids(owner: Account, group: Account) -> tuple[int, int]:
    """Numbers of a user and a group, -1 for None; LookupError for one that does not exist."""
    return _account_id(owner, pwd.getpwnam), _account_id(group, grp.getgrnam)


def owner_for(path: Path, owner: Account, group: Account) -> tuple[int, int]:
    """Numbers for a file at path: as asked, otherwise of the file it replaces, otherwise -1."""
    uid, gid = account_ids(owner, group)
    if exists(path):
        before = path.lstat()
        uid = before.st_uid if uid == -1 else uid
        gid = before.st_gid if gid == -1 else gid
    return uid, gid


def write_new(
    fresh: Path, content: bytes, mode: int, owner: tuple[int, int], like: Path | None
) -> None:
    """Create a file with its final attributes and content, on the disk when this returns.

    like: where it will be; the SELinux label is that of the file there, or of the policy's rules.
    Nobody but its owner can read it until the mode is set, which is after the content is in.
    """
    handle = os.open(str(fresh), os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(handle, "wb") as stream:
        if like is not None:
            _label(like, stream.fileno())
        stream.write(content)
        stream.flush()
        os.fchown(stream.fileno(), *owner)
        os.fchmod(stream.fileno(), mode)
        os.fsync(stream.fileno())


def _label(like: Path, handle: int) -> None:
    """Keep the SELinux label of the file that is replaced; a new one gets that of its place."""
    if not hasattr(os, "getxattr"):
        return
    if not exists(like):
        label_for_place(handle, like)
        return
    with contextlib.suppress(OSError):
        os.setxattr(handle, LABEL, os.getxattr(str(like), LABEL, follow_symlinks=False))


def second_name(path: Path, kept: Path) -> None:
    """Hard-link path as kept, or copy it where the file system has no hard links."""
    try:
        os.link(str(path), str(kept), follow_symlinks=False)
    except OSError as error:
        if error.errno not in _NO_HARD_LINK:
            raise
        before = path.lstat()
        if stat.S_ISLNK(before.st_mode):
            kept.symlink_to(os.readlink(str(path)))
        else:
            attributes = stat.S_IMODE(before.st_mode), (before.st_uid, before.st_gid)
            write_new(kept, path.read_bytes(), *attributes, like=path)
            os.utime(str(kept), ns=(before.st_atime_ns, before.st_mtime_ns))


def put_back(kept: Path | None, path: Path) -> None:
    """Make path what it was before; right whether or not the step got as far as changing it."""
    if kept is None:
        discard(path)
    elif exists(kept):
        if exists(path) and os.path.samestat(kept.lstat(), path.lstat()):
            kept.unlink()  # rename(2) does nothing between two names of one file
        else:
            kept.replace(path)
    if path.parent.is_dir():  # else the step failed because it is not there
        sync_directory(path.parent)


def restore_attributes(path: Path, wanted: os.stat_result) -> None:
    """Give path the owner, group and mode that an earlier lstat() saw."""
    os.chown(str(path), wanted.st_uid, wanted.st_gid, follow_symlinks=False)
    if not stat.S_ISLNK(wanted.st_mode):
        path.chmod(stat.S_IMODE(wanted.st_mode))


def discard(path: Path) -> None:
    """Remove a file, a link or a whole tree; what is absent, its directory as well, is no error."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(str(path))
    elif exists(path):
        path.unlink()


def sync_directory(path: Path) -> None:
    """A rename is only on the disk once its directory is."""
    handle = os.open(str(path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
