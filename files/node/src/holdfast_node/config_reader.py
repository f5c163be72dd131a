# SPDX-License-Identifier: Apache-2.0
"""From a TOML file to typed sections, collecting every fault instead of stopping at the first.

msgspec converts each single value; its own errors name neither the value nor the way out, and end
at the first one.
"""

import difflib
import json
import re
import types
import typing
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec

from holdfast_node.errors import ConfigError
from holdfast_node.files import read_file
from holdfast_node.keys import KeySource, parse_key_source

MAX_CONFIG_BYTES: Final = 1_048_576

_LABEL = r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_HOST = re.compile(rf"{_LABEL}(\.{_LABEL})*")
_IPV6 = re.compile(r"\[([0-9A-Fa-f:.]+)\]")


class Section(msgspec.Struct, frozen=True):
    """Base of every table of the configuration."""


S = TypeVar("S", bound=Section)


@dataclass(frozen=True)
class Endpoint:
    """A TCP address; `host` is a name or an address without brackets."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True)
class _Kind:
    """How values of one type are read and described."""

    expected: str
    parse: Callable[[Any], Any]


def parse_endpoint(value: Any) -> Endpoint:
    """Read "host:port" or "[v6 address]:port"; raises `ValueError`."""
    host, colon, port = value.rpartition(":") if isinstance(value, str) else ("", "", "")
    if not colon or not re.fullmatch("[0-9]{1,5}", port) or not 1 <= int(port) <= 65_535:
        raise ValueError("not host:port")
    bracketed = _IPV6.fullmatch(host)
    if bracketed:
        # Imported here: only IPv6 needs it, and the command line should start fast.
        from ipaddress import IPv6Address  # noqa: PLC0415

        return Endpoint(str(IPv6Address(bracketed[1])), int(port))
    if len(host) > 253 or not _HOST.fullmatch(host) or not _is_host(host):
        raise ValueError("not a host")
    return Endpoint(host, int(port))


def _is_host(host: str) -> bool:
    """Names of digits and dots only are addresses: four numbers up to 255."""
    numbers = host.split(".")
    if not numbers[-1].isdigit():
        return True
    return len(numbers) == 4 and all(n.isdigit() and int(n) <= 255 for n in numbers)


def _parse_path(value: Any) -> Path:
    if not isinstance(value, str) or not value.startswith("/") or "\x00" in value:
        raise ValueError("not absolute")
    return Path(value)


_KINDS: Final[dict[Any, _Kind]] = {
    Endpoint: _Kind('"host:port", such as "10.0.0.1:30303" or "[fd00::1]:30303"', parse_endpoint),
    Path: _Kind("an absolute path", _parse_path),
    KeySource: _Kind('an absolute path, or "credential:NAME"', parse_key_source),
}


def read_toml(path: Path, faults: list[str]) -> dict[str, Any] | None:
    """Read a TOML file of at most 1 MiB; None, and a fault, if it cannot be had."""
    try:
        data = read_file(path, MAX_CONFIG_BYTES, "a configuration file")
    except ConfigError as error:
        faults += error.faults
        return None
    try:
        table: dict[str, Any] = msgspec.toml.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        faults.append(f"{path}: expected TOML: {error}")
        return None
    return table


def read_section(
    type_: type[S], table: dict[str, Any], faults: list[str], prefix: str = ""
) -> S | None:
    """Convert `table` to a `type_`; None if there are faults, and all are added to `faults`."""
    before = len(faults)
    fields = {field.encode_name: field for field in msgspec.structs.fields(type_)}
    values = {}
    for name, field in fields.items():
        if name in table:
            values[field.name] = _read_value(field.type, table[name], faults, prefix + name)
        elif field.required:
            faults.append(f"{prefix}{name} is missing: expected {_describe(field.type)}; add it")
    for name in sorted(table.keys() - fields.keys()):
        close = difflib.get_close_matches(name, fields, n=1)
        # Never the value: it may be a secret under a key we do not know.
        faults.append(
            f"{prefix}{name} is not a known key: "
            + (f"did you mean {prefix}{close[0]}?" if close else f"expected {', '.join(fields)}")
        )
    return type_(**values) if len(faults) == before else None


def _read_value(annotation: Any, value: Any, faults: list[str], key: str) -> Any:
    kind, meta = _unwrap(annotation)
    if _is_section(kind):
        if isinstance(value, dict):
            return read_section(kind, value, faults, f"{key}.")
        faults.append(f"{key} = {_show(value)}: expected a table [{key}]")
        return None
    if typing.get_origin(kind) is tuple:
        return _read_tables(typing.get_args(kind)[0], meta, value, faults, key)
    try:
        if kind in _KINDS:
            return _KINDS[kind].parse(value)
        return msgspec.convert(value, annotation)
    except (ValueError, msgspec.ValidationError):
        shown = "(not shown)" if _is_secret(kind, meta) else _show(value)
        faults.append(f"{key} = {shown}: expected {_describe(annotation)}; correct it")
        return None


def _read_tables(
    type_: type[Section], meta: msgspec.Meta | None, value: Any, faults: list[str], key: str
) -> tuple[Section | None, ...]:
    if not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
        faults.append(f"{key} = {_show(value)}: expected tables [[{key}]]")
        return ()
    limit = meta.max_length if meta and meta.max_length else 0
    if len(value) > limit:
        faults.append(f"{key}: {len(value)} tables: expected at most {limit}")
        return ()
    return tuple(
        read_section(type_, entry, faults, f"{key}[{i}].") for i, entry in enumerate(value)
    )


def _unwrap(annotation: Any) -> tuple[Any, msgspec.Meta | None]:
    """Take `Annotated` and `| None` off a type."""
    meta = None
    if typing.get_origin(annotation) is typing.Annotated:
        annotation, meta = typing.get_args(annotation)[:2]
    if isinstance(annotation, types.UnionType):
        annotation = next(t for t in typing.get_args(annotation) if t is not type(None))
    return annotation, meta


def _is_section(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, Section)


def _is_secret(kind: Any, meta: msgspec.Meta | None) -> bool:
    """Whether a wrong value may be a key that someone pasted instead of its path."""
    return kind is KeySource or bool(meta and meta.extra and meta.extra.get("secret"))


def _describe(annotation: Any) -> str:
    kind, meta = _unwrap(annotation)
    if _is_section(kind):
        return (
            f"a table with {', '.join(field.encode_name for field in msgspec.structs.fields(kind))}"
        )
    if kind in _KINDS:
        return _KINDS[kind].expected
    if meta and meta.description:
        return meta.description
    if typing.get_origin(kind) is typing.Literal:
        return "one of " + ", ".join(f'"{choice}"' for choice in typing.get_args(kind))
    if kind is int and meta:
        return f"a whole number from {meta.ge} to {meta.le}"
    return str(kind)


def _show(value: Any) -> str:
    """Write a value as in TOML, on one line and cut to 80 characters."""
    text = json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= 80 else text[:77] + "..."
