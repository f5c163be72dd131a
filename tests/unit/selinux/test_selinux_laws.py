# Copyright: (c) 2026, Holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Laws of file contexts, ports, booleans and scripts, for whatever others may have written."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.holdfast.chain.plugins.module_utils.selinux import (
    FILE_TYPES,
    Context,
    Customisations,
    FileContext,
    PortContext,
    SelinuxError,
    Substitution,
    customisations_of,
    parse_booleans,
    parse_files,
    parse_policy_ports,
    parse_ports,
    parse_span,
    script,
    stem,
    substituted,
)
from ansible_collections.holdfast.chain.plugins.module_utils.selinux_labels import policy_order
from ansible_collections.holdfast.chain.plugins.module_utils.selinux_library import (
    LIBRARY,
    Labels,
    LibraryError,
)
from ansible_collections.holdfast.chain.plugins.module_utils.selinux_plan import (
    Observed,
    Request,
    WantedFile,
    WantedPort,
    plan,
)
from fake_selinux import POLICY_PORTS, build
from hypothesis import given, settings
from hypothesis import strategies as st

TYPES = st.sampled_from(["etc_t", "usr_t", "bin_t", "httpd_sys_content_t"])
PORT_TYPES = st.sampled_from(["http_port_t", "node_port_t"])
CONTEXTS = st.builds(Context, st.just("system_u"), st.just("object_r"), TYPES, st.just("s0"))
TARGETS = st.sampled_from(
    ["/srv/a", "/srv/a(/.*)?", "/srv/b/[^/]+", r"/srv/c\.d/x", "/srv/base(/.*)?", "/srv/d'x"]
)
FILES = st.lists(
    st.builds(FileContext, TARGETS, st.sampled_from(sorted(FILE_TYPES)), CONTEXTS | st.none()),
    max_size=6,
    unique_by=lambda rule: rule.key,
).map(tuple)
SPANS = st.sampled_from([(80, 80), (8080, 8080), (9000, 9000), (9001, 9010), (30303, 30304)])
PORT_RULES = st.builds(
    lambda proto, span, name: PortContext(
        proto, *span, Context("system_u", "object_r", name, "s0")
    ),
    st.sampled_from(["tcp", "udp"]),
    SPANS,
    PORT_TYPES,
)
PORTS = st.lists(PORT_RULES, max_size=4, unique_by=lambda rule: rule.key).map(tuple)
BOOLEANS = st.dictionaries(
    st.sampled_from(["httpd_can_network_connect", "httpd_enable_homedirs"]), st.booleans()
)
LOCAL = st.builds(Customisations, FILES, PORTS, BOOLEANS)


@given(LOCAL)
def test_what_is_rendered_is_read_back(local: Customisations) -> None:
    plain = local.plain()
    assert parse_files("# x\n\n" + "\n".join(plain["files"])) == local.files
    assert parse_ports("\n".join(plain["ports"])) == local.ports
    text = "".join(f"{name}={int(value)}\n" for name, value in local.booleans.items())
    assert parse_booleans(text) == local.booleans
    assert customisations_of(plain) == local


@settings(max_examples=60, deadline=None)
@given(LOCAL, LOCAL)
def test_a_script_makes_one_of_the_other_and_back(
    now: Customisations, wanted: Customisations
) -> None:
    with tempfile.TemporaryDirectory() as place:
        selinux = build(Path(place) / "host")
        base = {rule.key for rule in parse_files(selinux.policy_file_contexts("targeted"))}
        lines = script(Customisations(), now, base, POLICY_PORTS)
        selinux.import_script(lines)
        assert selinux.customisations("targeted").same(now)
        selinux.import_script(script(now, wanted, base, POLICY_PORTS))
        assert selinux.customisations("targeted").same(wanted)
        selinux.import_script(script(wanted, now, base, POLICY_PORTS))
        assert selinux.customisations("targeted").same(now)


@given(LOCAL)
def test_nothing_to_do_is_an_empty_script(local: Customisations) -> None:
    assert script(local, local) == []


WANTED = st.lists(
    st.builds(WantedFile, TARGETS, st.sampled_from(["a", "f"]), TYPES | st.just("<<none>>")),
    max_size=5,
    unique_by=lambda item: item.key,
).map(tuple)
WANTED_PORTS = st.lists(
    st.builds(lambda span, name: WantedPort("tcp", *span, name), SPANS, PORT_TYPES),
    max_size=3,
    unique_by=lambda item: item.key,
).map(tuple)
PREFIXES = st.lists(st.sampled_from(["/srv/a", "/srv", "http_", "httpd_"]), max_size=2).map(tuple)


