"""Connected parts of a label map, found once for everybody who counts or writes objects."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Parts:
    """The connected parts of the classes of one label map; part n lies at n - 1 of every table."""

    where: npt.NDArray[np.int32]
    """(H, W) number of the part, from 1; 0 where there is none."""
    ids: npt.NDArray[np.int64]
    """(N,) class of each."""
    boxes: npt.NDArray[np.int64]
    """(N, 4) left, top, width, height."""
    areas: npt.NDArray[np.int64]
    """(N,) pixels, without those of holes."""
    centres: npt.NDArray[np.float64]
    """(N, 2) mean x and y of its pixels; the first pixel's centre is at 0."""

    def __len__(self) -> int:
        return len(self.ids)

    def mask(self, number: int) -> Mask:
        """(height, width) of its box: true on the part that is called `number`, from 1."""
        left, top, width, height = self.boxes[number - 1]
        return np.asarray(self.where[top : top + height, left : left + width] == number)


def find_parts(label: Array, ids: Iterable[int], min_area: int = 1) -> Parts:
    """The 8-connected parts of each class of (H, W) ids, of at least so many pixels.

    Ordered by class as `ids` are, then by the top and the left side of their boxes.
    """
    where = np.zeros(label.shape, np.int32)
    tables: list[tuple[int, Array, Array]] = []
    count = 0
    there = set(np.unique(label).tolist())
    for id_ in ids:
        if id_ not in there:
            continue
        wanted = (label == id_).astype(np.uint8)
        _, found, stats, centres = cv2.connectedComponentsWithStats(wanted, connectivity=8)
        order = np.lexsort((stats[:, cv2.CC_STAT_LEFT], stats[:, cv2.CC_STAT_TOP]))
        order = order[(stats[order, cv2.CC_STAT_AREA] >= min_area) & (order > 0)]  # 0: the others
        numbers = np.zeros(len(stats), np.int32)
        numbers[order] = np.arange(count + 1, count + 1 + len(order))
        where += numbers[found]
        count += len(order)
        tables.append((id_, stats[order], centres[order]))
    stats = np.concatenate([table for _, table, _ in tables] or [np.zeros((0, 5))]).astype(np.int64)
    return Parts(
        where,
        np.repeat([id_ for id_, _, _ in tables], [len(t) for _, t, _ in tables]).astype(np.int64),
        stats[:, :4],
        stats[:, cv2.CC_STAT_AREA],
        np.concatenate([centres for _, _, centres in tables] or [np.zeros((0, 2))]),
    )
