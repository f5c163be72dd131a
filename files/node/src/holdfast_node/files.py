# SPDX-License-Identifier: Apache-2.0
"""Files that people name on the command line and in the configuration."""

import os
from pathlib import Path

from holdfast_node.errors import ConfigError


def read_file(path: Path, limit: int, what: str) -> bytes:
    """Read a file of at most `limit` bytes; `what` says what is expected of it.

    Raises `ConfigError`.
    """
    try:
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except OSError as error:
        raise ConfigError(
            [f"{path}: {error.strerror}: expected {what} that this user may read"]
        ) from error
    if len(data) > limit:
        raise ConfigError([f"{path}: more than {limit} bytes: expected {what}"])
    return data


def write_new(path: Path, data: bytes, mode: int) -> None:
    """Write a file that does not exist yet, durably; `mode` holds whatever the umask is.

    Raises `ConfigError`, above all where the file exists: nothing is ever overwritten.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        descriptor = os.open(path, flags, mode & 0o600)
    except FileExistsError as error:
        raise ConfigError(
            [f"{path}: exists, and is never overwritten; choose another path or move it away"]
        ) from error
    except OSError as error:
        raise ConfigError([f"{path}: {error.strerror}: expected a folder to write to"]) from error
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())
    except OSError as error:
        path.unlink(missing_ok=True)  # half a key would be in the way of the next try
        raise ConfigError([f"{path}: {error.strerror}: the file could not be written"]) from error
