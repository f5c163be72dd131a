# SPDX-License-Identifier: Apache-2.0
"""The application and the server that runs it."""

import asyncio
import contextlib
import logging
import socket
import time
from collections.abc import Iterator
from typing import Any, Final

import anyio
import anyio.abc
import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from holdfast_node.api.http import error_response, on_http_exception, on_refused
from holdfast_node.api.jsonrpc import JsonRpc
from holdfast_node.api.limits import Limits
from holdfast_node.api.operations import Operations
from holdfast_node.api.page import page_endpoint
from holdfast_node.api.protocol import bounded_protocol
from holdfast_node.api.rest import Rest
from holdfast_node.api.service import Service
from holdfast_node.errors import ConfigError, RefusedError
from holdfast_node.observe.metrics import Metrics

_log = logging.getLogger(__name__)

# Answers are about now, not for other sites, and never run as anything but what they are.
_HEADERS: Final = {
    b"cache-control": b"no-store",
    b"content-security-policy": b"default-src 'none'; frame-ancestors 'none'",
    b"cross-origin-resource-policy": b"same-origin",
    b"referrer-policy": b"no-referrer",
    b"x-content-type-options": b"nosniff",
    b"x-frame-options": b"DENY",
}

# What watches over the node must get an answer above all when it is busy.
_ALWAYS_ANSWERED: Final = {"/healthz", "/readyz", "/metrics"}


def create_app(service: Service, metrics: Metrics, limits: Limits | None = None) -> Starlette:
    """The HTTP application over `service`."""
    limits = limits or Limits()
    operations = Operations(service, metrics, limits)
    routes = [
        Route("/", page_endpoint, methods=["GET"]),
        *Rest(operations, service, metrics, limits).routes(),
        Route("/rpc", JsonRpc(operations, limits).endpoint, methods=["POST"]),
    ]
    patterns = {route.endpoint: route.path for route in routes}  # few, unlike paths
    app = Starlette(
        routes=routes,
        middleware=[Middleware(_Edge, patterns=patterns, metrics=metrics, limits=limits)],
        exception_handlers={HTTPException: on_http_exception, RefusedError: on_refused},
    )
    app.state.stop = operations.stop
    # Nothing to guess: a path is right or it is not, and a redirect would repeat the Host header.
    app.router.redirect_slashes = False
    return app


class _Edge:
    """What holds for every request: how many at once, headers and faults of answers, metrics."""

    def __init__(
        self, app: ASGIApp, patterns: dict[Any, str], metrics: Metrics, limits: Limits
    ) -> None:
        self._app = app
        self._patterns = patterns
        self._metrics = metrics
        self._limits = limits
        self._running = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        start = time.perf_counter()
        status = 0

        async def send_checked(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                present = {name.lower() for name, _ in message["headers"]}
                added = [item for item in _HEADERS.items() if item[0] not in present]
                message = {**message, "headers": [*message["headers"], *added]}
            await send(message)

        app = self._app
        if self._running >= self._limits.requests and scope["path"] not in _ALWAYS_ANSWERED:
            app = error_response(
                503, "overloaded", f"{self._running} requests are under way: try again in a moment"
            )
        self._running += 1
        try:
            await app(scope, receive, send_checked)
        except Exception:
            # The log has the fault; the client is told nothing of it.
            _log.exception("%s %s failed", scope["method"], scope["path"][:200])
            if status:
                raise  # the answer is under way: all that is left is to cut it off
            fault = error_response(500, "internal_error", "the node failed to answer; see its log")
            await fault(scope, receive, send_checked)
        finally:
            self._running -= 1
            pattern = self._patterns.get(scope.get("endpoint"), "other")
            self._metrics.request_answered(pattern, status, time.perf_counter() - start)


class _Server(uvicorn.Server):
    """Uvicorn without its signal handlers: the node has its own."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def serve(
    app: Starlette,
    host: str,
    port: int,
    *,
    limits: Limits | None = None,
    task_status: anyio.abc.TaskStatus[int] = anyio.TASK_STATUS_IGNORED,
) -> None:
    """Serve `app` until cancelled, then finish what is under way, for `limits.stop_s` at most.

    What only waits for a block is answered at once, since none will come.

    `task_status.started` is called with the port, which is listening by then (give `limits` the
    same value as `create_app`; port 0 lets the system choose).

    Raises `ConfigError` if the address cannot be listened on.
    """
    limits = limits or Limits()
    listener = _listen(host, port)
    config = uvicorn.Config(
        app,
        http=bounded_protocol(limits),
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="error",  # whatever a client sends would be a warning, as often as it likes
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=limits.keep_alive_s,
        timeout_graceful_shutdown=limits.stop_s,
    )
    server = _Server(config)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_run, server, listener)
        try:
            task_status.started(listener.getsockname()[1])
            await anyio.sleep_forever()
        finally:
            app.state.stop()
            server.should_exit = True


async def _run(server: _Server, listener: socket.socket) -> None:
    """Run `server`; cancellation reaches it only as `should_exit`, which it obeys in time."""
    with anyio.CancelScope(shield=True):
        try:
            await server.serve([listener])
        finally:
            state = server.server_state
            for connection in list(state.connections):
                connection.transport.abort()
            tasks = set(state.tasks)
            for task in tasks:
                task.cancel()
            if tasks:
                await asyncio.wait(tasks, timeout=1)


def _listen(host: str, port: int) -> socket.socket:
    """A listening socket."""
    try:
        found: list[Any] = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        family, _, _, _, address = found[0]
        listener = socket.create_server(address, family=family, backlog=256)
    except OSError as error:
        fault = (
            f"api.listen = '{host}:{port}': expected an address of this host with a free port "
            f"({error}); stop what listens there or choose another port"
        )
        raise ConfigError([fault]) from error
    return listener
