"""Lists of names, one a line, in the forms in which data sets bring them."""

import re
from pathlib import Path, PurePosixPath

from sartm.errors import InputError
from sartm.files import read_text
from sartm.io.header import SUFFIXES


def read_list(path: Path, root: Path, above: str = "") -> list[str]:
    """Names of a list file, one a line; an image suffix is dropped, empty lines are skipped.

    `above`, the folder of the images, is dropped too: some lists repeat it.
    Of several columns the first counts, as in the lists of some benchmarks: RGB, thermal, label.
    """
    names = []
    for line in read_text(path).splitlines():
        name = _first_column(line)
        if not name:
            continue
        parts = PurePosixPath(name.replace("\\", "/"))
        drive = re.match(r"[A-Za-z]:", name)
        if parts.is_absolute() or ".." in parts.parts or drive or "\0" in name:
            raise InputError(f"{path}: the name {name!r} leads out of {root}; names stay below it")
        names.append(_plain_name(parts).removeprefix(f"{above}/"))
    return names


def is_listable(name: str) -> bool:
    """Whether `read_list` gives a name back that is a line of its own: it looks like no columns and
    has no ending of an image."""
    alone = name.splitlines() == [name] and _first_column(name) == name
    return alone and _plain_name(PurePosixPath(name)) == name


def _first_column(line: str) -> str:
    """The first of several files of one line, between tabs, commas or spaces; else all of it.

    Names may hold spaces and commas themselves: apart from tabs, columns are what all are images,
    or all the same name in several folders.
    """
    line = line.strip()
    for cut in ("\t", ",", None):
        columns = [column.strip() for column in line.split(cut)]
        if len(columns) < 2:
            continue
        images = all(PurePosixPath(column).suffix.lower() in SUFFIXES for column in columns)
        same = len({PurePosixPath(column).stem for column in columns}) == 1
        if cut == "\t" or images or same:
            return columns[0]
    return line


def _plain_name(path: PurePosixPath) -> str:
    plain = path.with_suffix("") if path.suffix.lower() in SUFFIXES else path
    return plain.as_posix()
