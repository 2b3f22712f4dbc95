"""Bytes wherever they lie: paths of this machine, and what fsspec reaches (s3://, gs://, http://).

What fails as networks fail is tried again; that something is not there is told at once.
"""

import logging
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

from sartm.errors import InputError

log = logging.getLogger("sartm")

Result = TypeVar("Result")

ATTEMPTS = 5
"""Before a file counts as unreachable; beside what the client of a bucket tries by itself."""
FIRST_PAUSE = 0.2
"""Seconds before the second attempt; twice as long before each further one."""
_REMOTE = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]+://")


def is_remote(place: str | Path) -> bool:
    """Whether a place is reached by fsspec; file:// and paths are not."""
    return bool(_REMOTE.match(str(place))) and not str(place).lower().startswith("file://")


def local_path(place: str) -> Path:
    """The path that a place of this machine names, as such or as file://."""
    if place.lower().startswith("file://"):
        parts = urlsplit(place)
        if parts.netloc not in ("", "localhost"):
            raise InputError(f"{place} is of another machine ({parts.netloc}); write file:///PATH")
        return Path(unquote(parts.path))
    return Path(place)


def file_system(place: str) -> tuple[Any, str]:
    """What reaches a remote place, and the place's name there.

    Raises:
        InputError: no such protocol, a chain of them, or its package is not installed.
    """
    if "::" in place.partition("://")[0]:
        raise InputError(f"{place} chains protocols; name one, such as s3://BUCKET/KEY")
    try:
        import fsspec

        found: tuple[Any, str] = fsspec.core.url_to_fs(place)
    except (ImportError, ValueError) as error:
        raise InputError(
            f"{place}: {error}; pip install 'sartm[fleet]' brings s3://, gs:// needs gcsfs"
        ) from None
    return found


def read_bytes(place: str, start: int | None = None, end: int | None = None) -> bytes:
    """What a remote place holds, all of it or from byte `start` to before `end`.

    Raises InputError where there is nothing, nobody may read it, or it cannot be reached.
    """
    system, name = file_system(place)
    data: bytes = patiently(place, lambda: system.cat_file(name, start=start, end=end))
    return data


def patiently(place: str, work: Callable[[], Result]) -> Result:
    """What `work` returns, which is called again where it fails as networks fail.

    Raises:
        InputError: there is nothing, nobody may read it, or the last attempt failed too.
    """
    pause = FIRST_PAUSE
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return work()
        except (FileNotFoundError, IsADirectoryError):
            raise InputError(f"{place}: nothing is there; check the manifest") from None
        except PermissionError as error:
            raise InputError(f"{place}: not permitted ({error}); check the credentials") from None
        except (InputError, MemoryError):
            raise
        except Exception as error:  # clients of buckets share no exception
            why = f"{type(error).__name__}: {str(error)[:200]}"
            if attempt == ATTEMPTS:
                raise InputError(
                    f"{place} cannot be reached: {why} ({ATTEMPTS} attempts); run again later"
                ) from None
            log.info("%s: %s; again in %.1f s", place, why, pause)
        time.sleep(pause)
        pause *= 2
    raise AssertionError
