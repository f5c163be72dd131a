# Copyright: (c) 2026, Holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the mtls_* modules have in common: requirements, and how they end."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Callable

from ansible.module_utils.basic import AnsibleModule, missing_required_lib
from ansible_collections.holdfast.chain.plugins.module_utils.files import locked
from ansible_collections.holdfast.chain.plugins.module_utils.transaction import TransactionError
from ansible_collections.holdfast.chain.plugins.module_utils.x509 import (
    CRYPTOGRAPHY_ERROR,
    RefusedError,
)

NAME_OPTIONS: dict[str, Any] = {
    "dns": {"type": "list", "elements": "str", "default": []},
    "ip": {"type": "list", "elements": "str", "default": []},
    "spiffe_id": {"type": "str"},
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
