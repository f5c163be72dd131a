# SPDX-License-Identifier: GPL-3.0-or-later
"""What the role limits gave services that were running; `host` comes from testinfra's --hosts."""

from __future__ import annotations

from typing import Any

import pytest

Host = Any  # testinfra's Host has no types worth the name
Limits = "dict[str, tuple[int, int]]"  # soft and hard by the kernel's name

WANTED = {"Max open files": 131072, "Max processes": 16384}


def parse(text: str) -> Limits:
    """What the role sets, from /proc/<pid>/limits."""
    found = {}
    for line in text.splitlines():
        for name in WANTED:
            if line.startswith(name):
                soft, hard = line[len(name) :].split()[:2]
                found[name] = (int(soft), int(hard))
    return found


def limits(host: Host, pid: str) -> Limits:
    """The limits of a process, by the kernel itself."""
    return parse(host.check_output(f"cat /proc/{pid}/limits"))


def pid(host: Host, user: str) -> str:
    """The daemon's process, which must be the only one; not its supervisor, which names it too."""
    (found,) = host.check_output(f"pgrep -u {user} -f '^/bin/sleep'").split()
    return str(found)


def restart(host: Host, service: str) -> None:
    """Restart by the host's service manager."""
    openrc = host.file("/sbin/openrc").exists
    host.check_output(f"rc-service {service} restart" if openrc else f"systemctl restart {service}")


@pytest.fixture
def expected(host: Host) -> Limits:
    """What was asked for, or the most that this container can give."""
    most = limits(host, "1")
    return {name: (min(value, most[name][1]),) * 2 for name, value in WANTED.items()}


def test_running_service_has_the_limits(host: Host, expected: Limits) -> None:
    """The process that was there before the role came; the kernel lets root change its own."""
    assert limits(host, pid(host, "root")) == expected


@pytest.mark.parametrize("user", ["root", "prober"])
def test_next_start_has_the_limits(host: Host, expected: Limits, user: str) -> None:
    """Also where the running process may not be changed, as another user's in a container."""
    before = pid(host, user)
    restart(host, f"daemon-of-{user}")
    assert pid(host, user) != before
    assert limits(host, pid(host, user)) == expected


def needs_pam(host: Host) -> None:
    """A host as Alpine's has no PAM: there the limits are the services' alone."""
    if not host.file("/etc/pam.d/su").exists:
        pytest.skip("not run: this host has no PAM")


def test_sessions_of_the_user_have_the_limits(host: Host, expected: Limits) -> None:
    """By pam_limits, as everybody who logs in."""
    needs_pam(host)
    assert parse(host.check_output("su -s /bin/sh prober -c 'cat /proc/self/limits'")) == expected


def test_sessions_of_others_keep_theirs(host: Host, expected: Limits) -> None:
    """Nothing was set for everybody."""
    needs_pam(host)
    shown = parse(host.check_output("su -s /bin/sh nobody -c 'cat /proc/self/limits'"))
    assert all(shown[name] != expected[name] for name in WANTED)
