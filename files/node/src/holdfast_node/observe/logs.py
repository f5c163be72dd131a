# SPDX-License-Identifier: Apache-2.0
"""Logs: one line per event on standard error, as JSON or for a terminal.

What libraries log through the standard library takes the same way. Every event is bounded in size
and cleared of secrets before it is written.
"""

import json
import logging
import math
import re
import sys
from collections.abc import Mapping
from itertools import islice
from typing import Any, Final, Literal, TextIO

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

MAX_TEXT: Final = 1_024
MAX_TRACEBACK: Final = 16_384
MAX_ENTRIES: Final = 64
MAX_DEPTH: Final = 3
MAX_VALUES: Final = 256
MAX_LINE: Final = 65_536

_OWN: Final = ("exc_info", "_record", "_from_structlog")  # of the libraries, not for output
_FIRST: Final = ("time", "level", "event", "logger", *_OWN)
_HIDDEN: Final = "(hidden)"
_SECRET_NAME: Final = re.compile(
    r"(?:.*[_-])?(?:secret|seed|password|passphrase|token|authorization|credential|cookie|"
    r"(?:private|signing|validator|secret)[_-]?key)s?",
    re.IGNORECASE | re.DOTALL,
)
_SECRET_TEXT: Final = re.compile(
    r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----.*?(-----END [A-Z0-9 ]*-----|\Z)", re.DOTALL
)
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")

Level = Literal["debug", "info", "warning", "error"]


def configure_logs(
    level: Level = "info",
    form: Literal["json", "console"] = "json",
    stream: TextIO | None = None,
) -> None:
    """Send events of `level` and above to `stream`, standard error unless given."""
    target = stream or sys.stderr
    number = getattr(logging, level.upper())
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
        clean,
        structlog.processors.format_exc_info,
        clean_traceback,
    ]
    render: list[Processor] = [render_json]
    if form == "console":
        console = structlog.dev.ConsoleRenderer(
            timestamp_key="time",
            colors=target.isatty(),
            # Not the default: it shows local variables, and so may show keys.
            exception_formatter=structlog.dev.plain_traceback,
        )
        render = [escape_controls, console]
    structlog.configure(
        processors=[*shared, *render],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.WriteLoggerFactory(file=target),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(target)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *shared],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *render],
        )
    )
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
    root.addHandler(handler)
    # Libraries are chatty below warnings, and say nothing there that an operator acts on.
    root.setLevel(max(number, logging.WARNING))


def clean(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Hide secrets, write bytes as hexadecimal and cut what is too long."""
    cleaner = _Cleaner()
    first = [name for name in _FIRST if name in event]
    others = [name for name in event if name not in _FIRST]
    return {
        _cut(name): event[name] if name in _OWN else cleaner.clean(name, event[name], MAX_DEPTH)
        for name in (first + others)[:MAX_ENTRIES]
    }


class _Cleaner:
    """Cleans the values of one event; `left` is how many more it may have."""

    def __init__(self) -> None:
        self.left = MAX_VALUES

    def clean(self, name: str, value: Any, depth: int) -> Any:
        self.left -= 1
        if _SECRET_NAME.fullmatch(name) and value is not None:
            return _HIDDEN
        if value is None or isinstance(value, bool | int | float):
            return _number(value)
        if isinstance(value, bytes | bytearray):
            return _cut(value.hex())
        if isinstance(value, Mapping | list | tuple | set | frozenset):
            return self._clean_entries(name, value, depth - 1)
        text = value if isinstance(value, str) else str(value)
        return _SECRET_TEXT.sub(_HIDDEN, _cut(text))

    def _clean_entries(self, name: str, value: Any, depth: int) -> Any:
        if depth < 0 or self.left <= 0:
            return f"{type(value).__name__} of {len(value)}"
        entries = islice(value, min(MAX_ENTRIES, self.left))
        if isinstance(value, Mapping):
            return {_cut(str(k)): self.clean(str(k), value[k], depth) for k in entries}
        return [self.clean(name, entry, depth) for entry in entries]


def _number(value: float | None) -> float | str | None:
    """JSON has no infinity, and its readers no integers of any length."""
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    return value if value is None or value.bit_length() <= 64 else _cut(hex(value))


def _cut(text: str) -> str:
    cut = f"{text[:MAX_TEXT]} ... ({len(text)} characters)"
    return text if len(text) <= MAX_TEXT else cut


def escape_controls(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """For a terminal: no text from outside may start a line or move the cursor."""
    for name, value in event.items():
        if isinstance(value, str) and name != "exception":
            event[name] = _CONTROL.sub(lambda match: ascii(match[0])[1:-1], value)
    return event


def clean_traceback(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Keep the end of a traceback, which says what happened, and no key in it."""
    if "exception" in event:
        event["exception"] = _SECRET_TEXT.sub(_HIDDEN, str(event["exception"]))[-MAX_TRACEBACK:]
    return event


def render_json(_logger: WrappedLogger, _method: str, event: EventDict) -> str:
    """One line of at most 64 KiB; of an event beyond that only what it is about is kept."""
    line = json.dumps(event, ensure_ascii=True, default=str)
    if len(line) <= MAX_LINE:
        return line
    kept = {name: event[name] for name in ("event", "level", "time") if name in event}
    return json.dumps({**kept, "cut": f"{len(line)} bytes"})
