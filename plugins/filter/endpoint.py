# Copyright: (c) 2026, Holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An address and a port in one."""

from __future__ import annotations

from typing import Any, Callable

DOCUMENTATION = r"""
name: endpoint
short_description: An address and a port as one text
version_added: 0.1.0
author:
  - Holdfast contributors (@holdfast)
description:
  - Puts an IPv6 address into brackets, and leaves names and IPv4 addresses as they are.
positional: port
options:
  _input:
    description: A host name or an IP address.
    type: str
    required: true
  port:
    description: The port.
    type: int
    required: true
"""

EXAMPLES = r"""
- name: Say where a node listens
  ansible.builtin.debug:
    msg: "{{ '2001:db8::1' | holdfast.chain.endpoint(30303) }}"  # [2001:db8::1]:30303
"""

RETURN = r"""
_value:
  description: The endpoint.
  type: str
"""


def endpoint(address: str, port: int) -> str:
    """See DOCUMENTATION."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


class FilterModule:
    """Ansible's way to find it."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"endpoint": endpoint}
