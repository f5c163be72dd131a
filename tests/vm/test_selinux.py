# SPDX-License-Identifier: GPL-3.0-or-later
"""selinux_context, selinux_policy and their role where SELinux is enforcing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lab.vm.guest import Guest
from states import changed_files, record

DAEMON = Path(__file__).with_name("confined.py")
# Run as root, so that nothing but SELinux is in its way.
INSTALL = """\
mkdir -p /opt/probe/bin /etc/probe /var/lib/probe
cat >/opt/probe/bin/probe
chmod 755 /opt/probe/bin/probe
echo key >/etc/probe/key
echo token >/etc/probe/token
echo secret >/root/secret
cat >/etc/systemd/system/probe.service <<'UNIT'
[Service]
Type=notify
ExecStart=/opt/probe/bin/probe
LoadCredential=token:/etc/probe/token
[Install]
WantedBy=multi-user.target
UNIT
restorecon -R /opt/probe /etc/probe /var/lib/probe
systemctl daemon-reload
systemctl enable probe
"""
ASK = """\
import socket
with socket.create_connection(("127.0.0.1", 7070)) as daemon:
    print(daemon.makefile().read())
"""
VARIABLES = {
    "selinux_name": "probe",
    "selinux_executables": ["/opt/probe/bin/probe"],
    "selinux_bind": ["7070-7071"],
    "selinux_connect": [7070],
    "selinux_read": ["/etc/probe"],
    "selinux_secrets": ["/etc/probe/key", r"/etc/probe/tls/pending/key\.pem"],
    "selinux_write": ["/var/lib/probe"],
    "selinux_services": ["interpreter"],
    "selinux_denials_since": "boot",
}
ROLE = {"roles": [{"role": "holdfast.chain.selinux", **VARIABLES}]}
ABSENT = {"roles": [{"role": "holdfast.chain.selinux", **VARIABLES, "selinux_state": "absent"}]}
NEEDS = {
    "name": "probe",
    "executables": ["/opt/probe/bin/probe"],
    "bind": [{"port": "7070-7071"}],
    "connect": [{"port": 7070}],
    "read": [
        {"path": "/etc/probe"},
        {"path": "/etc/probe/key", "secret": True},
        {"path": r"/etc/probe/tls/pending/key\.pem", "secret": True},
    ],
    "write": ["/var/lib/probe"],
    "services": ["interpreter"],
    "credentials": True,
}
IDENTITY = {"directory": "/etc/probe/tls", "common_name": "probe", "dns": ["probe.example"]}
CONFINED = {
    "domain": "probe_t",
    "read its key": "key\n",
    "read its credential": "token\n",
    "write its data": "written",
    "bind and connect to its second port": "connected",
    "bind another port": "PermissionError",
    "connect to another port": "PermissionError",
    "write its key": "PermissionError",
    "read passwords": "PermissionError",
    "read what is root's": "PermissionError",
    "run a shell": "PermissionError",
}


def ask(machine: Guest) -> dict[str, Any]:
    """What the running daemon may do."""
    return json.loads(machine.run("python3", "-", text=ASK).stdout)


def labels(machine: Guest, *places: str) -> dict[str, str]:
    """The types of all files below places."""
    listed = machine.run("find", *places, "-printf", "%p %Z\n").stdout.splitlines()
    return {path: label.split(":")[2] for path, label in map(str.split, listed)}


def customised(machine: Guest) -> str:
    """What libsemanage keeps of the administrator's own, without its comments."""
    return machine.sh("sed '/^#/d' /var/lib/selinux/default/active/*.local 2>/dev/null || :")


