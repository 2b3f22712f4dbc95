"""Files that are whole or not there: temporary name, then rename; and texts read with a limit."""

import ctypes
import errno
import hashlib
import itertools
import json
import math
import os
import shutil
import stat
import tomllib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from sartm.errors import InputError, unreadable


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
    except OSError as error:  # the temporary name says nothing to anybody
        error.filename, error.filename2 = str(path), None
        raise
    finally:
        with suppress(OSError):  # the first error is the one to be told
            unfinished.unlink(missing_ok=True)


LARGEST_TEXT = 64 * 2**20
"""Bytes of a list, a dataset.toml or a configuration."""
_DEEPEST = 60
"""Tables and lists within each other; what goes deeper was made to do harm."""
_MARKS = (
    (b"\xef\xbb\xbf", "utf-8-sig"), (b"\xff\xfe\0\0", "utf-32"), (b"\0\0\xfe\xff", "utf-32"),
    (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"),
)  # fmt: skip
"""What a text begins with, as some editors and shells write it -> its encoding."""


def require_plain(path: Path) -> None:
    """Refuse what is read without end or waited for: a pipe, a socket or a device.

    Raises:
        InputError: it is one.
        OSError: nothing is there, or it may not be looked at.
    """
    mode = path.stat().st_mode
    kinds = {stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket", stat.S_IFCHR: "a device",
             stat.S_IFBLK: "a device"}  # fmt: skip
    if stat.S_IFMT(mode) in kinds:
        raise InputError(
            f"{path} is {kinds[stat.S_IFMT(mode)]}, not a file; save what it holds as a file first"
        )


def read_text(path: Path, largest: int = LARGEST_TEXT) -> str:
    """A text file in UTF-8, or in UTF-16 or UTF-32 with their byte order mark.

    Raises:
        InputError: it cannot be read, has more than `largest` bytes, or is no text.
    """
    try:
        require_plain(path)
        with path.open("rb") as file:
            data = file.read(largest + 1)
    except (OSError, ValueError) as error:
        raise unreadable(path, error) from None
    if len(data) > largest:
        raise InputError(f"{path} has more than {largest / 2**20:g} MiB, too much for its kind")
    encoding = next((name for mark, name in _MARKS if data.startswith(mark)), "utf-8")
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        raise InputError(f"{path} is not a text file in UTF-8; save it as one")
    return text


def read_json(path: Path, largest: int = LARGEST_TEXT) -> dict[str, Any]:
    """The object in a JSON file; InputError as `read_text`, or for any other content.

    NaN and infinite numbers, which Python writes and JSON does not know, are refused.
    """
    return _parse(path, "JSON", parse_json, largest)


def parse_json(text: str) -> Any:
    """What a text in JSON says; ValueError where it is none or holds a number that is not finite.

    Wherever such a number would go, comparisons with it are false and nothing is noticed.
    """

    def finite(number: str) -> float:
        value = float(number)
        if not math.isfinite(value):
            raise ValueError(f"{number[:20]} is not finite")
        return value

    return json.loads(text, parse_float=finite, parse_constant=finite)


def read_toml(path: Path, largest: int = LARGEST_TEXT) -> dict[str, Any]:
    """The table in a TOML file; InputError as `read_text`, or for any other content."""
    return _parse(path, "TOML", tomllib.loads, largest)


def _parse(path: Path, kind: str, parse: Callable[[str], Any], largest: int) -> dict[str, Any]:
    text = read_text(path, largest)
    try:
        content = parse(text)
        deep = nests_too_deeply(content)
    except RecursionError:
        deep = True
    except ValueError as error:
        raise InputError(f"{path} is not valid {kind}: {str(error)[:200]}; correct it") from None
    if deep:
        raise InputError(
            f"{path} has more than {_DEEPEST} levels of tables and lists within each other; no "
            f"file of sartm's is so deep"
        )
    if not isinstance(content, dict):
        raise InputError(f"{path} holds a {type(content).__name__}, expected a {kind} object")
    return content


def nests_too_deeply(value: Any) -> bool:
    """Whether tables and lists lie deeper within each other than anything of ours."""
    level = [value]
    for _ in range(_DEEPEST):
        parts = (part.values() if isinstance(part, dict) else part for part in level
                 if isinstance(part, dict | list))  # fmt: skip
        level = [item for part in parts for item in part]
        if not level:
            return False
    return True


@contextmanager
def replacing_folder(target: Path) -> Iterator[Path]:
    """An empty folder to fill, which then takes the name of `target`; after an error it is gone."""
    target = _with_name(target)
    fixed = is_fixed(target)
    temporary = temporary_beside(target / target.name if fixed else target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        yield temporary
        (_pour if fixed else swap)(temporary, target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _with_name(target: Path) -> Path:
    """The same place under a name of its own, which `.` and `..` are not."""
    return target if target.name not in ("", "..") else target.resolve()


def is_fixed(folder: Path) -> bool:
    """Whether a folder must stay where it is: a mount, as containers have, or the current one."""
    return folder.is_dir() and (folder.is_mount() or folder.samefile(Path.cwd()))


def _pour(new: Path, target: Path) -> None:
    """Move all of `new`, a folder in `target`, there, in place of what is there.

    From when it is called whole it holds, and `recover_folder` goes on after a kill.
    """
    _sync_all(new)
    temporary_beside(target / target.name).with_suffix(_OLD).mkdir()
    whole = new.with_suffix(_WHOLE)
    new.rename(whole)
    _finish_pouring(whole)


def _finish_pouring(whole: Path) -> None:
    folder = whole.parent
    for old in folder.glob(f"{temporary_prefix(folder)}*{_OLD}"):  # what lies there is old still
        for path in contents(folder):
            path.rename(old / path.name)
        old.rename(old.with_suffix(".tmp"))
    for path in list(whole.iterdir()):
        path.rename(folder / path.name)
    whole.rmdir()
    _sync(folder)
    remove_leftovers_of(folder / folder.name)


def contents(folder: Path) -> list[Path]:
    """What lies in a folder, but for locks and files under temporary names."""
    return sorted(path for path in folder.iterdir() if not path.name.startswith(HIDDEN))


def swap(new: Path, target: Path) -> None:
    """Give `new` the name of `target` once it is on disk; at any moment one of both is whole.

    A kill leaves `target` there, old or new. Where the system cannot let two names change places it
    may leave the old one hidden: `recover_folder` brings it back.
    """
    _sync_all(new)
    if not target.exists():
        new.rename(target)
        _sync(target.parent)
    elif exchange(new, target):
        _sync(target.parent)
        shutil.rmtree(new, ignore_errors=True)
    else:
        _replace(new, target)


def _replace(new: Path, target: Path) -> None:
    old = temporary_beside(target).with_suffix(_OLD)
    target.rename(old)
    try:
        new.rename(target)
    except BaseException:  # an interrupt too
        old.rename(target)
        raise
    _sync(target.parent)
    shutil.rmtree(old, ignore_errors=True)


def recover_folder(target: Path) -> None:
    """Finish or undo what a killed process was at when it replaced a folder; its leftovers go.

    Call it while holding the lock of `target`, or of the folder that it is in.
    """
    target = _with_name(target)
    if is_fixed(target):
        for whole in target.glob(f"{temporary_prefix(target)}*{_WHOLE}"):
            _finish_pouring(whole)
        for old in target.glob(f"{temporary_prefix(target)}*{_OLD}"):  # not begun
            old.rmdir()
        remove_leftovers_of(target / target.name)
    for old in sorted(target.parent.glob(f"{temporary_prefix(target)}*{_OLD}")):
        if target.exists():
            shutil.rmtree(old, ignore_errors=True)
        else:
            old.rename(target)
    remove_leftovers_of(target)


def _sync_all(folder: Path) -> None:
    """Have a folder on disk with all below it: several at a time, for disks are slow to answer."""
    below = [Path(place, name) for place, _, names in os.walk(folder) for name in names]
    folders = [Path(place) for place, _, _ in os.walk(folder)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(_sync, below + folders))


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


HIDDEN = ".sartm"
"""What the names of locks and of temporary files begin with."""
_TEMPORARY = f"{HIDDEN}-"
_OLD, _WHOLE = ".old", ".whole"
_NUMBERS = itertools.count()


def temporary_prefix(target: Path) -> str:
    """What the temporary names of `target` begin with."""
    digest = hashlib.blake2b(os.fsencode(target.name), digest_size=6).hexdigest()
    return f"{_TEMPORARY}{digest}-"


def hash_file(path: Path) -> str:
    """What a file holds, as 32 hex digits: equal for equal bytes, whatever it is called.

    Raises InputError or OSError as `require_plain`.
    """
    require_plain(path)
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
