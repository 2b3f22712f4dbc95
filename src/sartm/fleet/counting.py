"""Scores over manifests: what is counted of each chunk of pairs is summed, wherever it was counted.

Loads no torch, so that scoring label maps starts at once.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from sartm.classes import Classes
from sartm.data.manifest import Manifest, Row, Shard, fetch, fetch_pair, survey
from sartm.data.pairs import read_label_of
from sartm.data.sets import Layout, outline
from sartm.errors import InputError
from sartm.evaluation.metrics import count_pixels
from sartm.evaluation.protocols import choose_protocols
from sartm.evaluation.reliability import Reliability
from sartm.evaluation.report.scores import Report, build_report
from sartm.evaluation.scoring import LARGEST_COUNTS
from sartm.fleet.ray_engine import CHUNK, Cluster, map_chunks
from sartm.inference.ahead import read_ahead, split_chunks
from sartm.io.labels import read_label
from sartm.progress import Meter

Numbered = tuple[int, Row]
"""Position in the manifest, and the row."""


@dataclass
class Counted:
    """What was counted of some pairs."""

    pairs: list[tuple[int, npt.NDArray[Any]]] = field(default_factory=list)
    """Position and (K, K) counts, rows the truth."""
    sizes: set[tuple[int, int]] = field(default_factory=set)
    contaminated: list[str] = field(default_factory=list)
    reliability: Reliability | None = None
    failures: dict[str, str] = field(default_factory=dict)


Count = Callable[[list[Numbered]], Counted]


@dataclass(frozen=True)
class About:
    """What a report says beside scores."""

    modality: str
    model: str
    command: str
    protocol: str | None = None
    selected_on: str | None = None
    views: dict[str, Any] | None = None


def sum_counts(
    count: Count, manifest: Manifest, classes: Classes, cluster: Cluster | None, about: About
) -> tuple[Report, dict[str, str]]:
    """Count every pair of a manifest; the report on their sum, and why pairs are not in it.

    Intervals are drawn over pairs where there is room for a matrix of each.

    Raises:
        InputError: a wrong manifest, or no pair that can be counted.
    """
    choose_protocols(classes, about.protocol)  # a wrong name is found before the work
    total, size = survey(manifest, Shard()), len(classes)
    each = max(total, 1000) * size**2 * 4 <= LARGEST_COUNTS
    counts = np.zeros((total if each else 1, size, size), np.uint32 if each else np.int64)
    known = np.zeros(total, np.bool_)
    whole = Counted()
    with Meter("evaluate" if about.views else "score", total) as meter:
        for found in _count_all(count, enumerate(manifest), cluster):
            for place, matrix in found.pairs:
                counts[place if each else 0] += matrix.astype(counts.dtype)
                known[place] = True
            whole.sizes |= found.sizes
            whole.contaminated += found.contaminated
            whole.failures |= found.failures
            if found.reliability is not None:
                whole.reliability = whole.reliability or Reliability()
                whole.reliability.merge(found.reliability)
            meter.advance(len(found.pairs) + len(found.failures))
    if not known.any():
        name, why = next(iter(whole.failures.items()))
        raise InputError(f"{manifest.place}: no pair can be scored; {name}: {why}")
    report = build_report(
        counts[known] if each else counts,
        classes,
        split="manifest",
        modality=about.modality,
        label_sizes=sorted(whole.sizes),
        model=about.model,
        data=manifest.place,
        command=about.command,
        which=about.protocol,
        contaminated=whole.contaminated,
        selected_on=about.selected_on,
        views=about.views,
        reliability=None if whole.reliability is None else whole.reliability.describe(),
        samples=1000 if each else 0,
    )
    return replace(report, pairs=int(known.sum())), whole.failures


def _count_all(
    count: Count, rows: Iterator[Numbered], cluster: Cluster | None
) -> Iterator[Counted]:
    if cluster is not None:
        yield from map_chunks(count, rows, cluster)
        return
    for chunk in split_chunks(rows, CHUNK):
        yield count(chunk)


class MapCounter:
    """Counts label maps that lie in a folder or bucket against the labels of a manifest."""

    def __init__(self, predictions: str, classes: Classes, layout: Layout | None = None) -> None:
        self.predictions, self.classes = predictions.rstrip("/"), classes
        self.layout = None if layout is None else outline(layout)

    def __call__(self, chunk: list[Numbered]) -> Counted:
        counted = Counted()
        for (place, row), found in read_ahead(chunk, self._count, 4):
            try:
                matrix, size = found()
            except InputError as error:
                counted.failures[row.name] = str(error)
            else:
                counted.pairs.append((place, matrix))
                counted.sizes.add(size)
        return counted

    def _count(self, numbered: Numbered) -> tuple[npt.NDArray[Any], tuple[int, int]]:
        row, classes = numbered[1], self.classes
        require_label(row)
        pair = fetch_pair(replace(row, rgb="", thermal=""), classes, self.layout)
        truth = read_label_of(pair, classes)
        file = f"{self.predictions}/{row.name}.png"
        labels = read_label(fetch(file), colours=classes.palette, coloured=None)
        try:
            matrix = count_pixels(labels, truth, classes)
        except InputError as error:
            raise InputError(f"{file}: {error}") from None
        height, width = truth.shape
        return matrix, (height, width)


def require_label(row: Row) -> None:
    """Refuse a row without label."""
    if not row.label:
        raise InputError("the manifest names no label to score against")


def score_manifest(
    predictions: str,
    manifest: Manifest,
    classes: Classes,
    cluster: Cluster | None = None,
    *,
    layout: Layout | None = None,
    protocol: str | None = None,
    command: str = "",
) -> tuple[Report, dict[str, str]]:
    """Score label maps <name>.png, made by anyone, against the labels of a manifest.

    Args:
        predictions: folder or address; `labels` below it where the maps lie there, as of `predict`.
        manifest: the pairs.
        classes: what the ids of labels and maps mean.
        cluster: counts instead of this process.
        layout: the data set that the pairs are of, which says how their labels are read.
        protocol: a name of docs/protocols.md.
        command: what the user typed, for the report.

    Returns:
        The report, and the reason per pair that is not in it.
    """
    about = About("unknown", predictions, command, protocol)
    return sum_counts(MapCounter(predictions, classes, layout), manifest, classes, cluster, about)
