"""Images as fields of edge strength and direction, which an RGB and a thermal image can share.

What is bright to one camera is dark or absent to the other; what both share is where edges are
and how they run. Directions are taken modulo 180 degrees, so that a reversed contrast changes
nothing:

    gradient g = (gx, gy)         z = sum over channels of (gx + i gy)^2, magnitude normalised

All work is done on a grid of one width, in a pyramid of three levels.
"""

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]
Field = npt.NDArray[np.complex64]

WIDTH = 640
"""Longer side of the grid all work is done on, in pixels; other sizes are resized to it."""

SMALLEST = 48
"""Shorter side of the working grid below which there is nothing to correlate."""

COARSE = 4
"""Step of the coarsest level."""


@dataclass(frozen=True, eq=False)
class Level:
    """One scale of the pyramid."""

    step: int
    """Pixels of the working grid per pixel of this level."""
    smooth: float
    """Blur before the gradient, in pixels of this level."""
    pool: float
    """Blur of the field, which widens the peak."""
    surround: float
    """Radius over which strength is normalised and the mean field taken off."""


LEVELS = (Level(4, 0.8, 1.0, 8.0), Level(2, 1.0, 0.8, 12.0), Level(1, 1.4, 0.0, 20.0))

Pyramid = dict[int, Field]
"""Step of the level -> (H, W) complex64."""


@dataclass(frozen=True, eq=False)
class FieldPair:
    """Both images as fields on the working grid."""

    rgb: Pyramid
    thermal: Pyramid


