"""The objects of predictions, measured on what the cameras saw, and the files that list them."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sartm.data.pairs import Sample
from sartm.files import write_atomic
from sartm.inference.prediction import Prediction
from sartm.io.degrees import Scale, choose_scale, to_degrees
from sartm.io.places import Place
from sartm.objects.measurement import Measuring, Row, find_objects, measure_objects
from sartm.objects.parts import Parts
from sartm.objects.places import Located, place_rows
from sartm.objects.table import TableFiles, complete_rows, encode_lines, read_lines, table_files


def list_objects(
    sample: Sample,
    prediction: Prediction,
    how: Measuring,
    scale: Scale | None,
    place: Place = Place(),
    located: Located = Located(""),
) -> tuple[Parts, list[Row]]:
    """The objects and a row of each, with degrees where there is a `scale` and thermal to read.

    Args:
        sample: what the cameras saw.
        prediction: its label map.
        how: what counts as an object.
        scale: what makes degrees of raw thermal values.
        place: what the files say of where and when.
        located: what that means for its pixels.
    """
    celsius = None
    if sample.thermal is not None and scale is not None:
        celsius = to_degrees(sample.thermal, scale, sample.black_hot)
    parts = find_objects(prediction.labels, prediction.classes, how.min_area)
    rows = measure_objects(
        parts, prediction.classes, prediction.confidence, celsius, sample.unseen, how.accuracy,
        prediction.cell,
    )  # fmt: skip
    place_rows(rows, parts, located, place.taken)
    return parts, rows


def count_objects(rows: Iterable[Row]) -> dict[str, int]:
    """How many of each class."""
    return dict(Counter(row["class"] for row in rows))


def describe_place(place: Place, located: Located, odd: str) -> dict[str, Any]:
    """What a summary says of it; empty where nothing is known."""
    found = place.describe() | ({"located": located.how} if located.how else {})
    notes = [note for note in (located.note, odd) if note]
    return found | ({"note": "; ".join(notes)} if notes and found else {})


class ObjectFolder:
    """The objects of the pairs of an output folder: objects/NAME.jsonl, and the tables of all."""

    def __init__(self, out: Path, how: Measuring | None, radiometric: bool) -> None:
        self.out, self.how = out, how
        self.made: dict[str, Any] | None = None if how is None else asdict(how)
        """What the record says of how rows were made; None: there are none."""
        self.height = None if how is None else how.height
        self.scale = None if how is None else choose_scale(how.degrees, radiometric)
        self.tables = table_files(out / "objects")
        self.count = 0
        """Rows in the tables that were written."""

    def file(self, pair: str) -> Path:
        """Where the rows of a pair lie."""
        return self.out / "objects" / f"{pair}.jsonl"

    def targets(self, pairs: Iterable[str]) -> list[Path]:
        """What a run over these pairs writes."""
        return [] if self.how is None else [*map(self.file, pairs), *self.tables]

    def measure(
        self, pair: str, sample: Sample, prediction: Prediction, place: Place, located: Located
    ) -> list[Row] | None:
        """The rows of a pair; None where nobody asked for them."""
        if self.how is None:
            return None
        rows = list_objects(sample, prediction, self.how, self.scale, place, located)[1]
        return complete_rows(pair, rows)

    def write(self, pair: str, rows: list[Row] | None) -> None:
        """OSError where it cannot be written."""
        if rows is not None:
            write_atomic(self.file(pair), encode_lines(rows))

    def write_tables(self, pairs: Iterable[str]) -> None:
        """All rows of these pairs in one table, in place of what was there."""
        if self.how is None and not any(path.exists() for path in self.tables):
            return
        files = TableFiles(self.out / "objects")
        try:
            for pair in pairs:
                if self.file(pair).is_file():
                    files.add(read_lines(self.file(pair)))
            files.publish()
            self.count = files.count
        finally:
            files.discard()
