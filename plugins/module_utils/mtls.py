# Copyright: (c) 2026, Holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the mtls_* modules have in common: requirements, and how they end."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Callable, Sequence

from ansible.module_utils.basic import AnsibleModule, missing_required_lib
from ansible_collections.holdfast.chain.plugins.module_utils.files import locked
from ansible_collections.holdfast.chain.plugins.module_utils.transaction import TransactionError
from ansible_collections.holdfast.chain.plugins.module_utils.x509 import (
    CRYPTOGRAPHY_ERROR,
    RefusedError,
    check_fingerprint,
    fingerprint,
    load_certificate,
)

NAME_OPTIONS: dict[str, Any] = {
    "dns": {"type": "list", "elements": "str", "default": []},
    "ip": {"type": "list", "elements": "str", "default": []},
    "spiffe_id": {"type": "str"},
}
TRUSTED_ROOTS_OPTION: dict[str, Any] = {
    "type": "list",
    "elements": "dict",
    "options": {
        "certificate": {"type": "str", "required": True},
        "fingerprint": {"type": "str", "required": True},
        "not_after": {"type": "str"},  # mtls_ca returns it; its result can be given as it is
    },
}
OWNER_OPTIONS: dict[str, Any] = {"owner": {"type": "str"}, "group": {"type": "str"}}

_MIN_PASSPHRASE = 12


def check_passphrase(passphrase: str) -> None:
    """RefusedError for a passphrase that is shorter than a guess."""
    if len(passphrase) < _MIN_PASSPHRASE:
        raise RefusedError(
            [
                (
                    "weak_passphrase",
                    f"passphrase: {len(passphrase)} characters: expected at least "
                    f"{_MIN_PASSPHRASE}, better a generated one from Ansible Vault",
                )
            ]
        )


def load_trusted_roots(entries: Sequence[dict[str, Any]] | None) -> list[Any]:
    """The certificates of the option trusted_roots, each checked against its pin, each once."""
    roots: list[Any] = []
    problems = []
    for number, entry in enumerate(entries or (), 1):
        what = f"trusted_roots: {number}"
        root = load_certificate(entry["certificate"], what)
        pin = check_fingerprint(entry["fingerprint"], what)
        if fingerprint(root) != pin:
            text = f"{what}: fingerprint is {fingerprint(root)}, but {pin} is pinned"
            problems.append(("root_not_pinned", text))
        if root not in roots:
            roots.append(root)
    if problems:
        raise RefusedError(problems)
    return roots


def finish(module: AnsibleModule, directory: Path, work: Callable[[], dict[str, Any]]) -> None:
    """Run a module's work under the lock of its directory and end the module with its result.

    Without the library, check mode still answers for a directory that does not exist yet: on a new
    host a role installs the library in the same run.
    """
    if CRYPTOGRAPHY_ERROR and not (module.check_mode and not directory.exists()):
        module.fail_json(
            msg=missing_required_lib("cryptography >= 3.4"), exception=CRYPTOGRAPHY_ERROR
        )
    if not directory.is_absolute():
        module.fail_json(msg=f"directory: '{directory}': expected an absolute path")
    try:
        with locked(directory):
            result = work()
    except RefusedError as error:
        module.fail_json(**error.result())
    except (TransactionError, OSError, ValueError) as error:
        module.fail_json(msg=str(error))
    else:
        module.exit_json(**result)
