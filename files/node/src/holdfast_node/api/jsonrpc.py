# SPDX-License-Identifier: Apache-2.0
"""JSON-RPC 2.0 over POST, as in https://www.jsonrpc.org/specification.

The specification says nothing of HTTP: answers have status 200 whatever they say, and a request
that asks for no answer (notifications only) gets 204.
"""

import logging
from collections.abc import Awaitable, Callable
from inspect import isawaitable
from typing import Any, Final

import anyio.lowlevel
import msgspec
from starlette.requests import Request
from starlette.responses import Response

from holdfast_node.api.http import decode_json, json_response, read_body
from holdfast_node.api.limits import Limits
from holdfast_node.api.operations import Operations, shown
from holdfast_node.api.service import Verdict
from holdfast_node.errors import RefusedError

PARSE_ERROR: Final = -32700
INVALID_REQUEST: Final = -32600
METHOD_NOT_FOUND: Final = -32601
INVALID_PARAMS: Final = -32602
INTERNAL_ERROR: Final = -32603
REFUSED: Final = -32000
NOT_FOUND: Final = -32001
LIMIT_EXCEEDED: Final = -32002

_log = logging.getLogger(__name__)
_encoder = msgspec.json.Encoder()

# Refusals of arguments, as opposed to refusals of what well-formed arguments ask for.
_ARGUMENT_CODES: Final = {"bad_argument", "bad_address"}

Method = Callable[..., Any | Awaitable[Any]]


