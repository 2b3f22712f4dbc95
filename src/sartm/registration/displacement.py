"""Whether two images lie on one another: a quick look at every pair, where `estimate` takes longer.

The fields of edge direction (see edge_fields) at half the working size are cut into 3 x 4 blocks,
and each block of RGB is compared with thermal at every shift. Added up as they are, the blocks
answer for shifts; moved against each other, for turns about the centre:

    A(s, t)     agreement of all blocks at shift s and turn t
    evidence    (max A where thermal would have to move - max A where it may lie) / std A(., 0)

It may lie within 5 pixels per 640 of the longer side. Above 0 another place fits better. Measured
by day and night and on four cameras: benchmarks/alarms.py.
"""

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from sartm.registration.calibration import check_images
from sartm.registration.edge_fields import (
    LEVELS,
    SMALLEST,
    Array,
    Field,
    Floats,
    gradient_field,
    prepare,
    stretch,
    valid_region,
    working_grid,
)
from sartm.registration.search import subpixel_peak

_LEVEL = LEVELS[1]
_REACH = 20
"""Largest shift, in pixels of the level: 40 on the working grid of 640."""
_BLOCKS = (3, 4)
_TURNS = (0.0, -4.0, -2.0, 2.0, 4.0)
"""Degrees."""
_TOLERANCE = 5.0
"""Pixels of the working grid that cameras on one mount are apart anyway, near objects above all."""
_CLEAR, _CONFIDENT = 0.3, 0.5
"""Evidence and confidence of an alarm. At evidence 0 every tenth day pair of MSRS raises one, which
lies 5 to 6 pixels off indeed, for what is near."""
_MARGIN = 4
"""Pixels of the level along the border that do not count."""
_SHRUNK = (np.uint8, np.uint16, np.float32)
"""Number types that OpenCV makes smaller as they are."""


@dataclass(frozen=True)
class Displacement:
    """How thermal lies on RGB."""

    dx: float
    """RGB pixels that thermal has to move to the right to lie on RGB; NaN where nothing is known,
    as of a flat image."""
    dy: float
    """Down, likewise."""
    turn: float
    """Degrees, clockwise as one sees it; of a few steps only."""
    distance: float
    """Mean displacement over the image in RGB pixels, turn included."""
    evidence: float
    """Above 0 where thermal fits better elsewhere than where it lies; an alarm from 0.3 on."""
    confidence: float
    """0 to 1: how far the place that was found stands out among all others; above 0.5 sure."""

    @property
    def misaligned(self) -> bool:
        """Whether thermal surely lies elsewhere."""
        return self.evidence > _CLEAR and self.confidence >= _CONFIDENT


NOTHING = Displacement(np.nan, np.nan, 0.0, np.nan, 0.0, 0.0)
"""Of images that show nothing to go by."""


@dataclass(frozen=True, eq=False)
class Agreement:
    """How well two images fit at every turn and shift; those of frames of one rig may be mixed."""

    volume: Floats
    """(turns, shifts down, shifts right), in standard deviations over the shifts without a turn."""
    centres: Floats
    """(blocks, 2): x and y of the blocks off the image's centre, in pixels of the level."""
    scale: float
    """Pixels of the working grid per RGB pixel."""

    def mixed(self, newer: "Agreement", share: float) -> "Agreement":
        """With a share of a newer one; or the newer one alone where the images' size changed."""
        if self.scale != newer.scale or self.centres.shape != newer.centres.shape:
            return newer
        volume = (1 - share) * self.volume + share * newer.volume
        return replace(newer, volume=volume / max(float(volume[0].std()), 1e-9))


def measure_displacement(rgb: Array, thermal: Array) -> Displacement:
    """See how thermal (h, w) of any real type lies on RGB uint8 (H, W, 3); about 40 ms.

    Never raises for lack of evidence: confidence is 0. InputError for arrays of the wrong kind.
    """
    found = compare_images(rgb, thermal)
    return NOTHING if found is None else find_displacement(found)


