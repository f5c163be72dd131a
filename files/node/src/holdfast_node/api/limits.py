# SPDX-License-Identifier: Apache-2.0
"""How much a client may ask for."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Bytes, counts and seconds; a request beyond one of them is refused, naming it.

    `response_bytes` bounds the answer to a JSON-RPC batch. `connections` and `head_bytes` (request
    line and headers) are enforced below HTTP: the connection is closed. `request_s` is the most a
    request may take, from its headers to the last byte of the answer read by the client; a batch
    begins no call in its second half. `wait_s` is the most a read waits for a block, which
    `waiting` requests may do at once. `stop_s` is what is left to requests under way when the node
    stops.
    """

    body_bytes: int = 4 * 1024 * 1024
    response_bytes: int = 32 * 1024 * 1024
    transactions: int = 1_000
    rpc_calls: int = 100
    blocks: int = 100
    requests: int = 128
    connections: int = 256
    head_bytes: int = 32 * 1024
    head_s: float = 10.0
    body_s: float = 15.0
    request_s: float = 60.0
    wait_s: float = 10.0
    waiting: int = 64
    keep_alive_s: int = 30
    stop_s: int = 3
