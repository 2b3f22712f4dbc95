"""Thermal pixels without a measurement: how a file marks them, and what stands in for them."""

from threading import Lock
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from sartm.errors import InputError

Array = npt.NDArray[Any]
Mask = npt.NDArray[np.bool_]

_FLOAT_MARK = -9999.0
"""What geographic files use for "no data"; no temperature, and far below any count."""


def find_holes(raw: Array, value: float | None) -> Mask | None:
    """(H, W) true where raw thermal holds `value`; None where it never does.

    An image of holes alone has nothing to fill them from, so it counts as without any.
    """
    if value is None:
        return None
    holes = np.asarray(raw == value)
    return None if holes.all() or not holes.any() else holes


def fill_holes(raw: Array, value: float) -> Array:
    """Give pixels of raw thermal (H, W) that hold `value` that of the nearest measured pixel.

    A thermal image projected into another camera (PST900) has such pixels where nothing was seen.
    An image of holes alone stays as it is.
    """
    holes = find_holes(raw, value)
    if holes is None:
        return raw
    # labels number the measured pixels in the order of the rows
    _, nearest = cv2.distanceTransformWithLabels(
        holes.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_5, labelType=cv2.DIST_LABEL_PIXEL
    )
    return np.asarray(raw[~holes][nearest - 1])


class UsedValues:
    """The raw values that occur in a set of thermal images, to find one that does not.

    Images may be added from several threads.
    """

    def __init__(self) -> None:
        self.kind: np.dtype[Any] | None = None
        self._counts = np.zeros(65536, bool)
        self._lowest = 0.0
        self._lock = Lock()

    def add(self, raw: Array, unseen: Mask | None = None) -> None:
        """Take in an image (H, W); pixels that are `unseen` hold nothing.

        InputError for another number type than that of the images before.
        """
        measured = raw.ravel() if unseen is None else raw[~unseen]
        with self._lock:
            if self.kind not in (None, raw.dtype):
                raise InputError(
                    f"thermal images are {self.kind} and {raw.dtype}; write all in one number type"
                )
            self.kind = raw.dtype
            if raw.dtype.kind == "u":
                self._counts[measured] = True
            self._lowest = min(self._lowest, float(measured.min(initial=0)))

    def free(self) -> float:
        """A value for pixels without a measurement.

        Of integers 0 if no pixel holds it, else the largest value that none holds; 0 where all
        are in use, as they may be in 8 bits. Of floats -9999, or times a power of ten.
        """
        if self.kind is None or self.kind.kind != "u":
            mark = _FLOAT_MARK
            while mark >= self._lowest:
                mark *= 10
            return float(np.float32(mark))
        unused = np.flatnonzero(~self._counts[: np.iinfo(self.kind).max + 1])
        return float(unused[-1]) if self._counts[0] and unused.size else 0.0


def mark_holes(raw: Array, unseen: Mask, value: float) -> Array:
    """Raw thermal (H, W) with `value` where nothing was seen, and nowhere else.

    A measured pixel that holds it by chance moves by one step: interpolation gives values that
    were free, and in 8 bits none may be.
    """
    marked = raw.copy()
    if raw.dtype.kind == "u":
        marked[raw == value] = value + 1 if value < np.iinfo(raw.dtype).max else value - 1
    marked[unseen] = value
    return marked
