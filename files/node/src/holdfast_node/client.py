# SPDX-License-Identifier: Apache-2.0
"""A client of a node's HTTP API, for the command line and for trying things out.

Standard library only, and no proxy: a node is spoken to directly.
"""

import http.client
import json
import time
from base64 import b64encode
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar
from urllib.parse import quote, urlencode, urlsplit

from holdfast_node.chain.crypto import PrivateKey, account_of, format_address
from holdfast_node.chain.transaction import Action, sign_transaction
from holdfast_node.errors import ConfigError, HoldfastError, RefusedError

T = TypeVar("T")

DEFAULT_URL: Final = "http://127.0.0.1:8545"
MAX_ANSWER_BYTES: Final = 33_554_432
EXPIRES_IN_S: Final = 300

_FIRST_POLL_S: Final = 0.005
_SLOWEST_POLL_S: Final = 0.1


class UnreachableError(HoldfastError):
    """No usable answer came from the node in time."""


@dataclass(frozen=True)
class Outcome:
    """What became of a submitted transaction; `latency_ms` from before submission until known.

    `status` is one of the API's: "pending", "committed" or "failed".
    """

    id: str
    status: str
    height: int | None = None
    latency_ms: float | None = None
    reason: str | None = None


class Client:
    """Talks to the node at `url`; each request takes at most `timeout` seconds per read.

    Methods raise `RefusedError` for what the node refuses, `UnreachableError` if it does not answer
    as a node does, and the constructor `ConfigError` for a bad `url`.
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        timeout: float = 10.0,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
        except ValueError:
            parts, host, port = urlsplit(""), None, None
        if parts.scheme not in {"http", "https"} or not host or parts.query or parts.username:
            raise ConfigError(
                [f"--url = {url!r}: expected the API of a node, such as {DEFAULT_URL}; correct it"]
            )
        self.url = url.rstrip("/")
        self._sleep = sleep
        self._prefix = parts.path.rstrip("/")
        kind = (
            http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        )
        self._connect: Callable[[], http.client.HTTPConnection] = lambda: kind(
            host, port, timeout=timeout
        )

    def status(self) -> dict[str, Any]:
        return self._get("/v1/status")

    def is_ready(self) -> tuple[bool, str | None]:
        """Whether the node says it is in step with its network, and if not, why."""
        _, answer = self._request("GET", "/readyz")
        return bool(answer.get("ready")), answer.get("reason")

    def account(self, address: str, *, min_height: int | None = None) -> dict[str, Any]:
        """As of block "height", at `min_height` or above: the node waits for it some seconds."""
        return self._get(f"/v1/accounts/{quote(address, safe='')}{_query(min_height=min_height)}")

    def value(
        self, address: str, key: str, *, min_height: int | None = None
    ) -> dict[str, Any] | None:
        """What `address` has put under `key`, None if nothing; heights as for `account`.

        Who hands on the highest height of any answer as `min_height`, to whichever node, never
        reads what is older than what was acknowledged to it, or read by it, before.
        """
        path = f"/v1/values/{quote(address, safe='')}/{quote(key, safe='')}"
        try:
            return self._get(path + _query(min_height=min_height))
        except RefusedError as error:
            if error.code == "not_found":
                return None
            raise

    def block(self, reference: int | str) -> dict[str, Any]:
        return self._get(f"/v1/blocks/{quote(str(reference), safe='')}")

    def transaction(self, identifier: str) -> dict[str, Any]:
        return self._get(f"/v1/transactions/{quote(identifier, safe='')}")

    def members(self, of: str = "") -> dict[str, Any]:
        """Validators, proposals and the change to come; with "history", past changes."""
        return self._get(f"/v1/members/{of}".rstrip("/"))

    def height(self) -> int:
        """The last committed block of the node."""
        return self._field(self.status(), "height", int)

    def evidence(self) -> list[dict[str, Any]]:
        """What the node holds against validators, oldest first."""
        found: list[dict[str, Any]] = self._field(self._get("/v1/evidence"), "evidence", list)
        return found

    def proof(self, of: str, **parameters: int) -> dict[str, Any]:
        """The proof of "transactions/ID" or "blocks/HEIGHT"; not checked here."""
        return self._get(f"/v1/proofs/{quote(of)}{_query(**parameters)}")

    def submit(self, raw: bytes) -> str:
        """Hand a signed transaction to the node; returns its identifier."""
        body = json.dumps({"transaction": b64encode(raw).decode()})
        code, answer = self._request("POST", "/v1/transactions", body)
        results = answer.get("results")
        if not isinstance(results, list) or len(results) != 1 or not isinstance(results[0], dict):
            raise self._fault(code, answer)
        verdict = results[0]
        if not verdict.get("accepted"):
            raise RefusedError(str(verdict.get("code")), str(verdict.get("reason")))
        return self._field(verdict, "id", str)

    def execute(
        self,
        key: PrivateKey,
        actions: Sequence[Action],
        *,
        wait_s: float | None,
        chain_id: str | None = None,
        nonce: int | None = None,
    ) -> Outcome:
        """Sign `actions` with `key`, submit them and wait up to `wait_s` seconds for the commit.

        The chain and the next nonce are asked of the node unless given.
        """
        if chain_id is None:
            chain_id = self._field(self.status(), "chain_id", str)
        if nonce is None:
            account = self.account(format_address(account_of(key.public_key)))
            nonce = self._field(account, "nonce", int)
        expires_at_ms = int(time.time() * 1000) + EXPIRES_IN_S * 1000
        raw = sign_transaction(
            key, chain_id=chain_id, nonce=nonce, expires_at_ms=expires_at_ms, actions=actions
        )
        start = time.monotonic()
        identifier = self.submit(raw)
        return (
            Outcome(identifier, "pending")
            if wait_s is None
            else self.wait(identifier, wait_s, start)
        )

    def wait(self, identifier: str, wait_s: float, start: float | None = None) -> Outcome:
        """Ask for a transaction until it is committed, at most `wait_s` seconds after `start`.

        `start` is on the monotonic clock, now unless given.
        """
        start = time.monotonic() if start is None else start
        pause = _FIRST_POLL_S
        while True:
            answer = self.transaction(identifier)
            latency_ms = round((time.monotonic() - start) * 1000, 1)
            status, reason = str(answer.get("status")), answer.get("reason")
            if status in {"committed", "failed"}:
                return Outcome(identifier, status, answer.get("height"), latency_ms, reason)
            if status == "rejected":
                raise RefusedError("rejected", f"transaction {identifier}: {reason}")
            if latency_ms + pause * 1000 > wait_s * 1000:
                raise UnreachableError(
                    f"transaction {identifier} is {status} after {wait_s:g} s: expected it to be "
                    "committed; look at 'holdfast-node status' and ask again with 'tx status'"
                )
            self._sleep(pause)
            pause = min(pause * 1.5, _SLOWEST_POLL_S)

    def _get(self, path: str) -> dict[str, Any]:
        code, answer = self._request("GET", path)
        if code != http.client.OK:
            raise self._fault(code, answer)
        return answer

    def _request(
        self, method: str, path: str, body: str | None = None
    ) -> tuple[int, dict[str, Any]]:
        connection = self._connect()
        headers = {"Content-Type": "application/json"} if body else {}
        try:
            connection.request(method, self._prefix + path, body, headers)
            response = connection.getresponse()
            data = response.read(MAX_ANSWER_BYTES + 1)
        except (OSError, http.client.HTTPException) as error:
            said = getattr(error, "strerror", None) or str(error) or type(error).__name__
            raise UnreachableError(
                f"{self.url}: {said}: expected a running node; start it, or name it with --url"
            ) from error
        finally:
            connection.close()
        try:
            answer = json.loads(data) if len(data) <= MAX_ANSWER_BYTES else None
        except (ValueError, RecursionError):
            answer = None
        if not isinstance(answer, dict):
            raise self._fault(response.status, {})
        return response.status, answer

    def _field(self, answer: dict[str, Any], name: str, kind: type[T]) -> T:
        value = answer.get(name)
        if not isinstance(value, kind):
            raise self._fault(http.client.OK, {})
        return value

    def _fault(self, code: int, answer: dict[str, Any]) -> HoldfastError:
        error = answer.get("error")
        if isinstance(error, dict):
            return RefusedError(str(error.get("code")), str(error.get("message")))
        return UnreachableError(
            f"{self.url}: answered {code}, not as a node does: expected the API of a node; name "
            "it with --url"
        )


def _query(**parameters: int | None) -> str:
    """The part of an address from the question mark on, of what is not None."""
    given = {name: value for name, value in parameters.items() if value is not None}
    return f"?{urlencode(given)}" if given else ""
