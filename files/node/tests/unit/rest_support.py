# SPDX-License-Identifier: Apache-2.0
"""A client of the REST API in this process, and the form of its refusals."""

from base64 import b64encode
from contextlib import asynccontextmanager

import httpx
from fake_service import FakeService

from holdfast_node.api.server import create_app
from holdfast_node.observe.metrics import Metrics


def new_metrics() -> Metrics:
    return Metrics(version="0.1.0", chain_id="demo", name="v1", role="validator")


@asynccontextmanager
async def client(service=None, limits=None, metrics=None):
    app = create_app(service or FakeService(3), metrics or new_metrics(), limits)
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://node") as session:
        yield session


def text(raw: bytes) -> str:
    return b64encode(raw).decode()


def refused(answer, status: int, code: str) -> str:
    """The answer is an error in the contract's form; returns its message."""
    assert answer.status_code == status, answer.text
    assert answer.json().keys() == {"error"}
    error = answer.json()["error"]
    assert error.keys() == {"code", "message"}
    assert error["code"] == code
    return error["message"]
