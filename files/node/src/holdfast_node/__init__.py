# SPDX-License-Identifier: Apache-2.0
"""A node of a Byzantine-fault-tolerant consortium chain."""

from importlib.metadata import version

__version__ = version("holdfast-node")
