# SPDX-License-Identifier: GPL-3.0-or-later
"""Mitogen's strategy, wherever it is installed: Ansible looks for strategies in folders.

docs/testing.md says what runs with it, and what with Ansible's own.
"""

from __future__ import annotations

from ansible_mitogen import affinity
from ansible_mitogen.plugins.strategy.mitogen_linear import StrategyModule

# Its own policy gives each process one processor, which all it starts inherits: on two cores the
# hosts of a scenario, and nearly all else, shared one of them.
affinity.policy = affinity.Policy()

__all__ = ["StrategyModule"]
