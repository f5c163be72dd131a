# SPDX-License-Identifier: Apache-2.0
"""The database file: its tables, and what tells it from others."""

import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from holdfast_node.errors import StorageError
from holdfast_node.storage.store import StateEntry

APPLICATION_ID: Final = 0x48464C44  # "HFLD"
SCHEMA_VERSION: Final = 1

SCHEMA: Final = """
CREATE TABLE chain (genesis_hash BLOB NOT NULL, chain_id TEXT NOT NULL);
CREATE TABLE base (height INTEGER PRIMARY KEY, head BLOB NOT NULL);
CREATE TABLE blocks (
  height INTEGER PRIMARY KEY,
  hash BLOB NOT NULL UNIQUE,
  header BLOB NOT NULL,
  transactions INTEGER NOT NULL,
  receipts BLOB NOT NULL,
  checksum INTEGER NOT NULL,
  certified BLOB NOT NULL
);
CREATE TABLE transactions (
  id BLOB PRIMARY KEY, height INTEGER NOT NULL, position INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE state (
  bucket INTEGER NOT NULL, key BLOB NOT NULL, leaf BLOB NOT NULL, value BLOB NOT NULL,
  PRIMARY KEY (bucket, key)
) WITHOUT ROWID;
"""

# https://www.sqlite.org/fileformat2.html#the_database_header
_FILE_HEADER_BYTES: Final = 100

WAY_OUT: Final = "move it away and let the node fetch the chain from its peers"


def write_state(connection: sqlite3.Connection, state: Sequence[StateEntry]) -> None:
    connection.executemany(
        "INSERT INTO state (bucket, key, value, leaf) VALUES (?, ?, ?, ?) "
        "ON CONFLICT (bucket, key) DO UPDATE SET value = excluded.value, leaf = excluded.leaf",
        sorted(state),
    )


def check_file(path: Path) -> None:
    """Refuse a file that is not ours before SQLite touches it.

    SQLite would take an empty file for a new database, and change an alien one's journal mode.
    """
    if not path.is_file():
        raise StorageError(f"{path} is no regular file: choose another data folder")
    with path.open("rb") as file:
        header = file.read(_FILE_HEADER_BYTES)
    if len(header) < _FILE_HEADER_BYTES or not header.startswith(b"SQLite format 3\x00"):
        found = "another kind of file" if header.strip(b"\x00") else "empty or zeroed"
        raise StorageError(f"{path} is no database but {found}: {WAY_OUT}")
    version, application = (int.from_bytes(header[at : at + 4], "big") for at in (60, 68))
    if application != APPLICATION_ID:
        raise StorageError(
            f"{path} is a SQLite database of another application (application_id = "
            f"{application:#x}, expected {APPLICATION_ID:#x}): choose another data folder"
        )
    if version != SCHEMA_VERSION:
        raise StorageError(
            f"{path} has schema version {version}, this release knows {SCHEMA_VERSION}: run the "
            "release that wrote it, or a newer one"
        )
