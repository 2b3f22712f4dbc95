"""How far a confidence can be believed: counts per confidence, calibration error, risk.

    calibration error   ECE = sum over 15 equal bins of share * |mean confidence - share right|
    risk at coverage c  share wrong among the surest c of the pixels

Pixels are counted twice: all of them, and those of objects, where the truth or the label is not
background. Background is class 0 where that is the leftover of the others; without one every pixel
is an object's. Of a rightly calibrated model the error on objects is not 0: a pixel labelled
background is counted among the objects only if it is wrong.

Sources: ECE, Guo et al., arXiv:1706.04599; risk and coverage, Geifman and El-Yaniv,
arXiv:1705.08500.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from sartm.classes import Classes

Array = npt.NDArray[Any]
Counts = npt.NDArray[np.float64]

BINS = 15
GROUPS = ("all", "objects")
COVERAGES = (1.0, 0.95, 0.9, 0.8, 0.7, 0.6, 0.5)
"""Those that a report shows."""

_FINE: Counts = 1 / (1 + np.exp(-np.arange(-4, 14, 0.05)))
_EDGES: Counts = np.unique(np.concatenate([np.arange(1, BINS) / BINS, _FINE[_FINE < 1]]))
"""Between the cells that are counted: those of the bins, and steps of the log-odds among them, as
most pixels have a confidence above 0.99."""
_BIN_OF_CELL = np.searchsorted(np.arange(1, BINS) / BINS, [0.0, *_EDGES], side="right")


class Reliability:
    """Pixels by their confidence, summed over pairs; 13 KB however many there are."""

    def __init__(self) -> None:
        self.counts: Counts = np.zeros((len(GROUPS), 3, len(_EDGES) + 1))
        """Per group pixels, right pixels and the sum of their confidences, in each cell."""

    def add(self, confidence: Array, labels: Array, truth: Array, classes: Classes) -> None:
        """Count a pair: (H, W) each; pixels whose truth is `classes.ignore` do not count."""
        known = truth != classes.ignore
        found, right = labels[known], labels[known] == truth[known]
        sure = confidence[known].astype(np.float64)
        cells = np.searchsorted(_EDGES, sure, side="right")
        groups = [np.ones(found.shape, bool)] * 2
        if classes.rest is not None:
            groups[1] = (found != classes.rest) | (truth[known] != classes.rest)
        length = len(_EDGES) + 1
        for counts, chosen in zip(self.counts, groups, strict=True):
            at = cells[chosen]
            counts[0] += np.bincount(at, minlength=length)
            counts[1] += np.bincount(at, right[chosen], length)
            counts[2] += np.bincount(at, sure[chosen], length)

    def merge(self, other: "Reliability") -> None:
        """Add the counts of other pairs."""
        self.counts += other.counts

    def bins(self, group: str) -> Counts:
        """(3, 15): pixels, right pixels and the sum of confidences in equal bins of confidence."""
        cells = self.counts[GROUPS.index(group)]
        return np.stack([np.bincount(_BIN_OF_CELL, row, BINS) for row in cells])

    def error(self, group: str) -> float:
        """Expected calibration error as a fraction; NaN where nothing was counted."""
        return _error(*self.bins(group))

    def risks(self, group: str, coverages: tuple[float, ...] = COVERAGES) -> list[float]:
        """Share wrong among the surest pixels, for each share of pixels; NaN where none is."""
        pixels, right, _ = self.counts[GROUPS.index(group)][:, ::-1]
        total = pixels.sum()
        if not total:
            return [float("nan")] * len(coverages)
        covered = np.concatenate([[0.0], np.cumsum(pixels)])
        wrong = np.concatenate([[0.0], np.cumsum(pixels - right)])
        taken = np.array(coverages) * total
        return [float(risk) for risk in np.interp(taken, covered, wrong) / taken]

    def describe(self) -> dict[str, dict[str, Any]]:
        """What report.json holds, in percent: per group error, confidence, accuracy, bins, risk."""
        return {group: self._describe(group) for group in GROUPS if self.bins(group)[0].any()}

    def _describe(self, group: str) -> dict[str, Any]:
        pixels, right, sure = self.bins(group)
        rows = [
            {"pixels": int(n), "confidence": _percent(s / n), "right": _percent(r / n)}
            for n, r, s in zip(pixels, right, sure, strict=True)
            if n
        ]
        return {
            "error": _percent(self.error(group)),
            "confidence": _percent(sure.sum() / pixels.sum()),
            "right": _percent(right.sum() / pixels.sum()),
            "pixels": int(pixels.sum()),
            "bins": rows,
            "risk": [
                {"coverage": _percent(coverage), "wrong": _percent(risk)}
                for coverage, risk in zip(COVERAGES, self.risks(group), strict=True)
            ],
        }


def calibration_error(confidence: Counts, pixels: Counts, right: Counts) -> float:
    """ECE of (N,) confidences, at each so many pixels of which so many are right."""
    bins = np.minimum((confidence * BINS).astype(np.intp), BINS - 1)
    sums = [np.bincount(bins, part, BINS) for part in (pixels, right, pixels * confidence)]
    return _error(*(np.asarray(part, np.float64) for part in sums))


def _error(pixels: Counts, right: Counts, sure: Counts) -> float:
    total = pixels.sum()
    return float(np.abs(sure - right).sum() / total) if total else float("nan")


def _percent(fraction: float) -> float:
    return round(100 * float(fraction), 4)
