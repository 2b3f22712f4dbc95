"""Pixel counts of one split and the named means over them; no mean without a protocol.

Shapes: K classes, (H, W) a label map at its original size, counts (..., K, K) with the ground truth
in rows and the prediction in columns. Scores are fractions here, except in `means`, `bootstrap`
and `pair_scores`, which return percent.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sartm.classes import Classes
from sartm.errors import InputError
from sartm.evaluation.protocols import PROTOCOLS, Protocol, choose_protocols, require_size

Counts = NDArray[np.int64]
Fractions = NDArray[np.float64]


MOST_CLASSES = 4096
"""That are scored: 128 MiB of counts."""

_WEIGHTS = 250_000
"""Weights of pairs drawn at a time by the bootstrap, which bounds its memory to a few MiB."""


class ConfusionMatrix:
    """Pixels per (truth, prediction), summed over a split; exact, as the counts are integers."""

    def __init__(self, classes: int, counts: Counts | None = None) -> None:
        require_countable(classes)
        self.counts: Counts = np.zeros((classes, classes), np.int64)
        """(K, K), rows are the ground truth, columns the prediction."""
        if counts is not None:
            self.counts += counts.astype(np.int64, copy=False)

    def update(
        self, prediction: NDArray[np.integer], label: NDArray[np.integer], ignore: int = 255
    ) -> None:
        """Add one pair: prediction and label (H, W) of ids; pixels labelled `ignore` do not count.

        Raises InputError for maps of different sizes (a label map is scored at its original size)
        and for ids outside the class table.
        """
        classes = len(self.counts)
        prediction, label = _narrow(np.asarray(prediction)), _narrow(np.asarray(label))
        if prediction.shape != label.shape:
            raise InputError(
                f"the prediction is {_size(prediction)} but the label is {_size(label)}; "
                f"labels are scored at their original size, so resize the prediction to it"
            )
        if not label.size:
            return
        ignored = label == ignore
        known = np.where(ignored, label.dtype.type(0), label)
        _require_ids(known, classes, "label", f" or {ignore} (ignored)")
        _require_ids(prediction, classes, "prediction", "")
        # One bin per pair of ids and a row more for ignored pixels: cheaper than dropping them.
        index = known.astype(np.intp)
        index[ignored] = classes
        index *= classes
        index += prediction
        bins = np.bincount(index.ravel(), minlength=(classes + 1) * classes)
        self.counts += bins[: classes * classes].reshape(classes, classes)

    def merge(self, other: "ConfusionMatrix") -> None:
        """Add the counts of another part of the same split, such as another process's."""
        if other.counts.shape != self.counts.shape:
            raise InputError(
                f"cannot add counts of {len(other.counts)} classes to {len(self.counts)}; "
                f"score both parts with one class table"
            )
        self.counts += other.counts

    def iou(self) -> Fractions:
        """(K,) intersection over union; NaN for a class in neither the truth nor a prediction."""
        return iou(self.counts)

    def accuracy(self) -> Fractions:
        """(K,) recall: the share of a class's truth that was found; NaN without truth."""
        return accuracy(self.counts)

    def f1(self) -> Fractions:
        """(K,) F1 of the class's pixels; NaN for a class in neither the truth nor a prediction."""
        return f1(self.counts)

    def pixels(self) -> Counts:
        """(K,) counted ground-truth pixels."""
        return np.asarray(self.counts.sum(axis=1))

    def pixel_accuracy(self) -> float:
        """Share of all counted pixels that are right; NaN when nothing was counted."""
        return float(_ratio(np.trace(self.counts), self.counts.sum()))


def require_countable(classes: int) -> None:
    """Refuse more classes than can be counted against each other."""
    if classes > MOST_CLASSES:
        raise InputError(
            f"{classes} classes; which was taken for which is counted for every two of them, up "
            f"to {MOST_CLASSES}. Join some of them"
        )


def count_pixels(
    prediction: NDArray[np.integer], label: NDArray[np.integer], classes: Classes
) -> Counts:
    """(K, K) counts of one pair, as `ConfusionMatrix.update` adds them."""
    matrix = ConfusionMatrix(len(classes))
    matrix.update(prediction, label, classes.ignore)
    return matrix.counts


def iou(counts: NDArray[Any]) -> Fractions:
    """(..., K) intersection over union of (..., K, K) counts; NaN where the union is empty."""
    hit, truth, predicted = _marginals(counts)
    return _ratio(hit, truth + predicted - hit)


def accuracy(counts: NDArray[Any]) -> Fractions:
    """(..., K) recall of (..., K, K) counts; NaN where a class has no ground truth."""
    hit, truth, _ = _marginals(counts)
    return _ratio(hit, truth)


