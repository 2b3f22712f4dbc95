"""Fitting the confidence: on a labelled split, for what a model may see, so that it comes true.

Two numbers, temperature and bias, on the log-odds of a label's soft-max probability (Platt's
scaling), for pixels labelled as objects and as background apart; no label depends on them. They
make three calibration errors small together, by the sum of their squares: of all pixels, of pixels
labelled as objects, and of pixels where the truth or the label is no background.

The last two are not small by themselves. A plain fit is one to the background, of which 99 % is
right, and leaves objects as overconfident as they were. And a model that is right about every
group that can be told apart still says 0.8 of objects it missed, as they look like background:
only less confidence wherever background is in doubt brings that error down, and the first error
says what that costs.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from sartm.classes import Classes
from sartm.config import Calibration, Calibrations, Modality, Scaling
from sartm.data.pairs import PairDataset, Sample
from sartm.data.sets import Pair
from sartm.errors import InputError
from sartm.evaluation.reliability import calibration_error
from sartm.evaluation.scoring import was_seen
from sartm.inference.confidence import log_odds
from sartm.inference.pipeline import label_ahead
from sartm.inference.prediction import Prediction
from sartm.inference.predictor import Predictor
from sartm.inference.tiles import Tiling, resize_strips
from sartm.model.loading import choose_known
from sartm.progress import Meter

Counts = npt.NDArray[Any]

_LOWEST, _STEP, _CELLS = -5.0, 0.05, 500
_ODDS: Counts = _LOWEST + _STEP * (np.arange(_CELLS) + 0.5)
"""Log-odds that pixels are counted by; those beyond lie in the last cells."""
_PRIOR = 20.0
"""Pixels' worth of belief in what the model says itself, for what hardly occurs."""
_FLATTEST = 0.05
"""Least slope: where confidence says nothing, it still does not fall."""
_STEEPEST = 3.0
"""Largest logarithm of a temperature, either way."""


@dataclass(frozen=True)
class Fitted:
    """What a fit did for one modality; errors are on objects, as fractions."""

    calibration: Calibration
    before: float
    after: float
    """Each half of the pairs judged by a fit to the other half."""
    trained_on: int
    """Of the pairs, how many the model was trained on: it is surer and more often right there."""


def _fit(counts: Counts) -> Calibration:
    """The calibration of (2, 2, cells) pixels: label is an object's, label is right, log-odds."""
    start: list[float] = []
    for part in counts:
        scaling = _fit_scaling(part)
        start += [math.log(scaling.temperature), scaling.bias]
    found = start if not counts[0].any() else _descend(counts, start)
    background, objects = (
        Scaling(round(math.exp(found[i]), 4), round(found[i + 1], 4)) for i in (0, 2)
    )
    return Calibration(objects, background)


def _descend(counts: Counts, start: list[float]) -> list[float]:
    """Make the errors small, over logarithm of the temperature and bias of either kind of label.

    Step along one parameter at a time while that helps, then with half the step.
    """

    def judge(at: list[float]) -> float:
        scalings = [Scaling(math.exp(at[i]), at[i + 1]) for i in (0, 2)]
        return float(sum(error**2 for error in _errors(counts, *scalings)))

    best, lowest, step = start, judge(start), 0.4
    while step > 0.01:
        moves = [
            [value + way * (i == j) for j, value in enumerate(best)]
            for i in range(len(best))
            for way in (step, -step)
        ]
        moves = [move for move in moves if abs(move[0]) < _STEEPEST and abs(move[2]) < _STEEPEST]
        values = [judge(move) for move in moves]
        if min(values) < lowest:
            lowest = min(values)
            best = moves[values.index(lowest)]
        else:
            step /= 2
    return best


def _errors(counts: Counts, background: Scaling, objects: Scaling) -> tuple[float, float, float]:
    """Calibration error of all pixels, of those labelled as objects, of those of objects."""
    sure = [1 / (1 + np.exp(-(_ODDS / each.temperature + each.bias)))
            for each in (background, objects)]  # fmt: skip
    pixels, right = counts.sum(axis=1), counts[:, 1]
    missed = counts[0, 0]  # labelled as background, and wrong
    both = np.concatenate(sure)
    return (
        calibration_error(both, pixels.ravel(), right.ravel()),
        calibration_error(sure[1], pixels[1], right[1]),
        calibration_error(
            both, np.concatenate([missed, pixels[1]]), np.concatenate([0 * missed, right[1]])
        ),
    )


def _fit_scaling(counts: Counts) -> Scaling:
    """Logistic regression of right on log-odds; (2, cells) wrong and right pixels, by Newton."""
    pixels, right = counts.sum(axis=0), counts[1]
    features = np.stack([_ODDS, np.ones(_CELLS)])
    start = np.array([1.0, 0.0])
    found = start.copy()
    for _ in range(50):
        sure = 1 / (1 + np.exp(-found @ features))
        slope = features @ (right - pixels * sure) - _PRIOR * (found - start)
        curve = (features * (pixels * sure * (1 - sure))) @ features.T + _PRIOR * np.eye(2)
        step = np.linalg.solve(curve, slope)
        found += step * min(1.0, 1.0 / float(np.abs(step).max() + 1e-12))  # or it overshoots
        if np.abs(step).max() < 1e-6:
            break
    return Scaling(1 / max(float(found[0]), _FLATTEST), float(found[1]))


