# Copyright: (c) 2026, Holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""ulimits on a host in a directory: files, running processes, refusals, absence."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Callable

import pytest
from ansible_collections.holdfast.chain.plugins.module_utils.limits import LimitError, limits_of
from ansible_collections.holdfast.chain.plugins.module_utils.limits_apply import run
from ansible_collections.holdfast.chain.plugins.module_utils.limits_plan import Request
from ansible_collections.holdfast.chain.plugins.module_utils.transaction import TransactionError
from fake_host import FakeHost

LIMITS = {"nofile": 131072, "nproc": 16384}
PAM = "/etc/security/limits.d/90-holdfast.conf"
DROPIN = "/etc/systemd/system/node@v1.service.d/90-holdfast.conf"
GROUP = "/system.slice/system-node.slice/node@v1.service"


@pytest.fixture
def machine(host: FakeHost) -> FakeHost:
    """A systemd host with PAM, a template unit and a running instance of two processes."""
    return with_service(host)


@pytest.fixture
def openrc(alpine: FakeHost) -> FakeHost:
    """An OpenRC host with a supervised service and no PAM."""
    alpine.put("/etc/passwd", "root:x:0:0::/:/bin/sh\nnode:x:100:100::/:/bin/sh\n")
    alpine.put("/etc/init.d/node.v1", "#!/sbin/openrc-run\nsupervisor=supervise-daemon\n", 0o755)
    alpine.put("/run/supervise-node.v1.pid", "300\n")
    alpine.process(300)
    alpine.process(301, parent=300, uid=100)
    alpine.process(302, parent=301, uid=100)
    alpine.process(400)
    return alpine


def with_service(host: FakeHost) -> FakeHost:
    host.put("/etc/passwd", "root:x:0:0::/:/bin/sh\nnode:x:999:999::/:/bin/sh\n")
    host.put("/etc/group", "chain:x:999:\n")
    host.put("/etc/security/limits.conf", "#*  soft  core  0\n")
    host.path("/etc/security/limits.d").mkdir()
    host.put("/usr/lib/x86_64-linux-gnu/security/pam_limits.so", "")
    host.put("/etc/pam.d/sshd", "session required pam_limits.so\n")
    host.put("/etc/systemd/system/node@.service", "[Service]\nExecStart=/x\nLimitNOFILE=4096\n")
    host.process(200, GROUP, uid=999)
    host.process(201, GROUP + "/sub", uid=999)
    host.process(202, GROUP.replace("v1", "v2"), uid=999)
    return host


def ask(**options: Any) -> Request:
    present = options.setdefault("present", True)
    limits = options.pop("limits", LIMITS if present else {})
    options.setdefault("user", None)
    options.setdefault("service", None)
    options.setdefault("file", "90-holdfast.conf")
    wanted = limits_of(limits) if present else {}
    return Request(limits=wanted, names=tuple(limits), **options)


def apply(host: FakeHost, **options: Any) -> dict[str, Any]:
    return run(host, ask(**options), check=False)[0]


def four_steps(host: FakeHost, snapshot: Callable[[Path], Any], **options: Any) -> dict[str, Any]:
    before = snapshot(Path(host.root))
    promised = run(host, ask(**options), check=True)[0]
    assert snapshot(Path(host.root)) == before, "check mode touched the host"
    done = apply(host, **options)
    assert done["changed"] is True
    assert done["changes"] == promised["changes"]
    after = snapshot(Path(host.root))
    assert apply(host, **options)["changed"] is False
    assert run(host, ask(**options), check=True)[0]["changes"] == []
    assert snapshot(Path(host.root)) == after, "a run without changes touched the host"
    return done


