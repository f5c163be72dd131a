# Copyright: (c) 2026, Holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What may happen to a genesis, from what all hosts have."""

from __future__ import annotations

import json

import pytest
from ansible_collections.holdfast.chain.plugins.module_utils.genesis import verdict

KEYS = {name: str(number) * 64 for number, name in enumerate(("v1", "v2", "v3", "v4"), 1)}


def genesis(chain_id: str = "demo", **keys: str) -> dict:
    listed = [{"name": name, "public_key": key} for name, key in {**KEYS, **keys}.items()]
    decoded = {"chain_id": chain_id, "validators": listed}
    return {"exists": True, "content": json.dumps(decoded), "genesis": decoded}


NOTHING = {"exists": False, "content": "", "genesis": {}}


def judge(found: dict, keys: dict | None = None, chain_id: str = "demo") -> dict:
    return verdict(found, chain_id, KEYS if keys is None else keys)


def test_it_is_created_once_from_the_keys_of_all_validators():
    answer = judge({"v1": NOTHING, "o1": NOTHING})
    assert answer == {"faults": [], "create": True, "content": ""}


def test_it_is_not_created_while_a_key_is_not_known():
    """A run limited to some hosts must not found a network of its own."""
    answer = judge({"v1": NOTHING}, {**KEYS, "v3": None, "v4": ""})
    assert not answer["create"]
    assert "not known: v3, v4. Run without --limit" in answer["faults"][0]


def test_a_host_without_gets_that_of_the_others():
    answer = judge({"v1": genesis(), "v2": NOTHING, "v3": genesis()})
    assert answer == {"faults": [], "create": False, "content": genesis()["content"]}


def test_hosts_that_differ_are_named():
    other = genesis()
    other["content"] += "\n"
    answer = judge({"v1": genesis(), "v2": other, "v3": genesis()})
    assert not answer["create"]
    assert answer["content"] == ""
    assert "on v1, v3" in answer["faults"][0]
    assert "on v2" in answer["faults"][0]


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({**KEYS, "v5": "5" * 64}, "added: v5; missing: none"),
        ({name: KEYS[name] for name in ("v1", "v2", "v3")}, "added: none; missing: v4"),
    ],
)
def test_members_change_through_the_chain_not_through_the_inventory(keys, said):
    answer = judge({"v1": genesis()}, keys)
    assert said in answer["faults"][0]
    assert "through the chain itself" in answer["faults"][0]
    assert answer["content"] == ""


def test_a_validator_with_another_key_is_named():
    answer = judge({"v1": genesis()}, {**KEYS, "v2": "f" * 64})
    assert answer["faults"][0].startswith("the key of v2 is not the one in the genesis")


def test_a_key_that_is_not_known_in_this_run_is_no_fault_once_there_is_a_genesis():
    assert not judge({"v1": genesis()}, {**KEYS, "v2": None, "v3": None})["faults"]


def test_another_chain_is_refused():
    (fault,) = judge({"v1": genesis()}, chain_id="other")["faults"]
    assert fault.startswith("chain_id = other: the genesis on the hosts is that of demo")
