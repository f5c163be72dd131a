# SPDX-License-Identifier: Apache-2.0
"""Requests and answers: bounded bodies, JSON, and errors in one form."""

from typing import Any

import anyio
import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from holdfast_node.api.limits import Limits
from holdfast_node.errors import RefusedError

_encoder = msgspec.json.Encoder()


def json_response(value: Any, status: int = 200) -> Response:
    """Answer with `value` as JSON."""
    return Response(_encoder.encode(value), status, media_type="application/json")


def error_response(status: int, code: str, message: str) -> Response:
    """Answer with an error in the form every error of the REST API has."""
    return json_response({"error": {"code": code, "message": message}}, status)


def refusal_response(error: RefusedError) -> Response:
    """The answer to a refused request: 400, if the code does not ask for another status."""
    statuses = {
        "not_found": 404,
        "pruned": 410,
        "request_timeout": 408,
        "body_too_large": 413,
        "overloaded": 503,
        "not_reached": 503,
        "stopping": 503,
    }
    return error_response(statuses.get(error.code, 400), error.code, error.message)


async def read_body(request: Request, limits: Limits) -> bytes:
    """The body, never holding more than the limit.

    Raises `RefusedError` "body_too_large" or "request_timeout".
    """
    too_large = RefusedError(
        "body_too_large",
        f"the body is larger than {limits.body_bytes} bytes: send fewer transactions at a time",
    )
    declared = request.headers.get("content-length", "0")
    if declared.isascii() and declared.isdigit() and int(declared[:20]) > limits.body_bytes:
        raise too_large
    body = bytearray()
    try:
        with anyio.fail_after(limits.body_s):
            async for chunk in request.stream():
                if len(body) + len(chunk) > limits.body_bytes:
                    raise too_large
                body += chunk
    except TimeoutError:
        raise RefusedError(
            "request_timeout", f"the body did not arrive within {limits.body_s:g} seconds"
        ) from None
    except ClientDisconnect:
        # Nobody is there to read the answer; it only must not look like a fault of the node.
        raise RefusedError("disconnected", "the client closed the connection") from None
    return bytes(body)


def decode_json(body: bytes) -> Any:
    """Any JSON value; raises `RefusedError("malformed")`."""
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RefusedError("malformed", f"the body is not valid JSON: {error}") from error


async def on_http_exception(_request: Request, error: Exception) -> Response:
    """Starlette's own errors (no such path, wrong method) in the form of the others."""
    if not isinstance(error, HTTPException):
        raise error
    codes = {404: "not_found", 405: "method_not_allowed"}
    response = error_response(
        error.status_code, codes.get(error.status_code, "refused"), error.detail
    )
    response.headers.update(error.headers or {})
    return response


async def on_refused(_request: Request, error: Exception) -> Response:
    """`RefusedError` from an operation."""
    if not isinstance(error, RefusedError):
        raise error
    return refusal_response(error)
