# Copyright: (c) 2026, Holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""selinux_policy on a host in a directory: needs to CIL, refusals, installing and removing."""

from __future__ import annotations

import bz2
import dataclasses
from pathlib import Path
from typing import Any, Callable

import pytest
from ansible_collections.holdfast.chain.plugins.module_utils.selinux import SelinuxError
from ansible_collections.holdfast.chain.plugins.module_utils.selinux_cil import (
    declared,
    file_rules,
    relied_on,
    render,
)
from ansible_collections.holdfast.chain.plugins.module_utils.selinux_module import Request, run_on
from ansible_collections.holdfast.chain.plugins.module_utils.selinux_needs import (
    AllowNeed,
    Needs,
    PathNeed,
    PortNeed,
    TalkNeed,
    refusals,
)
from ansible_collections.holdfast.chain.plugins.module_utils.transaction import TransactionError
from fake_selinux import FS, STORE, TYPES, FakeSelinux, everything

NEEDS = Needs(
    "probe",
    executables=("/opt/x/bin/daemon",),
    bind=(PortNeed("tcp", 30303, 30304),),
    connect=(PortNeed("tcp", 30303, 30304),),
    read=(PathNeed("/etc/x"),),
    write=(PathNeed("/var/lib/x"),),
)
CIL = f"{STORE}/modules/400/probe/cil"


@pytest.fixture(autouse=True)
def whole_policy(monkeypatch: pytest.MonkeyPatch) -> None:
    """The stand-in knows every type that a module relies on."""
    services = ("resolve_names", "journal", "interpreter", "certificates")
    everything = dataclasses.replace(NEEDS, services=services, credentials=True)
    names = relied_on(render(everything)) | {"system_dbusd_t", "postgresql_t", "postgresql_run_t"}
    monkeypatch.setattr("fake_selinux.TYPES", TYPES | names | {"port_t"})


@pytest.fixture
def classes(selinux: FakeSelinux) -> FakeSelinux:
    """A kernel with classes."""
    for name, permissions in (
        ("file", "read write getattr execute open"),
        ("security", "load_policy"),
        ("process", "ptrace execmem signal"),
        ("capability", "sys_admin chown"),
    ):
        folder = selinux.host.path(f"{FS}/class/{name}/perms")
        folder.mkdir(parents=True)
        for permission in permissions.split():
            (folder / permission).write_text("1", encoding="utf-8")
    return selinux


def with_(**changes: Any) -> Needs:
    return dataclasses.replace(NEEDS, **changes)


def apply(selinux: FakeSelinux, needs: Needs, **options: Any) -> dict[str, Any]:
    return run_on(selinux, Request(needs, **options), check=False)[0]


def kind(selinux: FakeSelinux, path: str) -> str:
    return str(selinux.label(path)).split(":")[2]


def four_steps(
    selinux: FakeSelinux, snapshot: Callable[[Path], Any], request: Request
) -> dict[str, Any]:
    root = Path(selinux.host.root)
    before = snapshot(root)
    promised = run_on(selinux, request, check=True)[0]
    assert snapshot(root) == before, "check mode touched the host"
    selinux.told.clear()
    done = run_on(selinux, request, check=False)[0]
    assert done["changed"] is True
    assert done["changes"] == promised["changes"]
    assert done["version"] == promised["version"]
    assert selinux.starts("semodule") == 1
    after = snapshot(root)
    selinux.told.clear()
    assert run_on(selinux, request, check=False)[0]["changed"] is False
    assert run_on(selinux, request, check=True)[0]["changes"] == []
    assert selinux.told == [], "a tool was started although nothing was to be done"
    assert snapshot(root) == after, "a run without changes touched the host"
    return done


def test_a_module_is_installed_and_its_files_labelled(
    selinux: FakeSelinux, snapshot: Callable[[Path], Any]
) -> None:
    done = four_steps(selinux, snapshot, Request(NEEDS))
    assert selinux.host.read(CIL) == render(NEEDS)
    assert kind(selinux, "/opt/x/bin/daemon") == "probe_exec_t"
    assert kind(selinux, "/opt/x/bin") == "bin_t"
    assert kind(selinux, "/etc/x/conf") == "probe_conf_t"
    assert kind(selinux, "/var/lib/x/data") == "probe_data_t"
    assert done["domain"] == "probe_t"
    assert not selinux.host.exists("/var/lib/holdfast.chain")