def f1(counts: Counts) -> Fractions:
    """(..., K) F1 of (..., K, K) counts; NaN where the union is empty."""
    hit, truth, predicted = _marginals(counts)
    return _ratio(2 * hit, truth + predicted)


def protocol_means(
    counts: NDArray[Any], protocol: Protocol
) -> tuple[Fractions, Fractions, NDArray[np.intp]]:
    """(...) mean IoU, mean accuracy and number of classes in the mean IoU of (..., K, K) counts.

    A class without ground truth has no accuracy: it is left out of that mean, or 0 in it where the
    protocol makes absent classes 0. A mean over no class at all is NaN.
    """
    require_size(protocol, counts.shape[-1])
    return _means_of(_marginals(_counted(counts, protocol)), protocol)


def _counted(counts: Counts, protocol: Protocol) -> Counts:
    """Counts without the pixels that a protocol ignores."""
    if protocol.truth_zero == "ignored":
        counts = counts.copy()
        counts[..., 0, :] = 0
    return counts


def _means_of(
    marginals: tuple[NDArray[Any], NDArray[Any], NDArray[Any]], protocol: Protocol
) -> tuple[Fractions, Fractions, NDArray[np.intp]]:
    """`protocol_means` of right, truth and predicted pixels, each (..., K)."""
    hit, truth, predicted = marginals
    scores, recalls = _ratio(hit, truth + predicted - hit), _ratio(hit, truth)
    if protocol.absent == "0":
        scores = np.where((truth == 0) & (predicted == 0), 0.0, scores)
        recalls = np.where(truth == 0, 0.0, recalls)
    if protocol.predicted == "null":
        scores = np.where((truth == 0) & (predicted > 0), np.nan, scores)
    scores, recalls = scores[..., protocol.first :], recalls[..., protocol.first :]
    counted = np.isfinite(scores).sum(axis=-1)
    return _mean(scores), _mean(recalls), counted


def means(
    matrix: ConfusionMatrix, classes: Classes, which: str | None = None
) -> dict[str, dict[str, float | int | None]]:
    """Mean IoU and accuracy in percent under each protocol, and how many classes count.

    `which` as in `choose_protocols`. {"mfnet-9": {"miou": 61.2, "macc": 73.0, "counted": 9}, ...};
    None where no class counts.
    """
    table = {}
    for name in choose_protocols(classes, which):
        miou, macc, counted = protocol_means(matrix.counts, PROTOCOLS[name])
        table[name] = {
            "miou": percent(float(miou)),
            "macc": percent(float(macc)),
            "counted": int(counted),
        }
    return table


def percent(fraction: float) -> float | None:
    """A fraction as percent with four decimals; None for NaN, so that it can go into JSON."""
    return round(100 * fraction, 4) if np.isfinite(fraction) else None


def bootstrap(
    counts: Counts,
    protocol: str,
    samples: int = 1000,
    seed: int = 0,
    baseline: Counts | None = None,
) -> tuple[float, float]:
    """95 % interval of a mean IoU in percent, by drawing the pairs again with replacement.

    Args:
        counts: (N, K, K), one matrix per pair.
        baseline: (N, K, K) of another model on the same pairs; then the interval is that of the
            difference, counts minus baseline, each draw taking the same pairs of both.

    Draws in which no class counts are left out; (NaN, NaN) if that is every one. Source: percentile
    interval of Efron, "Better bootstrap confidence intervals", JASA 1987.
    """
    chosen = PROTOCOLS.get(protocol)
    if chosen is None:
        raise InputError(f"unknown protocol {protocol!r}; choose one of {', '.join(PROTOCOLS)}")
    if baseline is not None and baseline.shape != counts.shape:
        raise InputError(
            f"the two models were scored on {len(baseline)} and {len(counts)} pairs or on other "
            f"classes; a paired interval needs the same pairs in the same order"
        )
    sums = _sums(counts, chosen)
    others = None if baseline is None else _sums(baseline, chosen)
    scores = []
    for weights in _draw_weights(len(counts), samples, seed, counts.shape[-1]):
        score = _resampled(weights, sums, chosen)
        scores.append(score if others is None else score - _resampled(weights, others, chosen))
    drawn = np.concatenate(scores) if scores else np.empty(0)
    drawn = drawn[np.isfinite(drawn)]
    if not drawn.size:
        return float("nan"), float("nan")
    low, high = np.percentile(100 * drawn, [2.5, 97.5])
    return float(low), float(high)


