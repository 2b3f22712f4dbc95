"""A table of the files of pairs, for names that no pattern of dataset.toml can say."""

from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath

from sartm.errors import InputError
from sartm.files import read_text

COLUMNS = ("name", "rgb", "thermal", "label", "four_channel")


def read_table(path: Path) -> dict[str, dict[str, str]]:
    """The rows of a table by name: column -> path below its folder, "" where there is no file.

    Columns stand between tabs; the first line says which: name and any of rgb, thermal, label and
    four_channel.

    Raises:
        InputError: another first line, a row of other length, a name twice, a path that leads out.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file; files.table of dataset.toml names it")
    lines = [line.split("\t") for line in read_text(path).splitlines() if line.strip()]
    titles = lines[0] if lines else []
    if "name" not in titles or not set(titles) <= set(COLUMNS) or len(set(titles)) < len(titles):
        raise InputError(
            f"{path}: the first line names the columns, between tabs: {' '.join(COLUMNS)}; found "
            f"{' '.join(titles)[:200]!r}"
        )
    rows: dict[str, dict[str, str]] = {}
    for number, line in enumerate(lines[1:], 2):
        if len(line) != len(titles):
            raise InputError(f"{path}: row {number} has {len(line)} columns, not {len(titles)}")
        row = dict(zip(titles, line, strict=True))
        name = row.pop("name")
        if not name or name in rows:
            raise InputError(f"{path}: row {number} has {'no' if not name else 'a double'} name")
        for place in (name, *row.values()):
            parts = PurePosixPath(place.replace("\\", "/"))
            if parts.is_absolute() or ".." in parts.parts or "\0" in place or place[1:2] == ":":
                raise InputError(f"{path}: {place!r} leads out of {path.parent}; stay below it")
        rows[name] = row
    return rows


def format_table(rows: Iterable[tuple[str, Mapping[str, str]]], titles: Iterable[str]) -> str:
    """What `read_table` reads."""
    titles = tuple(titles)
    lines = [("name", *titles)]
    lines += [(name, *(row.get(title, "") for title in titles)) for name, row in rows]
    return "".join("\t".join(line) + "\n" for line in lines)
