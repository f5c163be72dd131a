# SPDX-License-Identifier: GPL-3.0-or-later
"""Mitogen's way into a container, with the one option that it takes from nowhere else.

Without it `ansible_host` is used as it stands in the inventory, template and all.
"""

from __future__ import annotations

from ansible_mitogen.plugins.connection import mitogen_podman

DOCUMENTATION = """
name: mitogen_podman
short_description: Enter a podman container once for each playbook
description: [What Mitogen puts in the place of connection C(podman).]
author: Holdfast
options:
  host:
    description: Name of the container.
    default: inventory_hostname
    vars: [{name: inventory_hostname}, {name: ansible_host}]
"""


class Connection(mitogen_podman.Connection):
    """The same, documented for Ansible."""
