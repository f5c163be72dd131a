# SPDX-License-Identifier: GPL-3.0-or-later
"""What the tests set, and what a machine really has of it."""

from __future__ import annotations

from pathlib import Path

from lab.vm.guest import Guest

MANIFEST = Path(__file__).resolve().parents[2] / "molecule/shared/manifest.py"
# Where a module may write. The rest is programs, a minute to read on this machine, and logs.
PLACES = ("/etc", "/home", "/opt", "/root", "/srv", "/usr/local", "/usr/lib/systemd", "/var/lib")
PAGES = "/sys/kernel/mm/transparent_hugepage/enabled"

# The profile of the role kernel; the machine's own values are others throughout.
PROFILE = {
    "fs.file-max": "2097152",
    "net.core.netdev_max_backlog": "16384",
    "net.core.rmem_max": "16777216",
    "net.core.somaxconn": "65535",
    "net.core.wmem_max": "16777216",
    "net.ipv4.tcp_keepalive_intvl": "10",
    "net.ipv4.tcp_keepalive_probes": "6",
    "net.ipv4.tcp_keepalive_time": "60",
    "net.ipv4.tcp_max_syn_backlog": "16384",
    "net.ipv4.tcp_rmem": "4096 131072 16777216",
    "net.ipv4.tcp_wmem": "4096 65536 16777216",
    "vm.swappiness": "1",
}
KERNEL_ROLE = {"roles": [{"role": "holdfast.chain.kernel"}]}

# A service of a user of its own, started before anybody gave it limits.
DAEMON = """\
useradd --system worker
cat >/etc/systemd/system/daemon.service <<'UNIT'
[Service]
User=worker
ExecStart=/usr/bin/sleep infinity
[Install]
WantedBy=multi-user.target
UNIT
systemctl daemon-reload
systemctl enable --now daemon
"""
LIMITS = {"Max open files": "131072", "Max processes": "16384"}
LIMITS_ROLE = {
    "roles": [
        {"role": "holdfast.chain.limits", "limits_user": "worker", "limits_service": "daemon"}
    ]
}


def kernel(machine: Guest) -> dict[str, str]:
    """The profile's parameters as the kernel shows them, with single blanks."""
    names = [name.replace(".", "/") for name in PROFILE]
    lines = machine.sh(f"cd /proc/sys; cat {' '.join(names)}").splitlines()
    return {name: " ".join(line.split()) for name, line in zip(PROFILE, lines, strict=True)}


def huge_pages(machine: Guest) -> str:
    """The switch in force; the kernel puts it in brackets."""
    return machine.sh(f"cat {PAGES}").partition("[")[2].partition("]")[0]


def limits(shown: str) -> dict[str, tuple[str, str]]:
    """Soft and hard of LIMITS, from the text of /proc/PID/limits."""
    found = {}
    for line in shown.splitlines():
        for name in LIMITS:
            if line.startswith(name):
                soft, hard = line[len(name) :].split()[:2]
                found[name] = (soft, hard)
    return found


def service_limits(machine: Guest) -> dict[str, tuple[str, str]]:
    """The limits of the running daemon."""
    return limits(machine.sh("cat /proc/$(systemctl show -P MainPID daemon)/limits"))


def session_limits(machine: Guest) -> dict[str, tuple[str, str]]:
    """The limits of a session of its user."""
    return limits(machine.sh("su -s /bin/sh worker -c 'cat /proc/self/limits'"))


WANTED_LIMITS = {name: (value, value) for name, value in LIMITS.items()}


def record(machine: Guest) -> None:
    """Remember every file below PLACES."""
    machine.run("python3", "-", "record", *PLACES, text=MANIFEST.read_text())


def changed_files(machine: Guest) -> list[str]:
    """The files that differ from what was recorded."""
    done = machine.run("python3", "-", "compare", *PLACES, text=MANIFEST.read_text(), check=False)
    assert done.returncode in (0, 1), done.stderr
    return done.stdout.strip().splitlines()
