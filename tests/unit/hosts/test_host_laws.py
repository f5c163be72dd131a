# Copyright: (c) 2026, Holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Laws of names, values and files, for whatever others may have written."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.holdfast.chain.plugins.module_utils import limits_files
from ansible_collections.holdfast.chain.plugins.module_utils.limits import (
    ITEMS,
    UNLIMITED,
    Limit,
    parse_proc,
)
from ansible_collections.holdfast.chain.plugins.module_utils.sysctl import (
    Document,
    checked_value,
    display,
    file_form,
    parse,
    parse_key,
    same_value,
)
from ansible_collections.holdfast.chain.plugins.module_utils.sysctl_boot import Boot
from hypothesis import given
from hypothesis import strategies as st

DIALECTS = ["systemd", "procps", "busybox", "first-word"]
PARTS = st.sampled_from(["net", "ipv4", "conf", "eth0.100", "br-0", "vm", "x_y", "all", "tun:1"])
KEYS = st.lists(PARTS, min_size=2, max_size=5).filter(lambda p: "." not in p[0]).map("/".join)
VALUES = st.one_of(
    st.integers(-1, 2**64).map(str),
    st.sampled_from(["4096 87380 6291456", "bbr", "|/bin/x %p", "0x10", "8545,30303-30304"]),
)
LINES = st.one_of(
    st.builds("{} = {}".format, KEYS.map(display), VALUES),
    st.builds("  {}={}  ".format, KEYS, VALUES),
    st.builds("-{}".format, KEYS.map(display)),
    st.sampled_from(["", "# x = 1", ";y=2", "junk", "= 5", "vm.a=", "-", "\t"]),
    st.text("ab./=-*#; \t\r", max_size=12),
)
TEXTS = st.lists(LINES, max_size=12).map("\n".join)


@given(KEYS)
def test_both_forms_of_a_name_are_one_parameter(key: str) -> None:
    assert parse_key(key) == key
    assert parse_key(display(key)) == key
    assert parse_key(file_form(key)) == key


@given(TEXTS, st.sampled_from(DIALECTS))
def test_an_untouched_document_keeps_every_byte(text: str, dialect: str) -> None:
    assert Document(text, dialect).render() == text


@given(TEXTS, KEYS, VALUES, st.sampled_from(["systemd", "procps", "busybox"]))
def test_setting_a_key_leaves_all_other_lines(
    text: str, key: str, value: str, dialect: str
) -> None:
    document = Document(text, dialect)
    document.set(key, value)
    once = document.render()
    assert same_value(key, value, document.value(key) or "")
    document.set(key, value)
    assert document.render() == once, "a second time changes something"

    def others(content: str) -> list[tuple[str, Any]]:
        return [(a.key, a.value) for a in parse(content, dialect) if a.key != key]

    assert others(once) == others(text)
    mine = {item.line for item in parse(text, dialect) if item.key == key}
    kept = [line for number, line in enumerate(text.split("\n")) if number not in mine]
    assert [line for line in kept if line.strip()] == [
        line
        for number, line in enumerate(once.split("\n"))
        if line.strip()
        and number not in {item.line for item in parse(once, dialect) if item.key == key}
    ]


@given(TEXTS, KEYS, st.sampled_from(["systemd", "procps", "busybox"]))
def test_setting_and_removing_a_new_key_restores_the_assignments(
    text: str, key: str, dialect: str
) -> None:
    document = Document(text, dialect)
    before = [(item.key, item.value) for item in document.assignments() if item.key != key]
    document.set(key, "1")
    document.remove(key, exemptions=True)
    assert [(item.key, item.value) for item in document.assignments()] == before


@given(TEXTS, KEYS, VALUES)
def test_what_the_last_file_says_is_what_boots(text: str, key: str, value: str) -> None:
    document = Document(text, "systemd")
    document.set(key, value)
    texts = {"/etc/sysctl.d/10-a.conf": text, "/etc/sysctl.d/90-b.conf": document.render()}
    decided = Boot("systemd", "systemd", texts).decide(key)
    assert decided is not None
    assert decided.value is not None
    assert same_value(key, value, decided.value)


@pytest.mark.parametrize(
    ("key", "wanted", "shown", "same"),
    [
        ("net/ipv4/tcp_rmem", "4096 87380 6291456", "4096\t87380\t6291456", True),
        ("net/ipv4/ping_group_range", "0 4294967295", "0\t4294967295", True),
        ("vm/swappiness", "0x10", "16", True),
        ("vm/swappiness", "010", "8", True),
        ("vm/swappiness", "10", "1", False),
        ("kernel/core_pattern", "core  x", "core x", False),
        ("net/ipv4/ip_local_reserved_ports", "30304,30303,8545", "8545,30303-30304", True),
        ("net/ipv4/ip_local_reserved_ports", "1-3", "1-4", False),
        ("net/ipv4/neigh/lo/retrans_time_ms", "1001", "1004", True),
        ("net/ipv4/neigh/lo/retrans_time_ms", "1001", "1012", False),
        ("net/ipv4/neigh/lo/retrans_time_ms", "1004", "1001", False),
        ("vm/nr_hugepages", "512", "37", False),
        ("kernel/sched_rt_runtime_us", "-1", "-1", True),
    ],
)
def test_values_compare_as_the_kernel_means_them(
    key: str, wanted: str, shown: str, same: bool
) -> None:
    assert same_value(key, wanted, shown) is same


@given(VALUES)
def test_a_checked_value_is_the_same_value(value: str) -> None:
    assert same_value("a/b", value, checked_value("a/b", value))


ITEM_LIMITS = st.dictionaries(
    st.sampled_from(sorted(ITEMS)),
    st.integers(0, 2**30).map(lambda n: n * 61440) | st.just(UNLIMITED),
    min_size=1,
)


def both(values: dict[str, int]) -> dict[str, Limit]:
    return {name: Limit(value, value) for name, value in values.items()}


@given(ITEM_LIMITS, st.text("ab=# \n\"'", max_size=30))
def test_files_of_limits_say_what_was_meant(values: dict[str, int], other: str) -> None:
    limits = both(values)
    assert limits_files.pam_parse(limits_files.pam_render({"x": limits}) or "") == {"x": limits}
    assert limits_files.unit_parse(limits_files.unit_render(limits) or "") == limits
    text = limits_files.conf_render(other, limits)
    assert limits_files.conf_parse(text or "") == limits
    assert (text or "").startswith(other)
    assert limits_files.conf_render(text, limits) == text
    assert (limits_files.conf_render(text, {}) or "") == other


@given(ITEM_LIMITS)
def test_lowered_soft_sides_survive(values: dict[str, int]) -> None:
    limits = {name: Limit(0, value) for name, value in values.items()}
    assert limits_files.pam_parse(limits_files.pam_render({"x": limits}) or "") == {"x": limits}
    assert limits_files.unit_parse(limits_files.unit_render(limits) or "") == limits


def test_limits_are_read_as_the_kernel_prints_them() -> None:
    text = (
        "Limit                     Soft Limit           Hard Limit           Units     \n"
        "Max cpu time              unlimited            unlimited            seconds   \n"
        "Max open files            1024                 524288               files     \n"
    )
    assert parse_proc(text) == {
        "cpu": Limit(UNLIMITED, UNLIMITED),
        "nofile": Limit(1024, 524288),
    }
