"""Scores: a model on a data set, or anyone's label maps, counted over the whole split."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from sartm.config import Modality
from sartm.data.classes import MFNET
from sartm.data.images import apply_thermal_rule, image_size, read_label
from sartm.data.layouts import Pair
from sartm.data.pairs import PairDataset, Sample, check_ids, pixel_hash
from sartm.errors import InputError
from sartm.inference import Predictor, read_ahead
from sartm.metrics import ConfusionMatrix, Counts, best_and_worst
from sartm.model.sartm import SARTM
from sartm.progress import Meter
from sartm.report import PairPictures, Report, build_report, draw_pair

Array = npt.NDArray[Any]


def confusion_of(
    predictor: Predictor,
    dataset: PairDataset,
    indices: Sequence[int] | None = None,
    modality: Modality = "both",
) -> Iterator[tuple[Sample, Counts]]:
    """Each labelled sample with the (K, K) counts of its prediction, rows the truth."""
    predictor.classes.require_same(dataset.classes)
    chosen = range(len(dataset)) if indices is None else indices
    positions = {dataset.pairs[index].name: index for index in chosen}
    pairs = [dataset.pairs[index] for index in chosen]

    def read(pair: Pair) -> Sample:
        return dataset[positions[pair.name]]

    for pair, sample_of in read_ahead(pairs, read):
        sample = sample_of()
        if sample.label is None:
            raise InputError(
                f"pair {pair.name!r} of split {dataset.split!r} has no label to score against; "
                f"label it or take it off the list"
            )
        matrix = ConfusionMatrix(len(dataset.classes))
        labels = predictor.predict(sample, modality).labels
        matrix.update(labels, sample.label, dataset.classes.ignore)
        yield sample, matrix.counts


def evaluate(
    model: SARTM,
    dataset: PairDataset,
    *,
    modality: Modality = "both",
    protocol: str | None = None,
    device: str = "auto",
) -> Report:
    """Score a model on the labelled pairs of a split; see `evaluate_with_pictures`."""
    predictor = Predictor(model, device=device)
    name = "" if model.facts is None else model.facts.name
    report, _ = evaluate_with_pictures(
        predictor, dataset, modality=modality, protocol=protocol, model=name
    )
    return report


def evaluate_with_pictures(
    predictor: Predictor,
    dataset: PairDataset,
    *,
    modality: Modality = "both",
    protocol: str | None = None,
    model: str = "",
    command: str = "",
) -> tuple[Report, list[PairPictures]]:
    """Score a model on the labelled pairs of a split.

    Args:
        predictor: the model, ready to run.
        dataset: the split; its class table must be the model's.
        modality: what the model may see.
        protocol: a name of docs/protocols.md; None takes the benchmark's own.
        model: its name, for the report.
        command: what the user typed, for the report.

    Returns:
        The report, and the pictures of its best and worst pairs.
    """
    facts = predictor.facts
    known = {} if facts is None else facts.training_images
    counts, hashes, sizes = [], [], set()
    with Meter(f"evaluate {modality}", len(dataset)) as meter:
        for sample, matrix in confusion_of(predictor, dataset, modality=modality):
            counts.append(matrix)
            sizes.add(sample.size)
            hashes.append(pixel_hash(sample) if known else "")
            meter.advance()
    stacked = _stack(counts, dataset)
    seen = set(known.values())
    contaminated = [
        pair.name
        for pair, pixels in zip(dataset.pairs, hashes, strict=True)
        if pixels in seen or (pair.name in known and _is_mfnet_frame(pair.name, dataset))
    ]
    report = build_report(
        stacked,
        dataset.classes,
        split=dataset.split,
        modality=modality,
        label_sizes=sorted(sizes),
        model=model,
        data=dataset.name,
        command=command,
        which=protocol,
        subsets=subsets_of(dataset),
        contaminated=contaminated,
        selected_on=None if facts is None else facts.selected_on,
    )
    pictures = []
    best, worst = best_and_worst(stacked)
    chosen: list[tuple[Literal["best", "worst"], int]] = [("best", index) for index in best]
    chosen += [("worst", index) for index in worst]
    for group, index in chosen:
        sample = dataset[index]
        labels = predictor.predict(sample, modality).labels
        pictures.append(_picture(sample, labels, group, predictor, dataset))
    return report, pictures


def score(
    predictions: Path, dataset: PairDataset, *, protocol: str | None = None, command: str = ""
) -> Report:
    """Score a folder of label maps made by anyone: <name>.png per pair, at the label's size.

    Raises InputError for a missing, unreadable or wrongly sized map, naming it.
    """
    folder = predictions / "labels" if (predictions / "labels").is_dir() else predictions
    counts, sizes = [], set()
    with Meter("score", len(dataset)) as meter:
        for pair in dataset.pairs:
            path = folder / f"{pair.name}.png"
            if not path.is_file():
                raise InputError(
                    f"no label map for pair {pair.name!r}: expected {path}. Predict the whole "
                    f"split, or choose another with --split"
                )
            if pair.label is None:
                raise InputError(f"pair {pair.name!r} has no label to score against; label it")
            truth = _truth(pair, dataset)
            if image_size(path) != truth.shape:
                found = "x".join(map(str, image_size(path)))
                raise InputError(
                    f"{path} is {found} but its label is {truth.shape[0]}x{truth.shape[1]}; write "
                    f"predictions at the label's size"
                )
            matrix = ConfusionMatrix(len(dataset.classes))
            matrix.update(read_label(path), truth, dataset.classes.ignore)
            counts.append(matrix.counts)
            sizes.add((truth.shape[0], truth.shape[1]))
            meter.advance()
    return build_report(
        _stack(counts, dataset),
        dataset.classes,
        split=dataset.split,
        modality="unknown",
        label_sizes=sorted(sizes),
        model=str(predictions),
        data=dataset.name,
        command=command,
        which=protocol,
        subsets=subsets_of(dataset),
    )


def subsets_of(dataset: PairDataset) -> dict[str, list[int]]:
    """Positions of the pairs of every subset that occurs."""
    found: dict[str, list[int]] = {}
    for index, pair in enumerate(dataset.pairs):
        for name in dataset.subset_of(pair.name):
            found.setdefault(name, []).append(index)
    return found


def _stack(counts: list[Counts], dataset: PairDataset) -> Counts:
    size = len(dataset.classes)
    return np.stack(counts) if counts else np.zeros((0, size, size), np.int64)


def _truth(pair: Pair, dataset: PairDataset) -> Array:
    """The label alone: scoring needs no images."""
    assert pair.label is not None
    colours = dataset.classes.palette if pair.coloured_label else ()
    label = read_label(pair.label, dataset.classes.ignore, colours)
    check_ids(label, dataset.classes, pair.label)
    return label


def _is_mfnet_frame(name: str, dataset: PairDataset) -> bool:
    """MSRS and MFNet share frames under one name though their pixels differ."""
    numbered = len(name) == 6 and name[:5].isdigit() and name[5] in "DN"
    return numbered and dataset.classes.names == MFNET.names


def _picture(
    sample: Sample,
    labels: Array,
    group: Literal["best", "worst"],
    predictor: Predictor,
    dataset: PairDataset,
) -> PairPictures:
    thermal = None
    if sample.thermal is not None:
        shown = apply_thermal_rule(sample.thermal, predictor.config.thermal, sample.name)
        thermal = (255 * shown).astype(np.uint8)
    assert sample.label is not None
    return draw_pair(sample.name, group, sample.label, labels, dataset.classes, sample.rgb, thermal)
