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
from sartm.objects.measurement import Measuring, Row, measure_objects
from sartm.objects.table import TableFiles, complete_rows, encode_lines, read_lines, table_files


def list_objects(
    sample: Sample, prediction: Prediction, how: Measuring, scale: Scale | None
) -> list[Row]:
    """A row per object, with degrees where there is a `scale` and thermal to read."""
    celsius = None
    if sample.thermal is not None and scale is not None:
        celsius = to_degrees(sample.thermal, scale, sample.black_hot)
    return measure_objects(
        prediction.labels, prediction.classes, prediction.confidence, celsius, sample.unseen, how
    )


def count_objects(rows: Iterable[Row]) -> dict[str, int]:
    """How many of each class."""
    return dict(Counter(row["class"] for row in rows))


class ObjectFolder:
    """The objects of the pairs of an output folder: objects/NAME.jsonl, and the tables of all."""

    def __init__(self, out: Path, how: Measuring | None, radiometric: bool) -> None:
        self.out, self.how = out, how
        self.made: dict[str, Any] | None = None if how is None else asdict(how)
        """What the record says of how rows were made; None: there are none."""
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

    def measure(self, pair: str, sample: Sample, prediction: Prediction) -> list[Row] | None:
        """The rows of a pair; None where nobody asked for them."""
        if self.how is None:
            return None
        return complete_rows(pair, list_objects(sample, prediction, self.how, self.scale))

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
