# SPDX-License-Identifier: GPL-3.0-or-later
"""Mitogen's strategy, wherever it is installed: Ansible looks for strategies in folders.

A host is entered once for each playbook, and what modules import stays there: a task costs about a
seventh of the time. Scenario `default`, the demo and the virtual machines keep Ansible's own.
"""

from __future__ import annotations

from ansible_mitogen.plugins.strategy.mitogen_linear import StrategyModule

__all__ = ["StrategyModule"]