def test_user_and_service_in_one_task(machine: FakeHost, snapshot: Callable[[Path], Any]) -> None:
    result = four_steps(machine, snapshot, user="node", service="node@v1")
    assert machine.read(PAM) == (
        "# Managed by Ansible (holdfast.chain.ulimits)\nnode - nofile 131072\nnode - nproc 16384\n"
    )
    assert machine.read(DROPIN) == (
        "# Managed by Ansible (holdfast.chain.ulimits)\n"
        "[Service]\nLimitNOFILE=131072\nLimitNPROC=16384\n"
    )
    assert machine.limit(200, "nofile") == (131072, 131072)
    assert machine.limit(201, "nproc") == (16384, 16384)
    assert machine.limit(202, "nofile") == (1024, 524288), "another instance was changed"
    assert result["service"]["pids"] == [200, 201]
    assert result["service"]["restart_needed"] is False
    assert ["systemctl", "daemon-reload"] in machine.ran
    assert not any("restart" in word for command in machine.ran for word in command)
    assert result["changes"][-1]["target"].startswith("node@v1 (running)")


def test_template_means_all_instances(machine: FakeHost) -> None:
    result = apply(machine, service="node@")
    assert result["service"]["pids"] == [200, 201, 202]
    assert machine.exists("/etc/systemd/system/node@.service.d/90-holdfast.conf")


def test_openrc_service(openrc: FakeHost, snapshot: Callable[[Path], Any]) -> None:
    openrc.put("/etc/conf.d/node.v1", 'rc_ulimit="-c 0"\nport=1', 0o640)
    result = four_steps(openrc, snapshot, user="node", service="node.v1")
    assert openrc.read("/etc/conf.d/node.v1") == (
        'rc_ulimit="-c 0"\nport=1\n'
        "# BEGIN holdfast.chain.ulimits (the line before had no end)\n"
        'rc_ulimit="${rc_ulimit:-} -n 131072 -u 16384"\n'
        "# END holdfast.chain.ulimits\n"
    )
    assert openrc.mode("/etc/conf.d/node.v1") == 0o640
    assert [openrc.limit(pid, "nofile")[1] for pid in (300, 301, 302)] == [131072] * 3
    assert openrc.limit(400, "nofile") == (1024, 524288)
    assert "no pam_limits" in result["user"]["not_applicable"]


def test_openrc_gives_both_sides_one_value(openrc: FakeHost) -> None:
    with pytest.raises(LimitError, match="gives soft and hard one value"):
        apply(openrc, service="node.v1", limits={"nofile": {"soft": 1, "hard": 2}})


def test_a_user_alone_without_pam_is_an_error(openrc: FakeHost) -> None:
    with pytest.raises(LimitError, match="no pam_limits, so nothing reads"):
        apply(openrc, user="node")


@pytest.mark.parametrize("which", [("node", "node@v1"), (None, "node@v1"), ("node", None)])
def test_absent_leaves_the_host_as_before_present(
    machine: FakeHost, snapshot: Callable[[Path], Any], which: tuple[str, str]
) -> None:
    before = {k: v for k, v in machine.everything().items() if k.startswith("/etc")}
    apply(machine, user=which[0], service=which[1])
    result = four_steps(machine, snapshot, user=which[0], service=which[1], present=False)
    assert {k: v for k, v in machine.everything().items() if k.startswith("/etc")} == before
    if which[1]:
        assert result["service"]["restart_needed"] is True


def test_absent_from_openrc_restores_every_byte(openrc: FakeHost) -> None:
    for text in ("x=1", "x=1\n", "x=1\n\n# end\n", None):
        if text is not None:
            openrc.put("/etc/conf.d/node.v1", text)
        apply(openrc, service="node.v1")
        apply(openrc, service="node.v1", present=False)
        assert openrc.read("/etc/conf.d/node.v1") == text
        openrc.path("/etc/conf.d/node.v1").unlink(missing_ok=True)


def test_absent_of_one_limit_or_user_keeps_the_others(machine: FakeHost) -> None:
    apply(machine, user="node")
    apply(machine, user="@chain", limits={"nproc": 5})
    apply(machine, user="node", limits={"nproc": None}, present=False)
    assert (machine.read(PAM) or "").splitlines()[1:] == [
        "@chain - nproc 5",
        "node - nofile 131072",
    ]


