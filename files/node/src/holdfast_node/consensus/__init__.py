# SPDX-License-Identifier: Apache-2.0
"""PBFT without I/O: `Replica` takes messages and time, and returns effects.

`PROTOCOL.md` in this folder states the protocol as built. Nothing in here may import a clock,
randomness, sockets or an event loop, so that one seed of the simulator gives one run.
"""

from holdfast_node.consensus.effects import Commit, Effect, Persist, Refused, Send
from holdfast_node.consensus.evidence import Evidence
from holdfast_node.consensus.messages import Entered, Locked, Message, PrePrepare, Record
from holdfast_node.consensus.replica import Replica, Timeouts
from holdfast_node.consensus.rules import check_message

__all__ = [
    "Commit",
    "Effect",
    "Entered",
    "Evidence",
    "Locked",
    "Message",
    "Persist",
    "PrePrepare",
    "Record",
    "Refused",
    "Replica",
    "Send",
    "Timeouts",
    "check_message",
]
