# SPDX-License-Identifier: Apache-2.0
"""Faults for a configuration that may run as it is."""

import re

import pytest

from holdfast_node.config import Config, examine, load
from holdfast_node.errors import ConfigError


def edit(member, pattern, replacement):
    """Change the one place in the member's configuration that `pattern` finds."""
    text, count = re.subn(pattern, replacement, member.config.read_text(), flags=re.MULTILINE)
    assert count == 1, f"{pattern!r} found {count} times"
    member.config.write_text(text)


def the_fault(member):
    """The only fault there is."""
    config, faults, _ = examine(member.config)
    assert len(faults) == 1, faults
    with pytest.raises(ConfigError) as raised:
        load(member.config)
    assert raised.value.faults == faults
    assert config is None or isinstance(config, Config)
    return faults[0]
