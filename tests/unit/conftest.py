# Copyright: (c) 2026, Holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Lets plain pytest import the collection by its name, and runs modules in this process."""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import os
import sys
from pathlib import Path
from typing import Any, Callable

import pytest

_REPOSITORY = Path(__file__).resolve().parents[2]
_NAMESPACE = ("ansible_collections", "holdfast", "chain")


def _collections_root() -> Path:
    """A directory that holds ansible_collections/holdfast/chain, linked where it is no such path.

    The packages on the way are real ones, since a regular ansible_collections package elsewhere on
    the path (the PyPI package ansible has one) would win over a namespace package.
    """
    if _REPOSITORY.parts[-3:] == _NAMESPACE:
        return _REPOSITORY.parents[2]
    root = _REPOSITORY / ".cache" / "collections"
    namespace = root / _NAMESPACE[0] / _NAMESPACE[1]
    namespace.mkdir(parents=True, exist_ok=True)
    for package in (namespace.parent, namespace):
        (package / "__init__.py").touch()
    with contextlib.suppress(FileExistsError):  # another test process was first
        (namespace / _NAMESPACE[2]).symlink_to(_REPOSITORY)
    return root


try:
    importlib.import_module(".".join(_NAMESPACE))
except ImportError:
    sys.path.insert(0, str(_collections_root()))
    for _name in [name for name in sys.modules if name.partition(".")[0] == _NAMESPACE[0]]:
        del sys.modules[_name]


class Outcome(dict):
    """What a module printed; text is the very output, to look for what must not be in it."""

    def __init__(self, text: str) -> None:
        super().__init__(json.loads(text))
        self.text = text

    @property
    def failed(self) -> bool:
        """Whether the module reported a failure."""
        return bool(self.get("failed"))


def _run_module(name: str, arguments: dict[str, Any], check: bool = False) -> Outcome:
    from ansible.module_utils import basic  # noqa: PLC0415 - after the path is set
    from ansible.module_utils.common import warnings  # noqa: PLC0415

    module = importlib.import_module(f"ansible_collections.holdfast.chain.plugins.modules.{name}")
    parameters = {
        **arguments,
        "_ansible_check_mode": check,
        "_ansible_diff": True,
        "_ansible_remote_tmp": "/tmp",  # noqa: S108 - nothing is written there
    }
    saved = basic._ANSIBLE_ARGS, getattr(basic, "_ANSIBLE_PROFILE", None)
    basic._ANSIBLE_ARGS = json.dumps({"ANSIBLE_MODULE_ARGS": parameters}).encode()
    basic._ANSIBLE_PROFILE = "legacy"  # ansible-core 2.19 wants to know how arguments are encoded
    warnings._global_warnings.clear()  # a module is alone in its process
    output = io.StringIO()
    try:
        with contextlib.redirect_stdout(output), pytest.raises(SystemExit):
            module.main()
    finally:
        basic._ANSIBLE_ARGS, basic._ANSIBLE_PROFILE = saved
    return Outcome(output.getvalue().strip().splitlines()[-1])


@pytest.fixture
def run_module() -> Callable[..., Outcome]:
    """Run a module: run_module(name, arguments, check=False) gives its Outcome."""
    return _run_module


def _snapshot(directory: Path) -> dict[str, Any]:
    found = {}
    for path in [directory, *sorted(directory.rglob("*"))]:
        status = path.lstat()
        content: Any = None
        if path.is_symlink():
            content = os.readlink(str(path))
        elif path.is_file():
            content = path.read_bytes()
        found[str(path)] = (
            status.st_mode,
            status.st_uid,
            status.st_gid,
            status.st_mtime_ns,
            status.st_ino,
            content,
        )
    return found


@pytest.fixture
def snapshot() -> Callable[[Path], dict[str, Any]]:
    """All there is below a directory: contents, modes, owners, times, inodes."""
    return _snapshot
