"""A folder that nobody can read, not even an administrator: its path is too long."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def unreadable_folder(parent: Path) -> Iterator[None]:
    """In `parent`, while the context lasts; nothing else could remove it."""
    name = "d" * 250
    handle = os.open(parent, os.O_RDONLY)
    for _ in range(20):
        os.mkdir(name, dir_fd=handle)
        below = os.open(name, os.O_RDONLY, dir_fd=handle)
        os.close(handle)
        handle = below
    os.close(handle)
    try:
        yield
    finally:
        subprocess.run(["rm", "-r", name], cwd=parent, check=True)
