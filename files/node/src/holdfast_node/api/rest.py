# SPDX-License-Identifier: Apache-2.0
"""The REST routes."""

from collections.abc import Awaitable, Callable
from difflib import get_close_matches
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from holdfast_node.api.http import decode_json, json_response, read_body
from holdfast_node.api.limits import Limits
from holdfast_node.api.operations import Operations, Verdicts, shown
from holdfast_node.api.service import Service
from holdfast_node.errors import RefusedError
from holdfast_node.observe.metrics import Metrics


class Rest:
    """All paths below /v1, and those that a load balancer or Prometheus asks."""

    def __init__(
        self, operations: Operations, service: Service, metrics: Metrics, limits: Limits
    ) -> None:
        self._operations = operations
        self._service = service
        self._metrics = metrics
        self._limits = limits

    def routes(self) -> list[Route]:
        return [
            _get("/healthz", self._health),
            _get("/readyz", self._ready),
            Route("/metrics", self._scrape),  # whatever parameters Prometheus is told to send
            _get("/v1/status", self._status),
            _get("/v1/validators", self._validators),
            _get("/v1/latency", self._latency),
            _get("/v1/blocks", self._blocks, "from", "limit"),
            _get("/v1/blocks/{reference}", self._block),
            _get("/v1/evidence", self._evidence),
            _get("/v1/members", self._members),
            _get("/v1/members/history", self._member_history),
            _get("/v1/proofs/transactions/{id}", self._transaction_proof),
            _get("/v1/proofs/blocks/{height}", self._block_proof, "to"),
            _get("/v1/transactions/{id}", self._transaction),
            Route("/v1/transactions", self._submit, methods=["POST"]),
            _get("/v1/accounts/{address}", self._account, "min_height"),
            _get("/v1/values/{address}/{key:path}", self._value, "min_height"),
        ]

    async def _health(self, _request: Request) -> Response:
        return json_response({"healthy": True})

    async def _ready(self, _request: Request) -> Response:
        ready, reason = self._service.readiness()
        if ready:
            return json_response({"ready": True})
        return json_response({"ready": False, "reason": reason}, 503)

    async def _scrape(self, request: Request) -> Response:
        body, content_type = self._metrics.render(request.headers.get("accept", ""))
        return Response(body, headers={"content-type": content_type})

    async def _status(self, _request: Request) -> Response:
        return json_response(self._operations.status())

    async def _validators(self, _request: Request) -> Response:
        return json_response(self._operations.validators())

    async def _latency(self, _request: Request) -> Response:
        return json_response(self._operations.latency())

    async def _blocks(self, request: Request) -> Response:
        query = request.query_params
        return json_response(self._operations.blocks(query.get("from"), query.get("limit")))

    async def _block(self, request: Request) -> Response:
        return json_response(await self._operations.block(request.path_params["reference"]))

    async def _members(self, _request: Request) -> Response:
        return json_response(self._operations.members())

    async def _member_history(self, _request: Request) -> Response:
        return json_response(self._operations.member_history())

    async def _evidence(self, _request: Request) -> Response:
        return json_response(self._operations.evidence())

    async def _transaction_proof(self, request: Request) -> Response:
        return json_response(await self._operations.transaction_proof(request.path_params["id"]))

    async def _block_proof(self, request: Request) -> Response:
        height, to = request.path_params["height"], request.query_params.get("to")
        return json_response(self._operations.block_proof(height, to))

    async def _transaction(self, request: Request) -> Response:
        return json_response(self._operations.transaction(request.path_params["id"]))

    async def _account(self, request: Request) -> Response:
        address, least = request.path_params["address"], request.query_params.get("min_height")
        return json_response(await self._operations.account(address, least))

    async def _value(self, request: Request) -> Response:
        path, least = request.path_params, request.query_params.get("min_height")
        return json_response(await self._operations.value(path["address"], path["key"], least))

    async def _submit(self, request: Request) -> Response:
        body = decode_json(await read_body(request, self._limits))
        verdicts = await self._operations.submit(_submitted(body))
        return json_response(verdicts, 202 if _all_accepted(verdicts) else 400)


def _all_accepted(verdicts: Verdicts) -> bool:
    return all(verdict.accepted for verdict in verdicts.results)


def _submitted(body: Any) -> Any:
    """The list of transactions in a body of either form."""
    if isinstance(body, dict) and len(body) == 1:
        if "transaction" in body:
            return [body["transaction"]]
        if "transactions" in body:
            return body["transactions"]
    raise RefusedError(
        "bad_argument",
        f"body = {shown(body)}: expected an object with either 'transaction' (Base64) or "
        "'transactions' (a list of them)",
    )


def _get(
    path: str,
    endpoint: Callable[[Request], Awaitable[Response]],
    *parameters: str,
) -> Route:
    """A GET route that refuses query parameters it does not know: a typo is not ignored."""

    async def checked(request: Request) -> Response:
        unknown = [name for name in request.query_params if name not in parameters]
        if unknown:
            close = get_close_matches(unknown[0], parameters, n=1)
            hint = f"; did you mean '{close[0]}'?" if close else ""
            expected = " or ".join(parameters) or "none"
            raise RefusedError(
                "bad_argument",
                f"query parameter {shown(unknown[0])}: expected {expected}{hint}",
            )
        return await endpoint(request)

    return Route(path, checked, methods=["GET"])
