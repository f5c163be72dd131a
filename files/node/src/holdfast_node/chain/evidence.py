# SPDX-License-Identifier: Apache-2.0
"""Proof that a validator said two things of which an honest one says at most one."""

from typing import Annotated, Any, Literal, TypeAlias

import msgspec
from msgspec import Meta

from holdfast_node.chain.codec import Value, encode
from holdfast_node.chain.transaction import Natural, Signature
from holdfast_node.chain.validators import MAX_VALIDATORS, ValidatorSet
from holdfast_node.errors import RefusedError

MAX_STATEMENT_BYTES = 65_536

Offence: TypeAlias = Literal["pre-prepare", "prepare", "commit", "view-change"]


class Statement(Value, frozen=True):
    """What was signed, to the byte, and the signature: whoever has the key's owner can check it."""

    body: Annotated[bytes, Meta(max_length=MAX_STATEMENT_BYTES)]
    signature: Signature


class Evidence(Value, frozen=True, tag="evidence"):
    """`validator` signed both statements, of one kind, about one height and view.

    Either it lies, or a second process votes with its key: a copy of the machine, or of the key.
    """

    validator: Annotated[int, Meta(ge=0, lt=MAX_VALIDATORS)]
    kind: Offence
    height: Natural
    view: Natural
    first: Statement
    second: Statement

    @property
    def subject(self) -> tuple[int, str, int, int]:
        """What it is about; a second proof about the same adds nothing."""
        return self.validator, self.kind, self.height, self.view

    def check(self, chain_id: str, validators: ValidatorSet) -> None:
        """Raise `RefusedError("bad_evidence")` unless the statements convict the validator.

        `validators` are those of `height`.
        """
        if self.validator >= len(validators):
            raise RefusedError("bad_evidence", f"no validator has index {self.validator}")
        if self.first.body == self.second.body:
            raise RefusedError("bad_evidence", "both statements are the same")
        about = (f"holdfast/{self.kind}/1", chain_id, self.height, self.view)
        for statement in (self.first, self.second):
            if _subject_of(statement.body) != about:
                raise RefusedError("bad_evidence", "a statement is about something else")
            if not validators.verify(self.validator, statement.body, statement.signature):
                raise RefusedError("bad_evidence", "a statement is not signed by the accused")


def _subject_of(body: bytes) -> tuple[Any, ...]:
    try:
        decoded = msgspec.msgpack.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return ()
    if not isinstance(decoded, list) or encode(decoded) != body:
        return ()
    return tuple(decoded[:4])
