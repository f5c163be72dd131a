# Copyright: (c) 2026, Holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""kernel_params on a host in a directory: what it sets, refuses, reports and takes back."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any, Callable

import pytest
from ansible_collections.holdfast.chain.plugins.module_utils.sysctl import ParameterError
from ansible_collections.holdfast.chain.plugins.module_utils.sysctl_apply import run
from ansible_collections.holdfast.chain.plugins.module_utils.sysctl_plan import Request, wishes_of
from ansible_collections.holdfast.chain.plugins.module_utils.transaction import TransactionError
from fake_host import FakeHost

OWN = "/etc/sysctl.d/90-holdfast.conf"
PROFILE = {
    "net.core.somaxconn": 65535,
    "net.ipv4.tcp_rmem": [4096, 87380, 16777216],
    "vm.swappiness": 1,
}


def ask(sysctl: dict[str, Any], **options: Any) -> Request:
    present = options.get("present", True)
    options.setdefault("switches", {})
    return Request(file=OWN, wishes=wishes_of(sysctl, with_values=present), **options)


def apply(host: FakeHost, sysctl: dict[str, Any], **options: Any) -> dict[str, Any]:
    return run(host, ask(sysctl, **options), check=False)[0]


def preview(host: FakeHost, sysctl: dict[str, Any], **options: Any) -> dict[str, Any]:
    return run(host, ask(sysctl, **options), check=True)[0]


def four_steps(
    host: FakeHost, snapshot: Callable[[Path], Any], sysctl: dict[str, Any], **options: Any
) -> dict[str, Any]:
    """Check, apply, apply again, check again; the first apply's result."""
    before = snapshot(Path(host.root))
    promised = preview(host, sysctl, **options)
    assert snapshot(Path(host.root)) == before, "check mode touched the host"
    done = apply(host, sysctl, **options)
    assert done["changed"] is True
    assert done["changes"] == promised["changes"]
    after = snapshot(Path(host.root))
    assert apply(host, sysctl, **options)["changed"] is False
    assert preview(host, sysctl, **options)["changes"] == []
    assert snapshot(Path(host.root)) == after, "a run without changes touched the host"
    return done


@pytest.mark.parametrize("init", ["systemd", "openrc", "procps-openrc"])
def test_profile_is_set_and_persisted(
    make_host: Callable[[str], FakeHost], snapshot: Callable[[Path], Any], init: str
) -> None:
    host = make_host(init)
    switches = {"enabled": "never", "defrag": "never"}
    result = four_steps(host, snapshot, PROFILE, switches=switches)
    assert host.parameter("net/core/somaxconn") == "65535"
    assert host.parameter("net/ipv4/tcp_rmem") == "4096\t87380\t16777216"
    assert "[never]" in (host.read("/sys/kernel/mm/transparent_hugepage/enabled") or "")
    assert host.read(OWN) == (
        "# Managed by Ansible (holdfast.chain.kernel_params)\n"
        "net.core.somaxconn = 65535\n"
        "net.ipv4.tcp_rmem = 4096 87380 16777216\n"
        "vm.swappiness = 1\n"
    )
    kept = {
        "systemd": "/etc/tmpfiles.d/90-holdfast-hugepages.conf",
        "openrc": "/etc/local.d/90-holdfast-hugepages.start",
        "procps-openrc": "/etc/local.d/90-holdfast-hugepages.start",
    }[init]
    assert "never" in (host.read(kept) or "")
    key = result["parameters"]["vm.swappiness"]
    assert key == {
        "wanted": "1",
        "live": "1",
        "persisted": "1",
        "effective_at_boot": "1",
        "effective_from": OWN,
        "overridden_by": None,
    }
    assert result["parameters"]["transparent_hugepages.enabled"]["effective_from"] == kept
    assert not host.path("/var/lib/holdfast.chain").exists()


def test_one_write_per_changed_key(host: FakeHost) -> None:
    apply(host, PROFILE)
    assert sorted(host.written) == [
        ("net/core/somaxconn", "65535"),
        ("net/ipv4/tcp_rmem", "4096 87380 16777216"),
        ("vm/swappiness", "1"),
    ]


def test_reasons_tell_drift_from_a_new_value(host: FakeHost) -> None:
    apply(host, {"vm.swappiness": 1})
    host.write_kernel("/proc/sys/vm/swappiness", "60")
    (change,) = apply(host, {"vm.swappiness": 1})["changes"]
    assert change["target"] == "vm.swappiness"
    assert (change["before"], change["after"]) == ("60", "1")
    assert change["reason"] == "the kernel has another value than the file"


