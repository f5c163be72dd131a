# Copyright: (c) 2026, Holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Addresses are what the node makes of them."""

from __future__ import annotations

import pytest
from ansible_collections.holdfast.chain.plugins.module_utils.address import address_of, is_address


def test_the_form_is_the_node_s_own():
    crypto = pytest.importorskip("holdfast_node.chain.crypto")
    for number in range(50):
        key = bytes([number]) * 32
        text = address_of(key)
        assert text == crypto.format_address(crypto.account_of(key))
        assert is_address(text)


def test_every_single_typo_is_noticed():
    text = address_of(bytes(32))
    for place in range(len(text)):
        for other in "1ABCxyz0Oé":
            if other != text[place]:
                assert not is_address(text[:place] + other + text[place + 1 :])
        assert not is_address(text[:place] + text[place + 1 :])


@pytest.mark.parametrize("text", ["", "hf", "h", "hf1", "hf" + "z" * 34, "hf" + "z" * 300])
def test_what_is_none(text):
    assert not is_address(text)
