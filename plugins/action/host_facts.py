# Copyright: (c) 2026, Holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs the module host_facts and times it, so that the clocks of both sides can be compared."""

from __future__ import annotations

import time
from typing import Any

from ansible.errors import AnsibleConnectionFailure, AnsibleError
from ansible.plugins.action import ActionBase


def offset(before: float, host: float, after: float) -> dict[str, float]:
    """How far a clock read between two readings of another is ahead of it, in seconds."""
    return {"seconds": host - (before + after) / 2, "error": (after - before) / 2}


class ActionModule(ActionBase):
    """The controller's half of the module."""

    def run(
        self, tmp: str | None = None, task_vars: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        del tmp  # of an older interface
        result: dict[str, Any] = super().run(task_vars=task_vars)
        collect = str(self._task.args.get("collect", False)).lower() in ("true", "yes", "1")
        before = time.time()
        try:
            result.update(self._execute_module(task_vars=task_vars))
        except (AnsibleConnectionFailure, AnsibleError) as error:
            if not collect:
                raise
            result.update(failed=True, msg=str(error))
        after = time.time()
        if result.get("failed"):
            if not collect:
                return result
            said = result.get("module_stderr") or result.get("msg") or "it runs no module"
            return {"changed": False, "ansible_facts": {"holdfast_host": {"error": str(said)}}}
        found = result["ansible_facts"]["holdfast_host"]
        found["clock"] = offset(before, found.pop("time"), after)
        return result