def test_live_but_not_persisted_writes_only_the_file(host: FakeHost) -> None:
    (change,) = apply(host, {"vm.swappiness": 60})["changes"]
    assert change["target"] == f"{OWN}: vm.swappiness"
    assert change["reason"] == "it would be lost at the next boot"
    assert host.written == []


def test_a_refused_value_puts_everything_back(host: FakeHost) -> None:
    host.put(OWN, "# mine\nvm.swappiness=10\n", 0o640)
    host.refuse["vm/swappiness"] = errno.EINVAL
    before = host.everything()
    with pytest.raises(TransactionError) as caught:
        apply(host, PROFILE, switches={"enabled": "never"})
    assert host.everything() == before
    assert "vm.swappiness = 1: the kernel does not take this value" in str(caught.value)
    assert "set net.core.somaxconn to 65535" in caught.value.undone
    assert caught.value.not_undone == []


def test_a_value_the_kernel_shows_otherwise_fails_and_is_put_back(host: FakeHost) -> None:
    host.shows["vm/swappiness"] = lambda value: "100" if value == "150" else value
    before = host.everything()
    with pytest.raises(TransactionError, match=r"vm.swappiness shows 100 after 150 was set"):
        apply(host, {"vm.swappiness": 150})
    assert host.everything() == before


