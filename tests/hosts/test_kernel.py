# SPDX-License-Identifier: GPL-3.0-or-later
"""What the role kernel leaves on a host; `host` comes from testinfra's --hosts."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

Host = Any  # testinfra's Host has no types worth the name

OWN = "/etc/sysctl.d/90-holdfast.conf"
THEIRS = "/etc/sysctl.d/99-site.conf"
PROFILE = {
    "net.core.somaxconn": "65535",
    "net.ipv4.tcp_max_syn_backlog": "16384",
    "net.ipv4.tcp_keepalive_time": "60",
    "net.ipv4.tcp_keepalive_probes": "6",
    "net.ipv4.tcp_rmem": "4096 131072 16777216",
    "net.ipv4.ip_local_port_range": "20000 60999",
    "net.ipv4.conf.all.rp_filter": "2",
    "net.ipv4.conf.lo.rp_filter": "2",
}


def live(host: Host, key: str) -> str:
    """What the kernel shows, with single spaces."""
    shown = host.file("/proc/sys/" + key.replace(".", "/")).content_string
    return " ".join(shown.split())


def boot(host: Host) -> None:
    """Set the kernel parameters as the platform does at boot.

    A container may not set the machine's; the programs say so and go on with the rest.
    """
    if host.file("/sbin/openrc").exists:
        host.run("rc-service sysctl restart")
    else:
        host.run("systemctl restart systemd-sysctl")


@pytest.mark.parametrize(("key", "value"), PROFILE.items())
def test_value_is_live(host: Host, key: str, value: str) -> None:
    """The kernel itself says so; also after the values that were refused beside others."""
    assert live(host, key) == value


def test_values_hold_after_a_boot(host: Host) -> None:
    """The platform's own program, with its own idea of order, sets what the role promised."""
    for key, value in {"net.core.somaxconn": "128", "net.ipv4.tcp_keepalive_time": "7200"}.items():
        host.check_output(f"echo {value} >/proc/sys/{key.replace('.', '/')}")
        assert live(host, key) == value
    boot(host)
    assert {key: live(host, key) for key in PROFILE} == PROFILE


def test_file_is_roots_and_readable(host: Host) -> None:
    """As every file there."""
    file = host.file(OWN)
    assert (file.user, file.group, file.mode) == ("root", "root", 0o644)


def test_what_belongs_to_the_machine_is_left_to_it(host: Host) -> None:
    """A container's file promises nothing that no boot of the container can keep."""
    lines = host.file(OWN).content_string.splitlines()
    kept = {line.partition("=")[0].strip() for line in lines if "=" in line}
    assert {"net.core.somaxconn", "net.ipv4.tcp_keepalive_time"} <= kept
    assert not {"vm.swappiness", "fs.file-max"} & kept


def test_file_of_others_is_as_it_was(host: Host) -> None:
    """Comments, spaces and the key that is there twice."""
    theirs = (
        "# theirs; keep\nnet.ipv4.tcp_fin_timeout=30\n"
        ";   and this\nnet/ipv4/tcp_fin_timeout  =  35\n"
    )
    assert host.file(THEIRS).sha256sum == hashlib.sha256(theirs.encode()).hexdigest()
    assert host.file(THEIRS).mode == 0o640