class RpcError(Exception):
    """An error object of JSON-RPC."""

    def __init__(self, code: int, message: str, data: dict[str, Any] | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.data = data

    def to_object(self) -> dict[str, Any]:
        error: dict[str, Any] = {"code": self.code, "message": self.message}
        return error if self.data is None else {**error, "data": self.data}


class JsonRpc:
    """The methods and the endpoint.

    Parameters come by name or by position, in the order of `_methods`; a name with a default may be
    left out.
    """

    def __init__(self, operations: Operations, limits: Limits) -> None:
        self._limits = limits
        self._operations = operations
        # method: (function, required parameters, optional parameters)
        self._methods: dict[str, tuple[Method, tuple[str, ...], tuple[str, ...]]] = {
            "submit": (self._submit, ("transaction",), ()),
            "submit_batch": (operations.submit, ("transactions",), ()),
            "transaction": (operations.transaction, ("id",), ()),
            "block": (operations.block, ("block",), ()),
            "blocks": (operations.blocks, (), ("from", "limit")),
            "evidence": (operations.evidence, (), ()),
            "members": (operations.members, (), ()),
            "member_history": (operations.member_history, (), ()),
            "transaction_proof": (operations.transaction_proof, ("id",), ()),
            "block_proof": (operations.block_proof, ("height",), ("to",)),
            "account": (operations.account, ("address",), ("min_height",)),
            "value": (operations.value, ("address", "key"), ("min_height",)),
            "status": (operations.status, (), ()),
            "validators": (operations.validators, (), ()),
        }

    async def endpoint(self, request: Request) -> Response:
        """POST /rpc."""
        try:
            body = decode_json(await read_body(request, self._limits))
        except RefusedError as error:
            if error.code != "malformed":
                raise
            return json_response(_answer(None, RpcError(PARSE_ERROR, error.message)))
        answer = await self._dispatch(body)
        return Response(status_code=204) if answer is None else json_response(answer)

    async def _dispatch(self, body: Any) -> Any:
        if not isinstance(body, list):
            return await self._call(body)
        if not 1 <= len(body) <= self._limits.rpc_calls:
            fault = f"a batch of {len(body)} calls: expected 1 to {self._limits.rpc_calls}"
            return _answer(None, RpcError(INVALID_REQUEST, fault))
        answers: list[msgspec.Raw] = []
        left = self._limits.response_bytes
        deadline = anyio.current_time() + self._limits.request_s / 2
        for call in body:
            # A batch is no reason to keep the node from its votes.
            await anyio.lowlevel.checkpoint()
            refusal = None
            if left <= 0:
                refusal = _response_too_large(self._limits)
            elif anyio.current_time() > deadline:
                refusal = _too_slow(self._limits)
            answer = await self._call(call, refusal)
            if answer is not None:
                encoded = _encoder.encode(answer)
                left -= len(encoded)
                answers.append(msgspec.Raw(encoded))
        return answers or None

    async def _call(self, call: Any, refusal: RpcError | None = None) -> dict[str, Any] | None:
        """Answer one call; None for a notification, whatever became of it."""
        fault = _fault(call)
        if fault is not None:
            identifier = call.get("id") if isinstance(call, dict) else None
            known = identifier if _is_identifier(identifier) else None
            return _answer(known, RpcError(INVALID_REQUEST, fault))
        outcome: Any
        try:
            outcome = refusal or await self._execute(call["method"], call.get("params", []))
        except RpcError as error:
            outcome = error
        except RefusedError as error:
            outcome = _rpc_error(error)
        except Exception:  # noqa: BLE001 (logged; one call must not spoil the batch)
            _log.exception("JSON-RPC method %s failed", call["method"])
            outcome = RpcError(INTERNAL_ERROR, "the node failed to answer; its log says why")
        return _answer(call["id"], outcome) if "id" in call else None

    async def _execute(self, name: str, params: Any) -> Any:
        if name not in self._methods:
            raise RpcError(
                METHOD_NOT_FOUND,
                f"no method {shown(name)}: expected one of {', '.join(sorted(self._methods))}",
            )
        function, required, optional = self._methods[name]
        names = required + optional
        given = dict(zip(names, params, strict=False)) if isinstance(params, list) else params
        fits = len(params) <= len(names) and set(required) <= set(given) <= set(names)
        if not fits:
            signature = ", ".join([*required, *(f"[{p}]" for p in optional)])
            raise RpcError(
                INVALID_PARAMS,
                f"params of {name} = {shown(params)}: expected ({signature}), by name or position",
                {"code": "bad_argument"},
            )
        result = function(*(given.get(p) for p in names))
        return await result if isawaitable(result) else result

    async def _submit(self, transaction: Any) -> Verdict:
        """Unlike a batch, where each has its verdict, a single refusal is an error."""
        verdict = (await self._operations.submit([transaction])).results[0]
        if not verdict.accepted:
            data = {"code": verdict.code, "id": verdict.id}
            raise RpcError(REFUSED, verdict.reason or "refused", data)
        return verdict


def _response_too_large(limits: Limits) -> RpcError:
    said = f"the answers before this one have {limits.response_bytes} bytes or more"
    code = {"code": "response_too_large"}
    return RpcError(LIMIT_EXCEEDED, f"{said}: ask in smaller batches", code)


def _too_slow(limits: Limits) -> RpcError:
    said = f"the calls before this one took more than {limits.request_s / 2:g} s"
    return RpcError(LIMIT_EXCEEDED, f"{said}: ask in smaller batches", {"code": "too_slow"})


def _is_identifier(value: Any) -> bool:
    return value is None or (isinstance(value, str | int | float) and not isinstance(value, bool))


def _fault(call: Any) -> str | None:
    """What makes `call` no request object, or None."""
    if not isinstance(call, dict):
        return f"a call is {shown(call)}: expected an object"
    if call.get("jsonrpc") != "2.0":
        return f"jsonrpc = {shown(call.get('jsonrpc'))}: expected '2.0'"
    if not isinstance(call.get("method"), str):
        return f"method = {shown(call.get('method'))}: expected a text"
    if not isinstance(call.get("params", []), list | dict):
        return f"params = {shown(call['params'])}: expected a list or an object"
    if not _is_identifier(call.get("id")):
        return f"id = {shown(call['id'])}: expected a text, a number or null"
    return None


def _rpc_error(error: RefusedError) -> RpcError:
    if error.code in _ARGUMENT_CODES:
        code = INVALID_PARAMS
    else:
        code = NOT_FOUND if error.code == "not_found" else REFUSED
    return RpcError(code, error.message, {"code": error.code})


def _answer(identifier: Any, outcome: Any) -> dict[str, Any]:
    if isinstance(outcome, RpcError):
        return {"jsonrpc": "2.0", "error": outcome.to_object(), "id": identifier}
    return {"jsonrpc": "2.0", "result": outcome, "id": identifier}
