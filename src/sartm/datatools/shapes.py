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
_FRACTION = 4
"""Binary digits that a corner keeps."""


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
    """(H, W) true inside; right to a pixel along the edge."""
    canvas = np.zeros(size, np.uint8)
    far = 16.0 * max(size)
    corners = [
        np.rint((np.clip(points, -far, far) - 0.5) * 2**_FRACTION).astype(np.int32)
        for points in polygons
    ]
    cv2.fillPoly(canvas, corners, 1, shift=_FRACTION)
    return np.asarray(canvas, bool)


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

    Drawn again by `fill_polygons` they are the mask, but for holes: right to a pixel.
    """
    found, tree = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    outlines: dict[int, Points] = {}
    if tree is None:
        return []
    for index, (contour, (_, _, _, parent)) in enumerate(zip(found, tree[0], strict=True)):
        if parent < 0:
            outlines[index] = contour[:, 0].astype(np.float64)
    for contour, (_, _, _, parent) in zip(found, tree[0], strict=True):
        if parent >= 0:
            outlines[parent] = _join(outlines[parent], contour[:, 0].astype(np.float64))
    return [_thicken(points) + 0.5 for points in outlines.values()]


def _join(outline: Points, hole: Points) -> Points:
    """One closed line round both, over the shortest way between two of their corners."""
    distance = np.linalg.norm(outline[:, None] - hole[None], axis=2)
    at, there = np.unravel_index(int(distance.argmin()), distance.shape)
    round_it = np.concatenate([hole[there:], hole[: there + 1]])
    return np.concatenate([outline[: at + 1], round_it, outline[at:]])


def _thicken(points: Points) -> Points:
    """A pixel or a line of pixels as an outline of three corners."""
    return (
        np.concatenate([points, np.repeat(points[-1:], 3 - len(points), axis=0)])
        if len(points) < 3
        else points
    )