def test_other_needs_are_another_version(
    selinux: FakeSelinux, snapshot: Callable[[Path], Any]
) -> None:
    first = apply(selinux, NEEDS)
    second = four_steps(selinux, snapshot, Request(with_(capabilities=("net_bind_service",))))
    assert first["version"] != second["version"]
    assert second["changes"][0]["reason"] == "the needs have changed"


def test_a_module_that_is_stored_compressed_is_the_same(selinux: FakeSelinux) -> None:
    apply(selinux, NEEDS)
    path = selinux.host.path(CIL)
    path.write_bytes(bz2.compress(path.read_bytes()))
    assert apply(selinux, NEEDS)["changed"] is False


def test_absent_leaves_no_trace(selinux: FakeSelinux, snapshot: Callable[[Path], Any]) -> None:
    labels = selinux.state()["labels"]
    apply(selinux, NEEDS)
    four_steps(selinux, snapshot, Request(Needs("probe"), present=False))
    assert not selinux.host.exists(f"{STORE}/modules/400")
    now = selinux.state()["labels"]
    assert {path: now[path] for path in labels} == labels
    assert not any("probe" in label for label in now.values())


def test_files_of_a_need_that_is_gone_are_labelled_back(selinux: FakeSelinux) -> None:
    apply(selinux, NEEDS)
    apply(selinux, with_(read=()))
    assert "probe_conf_t" not in selinux.state()["types"]
    assert kind(selinux, "/etc/x/conf") == "etc_t"


def test_a_local_rule_still_wins(selinux: FakeSelinux) -> None:
    selinux.import_script(['fcontext -a -f a -s system_u -t etc_t -r s0 "/var/lib/x/data"'])
    apply(selinux, NEEDS)
    assert kind(selinux, "/var/lib/x/data") == "etc_t"
    assert kind(selinux, "/var/lib/x") == "probe_data_t"


def test_a_module_the_host_refuses_leaves_it_as_it_was(selinux: FakeSelinux) -> None:
    before = everything(selinux)
    selinux.fails["semodule"] = "Failed to resolve allow statement"
    with pytest.raises(TransactionError, match=r"Failed to resolve.*Nothing had been changed"):
        apply(selinux, NEEDS)
    assert everything(selinux) == before


def test_a_hidden_or_disabled_module_is_told(selinux: FakeSelinux) -> None:
    selinux.host.path(f"{STORE}/modules/500/probe").mkdir(parents=True)
    with pytest.raises(SelinuxError, match="semodule -X 500 -r probe"):
        apply(selinux, NEEDS)
    selinux.host.path(f"{STORE}/modules/500/probe").rmdir()
    selinux.host.path(f"{STORE}/modules/disabled").mkdir()
    selinux.host.path(f"{STORE}/modules/disabled/probe").write_text("", encoding="utf-8")
    with pytest.raises(SelinuxError, match="semodule -e probe"):
        apply(selinux, NEEDS)


def test_a_port_that_has_another_type_is_explained(selinux: FakeSelinux) -> None:
    with pytest.raises(SelinuxError, match="tcp/8080 is http_cache_port_t already"):
        apply(selinux, with_(bind=(PortNeed("tcp", 8080, 8080),)))
    taken = with_(bind=(PortNeed("tcp", 8080, 8080, "http_cache_port_t"),))
    with pytest.raises(SelinuxError, match="with http_cache_port_t it may also bind 10001-10010"):
        apply(selinux, taken)
    assert apply(selinux, taken, force=True)["forced"]


