# SPDX-License-Identifier: Apache-2.0
"""PBFT without I/O: `Replica` takes messages and time, and returns effects.

`PROTOCOL.md` in this folder states the protocol as built. Nothing in here may import a clock,
randomness, sockets or an event loop, so that one seed of the simulator gives one run.
"""

from holdfast_node.consensus.effects import Commit, Effect, Persist, Refused, Send
from holdfast_node.consensus.evidence import Evidence
from holdfast_node.consensus.messages import (
    Entered,
    Locked,
    Message,
    NewView,
    PrePrepare,
    Record,
    Vote,
)
from holdfast_node.consensus.replica import Replica
from holdfast_node.consensus.rules import check_message, check_size
from holdfast_node.consensus.timeouts import Timeouts

__all__ = [
    "Commit",
    "Effect",
    "Entered",
    "Evidence",
    "Locked",
    "Message",
    "NewView",
    "Persist",
    "PrePrepare",
    "Record",
    "Refused",
    "Replica",
    "Send",
    "Timeouts",
    "Vote",
    "check_message",
    "check_size",
]
