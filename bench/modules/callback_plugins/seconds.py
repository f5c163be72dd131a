# SPDX-License-Identifier: GPL-3.0-or-later
"""Writes how long each task took, one JSON line per task, to the file named by BENCH_SECONDS."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

from ansible.plugins.callback import CallbackBase

DOCUMENTATION = """
name: seconds
type: aggregate
short_description: Time of each task, as JSON lines
description: Writes name and seconds of each task to the file named by BENCH_SECONDS.
"""


class CallbackModule(CallbackBase):
    """From the start of a task to the end of its last result; loops count as a whole."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "seconds"

    def v2_playbook_on_task_start(self, task: Any, is_conditional: bool) -> None:  # noqa: ARG002
        self._began = time.monotonic()

    def v2_runner_on_ok(self, result: Any) -> None:
        line = {
            "task": result.task.get_name(),
            "seconds": time.monotonic() - self._began,
            "changed": result.is_changed(),
        }
        with Path(os.environ["BENCH_SECONDS"]).open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(line) + "\n")