def test_soft_above_hard_is_refused() -> None:
    with pytest.raises(LimitError, match="soft 10 is above hard 5"):
        limits_of({"nofile": {"soft": 10, "hard": 5}})
    with pytest.raises(LimitError, match="soft unlimited is above hard 5"):
        limits_of({"nofile": {"soft": "unlimited", "hard": 5}})


def test_more_than_nr_open_is_refused_with_the_number(machine: FakeHost) -> None:
    before = machine.everything()
    for value in (1048577, "unlimited"):
        with pytest.raises(LimitError, match=r"above fs\.nr_open = 1048576"):
            apply(machine, service="node@v1", limits={"nofile": value})
    assert machine.everything() == before


def test_more_than_the_container_can_give_is_refused_with_the_number(machine: FakeHost) -> None:
    machine.capable(effective=False, bounding=False)
    before = machine.everything()
    with pytest.raises(LimitError, match="hard 131072 is above 20000, the most this container"):
        apply(machine, service="node@v1")
    assert machine.everything() == before
    result = apply(machine, service="node@v1", lower=True)
    assert result["lowered"] == {
        "nofile": {"soft": 20000, "hard": 20000},
        "nproc": {"soft": 4096, "hard": 4096},
    }
    assert "LimitNOFILE=20000\n" in (machine.read(DROPIN) or "")
    assert result["ceiling"]["nofile"] == 20000


def test_without_the_right_a_restart_is_asked_for_and_not_done(machine: FakeHost) -> None:
    machine.capable(effective=False, bounding=True)
    result = apply(machine, service="node@v1")
    assert result["service"]["restart_needed"] is True
    assert "200, 201 stays as it is (no right to" in result["service"]["restart_reasons"][0]
    assert machine.limit(200, "nofile") == (1024, 524288)
    again = apply(machine, service="node@v1")
    assert again["changed"] is False
    assert again["service"]["restart_needed"] is True


def test_a_process_of_our_own_user_may_be_lowered_without_the_right(machine: FakeHost) -> None:
    machine.capable(effective=False, bounding=True)
    for pid in (200, 201):
        machine.process(pid, GROUP, uid=0)
    result = apply(machine, service="node@v1", limits={"nofile": 2048})
    assert machine.limit(200, "nofile") == (2048, 2048)
    assert result["service"]["restart_needed"] is False


def test_a_process_that_refuses_is_reported(machine: FakeHost) -> None:
    machine.untouchable.add(201)
    result = apply(machine, service="node@v1")
    assert machine.limit(200, "nofile") == (131072, 131072)
    assert result["service"]["restart_needed"] is True
    assert any(reason.startswith("201: ") for reason in result["service"]["restart_reasons"])


def test_children_born_meanwhile_get_the_limits_too(machine: FakeHost) -> None:
    born: list[int] = []

    def bear(_name: str) -> None:
        if not born:
            born.append(210)
            machine.process(210, GROUP, uid=999)

    machine.before_limit = bear
    apply(machine, service="node@v1")
    assert machine.limit(210, "nofile") == (131072, 131072)


def test_running_processes_can_be_left_alone(machine: FakeHost) -> None:
    result = apply(machine, service="node@v1", apply_running=False)
    assert machine.limit(200, "nofile") == (1024, 524288)
    assert "not asked to" in result["service"]["restart_reasons"][0]


