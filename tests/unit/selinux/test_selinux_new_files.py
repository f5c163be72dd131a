# Copyright: (c) 2026, Holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""New files have the label that the policy gives their place, before anything is in them."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible_collections.holdfast.chain.plugins.module_utils import selinux_library
from ansible_collections.holdfast.chain.plugins.module_utils.identity_install import (
    InstallPlan,
    apply_install,
)
from ansible_collections.holdfast.chain.plugins.module_utils.identity_plan import (
    Owner,
    RequestPlan,
    Wanted,
    apply_request,
)
from ansible_collections.holdfast.chain.plugins.module_utils.names import Names
from ansible_collections.holdfast.chain.plugins.module_utils.plan import Plan
from ansible_collections.holdfast.chain.plugins.module_utils.transaction import (
    Transaction,
    TransactionError,
)
from fake_selinux import FakeLabels

FOLDER = "unconfined_u:object_r:holdfast_conf_t:s0"
KEY = "unconfined_u:object_r:holdfast_key_t:s0"
NOBODY = Owner(None, None, (-1, -1))
# As role selinux declares them.
RULES = """\
{0}(/.*)? system_u:object_r:holdfast_conf_t:s0
{0}/pending/key\\.pem(/.*)? system_u:object_r:holdfast_key_t:s0
{0}/generations/[^/]+/key\\.pem(/.*)? system_u:object_r:holdfast_key_t:s0
{0}/generations/none <<none>>
"""


class Kernel:
    """Labels by inode. A new file inherits that of its folder; filled: labels given too late."""

    def __init__(self) -> None:
        self.given: dict[int, str] = {}
        self.filled: list[str] = []
        self.refuses = 0

    @staticmethod
    def inode(file: Any) -> int:
        return (os.fstat(file) if isinstance(file, int) else Path(file).lstat()).st_ino

    def get(self, file: Any, name: str, **_options: Any) -> bytes:
        assert name == "security.selinux"
        return self.given.get(self.inode(file), FOLDER).encode() + b"\0"

    def set(self, file: Any, name: str, value: bytes, *_flags: Any, **_options: Any) -> None:
        assert name == "security.selinux"
        if self.refuses:
            raise OSError(self.refuses, os.strerror(self.refuses))
        if os.fstat(file).st_size:
            self.filled.append(str(file))
        self.given[self.inode(file)] = value.rstrip(b"\0").decode()

    def of(self, path: Path) -> str:
        return self.get(str(path), "security.selinux").rstrip(b"\0").decode()


@pytest.fixture
def tls(tmp_path: Path) -> Path:
    """A folder of an identity; reached through a link, as it may be."""
    (tmp_path / "real" / "tls").mkdir(parents=True)
    (tmp_path / "linked").symlink_to("real")
    return tmp_path / "linked" / "tls"


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tls: Path) -> Kernel:
    """A kernel that runs SELinux, with the rules for that folder."""

    class Installed(FakeLabels):
        def __init__(self) -> None:
            super().__init__(RULES.format(os.path.realpath(tls)), {})

        def __enter__(self) -> Installed:
            return self

        def __exit__(self, *_error: object) -> None:
            self.close()

    enforce = tmp_path / "enforce"
    enforce.write_text("1", encoding="utf-8")
    kernel = Kernel()
    monkeypatch.setattr(selinux_library, "ENFORCE", str(enforce))
    monkeypatch.setattr(selinux_library, "Labels", Installed)
    monkeypatch.setattr(os, "getxattr", kernel.get)
    monkeypatch.setattr(os, "setxattr", kernel.set)
    return kernel


def request(directory: Path) -> None:
    wanted = Wanted(Names.wanted(["a.example"], [], None), "ed25519", None, 0.34)
    with Transaction() as transaction:
        apply_request(
            transaction,
            RequestPlan([], Plan(), True, [], None),
            directory,
            wanted,
            common_name="a",
            owner=NOBODY,
        )


def install(directory: Path) -> None:
    material: Any = SimpleNamespace(files={"cert.pem": b"cert"}, key_pem=b"key", digests={})
    generation = directory / "generations" / "1f"
    planned = InstallPlan(Plan(), generation, 1, True, True, [], [], None)
    with Transaction() as transaction:
        apply_install(transaction, planned, directory, material, NOBODY)


def test_a_renewed_key_is_not_readable_as_configuration(kernel: Kernel, tls: Path) -> None:
    request(tls)
    assert kernel.of(tls / "pending" / "key.pem") == KEY
    assert kernel.of(tls / "pending" / "request.pem") == FOLDER
    install(tls)
    assert kernel.of(tls / "generations" / "1f" / "key.pem") == KEY
    assert kernel.of(tls / "generations" / "1f" / "cert.pem") == FOLDER
    assert kernel.filled == [], "there was something to read before the label was right"


def write(path: Path) -> None:
    with Transaction() as transaction:
        transaction.write_file(path, b"x")


def test_a_file_that_is_replaced_keeps_its_label(kernel: Kernel, tls: Path) -> None:
    write(tls / "a")
    kernel.given[kernel.inode(str(tls / "a"))] = "system_u:object_r:by_hand_t:s0:c1"
    before = kernel.inode(str(tls / "a"))
    write(tls / "a")
    assert kernel.inode(str(tls / "a")) != before
    assert kernel.of(tls / "a") == "system_u:object_r:by_hand_t:s0:c1"


def test_a_key_whose_label_is_refused_is_not_written(kernel: Kernel, tls: Path) -> None:
    kernel.refuses = errno.EACCES
    with pytest.raises(TransactionError, match=r"key\.pem .*holdfast_key_t.*: Permission denied"):
        request(tls)
    assert list(tls.iterdir()) == []


def test_without_labels_or_rules_files_are_written_all_the_same(
    kernel: Kernel, tls: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tls / "generations").mkdir()
    write(tls / "generations" / "none")  # no rule gives it one

    def fails(*_args: Any, **_options: Any) -> bytes:
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    with monkeypatch.context() as patch:  # a file system without labels
        patch.setattr(os, "getxattr", fails)
        request(tls)
    with monkeypatch.context() as patch:  # no libselinux
        patch.setattr(selinux_library, "Labels", fails)
        write(tls / "generations" / "a")
    Path(selinux_library.ENFORCE).unlink()
    install(tls)  # no SELinux
    assert kernel.given == {}
