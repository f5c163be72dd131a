# SPDX-License-Identifier: GPL-3.0-or-later
"""What the role firewall lets in, tried by other hosts; `host` comes from testinfra's --hosts."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Callable

import pytest
from lab.hosts import MANAGERS, wait_for_boot
from lab.shell import environment

Host = Any  # testinfra's Host has no types worth the name
Try = Callable[[Host, int], bool]

CONNECT = "import socket; socket.create_connection(({!r}, {}), {}).close()"
MANY = """
import socket
ok = 0
for _ in range(30):
    try:
        socket.create_connection(({!r}, 30303), 0.2).close()
        ok += 1
    except OSError:
        pass
print(ok)
"""
SECONDS = 30  # for what the host does by itself


def address(host: Host) -> str:
    """Where the others reach it. Its name may not be answered for, for a minute after a boot."""
    return str(host.check_output("hostname -I").split()[0])


@pytest.fixture
def friend(peer: Callable[[str], Host]) -> Host:
    """The host that the sources name."""
    return peer("friend")


@pytest.fixture
def stranger(host: Host, peer: Callable[[str], Host]) -> Host:
    """A host that they do not."""
    return peer("managed" if host.check_output("hostname") == "plain" else "plain")


@pytest.fixture
def reaches(host: Host) -> Try:
    """Whether a host gets a connection to a port of this one."""

    def attempt(client: Host, port: int, seconds: float = 1) -> bool:
        script = CONNECT.format(address(host), port, seconds)
        return client.run("python3 -c %s", script).rc == 0

    return attempt


@pytest.fixture(autouse=True)
def running(host: Host) -> None:
    """The daemon runs, has passed its check, and is what it was for every test."""
    host.run("rm -f /run/wrong-identity")
    host.check_output("systemctl start listener")
    within(SECONDS, lambda: gate(host) == "open")


def within(seconds: float, holds: Callable[[], bool]) -> float:
    """Wait until something holds, and how long that took; fail if it never does."""
    start = time.monotonic()
    while not holds():
        assert time.monotonic() - start < seconds, f"not within {seconds} s"
        time.sleep(0.1)
    return time.monotonic() - start


def gate(host: Host) -> str:
    """What the host says of its gate."""
    return str(json.loads(host.check_output("holdfast-firewall status"))["gates"]["listener"])


def rules(host: Host) -> str:
    """The kernel's rules, without what changes by itself."""
    return str(host.check_output("nft -s -t list table inet holdfast"))


def boot_file(host: Host) -> str:
    """What the host loads at boot, where its distribution has it."""
    of_red_hat = "/etc/sysconfig/nftables.conf"
    return of_red_hat if host.file(of_red_hat).exists else "/etc/nftables.conf"


def is_managed(host: Host) -> bool:
    """Whether firewalld is this host's firewall."""
    return host.run("systemctl is-active --quiet firewalld").rc == 0


def controller_reaches(host: Host) -> bool:
    """Whether this machine, from which the rules came over SSH, gets a connection to SSH."""
    try:
        socket.create_connection((address(host), 22), 1).close()
    except OSError:
        return False
    return True


def module(host: Host, **options: Any) -> Any:
    """Run the module on this host from the controller, into the container itself."""
    command = [str(Path(sys.executable).parent / "ansible"), "all", "-i", f"{host.backend.name},"]
    command += [
        "-c",
        "podman",
        "-e",
        "ansible_python_interpreter=/usr/bin/python3",
    ]
    command += ["-m", "holdfast.chain.firewall_rules", "-a", json.dumps(options)]
    env = environment(ANSIBLE_FORCE_COLOR="0", ANSIBLE_CALLBACK_RESULT_FORMAT="json")
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout.partition(" => ")[2])


def test_what_is_others_is_as_it_was(host: Host) -> None:
    """Another table, and firewalld's zones. (The first test: Debian's own file flushes all.)"""
    assert "tcp dport 1 drop" in host.check_output("nft list table ip foreign")
    if is_managed(host):
        zones = host.check_output("firewall-cmd --list-all-zones")
        assert "foreign" in zones
        assert "30304" not in zones


def test_what_runs_is_reached_by_whom_it_may(
    host: Host, friend: Host, stranger: Host, reaches: Try
) -> None:
    """Peers from everywhere, the API from its sources, and nothing else from nowhere."""
    assert reaches(friend, 30304)
    assert reaches(stranger, 30304)
    assert reaches(friend, 8545)
    assert not reaches(stranger, 8545)
    for port in (7777, 9999):
        assert reaches(host, port), "somebody listens, and the host itself always may"
        assert not reaches(friend, port), port


