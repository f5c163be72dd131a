# Copyright: (c) 2026, Holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Faults at every step: a failing call, or a kill, before the k-th thing a run does to a host."""

from __future__ import annotations

import errno
import os
import signal
from typing import Any, Callable, Iterator

import pytest
from fake_host import FakeHost

CALLS = (
    "fsync",
    "replace",
    "rename",
    "link",
    "unlink",
    "mkdir",
    "rmdir",
    "symlink",
    "fchmod",
)


def at_each_call(
    monkeypatch: pytest.MonkeyPatch, host: FakeHost, strike: Callable[[str], None]
) -> Callable[[], int]:
    """Call strike(name) before each thing done to the host; returns a counter of them."""
    count = [0]

    def reached(name: str) -> None:
        count[0] += 1
        strike(name)

    for name in CALLS:
        real = getattr(os, name)

        def wrapped(*args: Any, real: Any = real, name: str = name, **options: Any) -> Any:
            reached(name)
            return real(*args, **options)

        monkeypatch.setattr(os, name, wrapped)
    real_open = os.open

    def opened(path: Any, flags: int, *args: Any, **options: Any) -> int:
        if flags & os.O_CREAT:
            reached("open")
        return real_open(path, flags, *args, **options)

    monkeypatch.setattr(os, "open", opened)
    host.before_write = reached
    host.before_limit = reached
    return lambda: count[0]


class DiskFullError(OSError):
    """What tests tell their own fault by."""


def failing_at(number: int) -> Callable[[str], None]:
    """A strike that fails once, at the number-th call."""
    left = [number]

    def strike(name: str) -> None:
        left[0] -= 1
        if left[0] == 0:
            raise DiskFullError(errno.ENOSPC, os.strerror(errno.ENOSPC), name)

    return strike


def killed_at(number: int, host: FakeHost, work: Callable[[], Any]) -> bool:
    """Run work in a child that is killed -9 before its number-th call; whether it got that far."""
    child = os.fork()
    if child == 0:
        left = [number]

        def strike(_name: str) -> None:
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)

        code = 1
        try:
            with pytest.MonkeyPatch.context() as patch:
                at_each_call(patch, host, strike)
                work()
            code = 0
        finally:
            os._exit(code)
    _pid, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return True
    assert os.WEXITSTATUS(status) == 0, "the run failed without any fault"
    return False


def numbers() -> Iterator[int]:
    """1, 2, 3, …: a run that does more than this many things has lost its way."""
    return iter(range(1, 400))
