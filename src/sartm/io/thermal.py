"""Raw thermal values to [0, 1]: the rule belongs to a model, the levels to one image."""

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from sartm.config import ThermalRule
from sartm.errors import InputError

Array = npt.NDArray[Any]

_PART = 2**18
"""Pixels that are counted at a time: counting takes 8 bytes a pixel."""


def apply_thermal_rule(
    raw: Array,
    rule: ThermalRule,
    name: str = "thermal",
    unseen: npt.NDArray[np.bool_] | None = None,
) -> npt.NDArray[np.float32]:
    """Scale raw thermal values (H, W) to float32 (H, W) in [0, 1] by a model's rule.

    `percentile` equals numpy's linear percentiles of all measured pixels, those not `unseen`; a
    constant image gives zeros. `name` says in messages which image it was.

    Raises:
        InputError: rule `uint8` with other than 8-bit data.
    """
    return scale_thermal(raw, thermal_levels(raw, rule, name, unseen))


def thermal_levels(
    raw: Array,
    rule: ThermalRule,
    name: str = "thermal",
    unseen: npt.NDArray[np.bool_] | None = None,
) -> tuple[float, float]:
    """The raw values that a rule maps to 0 and 1 in the whole image `raw` (H, W).

    Apart from `scale_thermal`, so that a crop keeps the levels of its image. What stands in for
    pixels that are `unseen` (`Sample.unseen`) does not count.
    """
    if rule.rule == "uint8":
        if raw.dtype != np.uint8:
            low, high = (f"{value:g}" for value in (raw.min(), raw.max()))
            raise InputError(
                f"{name}: {raw.dtype} thermal values ({low} to {high}), but the model's thermal "
                f"rule is uint8. A model for them: sartm train RECIPE --set model.thermal.rule="
                f"range --set model.thermal.low={low} --set model.thermal.high={high} (or "
                f"percentile)"
            )
        return 0.0, 255.0
    if rule.rule == "range":
        return rule.low, rule.high
    measured = raw.ravel() if unseen is None or unseen.all() else raw[~unseen]
    return _percentiles(measured, rule.low, rule.high)


def scale_thermal(raw: Array, levels: tuple[float, float]) -> npt.NDArray[np.float32]:
    """Raw values of any shape to [0, 1] between two levels, clipped; equal levels split at them."""
    low, high = levels
    if high <= low:  # the limit of an ever narrower range: no division by zero
        return (raw > low).astype(np.float32)
    if raw.dtype == np.uint8:
        table = ((np.arange(256) - low) / (high - low)).clip(0, 1).astype(np.float32)
        return np.asarray(cv2.LUT(raw, table))
    # Subtract in double precision: 16-bit counts around 30000 with a range of 50 keep their steps.
    scaled = (raw - np.float64(low)) / (high - low)
    return np.asarray(scaled.clip(0, 1).astype(np.float32))


def _percentiles(raw: Array, low: float, high: float) -> tuple[float, float]:
    """Two percentiles of values (N,); integers by counting, many times faster than sorting."""
    if raw.dtype.kind != "u":
        first, second = np.percentile(raw, (low, high))
        return float(first), float(second)
    counts = np.zeros(2 ** (8 * raw.itemsize), np.int64)
    for start in range(0, len(raw), _PART):
        counts += np.bincount(raw[start : start + _PART], minlength=len(counts))
    below = np.cumsum(counts)
    values = []
    for percent in (low, high):
        position = percent / 100 * (raw.size - 1)
        rank = int(position)
        ranks = np.array([rank, min(rank + 1, raw.size - 1)])
        first, second = np.searchsorted(below, ranks, side="right")
        values.append(float(first + (position - rank) * (second - first)))
    return values[0], values[1]