def test_overriding_files_are_named(machine: FakeHost) -> None:
    machine.put("/etc/security/limits.d/99-site.conf", "node hard nofile 1000\n")
    with pytest.raises(LimitError, match=r"99-site\.conf is read after"):
        apply(machine, user="node")
    result = apply(machine, user="node", allow_overridden=True)
    assert result["user"]["limits"]["nofile"]["overridden_by"].endswith("99-site.conf")
    assert result["user"]["limits"]["nofile"]["effective"] == "soft 131072, hard 1000"
    late = "/etc/systemd/system/node@v1.service.d/99-site.conf"
    machine.put(late, "[Service]\nLimitNOFILE=1K\n")
    with pytest.raises(LimitError, match=r"99-site\.conf is read after"):
        apply(machine, service="node@v1")
    machine.put(late, "[Service]\nLimitNOFILE=128K\n")
    assert apply(machine, service="node@v1")["changed"] is True


def test_entries_for_others_override_nothing(machine: FakeHost) -> None:
    machine.put("/etc/security/limits.d/99-site.conf", "* - nofile 1\nother - nofile 2\n")
    assert apply(machine, user="node")["user"]["limits"]["nofile"]["overridden_by"] is None


def test_an_init_script_that_sets_rc_ulimit_overrides(openrc: FakeHost) -> None:
    openrc.put("/etc/init.d/node.v1", '#!/sbin/openrc-run\nrc_ulimit="-n 5"\n', 0o755)
    with pytest.raises(LimitError, match=r"/etc/init\.d/node\.v1 is read after"):
        apply(openrc, service="node.v1")


def test_files_of_others_with_our_name_are_refused(machine: FakeHost) -> None:
    machine.put(DROPIN, "[Service]\nNice=5\n")
    with pytest.raises(LimitError, match="was not made by this module"):
        apply(machine, service="node@v1")
    assert machine.read(DROPIN) == "[Service]\nNice=5\n"


def test_unknown_names_are_refused(machine: FakeHost) -> None:
    with pytest.raises(LimitError, match="user 'nod' does not exist"):
        apply(machine, user="nod")
    with pytest.raises(LimitError, match="group 'chains' does not exist"):
        apply(machine, user="@chains")
    with pytest.raises(LimitError, match=r"no unit nod\.service"):
        apply(machine, service="nod")
    with pytest.raises(LimitError, match="'files' is no limit"):
        limits_of({"files": 1})
    with pytest.raises(LimitError, match="expected a whole number"):
        limits_of({"nofile": "many"})


def test_units_of_the_files_are_converted(machine: FakeHost) -> None:
    limits = {"memlock": 67108864, "cpu": 120, "core": "unlimited"}
    apply(machine, user="node", service="node@v1", limits=limits)
    assert (machine.read(PAM) or "").splitlines()[1:] == [
        "node - core unlimited",
        "node - cpu 2",
        "node - memlock 65536",
    ]
    assert "LimitMEMLOCK=67108864\n" in (machine.read(DROPIN) or "")
    assert "LimitCORE=infinity\n" in (machine.read(DROPIN) or "")
    with pytest.raises(LimitError, match="counts in units of 1024"):
        apply(machine, user="node", limits={"memlock": 1000})


def test_systemd_is_asked_what_it_will_give(machine: FakeHost) -> None:
    before = machine.everything()
    ask_for = "systemctl show node@v1.service --property=LimitNOFILE,LimitNOFILESoft"
    machine.programs[ask_for] = (0, "LimitNOFILE=524288\nLimitNOFILESoft=1024\n", "")
    with pytest.raises(
        TransactionError, match=r"systemd gives node@v1\.service nofile = soft 1024"
    ):
        apply(machine, service="node@v1", limits={"nofile": 131072})
    assert machine.everything() == before
    assert machine.ran[-1] == ["systemctl", "daemon-reload"], (
        "not reloaded after the files went back"
    )


def test_a_failing_reload_takes_all_back(machine: FakeHost) -> None:
    before = machine.everything()
    machine.failing_once["systemctl daemon-reload"] = (1, "", "no bus")
    with pytest.raises(TransactionError, match="daemon-reload: no bus"):
        apply(machine, user="node", service="node@v1")
    assert machine.everything() == before