def draw_pairs(counts: Counts, samples: int, seed: int = 0) -> Iterator[Fractions]:
    """Sums over the pairs of (N, K, K) counts, drawn again with replacement: (S, K, K) at a time.

    The same seed draws the same pairs, whatever the counts. `samples` draws in all.
    """
    pairs, classes = len(counts), counts.shape[-1]
    for weights in _draw_weights(pairs, samples, seed, classes**2):
        total = np.zeros((len(weights), classes**2))
        for first in range(0, pairs, 1000):  # a part at a time: no float copy of all counts
            some = counts[first : first + 1000]
            # float64 is exact below 2**53 pixels and lets BLAS do the sum.
            total += weights[:, first : first + 1000] @ some.reshape(len(some), -1).astype(float)
        yield total.reshape(-1, classes, classes)


def pair_scores(counts: Counts) -> Fractions:
    """(N,) percent: `present` mean IoU of each pair of (N, K, K) counts; NaN if nothing counts."""
    return 100 * protocol_means(counts, PROTOCOLS["present"])[0]


def best_and_worst(counts: Counts, number: int = 3) -> tuple[list[int], list[int]]:
    """Indices of the pairs with the highest and the lowest `pair_scores`, from the extreme on.

    A pair whose truth holds one class only is nearly always right, so it is shown only when there
    are not enough others. No pair is in both lists.
    """
    scores = pair_scores(counts)
    kinds = (counts.sum(axis=-1) > 0).sum(axis=-1)
    usable = [int(i) for i in np.argsort(-scores, kind="stable") if np.isfinite(scores[i])]
    rich = [i for i in usable if kinds[i] > 1]
    order = rich if len(rich) >= min(2 * number, len(usable)) else usable
    best = order[: min(number, (len(order) + 1) // 2)]
    worst = order[len(best) :][::-1][:number]
    return best, worst


def _marginals(counts: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """(..., K) right pixels, truth pixels and predicted pixels of each class."""
    return np.diagonal(counts, axis1=-2, axis2=-1), counts.sum(axis=-1), counts.sum(axis=-2)


def _ratio(part: Any, whole: Any) -> Fractions:
    """part / whole in float64, NaN where the whole is 0."""
    part, whole = np.asarray(part, float), np.asarray(whole, float)
    out = np.full(whole.shape, np.nan)
    np.divide(part, whole, out=out, where=whole > 0)
    return out


def _mean(values: Fractions) -> Fractions:
    """Mean over the last axis of what is not NaN; NaN where nothing is left."""
    defined = np.isfinite(values)
    return _ratio(np.where(defined, values, 0.0).sum(axis=-1), defined.sum(axis=-1))


def _sums(counts: Counts, protocol: Protocol) -> Fractions:
    """(N, 3, K) right, true and predicted pixels of (N, K, K) counts: all that a mean needs."""
    return np.stack(_marginals(_counted(counts, protocol)), axis=1).astype(float)


def _resampled(weights: Fractions, sums: Fractions, protocol: Protocol) -> Fractions:
    """(S,) mean IoU of S draws, each of so many of the N pairs of `sums` as `weights` (S, N) say.

    float64 is exact below 2**53 pixels and lets BLAS do the sum.
    """
    total = (weights @ sums.reshape(len(sums), -1)).reshape(len(weights), 3, -1)
    return _means_of((total[:, 0], total[:, 1], total[:, 2]), protocol)[0]


def _draw_weights(pairs: int, samples: int, seed: int, numbers: int) -> Iterator[Fractions]:
    """(S, N) how often each pair is drawn; S at a time, fewer where a draw makes many numbers."""
    random = np.random.default_rng(seed)
    chunk = max(1, _WEIGHTS // max(pairs, numbers, 1))
    for start in range(0, samples if pairs else 0, chunk):
        size = min(chunk, samples - start)
        yield random.multinomial(pairs, np.full(pairs, 1 / pairs), size=size).astype(float)


def _narrow(ids: NDArray[Any]) -> NDArray[Any]:
    """The same ids in 16 bits where they fit: every later step then moves a quarter of the data."""
    if ids.dtype.kind != "i" or ids.itemsize <= 2 or not ids.size:
        return ids
    limits = np.iinfo(np.int16)
    fits = limits.min <= int(ids.min()) and int(ids.max()) <= limits.max
    return ids.astype(np.int16) if fits else ids


def _require_ids(ids: NDArray[np.integer], classes: int, what: str, also: str) -> None:
    if ids.dtype.kind not in "iu":
        raise InputError(
            f"the {what} holds {ids.dtype} values; a label map holds whole numbers, one class id "
            f"per pixel"
        )
    low, high = int(ids.min()), int(ids.max())
    if low < 0 or high >= classes:
        raise InputError(
            f"the {what} holds id {low if low < 0 else high}, outside 0-{classes - 1}{also}; "
            f"check that it is a map of class ids of this data set, not of colours"
        )


def _size(array: NDArray[Any]) -> str:
    return "x".join(map(str, array.shape)) or "a single number"
