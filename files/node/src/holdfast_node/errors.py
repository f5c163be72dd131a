# SPDX-License-Identifier: Apache-2.0
"""Every error that crosses a boundary inside the node.

Two families: `RefusedError` says that *they* sent something that is not acceptable, and carries the
code that an API client sees; the others say that *we*, or this host, are at fault.
"""


class HoldfastError(Exception):
    """Base of all errors raised on purpose."""


class RefusedError(HoldfastError):
    """Input from outside is refused.

    `code` is stable and machine readable ("bad_signature"), the message is for people.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class ConfigError(HoldfastError):
    """The configuration, a key file or the genesis cannot be used; one fault per entry."""

    def __init__(self, faults: list[str]) -> None:
        super().__init__("\n".join(faults))
        self.faults = faults


class StorageError(HoldfastError):
    """The data folder is missing something, damaged, or belongs to another chain."""


class ProtocolError(HoldfastError):
    """A peer broke the wire protocol; its connection is closed."""
