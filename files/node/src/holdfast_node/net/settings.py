# SPDX-License-Identifier: Apache-2.0
"""What the network layer has to know about this node and its peers."""

from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from holdfast_node.net.tls import Tls

Role: TypeAlias = Literal["validator", "observer"]


@dataclass(frozen=True)
class PeerSettings:
    """Another member. `name` is the one in its certificate."""

    name: str
    role: Role
    host: str
    port: int
    sync_host: str
    sync_port: int


@dataclass(frozen=True)
class Timing:
    """All in seconds.

    A peer that is silent for `silence` is dead; that is noticed within one `heartbeat` more. One
    that is back is connected to within `redial_max`: until then another failure is one too many. A
    session is replaced when it has `renewal` or less to go.
    """

    handshake: float = 5.0
    heartbeat: float = 2.0
    silence: float = 8.0
    redial_min: float = 0.2
    redial_max: float = 2.0
    renewal: float = 120.0
    sync_reply: float = 15.0
    sync_idle: float = 60.0
    sync_grace: float = 0.15
    sync_ban: float = 30.0


@dataclass(frozen=True)
class NetworkSettings:
    """`host`:`port` and `sync_host`:`sync_port` are listened on; port 0 lets the system choose.

    `peers` are all other members, `learned` those that came to be known later: by the chain.
    `outbox_bytes` bounds what waits for one slow peer.
    """

    name: str
    role: Role
    chain_id: str
    genesis_hash: bytes
    host: str
    port: int
    sync_host: str
    sync_port: int
    peers: tuple[PeerSettings, ...]
    tls: Tls
    max_block_bytes: int = 1_048_576
    outbox_bytes: int = 32 * 2**20
    timing: Timing = field(default_factory=Timing)
    learned: list[PeerSettings] = field(default_factory=list)

    def knows(self, name: str) -> bool:
        """Whether `name` is another member."""
        return any(peer.name == name for peer in (*self.peers, *self.learned))

    def dials(self, peer: PeerSettings) -> bool:
        """Whether we connect to `peer`, rather than it to us.

        Observers dial validators; of two validators the one whose name sorts lower dials.
        """
        if peer.role == self.role:
            return self.role == "validator" and self.name < peer.name
        return self.role == "observer"

    def is_linked(self, peer: PeerSettings) -> bool:
        """Whether there is a connection to `peer` at all: two observers have none."""
        return "validator" in (self.role, peer.role)
