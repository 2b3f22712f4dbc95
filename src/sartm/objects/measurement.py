"""What is in a label map, as a table: a row per object, with degrees where thermal has them.

Shapes: (H, W) of one picture, N objects. Work is done on whole pictures, never object by object:
10,000 of them take less than a second.

    ring      what lies 2 to 6 pixels from an object and is not of its class
    contrast  mean of the object - mean of its ring
    inner     |mean - mean of the mask without the pixels within `edge` of its outline|
    outer     |mean - mean of the mask with all pixels within `edge` of its outline|
    error     sqrt(accuracy^2 + (inner + outer)^2)

A mask's outline is right to about a cell of the map that the network drew it from: `edge` is that
cell's side, 1 pixel of maps that people made. An object that is nothing but edge has twice `outer`.
"""

import math
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from sartm.classes import Classes, is_rest
from sartm.errors import InputError
from sartm.objects.parts import Mask, Parts, find_parts

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]
Row = dict[str, Any]
"""One object: text, whole numbers, numbers or None by the names of `COLUMNS`."""

COLUMNS = (
    "id", "class", "area", "left", "top", "width", "height", "x", "y",
    "confidence", "lowest_confidence",
)  # fmt: skip
DEGREES = (
    "celsius_min", "celsius_p5", "celsius_median", "celsius_mean", "celsius_p95", "celsius_max",
    "hottest_x", "hottest_y", "contrast", "celsius_error",
)  # fmt: skip
"""None where thermal has no degrees, or measured nothing of the object."""

_HALF = 0.5
"""Pixels from the centre of one to its side, where outlines run."""
_RING = 2.0, 6.0
_NEAREST = np.ones((3, 3), np.uint8)


@dataclass(frozen=True)
class Measuring:
    """What counts as an object, and how far its temperature is to be believed."""

    min_area: int = 20
    """Pixels of an object at least."""
    accuracy: float = 2.0
    """Of the camera, as data sheets say it: so many degrees, or per cent of degrees above 100."""
    degrees: str = ""
    """What raw thermal values are: a word or GAIN:OFFSET of `io.degrees`; "": what files say."""
    height: float | None = None
    """Metres of the camera above ground, where files do not say it."""

    def __post_init__(self) -> None:
        if self.min_area < 1:
            raise InputError(f"objects of at least {self.min_area} pixels; give 1 or more")
        if not 0 <= self.accuracy <= 1000:
            raise InputError(
                f"the camera's accuracy is {self.accuracy:g} degrees; give 0 to 1000, as 2 for an "
                f"uncooled camera of +-2 degrees or 2 per cent"
            )
        if self.height is not None and not 0 < self.height < 1e6:
            raise InputError(
                f"the camera's height above ground is {self.height:g} metres; give more than 0"
            )


def find_objects(labels: Array, classes: Classes, min_area: int) -> Parts:
    """The connected parts of every class that is not the rest."""
    wanted = [id_ for id_, name in enumerate(classes.names) if not is_rest(name)]
    return find_parts(labels, wanted, min_area)


def measure_objects(
    parts: Parts,
    classes: Classes,
    confidence: Array,
    celsius: Array | None = None,
    unseen: Array | None = None,
    accuracy: float = 2.0,
    edge: float = 1.0,
) -> list[Row]:
    """A row per object.

    Args:
        parts: the objects, as `find_objects` finds them.
        classes: what their ids mean.
        confidence: (H, W) probability that a label is right.
        celsius: (H, W) degrees; None where thermal has none.
        unseen: (H, W) true where `celsius` is no measurement.
        accuracy: `Measuring.accuracy`.
        edge: pixels by which outlines may be wrong; of predictions `Prediction.cell`.
    """
    columns = _describe(parts, classes, confidence)
    if celsius is None or not len(parts):
        columns |= {name: [None] * len(parts) for name in DEGREES}
    else:
        seen = np.isfinite(celsius) if unseen is None else np.isfinite(celsius) & ~unseen
        columns |= _warmth(parts, celsius.astype(np.float32), seen, accuracy, edge)
    names = (*COLUMNS, *DEGREES)
    table = [columns[name] for name in names]
    return [dict(zip(names, values, strict=True)) for values in zip(*table, strict=True)]


def _describe(parts: Parts, classes: Classes, confidence: Array) -> dict[str, list[Any]]:
    place = np.flatnonzero(parts.where)
    owner = parts.where.ravel()[place] - 1
    sure = confidence.ravel()[place].astype(np.float64)
    lowest = np.ones(len(parts))
    np.minimum.at(lowest, owner, sure)
    mean = np.bincount(owner, sure, len(parts)) / parts.areas
    columns: dict[str, list[Any]] = {
        "id": list(range(1, len(parts) + 1)),
        "class": [classes.names[id_] for id_ in parts.ids.tolist()],
        "area": parts.areas.tolist(),
    }
    names = ("left", "top", "width", "height")
    columns |= {name: parts.boxes[:, at].tolist() for at, name in enumerate(names)}
    columns |= {name: parts.centres[:, at].round(2).tolist() for at, name in enumerate("xy")}
    return columns | {
        "confidence": mean.round(4).tolist(), "lowest_confidence": lowest.round(4).tolist(),
    }  # fmt: skip


