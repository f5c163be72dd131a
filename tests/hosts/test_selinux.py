# SPDX-License-Identifier: GPL-3.0-or-later
"""What the role selinux leaves on a host without SELinux: nothing. tests/vm has one with it."""

from __future__ import annotations

from typing import Any

Host = Any  # testinfra's Host has no types worth the name


def test_nothing_is_installed_and_nothing_left(host: Host) -> None:
    assert not host.file("/sys/fs/selinux/enforce").exists, "this host was to have none"
    assert not host.exists("semanage")
    assert not host.file("/var/lib/holdfast.chain").exists
    assert not host.file("/var/lib/selinux").exists
