# SPDX-License-Identifier: Apache-2.0
"""Deterministic simulation of consensus: one seed, one heap of events, one run, byte for byte.

What runs is the package's own code: replica, probation, patience, the journal's format. Clock,
network, disk, application and signatures are stand-ins. Nothing here reads a clock, a set's order
or the process' randomness.
"""

from holdfast_node.simulation.oracle import ViolationError
from holdfast_node.simulation.run import Outcome, simulate

__all__ = ["Outcome", "ViolationError", "simulate"]
