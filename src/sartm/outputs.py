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
from sartm.files import (
    HIDDEN,
    contents,
    is_fixed,
    recover_folder,
    remove_leftovers,
    replacing_folder,
    temporary_prefix,
)


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


@contextmanager
def lock_target(target: Path) -> Iterator[None]:
    """`lock_beside` for a folder that is replaced; what killed processes left of it is cleared up.

    The lock lies inside where the folder must stay as it is, as in a container.
    """
    with lock_folder(target) if is_fixed(target) else lock_beside(target):
        recover_folder(target)
        yield


@contextmanager
def shared_folder(out: Path) -> Iterator[None]:
    """`lock_folder` for a folder that may hold more than ours; leftovers of killed runs go."""
    with lock_folder(out):
        remove_leftovers(out)
        yield


@contextmanager
def finished_folder(out: Path) -> Iterator[Path]:
    """A folder to fill that takes the name `out` at the end, or vanishes.

    Raises:
        InputError: `out` holds something, another process is at it, or it cannot be written.
    """
    out = out.resolve()
    try:
        with lock_target(out):
            if out.exists() and (not out.is_dir() or contents(out)):
                raise InputError(f"{out} exists and is not an empty folder; name a new one")
            with replacing_folder(out) as new:
                yield new
    except OSError as error:
        raise InputError(f"cannot write {out}: {error.strerror or error}") from None


LOCK = f"{HIDDEN}.lock"
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
                f"cannot write to {what}: {error.strerror}; choose another place"
            ) from None
        if not _try_lock(descriptor):
            holder = _read_holder(descriptor)
            os.close(descriptor)
            raise InputError(
                f"{what} is in use by {holder}; wait until it has ended, or choose another place"
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


def check_json(
    target: str, inputs: Iterable[str | Path | None] = (), out: Path | None = None
) -> None:
    """Refuse, before anything is done, a file of --json that holds or will hold something else.

    Args:
        target: the file; empty or `-` names none.
        inputs: files and folders of the run.
        out: what the run writes, which has names of its own for its files.

    Raises:
        InputError: it is an input or lies among them, is a file of another kind, or one of `out`.
    """
    file = Path(target)
    if target in ("", "-") or (file.exists() and not (file.is_file() or file.is_dir())):
        return  # such as /dev/null
    why = ""
    real = Path(os.path.realpath(file))
    if file.is_dir():
        why = "is a folder"
    elif file.exists() and any(_holds(source, real) for source in inputs if source):
        why = "is an input of this run"
    elif file.exists() and not _is_json(file):
        why = "is there and is no JSON file"
    elif out is not None and _is_of_output(real, Path(os.path.realpath(out))):
        why = f"is a file of the run's own, into {out}"
    if why:
        raise InputError(f"--json {target} {why}; choose another file for it")


def _holds(source: str | Path, real: Path) -> bool:
    """Whether an input is a file, or a folder with it as one that we read there."""
    top = os.path.realpath(source)
    return real == Path(top) or (real.stem in _JSON_FILES and real.is_relative_to(top))


def _is_json(file: Path) -> bool:
    with file.open("rb") as opened:
        return opened.read(64).lstrip()[:1] in (b"", b"{", b"[")


_JSON_FILES = ("summary", "report", "config", "alignment", "calibration", "state")
"""What commands call those that they write themselves, and read."""


def _is_of_output(file: Path, out: Path) -> bool:
    if out.suffix and file == out.with_suffix(".json"):  # of a film
        return True
    inside = file.parent == out and file.suffix == ".json" and file.stem not in _JSON_FILES
    return file.is_relative_to(out) and not inside


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


def require_distinct(folder: Path, names: Iterable[str]) -> None:
    """Refuse names that would be one file in a new folder, whose own name is `finished_folder`'s.

    Raises InputError, which names two of them.
    """
    clash = find_clash(names)
    if clash and folder.with_name(folder.name.upper()).exists():
        raise InputError(
            f"{clash[0]!r} and {clash[1]!r} would be one file in {folder.parent}, which takes "
            f"small and capital letters as the same; rename one of them"
        )
