# Copyright: (c) 2026, Holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# ruff: noqa: E402 - Ansible wants documentation before imports
"""An account of the controller's own, for demonstrations and tests."""

from __future__ import annotations

DOCUMENTATION = r"""
name: account
short_description: The address of an account whose key is kept on the controller
version_added: 0.1.0
author:
  - Holdfast contributors (@holdfast)
description:
  - Returns the address that belongs to a key file, and makes the file if there is none, readable
    to its owner alone. Like P(ansible.builtin.password#lookup), it does so in check mode too.
  - Meant for demonstrations and tests. Keys of real accounts are made by their owners with
    C(holdfast-node keys new), and only their addresses come into an inventory.
options:
  _terms:
    description: Paths of key files.
    type: list
    elements: path
    required: true
requirements:
  - cryptography, on the controller
"""

EXAMPLES = r"""
- name: Show the address
  ansible.builtin.debug:
    msg: "{{ lookup('holdfast.chain.account', '~/.holdfast/demo/account.key') }}"
"""

RETURN = r"""
_list:
  description: Addresses.
  type: list
  elements: str
"""

import contextlib
import os
import secrets
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleError
from ansible.plugins.lookup import LookupBase
from ansible_collections.holdfast.chain.plugins.module_utils.address import address_of

try:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import (
        Encoding,
        NoEncryption,
        PrivateFormat,
        PublicFormat,
        load_pem_private_key,
    )
except ImportError:  # on the controller Ansible itself needs it
    Ed25519PrivateKey = None


def make(path: Path) -> None:
    """Make a key file, unless there is one; a reader sees a whole file or none."""
    pem = Ed25519PrivateKey.generate().private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
    )
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    fresh = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
    handle = os.open(str(fresh), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(pem)
        with contextlib.suppress(FileExistsError):  # somebody else was quicker: theirs counts
            os.link(str(fresh), str(path))
    finally:
        fresh.unlink()


def address(path: Path) -> str:
    """The address of the key in a file. Raises AnsibleError for what is no Ed25519 key."""
    try:
        key = load_pem_private_key(path.read_bytes(), password=None)
    except (OSError, ValueError, TypeError) as error:
        raise AnsibleError(f"{path}: {error}; expected an Ed25519 key in PEM") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise AnsibleError(f"{path}: expected an Ed25519 key, as 'holdfast-node keys new' makes it")
    return address_of(key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw))


class LookupModule(LookupBase):
    """Ansible's way to find it."""

    def run(self, terms: list[Any], variables: Any = None, **kwargs: Any) -> list[str]:
        if Ed25519PrivateKey is None:
            raise AnsibleError("the controller's Python lacks the library cryptography: install it")
        self.set_options(var_options=variables, direct=kwargs)
        found = []
        for term in terms:
            path = Path(str(term)).expanduser()
            if not path.exists():
                make(path)
            found.append(address(path))
        return found
