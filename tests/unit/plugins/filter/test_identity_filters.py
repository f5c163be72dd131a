# Copyright: (c) 2026, Holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The filters as templates use them."""

from __future__ import annotations

from typing import Any, Callable

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.holdfast.chain.plugins.filter import quorum as quorum_filter
from ansible_collections.holdfast.chain.plugins.filter import spiffe_id as spiffe_filter
from ansible_collections.holdfast.chain.plugins.filter import tolerated_faults as faults_filter


def _filter(module: Any, name: str) -> Callable[..., Any]:
    return module.FilterModule().filters()[name]


def test_arithmetic() -> None:
    assert _filter(quorum_filter, "quorum")(4) == 3
    assert _filter(faults_filter, "tolerated_faults")(4) == 1


def test_spiffe_id() -> None:
    make = _filter(spiffe_filter, "spiffe_id")
    assert make("v1", "demo.example", "demo") == "spiffe://demo.example/chain/demo/node/v1"


@pytest.mark.parametrize(
    ("module", "name", "arguments", "message"),
    [
        (quorum_filter, "quorum", (0,), "validators: 0"),
        (faults_filter, "tolerated_faults", ("4",), "validators: '4'"),
        (spiffe_filter, "spiffe_id", ("a b", "demo.example", "demo"), "name: 'a b'"),
        (spiffe_filter, "spiffe_id", ("v1", "demo", "demo"), "trust_domain: 'demo'"),
    ],
)
def test_faults_are_told_as_template_errors(
    module: Any, name: str, arguments: tuple[Any, ...], message: str
) -> None:
    with pytest.raises(AnsibleFilterError, match=message):
        _filter(module, name)(*arguments)
