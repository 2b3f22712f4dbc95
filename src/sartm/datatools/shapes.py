"""Areas as people's tools store them, polygons and run lengths, to masks; and outlines of masks.

Coordinates are continuous: the first pixel reaches from 0 to 1, its centre is at 0.5.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from sartm.io.run_lengths import decode_mask, decode_runs

Mask = npt.NDArray[np.bool_]
Points = npt.NDArray[np.float64]
_EDGES = 1024
"""Edges of a polygon that are filled at a time: each has a number per row that it passes."""


@dataclass(frozen=True, eq=False)
class Region:
    """One area of one class in an image of `size`."""

    name: str
    """Of the class."""
    polygons: tuple[Points, ...] = ()
    """Each (N, 2) x and y in pixels; filled by even and odd, so that one may be a hole."""
    mask: Callable[[], Mask] | None = None
    """Makes (H, W) instead of polygons, when it is drawn: many in memory at once would be large."""
    order: int = 0
    """What lies above; of equals the later one."""

    def draw(self, size: tuple[int, int], scale: tuple[float, float] = (1.0, 1.0)) -> Mask:
        """(H, W) true inside, with coordinates times `scale` (x, y)."""
        if self.mask is not None:
            mask = self.mask()
            if mask.shape == size:
                return mask
            fitted = cv2.resize(mask.astype(np.uint8), size[::-1], interpolation=cv2.INTER_NEAREST)
            return np.asarray(fitted, bool)
        return fill_polygons([points * scale for points in self.polygons], size)


def fill_polygons(polygons: Iterable[Points], size: tuple[int, int]) -> Mask:
    """(H, W) true where the centre of a pixel lies inside, by even and odd.

    OpenCV's fill has the outline too, half a pixel more on every side. Here every edge flips what
    lies to the right of it in the rows whose centres it passes.
    """
    height, width = size
    flips = np.zeros((height, width + 1), np.uint8)
    far = 16.0 * max(size)
    for points in polygons:
        corners = np.clip(points, -far, far)
        edges = np.stack([corners, np.roll(corners, -1, axis=0)], axis=1)
        for start in range(0, len(edges), _EDGES):
            _flip(flips, edges[start : start + _EDGES])
    return np.asarray(np.cumsum(flips[:, :-1], axis=1, dtype=np.uint8) % 2, bool)


def _flip(flips: npt.NDArray[np.uint8], edges: Points) -> None:
    """Count at which columns of each row edges (N, 2, 2), of two corners x and y, pass."""
    height, columns = flips.shape
    # From the upper corner: both directions of a cut between an outline and its hole are one line.
    order = np.argsort(edges[:, :, 1:], axis=1, kind="stable")
    edges = np.take_along_axis(edges, order, axis=1)
    (x, top), (end, bottom) = edges[:, 0].T, edges[:, 1].T
    first, last = (np.clip(np.ceil(y - 0.5), 0, height).astype(int) for y in (top, bottom))
    counts = last - first
    edge = np.repeat(np.arange(len(counts)), counts)
    row = np.arange(len(edge)) + np.repeat(first - (np.cumsum(counts) - counts), counts)
    share = (row + 0.5 - top[edge]) / (bottom - top)[edge]
    column = np.ceil(x[edge] + share * (end - x)[edge] - 0.5)
    np.add.at(flips, (row, np.clip(column, 0, columns - 1).astype(int)), 1)


def read_points(values: Any) -> Points:
    """(N, 2) of a flat list of x and y, or of a list of pairs; ValueError if it is none."""
    points = np.asarray(values, np.float64).reshape(-1, 2)
    if len(points) < 3 or not np.isfinite(points).all():
        raise ValueError("a polygon needs three corners of finite numbers")
    return points


def decode_coco(segmentation: dict[str, Any], size: tuple[int, int]) -> Mask:
    """COCO's run lengths, by columns, plain or compressed into a text, to (H, W)."""
    counts, shape = segmentation["counts"], tuple(segmentation["size"])
    if shape != size:
        raise ValueError(f"run lengths for {shape}, but the image is {size}")
    if isinstance(counts, str):
        return decode_mask(counts, size)
    return decode_runs(counts, size[0] * size[1]).reshape(size[::-1]).T


def trace(mask: Mask) -> list[Points]:
    """Outlines (N, 2) of the connected parts of (H, W), holes joined to them by a cut.

    They run along the edges of pixels, so that `fill_polygons` gives the mask again.
    """
    # OpenCV's contours run through pixels, of twice the size here: each corner lies beside one.
    large = mask.astype(np.uint8).repeat(2, axis=0).repeat(2, axis=1)
    found, tree = cv2.findContours(large, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    outlines: dict[int, Points] = {}
    if tree is None:
        return []
    corners = [((contour[:, 0] + 1) // 2).astype(np.float64) for contour in found]
    for index, (_, _, _, parent) in enumerate(tree[0]):
        if parent < 0:
            outlines[index] = corners[index]
    for index, (_, _, _, parent) in enumerate(tree[0]):
        if parent >= 0:
            outlines[parent] = _join(outlines[parent], corners[index])
    return list(outlines.values())


def _join(outline: Points, hole: Points) -> Points:
    """One closed line round both, over the shortest way between two of their corners."""
    distance = np.linalg.norm(outline[:, None] - hole[None], axis=2)
    at, there = np.unravel_index(int(distance.argmin()), distance.shape)
    round_it = np.concatenate([hole[there:], hole[: there + 1]])
    return np.concatenate([outline[: at + 1], round_it, outline[at:]])