def _warmth(
    parts: Parts, celsius: Array, seen: Array, accuracy: float, edge: float
) -> dict[str, list[Any]]:
    """The columns of `DEGREES`."""
    place = np.flatnonzero((parts.where > 0) & seen)
    owner, values = parts.where.ravel()[place] - 1, celsius.ravel()[place]
    count = np.bincount(owner, minlength=len(parts))
    ranked, begin = _rank(owner, values), np.cumsum(count) - count

    def at(share: float) -> Floats:
        """The percentile of every object, between two pixels where it falls there."""
        rank = np.maximum(count - 1, 0) * share
        low = begin + rank.astype(np.int64)
        low, high = (np.minimum(at, len(ranked) - 1) for at in (low, low + 1))
        return np.asarray(ranked[low] + (rank % 1) * (ranked[high] - ranked[low]))

    if not len(place):
        return {name: [None] * len(parts) for name in DEGREES}
    most = at(1)
    hottest = np.zeros(len(parts), np.int64)
    peak = values == most.astype(np.float32)[owner]
    hottest[owner[peak][::-1]] = place[peak][::-1]  # of several the first
    row, column = np.divmod(hottest, celsius.shape[1])
    mean = _means(owner, values, len(parts))
    core, wide, around = _surroundings(parts, celsius, seen, edge)
    outer = np.nan_to_num(np.abs(wide - mean))
    inner = np.where(np.isfinite(core), np.abs(mean - core), outer)
    error = np.hypot(accuracy * np.maximum(1, np.abs(mean) / 100), inner + outer)
    found: dict[str, Array] = {
        "celsius_min": at(0), "celsius_p5": at(0.05), "celsius_median": at(0.5),
        "celsius_mean": mean, "celsius_p95": at(0.95), "celsius_max": most,
        "hottest_x": column, "hottest_y": row, "contrast": mean - around, "celsius_error": error,
    }  # fmt: skip
    measured = count > 0
    return {name: _listed(column, measured & np.isfinite(column)) for name, column in found.items()}


def _rank(owner: Array, values: Array) -> Floats:
    """All values, those of each object together and in order; a plain sort of whole numbers."""
    bits = values.astype(np.float32).view(np.uint32)
    # Floats as whole numbers of the same order: below 0 the bits run the other way.
    ordered = np.where(bits >> 31, ~bits, bits | np.uint32(1 << 31))
    keys = owner.astype(np.uint64) << np.uint64(32) | ordered
    keys.sort()
    ordered = keys.astype(np.uint32)
    bits = np.where(ordered >> 31, ordered & np.uint32((1 << 31) - 1), ~ordered)
    return np.asarray(bits.astype(np.uint32).view(np.float32).astype(np.float64))


def _means(owner: Array, values: Array, count: int) -> Floats:
    """NaN where there is no value."""
    sums = np.bincount(owner, values.astype(np.float64), count)
    with np.errstate(invalid="ignore"):
        return np.asarray(sums / np.bincount(owner, minlength=count))


def _surroundings(
    parts: Parts, celsius: Array, seen: Array, edge: float
) -> tuple[Floats, Floats, Floats]:
    """Means of each object without its edge, with as much more, and of its ring; NaN for none."""
    core, count = _core(parts, edge) & seen, len(parts)
    inner = _means(parts.where[core] - 1, celsius[core], count)
    mine = (parts.where > 0) & seen
    owner, values = parts.where[mine] - 1, celsius[mine].astype(np.float64)
    sums = np.stack([np.bincount(owner, values, count), np.zeros(count)])
    totals = np.stack([np.bincount(owner, minlength=count), np.zeros(count)])
    reach = max(_RING[1], edge + _HALF)
    for id_ in np.unique(parts.ids):
        area = _around(parts.boxes[parts.ids == id_], celsius.shape, math.ceil(reach))
        distance, owner, place = _nearest(parts.where[area], parts.ids == id_, seen[area], reach)
        values = celsius[area].ravel()[place].astype(np.float64)
        ring = (distance > _RING[0]) & (distance <= _RING[1])
        for row, near in enumerate((distance < edge + _HALF, ring)):
            sums[row] += np.bincount(owner[near], values[near], count)
            totals[row] += np.bincount(owner[near], minlength=count)
    with np.errstate(invalid="ignore"):
        outer, around = sums / totals
    return inner, outer, around


def _core(parts: Parts, edge: float) -> Mask:
    """(H, W) true on pixels of objects that are farther than `edge` from any outline."""
    numbers, mine = parts.where.astype(np.float32), parts.where > 0
    at_edge = mine & (cv2.erode(numbers, _NEAREST) != cv2.dilate(numbers, _NEAREST))
    # Those of other objects are never nearer than one's own.
    depth = cv2.distanceTransform((~at_edge).astype(np.uint8), cv2.DIST_L2, 5)
    return np.asarray(mine & (depth > edge - _HALF))


def _around(boxes: Array, shape: tuple[int, ...], margin: int) -> tuple[slice, slice]:
    """Rows and columns of what lies in objects or so many pixels around them."""
    left, top = (max(0, int(side) - margin) for side in boxes[:, :2].min(0))
    right, bottom = (int(side) + margin for side in (boxes[:, :2] + boxes[:, 2:]).max(0))
    return slice(top, min(bottom, shape[0])), slice(left, min(right, shape[1]))


def _nearest(
    where: Array, of_class: Array, seen: Array, reach: float
) -> tuple[Array, Array, Array]:
    """Of pixels up to `reach` from objects of a class: how far, from which object, and where."""
    inside = np.concatenate([[False], of_class])[where]
    distance, labels = cv2.distanceTransformWithLabels(
        (~inside).astype(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
    )
    owner = np.zeros(int(labels.max()) + 1, np.int32)
    owner[labels[inside]] = where[inside] - 1
    place = np.flatnonzero((distance <= reach) & ~inside & seen)
    return distance.ravel()[place], owner[labels.ravel()[place]], place


def _listed(column: Array, known: Array) -> list[Any]:
    kind = column.round(2) if column.dtype.kind == "f" else column
    return [value if there else None
            for value, there in zip(kind.tolist(), known.tolist(), strict=True)]  # fmt: skip
