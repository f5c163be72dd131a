# SPDX-License-Identifier: GPL-3.0-or-later
"""HTTP/1.1 as cheaply as Python can: the load generator shares its cores with what it measures.

Requests are made ahead of the time that is measured; answers are parsed by httptools.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any
from urllib.parse import urlsplit

import httptools


class BenchError(Exception):
    """The run cannot go on; the message is for people."""


class _Answers(asyncio.Protocol):
    """Receives one answer at a time."""

    def __init__(self) -> None:
        self.answer: asyncio.Future[tuple[int, bytes]] | None = None
        self.lost = False
        self._parser = httptools.HttpResponseParser(self)
        self._body = b""

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_message_begin(self) -> None:
        self._body = b""

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        if self.answer is not None and not self.answer.done():
            self.answer.set_result((self._parser.get_status_code(), self._body))

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        if self.answer is not None and not self.answer.done():
            self.answer.set_exception(exc or ConnectionResetError("closed by the server"))


class Connection:
    """A kept-alive connection to `url`, for one request at a time; opened when first used."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        assert parts.hostname
        assert parts.port
        self.url = url
        self._host, self._port = parts.hostname, parts.port
        self._transport: asyncio.Transport | None = None
        self._answers: _Answers | None = None

    def render(self, method: str, path: str, content: Any = None) -> bytes:
        """A request with `content` as JSON, for `exchange`."""
        body = b"" if content is None else json.dumps(content, separators=(",", ":")).encode()
        head = f"{method} {path} HTTP/1.1\r\nHost: {self._host}:{self._port}\r\n"
        if body:
            head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        return head.encode() + b"\r\n" + body

    async def exchange(self, request: bytes) -> tuple[int, Any]:
        """Send a rendered request; returns the status and the decoded JSON.

        Raises `BenchError` if no such answer comes.
        """
        try:
            if self._answers is None or self._answers.lost or self._transport is None:
                self._transport, self._answers = await asyncio.get_running_loop().create_connection(
                    _Answers, self._host, self._port
                )
            answer = self._answers.answer = asyncio.get_running_loop().create_future()
            self._transport.write(request)
            status, body = await answer
            return status, json.loads(body)
        except (OSError, ValueError, httptools.HttpParserError) as error:
            raise BenchError(f"{self.url}: no usable answer: {error}; see the log") from error

    async def fetch(self, request: bytes) -> Any:
        """As `exchange`, for an answer that must have status 200."""
        status, answer = await self.exchange(request)
        if status != 200:
            raise BenchError(f"{self.url}: answered {status}: {answer}")
        return answer

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()
