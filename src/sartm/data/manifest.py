"""Manifests: a table of pairs, of any length, that is read row by row and never held.

Columns `name`, `rgb`, `thermal` and, where there are labels, `label`; others are passed over.
Either image may be missing. Files are paths, below the manifest's folder where they are not
absolute, or addresses that fsspec knows.
"""

import csv
import hashlib
import json
import re
import unicodedata
from array import array
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from io import BufferedReader, TextIOWrapper
from pathlib import Path
from typing import IO, Any, cast

import numpy as np

from sartm.classes import Classes
from sartm.data.names import is_plain_name, is_text
from sartm.data.sets import Layout, Pair
from sartm.errors import InputError, unreadable
from sartm.files import write_atomic
from sartm.io.remote import file_system, is_remote, local_path, patiently, read_bytes
from sartm.io.sources import File, Upload

COLUMNS = ("name", "rgb", "thermal", "label")
ENDINGS = (".parquet", ".csv", ".jsonl")
_LONGEST = 4096
"""Bytes of a name or a place; longer ones are no such."""
_BATCH = 4096
"""Rows of Parquet that are held at a time."""


@dataclass(frozen=True, slots=True)
class Row:
    """One pair of a manifest; "" for what there is not."""

    name: str
    """Names outputs: path below the output folder, without suffix."""
    rgb: str = ""
    thermal: str = ""
    label: str = ""


