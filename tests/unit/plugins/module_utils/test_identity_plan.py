# Copyright: (c) 2026, Holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The planners of an identity, without Ansible and without a disk."""

from __future__ import annotations

import dataclasses
import datetime
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.holdfast.chain.plugins.module_utils.identity import (
    Attributes,
    Generation,
    Identity,
    Pending,
)
from ansible_collections.holdfast.chain.plugins.module_utils.identity_install import (
    Material,
    plan_install,
)
from ansible_collections.holdfast.chain.plugins.module_utils.identity_plan import (
    Owner,
    Wanted,
    pending_fits,
    plan_request,
    renewal_reasons,
)
from ansible_collections.holdfast.chain.plugins.module_utils.names import Names
from ansible_collections.holdfast.chain.plugins.module_utils.x509 import (
    fingerprint,
    key_fingerprint,
    load_request,
    make_key,
    make_request,
    names_of,
    not_after,
    not_before,
    private_pem,
)
from cryptography import x509

_NAMES = Names(dns=("v1.demo.example",))
_DIRECTORY = Path("/nowhere/tls")
_ME = Owner(None, None, (-1, -1))


def _wanted(pki: Any, **changed: Any) -> Wanted:
    wanted = Wanted(_NAMES, "p384", fingerprint(pki.root), 0.34)
    return dataclasses.replace(wanted, **changed)


def _material(pki: Any, key: Any = None) -> Material:
    key = key or make_key("p384")
    leaf = pki.leaf(key.public_key(), names=[x509.DNSName("v1.demo.example")])
    return Material(leaf, [pki.intermediate], [pki.root], private_pem(key))


def _generation(pki: Any, sequence: int = 1, material: Material | None = None) -> Generation:
    material = material or _material(pki)
    return Generation(
        _DIRECTORY / "generations" / f"{material.leaf.serial_number:x}",
        sequence,
        material.leaf,
        material.roots,
        material.digests,
        key_fingerprint(material.leaf.public_key()),
        Attributes(0o600, 0, 0),
        intermediates=material.intermediates,
    )


def _pending(names: Names = _NAMES, key: Any = None) -> Pending:
    key = key or make_key("p384")
    pem = make_request(key, "v1", names)
    return Pending(load_request(pem, "x"), pem, key_fingerprint(key.public_key()))


def _middle(one: Generation) -> datetime.datetime:
    start, end = not_before(one.leaf), not_after(one.leaf)
    return start + (end - start) / 2


@pytest.mark.parametrize(
    ("fraction_gone", "reason"),
    [(-0.1, "not_yet_valid"), (0.0, None), (0.65, None), (0.67, "expiring"), (1.0, "expired"),
     (2.0, "expired")],
)  # fmt: skip
def test_time(pki: Any, fraction_gone: float, reason: str | None) -> None:
    one = _generation(pki)
    start, end = not_before(one.leaf), not_after(one.leaf)
    moment = start + (end - start) * fraction_gone
    reasons = renewal_reasons(Identity(_DIRECTORY, current=one), _wanted(pki), moment)
    assert [word for word, _text in reasons] == ([reason] if reason else [])


def test_every_reason_is_told(pki: Any) -> None:
    one = _generation(pki)
    wanted = _wanted(
        pki,
        names=Names(dns=("x",)),
        key_type="ed25519",
        root_fingerprint="0" * 64,
        force=True,
    )
    moment = not_after(one.leaf)
    reasons = renewal_reasons(Identity(_DIRECTORY, current=one), wanted, moment)
    assert [word for word, _text in reasons] == [
        "expired",
        "names_differ",
        "ca_differs",
        "key_policy",
        "forced",
    ]


def test_a_pending_request_fits_only_if_it_is_what_is_wanted_and_unused(pki: Any) -> None:
    key = make_key("p384")
    used = _generation(pki, material=_material(pki, key))
    identity = Identity(_DIRECTORY, current=used)
    wanted = _wanted(pki)
    assert not pending_fits(identity, wanted)
    for pending, fits in (
        (_pending(), True),
        (_pending(Names(dns=("x",))), False),
        (_pending(key=make_key("ed25519")), False),
        (_pending(key=key), False),
    ):
        assert pending_fits(dataclasses.replace(identity, pending=pending), wanted) is fits


def test_plan_is_empty_when_all_is_well(pki: Any) -> None:
    one = _generation(pki)
    identity = Identity(_DIRECTORY, linked=True, current=one, others=[_generation(pki)])
    planned = plan_request(identity, _wanted(pki), _ME, _middle(one))
    assert not planned.plan
    assert not planned.make
    assert not planned.remove


def test_only_the_newest_other_generation_is_kept(pki: Any) -> None:
    one, older, oldest = (_generation(pki, sequence) for sequence in (9, 4, 3))
    identity = Identity(_DIRECTORY, linked=True, current=one, others=[oldest, older])
    planned = plan_request(identity, _wanted(pki), _ME, _middle(one))
    assert planned.remove == [oldest.path]
    installed = plan_install(identity, _material(pki), _ME)
    assert installed.remove_last == [older.path, oldest.path]


def test_install_plan_tells_what_replaces_what(pki: Any) -> None:
    one, material = _generation(pki, 5), _material(pki)
    planned = plan_install(Identity(_DIRECTORY, linked=True, current=one), material, _ME)
    (change,) = planned.plan
    assert change.target == str(_DIRECTORY / "current")
    assert change.before["serial"] == f"{one.leaf.serial_number:x}"
    assert change.after["serial"] == f"{material.leaf.serial_number:x}"
    assert change.after["names"] == names_of(material.leaf).listed()
    assert planned.sequence == 6
    assert (planned.make, planned.link) == (True, True)
    assert "PRIVATE" not in str(planned.plan.result())


def test_what_is_current_is_not_installed_again(pki: Any) -> None:
    material = _material(pki)
    one = _generation(pki, material=material)
    planned = plan_install(Identity(_DIRECTORY, linked=True, current=one), material, _ME)
    assert not planned.plan
    earlier = Identity(_DIRECTORY, linked=True, current=_generation(pki, 2), others=[one])
    planned = plan_install(earlier, material, _ME)
    assert (planned.make, planned.link, planned.generation) == (False, True, one.path)


@pytest.mark.parametrize(
    ("found", "ids", "wrong"),
    [
        ((0o600, 7, 8), (-1, -1), False),
        ((0o600, 7, 8), (7, 8), False),
        ((0o640, 7, 8), (7, 8), True),
        ((0o600, 0, 8), (7, 8), True),
        ((0o600, 7, 0), (7, 8), True),
        ((0o600, 7, 8), None, True),
    ],
)
def test_attributes_of_a_key(
    found: tuple[int, int, int], ids: tuple[int, int] | None, wrong: bool
) -> None:
    """An account that does not exist never fits."""
    change = Owner("u", "g", ids).change(Path("/k"), Attributes(*found))
    assert (change is not None) is wrong


def test_secrets_do_not_show(pki: Any) -> None:
    material = _material(pki)
    assert "PRIVATE" not in repr(material)
