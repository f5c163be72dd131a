# SPDX-License-Identifier: Apache-2.0
"""The server on a real socket: what clients can do to it below HTTP, and how it stops."""

import json
import signal
import socket
import time
from contextlib import asynccontextmanager

import anyio
import pytest
from anyio.abc import SocketStream
from fake_service import BOB, FakeService, transfer

from holdfast_node.api.limits import Limits
from holdfast_node.api.server import create_app, serve
from holdfast_node.chain.crypto import account_of, format_address
from holdfast_node.errors import ConfigError
from holdfast_node.observe.metrics import Metrics

pytestmark = pytest.mark.anyio

GET = b"GET /v1/status HTTP/1.1\r\nHost: node\r\n\r\n"


@pytest.fixture
def anyio_backend():
    return "asyncio", {"use_uvloop": True}  # whose transports the node serves with


def new_app(service, limits):
    metrics = Metrics(version="0.1.0", chain_id="demo", name="v1", role="validator")
    return create_app(service, metrics, limits)


@asynccontextmanager
async def running(service=None, **bounds):
    """A server with these limits; gives its port, and stops it at the end."""
    limits = Limits(**{"stop_s": 1, **bounds})
    app = new_app(service or FakeService(2), limits)
    with anyio.fail_after(20):
        async with anyio.create_task_group() as tasks:

            async def start(*, task_status):
                await serve(app, "127.0.0.1", 0, limits=limits, task_status=task_status)

            yield await tasks.start(start)
            tasks.cancel_scope.cancel()


@asynccontextmanager
async def connected(service=None, **bounds):
    """A connection to a server with these limits."""
    async with (
        running(service, **bounds) as port,
        await anyio.connect_tcp("127.0.0.1", port) as stream,
    ):
        yield stream


async def flood(stream: SocketStream, part: bytes, times: int, pause: float = 0) -> None:
    """Send `part` so many times."""
    for _ in range(times):
        await stream.send(part)
        await anyio.sleep(pause)


async def ask(stream: SocketStream, request: bytes) -> tuple[int, bytes]:
    """Send a request and read one answer with a Content-Length."""
    await stream.send(request)
    data = b""
    while b"\r\n\r\n" not in data:
        data += await stream.receive()
    head, body = data.split(b"\r\n\r\n", 1)
    length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
    while len(body) < length:
        body += await stream.receive()
    return int(head.split()[1]), body


async def closed_after(stream: SocketStream) -> float:
    """Seconds until the server closes the connection, without a word."""
    start = time.monotonic()
    with anyio.fail_after(10), pytest.raises((anyio.EndOfStream, anyio.BrokenResourceError)):
        await stream.receive()
    return time.monotonic() - start


async def test_several_requests_on_one_connection():
    async with connected() as stream:
        for _ in range(3):
            status, body = await ask(stream, GET)
            assert status == 200
            assert json.loads(body)["name"] == "v1"


async def test_the_node_keeps_its_own_signal_handlers():
    handlers = {s: signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)}
    async with connected() as stream:
        await ask(stream, GET)
        assert {s: signal.getsignal(s) for s in handlers} == handlers


async def test_a_port_in_use_is_named():
    async with running() as port:
        app = new_app(FakeService(), Limits())
        with pytest.raises(ConfigError, match=f"api.listen = '127.0.0.1:{port}'.*another port"):
            await serve(app, "127.0.0.1", port)


@pytest.mark.parametrize("sent", [b"", b"GET /v1/st", b"GET / HTTP/1.1\r\nHost: node\r\nX: "])
async def test_a_client_that_does_not_finish_its_headers_is_let_go(sent):
    async with connected(head_s=0.3) as stream:
        if sent:
            await stream.send(sent)
        assert await closed_after(stream) < 3


async def test_dripping_headers_do_not_extend_the_time():
    async with connected(head_s=0.4) as stream:
        await ask(stream, GET)  # the second request of a connection is timed like the first
        await stream.send(b"GET / HTTP/1.1\r\n")
        start = time.monotonic()
        with pytest.raises(anyio.BrokenResourceError):
            await flood(stream, b"X-Slow: 1\r\n", 500, pause=0.02)
        assert time.monotonic() - start < 3


async def test_an_idle_connection_is_left_to_the_keep_alive_time():
    async with connected(head_s=0.2, request_s=0.2) as stream:
        await ask(stream, GET)
        await anyio.sleep(0.5)
        assert (await ask(stream, GET))[0] == 200


async def test_endless_headers_are_cut_off():
    async with connected(head_bytes=20_000) as stream:
        await stream.send(b"GET / HTTP/1.1\r\nX-Long: ")
        with pytest.raises(anyio.BrokenResourceError):
            await flood(stream, b"a" * 1_000, 50_000)


@pytest.mark.parametrize("part", [b"X-Trailer: 1\r\n", b"a"])
async def test_endless_trailers_are_cut_off(part):
    head = b"POST /rpc HTTP/1.1\r\nHost: node\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: 1\r\nY:"
    async with connected(head_bytes=20_000, body_bytes=20_000) as stream:
        await stream.send(head + (b"1\r\n" if part.endswith(b"\n") else b""))
        with pytest.raises(anyio.BrokenResourceError):
            await flood(stream, part * 100, 20_000)


