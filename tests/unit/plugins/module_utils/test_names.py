# Copyright: (c) 2026, Holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Names: what fits into a certificate and what does not."""

from __future__ import annotations

import pytest
from ansible_collections.holdfast.chain.plugins.module_utils.names import (
    Names,
    check_dns_name,
    check_spiffe_id,
    check_trust_domain,
    node_spiffe_id,
)
from hypothesis import given
from hypothesis import strategies as st

_LABEL = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,10}[a-z0-9])?", fullmatch=True)
_SEGMENT = st.from_regex(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,20}", fullmatch=True)


def test_names_are_sorted_canonical_and_without_duplicates() -> None:
    names = Names.wanted(["b.x", "A.x", "a.x"], ["2001:DB8:0::1", "192.0.2.1"], None)
    assert names == Names(dns=("a.x", "b.x"), ip=("192.0.2.1", "2001:db8::1"))
    assert names.listed() == ["DNS:a.x", "DNS:b.x", "IP:192.0.2.1", "IP:2001:db8::1"]


def test_beyond_names_what_is_not_allowed() -> None:
    allowed = Names(dns=("a", "b"), ip=("192.0.2.1",))
    assert Names(dns=("a",)).beyond(allowed) == []
    assert Names(dns=("a", "c"), other=("mail",)).beyond(allowed) == ["DNS:c", "other:mail"]
    # An address does not become allowed by being listed as a name.
    assert Names(dns=("192.0.2.1",)).beyond(allowed) == ["DNS:192.0.2.1"]


@pytest.mark.parametrize(
    "name",
    ["", "a_b", "-a", "a-", "a..b", "a.", ".a", "*.a", "a b", "ä", "x" * 64, "192.0.2.1", "a\n",
     ".".join(["x" * 60] * 5)],
)  # fmt: skip
def test_no_dns_names(name: str) -> None:
    with pytest.raises(ValueError, match=r"^dns: "):
        check_dns_name(name)


@pytest.mark.parametrize("name", ["v1", "a.b", "xn--4ca", "1.example", "x" * 63])
def test_dns_names(name: str) -> None:
    assert check_dns_name(name.upper()) == name


@pytest.mark.parametrize(
    "name",
    ["", "demo", "Demo.example", "a_b.example", "192.0.2.1", "demo.example.", "a.b/c", "::1"],
)
def test_no_trust_domains(name: str) -> None:
    with pytest.raises(ValueError, match=r"^trust_domain: "):
        check_trust_domain(name)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "spiffe:/a.example/x",
        "http://a.example/x",
        "SPIFFE://a.example/x",
        "spiffe://a.example",
        "spiffe://a.example/",
        "spiffe://a.example/x/",
        "spiffe://a.example//x",
        "spiffe://a.example/x/../y",
        "spiffe://a.example/./y",
        "spiffe://a.example/x%2fy",
        "spiffe://a.example/x?y",
        "spiffe://a.example/x#y",
        "spiffe://user@a.example/x",
        "spiffe://a.example:80/x",
        "spiffe://A.example/x",
        "spiffe://a.example/x\n",
        "spiffe://a.example/" + "x" * 2048,
    ],
)
def test_no_spiffe_ids(text: str) -> None:
    with pytest.raises(ValueError, match=r"^spiffe_id: "):
        check_spiffe_id(text)


@given(labels=st.lists(_LABEL, min_size=2, max_size=4), path=st.lists(_SEGMENT, min_size=1))
def test_spiffe_ids_come_back_as_they_are(labels: list[str], path: list[str]) -> None:
    trust_domain = ".".join([*labels, "example"])
    text = f"spiffe://{trust_domain}/{'/'.join(path)}"
    parsed = check_spiffe_id(text)
    assert (parsed.trust_domain, str(parsed)) == (trust_domain, text)


def test_spiffe_id_of_a_node() -> None:
    expected = "spiffe://demo.example/chain/demo/node/v_1"
    assert node_spiffe_id("demo.example", "demo", "v_1") == expected


@pytest.mark.parametrize(
    ("trust_domain", "chain_id", "name", "option"),
    [
        ("demo", "demo", "v1", "trust_domain"),
        ("demo.example", "a/b", "v1", "chain_id"),
        ("demo.example", "demo", "v1/../v2", "name"),
        ("demo.example", "demo", "..", "name"),
        ("demo.example", "demo", "", "name"),
    ],
)
def test_parts_cannot_smuggle_a_path(
    trust_domain: str, chain_id: str, name: str, option: str
) -> None:
    with pytest.raises(ValueError, match=f"^{option}: "):
        node_spiffe_id(trust_domain, chain_id, name)


def test_an_identity_needs_a_name() -> None:
    with pytest.raises(ValueError, match="all are empty"):
        Names.wanted([], [], "")