def after(observed: Observed, planned: Any) -> Observed:
    live = {**observed.live, **planned.live}
    return Observed(**{**vars(observed), "local": planned.wanted, "live": live})


@given(LOCAL, WANTED, WANTED_PORTS, BOOLEANS, PREFIXES, st.booleans())
def test_a_plan_after_the_plan_is_empty(  # noqa: PLR0917 -- the parts of a request
    local: Customisations,
    files: Any,
    ports: Any,
    booleans: dict[str, bool],
    purge: Any,
    present: bool,
) -> None:
    request = Request(files, ports, booleans, purge, present=present)
    observed = Observed(local, True, dict.fromkeys(booleans, False), {}, POLICY_PORTS)
    planned = plan(request, observed)
    again = plan(request, after(observed, planned))
    assert list(again.plan) == []
    assert again.wanted.same(planned.wanted)
    if not planned.plan:
        assert planned.wanted.same(local)
    if present:
        order = [rule.key for rule in planned.wanted.files]
        mine = [item.key for item in files]
        assert [key for key in order if key in set(mine)] == mine, "the order of the task"
        others = [rule for rule in local.files if rule.key not in set(mine)]
        kept = [rule for rule in planned.wanted.files if rule.key not in set(mine)]
        assert kept == [
            rule for rule in others if not any(rule.target.startswith(p) for p in purge)
        ], "rules of others keep their order"


@pytest.mark.parametrize(
    ("target", "where"),
    [
        ("/opt/x(/.*)?", "/opt/x"),
        ("/opt/x", "/opt/x"),
        (r"/opt/x\.d/y", "/opt/x.d/y"),
        ("/opt/x/[^/]+/bin/y", "/opt/x"),
        ("/opt/releases?/x", "/opt"),
        ("/opt/(a|b)", "/opt"),
        (r"/.*\.key", "/"),
        (r"/opt/\w/x", "/opt"),
        (r"/opt/x\d", "/opt"),
        ("/opt/x.*", "/opt"),
    ],
)
def test_the_stem_of_a_target(target: str, where: str) -> None:
    assert stem(target) == where


def test_substitutions_apply_to_whole_folders() -> None:
    rules = (Substitution("/lib", "/usr/lib"),)
    assert substituted("/lib/x", rules) == "/usr/lib/x"
    assert substituted("/library", rules) == "/library"


@pytest.mark.parametrize("value", ["0", "70000", "9-8", "http", "", "1-2-3", "-1"])
def test_what_is_no_port(value: str) -> None:
    with pytest.raises(SelinuxError, match=r"ports: .* is no port: expected a number"):
        parse_span(value, "ports")


def test_ports_as_semanage_lists_them() -> None:
    text = (
        "SELinux Port Type              Proto    Port Number\n\n"
        "afs_fs_port_t                  udp      7000, 7005\n"
        "http_cache_port_t              tcp      3128, 8080, 10001-10010\n"
    )
    assert parse_policy_ports(text) == {
        ("udp", 7000, 7000): "afs_fs_port_t",
        ("udp", 7005, 7005): "afs_fs_port_t",
        ("tcp", 3128, 3128): "http_cache_port_t",
        ("tcp", 8080, 8080): "http_cache_port_t",
        ("tcp", 10001, 10010): "http_cache_port_t",
    }


def test_policy_rules_are_ordered_as_libsemanage_does() -> None:
    text = "/opt/.* x:y:z\n/opt/a/.*\\.so x:y:z\n/opt/a/b x:y:z\n/opt/a/b/.* x:y:z\n/.* x:y:z\n"
    order = [rule.target for rule in policy_order(reversed(parse_files(text)))]
    assert order == ["/.*", "/opt/.*", "/opt/a/.*\\.so", "/opt/a/b/.*", "/opt/a/b"]


def test_labels_come_from_libselinux_itself() -> None:
    """On a system that has the library, SELinux running or not."""
    rules = "/.* u:r:a_t:s0\n/opt(/.*)? u:r:b_t:s0\n/opt/x -- u:r:c_t:s0\n/n(/.*)? <<none>>\n"
    try:
        labels = Labels(rules)
    except LibraryError as error:
        pytest.skip(f"{LIBRARY} is not on this system: {error}")
    with labels:
        assert labels.lookup("/etc", 0o040755) == "u:r:a_t:s0"
        assert labels.lookup("/opt/x", 0o100644) == "u:r:c_t:s0"
        assert labels.lookup("/opt/x", 0o040755) == "u:r:b_t:s0"
        assert labels.lookup("/n/a", 0o100644) is None
