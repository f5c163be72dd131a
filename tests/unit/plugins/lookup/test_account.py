# Copyright: (c) 2026, Holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The account of a demonstration: its key is made once and belongs to its owner alone."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from ansible.errors import AnsibleError
from ansible_collections.holdfast.chain.plugins.lookup import account
from ansible_collections.holdfast.chain.plugins.module_utils.address import is_address
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat


def lookup(path) -> str:
    return account.LookupModule().run([str(path)])[0]


def test_a_key_is_made_once(tmp_path):
    path = tmp_path / "state" / "account.key"
    first = lookup(path)
    assert is_address(first)
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    content = path.read_bytes()
    assert lookup(path) == first
    assert path.read_bytes() == content
    assert [entry.name for entry in path.parent.iterdir()] == ["account.key"]


def test_the_node_can_read_it(tmp_path):
    keys = pytest.importorskip("holdfast_node.keys")
    crypto = pytest.importorskip("holdfast_node.chain.crypto")
    found = lookup(tmp_path / "key")
    key = keys.load_key(tmp_path / "key")
    assert crypto.format_address(crypto.account_of(key.public_key)) == found


def test_many_at_once_agree(tmp_path):
    """Ansible asks from several processes; threads stand in for them."""
    with ThreadPoolExecutor(8) as pool:
        found = set(pool.map(lambda _: lookup(tmp_path / "key"), range(8)))
    assert len(found) == 1


@pytest.mark.parametrize("kind", ["nonsense", "other"])
def test_another_file_is_not_taken_for_a_key(tmp_path, kind):
    path = tmp_path / "key"
    pem = ec.generate_private_key(ec.SECP256R1()).private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
    )
    path.write_bytes(pem if kind == "other" else b"nonsense")
    with pytest.raises(AnsibleError, match="expected an Ed25519 key"):
        lookup(path)
