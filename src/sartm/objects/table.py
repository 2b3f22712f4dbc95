"""One table of objects as CSV, as lines of JSON and as GeoJSON, which agree."""

import csv
import io
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from sartm.errors import InputError
from sartm.files import temporary_beside
from sartm.objects.measurement import COLUMNS, DEGREES, Row

PLACED = ("latitude", "longitude", "located", "taken", "seconds")
"""WGS84 of an object, how well it is known, when the picture was taken, and its time in a film."""
HEAD = ("pair", *COLUMNS, *DEGREES, *PLACED)
"""Names of all columns. GEOMETRY comes besides where texts can hold it."""
GEOMETRY = "geometry"
SUFFIXES = (".csv", ".jsonl", ".geojson")


def complete_rows(pair: str, rows: Iterable[Row], seconds: float | None = None) -> list[Row]:
    """The rows of one pair or frame with every column, in order; None for what is not known."""
    given = {"pair": pair, "seconds": None if seconds is None else round(seconds, 4)}
    return [{name: given.get(name, row.get(name)) for name in HEAD}
            | ({GEOMETRY: row[GEOMETRY]} if row.get(GEOMETRY) else {})
            for row in rows]  # fmt: skip


def encode_lines(rows: Iterable[Row]) -> bytes:
    """A line of JSON per row."""
    return "".join(f"{json.dumps(row)}\n" for row in rows).encode()


def encode_csv(rows: Iterable[Row], head: Sequence[str] = HEAD, titles: bool = True) -> bytes:
    """Lines with commas, the titles first; what is not known is empty."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    if titles:
        writer.writerow(head)
    writer.writerows([row.get(name) for name in head] for row in rows)
    return text.getvalue().encode(errors="backslashreplace")


def _feature(row: Row) -> dict[str, Any]:
    properties = {name: value for name, value in row.items() if name != GEOMETRY}
    return {"type": "Feature", "geometry": row.get(GEOMETRY), "properties": properties}


class TableFiles:
    """The three files of `stem` being written under temporary names, row by row."""

    def __init__(self, stem: Path) -> None:
        self.targets = table_files(stem)
        self.count = 0
        self._unfinished = [temporary_beside(target) for target in self.targets]
        stem.parent.mkdir(parents=True, exist_ok=True)
        self._files = [path.open("wb") for path in self._unfinished]
        self._write(encode_csv([]), b"", b'{"type": "FeatureCollection", "features": [\n')

    def _write(self, *parts: bytes) -> None:
        for file, part in zip(self._files, parts, strict=True):
            file.write(part)

    def add(self, rows: Sequence[Row]) -> None:
        """Append rows with all columns of `HEAD`."""
        if not rows:
            return
        features = ",\n".join(json.dumps(_feature(row)) for row in rows)
        comma = ",\n" if self.count else ""
        self._write(
            encode_csv(rows, titles=False), encode_lines(rows), f"{comma}{features}".encode()
        )
        self.count += len(rows)

    def publish(self) -> None:
        """Give the files their names."""
        self._write(b"", b"", b"\n]}\n")
        for file, unfinished, target in zip(
            self._files, self._unfinished, self.targets, strict=True
        ):
            file.close()
            unfinished.replace(target)

    def discard(self) -> None:
        """Remove what was not published."""
        for file, unfinished in zip(self._files, self._unfinished, strict=True):
            file.close()
            unfinished.unlink(missing_ok=True)


def table_files(stem: Path) -> list[Path]:
    """Where the files of `stem` lie, whose name may hold points."""
    return [stem.with_name(stem.name + suffix) for suffix in SUFFIXES]


def read_lines(path: Path) -> list[Row]:
    """The rows of a file that `encode_lines` made; InputError where it is none any more."""
    try:
        rows = [json.loads(line) for line in path.read_bytes().splitlines()]
    except ValueError:
        rows = [None]
    if not all(isinstance(row, dict) and "class" in row for row in rows):
        raise InputError(f"{path} is no list of objects any more; remove it and predict again")
    return rows
