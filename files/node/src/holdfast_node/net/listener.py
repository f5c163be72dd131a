# SPDX-License-Identifier: Apache-2.0
"""Listening: connections become sessions, or are refused, within bounds."""

import asyncio
import os
import socket
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any, Final

import anyio
import structlog
from anyio.abc import TaskGroup, TaskStatus

from holdfast_node.errors import ConfigError
from holdfast_node.net.session import Session, Terms, accept
from holdfast_node.net.wire import PeerError, Reason

_log = structlog.get_logger(__name__)

HALF_OPEN_PER_ADDRESS: Final = 8
HALF_OPEN: Final = 256
_QUIET_SECONDS: Final = 5.0


class Refusals:
    """Counts and logs refused connections; a flood of them does not become a flood of lines."""

    def __init__(self, count: Callable[[Reason], None]) -> None:
        self._count = count
        self._logged: dict[Reason, float] = {}
        self._suppressed: Counter[Reason] = Counter()

    def __call__(self, error: PeerError, **about: Any) -> None:
        reason = error.reason
        self._count(reason)
        now = time.monotonic()
        if now - self._logged.get(reason, -_QUIET_SECONDS) < _QUIET_SECONDS:
            self._suppressed[reason] += 1
            return
        self._logged[reason] = now
        _log.warning(
            "connection_refused",
            reason=reason,
            error=str(error),
            suppressed=self._suppressed.pop(reason, 0),
            **about,
        )


class Listener:
    """Accepts members on one address and port.

    `admit(name)` raises `PeerError` for a member that is not to connect. `serve(session)` is
    awaited in a task of its own for every other, and closes the session. `what` names the
    configuration key of the address.
    """

    def __init__(
        self,
        terms: Terms,
        *,
        what: str,
        admit: Callable[[str], None],
        serve: Callable[[Session], Awaitable[None]],
        refusals: Refusals,
    ) -> None:
        self._terms = terms
        self._what = what
        self._admitted = admit
        self._serve = serve
        self._refusals = refusals
        self._half_open: Counter[str] = Counter()

    async def run(self, host: str, port: int, *, task_status: TaskStatus[int]) -> None:
        """Listen until cancelled; `started` gets the port. Raises `ConfigError` if it cannot."""
        with self._bind(host, port) as server:
            async with anyio.create_task_group() as tasks:
                task_status.started(server.getsockname()[1])
                await self._accept_forever(server, tasks)

    def _bind(self, host: str, port: int) -> socket.socket:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            server = socket.create_server((host, port), family=family, backlog=128)
        except OSError as error:
            is_name_fault = isinstance(error, socket.gaierror)
            why = error.strerror if is_name_fault else os.strerror(error.errno or 0)
            fault = (
                f"{self._what} = {host}:{port}: {why}: expected a free port of this "
                "host; stop what uses it or choose another"
            )
            raise ConfigError([fault]) from error
        server.settimeout(0)
        return server

    async def _accept_forever(self, server: socket.socket, tasks: TaskGroup) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, address = await loop.sock_accept(server)
            except OSError as error:  # out of descriptors, or the client is gone already
                _log.warning("accept_failed", listen=self._what, error=str(error))
                await anyio.sleep(0.1)
                continue
            host = address[0]
            if (
                self._half_open[host] >= HALF_OPEN_PER_ADDRESS
                or self._half_open.total() >= HALF_OPEN
            ):
                connection.close()
                self._refusals(PeerError("busy", "too many unfinished handshakes"), address=host)
                continue
            self._half_open[host] += 1
            tasks.start_soon(self._admit, connection, host)

    async def _admit(self, connection: socket.socket, host: str) -> None:
        try:
            session = await accept(connection, host, self._terms, self._admitted)
        except (PeerError, OSError) as error:
            fault = error if isinstance(error, PeerError) else PeerError("aborted", str(error))
            self._refusals(fault, address=host, listen=self._what)
            return
        finally:
            self._half_open[host] -= 1
            if not self._half_open[host]:
                del self._half_open[host]
        await self._serve(session)
