"""What a folder holds: one walk for every command, through links, past hidden and written files."""

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from sartm.errors import InputError
from sartm.io.header import SUFFIXES

log = logging.getLogger("sartm")

RECORD, SUMMARY = "record.jsonl", "summary.json"
"""What `predict` writes beside label maps; they tell a folder of outputs from one of inputs."""
RECORD_START = b'{"sartm"'
WRITTEN = ("labels", "overlays", "objects", "geotiff")
"""Folders of an output folder."""
FILM_LABELS = "-labels"
"""What `video` adds to a film's name for the folder of its label maps."""

Identity = tuple[int, int]


@dataclass
class Listing:
    """The files below a folder, sorted, and what kept some of them from being found."""

    files: list[Path] = field(default_factory=list)
    unreadable: dict[str, str] = field(default_factory=dict)
    """Folder -> why it cannot be read."""


def list_files(
    top: Path, out: Path | None = None, enters: Callable[[Path], bool] | None = None
) -> Listing:
    """Every file below `top`, links to folders followed (but not round in circles).

    Hidden files and folders are left out, and folders that hold outputs of ours: `out`, where the
    caller is about to write, and what earlier runs wrote. Of `top` itself only the label maps and
    overlays are left out. `enters` says of a folder whether it is of interest. A link that leads
    nowhere counts as a file: reading it will say so.
    """
    found = Listing()
    target = None if out is None or not out.is_dir() else _identify(out)
    waiting: list[tuple[Path, tuple[Identity, ...]]] = [(top, ())]
    while waiting:
        folder, above = waiting.pop()
        try:
            here = _identify(folder)
            with os.scandir(folder) as scan:
                entries = [entry for entry in scan if not entry.name.startswith(".")]
        except OSError as error:
            found.unreadable[str(folder)] = f"cannot be read: {error.strerror}"
            continue
        if here in above:  # a link back to where the walk came from
            continue
        names = {entry.name for entry in entries}
        written = here == target or _holds_outputs(folder, names)
        if written and folder != top:
            if here != target:
                log.info("%s: left out, it holds outputs of sartm", folder)
            continue
        for entry in entries:
            path = folder / entry.name
            if not _is_folder(entry):
                if _is_file(entry):
                    found.files.append(path)
            elif not ((written and entry.name in WRITTEN) or _belongs_to_film(path, names)) and (
                enters is None or enters(path)
            ):
                waiting.append((path, (*above, here)))
    found.files.sort()
    return found


def _identify(folder: Path) -> Identity:
    status = folder.stat()
    return status.st_dev, status.st_ino


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except PermissionError:
        return True  # reading it will say so
    except OSError:
        return False


def _is_file(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file() or (entry.is_symlink() and not Path(entry).exists())
    except OSError:
        return entry.is_symlink()


def _holds_outputs(folder: Path, names: set[str]) -> bool:
    """Whether predict, video, evaluate or train has written into a folder."""
    if "dataset.toml" in names:
        return False
    if {"report.json", "report.html"} <= names or {"metrics.jsonl", "config.json"} <= names:
        return True
    return any(name in names and _begins(folder / name, start) for name, start in _STARTS)


def _belongs_to_film(folder: Path, beside: set[str]) -> bool:
    """Whether a folder holds the label maps that `video` wrote beside a film."""
    film = folder.name.removesuffix(FILM_LABELS)
    summary = f"{film}.json"
    return film != folder.name and summary in beside and _begins(folder.with_name(summary), _HEAD)


_HEAD = b'{"model"'  # a summary's
_STARTS = ((RECORD, RECORD_START), (SUMMARY, _HEAD))


def _begins(file: Path, start: bytes) -> bool:
    try:
        if not file.is_file():  # a pipe would be waited for
            return False
        with file.open("rb") as opened:
            return b"".join(opened.read(64).split()).startswith(start)
    except OSError:
        return False


def index_images(folder: Path) -> dict[str, Path]:
    """Path below the folder without suffix -> image file."""
    return {
        file.relative_to(folder).with_suffix("").as_posix(): file
        for file in files_below(folder)
        if file.suffix.lower() in SUFFIXES
    }


def files_below(folder: Path) -> list[Path]:
    """Every file, sorted, as `list_files` finds them; InputError where a folder cannot be read."""
    if not folder.is_dir():
        return []
    found = list_files(folder)
    for place, reason in found.unreadable.items():
        raise InputError(f"{place} {reason}; what it holds would be missing, put it right first")
    return found.files
