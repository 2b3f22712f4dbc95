"""What an evaluation found: counts per pair become a Report.

Everything in it that comes from outside (names of classes, pairs, models, the command) is text
wherever it is shown: escaped, never markup.
"""

import dataclasses
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import Any

import numpy as np

from sartm.classes import Classes
from sartm.errors import InputError
from sartm.evaluation.metrics import ConfusionMatrix, Counts, bootstrap, means, percent
from sartm.evaluation.modalities import Comparison

Cell = str | float | int | None

Means = dict[str, dict[str, float | int | None]]


@dataclass(frozen=True)
class ClassScore:
    """One class of the table: percent, None where undefined; `pixels` of ground truth."""

    id: int
    name: str
    iou: float | None
    acc: float | None
    f1: float | None
    pixels: int


@dataclass(frozen=True)
class SubsetScores:
    """The scores of a named part of the split, such as the night pairs."""

    pairs: int
    means: Means
    pixel_accuracy: float | None
    classes: tuple[ClassScore, ...]


@dataclass(frozen=True)
class Report:
    """What report.json holds; scores in percent, None where undefined."""

    split: str
    pairs: int
    modality: str
    label_size: str
    """Height x width the labels were scored at, as in 480x640; all sizes if they differ."""
    means: Means
    """Per protocol `miou`, `macc` and `counted`; the first is the headline."""
    pixel_accuracy: float | None
    classes: tuple[ClassScore, ...]
    subsets: dict[str, SubsetScores]
    confusion: tuple[tuple[int, ...], ...]
    """Pixels; rows are the ground truth, columns the prediction."""
    contaminated: tuple[str, ...]
    """Scored pairs whose images the model was trained on."""
    selected_on: str | None
    """Split the checkpoint was chosen on; None where that is not recorded."""
    model: str
    data: str
    command: str
    versions: dict[str, str]
    intervals: dict[str, tuple[float, float]] = dataclasses.field(default_factory=dict)
    """95 % bootstrap interval of each mean IoU over the pairs; absent for fewer than 2 pairs."""
    views: dict[str, Any] = dataclasses.field(default_factory=dict)
    """How a model saw each pair: `scales`, `flip`, `window` and `stride` in pixels, None for the
    whole image. Empty for label maps that were made elsewhere."""
    robustness: tuple[dict[str, Cell], ...] = ()
    """Rows of `condition`, `severity`, `miou` and whatever else was measured."""
    modalities: Comparison | None = None
    """The same pairs with either camera alone; None where only one was asked for, or given."""
    reliability: dict[str, Any] = dataclasses.field(default_factory=dict)
    """How far the confidence came true, for `all` pixels and those of `objects`; see
    `evaluation.reliability`. Empty for label maps, and where several views were averaged."""


def build_report(
    counts: Counts,
    classes: Classes,
    *,
    split: str,
    modality: str,
    label_sizes: Iterable[tuple[int, int]],
    model: str,
    data: str,
    command: str,
    which: str | None = None,
    subsets: Mapping[str, Sequence[int]] | None = None,
    contaminated: Sequence[str] = (),
    selected_on: str | None = None,
    views: Mapping[str, Any] | None = None,
    robustness: Sequence[Mapping[str, Cell]] = (),
    reliability: Mapping[str, Any] | None = None,
    samples: int = 1000,
) -> Report:
    """Score per-pair counts.

    Args:
        counts: (N, K, K), a confusion matrix per pair; the split's is their sum.
        label_sizes: (height, width) of the labels, one or more.
        which: protocol or benchmark as in `metrics.choose_protocols`; None: the table's default.
        subsets: name -> positions in `counts`.
        views: what `Report.views` holds.
        samples: draws of the bootstrap; 0 leaves the intervals out.

    Raises InputError where there is no pair or the protocol does not fit the classes.
    """
    if not len(counts):
        raise InputError(
            f"split {split!r} of {data} has no labelled pair to score; choose another with --split"
        )
    total = _scores(counts, classes, which)
    intervals = {}
    if samples and len(counts) > 1:
        for name in total.means:
            low, high = bootstrap(counts, name, samples)
            if np.isfinite(low):
                intervals[name] = (round(low, 4), round(high, 4))
    return Report(
        split=split,
        pairs=len(counts),
        modality=modality,
        label_size=_describe_sizes(label_sizes),
        means=total.means,
        pixel_accuracy=total.pixel_accuracy,
        classes=total.classes,
        subsets={
            name: _scores(counts[np.asarray(positions, np.intp)], classes, which)
            for name, positions in (subsets or {}).items()
        },
        confusion=tuple(tuple(map(int, row)) for row in counts.sum(axis=0)),
        contaminated=tuple(contaminated),
        selected_on=selected_on,
        model=model,
        data=data,
        command=command,
        versions=versions(),
        intervals=intervals,
        views=dict(views or {}),
        robustness=tuple({key: _plain(row[key]) for key in row} for row in robustness),
        reliability=dict(reliability or {}),
    )


def versions() -> dict[str, str]:
    """Versions of what the numbers depend on; asks the installation, imports nothing."""
    found = {"python": platform.python_version()}
    for package in ("sartm", "torch", "numpy", "opencv-python-headless", "pillow"):
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def _scores(counts: Counts, classes: Classes, which: str | None) -> SubsetScores:
    matrix = ConfusionMatrix(len(classes), counts.sum(axis=0))
    columns: Any = zip(
        classes.names, matrix.iou(), matrix.accuracy(), matrix.f1(), matrix.pixels(), strict=True
    )
    return SubsetScores(
        pairs=len(counts),
        means=means(matrix, classes, which),
        pixel_accuracy=percent(matrix.pixel_accuracy()),
        classes=tuple(
            ClassScore(i, name, percent(iou), percent(acc), percent(f1), int(pixels))
            for i, (name, iou, acc, f1, pixels) in enumerate(columns)
        ),
    )


def _describe_sizes(sizes: Iterable[tuple[int, int]]) -> str:
    distinct = sorted(set(sizes))
    words = [f"{height}x{width}" for height, width in distinct]
    if len(words) > 3:
        return f"{len(words)} sizes, {words[0]} to {words[-1]}"
    return ", ".join(words)


def _plain(value: Any) -> Cell:
    """A table cell that JSON can hold: no numpy type, None for what is not finite."""
    value = value.item() if isinstance(value, np.generic) else value
    if isinstance(value, float):
        return round(value, 4) if np.isfinite(value) else None
    return value if value is None or isinstance(value, int) else str(value)
