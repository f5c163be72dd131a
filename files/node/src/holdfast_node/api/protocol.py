# SPDX-License-Identifier: Apache-2.0
"""Bounds below HTTP, where the application cannot see: connections, header bytes, and time.

Uvicorn bounds neither the number of idle connections, nor the bytes of headers, nor the time a
client takes to send them or to read the answer. This class closes such a connection at once.
"""

import asyncio

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from holdfast_node.api.limits import Limits


def bounded_protocol(limits: Limits) -> type[asyncio.Protocol]:
    """The protocol class for uvicorn, with these limits."""

    class _Protocol(BoundedProtocol):
        bounds = limits

    return _Protocol


class BoundedProtocol(HttpToolsProtocol):
    """HTTP/1.1 within `bounds`.

    One timer per connection: armed when it opens and when a request begins (`head_s`), and again
    when the request's headers are complete (`request_s`). When it runs out, the connection is
    closed unless it is idle, which is uvicorn's keep-alive time-out to judge.
    """

    bounds: Limits
    _timer: asyncio.TimerHandle | None = None
    _in_head = True
    _receiving = True
    _message_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Accept a connection, or close it at once if there are too many."""
        super().connection_made(transport)
        if len(self.connections) > self.bounds.connections:
            transport.abort()
            return
        self._arm(self.bounds.head_s)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse `data`; close the connection when a request has become too large in all.

        The application refuses large bodies itself, with an explanation; this catches what it
        never sees: headers, trailers, the framing of chunks, and what follows a refusal.
        """
        self._message_bytes += len(data)
        super().data_received(data)
        most = self.bounds.head_bytes
        if not self._in_head:
            most += 2 * self.bounds.body_bytes
        if self._message_bytes > most:
            self.transport.abort()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head = self._receiving = True
        self._arm(self.bounds.head_s)

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._arm(self.bounds.request_s)
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._receiving = False
        self._message_bytes = 0

    def _arm(self, seconds: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self.loop.call_later(seconds, self._expire)

    def _expire(self) -> None:
        answering = self.cycle is not None and not self.cycle.response_complete
        if self._receiving or answering or self.transport.get_write_buffer_size():
            self.transport.abort()
