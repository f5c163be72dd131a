# SPDX-License-Identifier: Apache-2.0
"""What several storage files need of the file system."""

import os
from pathlib import Path


def sync_directory(directory: Path) -> None:
    """Make names created or replaced in `directory` durable."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
