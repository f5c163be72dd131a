# Copyright: (c) 2026, Holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""selinux_context on a host in a directory: rules in order, ports, booleans, labels, refusals."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, Callable

import pytest
from ansible_collections.holdfast.chain.plugins.module_utils.hostfs import HostError
from ansible_collections.holdfast.chain.plugins.module_utils.selinux import SelinuxError
from ansible_collections.holdfast.chain.plugins.module_utils.selinux_apply import run_on
from ansible_collections.holdfast.chain.plugins.module_utils.selinux_plan import (
    Request,
    WantedFile,
    WantedPort,
)
from ansible_collections.holdfast.chain.plugins.module_utils.transaction import TransactionError
from fake_selinux import FS, INSTALLED, STORE, FakeSelinux

WWW = WantedFile("/srv/www(/.*)?", "a", "httpd_sys_content_t")
UPLOAD = WantedFile("/srv/www/upload(/.*)?", "a", "httpd_sys_rw_content_t")
PORT = WantedPort("tcp", 8081, 8081, "http_port_t")
ALL = Request((WWW, UPLOAD), (PORT,), {"httpd_can_network_connect": True})


def apply(selinux: FakeSelinux, request: Request) -> dict[str, Any]:
    return run_on(selinux, request, check=False)[0]


def targets(result: dict[str, Any]) -> list[str]:
    return [change["target"] for change in result["changes"]]


def stored(selinux: FakeSelinux) -> list[str]:
    return [rule.target for rule in selinux.customisations("targeted").files]


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
    done = apply(selinux, request)
    assert done["changed"] is True
    assert done["changes"] == promised["changes"]
    assert done["diff"] == promised["diff"]
    assert selinux.starts("semanage") <= 1
    after = snapshot(root)
    selinux.told.clear()
    assert apply(selinux, request)["changed"] is False
    assert run_on(selinux, request, check=True)[0]["changes"] == []
    assert selinux.told == [], "a tool was started although nothing was to be done"
    assert snapshot(root) == after, "a run without changes touched the host"
    return done


def test_a_profile_is_one_transaction(
    selinux: FakeSelinux, snapshot: Callable[[Path], Any]
) -> None:
    done = four_steps(selinux, snapshot, ALL)
    assert stored(selinux) == [WWW.target, UPLOAD.target]
    assert kind(selinux, "/srv/www/index.html") == "httpd_sys_content_t"
    assert kind(selinux, "/srv/www/upload/a") == "httpd_sys_rw_content_t"
    assert selinux.boolean("httpd_can_network_connect") is True
    assert targets(done)[:4] == [
        "file context /srv/www(/.*)?",
        "file context /srv/www/upload(/.*)?",
        "port tcp/8081",
        "boolean httpd_can_network_connect",
    ]
    assert "label of /srv/www/upload/a" in targets(done)
    assert (done["status"], done["policy"], done["not_applicable"]) == (
        "enforcing",
        "targeted",
        None,
    )


def test_fifty_contexts_start_semanage_once(
    selinux: FakeSelinux, snapshot: Callable[[Path], Any]
) -> None:
    fifty = tuple(WantedFile(f"/srv/site{n}(/.*)?", "a", "etc_t") for n in range(50))
    four_steps(selinux, snapshot, Request(fifty))
    assert len(stored(selinux)) == 50


def test_the_order_of_rules_is_the_order_of_the_task(
    selinux: FakeSelinux, snapshot: Callable[[Path], Any]
) -> None:
    apply(selinux, Request((UPLOAD, WantedFile("/srv/other", "a", "etc_t"), WWW)))
    assert kind(selinux, "/srv/www/upload/a") == "httpd_sys_content_t", "the last match wins"
    done = four_steps(selinux, snapshot, Request((WWW, UPLOAD)))
    assert stored(selinux) == ["/srv/other", WWW.target, UPLOAD.target]
    assert kind(selinux, "/srv/www/upload/a") == "httpd_sys_rw_content_t"
    assert any("its place" in target for target in targets(done))


def test_rules_of_others_keep_their_places(selinux: FakeSelinux) -> None:
    others = [WantedFile(f"/srv/{name}", "a", "etc_t") for name in ("a", "b", "c")]
    apply(selinux, Request((others[0], WWW, others[1], others[2])))
    apply(selinux, Request((WWW._replace(type="etc_t"), UPLOAD)))
    assert stored(selinux) == ["/srv/a", WWW.target, "/srv/b", "/srv/c", UPLOAD.target]


