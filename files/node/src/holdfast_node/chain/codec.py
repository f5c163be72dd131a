# SPDX-License-Identifier: Apache-2.0
"""One canonical encoding: MessagePack of array-like structs.

What is hashed or signed has exactly one byte representation, so decoding refuses every other one.
"""

from functools import cache
from typing import Any, TypeVar

import msgspec

from holdfast_node.errors import RefusedError

T = TypeVar("T")

_encoder = msgspec.msgpack.Encoder()


class Value(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Base of every value that is stored, hashed or sent: immutable, encoded as an array."""


@cache
def _decoder(type_: Any) -> msgspec.msgpack.Decoder[Any]:
    return msgspec.msgpack.Decoder(type_)


def encode(value: Any) -> bytes:
    """Return the canonical bytes of `value`."""
    return _encoder.encode(value)


def decode(data: bytes, type_: type[T] | Any) -> T:
    """Decode `data` as `type_`.

    Raises `RefusedError("malformed")` if it is no such value, or not in canonical form.
    """
    try:
        value: T = _decoder(type_).decode(data)  # type: ignore[arg-type]  # types are hashable
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, OverflowError) as error:
        raise RefusedError("malformed", f"not a valid encoding: {error}") from error
    if _encoder.encode(value) != data:
        raise RefusedError("malformed", "not the canonical encoding of this value")
    return value
