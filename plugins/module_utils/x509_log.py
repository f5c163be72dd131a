# Copyright: (c) 2026, Holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The log of a CA: every certificate it issued and every one it revoked, a JSON object per line.

Only ever appended to, and on the disk before what it tells of leaves the CA. A crash can leave a
torn last line: what it would have told of never happened, so readers leave such lines out.

    {"event": "issued" (or absent), "time", "name", "serial", "names", "not_before", "not_after",
     "sha256", "public_key_sha256", "issuer_sha256"}
    {"event": "revoked", "time", "name", "serial", "reason"}
    {"event": "barred", "time", "name", "reason"}        mtls_sign refuses it from now on
    {"event": "readmitted", "time", "name"}
    {"event": "sealed", "time"}          the CA's keys got another passphrase
"""

from __future__ import annotations

import datetime
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable, Iterator, Mapping

from ansible_collections.holdfast.chain.plugins.module_utils.files import sync_directory
from ansible_collections.holdfast.chain.plugins.module_utils.transaction import Transaction
from ansible_collections.holdfast.chain.plugins.module_utils.x509 import timestamp
from ansible_collections.holdfast.chain.plugins.module_utils.x509_crl import Entry

LOG = "issued.jsonl"


@dataclass(frozen=True)
class Issued:
    """A certificate on record; issuer_sha256 is None in lines of before that was recorded."""

    name: str
    serial: int
    not_after: datetime.datetime
    public_key_sha256: str | None
    issuer_sha256: str | None


@dataclass
class Log:
    """What a log tells.

    issued: by serial, in order of issuance. revoked: by serial.
    barred: names that are to get no certificate, with when and why.
    sealed: when the passphrase last changed; None if it never did. torn: lines left out.
    """

    issued: dict[int, Issued] = field(default_factory=dict)
    revoked: dict[int, Entry] = field(default_factory=dict)
    barred: dict[str, Entry] = field(default_factory=dict)
    sealed: datetime.datetime | None = None
    torn: list[int] = field(default_factory=list)

    def valid(self, moment: datetime.datetime) -> Iterator[Issued]:
        """Certificates that are neither expired nor revoked, oldest first."""
        for one in self.issued.values():
            if one.not_after > moment and one.serial not in self.revoked:
                yield one

    def revoked_keys(self) -> set[str]:
        """Fingerprints of the public keys of revoked certificates."""
        found = (self.issued.get(serial) for serial in self.revoked)
        return {one.public_key_sha256 for one in found if one and one.public_key_sha256}


def read_log(directory: Path) -> Log:
    """The log of the CA in a directory; an empty one where there is none."""
    path, log = directory / LOG, Log()
    if not path.exists():
        return log
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        if not line.strip():
            continue
        try:
            event = json.loads(line.decode("ascii"))
            _EVENTS[event.get("event", "issued")](log, event)
        except (ValueError, KeyError, TypeError, AttributeError):
            log.torn.append(number)
    return log


def _moment(text: str) -> datetime.datetime:
    return datetime.datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(
        tzinfo=datetime.timezone.utc
    )


def _issued(log: Log, event: Mapping[str, Any]) -> None:
    serial = int(event["serial"], 16)
    log.issued[serial] = Issued(
        str(event["name"]),
        serial,
        _moment(event["not_after"]),
        event.get("public_key_sha256"),
        event.get("issuer_sha256"),
    )


def _revoked(log: Log, event: Mapping[str, Any]) -> None:
    entry = Entry(int(event["serial"], 16), _moment(event["time"]), str(event["reason"]))
    log.revoked.setdefault(entry.serial, entry)


def _barred(log: Log, event: Mapping[str, Any]) -> None:
    log.barred[str(event["name"])] = Entry(0, _moment(event["time"]), str(event["reason"]))


def _readmitted(log: Log, event: Mapping[str, Any]) -> None:
    log.barred.pop(str(event["name"]), None)


def _sealed(log: Log, event: Mapping[str, Any]) -> None:
    log.sealed = _moment(event["time"])


_EVENTS: dict[str, Callable[[Log, Mapping[str, Any]], None]] = {
    "issued": _issued,
    "revoked": _revoked,
    "barred": _barred,
    "readmitted": _readmitted,
    "sealed": _sealed,
}


def line(event: str, moment: datetime.datetime, **details: Any) -> bytes:
    """One line of the log."""
    entry = {"event": event, "time": timestamp(moment), **details}
    return json.dumps(entry, sort_keys=True).encode("ascii") + b"\n"


def record_lines(transaction: Transaction, directory: Path, lines: bytes) -> None:
    """Append to the log of the CA in a directory, as a step of a transaction."""
    log = directory / LOG
    size = size_of(log)
    transaction.run(
        lambda: append_lines(log, lines), lambda: cut_back(log, size), f"append to {log}"
    )


def append_lines(path: Path, lines: bytes) -> None:
    """Add whole lines at the end of a file and have them on the disk; 0600 when it is new.

    A line torn by an earlier crash is closed first, so that it spoils nobody but itself. On failure
    the file is cut back to what it was.
    """
    is_new = not path.exists()
    handle = os.open(str(path), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(handle, "r+b") as stream:
        size = stream.seek(0, os.SEEK_END)
        if size:
            stream.seek(size - 1)
            if stream.read(1) != b"\n":
                lines = b"\n" + lines
        try:
            stream.seek(size)
            stream.write(lines)
            stream.flush()
            os.fsync(stream.fileno())
            if is_new:
                sync_directory(path.parent)
        except OSError:
            stream.truncate(size)
            raise


def cut_back(path: Path, size: int | None) -> None:
    """Undo of append_lines: the size the file had, None if it did not exist."""
    if size is None:
        path.unlink()
    else:
        os.truncate(str(path), size)


def size_of(path: Path) -> int | None:
    """Size of a file in bytes; None if it does not exist."""
    return path.stat().st_size if path.exists() else None