REFUSED = [
    ({"allow": (AllowNeed("shadow_t", "file", ("read",)),)}, "would reach everybody's passwords"),
    ({"allow": (AllowNeed("self", "capability", ("*",)),)}, "every permission of the class"),
    ({"allow": (AllowNeed("etc_t", "file", ("write",)),)}, "what the whole system uses"),
    ({"allow": (AllowNeed("usr_t", "dir", ("add_name",)),)}, "what the whole system uses"),
    ({"allow": (AllowNeed("security_t", "security", ("load_policy",)),)}, "changes the policy"),
    ({"allow": (AllowNeed("self", "process", ("execmem",)),)}, "out of its confinement"),
    ({"allow": (AllowNeed("memory_device_t", "chr_file", ("read",)),)}, "memory of the kernel"),
    ({"allow": (AllowNeed("self", "system", ("module_load",)),)}, "loads modules"),
    ({"capabilities": ("*",)}, "all capabilities are root"),
    ({"capabilities": ("sys_admin",)}, "as good as root"),
    ({"capabilities": ("dac_override",)}, "file permissions do not bind it"),
    ({"talk_to": (TalkNeed("unconfined_t", "dbus"),)}, "may do anything on its behalf"),
    ({"read": (PathNeed("/"),)}, "it would take all of / away"),
    ({"read": (PathNeed("/etc"),)}, "it would take all of /etc away"),
    ({"read": (PathNeed("/etc/.*"),)}, "it would take all of /etc away"),
    ({"read": (PathNeed("/etc/shadow"),)}, "belongs to the system"),
    ({"read": (PathNeed("/etc/ssh/ssh_host_rsa_key"),)}, "belongs to the system"),
    *(
        ({option: (PathNeed(path),)}, "belongs to the system")
        for option in ("read", "write")
        for path in (
            "/etc/shadow-",
            "/etc/gshadow-",
            "/etc/passwd-",
            "/etc/group-",
            "/etc/crontab",
            r"/etc/cron\.d",
            r"/etc/cron\.daily/x",
            r"/etc/ld\.so\.preload",
            r"/etc/ld\.so\.conf\.d/x\.conf",
            r"/etc/profile\.d/x\.sh",
            "/etc/ssl/private",
            "/etc/ssl",
            "/etc/pki/tls/private/x",
            "/etc/pki",
            r"/etc/krb5\.keytab",
            "/var/spool/cron/crontabs",
        )
    ),
    ({"read": (PathNeed("/etc/cron.d"),)}, "it would take all of /etc away"),
    ({"read": (PathNeed(r"/etc/\w\w\w\w\w\w"),)}, "it would take all of /etc away"),
    ({"write": (PathNeed("/usr/local/share/x"),)}, "programs of the system"),
    ({"write": (PathNeed("/opt/x"),)}, "it could replace its own program"),
    ({"bind": (PortNeed("tcp", 80, 80, "port_t"),)}, "every port that has no other type"),
    ({"bind": (PortNeed("tcp", 1024, 65535),)}, "as good as all of them"),
    ({"connect": (PortNeed("tcp", 1, 1, "unreserved_port_t"),)}, "every port that has no other"),
]


@pytest.mark.parametrize(("changes", "why"), REFUSED)
def test_needs_that_give_more_are_refused_with_the_reason(
    selinux: FakeSelinux,
    snapshot: Callable[[Path], Any],
    changes: dict[str, Any],
    why: str,
) -> None:
    found = refusals(with_(**changes))
    assert any(why in refusal.why for refusal in found), found
    option = next(iter(changes))
    assert all(refusal.need.startswith(option) for refusal in found)
    before = snapshot(Path(selinux.host.root))
    for check in (True, False):
        with pytest.raises(SelinuxError, match="give force=true"):
            run_on(selinux, Request(with_(**changes)), check)
    assert snapshot(Path(selinux.host.root)) == before
    assert selinux.starts("semodule") == 0


