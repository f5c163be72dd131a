# SPDX-License-Identifier: GPL-3.0-or-later
"""The lab: brings up container hosts for the demo and the Molecule scenarios.

Run it as ``python3 -m lab COMMAND`` with ``molecule`` on PYTHONPATH; the Makefile does.
Only the standard library is used, since the lab is what installs everything else.
"""
