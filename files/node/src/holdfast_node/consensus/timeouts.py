# SPDX-License-Identifier: Apache-2.0
"""How long a replica waits."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds. A view lasts `view`, doubled for each view of a height, at most `view_max`."""

    view: float = 2.0
    view_max: float = 30.0
    resend: float = 0.5

    def of_view(self, failed: int) -> float:
        """How long a view may last after `failed` others of its height."""
        return min(self.view * (1 << min(failed, 16)), self.view_max)
