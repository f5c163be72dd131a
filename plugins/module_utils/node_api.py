# Copyright: (c) 2026, Holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Asks a node about itself over its HTTP interface."""

from __future__ import annotations

import http.client
import json
import time
import urllib.error
import urllib.request
from typing import Any, Callable, NamedTuple

MAX_ANSWER_BYTES = 4 * 1024 * 1024
# A node is asked on its own machine: a proxy from the environment must not come between.
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class Answer(NamedTuple):
    """reachable: it answered. ready: in step with the network. reason: why not, or ''."""

    reachable: bool
    ready: bool
    reason: str
    status: dict[str, Any]

    @property
    def height(self) -> int:
        """The last committed height it knows; -1 if it told none."""
        height = self.status.get("height")
        return height if isinstance(height, int) else -1


def ask(url: str, timeout: float) -> Answer:
    """One look at a node: /readyz, then /v1/status; timeout in seconds per request."""
    base = url.rstrip("/")
    code, body = _get(base + "/readyz", timeout)
    if code is None:
        return Answer(False, False, str(body), {})
    ready = code == 200 and isinstance(body, dict) and body.get("ready") is True
    reason = ""
    if not ready:
        told = body.get("reason") if isinstance(body, dict) else None
        reason = str(told or f"{base}/readyz answered {code}")
    code, status = _get(base + "/v1/status", timeout)
    if code != 200 or not isinstance(status, dict):
        told = f"{base}/v1/status answered {code if code else status}"
        return Answer(True, False, reason or told, {})
    return Answer(True, ready, reason, status)


def shortfalls(answer: Answer, condition: str, min_height: int) -> list[str]:
    """What is still missing from a condition (none, reachable, ready) and a height; pure."""
    missing = []
    if condition != "none" and not answer.reachable:
        missing.append(f"it does not answer: {answer.reason}")
    elif condition == "ready" and not answer.ready:
        missing.append(f"it is not ready: {answer.reason}")
    if answer.height < min_height and (answer.reachable or condition == "none"):
        missing.append(f"its height is {answer.height}, wanted {min_height}")
    return missing


def wait(
    look: Callable[[], Answer],
    missing: Callable[[Answer], list[str]],
    seconds: float,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> tuple[Answer, list[str]]:
    """Look until nothing is missing or the time is over; the last answer and what it lacks."""
    deadline = clock() + seconds
    pause = 0.1
    while True:
        answer = look()
        lacks = missing(answer)
        if not lacks or clock() + pause > deadline:
            return answer, lacks
        sleep(pause)
        pause = min(pause * 1.5, 1.0)


def _get(url: str, timeout: float) -> tuple[int | None, Any]:
    """HTTP status and decoded JSON (None if it is none); or None and the reason in words."""
    try:
        with _OPENER.open(url, timeout=timeout) as response:
            return response.status, _json(response)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, _json(error)
    except (OSError, ValueError, http.client.HTTPException) as error:
        return None, "{}: {}".format(url, getattr(error, "reason", error))


def _json(stream: Any) -> Any:
    try:
        return json.loads(stream.read(MAX_ANSWER_BYTES).decode())
    except (OSError, ValueError):
        return None
