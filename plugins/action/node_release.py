# Copyright: (c) 2026, Holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs the module node_release, and brings the archive to the host only when it asks for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail, AnsibleError
from ansible.plugins.action import ActionBase
from ansible_collections.holdfast.chain.plugins.module_utils.bundle_seal import SUFFIX


class ActionModule(ActionBase):
    """The controller's half of the module."""

    # It rarely does, and being told so early would leave traces on the host even in check mode.
    TRANSFERS_FILES = False

    def run(
        self, tmp: str | None = None, task_vars: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        del tmp  # of an older interface
        result: dict[str, Any] = super().run(task_vars=task_vars)
        options = dict(self._task.args)
        source = options.pop("src", None)
        answer = self._execute_module(module_args=options, task_vars=task_vars)
        if source and answer.get("archive_needed"):
            answer = self._install(str(source), options, task_vars)
        result.update(answer)
        return result

    def _install(
        self, source: str, options: dict[str, Any], task_vars: dict[str, Any] | None
    ) -> dict[str, Any]:
        """Run the module again with a copy of the archive, which does not outlive the task."""
        shell = self._connection._shell
        try:
            found = self._find_needle("files", source)
        except AnsibleError as error:
            raise AnsibleActionFail(f"src = {source}: there is no such file") from error
        seal = found + SUFFIX
        if not Path(seal).is_file():
            raise AnsibleActionFail(
                f"src = {source}: its signature {seal} is not there; give both as node_bundle made "
                "them"
            )
        folder = self._make_tmp_path()
        try:
            archive = shell.join_path(folder, "bundle.tar")
            self._transfer_file(found, archive)
            self._transfer_file(seal, archive + SUFFIX)
            self._fixup_perms2((folder, archive, archive + SUFFIX))
            return self._execute_module(
                module_args=dict(options, archive=archive), task_vars=task_vars
            )
        finally:
            self._remove_tmp_path(folder)
