# Copyright: (c) 2026, Holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Options that the identity modules on a host share."""

from __future__ import annotations


class ModuleDocFragment:
    """Used as holdfast.chain.identity."""

    DOCUMENTATION = r"""
options:
  directory:
    description:
      - Directory of the identity. It holds C(pending/), C(generations/) and the symbolic link
        C(current).
      - It is made with mode 0755 if missing, parents included. An existing one keeps its mode and
        owner.
    type: path
    required: true
  dns:
    description: DNS names the certificate is for.
    type: list
    elements: str
    default: []
  ip:
    description: IPv4 and IPv6 addresses the certificate is for.
    type: list
    elements: str
    default: []
  spiffe_id:
    description:
      - SPIFFE id the certificate is for, such as V(spiffe://chain.example.org/chain/demo/node/v1).
      - At least one of O(dns), O(ip) and O(spiffe_id) must be given.
    type: str
  owner:
    description:
      - User that owns the private key in use. Its mode is always 0600.
      - Without it, the owner of a key is left as it is, and a new one belongs to who runs the
        module.
    type: str
  group:
    description: Group of the private key in use.
    type: str
requirements:
  - cryptography >= 3.4
author:
  - Holdfast contributors (@holdfast)
"""
