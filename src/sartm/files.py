"""Files that are whole or not there: temporary name, then rename."""

import ctypes
import errno
import hashlib
import itertools
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def write_atomic(path: Path, data: bytes, durable: bool = False) -> None:
    """Write `data` to a temporary name in the same folder, then rename; folders are made.

    `durable`: it is on disk before it gets its name, so that it is whole after a power cut too.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = temporary_beside(path)
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
    temporary = temporary_beside(target)
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
    old = temporary_beside(target)
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


def temporary_beside(target: Path) -> Path:
    """A hidden name in the folder of `target`, short however long that is; carries the process."""
    number = next(_NUMBERS)
    return target.with_name(f"{temporary_prefix(target)}{os.getpid()}-{number}.tmp")


def remove_leftovers(folder: Path, below: bool = False) -> None:
    """Remove what dead processes left under temporary names in `folder`, or also `below` it.

    Call it while holding the folder's lock: then nobody is at work on them.
    """
    _remove(folder.rglob(f"{_TEMPORARY}*.tmp") if below else folder.glob(f"{_TEMPORARY}*.tmp"))


def remove_leftovers_of(target: Path) -> None:
    """The same for one file or folder; what stands beside it may be somebody else's work."""
    _remove(target.parent.glob(f"{temporary_prefix(target)}*.tmp"))


def _remove(paths: Iterable[Path]) -> None:
    for path in list(paths):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


_TEMPORARY = ".sartm-"
_NUMBERS = itertools.count()


def temporary_prefix(target: Path) -> str:
    """What the temporary names of `target` begin with."""
    digest = hashlib.blake2b(os.fsencode(target.name), digest_size=6).hexdigest()
    return f"{_TEMPORARY}{digest}-"


def hash_file(path: Path) -> str:
    """What a file holds, as 32 hex digits: equal for equal bytes, whatever it is called."""
    return hash_bytes(path.read_bytes())


def hash_bytes(data: bytes) -> str:
    """As `hash_file`."""
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def exchange(first: Path, second: Path) -> bool:
    """Let two names change places in one moment; False where the system has no way to.

    Raises:
        OSError: one of them is missing, or may not be renamed.
    """
    library: Any = ctypes.CDLL(None, use_errno=True) if os.name == "posix" else None
    names = os.fsencode(first), os.fsencode(second)
    here, swap_names = -100, 2  # AT_FDCWD; RENAME_EXCHANGE, and RENAME_SWAP on macOS
    if hasattr(library, "renameat2"):
        failed = library.renameat2(here, names[0], here, names[1], swap_names)
    elif hasattr(library, "renamex_np"):
        failed = library.renamex_np(*names, swap_names)
    else:
        return False
    if not failed:
        return True
    number = ctypes.get_errno()
    if number in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP):
        return False
    raise OSError(number, os.strerror(number), str(first), None, str(second))
