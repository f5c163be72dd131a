# SPDX-License-Identifier: Apache-2.0
"""A node of a Byzantine-fault-tolerant consortium chain."""


def __getattr__(name: str) -> str:
    """Look up `__version__` when somebody asks: the look-up takes longer than most commands."""
    if name == "__version__":
        from importlib.metadata import version  # noqa: PLC0415  # see above

        return version("holdfast-node")
    raise AttributeError(name)
