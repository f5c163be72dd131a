# SPDX-License-Identifier: GPL-3.0-or-later
"""Lets plain pytest import the lab and the runner of scenarios, which are no installed packages."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
sys.path[:0] = [str(ROOT / "molecule"), str(ROOT / "tests")]
