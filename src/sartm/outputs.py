"""Where outputs go: one process at a time, never onto an input, never out of the folder named."""

import functools
import os
import shlex
import sys
import time
import unicodedata
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from sartm.errors import InputError
from sartm.files import temporary_prefix


@contextmanager
def lock_folder(folder: Path) -> Iterator[None]:
    """Keep a folder of outputs to this process; the system lets go of it when the process dies.

    The folder is made where it is missing, and goes again if nothing was written into it.

    Raises:
        InputError: another process holds it, which is named; or it cannot be written.
    """
    with _hold(folder / LOCK, folder):
        yield


@contextmanager
def lock_beside(target: Path) -> Iterator[None]:
    """As `lock_folder`, for a file or folder that is replaced as a whole: the lock lies beside."""
    with _hold(target.with_name(f"{temporary_prefix(target)[:-1]}.lock"), target):
        yield


LOCK = ".sartm.lock"
"""Hidden in a folder while a process writes there."""
_BEYOND = 2**30
"""Windows keeps others from reading the bytes that are locked: these are behind the text."""


@contextmanager
def _hold(lock: Path, what: Path) -> Iterator[None]:
    made = not lock.parent.exists()
    descriptor = _open_locked(lock, what)
    _HELD.add(descriptor)
    try:
        with suppress(OSError):  # a full disk: others are kept away all the same
            os.truncate(descriptor, 0)
            os.write(descriptor, f"{os.getpid()} {shlex.join(sys.argv)}".encode(errors="replace"))
        yield
    finally:
        _HELD.discard(descriptor)
        if sys.platform == "win32":  # where an open file cannot be removed
            os.close(descriptor)
            with suppress(OSError):
                lock.unlink()
        else:
            with suppress(OSError):
                lock.unlink()
            os.close(descriptor)
        if made:
            with suppress(OSError):  # not empty
                lock.parent.rmdir()


_HELD: set[int] = set()


def _let_go() -> None:
    """A lock is held until its last copy is closed: a forked worker must not outlive it."""
    for descriptor in _HELD:
        os.close(descriptor)
    _HELD.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go)


def _open_locked(lock: Path, what: Path) -> int:
    while True:
        try:
            lock.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o644)
        except OSError as error:
            raise InputError(
                f"cannot write to {what}: {error.strerror}; choose another --out"
            ) from None
        if not _try_lock(descriptor):
            holder = _read_holder(descriptor)
            os.close(descriptor)
            raise InputError(
                f"{what} is in use by {holder}; wait until it has ended, or choose another --out"
            )
        # Whoever held it may have removed the name between opening and locking.
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(descriptor), lock.stat()):
                return descriptor
        os.close(descriptor)


def _read_holder(descriptor: int) -> str:
    for _ in range(50):  # it writes its name right after it has the lock
        os.lseek(descriptor, 0, os.SEEK_SET)
        pid, _, command = os.read(descriptor, 2000).decode(errors="replace").partition(" ")
        if pid:
            return f"process {pid} ({command[:200]})"
        time.sleep(0.02)
    return "another process"


if sys.platform == "win32":
    import msvcrt

    def _try_lock(descriptor: int) -> bool:
        os.lseek(descriptor, _BEYOND, os.SEEK_SET)
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        finally:
            os.lseek(descriptor, 0, os.SEEK_SET)
        return True

else:
    import fcntl

    def _try_lock(descriptor: int) -> bool:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:  # a file system without locks: better without than not at all
            return True
        return True


def check_targets(
    folder: Path, targets: Iterable[Path], inputs: Iterable[str | Path | None]
) -> None:
    """Refuse targets that are inputs of the run or, by links or `..`, lie outside `folder`.

    Raises:
        InputError: naming the first of them.
    """
    root, real = os.path.realpath(folder), functools.cache(os.path.realpath)
    read = {_identify(path): path for path in inputs if path}
    read.pop(None, None)
    for target in targets:
        place = real(target.parent)
        if not Path(place).is_relative_to(root):
            raise InputError(f"{target} lies in {place}, outside {folder}; choose another --out")
        found = _identify(target)
        if found in read:
            raise InputError(
                f"{target} would be written over, but is an input of this run ({read[found]}); "
                f"choose another --out"
            )


def _identify(path: str | Path) -> tuple[int, int] | None:
    """Device and number of what lies there, links followed; None where nothing does."""
    try:
        found = Path(path).stat()
    except (OSError, ValueError):
        return None
    return found.st_dev, found.st_ino


def find_clash(names: Iterable[str]) -> tuple[str, str] | None:
    """Two names that are one on a file system which ignores case, as Windows' and macOS' do."""
    seen: dict[str, str] = {}
    for name in names:
        other = seen.setdefault(unicodedata.normalize("NFC", name).casefold(), name)
        if other != name:
            return other, name
    return None


def ignores_case(folder: Path) -> bool:
    """Whether the file system of a folder that this process has locked takes `a` and `A` as one."""
    return (folder / LOCK.upper()).exists()
