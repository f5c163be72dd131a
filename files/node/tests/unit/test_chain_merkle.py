# SPDX-License-Identifier: Apache-2.0
"""The tree hash against the recursive definition of RFC 9162 and the vectors of Certificate
Transparency's reference implementation."""

from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast_node.chain.merkle import leaf_hash, merkle_root, node_hash

# Leaves and roots over the first n of them, as in certificate-transparency's merkle_tree_test.
LEAVES = [
    bytes.fromhex(text)
    for text in (
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    )
]
ROOTS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]


def reference(entries: list[bytes]) -> bytes:
    """RFC 9162, section 2.1.1, word for word."""
    if not entries:
        return sha256(b"").digest()
    if len(entries) == 1:
        return sha256(b"\x00" + entries[0]).digest()
    k = 1
    while k * 2 < len(entries):
        k *= 2
    return sha256(b"\x01" + reference(entries[:k]) + reference(entries[k:])).digest()


@pytest.mark.parametrize("count", range(9))
def test_known_roots(count: int) -> None:
    assert merkle_root(LEAVES[:count]).hex() == ROOTS[count]


@given(st.lists(st.binary(max_size=5), max_size=70))
def test_same_as_the_definition(entries: list[bytes]) -> None:
    assert merkle_root(entries) == reference(entries)


@given(st.lists(st.binary(max_size=3), min_size=1, max_size=20), st.data())
def test_every_entry_and_its_place_counts(entries: list[bytes], data: st.DataObject) -> None:
    root = merkle_root(entries)
    i = data.draw(st.integers(0, len(entries) - 1))
    assert merkle_root([*entries[:i], entries[i] + b"\x00", *entries[i + 1 :]]) != root
    assert merkle_root(entries[:i] + entries[i + 1 :]) != root
    assert merkle_root([*entries, entries[-1]]) != root
    if entries != entries[::-1]:
        assert merkle_root(entries[::-1]) != root


def test_an_inner_node_is_no_leaf() -> None:
    """Without prefixes, two leaves' hashes joined would be a leaf with the same root."""
    left, right = leaf_hash(b"a"), leaf_hash(b"b")
    assert node_hash(left, right) == merkle_root([b"a", b"b"])
    assert merkle_root([left + right]) != merkle_root([b"a", b"b"])
