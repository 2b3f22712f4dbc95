"""Scores: a model on a data set, or anyone's label maps, counted over the whole split.

Loads no torch, so that scoring label maps starts at once.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from sartm.classes import MFNET, Classes
from sartm.config import Modality, to_dict
from sartm.data.listing import files_below
from sartm.data.pairs import PairDataset, Sample, pixel_hash, read_label_of
from sartm.data.sets import Pair
from sartm.errors import InputError
from sartm.evaluation.metrics import Counts, best_and_worst, count_pixels
from sartm.evaluation.modalities import SINGLE, are_pairs, compare_modalities
from sartm.evaluation.protocols import choose_protocols
from sartm.evaluation.reliability import Reliability
from sartm.evaluation.report.pictures import PairPictures, draw_sample
from sartm.evaluation.report.scores import Cell, Report, build_report
from sartm.evaluation.views import Views, label_sample
from sartm.inference.ahead import read_ahead
from sartm.io.decode import image_size
from sartm.io.labels import read_label
from sartm.progress import Meter

if TYPE_CHECKING:
    from sartm.inference.predictor import Predictor
    from sartm.model.facts import ModelFacts
    from sartm.model.sartm import SARTM

Array = npt.NDArray[Any]

LARGEST_COUNTS = 64 * 2**20
"""Bytes of per-pair counts: 200,000 pairs of 9 classes. Beyond it a report has no intervals."""


class Scored(NamedTuple):
    """A labelled sample and what was counted of it."""

    sample: Sample
    labels: Array
    """(H, W)."""
    counts: Counts
    """(K, K), rows the truth."""
    reliability: Reliability | None
    """None where nobody asked, and of label maps from several views."""


def score_pairs(
    predictor: "Predictor",
    dataset: PairDataset,
    indices: Sequence[int] | None = None,
    *,
    modality: Modality = "both",
    views: Views = Views(),
    change: Callable[[Sample], Sample] | None = None,
    judge: bool = False,
) -> Iterator[Scored]:
    """Label pairs and count.

    Args:
        predictor: the model, ready to run; says how many pairs at a time.
        dataset: its class table must be the model's.
        indices: positions of the pairs; None: all.
        modality: what the model may see.
        views: crops and sizes.
        change: applied to every sample as it was read.
        judge: also count how far the confidence comes true.

    Raises:
        InputError: other classes than the model's, a pair without label, an unreadable file.
    """
    from sartm.inference.pipeline import label_ahead

    predictor.classes.require_same(dataset.classes)
    chosen = range(len(dataset)) if indices is None else indices
    positions = {dataset.pairs[index].name: index for index in chosen}
    pairs = [dataset.pairs[index] for index in chosen]
    _require_labels(pairs, dataset)

    def read(pair: Pair) -> Sample:
        sample = dataset[positions[pair.name]]
        return sample if change is None else change(sample)

    def label(samples: list[Sample]) -> list[Scored]:
        if views != Views():
            return [
                count(sample, label_sample(predictor, sample, modality, views))
                for sample in samples
            ]
        found = predictor.predict_batch(samples, modality)
        return [
            count(sample, each.labels, each.confidence if judge else None)
            for sample, each in zip(samples, found, strict=True)
        ]

    def count(sample: Sample, labels: Array, sure: Array | None = None) -> Scored:
        assert sample.label is not None
        reliability = None
        if sure is not None:
            reliability = Reliability()
            reliability.add(sure, labels, sample.label, dataset.classes)
        counts = count_pixels(labels, sample.label, dataset.classes)
        return Scored(sample, labels, counts, reliability)

    for _, labelled in label_ahead(predictor, pairs, read, label):
        yield labelled()[1]


def evaluate(
    model: "SARTM",
    dataset: PairDataset,
    *,
    modality: Modality = "both",
    protocol: str | None = None,
    views: Views = Views(),
    device: str = "auto",
) -> Report:
    """Score a model on the labelled pairs of a split; see `evaluate_with_pictures`."""
    from sartm.inference.predictor import Predictor

    predictor = Predictor(model, device=device, thermal_range="model")
    name = "" if model.facts is None else model.facts.name
    report, _ = evaluate_with_pictures(
        predictor, dataset, modality=modality, protocol=protocol, views=views, model=name
    )
    return report


def evaluate_with_pictures(
    predictor: "Predictor",
    dataset: PairDataset,
    *,
    modality: Modality = "both",
    protocol: str | None = None,
    views: Views = Views(),
    robustness: Sequence[Mapping[str, Cell]] = (),
    model: str = "",
    command: str = "",
) -> tuple[Report, list[PairPictures]]:
    """Score a model on the labelled pairs of a split.

    Args:
        predictor: the model, ready to run.
        dataset: the split; its class table must be the model's.
        modality: what the model may see.
        protocol: a name of docs/protocols.md; None takes the benchmark's own.
        views: crops and sizes; the default is the whole image.
        robustness: rows of `robustness.measure_robustness`, for the report.
        model: its name, for the report.
        command: what the user typed, for the report.

    Returns:
        The report, and the pictures of its best and worst pairs. With both modalities the report
        compares them with either alone, which takes a pass more for each.
    """
    choose_protocols(dataset.classes, protocol)  # a wrong name is found before the work
    facts = predictor.facts
    tally, extremes, contaminated = _Tally(dataset), _Extremes(), []
    scored = score_pairs(predictor, dataset, modality=modality, views=views, judge=True)
    reliability = Reliability()
    with Meter(f"evaluate {modality}", len(dataset)) as meter:
        for index, (sample, labels, counts, sure) in enumerate(scored):
            if sure is not None:
                reliability.merge(sure)
            tally.add(index, counts, sample.size)
            extremes.add(index, labels, counts)
            if facts is not None and was_seen(sample, dataset.written, facts):
                contaminated.append(sample.name)
            meter.advance()
    report = tally.report(
        dataset,
        modality=modality,
        model=model,
        command=command,
        which=protocol,
        contaminated=contaminated,
        selected_on=None if facts is None else facts.selected_on,
        views=to_dict(views) | {"stride": views.step()},
        robustness=robustness,
        reliability=reliability.describe(),
    )
    if modality == "both" and are_pairs(dataset.pairs):
        found: dict[Modality, Counts] = {"both": tally.paired()}
        found |= count_pairs(predictor, dataset, SINGLE, views)
        report = replace(report, modalities=compare_modalities(found, dataset.classes, protocol))
    pictures = [
        draw_sample(
            predictor.fix_levels(dataset[index], modality), labels, dataset.classes,
            predictor.config.thermal, group,
        )
        for group, index, labels in extremes.chosen()
    ]  # fmt: skip
    return report, pictures


def count_pairs(
    predictor: "Predictor",
    dataset: PairDataset,
    modalities: Sequence[Modality],
    views: Views = Views(),
) -> dict[Modality, Counts]:
    """Counts per pair of a split by what the model may see, as `compare_modalities` takes them."""
    found: dict[Modality, Counts] = {}
    for modality in modalities:
        tally = _Tally(dataset)
        scored = score_pairs(predictor, dataset, modality=modality, views=views)
        with Meter(f"evaluate {modality}", len(dataset)) as meter:
            for index, (sample, _, counts, _) in enumerate(scored):
                tally.add(index, counts, sample.size)
                meter.advance()
        found[modality] = tally.paired()
    return found


def score(
    predictions: Path, dataset: PairDataset, *, protocol: str | None = None, command: str = ""
) -> Report:
    """Score a folder of label maps made by anyone: <name>.png per pair, at the label's size.

    All may be called <name>_pred.png or <name>_prediction.png instead. Maps are 8-bit, 16-bit or
    palette images of class ids, or show the colours of the classes; they lie in `predictions` or
    its folder labels.

    Raises InputError for a missing, unreadable or wrongly sized map, naming it.
    """
    choose_protocols(dataset.classes, protocol)
    if not predictions.is_dir():
        raise InputError(f"{predictions}: no such folder; --predictions is a folder of label maps")
    folder = predictions / "labels" if (predictions / "labels").is_dir() else predictions
    _require_labels(dataset.pairs, dataset)
    files, missing = _find_maps(folder, [pair.name for pair in dataset.pairs])
    if missing:
        raise InputError(
            f"{len(missing)} of {len(dataset)} label maps are missing in {folder}, the first is "
            f"{missing[0]}.png. Predict the whole split {dataset.split!r}, or choose another with "
            f"--split"
        )

    def count(pair: Pair) -> tuple[Counts, tuple[int, int]]:
        return _score_map(files[pair.name], pair, dataset)

    tally = _Tally(dataset)
    with Meter("score", len(dataset)) as meter:
        for index, (_, counted) in enumerate(read_ahead(dataset.pairs, count)):
            tally.add(index, *counted())
            meter.advance()
    return tally.report(
        dataset, modality="unknown", model=str(predictions), command=command, which=protocol
    )


_ENDINGS = ("", "_pred", "_prediction")
"""What tools put behind the names of label maps."""


def _find_maps(folder: Path, names: Sequence[str]) -> tuple[dict[str, Path], list[str]]:
    """Name -> label map, all with the ending under which most are there; and names without."""
    ways, there = [], set(files_below(folder))
    for ending in _ENDINGS:
        files = {name: folder / f"{name}{ending}.png" for name in names}
        ways.append((files, [name for name in names if files[name] not in there]))
    return min(ways, key=lambda way: len(way[1]))


def _score_map(path: Path, pair: Pair, dataset: PairDataset) -> tuple[Counts, tuple[int, int]]:
    """(K, K) counts of one label map against its truth, and the (height, width) of both."""
    truth = _truth(pair, dataset)
    size = image_size(path)
    if size != truth.shape:
        raise InputError(
            f"{path} is {size[0]}x{size[1]} but its label is {truth.shape[0]}x{truth.shape[1]}; "
            f"write predictions at the label's size"
        )
    labels = read_label(path, colours=dataset.classes.palette, coloured=None)
    try:
        return count_pixels(labels, truth, dataset.classes), size
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def subsets_of(dataset: PairDataset) -> dict[str, list[int]]:
    """Positions of the pairs of every subset that occurs."""
    found: dict[str, list[int]] = {}
    for index, pair in enumerate(dataset.pairs):
        for name in dataset.subset_of(pair.name):
            found.setdefault(name, []).append(index)
    return found


class _Tally:
    """Counts of a split in bounded memory.

    A matrix per pair, which intervals need; where those would be too large (as would 1000 draws of
    the bootstrap) one per combination of subsets.
    """

    def __init__(self, dataset: PairDataset) -> None:
        size = len(dataset.classes)
        self.pairs = len(dataset)
        self.subsets = subsets_of(dataset)
        self.each = max(self.pairs, 1000) * size**2 * 4 <= LARGEST_COUNTS
        rows: list[int] = list(range(self.pairs))
        if not self.each:
            kinds: dict[tuple[str, ...], int] = {}
            kind_of = (tuple(dataset.subset_of(pair.name)) for pair in dataset.pairs)
            rows = [kinds.setdefault(kind, len(kinds)) for kind in kind_of]
        self.rows = np.array(rows, np.intp)
        # Of one pair 32 bits hold every count, at half the memory.
        kind = np.uint32 if self.each else np.int64
        self.counts: npt.NDArray[Any] = np.zeros((self.rows.max(initial=-1) + 1, size, size), kind)
        self.sizes: set[tuple[int, int]] = set()

    def add(self, index: int, counts: Counts, size: tuple[int, int]) -> None:
        """Count the pair at `index`; counts (K, K), size (height, width) of its label."""
        self.counts[self.rows[index]] += counts.astype(self.counts.dtype)
        self.sizes.add(size)

    def paired(self) -> Counts:
        """(N, K, K) of every pair; where there is no room for that, (1, K, K) of all."""
        return self.counts if self.each else self.counts.sum(axis=0, keepdims=True)

    def report(
        self,
        dataset: PairDataset,
        *,
        modality: str,
        model: str,
        command: str,
        which: str | None,
        contaminated: Sequence[str] = (),
        selected_on: str | None = None,
        views: Mapping[str, Any] | None = None,
        robustness: Sequence[Mapping[str, Cell]] = (),
        reliability: Mapping[str, Any] | None = None,
    ) -> Report:
        report = build_report(
            self.counts,
            dataset.classes,
            split=dataset.split,
            modality=modality,
            label_sizes=sorted(self.sizes),
            model=model,
            data=dataset.name,
            command=command,
            which=which,
            subsets={
                name: np.unique(self.rows[positions]).tolist()
                for name, positions in self.subsets.items()
            },
            contaminated=contaminated,
            selected_on=selected_on,
            views=views,
            robustness=robustness,
            reliability=reliability,
            samples=1000 if self.each else 0,
        )
        subsets = {
            name: replace(part, pairs=len(self.subsets[name]))
            for name, part in report.subsets.items()
        }
        return replace(report, pairs=self.pairs, subsets=subsets)


class _Extremes:
    """Label maps of the pairs that may end among the best or worst; of the others none is kept.

    Pairs whose truth holds one class only are kept apart, as `best_and_worst` shows them only when
    there are not enough others.
    """

    def __init__(self) -> None:
        self.kept: dict[int, tuple[Array, Counts]] = {}

    def add(self, index: int, labels: Array, counts: Counts) -> None:
        self.kept[index] = labels, counts
        poor = _has_one_class(counts)
        group = [i for i, (_, known) in self.kept.items() if _has_one_class(known) == poor]
        best, worst = best_and_worst(np.stack([self.kept[i][1] for i in group]))
        needed = {group[i] for i in (*best, *worst)}
        for i in group:
            if i not in needed:
                del self.kept[i]

    def chosen(self) -> Iterator[tuple[Literal["best", "worst"], int, Array]]:
        """Group, position and label map of the pairs to show."""
        if not self.kept:
            return
        order = sorted(self.kept)
        best, worst = best_and_worst(np.stack([self.kept[i][1] for i in order]))
        for i in best:
            yield "best", order[i], self.kept[order[i]][0]
        for i in worst:
            yield "worst", order[i], self.kept[order[i]][0]


def _has_one_class(counts: Counts) -> bool:
    return int(np.count_nonzero(counts.any(axis=1))) <= 1


def _require_labels(pairs: Sequence[Pair], dataset: PairDataset) -> None:
    """Say before any work that there is nothing to score against."""
    without = [pair.name for pair in pairs if pair.label is None]
    if without:
        raise InputError(
            f"{len(without)} of {len(pairs)} pairs of split {dataset.split!r} have no label to "
            f"score against, such as {without[0]!r}; label them or take them off the list"
        )


def _truth(pair: Pair, dataset: PairDataset) -> Array:
    """The label alone: scoring needs no images."""
    assert pair.label is not None
    return read_label_of(pair, dataset.classes)


def was_seen(sample: Sample, classes: Classes, facts: "ModelFacts") -> bool:
    """Whether a model was trained on this pair.

    MSRS and MFNet share frames under one name though their pixels differ.
    """
    known, name = facts.training_images, sample.name
    numbered = len(name) == 6 and name[:5].isdigit() and name[5] in "DN"
    if numbered and classes.names == MFNET.names and name in known:
        return True
    return bool(known) and pixel_hash(sample.rgb, sample.thermal) in facts.training_hashes