def make_pyramid(image: Array, size: tuple[int, int], place: Floats) -> Pyramid:
    """Fields of an (H, W, C) image at all levels of the working grid."""
    values, valid = prepare(image, size, place, margin=5)
    pyramid = {}
    for level in LEVELS:
        small = (size[1] // level.step, size[0] // level.step)
        scaled = cv2.resize(values, small, interpolation=cv2.INTER_AREA).reshape(*small[::-1], -1)
        covered = cv2.resize(valid, small, interpolation=cv2.INTER_AREA)
        inside = (covered > 0.99).astype(np.float32)
        pyramid[level.step] = gradient_field(scaled, inside, level)
    return pyramid


def prepare(
    image: Array, size: tuple[int, int], place: Floats, margin: int
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """An (H, W, C) image on a grid of `size`, reached by `place`, in [0, 1]; and where it is valid.

    The valid region, 0 or 1, ends `margin` grid pixels inside the image.
    """
    shown = valid_region(image)
    values = image.astype(np.float32)
    if not np.issubdtype(image.dtype, np.integer):
        values = np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)
    values, shown = _resample(values, shown, size, place)
    seen = values[shown > 0]
    low, high = np.percentile(seen, [0.5, 99.5]) if seen.size else (0.0, 1.0)
    values = np.clip((values - low) / max(high - low, 1e-6), 0, 1).astype(np.float32)
    square = np.ones((2 * margin + 1, 2 * margin + 1), np.uint8)
    inner = cv2.erode(np.pad(shown, 1), square, borderType=cv2.BORDER_CONSTANT, borderValue=1)
    return values, inner[1:-1, 1:-1].astype(np.float32)


def _resample(
    values: Array, shown: Array, size: tuple[int, int], place: Floats
) -> tuple[Array, Array]:
    """Values and valid region on the grid, averaged where pixels become fewer."""
    height, width = values.shape[:2]
    target = (max(round(width * place[0, 0]), 1), max(round(height * place[1, 1]), 1))
    if target != (width, height):
        method = cv2.INTER_AREA if target[0] < width else cv2.INTER_LINEAR
        values = cv2.resize(values, target, interpolation=method)
        shown = cv2.resize(shown, target, interpolation=cv2.INTER_NEAREST)
        place = place @ np.linalg.inv(stretch(target[0] / width, target[1] / height))
    if target != size[::-1] or not np.allclose(place, np.eye(3)):
        values = cv2.warpAffine(values, place[:2], size[::-1])
        shown = cv2.warpAffine(shown, place[:2], size[::-1], flags=cv2.INTER_NEAREST)
    return values.reshape(*size, -1), shown


def gradient_field(image: Array, valid: Array, level: Level) -> Field:
    """Edge strength and doubled direction of a float32 (H, W, C) image, 0 where not valid."""
    squared = np.zeros(image.shape[:2], np.complex64)
    for channel in range(image.shape[2]):
        smooth = cv2.GaussianBlur(image[..., channel], (0, 0), level.smooth)
        across = cv2.Scharr(smooth, cv2.CV_32F, 1, 0)
        down = cv2.Scharr(smooth, cv2.CV_32F, 0, 1)
        squared += (across + 1j * down) ** 2
    size = np.abs(squared)
    strength = np.sqrt(size) * valid
    share = np.maximum(cv2.GaussianBlur(valid, (0, 0), level.surround), 1e-3)
    around = cv2.GaussianBlur(strength, (0, 0), level.surround) / share
    inside = strength[valid > 0]
    # The median keeps sensor noise in flat regions from being amplified to full strength.
    floor = 0.5 * float(np.median(inside)) if inside.size else 0.0
    weight = strength / (around + floor + 1e-6)
    weight /= 1 + weight / 3  # one blinding edge must not outweigh a wall of windows
    field = (squared / np.maximum(size, 1e-12) * weight).astype(np.complex64)
    if level.pool:
        field = _blur(field, level.pool)
    # Without its local mean, the field correlates at the right place only and not wherever
    # two regions of the same prevailing direction overlap.
    mean = _blur(field, level.surround) / share
    return ((field - mean) * valid).astype(np.complex64)


def valid_region(image: Array) -> npt.NDArray[np.uint8]:
    """1 where an (H, W, C) image shows something: finite and inside the frame fill, if any.

    An earlier warp leaves a constant fill outside a convex shape, whose straight edge would lock
    the estimate to itself. A black sky is constant and touches the frame too, but lies within the
    convex hull of everything else.
    """
    plain = image.max(axis=2)
    finite = np.isfinite(plain)
    rim = np.concatenate([plain[0], plain[-1], plain[:, 0], plain[:, -1]])
    values, counts = np.unique(rim, return_counts=True)
    fill = values[counts.argmax()]
    shown = np.ones(plain.shape, np.uint8)
    if counts.max() >= 0.1 * rim.size and np.isfinite(fill):
        tolerance = 1 if image.dtype == np.uint8 else 0  # JPEG blurs the fill by a level
        differs = np.abs(plain.astype(np.float64) - float(fill)) > tolerance
        speckless = cv2.morphologyEx(
            (differs & finite).astype(np.uint8), cv2.MORPH_OPEN, np.ones((3, 3), np.uint8)
        )
        outlines, _ = cv2.findContours(speckless, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
        shown[:] = 0
        if outlines:
            cv2.fillConvexPoly(shown, cv2.convexHull(np.concatenate(outlines)), 1)
    shown[~finite] = 0
    return shown


def warp_field(field: Field, homography: Floats) -> Field:
    """The field seen through the homography, its directions turned with it; 0 outside."""
    moved = cv2.warpPerspective(as_channels(field), homography, field.shape[::-1])
    turn = np.arctan2(homography[1, 0] - homography[0, 1], homography[0, 0] + homography[1, 1])
    turned: Field = _as_field(moved) * np.complex64(np.exp(2j * turn))
    return turned


def as_channels(field: Field) -> npt.NDArray[np.float32]:
    """(H, W) complex as (H, W, 2) float32 on the same memory, for OpenCV."""
    return np.ascontiguousarray(field).view(np.float32).reshape(*field.shape, 2)


def _as_field(channels: Array) -> Field:
    return np.ascontiguousarray(channels, np.float32).view(np.complex64)[..., 0]


def _blur(field: Field, sigma: float) -> Field:
    return _as_field(cv2.GaussianBlur(as_channels(field), (0, 0), sigma))


def working_grid(
    rgb: tuple[int, ...], thermal: tuple[int, ...]
) -> tuple[tuple[int, int], Floats, list[Floats]]:
    """The working (height, width), RGB to it, and guesses of thermal to it.

    Where the two images differ in shape, the thermal one may fill the RGB one or lie within it, or
    anything between: guesses 15 % apart, so that the search over scale covers the gaps.
    """
    factor = WIDTH / max(rgb)
    height, width = (max(round(side * factor / 4) * 4, 4) for side in rgb[:2])
    to_grid = stretch(width / rgb[1], height / rgb[0])
    down, across = height / thermal[0], width / thermal[1]
    ratio = max(down, across) / min(down, across)
    if ratio < 1.02:
        return (height, width), to_grid, [stretch(across, down)]
    count = min(int(np.ceil(np.log(ratio) / np.log(1.15))) + 1, 6)
    places = []
    for scale in np.geomspace(min(down, across), max(down, across), count):
        rest = ((width - thermal[1] * scale) / 2, (height - thermal[0] * scale) / 2)
        places.append(shift(*rest) @ stretch(float(scale), float(scale)))
    return (height, width), to_grid, places


def stretch(across: float, down: float) -> Floats:
    """(3, 3) map of pixel centres when an image is resized by these factors."""
    return np.array([[across, 0, across / 2 - 0.5], [0, down, down / 2 - 0.5], [0, 0, 1.0]])


def shift(dx: float, dy: float) -> Floats:
    """(3, 3) that moves by dx, dy pixels."""
    return np.array([[1, 0, dx], [0, 1, dy], [0, 0, 1.0]])