def test_documented_rounding_is_no_failure(host: FakeHost) -> None:
    key = "net/ipv4/neigh/default/base_reachable_time_ms"
    host.shows[key] = lambda value: str(-(-int(value) // 4) * 4)
    apply(host, {"net.ipv4.neigh.default.base_reachable_time_ms": 30001})
    assert host.parameter(key) == "30004"
    again = apply(host, {"net.ipv4.neigh.default.base_reachable_time_ms": 30001})
    assert again["changed"] is False


def test_unrelated_duplicates_spacing_and_comments_stay(host: FakeHost) -> None:
    """ansible.posix.sysctl collapses them and changes the value that counts."""
    text = "vm.max_map_count=1\n\n;  old\n  vm.max_map_count   =  2\nvm.swappiness = 9 \n#end"
    host.put(OWN, text)
    other = "vm.swappiness=60\nvm.swappiness=61\nfs.nr_open =  5\n"
    host.put("/etc/sysctl.d/10-other.conf", other)
    apply(host, {"vm.swappiness": 1})
    assert host.read(OWN) == text.replace("vm.swappiness = 9 ", "vm.swappiness = 1")
    assert host.read("/etc/sysctl.d/10-other.conf") == other


def test_slash_form_is_the_same_key(host: FakeHost) -> None:
    """ansible.posix.sysctl adds it a second time, with dots."""
    host.put(OWN, "net/ipv4/tcp_keepalive_time = 60\n")
    apply(host, {"net.ipv4.tcp_keepalive_time": 60})
    assert host.read(OWN) == "net/ipv4/tcp_keepalive_time = 60\n"
    apply(host, {"net/ipv4/tcp_keepalive_time": 90})
    assert host.read(OWN) == "net.ipv4.tcp_keepalive_time = 90\n"


def test_own_contradicting_lines_become_one(host: FakeHost) -> None:
    host.put(OWN, "vm.swappiness = 5\n# why\nvm.swappiness = 60\n")
    result = apply(host, {"vm.swappiness": 60})
    assert host.read(OWN) == "# why\nvm.swappiness = 60\n"
    assert result["changes"][0]["reason"] == "lines for one key contradict each other"


def test_interface_names_with_dots(host: FakeHost) -> None:
    apply(host, {"net.ipv4.conf.eth0/100.rp_filter": 2})
    assert host.parameter("net/ipv4/conf/eth0.100/rp_filter") == "2"
    assert "net/ipv4/conf/eth0.100/rp_filter = 2\n" in (host.read(OWN) or "")


def test_unknown_key_is_refused_with_suggestions(host: FakeHost) -> None:
    before = host.everything()
    with pytest.raises(ParameterError, match=r"vm\.swapiness; did you mean vm\.swappiness\?"):
        apply(host, {"vm.swapiness": 1, "vm.max_map_count": 5})
    with pytest.raises(ParameterError, match=r"did you mean net\.ipv4\.conf\.eth0/100\.rp_filter"):
        apply(host, {"net.ipv4.conf.eth0.100.rp_filter": 1})
    with pytest.raises(ParameterError, match="kernel module nf_conntrack: load that first"):
        apply(host, {"net.netfilter.nf_conntrack_tcp_loose": 1})
    with pytest.raises(ParameterError, match="is a group of parameters"):
        apply(host, {"net.ipv4": 1})
    with pytest.raises(ParameterError, match="cannot be set"):
        apply(host, {"kernel.osrelease": "5"})
    assert host.everything() == before


def test_every_problem_is_told_at_once(host: FakeHost) -> None:
    with pytest.raises(ParameterError) as caught:
        apply(host, {"vm.swapiness": 1, "net.core.somaxcon": 2})
    assert "vm.swappiness" in str(caught.value)
    assert "net.core.somaxconn" in str(caught.value)


def test_container_sets_what_is_its_own_and_names_the_rest(host: FakeHost) -> None:
    """Others skip everything in a container, though net.* of the namespace can be set."""
    host.read_only += ["/proc/sys/vm", "/proc/sys/fs", "/sys"]
    host.path("/proc/sys/net/core/netdev_max_backlog").unlink()
    wanted = {**PROFILE, "fs.file-max": 1000, "net.core.netdev_max_backlog": 5000}
    result = apply(host, wanted, switches={"enabled": "never"})
    assert host.parameter("net/core/somaxconn") == "65535"
    assert sorted(result["not_applicable"]) == [
        "fs.file-max",
        "net.core.netdev_max_backlog",
        "transparent_hugepages.enabled",
        "vm.swappiness",
    ]
    assert "read-only mount" in result["not_applicable"]["vm.swappiness"]
    assert "network namespace" in result["not_applicable"]["net.core.netdev_max_backlog"]
    assert "vm.swappiness" not in (host.read(OWN) or "")
    assert apply(host, wanted, switches={"enabled": "never"})["changed"] is False
    before = host.everything()
    with pytest.raises(ParameterError, match=r"vm\.swappiness cannot be set here: belongs to the"):
        apply(host, wanted, skip_not_applicable=False)
    assert host.everything() == before


def test_shown_but_not_settable_in_a_network_namespace(host: FakeHost) -> None:
    host.put("/run/.containerenv", "")
    host.put("/proc/sys/net/core/rmem_max", "212992\n", 0o444)
    result = apply(host, {"net.core.rmem_max": 16777216})
    assert "only shows it" in result["not_applicable"]["net.core.rmem_max"]


def test_a_later_file_that_overrides_is_an_error_naming_it(host: FakeHost) -> None:
    host.put("/etc/sysctl.conf", "vm.swappiness = 30\n")
    host.link("/etc/sysctl.d/99-sysctl.conf", "../sysctl.conf")
    before = host.everything()
    with pytest.raises(ParameterError, match=r"99-sysctl\.conf sets it to 30 at boot"):
        apply(host, {"vm.swappiness": 1})
    assert host.everything() == before
    result = apply(host, {"vm.swappiness": 1}, allow_overridden=True)
    key = result["parameters"]["vm.swappiness"]
    assert (key["live"], key["persisted"], key["effective_at_boot"]) == ("1", "1", "30")
    assert key["overridden_by"] == "/etc/sysctl.d/99-sysctl.conf"


def test_a_later_file_with_the_same_value_is_no_conflict(host: FakeHost) -> None:
    host.put("/etc/sysctl.d/99-z.conf", "vm/swappiness=1\n")
    host.put("/etc/sysctl.d/99-zz.conf", "vm.swappiness = 0x1\n")
    key = apply(host, {"vm.swappiness": 1})["parameters"]["vm.swappiness"]
    assert key["overridden_by"] is None
    assert key["effective_from"] == "/etc/sysctl.d/99-zz.conf"


def test_a_rival_parameter_in_a_later_file_overrides(host: FakeHost) -> None:
    host.put("/etc/sysctl.d/95-x.conf", "vm.dirty_ratio = 40\n")
    with pytest.raises(ParameterError, match=r"95-x\.conf sets the parameter that excludes it"):
        apply(host, {"vm.dirty_bytes": 1048576})


def test_ufw_and_tuned_come_after_the_folders(host: FakeHost) -> None:
    host.put("/etc/ufw/ufw.conf", "ENABLED=yes\n")
    host.put("/etc/default/ufw", "IPT_SYSCTL=/etc/ufw/sysctl.conf\n")
    host.put("/etc/ufw/sysctl.conf", "net/ipv4/tcp_keepalive_time=1\n")
    host.link("/etc/systemd/system/multi-user.target.wants/tuned.service", "/x")
    host.put("/etc/tuned/active_profile", "mine\n")
    host.put("/etc/tuned/mine/tuned.conf", "[main]\ninclude=base\n[sysctl]\nvm.swappiness=70\n")
    host.put("/usr/lib/tuned/base/tuned.conf", "[vm]\ntransparent_hugepages=always\n")
    with pytest.raises(ParameterError, match=r"/etc/ufw/sysctl\.conf sets it to 1 at boot"):
        apply(host, {"net.ipv4.tcp_keepalive_time": 60})
    with pytest.raises(ParameterError, match=r"/usr/lib/tuned/base/tuned\.conf sets it to always"):
        apply(host, {}, switches={"enabled": "never"})
    assert apply(host, {"vm.swappiness": 1})["parameters"]["vm.swappiness"]["overridden_by"] is None
    host.put("/etc/tuned/tuned-main.conf", "reapply_sysctl = 0\n")
    with pytest.raises(ParameterError, match=r"/etc/tuned/mine/tuned\.conf sets it to 70"):
        apply(host, {"vm.swappiness": 1})


def test_wildcards_set_every_match_but_those_named(
    host: FakeHost, snapshot: Callable[[Path], Any]
) -> None:
    wanted = {"net.ipv4.conf.lo.rp_filter": 0, "net/ipv4/conf/*/rp_filter": 2}
    result = four_steps(host, snapshot, wanted)
    shown = {key: host.parameter(f"net/ipv4/conf/{key}/rp_filter") for key in ("all", "eth0.100")}
    assert shown == {"all": "2", "eth0.100": "2"}
    assert host.parameter("net/ipv4/conf/lo/rp_filter") == "0"
    assert "net.ipv4.conf.*.rp_filter = 2\n" in (host.read(OWN) or "")
    assert result["parameters"]["net.ipv4.conf.eth0/100.rp_filter"]["persisted"] == "2"
    assert "net.ipv4.conf.*.rp_filter" not in result["parameters"]


def test_wildcards_are_spelt_out_for_busybox(
    alpine: FakeHost, snapshot: Callable[[Path], Any]
) -> None:
    four_steps(alpine, snapshot, {"net.ipv4.conf.*.rp_filter": 2})
    text = alpine.read(OWN) or ""
    assert "*" not in text
    assert "net/ipv4/conf/eth0.100/rp_filter = 2\n" in text
    assert text.index("conf.all") < text.index("conf.lo")


def test_a_wildcard_without_a_match_is_a_typo(host: FakeHost) -> None:
    with pytest.raises(ParameterError, match="stands for no parameter"):
        apply(host, {"net.ipv4.conf.*.rp_fliter": 1})


def test_an_exemption_elsewhere_takes_a_parameter_out_of_a_wildcard(host: FakeHost) -> None:
    host.put("/etc/sysctl.d/10-x.conf", "-net.ipv4.conf.all.rp_filter\n")
    with pytest.raises(ParameterError, match=r"conf\.all\.rp_filter = 2 would not last: /etc/sys"):
        apply(host, {"net.ipv4.conf.*.rp_filter": 2})


def test_alpine_reads_usr_lib_after_etc(alpine: FakeHost) -> None:
    alpine.put("/usr/lib/sysctl.d/00-alpine.conf", "vm.swappiness = 60\n")
    with pytest.raises(ParameterError, match=r"/usr/lib/sysctl\.d/00-alpine\.conf sets it to 60"):
        apply(alpine, {"vm.swappiness": 1})


def test_alpine_script_that_reads_only_first_words(alpine: FakeHost) -> None:
    alpine.put(
        "/etc/init.d/sysctl",
        "for conf in /etc/sysctl.conf /etc/sysctl.d/*.conf; do\n"
        ' sed "s/ = /=/" "$conf" | while read var comments; do\n  sysctl -w "$var"\n done\ndone\n',
    )
    assert apply(alpine, {"vm.swappiness": 1})["read_at_boot_by"] == "sysctl -w"
    with pytest.raises(ParameterError, match="would be 4096 after the next boot"):
        apply(alpine, {"net.ipv4.tcp_rmem": [4096, 87380, 16777216]})


def test_openrc_services_are_enabled(alpine: FakeHost, snapshot: Callable[[Path], Any]) -> None:
    alpine.path("/etc/runlevels/boot/sysctl").unlink()
    alpine.path("/etc/runlevels/default/local").unlink()
    four_steps(alpine, snapshot, {"vm.swappiness": 1}, switches={"enabled": "never"})
    assert alpine.is_link("/etc/runlevels/boot/sysctl")
    assert alpine.is_link("/etc/runlevels/default/local")


def test_masked_reader_is_an_error(host: FakeHost) -> None:
    host.link("/etc/systemd/system/systemd-sysctl.service", "/dev/null")
    with pytest.raises(ParameterError, match="systemctl unmask systemd-sysctl"):
        apply(host, {"vm.swappiness": 1})


def test_purge_removes_what_is_not_named(host: FakeHost, snapshot: Callable[[Path], Any]) -> None:
    host.put(OWN, "# kept\nfs.nr_open = 1\nvm.swappiness = 5\n-vm.dirty_ratio\n")
    result = four_steps(host, snapshot, {"vm.swappiness": 1}, purge=True)
    assert host.read(OWN) == "# kept\nvm.swappiness = 1\n"
    reasons = {change["target"]: change["reason"] for change in result["changes"]}
    assert "kernel keeps its value" in reasons[f"{OWN}: fs.nr_open"]


def test_absent_removes_what_was_made(host: FakeHost, snapshot: Callable[[Path], Any]) -> None:
    before = host.everything()
    apply(host, PROFILE, switches={"enabled": "never"})
    four_steps(host, snapshot, {}, present=False)
    files = {name: value for name, value in host.everything().items() if name[:6] in ("/etc/s",)}
    assert files == {name: value for name, value in before.items() if name[:6] in ("/etc/s",)}
    assert host.names("/etc/tmpfiles.d") == []
    assert host.parameter("vm/swappiness") == "1"


def test_absent_of_one_key_leaves_the_others(host: FakeHost) -> None:
    apply(host, PROFILE)
    apply(host, {"vm/swappiness": None}, present=False)
    assert "swappiness" not in (host.read(OWN) or "")
    assert "somaxconn" in (host.read(OWN) or "")


def test_write_only_parameter_is_set_once(host: FakeHost, snapshot: Callable[[Path], Any]) -> None:
    result = four_steps(host, snapshot, {"vm.drop_caches": 3})
    assert [item for item in host.written if item[0] == "vm/drop_caches"] == [
        ("vm/drop_caches", "3")
    ]
    assert result["parameters"]["vm.drop_caches"]["live"] is None


def test_far_reaching_parameters_come_first_and_are_undone_with_their_reach(
    host: FakeHost,
) -> None:
    host.write_kernel("/proc/sys/net/ipv4/conf/lo/forwarding", "1")
    host.refuse["kernel/modules_disabled"] = errno.EPERM
    before = host.everything()
    host.written.clear()
    wanted = {
        "kernel.modules_disabled": 1,
        "net.ipv4.conf.lo.rp_filter": 1,
        "net.ipv4.conf.all.forwarding": 1,
        "vm.dirty_bytes": 1048576,
    }
    with pytest.raises(TransactionError):
        apply(host, wanted)
    order = [key for key, _value in host.written]
    assert order[0] == "net/ipv4/conf/all/forwarding"
    assert order.index("vm/dirty_bytes") > 0
    assert host.everything() == before


def test_rivals_cannot_be_asked_for_together() -> None:
    with pytest.raises(ParameterError, match="exclude each other"):
        ask({"vm.dirty_bytes": 1048576, "vm.dirty_ratio": 10})


@pytest.mark.parametrize(
    ("sysctl", "message"),
    [
        ({"net.ipv4.ip_forward": True}, "write 1"),
        ({"net.ipv4.ip_forward": None}, "expected a whole number"),
        ({"vm.swappiness": "1\n2"}, "more than one line"),
        ({"vm.swappiness": 1.5}, "expected a whole number"),
        ({"net/../../etc/passwd": 1}, "leaves /proc/sys"),
        ({"-vm.swappiness": 1}, "no name of a kernel parameter"),
        ({"vm swappiness": 1}, "no name of a kernel parameter"),
        ({"net.ipv6.conf.all.stable_secret": "x"}, "holds a secret"),
        ({"vm.swappiness": 1, "vm/swappiness": 2}, "given twice"),
    ],
)
def test_wrong_input_is_named(sysctl: dict[str, Any], message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        ask(sysctl)


def test_own_name_linked_away_is_refused(host: FakeHost) -> None:
    host.link(OWN, "/dev/null")
    with pytest.raises(ParameterError, match="somebody has masked or moved it"):
        apply(host, {"vm.swappiness": 1})


def test_permissions_of_the_file_are_corrected(host: FakeHost) -> None:
    host.put(OWN, "vm.swappiness = 60\n", 0o666)
    (change,) = apply(host, {"vm.swappiness": 60})["changes"]
    assert (change["before"], change["after"]) == ("0666", "0644")
    assert host.mode(OWN) == 0o644