@dataclass(frozen=True)
class Shard:
    """Part `number` of `count` parts, from 1; consecutive rows, as equal as can be."""

    number: int = 1
    count: int = 1

    def rows(self, total: int) -> range:
        """Which rows of so many are its own."""
        first, last = (total * place // self.count for place in (self.number - 1, self.number))
        return range(first, last)

    def title(self) -> str:
        """`-0003-of-0010` in names of files; "" where there is one part only."""
        return f"-{self.number:04d}-of-{self.count:04d}" if self.count > 1 else ""


def read_shard(text: str) -> Shard:
    """`--shard I/N`; InputError for anything else."""
    parts = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", text)
    if parts is None or not 1 <= int(parts[1]) <= int(parts[2]):
        raise InputError(f"--shard {text!r} is not I/N with I from 1 to N, such as 3/10")
    return Shard(int(parts[1]), int(parts[2]))


class Manifest:
    """Rows in their order, as often as one asks; all of them checked by `survey` beforehand."""

    def __init__(self, place: str) -> None:
        self.place = place
        self.ending = next((ending for ending in ENDINGS if place.lower().endswith(ending)), "")
        if not self.ending:
            raise InputError(f"{place}: a manifest ends in {', '.join(ENDINGS)}")
        if is_remote(place):
            self.base = place.rpartition("/")[0]
        else:
            self.base = str(local_path(place).absolute().parent)

    def __iter__(self) -> Iterator[Row]:
        return self.rows(Shard())

    def rows(self, shard: Shard) -> Iterator[Row]:
        """The rows of one part; Parquet skips what lies before it, the others are read through."""
        chosen = None if shard.count == 1 else shard.rows(len(self))
        with self._opened() as file:
            if self.ending == ".parquet":
                records = _read_parquet(file, self.place, chosen)
            else:
                read = _read_csv if self.ending == ".csv" else _read_lines
                records = read(_as_text(file), self.place)
                if chosen is not None:
                    records = _between(records, chosen)
            for number, record in records:
                yield self._row(record, number)

    def __len__(self) -> int:
        """Rows in all; text is read through for it."""
        with self._opened() as file:
            if self.ending == ".parquet":
                return int(_open_parquet(file, self.place).metadata.num_rows)
            read = _read_csv if self.ending == ".csv" else _read_lines
            return sum(1 for _ in read(_as_text(file), self.place))

    @contextmanager
    def _opened(self) -> Iterator[IO[bytes]]:
        if is_remote(self.place):
            system, name = file_system(self.place)
            with patiently(self.place, lambda: system.open(name, "rb")) as file:
                yield file
            return
        path = local_path(self.place)
        try:
            if not path.is_file():
                raise InputError(f"{path}: no such file; check --manifest")
            file = path.open("rb")
        except OSError as error:
            raise unreadable(path, error) from None
        with file:
            yield file

    def _row(self, record: Mapping[str, Any], number: int) -> Row:
        where = f"{self.place}, row {number}"
        values = {}
        for column in COLUMNS:
            value = record.get(column)
            values[column] = "" if value is None else value
            if not is_text(values[column]) or len(values[column].encode()) > _LONGEST:
                raise InputError(f"{where}: {column} is no text of up to {_LONGEST} bytes")
        if not is_plain_name(values["name"]):
            raise InputError(
                f"{where}: {values['name']!r:.100} cannot name an output; use letters, digits and "
                f"/ for folders"
            )
        if not values["rgb"] and not values["thermal"]:
            raise InputError(f"{where}: neither rgb nor thermal; give at least one")
        places = {column: self._resolve(values[column]) for column in COLUMNS[1:]}
        return Row(values["name"], **places)

    def _resolve(self, place: str) -> str:
        """A place as such: what is relative lies below the manifest's folder."""
        if not place or is_remote(place) or place.lower().startswith("file://"):
            return place
        if Path(place).is_absolute():
            return place
        return f"{self.base}/{place}" if is_remote(self.base) else str(Path(self.base, place))


def _between(records: Iterable[tuple[int, Any]], chosen: range) -> Iterator[tuple[int, Any]]:
    for number, record in records:
        if number > chosen.stop:
            return
        if number > chosen.start:
            yield number, record


def _as_text(file: IO[bytes]) -> TextIOWrapper:
    return TextIOWrapper(cast("BufferedReader", file), encoding="utf-8-sig", newline="")


Records = Iterator[tuple[int, Mapping[str, Any]]]
"""Row number from 1, and its columns."""


def _read_csv(text: TextIOWrapper, place: str) -> Records:
    try:
        reader = csv.DictReader(text)
        _require_columns(reader.fieldnames or (), place)
        yield from enumerate(reader, 1)
    except (csv.Error, UnicodeDecodeError) as error:
        raise InputError(f"{place} is no CSV in UTF-8: {error}") from None


def _read_lines(text: TextIOWrapper, place: str) -> Records:
    try:
        lines = (line for line in text if line.strip())
        for number, line in enumerate(lines, 1):
            record = json.loads(line)
            if not isinstance(record, dict):
                raise InputError(f"{place}, row {number}: expected an object with a name")
            yield number, record
    except (ValueError, RecursionError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{place} is no JSON lines: {str(error)[:200]}") from None


def _open_parquet(file: IO[bytes], place: str) -> Any:
    try:
        from pyarrow import ArrowException, parquet
    except ImportError:
        raise InputError(
            f"{place}: Parquet needs pyarrow, which is not installed: pip install 'sartm[fleet]'; "
            f"or give the manifest as .csv or .jsonl"
        ) from None
    try:
        return parquet.ParquetFile(file)
    except (ArrowException, OSError) as error:
        raise InputError(f"{place} is no Parquet: {str(error)[:200]}") from None


def _read_parquet(file: IO[bytes], place: str, chosen: range | None) -> Records:
    table = _open_parquet(file, place)
    columns = [name for name in COLUMNS if name in table.schema_arrow.names]
    _require_columns(columns, place)
    chosen = range(table.metadata.num_rows) if chosen is None else chosen
    groups, begun, first = [], 0, None
    for group in range(table.metadata.num_row_groups):
        ended = begun + table.metadata.row_group(group).num_rows
        if begun < chosen.stop and ended > chosen.start:
            groups.append(group)
            first = begun if first is None else first
        begun = ended
    if not groups:
        return
    number = first or 0
    try:
        for batch in table.iter_batches(_BATCH, row_groups=groups, columns=columns):
            for record in batch.to_pylist():
                number += 1
                if chosen.start < number <= chosen.stop:
                    yield number, record
    except OSError as error:
        raise InputError(f"{place} cannot be read: {str(error)[:200]}") from None


def _require_columns(found: Iterable[str], place: str) -> None:
    if "name" not in found or not {"rgb", "thermal"} & set(found):
        raise InputError(
            f"{place}: columns {', '.join(found) or 'none'}; a manifest has name, rgb and thermal, "
            f"and label where there is one"
        )


def key_of(text: str) -> int:
    """64 bits that stand for a name: of a million names two are one in 1e-7 of cases."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def survey(manifest: Manifest, shard: Shard, folds_case: bool = False) -> int:
    """Read all rows once, so that what is wrong is found before any work; how many a part has.

    Raises:
        InputError: no rows, a row that is none, or a name that is there twice, be it in another
            part, whose outputs go to the same place, or in other letters where the outputs' file
            system takes those as the same (`folds_case`).
    """
    keys = array("Q")
    for row in manifest:
        keys.append(key_of(_fold(row.name) if folds_case else row.name))
    count = len(shard.rows(len(keys)))
    if not count:
        raise InputError(f"{manifest.place}: no rows{' in this part' * (shard.count > 1)}")
    ordered = np.frombuffer(keys, np.uint64)
    ordered.sort()  # in place: there may be 10^8
    double = ordered[1:][ordered[1:] == ordered[:-1]]
    if len(double):
        names = [
            row.name
            for row in manifest
            if key_of(_fold(row.name) if folds_case else row.name) == double[0]
        ]
        raise InputError(
            f"{manifest.place}: {names[0]!r} and {names[1]!r} would be one output, and so for "
            f"{len(double)} rows; give each its own name"
        )
    return count


def _fold(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def fetch(place: str) -> File:
    """A file to read: the path of one of this machine, the bytes of one that lies elsewhere.

    Raises InputError as `remote.read_bytes`.
    """
    return Upload(place, read_bytes(place)) if is_remote(place) else local_path(place)


def fetch_pair(row: Row, classes: Classes | None = None, layout: Layout | None = None) -> Pair:
    """The pair of a row, for every reader of pairs; what lies elsewhere is fetched.

    Its label is in ids, or in the colours of `classes` where these have some, or as `layout` has
    them: the data set that the rows are of.

    Raises InputError as `fetch`.
    """
    files = [fetch(place) if place else None for place in (row.rgb, row.thermal, row.label)]
    rgb, thermal, label = (cast("Path | None", file) for file in files)  # bytes are read as files
    if layout is not None:
        coloured = next(iter(layout.splits.values()))[0].coloured_label
    else:
        coloured = None if classes is not None and classes.palette else False
    return Pair(row.name, rgb, thermal, label, None, coloured)


def rows_of(pairs: Iterable[Pair], below: Path | None) -> Iterator[Row]:
    """Rows of pairs on disk; files below `below` are told relative to it."""

    def place(file: Path | None) -> str:
        if file is None:
            return ""
        if not isinstance(file, Path):
            raise InputError(
                f"{file}: a manifest names files, this is part of a tar shard; take the shards "
                f"apart first (sartm data convert), or train from them as they are"
            )
        full = file.absolute()
        inside = below is not None and full.is_relative_to(below)
        return full.relative_to(below).as_posix() if inside and below else str(full)

    for pair in pairs:
        rgb = place(pair.four_channel or pair.rgb)
        yield Row(pair.name, rgb, place(pair.thermal), place(pair.label))


def write_manifest(rows: Iterable[Row], target: Path) -> int:
    """Write a manifest, in the format that its ending says; the number of rows."""
    ending = target.suffix.lower()
    listed = list(rows)
    for row in listed:
        if not all(map(is_text, astuple(row))):
            raise InputError(f"{row.name!r:.100}: a manifest is UTF-8, this name is not; rename it")
    if ending == ".parquet":
        data = _as_parquet(listed, str(target))
    elif ending == ".jsonl":
        lines = (dict(zip(COLUMNS, astuple(row), strict=True)) for row in listed)
        data = "".join(f"{json.dumps(line)}\n" for line in lines).encode()
    elif ending == ".csv":
        from io import StringIO

        text = StringIO(newline="")
        writer = csv.writer(text)
        writer.writerows([COLUMNS, *(astuple(row) for row in listed)])
        data = text.getvalue().encode()
    else:
        raise InputError(f"{target}: a manifest ends in {', '.join(ENDINGS)}")
    try:
        write_atomic(target, data, durable=True)
    except OSError as error:
        raise InputError(f"cannot write {target}: {error.strerror}; choose another --out") from None
    return len(listed)


def _as_parquet(rows: list[Row], target: str) -> bytes:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise InputError(
            f"{target}: Parquet needs pyarrow, which is not installed: pip install 'sartm[fleet]'; "
            f"or end --out in .csv or .jsonl"
        ) from None
    columns = zip(*(astuple(row) for row in rows), strict=True) if rows else [()] * len(COLUMNS)
    table = pyarrow.table(
        {
            name: pyarrow.array(list(values), pyarrow.string())
            for name, values in zip(COLUMNS, columns, strict=True)
        }
    )
    sink = pyarrow.BufferOutputStream()
    parquet.write_table(table, sink, row_group_size=_BATCH)
    data: bytes = sink.getvalue().to_pybytes()
    return data
