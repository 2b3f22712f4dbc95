"""Other systems' published figures, and which of them a report may stand beside."""

import json
from dataclasses import dataclass
from importlib import resources
from typing import Literal

from sartm.config import from_dict
from sartm.evaluation.report.scores import Report


@dataclass(frozen=True)
class Published:
    """A figure of another system as its source prints it; not measured by us."""

    system: str
    year: int | None
    backbone: str | None
    data: str
    modality: str
    protocol: str | None
    """The mean of ours it can stand beside; None where the averaging is unknown."""
    miou: float
    source: str
    status: Literal["R", "T", "R/T"]
    """R: the system's own repository or abstract. T: another author's table."""
    selected_on: str | None = None
    note: str | None = None
    classes: dict[str, float] | None = None


@dataclass(frozen=True)
class TestSet:
    """The split that a benchmark's published figures are about."""

    name: str
    split: str
    pairs: int


@dataclass(frozen=True)
class Literature:
    """assets/published.json."""

    about: tuple[str, ...]
    sets: dict[str, TestSet]
    rows: tuple[Published, ...]


@dataclass(frozen=True)
class Comparison:
    """The published figures that a report may stand beside, and what to know before comparing."""

    rows: dict[str, tuple[Published, ...]]
    """Per protocol of the report, the best first."""
    same_images: bool
    """Whether the report is for the split, whole, that the figures are about."""
    left_out: int
    """Figures of the same data set under another or an unknown mean."""
    cautions: tuple[str, ...]


def load_published() -> Literature:
    """The peers' figures that ship with the package, each with its source and protocol."""
    text = resources.files("sartm").joinpath("assets/published.json").read_text("utf-8")
    return from_dict(Literature, json.loads(text), "published.json")


def compare(report: Report, published: Literature) -> Comparison:
    """Published figures under the protocols of `report`; the rest is counted, never shown."""
    rows = {}
    for protocol in report.means:
        same = [row for row in published.rows if row.protocol == protocol]
        if same:
            rows[protocol] = tuple(sorted(same, key=lambda row: -row.miou))
    shown = [row for same in rows.values() for row in same]
    data = {row.data for row in shown}
    total = sum(row.data in data for row in published.rows)
    cautions = [
        f"The published figures are for the {test.pairs} pairs of the {test.name} {test.split} "
        f"split, this report is for {report.pairs} pairs of split {report.split}: other images, "
        f"so not comparable."
        for test in (published.sets[name] for name in sorted(data))
        if (report.split, report.pairs) != (test.split, test.pairs)
    ]
    same_images = not cautions
    if shown:
        chosen = sum(row.selected_on == "test" for row in shown)
        cautions.append(
            f"{chosen} of the {len(shown)} published figures are known to come from a checkpoint "
            f"chosen on the test split; for the others it is not known how it was chosen."
        )
    return Comparison(rows, same_images, total - len(shown), tuple(cautions))