def test_rules_and_ports_that_the_policy_has_are_modified(
    selinux: FakeSelinux, snapshot: Callable[[Path], Any]
) -> None:
    request = Request(
        (WantedFile("/srv/base(/.*)?", "a", "etc_t"),),
        (
            WantedPort("tcp", 8080, 8080, "http_port_t"),
            WantedPort("tcp", 10002, 10002, "node_port_t"),
        ),
    )
    done = four_steps(selinux, snapshot, request)
    reasons = {change["target"]: change["reason"] for change in done["changes"]}
    assert reasons["file context /srv/base(/.*)?"] == "the policy says system_u:object_r:usr_t:s0"
    assert "the policy gives it http_cache_port_t" in reasons["port tcp/8080"]
    assert "services confined to that type lose the port" in reasons["port tcp/8080"]
    assert "10001-10010 (http_cache_port_t)" in reasons["port tcp/10002"]
    assert kind(selinux, "/srv/base/b") == "etc_t"


def test_a_port_the_policy_already_gives_that_type_needs_nothing(selinux: FakeSelinux) -> None:
    result = apply(selinux, Request(ports=(WantedPort("tcp", 80, 80, "http_port_t"),)))
    assert result["changed"] is False
    assert selinux.starts("semanage") == 0


def test_another_user_or_range_is_given_and_counts_in_labels(
    selinux: FakeSelinux, snapshot: Callable[[Path], Any]
) -> None:
    apply(selinux, Request((WWW,)))
    exact = WWW._replace(seuser="unconfined_u", range="s0:c1")
    four_steps(selinux, snapshot, Request((exact,)))
    label = "unconfined_u:object_r:httpd_sys_content_t:s0:c1"
    assert selinux.label("/srv/www/index.html") == label
    assert apply(selinux, Request((WWW,)))["changed"] is False, "left open stays as it is"


def test_only_labels_that_differ_are_touched(selinux: FakeSelinux) -> None:
    apply(selinux, Request((WWW,)))
    for path, label in (
        ("/srv/www/index.html", "unconfined_u:object_r:httpd_sys_content_t:s0"),
        ("/srv/www/upload/a", "system_u:object_r:swapfile_t:s0"),
        ("/srv/www/upload", "unconfined_u:object_r:etc_t:s0"),
    ):
        selinux.set_label(path, label)
    seen: list[str] = []
    selinux.before = seen.append
    done = apply(selinux, Request((WWW,)))
    assert [what for what in seen if what.startswith("label")] == ["label /srv/www/upload"]
    assert targets(done) == ["label of /srv/www/upload"]
    assert selinux.label("/srv/www/upload") == "unconfined_u:object_r:httpd_sys_content_t:s0"
    assert selinux.starts("semanage") == 1, "labels alone need no transaction"
    assert apply(selinux, Request((WWW,), relabel=False))["changed"] is False


def test_many_labels_are_one_change_with_their_number(selinux: FakeSelinux) -> None:
    for number in range(30):
        selinux.host.path(f"/srv/www/{number}").write_text("", encoding="utf-8")
    done = apply(selinux, Request((WWW,)))
    assert "labels below /srv/www that were default_t, to be httpd_sys_content_t" in targets(done)
    assert any(str(change["before"]).startswith("34 files ") for change in done["changes"])


def test_purge_within_a_prefix(selinux: FakeSelinux, snapshot: Callable[[Path], Any]) -> None:
    other = WantedFile("/srv/other(/.*)?", "a", "etc_t")
    two = (PORT, WantedPort("udp", 9, 9, "http_port_t"), WantedPort("tcp", 7, 7, "node_port_t"))
    booleans = {"httpd_can_network_connect": True, "httpd_enable_homedirs": False}
    apply(selinux, Request((WWW, UPLOAD, other), two, booleans))
    request = Request((WWW,), (PORT,), purge=("/srv/www", "http_", "httpd_can"))
    done = four_steps(selinux, snapshot, request)
    left = selinux.customisations("targeted")
    assert [rule.target for rule in left.files] == [WWW.target, other.target]
    assert {rule.name for rule in left.ports} == {"tcp/8081", "tcp/7"}
    assert left.booleans == {"httpd_enable_homedirs": False}
    assert kind(selinux, "/srv/www/upload/a") == "httpd_sys_content_t"
    assert "the task purges what it does not name" in {c["reason"] for c in done["changes"]}


def test_absent_takes_away_what_is_named(
    selinux: FakeSelinux, snapshot: Callable[[Path], Any]
) -> None:
    apply(selinux, ALL)
    kept = Request((WantedFile("/srv/base", "d", "etc_t"),))
    apply(selinux, kept)
    four_steps(selinux, snapshot, Request(**{**vars(ALL), "present": False}))
    assert stored(selinux) == ["/srv/base"]
    assert kind(selinux, "/srv/www/index.html") == "default_t"
    assert selinux.customisations("targeted").booleans == {}


