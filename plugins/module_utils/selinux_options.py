# Copyright: (c) 2026, Holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The options of selinux_policy: their specification, and what they ask for."""

from __future__ import annotations

from typing import Any

from ansible_collections.holdfast.chain.plugins.module_utils.selinux import (
    SelinuxError,
    parse_span,
)
from ansible_collections.holdfast.chain.plugins.module_utils.selinux_module import Request
from ansible_collections.holdfast.chain.plugins.module_utils.selinux_needs import (
    CHANNELS,
    SERVICES,
    AllowNeed,
    Needs,
    PathNeed,
    PortNeed,
    TalkNeed,
)

_TEXT = {"type": "str"}
_NEEDED = {"type": "str", "required": True}
_WORDS = {"type": "list", "elements": "str", "default": []}
_PROTOCOL = {"type": "str", "choices": ["tcp", "udp"], "default": "tcp"}


def _items(**options: Any) -> dict[str, Any]:
    return {"type": "list", "elements": "dict", "default": [], "options": options}


ARGUMENT_SPEC: dict[str, Any] = {
    "name": _NEEDED,
    "executables": _WORDS,
    "from_init": {"type": "bool", "default": True},
    "bind": _items(port=_NEEDED, proto=_PROTOCOL, type=_TEXT),
    "connect": _items(port=_NEEDED, proto=_PROTOCOL, type=_TEXT),
    "read": _items(path=_NEEDED, secret={"type": "bool", "default": False, "no_log": False}),
    "write": _WORDS,
    "services": {**_WORDS, "choices": list(SERVICES)},
    "credentials": {"type": "bool", "default": False},
    "talk_to": _items(
        domain=_NEEDED,
        over={"type": "str", "choices": list(CHANNELS), "required": True},
        socket=_TEXT,
    ),
    "capabilities": _WORDS,
    "allow": _items(
        **{
            "type": _NEEDED,
            "class": _NEEDED,
            "permissions": {"type": "list", "elements": "str", "required": True},
        }
    ),
    "permissive": {"type": "bool", "default": False},
    "priority": {"type": "int", "default": 400},
    "force": {"type": "bool", "default": False},
    "relabel": {"type": "bool", "default": True},
    "denials_since": _TEXT,
    "not_applicable": {"type": "str", "choices": ["skip", "fail"], "default": "skip"},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
}


def needs_of(params: dict[str, Any]) -> Needs:
    """The needs of a task; SelinuxError names the option that is wrong."""

    def ports(option: str) -> tuple[PortNeed, ...]:
        return tuple(
            PortNeed(item["proto"], *parse_span(item["port"], option), item["type"])
            for item in params[option]
        )

    return Needs(
        name=params["name"],
        executables=tuple(params["executables"]),
        from_init=params["from_init"],
        bind=ports("bind"),
        connect=ports("connect"),
        read=tuple(PathNeed(item["path"], item["secret"]) for item in params["read"]),
        write=tuple(PathNeed(path) for path in params["write"]),
        services=tuple(params["services"]),
        credentials=params["credentials"],
        talk_to=tuple(
            TalkNeed(item["domain"], item["over"], item["socket"]) for item in params["talk_to"]
        ),
        capabilities=tuple(params["capabilities"]),
        allow=tuple(
            AllowNeed(item["type"], item["class"], tuple(item["permissions"]))
            for item in params["allow"]
        ),
        permissive=params["permissive"],
    )


def request_of(params: dict[str, Any]) -> Request:
    """The options of a task."""
    if not 1 <= params["priority"] <= 999:
        raise SelinuxError(f"priority: {params['priority']}: expected a number from 1 to 999")
    return Request(
        needs=needs_of(params),
        present=params["state"] == "present",
        priority=params["priority"],
        force=params["force"],
        relabel=params["relabel"],
        denials_since=params["denials_since"],
        skip_not_applicable=params["not_applicable"] == "skip",
    )
