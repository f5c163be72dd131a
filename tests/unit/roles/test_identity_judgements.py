# Copyright: (c) 2026, Holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What rotate_certs.yml makes of what it found on a host: playbooks/vars/identity.yml."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template
from lab.shell import ROOT

JUDGEMENTS = yaml.safe_load((ROOT / "playbooks" / "vars" / "identity.yml").read_text())
OLDEST, OLD, NEW, OTHER = ("0" * 16 + "a" * 48, "b" * 64, "c" * 64, "d" * 64)


def judge(roots: list[str] | None, *reasons: str, rollover: bool = False) -> tuple[bool, bool]:
    """Whether its identity is of another authority, and whether the others refuse it.

    The authority's root is the new one; the old one is trusted, too, during its rollover.
    """
    found: dict[str, Any] = {
        "identity_ca": {
            "root_fingerprint": NEW,
            "trusted_roots": [
                {"fingerprint": root} for root in ([NEW, OLD] if rollover else [NEW])
            ],
            "retired": [OLDEST[:16]] if rollover else [OLDEST[:16], OLD[:16]],
        },
        "identity_request": {
            "current": None if roots is None else {"root_sha256": roots},
            "reasons": reasons,
        },
    }
    for key, value in JUDGEMENTS.items():
        found[key] = trust_as_template(value) if isinstance(value, str) else value
    templar = Templar(DataLoader(), found)
    foreign, refused = (
        templar.template(found[f"identity_is_{key}"]) for key in ("foreign", "refused")
    )
    return foreign, refused


@pytest.mark.parametrize("rollover", [False, True])
def test_a_host_that_missed_a_rollover_is_certified_anew_and_first(*, rollover: bool) -> None:
    assert judge([OLD], "ca_differs", rollover=rollover) == (False, True)
    assert judge([OLDEST], "ca_differs", rollover=rollover) == (False, True)


def test_an_identity_of_another_authority_is_told_from_it() -> None:
    assert judge([OTHER], "ca_differs") == (True, True)
    assert judge([OTHER, NEW]) == (False, False)


def test_those_that_the_others_refuse_come_first() -> None:
    """Not who is only due, and not whom the second phase of a rollover finds as it should be."""
    assert judge([NEW]) == (False, False)
    assert judge([NEW], "expiring", "forced") == (False, False)
    assert judge([NEW, OLD], "ca_differs", rollover=True) == (False, False)
    assert judge([NEW], "revoked") == (False, True)
    assert judge([NEW], "expired") == (False, True)


def test_a_host_without_an_identity_is_neither() -> None:
    assert judge(None, "missing") == (False, False)