def test_ssh_is_for_the_management_network(friend: Host, reaches: Try) -> None:
    """The controller came over it; the friend may not."""
    assert not reaches(friend, 22)


def test_the_rate_of_one_source_is_limited(friend: Host, stranger: Host, host: Host) -> None:
    """A burst of 10, and 5 more each second; another source has a share of its own."""
    where = address(host)
    for client in (friend, stranger):
        let_in = int(client.check_output("python3 -c %s", MANY.format(where)))
        assert 8 <= let_in < 30
    after = "python3 -c %s"
    within(SECONDS, lambda: friend.run(after, CONNECT.format(where, 30303, 0.5)).rc == 0)


def test_ports_close_with_the_service_and_open_with_it(
    host: Host, friend: Host, reaches: Try
) -> None:
    """An orderly end."""
    host.check_output("systemctl stop listener")
    assert gate(host) == "closed"
    assert "elements" not in host.check_output("nft list set inet holdfast open")
    host.check_output("systemctl start listener")
    assert gate(host) == "open"
    assert reaches(friend, 30304)


def test_a_killed_service_leaves_no_port_open(host: Host, friend: Host, reaches: Try) -> None:
    """kill -9. Something else that listens on its port afterwards is not reached."""
    host.check_output("systemctl kill --signal=KILL listener")
    within(SECONDS, lambda: host.check_output("systemctl show -P ActiveState listener") == "failed")
    assert gate(host) == "closed"
    host.check_output("systemd-run --unit=other python3 -m http.server 30304")
    try:
        within(SECONDS, lambda: reaches(host, 30304))
        assert not reaches(friend, 30304)
    finally:
        host.check_output("systemctl stop other")


def test_a_service_with_another_identity_stays_closed(
    host: Host, friend: Host, reaches: Try
) -> None:
    """It runs nevertheless, and is opened once it proves its own."""
    host.check_output("systemctl stop listener && touch /run/wrong-identity")
    host.check_output("systemctl start listener")
    assert gate(host) == "closed"
    assert not reaches(friend, 30304)
    assert host.run("systemctl is-active listener").stdout.strip() == "active"
    log = host.check_output("journalctl --no-pager -u listener -n 20")
    assert "stays closed for now: /usr/local/sbin/holdfast-handshake" in log
    assert "wrong.example" in log
    host.check_output("rm /run/wrong-identity")
    within(SECONDS, lambda: gate(host) == "open")
    assert reaches(friend, 30304)


def test_others_loading_their_rules_again_changes_nothing(
    host: Host, friend: Host, stranger: Host, reaches: Try
) -> None:
    """A reload by an administrator neither closes what runs nor opens anything."""
    host.check_output(
        "firewall-cmd --reload && systemctl restart firewalld"
        if is_managed(host)
        else f"nft -f {boot_file(host)}"
    )
    assert reaches(friend, 30304)
    assert reaches(friend, 8545)
    assert not reaches(stranger, 8545)


def test_an_unconfirmed_cut_is_undone_within_a_minute(
    host: Host, friend: Host, reaches: Try
) -> None:
    """Rules that keep everybody out, and nobody who confirms: the host itself takes them back."""
    assert controller_reaches(host)
    before = rules(host)
    policy = host.run("firewall-cmd --info-policy=holdfast").stdout
    kept = f"cat {boot_file(host)} /etc/nftables.d/* /etc/holdfast-firewall/*"
    files = host.check_output(kept)
    said = module(
        host,
        management_networks=["192.0.2.0/24"],
        management_ports=["22"],
        confirm_within=15,
        backend="firewalld" if is_managed(host) else "nftables",
    )
    assert said["pending"]
    assert not controller_reaches(host)
    assert not reaches(friend, 30304)
    within(60, lambda: controller_reaches(host))
    within(SECONDS, lambda: reaches(friend, 30304))
    within(
        SECONDS, lambda: "pending.json" not in host.check_output("ls /var/lib/holdfast-firewall")
    )
    assert rules(host) == before
    assert host.run("firewall-cmd --info-policy=holdfast").stdout == policy
    assert host.check_output(kept) == files


def test_a_boot_brings_the_rules_back_and_no_open_port(
    host: Host, friend: Host, reaches: Try
) -> None:
    """Closed until the service runs again."""
    before = rules(host)
    name = host.backend.name
    subprocess.run(["podman", "restart", "--time", "5", name], check=True, capture_output=True)
    wait_for_boot(name, MANAGERS["systemd"])
    assert rules(host) == before
    assert gate(host) == "closed"
    host.check_output("systemctl start listener")
    within(SECONDS, lambda: gate(host) == "open")
    within(SECONDS, lambda: reaches(friend, 30304))
    assert not reaches(friend, 7777)