def compare_images(rgb: Array, thermal: Array) -> Agreement | None:
    """What `find_displacement` reads, of images as `measure_displacement` takes.

    None where they show nothing to go by.
    """
    check_images(rgb, thermal)
    grid, to_grid, places = working_grid(rgb.shape[:2], thermal.shape)
    if min(grid) < SMALLEST:
        return None
    size = (grid[0] // _LEVEL.step, grid[1] // _LEVEL.step)
    shrink = stretch(1 / _LEVEL.step, 1 / _LEVEL.step)
    fields = [
        _make_field(image, size, shrink @ place)
        for image, place in ((rgb, to_grid), (thermal[..., None], places[0]))
    ]
    norm = float(np.linalg.norm(fields[0])) * float(np.linalg.norm(fields[1]))
    if norm < 1e-6:
        return None
    surfaces, centres = _compare_blocks(*fields)
    volume = np.stack([_turn(surfaces, centres, turn) for turn in _TURNS])
    spread = float(volume[0].std())
    if spread < 1e-9 * norm:
        return None
    return Agreement(volume / spread, centres, float(to_grid[0, 0]))


def _make_field(image: Array, size: tuple[int, int], place: Floats) -> Field:
    """Edge strength and direction of (H, W, C) on the grid of the level."""
    whole = (round(image.shape[1] * place[0, 0]), round(image.shape[0] * place[1, 1]))
    if image.dtype not in _SHRUNK or whole != size[::-1] or whole[0] > image.shape[1]:
        values, valid = prepare(image, size, place, margin=_MARGIN)
        return gradient_field(values, valid, _LEVEL)
    # The usual case in half the time: made smaller in its own type. The field does not depend on
    # the values' range.
    small = cv2.resize(image, whole, interpolation=cv2.INTER_AREA).reshape(*size, -1)
    shown = cv2.copyMakeBorder(valid_region(small), 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    square = np.ones((2 * _MARGIN + 1, 2 * _MARGIN + 1), np.uint8)
    inner = cv2.erode(shown, square, borderType=cv2.BORDER_CONSTANT, borderValue=1)[1:-1, 1:-1]
    values = np.nan_to_num(small.astype(np.float32), posinf=0.0, neginf=0.0)
    values /= max(float(np.ptp(values)), 1e-6)
    return gradient_field(values, inner.astype(np.float32), _LEVEL)


def _compare_blocks(rgb: Field, thermal: Field) -> tuple[npt.NDArray[np.float32], Floats]:
    """Agreement of each block with thermal at every shift; and the blocks' (x, y) off the centre.

    Returns (blocks, 2 reach + 1, 2 reach + 1) and (blocks, 2) in pixels of the level.
    """
    height, width = rgb.shape
    rows = np.linspace(0, height, _BLOCKS[0] + 1).astype(int)
    columns = np.linspace(0, width, _BLOCKS[1] + 1).astype(int)
    around = np.pad(thermal, _REACH)
    span = 2 * _REACH + 1
    surfaces, centres = [], []
    for top, bottom in pairwise(rows.tolist()):
        for left, right in pairwise(columns.tolist()):
            window = around[top : bottom + 2 * _REACH, left : right + 2 * _REACH]
            padded = tuple(cv2.getOptimalDFTSize(side) for side in window.shape)
            spectrum = np.conj(np.fft.fft2(rgb[top:bottom, left:right], padded))
            agreement = np.fft.ifft2(spectrum * np.fft.fft2(window, padded)).real
            surfaces.append(agreement[:span, :span].astype(np.float32))
            centres.append(((left + right - width) / 2, (top + bottom - height) / 2))
    return np.stack(surfaces), np.array(centres)


def _turn(surfaces: npt.NDArray[np.float32], centres: Floats, degrees: float) -> Floats:
    """Agreement of all blocks at every shift when thermal is turned besides."""
    total = np.zeros(surfaces.shape[1:], np.float64)
    across = np.rint(-np.deg2rad(degrees) * centres[:, 1]).astype(int)
    down = np.rint(np.deg2rad(degrees) * centres[:, 0]).astype(int)
    span = len(total)
    for surface, dx, dy in zip(surfaces, across.tolist(), down.tolist(), strict=True):
        to = slice(max(0, -dy), min(span, span - dy)), slice(max(0, -dx), min(span, span - dx))
        of = slice(max(0, dy), min(span, span + dy)), slice(max(0, dx), min(span, span + dx))
        total[to] += surface[of]
    return total


def find_displacement(agreement: Agreement) -> Displacement:
    """Where thermal fits best, and how surely that is not where it lies."""
    volume, scale = agreement.volume, agreement.scale
    place = np.arange(-_REACH, _REACH + 1)
    apart = np.hypot(place[None, :], place[:, None]) * _LEVEL.step
    here = float(volume[0][apart <= _TOLERANCE].max())
    elsewhere = max(float(volume[0][apart > _TOLERANCE].max()), float(volume[1:].max()))
    turn, y, x = (int(i) for i in np.unravel_index(int(volume.argmax()), volume.shape))
    near = np.hypot(place[None, :] - place[x], place[:, None] - place[y]) * _LEVEL.step <= 6
    rival = float(volume[turn][~near].max())
    margin = max(float(volume[turn, y, x]) - rival, 0.0)
    column, row = subpixel_peak(volume[turn])
    dx, dy = ((_REACH - at) * _LEVEL.step / scale for at in (column, row))
    angle = np.deg2rad(_TURNS[turn])
    moved = agreement.centres[:, ::-1] * np.array([angle, -angle]) * _LEVEL.step / scale
    distance = float(np.hypot(*(moved + np.array([dx, dy])).T).mean())
    return Displacement(
        dx, dy, 0.0 - _TURNS[turn], distance, elsewhere - here, float(1 - np.exp(-margin))
    )  # fmt: skip


def describe_displacement(offset: Displacement) -> dict[str, Any]:
    """For a summary: pixels to a tenth, NaN as None."""
    known = bool(np.isfinite(offset.dx))
    return {
        "offset": [round(offset.dx, 1), round(offset.dy, 1)] if known else None,
        "turn": offset.turn,
        "distance": round(offset.distance, 1) if known else None,
        "evidence": round(offset.evidence, 3),
        "confidence": round(offset.confidence, 3),
    }


def to_homography(offset: Displacement, size: tuple[int, int]) -> Floats:
    """(3, 3) that moves thermal of (height, width) onto RGB of the same size."""
    angle = np.deg2rad(offset.turn)
    cosine, sine = np.cos(angle), np.sin(angle)
    x, y = (size[1] - 1) / 2, (size[0] - 1) / 2
    return np.array(
        [
            [cosine, -sine, x - cosine * x + sine * y + offset.dx],
            [sine, cosine, y - sine * x - cosine * y + offset.dy],
            [0, 0, 1.0],
        ]
    )
