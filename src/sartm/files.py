"""Files that are whole or not there: temporary name, then rename."""

import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def write_atomic(path: Path, data: bytes, durable: bool = False) -> None:
    """Write `data` to a temporary name in the same folder, then rename; folders are made.

    `durable`: it is on disk before it gets its name, so that it is whole after a power cut too.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.tmp")
    try:
        with unfinished.open("wb") as file:
            file.write(data)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


@contextmanager
def replacing_folder(target: Path) -> Iterator[Path]:
    """An empty folder to fill, which then takes the name of `target`; after an error it is gone."""
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        yield temporary
        swap(temporary, target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def swap(new: Path, target: Path) -> None:
    """Give `new` the name of `target` once it is on disk; at any moment one of both is whole."""
    for path in (*new.iterdir(), new):
        _sync(path)
    old = target.with_name(f".{target.name}.{os.getpid()}.old")
    shutil.rmtree(old, ignore_errors=True)
    replaces = target.exists()
    if replaces:
        target.rename(old)
    try:
        new.rename(target)
    except BaseException:  # an interrupt too
        if replaces:
            old.rename(target)
        raise
    _sync(target.parent)
    shutil.rmtree(old, ignore_errors=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
