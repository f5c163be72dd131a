# SPDX-License-Identifier: GPL-3.0-or-later
"""Mitogen's strategy, wherever it is installed: Ansible looks for strategies in folders.

docs/testing.md says what runs with it, and what with Ansible's own.
"""

from __future__ import annotations

from ansible_mitogen.plugins.strategy.mitogen_linear import StrategyModule

__all__ = ["StrategyModule"]
