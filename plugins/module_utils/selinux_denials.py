# Copyright: (c) 2026, Holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a domain was denied, from the audit log.

The records are those of the kernel (``avc``), of daemons that ask it (``user_avc``, D-Bus for one)
and of contexts that could not be (``selinux_err``).
"""

from __future__ import annotations

import datetime
import re
from typing import Any, Iterator

from ansible_collections.holdfast.chain.plugins.module_utils.hostfs import Host
from ansible_collections.holdfast.chain.plugins.module_utils.selinux import SelinuxError

WORDS = (
    *("boot", "recent", "today", "yesterday"),
    *("this-hour", "this-week", "this-month", "this-year"),
)
_EVENT = re.compile(r"msg=audit\((\d+)\.(\d+):(\d+)\)")
_AVC = re.compile(r"avc:\s+(denied|granted)\s+\{ ([^}]*) \}(.*)")
_FIELD = re.compile(r"\b([a-z_]+)=(\"[^\"]*\"|[^\s']+)")
_TEXTS = ("comm", "exe", "name", "path")
_HEX = re.compile(r"(?:[0-9A-F]{2})+")
_SECONDS = 600  # a log of months on a slow machine
_COMMAND = ["ausearch", "--input-logs", "-m", "avc,user_avc,selinux_err", "--raw"]


def start_of(since: str) -> tuple[list[str], float]:
    """The arguments of ``ausearch -ts`` and the time before which nothing counts, in seconds.

    since: one of WORDS, seconds since 1970, or ISO 8601 (local time where it names no zone).
    """
    if since in WORDS:
        return [since], 0.0
    try:
        moment = float(since)
    except ValueError:
        try:
            text = re.sub(r"Z$", "+00:00", since)
            moment = datetime.datetime.fromisoformat(text).timestamp()
        except ValueError:
            raise SelinuxError(
                f"denials_since: '{since}': expected one of {', '.join(WORDS)}, or a time such as "
                "2026-01-31T12:00:00Z, or seconds since 1970"
            ) from None
    local = datetime.datetime.fromtimestamp(moment)  # ausearch reads times of the host's zone
    return [local.strftime("%m/%d/%y"), local.strftime("%H:%M:%S")], moment


def read(host: Host, domain: str, since: str) -> list[dict[str, Any]] | None:
    """Denials of a domain, alike ones as one; None where the host keeps no audit log."""
    arguments, moment = start_of(since)
    code, out, error = host.run([*_COMMAND, "-ts", *arguments], timeout=_SECONDS)
    if code == 127 or (code != 0 and "no matches" not in out + error):
        return None
    return grouped(parse(out, domain, moment))


def parse(text: str, domain: str, moment: float = 0.0) -> Iterator[dict[str, Any]]:
    """Records of ``ausearch --raw`` that are about a domain, from a moment on."""
    for line in text.splitlines():
        event = _EVENT.search(line)
        if not event:
            continue
        seconds = int(event.group(1)) + int(event.group(2)) / 1000
        if seconds < moment:
            continue
        found = _error(line, domain) if "type=SELINUX_ERR" in line else _denial(line, domain)
        if found is not None:
            yield {"time": _iso(seconds), **found}


def _denial(line: str, domain: str) -> dict[str, Any] | None:
    match = _AVC.search(line)
    if not match or match.group(1) != "denied":
        return None
    fields = _fields(match.group(3))
    source, target = (_type(fields.get(name, "")) for name in ("scontext", "tcontext"))
    if domain not in (source, target):
        return None
    object_class = fields.get("tclass", "")
    permissions = sorted(match.group(2).split())
    port = fields.get("src") if "name_bind" in permissions else fields.get("dest")
    denial = {
        "source": source,
        "target": target,
        "class": object_class,
        "permissions": permissions,
        "command": fields.get("comm") or fields.get("exe"),
        "path": fields.get("path") or fields.get("name"),
        "port": int(port) if port and port.isdigit() else None,
        "permissive": fields.get("permissive") == "1",
    }
    denial["need"] = need_of(denial) if source == domain else None
    return denial


def _error(line: str, domain: str) -> dict[str, Any] | None:
    if f":{domain}" not in line:
        return None
    fields = _fields(line)
    contexts = [fields.get(name, "") for name in ("scontext", "oldcontext")]
    return {
        "source": next((_type(context) for context in contexts if context), ""),
        "target": _type(fields.get("newcontext") or fields.get("tcontext", "")),
        "class": fields.get("tclass", "process"),
        "permissions": [fields.get("op", "compute")],
        "command": fields.get("comm"),
        "path": None,
        "port": None,
        "permissive": False,
        "need": None,
    }


def need_of(denial: dict[str, Any]) -> str | None:
    """The option of selinux_policy that would allow it; None where there is none to recommend."""
    permissions, object_class = set(denial["permissions"]), denial["class"]
    protocol = object_class.partition("_")[0]
    port, path = denial["port"], denial["path"]
    if port is not None and "name_bind" in permissions:
        return f"bind: {protocol}/{port}"
    if port is not None and "name_connect" in permissions:
        return f"connect: {protocol}/{port}"
    if object_class.startswith("cap"):
        return f"capabilities: {' '.join(sorted(permissions))}"
    if object_class in ("file", "dir", "lnk_file") and path and path.startswith("/"):
        changing = permissions & {"write", "append", "create", "unlink", "rename", "add_name"}
        return f"{'write' if changing else 'read'}: {path}"
    return None


def grouped(denials: Iterator[dict[str, Any]]) -> list[dict[str, Any]]:
    """Alike ones as one, with their number and the times of the first and the last."""
    found: dict[str, dict[str, Any]] = {}
    for denial in denials:
        time = denial.pop("time")
        key = repr(sorted(denial.items()))
        first = found.setdefault(key, {**denial, "count": 0, "first": time, "last": time})
        first["count"] += 1
        first["first"], first["last"] = min(first["first"], time), max(first["last"], time)
    return sorted(found.values(), key=lambda denial: str(denial["first"]))


def _type(context: str) -> str:
    parts = context.split(":")
    return parts[2] if len(parts) > 2 else ""


def _fields(text: str) -> dict[str, str]:
    """Names and values. Text is quoted, or in hexadecimal if blanks or quotes are in it."""
    found = {}
    for name, value in _FIELD.findall(text):
        if value.startswith('"'):
            found[name] = value[1:-1]
        elif name in _TEXTS and _HEX.fullmatch(value):
            found[name] = bytes.fromhex(value).decode("utf-8", "replace")
        else:
            found[name] = value
    return found


def _iso(seconds: float) -> str:
    moment = datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
