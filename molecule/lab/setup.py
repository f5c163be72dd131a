# SPDX-License-Identifier: GPL-3.0-or-later
"""Prepare a fresh machine and checkout: ``python3 -m lab.setup [hosts]``.

Makes .venv and the collections; with `hosts`, also installs what container hosts need. Runs on
any Python of a supported distribution, since it is what provides the Python for everything else.
"""

from __future__ import annotations

import sys

from . import machine, tools
from .shell import LabError, given_back


def main(arguments: list[str]) -> int:
    """Exit code 0 when all is in place, 1 with the reason otherwise."""
    try:
        with given_back():
            if "hosts" in arguments:
                machine.prepare()
            tools.make_venv()
            tools.get_collections()
    except LabError as error:
        print(f"setup: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
