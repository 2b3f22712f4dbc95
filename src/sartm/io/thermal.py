"""Raw thermal values to [0, 1]: the rule belongs to a model, the levels to one image."""

import math
from dataclasses import dataclass
from typing import Any, Literal

import cv2
import numpy as np
import numpy.typing as npt

from sartm.config import ThermalRule
from sartm.errors import InputError

Array = npt.NDArray[Any]
Levels = tuple[float, float]
"""The raw values that become 0 and 1."""
ThermalRange = Literal["auto", "model"] | Levels
"""What of the raw values becomes [0, 1] at prediction: `model`, by the model's rule alone; `auto`,
by it where it takes such values, else from the image itself; or two values of the file."""

AUTO = 1.0, 99.9
"""Percentiles of an image between which `auto` scales it."""
_NO_DATA = {0, 999, 9999, 99999, 32767, 32768, 65535}
_NO_VALUE = 1e9
"""What stands for "no data", of either sign; larger values are no measurement at all."""
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
) -> Levels:
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
                f"percentile). predict, video, app and evaluate --thermal-range auto scale each "
                f"image by itself"
            )
        return 0.0, 255.0
    if rule.rule == "range":
        return rule.low, rule.high
    return _percentiles(_measured(raw, unseen), rule.low, rule.high)


def read_range(text: str) -> ThermalRange:
    """What --thermal-range says: auto, model or LOW:HIGH.

    Raises:
        InputError: anything else, or LOW not below HIGH.
    """
    if text == "auto":
        return "auto"
    if text == "model":
        return "model"
    try:
        low, high = (float(part) for part in text.split(":"))
    except ValueError:
        low, high = math.nan, math.nan
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise InputError(
            f"the thermal range is {text[:60]!r}; give auto, model, or LOW:HIGH in the values of "
            f"the file, the lower one first, such as 15:40"
        )
    return low, high


def format_range(how: ThermalRange) -> str:
    """The text that `read_range` reads."""
    return how if isinstance(how, str) else f"{how[0]:.10g}:{how[1]:.10g}"


def is_deeper(raw: Array, rule: ThermalRule) -> bool:
    """Whether a model's rule refuses raw thermal values for having more than 8 bits."""
    return rule.rule == "uint8" and raw.dtype != np.uint8


def choose_levels(
    raw: Array,
    rule: ThermalRule,
    how: ThermalRange,
    name: str = "thermal",
    unseen: npt.NDArray[np.bool_] | None = None,
    black_hot: bool = False,
) -> Levels:
    """The raw values of an image (H, W) that become 0 and 1 at prediction.

    Args:
        raw: as read, inverted where it was `black_hot`.
        rule: the model's.
        how: what was asked for; two values are those of the file, before it was inverted.
        name: which image it is, for messages.
        unseen: (H, W) true where nothing was measured.
        black_hot: whether `raw` was inverted when it was read.

    Raises:
        InputError: `how` is `model`, and its rule takes no such values.
    """
    if not isinstance(how, str):
        return invert_levels(how, raw.dtype) if black_hot else how
    if how == "model" or not is_deeper(raw, rule):
        return thermal_levels(raw, rule, name, unseen)
    return stretch_levels(raw, unseen)


def stretch_levels(raw: Array, unseen: npt.NDArray[np.bool_] | None = None) -> Levels:
    """The `AUTO` percentiles of what was measured in an image (H, W); all of it where they meet.

    A lowest or highest value that programs write for "no data", such as 0 or -9999, is no
    measurement where it lies further from all others than these from each other.
    """
    measured = _measured(raw, unseen)
    for mark, others in ((measured.min(), np.greater), (measured.max(), np.less)):
        usual = abs(float(mark)) in _NO_DATA or abs(float(mark)) > _NO_VALUE
        rest = measured[others(measured, mark)] if usual else measured[:0]
        if rest.size:
            low, high = float(rest.min()), float(rest.max())
            if high > low and max(low - float(mark), float(mark) - high) > high - low:
                measured = rest
    low, high = _percentiles(measured, *AUTO)
    return (low, high) if low < high else (float(measured.min()), float(measured.max()))


def invert_levels(levels: Levels, kind: "np.dtype[Any]") -> Levels:
    """Levels of a file's values as those of the inverted image, or back (`cameras.invert_thermal`).

    `kind` is the number type of the file.
    """
    low, high = levels
    white = float(np.iinfo(kind).max) if kind.kind == "u" else 0.0
    return white - high, white - low


@dataclass(frozen=True)
class UsedRange:
    """The range by which an image was scaled, as its file's values."""

    low: float
    high: float
    unit: Literal["display", "counts", "celsius", "values"]
    """8 bits, 16 bits, degrees of a radiometric file, or floats that say nothing of themselves."""
    by: Literal["rule", "image", "film", "option"]
    """The model's rule, percentiles of the image or of the film so far, or --thermal-range."""

    def __str__(self) -> str:
        unit = {"celsius": "degrees Celsius", "display": "of 255"}.get(self.unit, self.unit)
        return f"{self.low:.6g} to {self.high:.6g} {unit}"


def describe_levels(
    levels: Levels,
    raw: Array,
    rule: ThermalRule,
    how: ThermalRange,
    black_hot: bool = False,
    radiometric: bool = False,
) -> UsedRange:
    """What `choose_levels` chose for an image, in words for users; `raw` gives its number type."""
    low, high = invert_levels(levels, raw.dtype) if black_hot else levels
    by: Literal["rule", "image", "option"] = "rule"
    if not isinstance(how, str):
        by = "option"
    elif how == "auto" and is_deeper(raw, rule):
        by = "image"
    plain: Literal["display", "counts", "values"] = "values"
    if raw.dtype.kind == "u":
        plain = "display" if raw.dtype == np.uint8 else "counts"
    return UsedRange(round(low, 4), round(high, 4), "celsius" if radiometric else plain, by)


def explain_auto(used: UsedRange) -> str:
    """What is said once where `auto` scales images that the model's rule does not take."""
    whose = "the first frame" if used.by == "film" else "the first image"
    each = "the film is scaled by one range that follows its" if used.by == "film" else (
        "each image is scaled between its own"
    )  # fmt: skip
    return (
        f"thermal has more than the 8 bits of the model's rule: {each} percentiles {AUTO[0]:g} "
        f"and {AUTO[1]:g} ({whose}: {used}). --thermal-range LOW:HIGH fixes one range, "
        f"--thermal-range model refuses such files"
    )


def _measured(raw: Array, unseen: npt.NDArray[np.bool_] | None) -> Array:
    """Raw values (N,) of the pixels that are not `unseen`."""
    return raw.ravel() if unseen is None or unseen.all() else raw[~unseen]


def scale_thermal(raw: Array, levels: Levels) -> npt.NDArray[np.float32]:
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


def _percentiles(raw: Array, low: float, high: float) -> Levels:
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
