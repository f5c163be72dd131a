# Copyright: (c) 2026, Holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which bundle fits which host."""

from __future__ import annotations

import pytest
from ansible_collections.holdfast.chain.plugins.module_utils.platforms import (
    UnsupportedPlatformError,
    parse_target,
)


def target(**different: str):
    host = {"python": "3.11.2", "libc": "glibc", "libc_version": "2.36", "machine": "x86_64"}
    return parse_target({**host, **different})


@pytest.mark.parametrize(
    ("host", "key"),
    [
        ({}, "cp311-glibc2.34-x86_64"),
        ({"python": "3.10", "libc_version": "2.35"}, "cp310-glibc2.34-x86_64"),
        ({"libc_version": "2.34"}, "cp311-glibc2.34-x86_64"),
        ({"libc_version": "2.33"}, "cp311-glibc2.28-x86_64"),
        ({"libc_version": "2.17", "machine": "aarch64"}, "cp311-glibc2.17-aarch64"),
        ({"libc": "musl", "libc_version": "1.2.4"}, "cp311-musl1.2-x86_64"),
        ({"python": "3.9", "libc_version": "2.34"}, None),
        ({"machine": "riscv64"}, None),
        ({"libc": "musl", "libc_version": "1.1.24"}, None),
        ({"libc": "", "libc_version": ""}, None),
    ],
)
def test_a_host_takes_the_highest_level_its_library_reaches(host, key):
    if key is None:
        with pytest.raises(UnsupportedPlatformError):
            target(**host)
    else:
        assert target(**host).key == key


def test_a_described_target_is_the_same_target():
    """Hosts hand their target to node_bundle as it is, and equal ones are gathered once."""
    assert parse_target(target().describe()) == target(libc_version="2.34")


def test_tags_are_all_that_run_there_newest_first():
    tags = target(libc_version="2.17").platform_tags()
    assert tags[:2] == ["manylinux_2_17_x86_64", "manylinux2014_x86_64"]
    assert tags[-2:] == ["manylinux_2_5_x86_64", "manylinux1_x86_64"]
    assert len(tags) == len(set(tags))
    assert target(libc="musl", libc_version="1.2.4").platform_tags() == [
        "musllinux_1_2_x86_64",
        "musllinux_1_1_x86_64",
    ]


def test_the_message_names_the_value_and_what_would_fit():
    with pytest.raises(UnsupportedPlatformError, match=r"python = 3\.9.*3\.10 or newer"):
        target(python="3.9")
