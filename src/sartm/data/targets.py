"""What clicks are meant for, the things of a label map, and the clicks that somebody would make.

Clicks as in the SAM papers (arXiv:2304.02643, arXiv:2408.00714): the first inside the object, or a
box around it that is not exact; each further one where the mask is wrong the farthest.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from sartm.classes import Classes

Array = npt.NDArray[Any]
Truth = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Target:
    """One thing of a label map, as a mask to be clicked together."""

    class_id: int
    mask: Truth
    """(H, W)."""
    area: int
    """Pixels."""
    box: tuple[int, int, int, int]
    """x0, y0, x1, y1; the last two are beyond it."""


def find_targets(
    label: Array, classes: Classes, smallest: int = 1, instances: Array | None = None
) -> list[Target]:
    """The things of a label map (H, W): connected parts of a class, or of an instance.

    The leftover of all other classes is none. Parts of one instance that something hides between
    are one object.

    Args:
        label: class ids.
        classes: what they mean.
        smallest: pixels that an object has at least.
        instances: (H, W) whole numbers from 1 for each thing, 0 where there is none; None: each
            connected part is one.
    """
    found = []
    for class_id in np.unique(label).tolist():
        if class_id in (classes.rest, classes.ignore) or class_id >= len(classes):
            continue
        here = label == class_id
        if instances is not None:
            for number in np.unique(instances[here]).tolist():
                if number:
                    found += _measure(class_id, here & (instances == number), smallest)
            here &= instances == 0
        count, parts, stats, _ = cv2.connectedComponentsWithStats(here.astype(np.uint8))
        for index in range(1, count):
            if stats[index, cv2.CC_STAT_AREA] >= smallest:
                found += _measure(class_id, parts == index, smallest)
    return found


def _measure(class_id: int, mask: Truth, smallest: int) -> list[Target]:
    area = int(mask.sum())
    if area < max(1, smallest):
        return []
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    box = (int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)
    return [Target(class_id, mask, area, box)]


def middle(region: Truth) -> tuple[tuple[int, int], float]:
    """The pixel (x, y) of a region (H, W) that lies deepest in it, and how deep."""
    rows, columns = np.flatnonzero(region.any(1)), np.flatnonzero(region.any(0))
    if not len(rows):
        return (0, 0), 0.0
    part = region[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    ringed = cv2.copyMakeBorder(part.astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    depth = cv2.distanceTransform(ringed, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)[1:-1, 1:-1]
    row, column = np.unravel_index(int(depth.argmax()), depth.shape)
    return (int(column) + int(columns[0]), int(row) + int(rows[0])), float(depth[row, column])


def next_click(
    mask: Truth | None, truth: Truth, ignored: Truth | None = None
) -> tuple[tuple[int, int], int] | None:
    """Where somebody would click next, (x, y), and whether that adds (1) or takes away (0).

    It is the deepest pixel of all that the mask has too little or too much. None: it is right.

    Args:
        mask: (H, W) so far; None: nothing yet.
        truth: (H, W) what is wanted.
        ignored: (H, W) pixels that nobody judges.
    """
    mask = np.zeros_like(truth) if mask is None else mask
    missing, extra = truth & ~mask, mask & ~truth
    if ignored is not None:
        missing, extra = missing & ~ignored, extra & ~ignored
    (add, depth), (take, other) = middle(missing), middle(extra)
    if max(depth, other) == 0:
        return None
    return (add, 1) if depth >= other else (take, 0)


def inside_click(truth: Truth, draw: np.random.Generator) -> tuple[int, int]:
    """A pixel (x, y) that somebody may begin with: anywhere in the object, but not at its rim."""
    rows, columns = np.nonzero(truth)
    ringed = cv2.copyMakeBorder(truth.astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    depth = cv2.distanceTransform(ringed, cv2.DIST_L2, 3)[1:-1, 1:-1][rows, columns]
    deep = np.flatnonzero(depth >= draw.uniform(0.3, 1.0) * depth.max())
    index = int(draw.choice(deep))
    return int(columns[index]), int(rows[index])


def noisy_box(
    found: Target, draw: np.random.Generator, size: Sequence[int]
) -> tuple[float, float, float, float]:
    """A box around an object as somebody draws it: each side off by a tenth of it, 20 pixels at
    most, in an image of `size`, height and width."""
    x0, y0, x1, y1 = found.box
    spread = [min(20.0, 0.1 * side) for side in (x1 - x0, y1 - y0)] * 2
    noise = np.clip(draw.normal(0, spread), -20, 20)
    left, top, right, bottom = (np.array([x0, y0, x1, y1]) + noise).tolist()
    left, top = max(0.0, left), max(0.0, top)
    right, bottom = min(float(size[1]), right), min(float(size[0]), bottom)
    return left, top, max(right, left + 2), max(bottom, top + 2)


def iou(mask: Truth, truth: Truth, ignored: Truth | None = None) -> float:
    """Intersection over union of two masks (H, W), of the pixels that are not ignored."""
    if ignored is not None:
        mask, truth = mask & ~ignored, truth & ~ignored
    either = int((mask | truth).sum())
    return int((mask & truth).sum()) / either if either else 1.0