def count_odds(prediction: Prediction, sample: Sample, classes: Classes) -> Counts:
    """(2, 2, cells) pixels of a pair: label is an object's, label is right, log-odds."""
    if prediction.logits is None or sample.label is None:
        raise InputError(f"pair {sample.name!r} has no label or was labelled in tiles")
    counts = np.zeros((2, 2, _CELLS))
    for top, strip in resize_strips([prediction.logits], sample.size):
        labels, odds = (part.numpy() for part in log_odds(strip))
        truth = sample.label[top : top + len(labels)]
        known = truth != classes.ignore
        cell = ((odds - _LOWEST) / _STEP).clip(0, _CELLS - 1).astype(np.intp)
        group = np.ones(labels.shape, bool) if classes.rest is None else labels != classes.rest
        index = (2 * group + (labels == truth)) * _CELLS + cell
        counts += np.bincount(index[known], minlength=4 * _CELLS).reshape(counts.shape)
    return counts


def fit_calibration(
    predictor: Predictor,
    datasets: Sequence[PairDataset],
    modality: Modality,
    change: Callable[[Sample], Sample] | None = None,
) -> Fitted | None:
    """Fit the confidence for one modality on labelled splits; None where no pair has it.

    Args:
        predictor: the model; its own calibration plays no part.
        datasets: of the model's classes, or among those it knows; each is labelled in its own.
        modality: what the model may see.
        change: applied to every sample as it was read.

    Raises:
        InputError: other classes than the model's, an unlabelled pair, an unreadable file.
    """
    predictors = [_choose(predictor, data.classes) for data in datasets]
    usable = [
        [index for index, pair in enumerate(data.pairs) if _has(pair, modality)]
        for data in datasets
    ]
    total, place = sum(map(len, usable)), 0
    halves: Counts = np.zeros((2, 2, 2, _CELLS))
    trained_on = 0
    with Meter(f"calibrate {modality}", total) as meter:
        for data, chosen, indices in zip(datasets, predictors, usable, strict=True):
            for counts, seen in _count_pairs(chosen, data, indices, modality, change):
                # Neighbouring frames are alike: halves of blocks, not of every other pair.
                halves[8 * place // total % 2] += counts
                place += 1
                trained_on += seen
                meter.advance()
    if not halves.any():
        return None
    plain = [Calibration(), Calibration()]
    crossed = [_fit(halves[1 - half]) if halves[1 - half].any() else plain[0] for half in (0, 1)]
    before, after = (_error_on_objects(halves, each) for each in (plain, crossed))
    return Fitted(_fit(halves.sum(axis=0)), before, after, trained_on)


def _choose(predictor: Predictor, classes: Classes) -> Predictor:
    """The predictor in the classes of a data set, as evaluation reads them."""
    if choose_known(predictor.model, classes) is not predictor.model:
        return predictor.choose(classes)
    predictor.classes.require_same(classes)
    return predictor


def _count_pairs(
    predictor: Predictor,
    data: PairDataset,
    indices: Sequence[int],
    modality: Modality,
    change: Callable[[Sample], Sample] | None,
) -> Iterator[tuple[Counts, bool]]:
    """`count_odds` of some pairs, in order, and whether the model was trained on them."""
    facts, trained_on = predictor.facts, set()

    def read(index: int) -> Sample:
        sample = data[index]
        if facts is not None and was_seen(sample, data.written, facts):
            trained_on.add(index)
        sample = _cut(sample, predictor.tiling)
        return sample if change is None else change(sample)

    def count(samples: list[Sample]) -> list[Counts]:
        predictions = predictor.predict_batch(samples, modality)
        return [
            count_odds(found, sample, predictor.classes)
            for found, sample in zip(predictions, samples, strict=True)
        ]

    for index, counted in label_ahead(predictor, indices, read, count):
        yield counted()[1], index in trained_on


def _error_on_objects(halves: Counts, calibrations: Sequence[Calibration]) -> float:
    """Of both halves of the pairs together, each with its own calibration."""
    sure, pixels, right = [], [], []
    for counts, calibration in zip(halves, calibrations, strict=True):
        for which, scaling in enumerate((calibration.background, calibration.objects)):
            sure.append(1 / (1 + np.exp(-(_ODDS / scaling.temperature + scaling.bias))))
            pixels.append(counts[which, 0] + which * counts[which, 1])
            right.append(which * counts[which, 1])
    return calibration_error(*(np.concatenate(parts) for parts in (sure, pixels, right)))


def _has(pair: Pair, modality: Modality) -> bool:
    if pair.four_channel is not None:
        return True
    return (modality == "rgb" or pair.thermal is not None) and (
        modality == "thermal" or pair.rgb is not None
    )


def _cut(sample: Sample, tiling: Tiling) -> Sample:
    """The middle of an image that would be labelled in tiles, whose logits nobody keeps."""
    if not tiling.applies(sample.size):
        return sample
    side = int(tiling.above**0.5)
    area = tuple(
        slice((length - min(length, side)) // 2, (length + min(length, side)) // 2)
        for length in sample.size
    )

    def cut(image: Counts | None) -> Any:
        return None if image is None else image[area]

    return replace(
        sample,
        rgb=cut(sample.rgb),
        thermal=cut(sample.thermal),
        label=cut(sample.label),
        unseen=cut(sample.unseen),
    )


def calibrate(
    predictor: Predictor, datasets: Sequence[PairDataset]
) -> tuple[Calibrations, dict[Modality, Fitted]]:
    """Fit the confidence for both cameras and for each alone, as far as the pairs allow it.

    Arguments and errors as `fit_calibration`. What could not be fitted is left as it is.
    """
    fitted: dict[Modality, Fitted] = {}
    known = predictor.config.calibration
    modalities: tuple[Modality, ...] = ("both", "rgb", "thermal")
    for modality in modalities:
        found = fit_calibration(predictor, datasets, modality)
        if found is not None:
            fitted[modality] = found
            known = replace(known, **{modality: found.calibration})
    return known, fitted
