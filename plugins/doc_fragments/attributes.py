# Copyright: (c) 2026, Holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How modules of this collection behave in check and diff mode, and where they run."""

from __future__ import annotations


class ModuleDocFragment:
    """Used as holdfast.chain.attributes."""

    DOCUMENTATION = r"""
options: {}
attributes:
  check_mode:
    support: full
    description: Reads and plans, then ends without touching anything on the host.
  diff_mode:
    support: full
    description: Shows the plan as text before and after. Private keys are never part of it.
  platform:
    platforms: posix
    support: full
    description: Operating systems the module works on.
"""