async def test_a_body_too_large_is_explained_even_to_a_client_that_sends_all_of_it():
    body = b" " * 150_000
    head = f"POST /rpc HTTP/1.1\r\nHost: node\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    async with connected(body_bytes=100_000) as stream:
        status, answer = await ask(stream, head + body)
        assert status == 413
        assert json.loads(answer)["error"]["code"] == "body_too_large"
        assert (await ask(stream, GET))[0] == 200


async def test_connections_beyond_the_limit_are_closed_at_once():
    async with running(connections=2) as port:
        first = await anyio.connect_tcp("127.0.0.1", port)
        second = await anyio.connect_tcp("127.0.0.1", port)
        async with first, second:
            for stream in (first, second):
                assert (await ask(stream, GET))[0] == 200
            async with await anyio.connect_tcp("127.0.0.1", port) as third:
                assert await closed_after(third) < 3
            await first.aclose()
            with anyio.fail_after(5):
                while True:  # until the server has seen that the first is gone
                    async with await anyio.connect_tcp("127.0.0.1", port) as again:
                        try:
                            assert (await ask(again, GET))[0] == 200
                            break
                        except (anyio.EndOfStream, anyio.BrokenResourceError):
                            await anyio.sleep(0.02)


async def test_a_client_that_does_not_read_its_answer_is_let_go():
    """Else it would hold the answer in memory for as long as it likes."""
    service = FakeService()
    service.extend(tuple(transfer(n) for n in range(2_000)))
    async with running(service, request_s=0.8) as port:
        with socket.socket() as lazy:
            lazy.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            lazy.connect(("127.0.0.1", port))
            lazy.sendall(b"GET /v1/blocks/1 HTTP/1.1\r\nHost: node\r\n\r\n" * 20)
            await anyio.sleep(2.5)
            lazy.settimeout(5)
            received = await anyio.to_thread.run_sync(receive_all, lazy)
    async with connected(service) as stream:
        _, answer = await ask(stream, b"GET /v1/blocks/1 HTTP/1.1\r\nHost: node\r\n\r\n")
    assert received < 20 * len(answer)


def receive_all(connection: socket.socket) -> int:
    """How many bytes come until the connection ends."""
    received = 0
    try:
        while chunk := connection.recv(1 << 20):
            received += len(chunk)
    except ConnectionResetError:
        pass  # one of the two ways in which it may end
    return received


async def test_stopping_finishes_what_is_under_way():
    entered, release = anyio.Event(), anyio.Event()

    class Slow(FakeService):
        async def submit(self, raws):
            entered.set()
            await release.wait()
            return await super().submit(raws)

    answers = []

    async def post(port):
        body = json.dumps({"transactions": ["AAAA"]}).encode()
        head = f"POST /v1/transactions HTTP/1.1\r\nHost: n\r\nContent-Length: {len(body)}\r\n\r\n"
        async with await anyio.connect_tcp("127.0.0.1", port) as stream:
            answers.append((await ask(stream, head.encode() + body))[0])

    async def release_later():
        await anyio.sleep(0.3)
        release.set()

    async with anyio.create_task_group() as clients, running(Slow(), stop_s=5) as port:
        clients.start_soon(post, port)
        await entered.wait()
        clients.start_soon(release_later)
    assert answers == [400]


async def test_stopping_answers_at_once_what_waits_for_a_block(caplog):
    entered, answers = anyio.Event(), []

    class Still(FakeService):
        async def reached(self, height):
            entered.set()
            await super().reached(height)

    async def read(port):
        address = format_address(account_of(BOB.public_key))
        request = f"GET /v1/accounts/{address}?min_height=9 HTTP/1.1\r\nHost: node\r\n\r\n"
        async with await anyio.connect_tcp("127.0.0.1", port) as stream:
            status, body = await ask(stream, request.encode())
            answers.append((status, json.loads(body)["error"]["code"]))

    async with anyio.create_task_group() as clients, running(Still(3), stop_s=8) as port:
        clients.start_soon(read, port)
        await entered.wait()
        start = time.monotonic()
    assert time.monotonic() - start < 4
    assert answers == [(503, "stopping")]
    assert not caplog.records  # as it was when time ran out for it


async def test_stopping_takes_no_longer_than_it_may():
    entered = anyio.Event()

    class Stuck(FakeService):
        async def submit(self, raws):
            entered.set()
            await anyio.sleep_forever()

    body = b'{"transaction": "AAAA"}'
    request = b"POST /v1/transactions HTTP/1.1\r\nHost: n\r\nContent-Length: 23\r\n\r\n" + body
    async with running(Stuck(), stop_s=1) as port:
        idle = await anyio.connect_tcp("127.0.0.1", port)
        stream = await anyio.connect_tcp("127.0.0.1", port)
        await stream.send(request)
        await entered.wait()
        start = time.monotonic()
    assert time.monotonic() - start < 3
    assert await closed_after(idle) < 1
    await stream.aclose()
    await idle.aclose()
    with pytest.raises(OSError, match="connection attempts failed"):
        await anyio.connect_tcp("127.0.0.1", port)
