# Copyright: (c) 2026, Holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which label a path is to have, as libselinux itself finds it (selabel_lookup(3)).

Through ctypes, as Ansible does: the library is on every host that runs SELinux, its Python bindings
exist for the system's interpreter alone. A list of rules that is yet to be installed is looked at
from memory, so that a rehearsal writes nothing.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
from pathlib import Path
from typing import Any

LIBRARY = "libselinux.so.1"
ENFORCE = "/sys/fs/selinux/enforce"  # there where the kernel runs SELinux
LABEL = "security.selinux"
_FILES = 0  # SELABEL_CTX_FILE
_PATH = 3  # SELABEL_OPT_PATH


class _Option(ctypes.Structure):
    _fields_ = [("type", ctypes.c_int), ("value", ctypes.c_char_p)]


class LibraryError(OSError):
    """libselinux is missing, or refused the rules."""


def _library() -> Any:
    try:
        library = ctypes.CDLL(LIBRARY, use_errno=True)
    except OSError as error:
        raise LibraryError(f"{LIBRARY}: {error}; install libselinux") from None
    library.selabel_open.restype = ctypes.c_void_p
    library.selabel_open.argtypes = [ctypes.c_uint, ctypes.POINTER(_Option), ctypes.c_uint]
    library.selabel_lookup_raw.restype = ctypes.c_int
    library.selabel_lookup_raw.argtypes = [
        ctypes.c_void_p,
        ctypes.POINTER(ctypes.c_void_p),
        ctypes.c_char_p,
        ctypes.c_int,
    ]
    library.selabel_close.restype = None
    library.selabel_close.argtypes = [ctypes.c_void_p]
    library.freecon.restype = None
    library.freecon.argtypes = [ctypes.c_void_p]
    return library


def label_for_place(handle: int, path: Path) -> None:
    """Give a file that is open the type that the installed policy has for it at ``path``.

    The kernel gives a new file the type of its folder, whatever the rules say of the file. As with
    restorecon the type decides, user and range stay. Nothing is done without SELinux, where no rule
    gives a type, and on file systems without labels. Raises OSError where the kernel refuses it.
    """
    if not Path(ENFORCE).exists():
        return
    try:
        now = os.getxattr(handle, LABEL).rstrip(b"\0").decode("utf-8", "replace")
        place = path.parent.resolve() / path.name
        with Labels() as labels:
            wanted = labels.lookup(str(place), os.fstat(handle).st_mode)
    except OSError:
        return  # no labels here, or no rules to go by: the file keeps what it inherited
    has, wants = now.split(":", 3), (wanted or "").split(":", 3)
    if len(has) < 3 or len(wants) < 3 or has[2] == wants[2]:
        return
    label = ":".join([*has[:2], wants[2], *has[3:]])
    try:
        os.setxattr(handle, LABEL, label.encode() + b"\0")
    except OSError as error:
        raise OSError(error.errno, f"label {path} {label}: {error.strerror}") from error


class Labels(contextlib.AbstractContextManager):  # type: ignore[type-arg]  # Python 3.8
    """Labels by path; a context manager.

    file_contexts: the rules as text, or None for those that are installed. Of a text, substitutions
    are the caller's to make.
    """

    def __init__(self, file_contexts: str | None = None) -> None:
        self._library = _library()
        memory = -1
        try:
            if file_contexts is None:
                self._handle = self._library.selabel_open(_FILES, None, 0)
            else:
                memory = os.memfd_create("file_contexts", os.MFD_CLOEXEC)
                with os.fdopen(os.dup(memory), "wb") as stream:
                    stream.write(file_contexts.encode("utf-8", "surrogateescape"))
                name = f"/proc/self/fd/{memory}".encode()
                options = (_Option * 1)(_Option(_PATH, name))
                self._handle = self._library.selabel_open(_FILES, options, 1)
            if not self._handle:
                code = ctypes.get_errno()
                why = os.strerror(code)
                raise LibraryError(code, f"libselinux refused the file contexts: {why}")
        finally:
            if memory >= 0:
                os.close(memory)

    def __exit__(self, *_error: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the memory back."""
        if self._handle:
            self._library.selabel_close(self._handle)
            self._handle = None

    def lookup(self, path: str, mode: int) -> str | None:
        """The label of a file of that mode (stat(2)); None where no rule gives one."""
        context = ctypes.c_void_p()
        name = path.encode("utf-8", "surrogateescape")
        if self._library.selabel_lookup_raw(self._handle, ctypes.byref(context), name, mode) == 0:
            try:
                return (ctypes.string_at(context.value or 0) or b"").decode("utf-8", "replace")
            finally:
                self._library.freecon(context)
        code = ctypes.get_errno()
        if code == errno.ENOENT:
            return None
        raise LibraryError(code, f"{path}: libselinux finds no label: {os.strerror(code)}")