def test_the_node_s_own_needs_are_not_refused() -> None:
    assert refusals(NEEDS) == []
    assert refusals(with_(capabilities=("net_bind_service",), credentials=True)) == []
    beside = ("/etc/chrony", "/etc/cronus", "/etc/groups", "/etc/profiles", "/etc/sshguard")
    assert refusals(with_(read=tuple(map(PathNeed, beside)))) == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "Probe"}, "name: 'Probe': expected lower-case"),
        ({"name": "probe_t"}, "not ending in '_t'"),
        ({"executables": ()}, "nothing to enter the domain by"),
        ({"read": (PathNeed("etc/x"),)}, "read: 'etc/x' matches nothing"),
        ({"write": (PathNeed("/var/run/x"),)}, "write '/run/x'"),
        ({"talk_to": (TalkNeed("postgresql_t", "unix_stream"),)}, "expected 'socket'"),
        ({"talk_to": (TalkNeed("postgrsql_t", "dbus"),)}, "did you mean postgresql_t"),
        ({"allow": (AllowNeed("etc_t) (x", "file", ("read",)),)}, "is no name of a type"),
        ({"allow": (AllowNeed("etc_t", "fil", ("read",)),)}, "has no class 'fil'"),
        ({"allow": (AllowNeed("httpd_sys_content_t", "file", ("raed",)),)}, "did you mean read"),
        ({"bind": (PortNeed("tcp", 1, 1, "zork_port_t"),)}, "bind: the loaded policy has no type"),
    ],
)
def test_what_cannot_be_policy_is_refused_before_anything_changes(
    classes: FakeSelinux, snapshot: Callable[[Path], Any], changes: dict[str, Any], message: str
) -> None:
    before = snapshot(Path(classes.host.root))
    for check in (True, False):
        with pytest.raises(SelinuxError, match=message):
            run_on(classes, Request(with_(**changes)), check)
    assert snapshot(Path(classes.host.root)) == before


def test_cil_grants_what_is_declared_and_nothing_else() -> None:
    text = render(NEEDS)
    rules = [line for line in text.splitlines() if line.lstrip().startswith("(allow probe_t ")]
    binds = [rule for rule in rules if "name_bind" in rule]
    assert binds == ["(allow probe_t probe_port_t (tcp_socket (name_bind)))"]
    connects = [rule for rule in rules if "name_connect" in rule]
    assert connects == ["(allow probe_t probe_port_t (tcp_socket (name_connect)))"]
    writes = {rule.split()[2] for rule in rules if "create unlink" in rule}
    assert writes == {"probe_data_t"}
    assert "(portcon tcp (30303 30304) (system_u object_r probe_port_t ((s0) (s0))))" in text
    for word in ("shadow", "unconfined", "capability", "relabel", "execmem", "udp_socket"):
        assert not any(word in rule for rule in rules), word
    alone = render(Needs("probe", executables=("/x",)))
    assert "socket (name" not in alone
    assert "node_bind" not in alone


def test_cil_is_balanced_and_the_same_each_time() -> None:
    needs = with_(
        services=("journal", "resolve_names", "interpreter", "certificates"),
        credentials=True,
        capabilities=("net_bind_service", "syslog"),
        talk_to=(
            TalkNeed("postgresql_t", "unix_stream", "postgresql_run_t"),
            TalkNeed("system_dbusd_t", "dbus"),
        ),
        read=(PathNeed("/etc/x"), PathNeed("/etc/x/key", secret=True)),
        permissive=True,
    )
    text = render(needs)
    assert text == render(needs)
    depth = 0
    for line in text.splitlines():
        if not line.startswith(";"):
            bare = line.split('"')[0] + (line.split('"')[2] if '"' in line else "")
            depth += bare.count("(") - bare.count(")")
            assert depth >= 0
    assert depth == 0
    assert "(allow probe_t probe_t (capability (net_bind_service)))" in text
    assert "(allow probe_t probe_t (capability2 (syslog)))" in text
    assert "(allow probe_t postgresql_t (unix_stream_socket (connectto)))" in text
    assert "(typepermissive probe_t)" in text
    blocks = [line for line in text.splitlines() if line.startswith("(optional")]
    assert len(blocks) == len(set(blocks)), "CIL refuses two blocks of one name"
    kinds = ("", "exec_", "conf_", "key_", "data_", "port_")
    assert declared(text) == {f"probe_{kind}t" for kind in kinds}
    assert [rule.target for rule in file_rules(text)][:2] == ["/opt/x/bin/daemon", "/etc/x(/.*)?"]
    lines = [line for line in text.splitlines() if "attribute" in line]
    secret = next(line for line in lines if "probe_key_t" in line)
    assert secret == "(typeattributeset file_type (probe_key_t))"
