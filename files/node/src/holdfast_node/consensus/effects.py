# SPDX-License-Identifier: Apache-2.0
"""What a replica asks its driver to do, in this order."""

from dataclasses import dataclass
from typing import TypeAlias

from holdfast_node.chain.block import CertifiedBlock
from holdfast_node.consensus.evidence import Evidence
from holdfast_node.consensus.messages import Message, Record


@dataclass(frozen=True, slots=True)
class Persist:
    """Put `record` on disk; nothing that follows may happen before it is there."""

    record: Record


@dataclass(frozen=True, slots=True)
class Send:
    """Send `message` to all other validators."""

    message: Message


@dataclass(frozen=True, slots=True)
class Commit:
    """The block is final. The replica rests until `Replica.advance`."""

    certified: CertifiedBlock


@dataclass(frozen=True, slots=True)
class Refused:
    """A message was not acceptable; for the log and the metrics."""

    validator: int
    code: str
    reason: str


# `Evidence` is an effect as it is: keep it, and tell people.
Effect: TypeAlias = Persist | Send | Commit | Evidence | Refused