def test_a_live_boolean_that_drifted_is_set_without_a_transaction(selinux: FakeSelinux) -> None:
    apply(selinux, ALL)
    selinux.set_boolean("httpd_can_network_connect", False)
    selinux.told.clear()
    done = apply(selinux, ALL)
    assert targets(done) == ["boolean httpd_can_network_connect (live)"]
    assert selinux.boolean("httpd_can_network_connect") is True
    assert selinux.told == []


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (Request((WWW._replace(type="httpd_sys_contnt_t"),)), "did you mean httpd_sys_content_t"),
        (Request((WWW._replace(type="zork_t"),)), "no type 'zork_t'; a type of your own comes"),
        (Request((WWW._replace(seuser="nobody_u"),)), "seuser 'nobody_u' is none of the policy"),
        (Request((WWW._replace(range="s7"),)), "range 's7' is none of the policy"),
        (Request((WWW._replace(target="srv"),)), "expected an absolute path"),
        (Request((WWW._replace(target="/a b"),)), "blanks and double quotes cannot be written"),
        (Request((WWW._replace(target="/a(b"),)), "is no regular expression"),
        (Request((WWW._replace(target="/lib/x"),)), "write '/usr/lib/x'"),
        (Request((WWW, WWW)), "is named twice"),
        (Request(ports=(PORT._replace(type="htp_port_t"),)), "did you mean http_port_t"),
        (Request(booleans={"httpd_can_network": True}), "mean httpd_can_network_connect"),
    ],
)
def test_what_the_policy_does_not_know_is_refused_before_anything_changes(
    selinux: FakeSelinux, snapshot: Callable[[Path], Any], request_: Request, message: str
) -> None:
    whole = Request(
        (WantedFile("/srv/first", "a", "etc_t"), *request_.files), request_.ports, request_.booleans
    )
    before = snapshot(Path(selinux.host.root))
    for check in (True, False):
        with pytest.raises(SelinuxError, match=message.replace("(", r"\(")):
            run_on(selinux, whole, check)
    assert selinux.starts("semanage", "semodule") == 0
    assert snapshot(Path(selinux.host.root)) == before


def test_a_type_of_the_wrong_kind_is_refused_by_semanage_as_a_whole(selinux: FakeSelinux) -> None:
    request = Request((WWW,), (PORT._replace(type="etc_t"),))
    before = selinux.customisations("targeted")
    with pytest.raises(TransactionError, match=r"must be a port type.*Nothing had been changed"):
        apply(selinux, request)
    assert selinux.customisations("targeted") == before


def test_permissive_works_and_is_told_apart(selinux: FakeSelinux) -> None:
    selinux.host.path(f"{FS}/enforce").write_text("0", encoding="utf-8")
    assert apply(selinux, ALL)["status"] == "permissive"


def test_disabled_and_absent_change_nothing_and_say_so(
    selinux: FakeSelinux, snapshot: Callable[[Path], Any]
) -> None:
    host = selinux.host
    shutil.rmtree(str(host.path(FS)))
    before = snapshot(Path(host.root))
    result = apply(selinux, ALL)
    assert (result["status"], result["changed"]) == ("disabled", False)
    assert "SELINUX=enforcing" in result["not_applicable"]
    assert snapshot(Path(host.root)) == before
    host.path("/etc/selinux/config").unlink()
    result = apply(selinux, ALL)
    assert (result["status"], result["policy"]) == ("absent", "")
    with pytest.raises(HostError, match=r"SELinux is absent: .* or give not_applicable=skip"):
        apply(selinux, Request((WWW,), skip_not_applicable=False))


def test_a_broken_host_is_not_one_without_selinux(selinux: FakeSelinux) -> None:
    shutil.rmtree(str(selinux.host.path(f"{INSTALLED}/contexts/files")))
    with pytest.raises(HostError, match="SELinux is enforcing and the policy 'targeted'"):
        apply(selinux, ALL)


def test_the_store_may_be_elsewhere(selinux: FakeSelinux) -> None:
    selinux.host.path("/etc/selinux/semanage.conf").write_text("store-root=/srv/store\n")
    assert selinux.store("targeted") == "/srv/store/targeted/active"
    selinux.host.path("/etc/selinux/semanage.conf").write_text("# store-root=/x\n")
    assert selinux.store("targeted") == STORE


def test_semanage_is_missed_only_when_it_is_needed(
    selinux: FakeSelinux, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(*_args: Any) -> str:
        raise HostError("semanage: not found")

    apply(selinux, ALL)
    monkeypatch.setattr(selinux, "tool", gone)
    assert apply(selinux, ALL)["changed"] is False
    with pytest.raises((HostError, TransactionError), match="semanage: not found"):
        apply(selinux, Request((WWW._replace(type="etc_t"),)))


def test_a_target_that_may_match_anywhere_is_installed_and_not_searched(
    selinux: FakeSelinux,
) -> None:
    request = Request((WantedFile(r"/.*\.key", "f", "etc_t"),))
    result, warnings = run_on(selinux, request, check=False)
    assert result["changed"] is True
    assert "the whole system was not looked through" in warnings[0]
