# Copyright: (c) 2026, Holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a domain was denied, from records as the kernel and D-Bus write them."""

from __future__ import annotations

import datetime
from typing import Any, Sequence

import pytest
from ansible_collections.holdfast.chain.plugins.module_utils import selinux_denials
from ansible_collections.holdfast.chain.plugins.module_utils.hostfs import Host
from ansible_collections.holdfast.chain.plugins.module_utils.selinux import SelinuxError

OURS = "scontext=system_u:system_r:probe_t:s0"


def avc(number: int, what: str, rest: str) -> str:
    return (
        f"type=AVC msg=audit(1795250927.{number:03d}:{number}): avc:  denied  {{ {what} }} for  "
        f'pid=291 comm="probe" {rest} permissive=0'
    )


LOG = "\n".join(
    [
        avc(
            32,
            "read",
            f'name="shadow" dev="vda" ino=370 {OURS} '
            "tcontext=system_u:object_r:shadow_t:s0 tclass=file",
        ),
        "type=SYSCALL msg=audit(1795250927.032:32): arch=c000003e syscall=257 success=no exit=-13 "
        'comm="probe" exe="/usr/bin/python3.11" subj=system_u:system_r:probe_t:s0 key=(null)',
        avc(
            488,
            "name_bind",
            f"src=7072 {OURS} tcontext=system_u:object_r:unreserved_port_t:s0 tclass=tcp_socket",
        ),
        avc(
            496,
            "name_connect",
            f"dest=22 {OURS} tcontext=system_u:object_r:ssh_port_t:s0 tclass=tcp_socket",
        ),
        avc(
            500,
            "name_bind",
            f"src=7072 {OURS} tcontext=system_u:object_r:unreserved_port_t:s0 tclass=tcp_socket",
        ),
        avc(
            508,
            "write append",
            f'path=2F7661722F6120622F63 dev="vda" ino=14024 {OURS} '
            "tcontext=system_u:object_r:var_t:s0 tclass=file",
        ),
        avc(600, "sys_admin", f"capability=21 {OURS} tcontext={OURS[9:]} tclass=capability"),
        avc(
            700,
            "read",
            'path="/etc/x" scontext=system_u:system_r:ntpd_t:s0 '
            "tcontext=system_u:object_r:etc_t:s0 tclass=file",
        ),
        avc(
            701,
            "sigkill",
            'scontext=system_u:system_r:ntpd_t:s0 tcontext=system_u:system_r:probe_t:s0 '
            "tclass=process",
        ),
        "type=USER_AVC msg=audit(1795250927.800:800): pid=310 uid=81 auid=4294967295 "
        "ses=4294967295 subj=system_u:system_r:system_dbusd_t:s0 msg='avc:  denied  { send_msg } "
        "for msgtype=method_call interface=org.freedesktop.DBus member=Hello "
        f"dest=org.freedesktop.DBus spid=291 {OURS} tcontext=system_u:system_r:init_t:s0 "
        'tclass=dbus permissive=1  exe="/usr/bin/dbus-daemon" sauid=81 hostname=? addr=?\'',
        "type=SELINUX_ERR msg=audit(1795250927.900:900): op=security_bounded_transition "
        "seresult=denied oldcontext=system_u:system_r:probe_t:s0 "
        "newcontext=system_u:system_r:other_t:s0",
        "type=AVC msg=audit(1795250927.950:950): avc:  granted  { setenforce } for  pid=1 "
        f"{OURS} tcontext=system_u:object_r:security_t:s0 tclass=security",
    ]
)


class Audited(Host):
    """A host with an audit log: what ausearch says, and what it was asked."""

    def __init__(self, code: int = 0, out: str = LOG, error: str = "") -> None:
        super().__init__("/nowhere")
        self.answer = (code, out, error)
        self.asked: list[str] = []

    def run(self, command: Sequence[str], timeout: float = 60) -> tuple[int, str, str]:
        assert timeout > 60, "a log may be long"
        self.asked = list(command)
        return self.answer


def found() -> list[dict[str, Any]]:
    denials = selinux_denials.read(Audited(), "probe_t", "recent")
    assert denials is not None
    return denials


def test_each_denial_is_told_once_with_the_need_that_would_allow_it() -> None:
    told = [(item["target"], tuple(item["permissions"]), item["need"]) for item in found()]
    assert told == [
        ("shadow_t", ("read",), None),
        ("unreserved_port_t", ("name_bind",), "bind: tcp/7072"),
        ("ssh_port_t", ("name_connect",), "connect: tcp/22"),
        ("var_t", ("append", "write"), "write: /var/a b/c"),
        ("probe_t", ("sys_admin",), "capabilities: sys_admin"),
        ("probe_t", ("sigkill",), None),
        ("init_t", ("send_msg",), None),
        ("other_t", ("security_bounded_transition",), None),
    ]


def test_alike_ones_are_counted_with_their_first_and_last_time() -> None:
    bind = next(item for item in found() if item["port"] == 7072)
    assert bind["count"] == 2
    assert (bind["first"], bind["last"]) == ("2026-11-21T08:48:47.488Z", "2026-11-21T08:48:47.500Z")
    assert (bind["source"], bind["class"], bind["command"]) == ("probe_t", "tcp_socket", "probe")
    assert bind["permissive"] is False


def test_who_was_denied_and_what_was_let_through_is_told() -> None:
    assert next(i for i in found() if i["permissions"] == ["sigkill"])["source"] == "ntpd_t"
    assert next(i for i in found() if i["class"] == "dbus")["permissive"] is True
    assert not any(item["target"] == "security_t" for item in found()), "that was granted"


def test_what_looks_like_hexadecimal_but_is_quoted_is_text() -> None:
    line = avc(1, "read", f'name="CAFE" {OURS} tcontext=a:b:etc_t:s0 tclass=file')
    assert next(selinux_denials.parse(line, "probe_t"))["path"] == "CAFE"


@pytest.mark.parametrize("since", ["1795250927.5", "2026-11-21T08:48:47.500Z"])
def test_a_time_is_kept_to_the_millisecond(since: str) -> None:
    host = Audited()
    denials = selinux_denials.read(host, "probe_t", since)
    assert denials is not None
    assert [item["count"] for item in denials if item["port"] == 7072] == [1]
    assert not any(item["port"] == 22 for item in denials)
    local = datetime.datetime.fromtimestamp(1795250927.5)
    assert host.asked[-2:] == [local.strftime("%m/%d/%y"), local.strftime("%H:%M:%S")]


def test_words_are_those_of_ausearch() -> None:
    host = Audited()
    selinux_denials.read(host, "probe_t", "boot")
    assert host.asked[-2:] == ["-ts", "boot"]
    assert "--input-logs" in host.asked, "ausearch would read what is piped into the module"


def test_a_wrong_time_is_refused() -> None:
    with pytest.raises(SelinuxError, match="denials_since: 'lately': expected one of boot, recent"):
        selinux_denials.start_of("lately")


def test_nothing_found_is_told_apart_from_nothing_known() -> None:
    assert selinux_denials.read(Audited(1, "", "<no matches>"), "probe_t", "boot") == []
    assert selinux_denials.read(Audited(127, "", "not found"), "probe_t", "boot") is None
    assert selinux_denials.read(Audited(1, "", "Error opening"), "probe_t", "boot") is None
