# SPDX-License-Identifier: Apache-2.0
"""Proof that a validator said two things of which an honest one says at most one."""

from typing import Annotated, Any, Literal, TypeAlias

from msgspec import Meta

from holdfast_node.chain.block import Hash, VoteSignature
from holdfast_node.chain.codec import Value, decode
from holdfast_node.chain.transaction import Natural, Signature
from holdfast_node.chain.validators import MAX_VALIDATORS, ValidatorSet
from holdfast_node.errors import RefusedError

MAX_STATEMENT_BYTES = 65_536

Offence: TypeAlias = Literal["pre-prepare", "prepare", "commit", "view-change"]

# What is signed: statement, chain, height, view, then what is said (`vote_bytes`,
# `view_change_bytes`).
_Index: TypeAlias = Annotated[int, Meta(ge=0, lt=MAX_VALIDATORS)]
_Vote: TypeAlias = tuple[str, str, Natural, Natural, Hash]
_Prepared: TypeAlias = tuple[Natural, Hash, VoteSignature, tuple[VoteSignature, ...]]
_ViewChange: TypeAlias = tuple[str, str, Natural, Natural, _Prepared | None, _Index]


class Statement(Value, frozen=True):
    """What was signed, to the byte, and the signature: whoever has the key's owner can check it."""

    body: Annotated[bytes, Meta(max_length=MAX_STATEMENT_BYTES)]
    signature: Signature


class Evidence(Value, frozen=True, tag="evidence"):
    """`validator` signed both statements, of one kind, about one height and view.

    Either it lies, or a second process votes with its key: a copy of the machine, or of the key.
    """

    validator: _Index
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
            if _subject_of(self.kind, statement.body) != about:
                raise RefusedError("bad_evidence", "a statement is about something else")
            if not validators.verify(self.validator, statement.body, statement.signature):
                raise RefusedError("bad_evidence", "a statement is not signed by the accused")


def _subject_of(kind: Offence, body: bytes) -> tuple[Any, ...]:
    """What a statement is about, empty if it is none.

    Its type bounds its depth: what a decoder makes of deeper nesting depends on the machine, and
    the verdict is part of what all nodes execute alike.
    """
    try:
        decoded: tuple[Any, ...] = decode(body, _ViewChange if kind == "view-change" else _Vote)
    except RefusedError:
        return ()
    return decoded[:4]