def test_a_daemon_is_confined_and_stays_so(machine: Guest) -> None:
    """It can do what was declared, nothing else, also after a reboot; and the denials are found."""
    machine.sh(INSTALL, text=DAEMON.read_text())
    machine.sh("systemctl start probe")  # before there is a policy
    places = ("/opt/probe", "/etc/probe", "/var/lib/probe")
    before = labels(machine, *places)
    record(machine)
    assert machine.play(ROLE, check=True)["changed"] == 1
    assert changed_files(machine) == []
    assert labels(machine, *places) == before

    assert machine.play(ROLE)["changed"] == 1
    now = labels(machine, *places)
    assert now["/opt/probe/bin/probe"] == "probe_exec_t"
    assert now["/etc/probe/key"] == "probe_key_t"
    assert now["/etc/probe/token"] == "probe_conf_t"
    policy = "holdfast.chain.selinux_policy"
    found = machine.module(policy, NEEDS)
    assert (found["changed"], found["restart_needed"]) == (False, True), found["changes"]
    assert [item["program"] for item in found["processes"]] == ["/opt/probe/bin/probe"]
    machine.sh("systemctl restart probe")
    assert ask(machine) == CONFINED

    # A key that is made later is as secret as those that were there.
    assert machine.module("holdfast.chain.mtls_request", IDENTITY)["changed"]
    pending = labels(machine, "/etc/probe/tls/pending")
    assert pending["/etc/probe/tls/pending/key.pem"] == "probe_key_t"
    assert pending["/etc/probe/tls/pending/request.pem"] == "probe_conf_t"

    machine.reboot()
    assert machine.sh("systemctl list-units --failed --plain --no-legend") == ""
    assert machine.sh("getenforce") == "Enforcing"
    assert ask(machine) == CONFINED

    found = machine.module(policy, {**NEEDS, "denials_since": "boot"})
    assert (found["changed"], found["restart_needed"]) == (False, False), found["changes"]
    denied = {(item["class"], *item["permissions"], item["port"]) for item in found["denials"]}
    assert ("tcp_socket", "name_bind", 7072) in denied
    assert ("tcp_socket", "name_connect", 22) in denied
    assert {"bind: tcp/7072", "connect: tcp/22"} <= {item["need"] for item in found["denials"]}
    assert {item["source"] for item in found["denials"]} == {"probe_t"}

    refused = machine.module(policy, {"name": "probe", "state": "absent"})
    assert refused["failed"]
    assert "run in probe_t" in refused["msg"]
    assert ask(machine) == CONFINED

    machine.sh("systemctl stop probe; rm -r /etc/probe/tls")
    assert machine.play(ABSENT)["changed"] == 1
    assert labels(machine, *places) == {**before, "/var/lib/probe/data": "var_lib_t"}
    assert machine.sh("semodule --list=full | grep probe || :") == ""


def test_needs_that_give_more_are_refused(machine: Guest) -> None:
    """And so are types that the loaded policy does not have; nothing is touched."""
    record(machine)
    for needs, said in (
        ({"allow": [{"type": "shadow_t", "class": "file", "permissions": ["read"]}]}, "passwords"),
        ({"capabilities": ["sys_admin"]}, "as good as root"),
        ({"bind": [{"port": 80, "type": "http_prot_t"}]}, "did you mean http_port_t"),
    ):
        result = machine.module("holdfast.chain.selinux_policy", {**NEEDS, **needs})
        assert result["failed"]
        assert said in result["msg"]
    assert changed_files(machine) == []


# Of rules that match, the last wins: the folders come before what is in them.
FIFTY = [
    {"target": f"/srv/site{number}{end}", "type": kind}
    for number in range(25)
    for end, kind in (("(/.*)?", "etc_t"), ("/files(/.*)?", "var_lib_t"))
]
PROFILE = {
    "contexts": FIFTY,
    "ports": [{"port": "7070-7071", "type": "http_port_t"}],
    "booleans": {"allow_execmem": True},
    "purge": ["/srv/site"],
}
FILES = "cd /srv; for n in $(seq 0 24); do mkdir -p site$n/files; echo >site$n/files/a; done"


def test_fifty_contexts_are_one_transaction(machine: Guest) -> None:
    """Check mode touches nothing; a second run changes nothing; what is not named goes."""
    machine.sh(FILES)
    before = customised(machine)
    record(machine)
    module = "holdfast.chain.selinux_context"
    promised = machine.module(module, PROFILE, check=True)
    assert changed_files(machine) == []
    assert customised(machine) == before

    done = machine.module(module, PROFILE)
    assert done["status"] == "enforcing"
    assert [item["target"] for item in done["changes"]] == [
        item["target"] for item in promised["changes"]
    ]
    found = labels(machine, "/srv")
    for number in range(25):
        assert found[f"/srv/site{number}"] == "etc_t"
        assert found[f"/srv/site{number}/files/a"] == "var_lib_t"
    assert machine.sh("restorecon -Rnv /srv") == "", "restorecon would label something otherwise"
    assert "7070-7071" in machine.sh("semanage port -l | grep ^http_port_t")
    assert machine.sh("cat /sys/fs/selinux/booleans/allow_execmem").startswith("1")

    record(machine)
    again = machine.module(module, PROFILE)
    assert (again["changed"], again["changes"]) == (False, [])
    assert changed_files(machine) == []

    few = {**PROFILE, "contexts": FIFTY[:2], "purge": ["/srv/site", "http_port_t"], "ports": []}
    assert machine.module(module, few)["changed"]
    kept = [line for line in customised(machine).splitlines() if "/srv/" in line]
    assert [line.split()[0] for line in kept] == ["/srv/site0(/.*)?", "/srv/site0/files(/.*)?"]
    assert labels(machine, "/srv")["/srv/site24/files/a"] == "var_t"
    assert "7070-7071" not in machine.sh("semanage port -l | grep ^http_port_t")


def test_one_type_that_is_unknown_changes_nothing(machine: Guest) -> None:
    """Of fifty, the last one is misspelt."""
    record(machine)
    wrong = [*FIFTY[:-1], {**FIFTY[-1], "type": "var_lbi_t"}]
    result = machine.module("holdfast.chain.selinux_context", {**PROFILE, "contexts": wrong})
    assert result["failed"]
    assert "did you mean var_lib_t" in result["msg"]
    assert changed_files(machine) == []
