# SPDX-License-Identifier: Apache-2.0
"""What commands print."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import click


def print_json(value: Mapping[str, Any]) -> None:
    click.echo(json.dumps(value, indent=2))


def table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Columns as wide as their widest cell; None is shown as "-"."""
    cells = [header, *([("-" if cell is None else str(cell)) for cell in row] for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    lines = ("  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) for row in cells)
    return "\n".join(line.rstrip() for line in lines)
