# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs on the machine as sitecustomize: a module stands still before a chosen call, for good.

HALT_AT is the name of a function of os and the end of a path it is called with. Whoever reads the
pipe HALT_PIPE learns that it was reached, or never was.
"""

import atexit
import os
import signal
from pathlib import Path

FUNCTION, _, END = os.environ["HALT_AT"].partition(" ")
PIPE = Path(os.environ["HALT_PIPE"])
real = getattr(os, FUNCTION)


def never():
    """The module came to its end."""
    PIPE.write_text("never")


def guarded(*arguments, **options):
    """Stand still, or do what was asked for."""
    if os.fspath(arguments[-1]).endswith(END):
        PIPE.write_text("reached")
        while True:
            signal.pause()
    return real(*arguments, **options)


setattr(os, FUNCTION, guarded)
atexit.register(never)
