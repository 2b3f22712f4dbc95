"""Where a thermal pixel lies in the RGB image: estimating, reading and applying a homography.

Two cameras side by side see one scene with unrelated brightness: what is bright in one is dark or
absent in the other. What both share is where edges are and how they run. Each image becomes a
field of edge strength and direction, taken modulo 180 degrees so that a reversed contrast changes
nothing; the homography that makes the fields agree best is found from coarse to fine.

    gradient g = (gx, gy)         z = sum over channels of (gx + i gy)^2, magnitude normalised
    agreement of two fields       Re(sum z_rgb * conj(z_thermal)): +1 parallel, -1 at right angles

Coordinates: pixel centres are integers, x right, y down; a homography maps thermal (x, y, 1) to
RGB. A plane explains the whole image only as far as the scene is far away or the cameras close
together: near objects keep their parallax.
"""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import numpy.typing as npt

from sartm.errors import InputError

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]
Field = npt.NDArray[np.complex64]
Model = Literal["similarity", "affine", "homography"]

_WIDTH = 640
"""Longer side of the grid all work is done on, in pixels; other sizes are resized to it."""
_SMALLEST = 48
"""Shorter side of the working grid below which there is nothing to correlate."""
_SCALES: Floats = np.linspace(0.9, 1.1, 11)
_TURNS: Floats = np.array([-4.0, -2.0, 0.0, 2.0, 4.0])
"""Degrees."""
_REACH = 14
"""Largest shift looked at, in pixels of the coarsest level: 56 on the working grid."""
_COARSE = 4
_FREE: dict[str, int] = {"similarity": 4, "affine": 6, "homography": 8}
_PRIOR = 0.1
"""How firmly the four parameters beyond a similarity are held at 0, as a share of the evidence
that one pair has for its shift. Weaker, and near objects bend the whole image: on the day pairs of
MSRS the 95th percentile of the error is 0.8 pixels at 0.3, 1.0 at 0.1 and 1.5 at 0.05, while a
true perspective is followed the better the weaker it is."""


@dataclass(frozen=True, eq=False)
class Alignment:
    """What was found out about a pair, or about all pairs of one rig."""

    homography: Floats
    """(3, 3), thermal pixel to RGB pixel, [2, 2] is 1; a mere resize where nothing was found."""
    quality: float
    """0 to 1; rises with the evidence, accepted from 0.5."""
    accepted: bool
    reason: str
    """Why it was refused; empty when accepted."""
    spread: float
    """Mean distance in RGB pixels of the image corners between the estimates of two disjoint
    halves of the image; infinite where nothing was found."""
    method: Model


@dataclass(frozen=True, eq=False)
class _Level:
    """One scale of the pyramid."""

    step: int
    """Pixels of the working grid per pixel of this level."""
    smooth: float
    """Blur before the gradient, in pixels of this level."""
    pool: float
    """Blur of the field, which widens the peak."""
    surround: float
    """Radius over which strength is normalised and the mean field taken off."""


_LEVELS = (_Level(4, 0.8, 1.0, 8.0), _Level(2, 1.0, 0.8, 12.0), _Level(1, 1.4, 0.0, 20.0))
_PLAN = ((4, 4, 8, 1.0), (2, 5, 16, 1.2), (2, 4, 16, 0.8), (1, 4, 32, 0.8))
"""Refinement: step of the level, largest block shift, side of a block, blur of its surface."""

_HALF_PLAN = ((2, 5, 16, 1.2), (2, 4, 16, 0.8))

_STRENGTH, _AGREEMENT, _SPREAD = 1.55, 0.27, 8.0
"""Least strength and agreement, largest spread in working pixels, of an accepted estimate."""

_LARGEST_CALIBRATION = 1_000_000
"""Bytes."""

_Pyramid = dict[int, Field]


@dataclass(frozen=True, eq=False)
class _Pair:
    """Both images as fields on the working grid."""

    rgb: _Pyramid
    thermal: _Pyramid


def _gradient_field(image: Array, valid: Array, level: _Level) -> Field:
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


def _as_channels(field: Field) -> npt.NDArray[np.float32]:
    """(H, W) complex as (H, W, 2) float32 on the same memory, for OpenCV."""
    return np.ascontiguousarray(field).view(np.float32).reshape(*field.shape, 2)


def _as_field(channels: Array) -> Field:
    return np.ascontiguousarray(channels, np.float32).view(np.complex64)[..., 0]


def _blur(field: Field, sigma: float) -> Field:
    return _as_field(cv2.GaussianBlur(_as_channels(field), (0, 0), sigma))


def _valid_region(image: Array) -> npt.NDArray[np.uint8]:
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


def _prepare(
    image: Array, size: tuple[int, int], place: Floats, margin: int
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """An (H, W, C) image on a grid of `size`, reached by `place`, in [0, 1]; and where it is valid.

    The valid region, 0 or 1, ends `margin` grid pixels inside the image.
    """
    shown = _valid_region(image)
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
        place = place @ np.linalg.inv(_stretch(target[0] / width, target[1] / height))
    if target != size[::-1] or not np.allclose(place, np.eye(3)):
        values = cv2.warpAffine(values, place[:2], size[::-1])
        shown = cv2.warpAffine(shown, place[:2], size[::-1], flags=cv2.INTER_NEAREST)
    return values.reshape(*size, -1), shown


def _pyramid(image: Array, size: tuple[int, int], place: Floats) -> _Pyramid:
    """Fields of an (H, W, C) image at all levels of the working grid."""
    values, valid = _prepare(image, size, place, margin=5)
    pyramid = {}
    for level in _LEVELS:
        small = (size[1] // level.step, size[0] // level.step)
        scaled = cv2.resize(values, small, interpolation=cv2.INTER_AREA).reshape(*small[::-1], -1)
        covered = cv2.resize(valid, small, interpolation=cv2.INTER_AREA)
        inside = (covered > 0.99).astype(np.float32)
        pyramid[level.step] = _gradient_field(scaled, inside, level)
    return pyramid


def _stretch(across: float, down: float) -> Floats:
    """Map of pixel centres when an image is resized by these factors."""
    return np.array([[across, 0, across / 2 - 0.5], [0, down, down / 2 - 0.5], [0, 0, 1.0]])


def _shift(dx: float, dy: float) -> Floats:
    return np.array([[1, 0, dx], [0, 1, dy], [0, 0, 1.0]])


def _similarity(scale: float, degrees: float, size: tuple[int, int]) -> Floats:
    """Scale and turn about the centre of a (height, width) image."""
    angle = np.deg2rad(degrees)
    cosine, sine = scale * np.cos(angle), scale * np.sin(angle)
    y, x = (size[0] - 1) / 2, (size[1] - 1) / 2
    return np.array(
        [
            [cosine, -sine, x - cosine * x + sine * y],
            [sine, cosine, y - sine * x - cosine * y],
            [0, 0, 1.0],
        ]
    )


def _corners(size: tuple[int, int]) -> Floats:
    """(4, 2) x and y of the corner pixels of a (height, width) image."""
    bottom, right = size[0] - 1, size[1] - 1
    return np.array([[0, 0], [right, 0], [right, bottom], [0, bottom]], np.float64)


def _move(homography: Floats, points: Floats) -> Floats:
    """(N, 2) points mapped."""
    return np.asarray(cv2.perspectiveTransform(points[None], homography)[0], np.float64)


def _basis(points: Floats, size: tuple[int, int]) -> tuple[Floats, Floats]:
    """x and y displacement, each (N, 8), at (N, 2) points per unit of each parameter.

    To first order a homography moves a point by: shift (2), scale, turn, | aspect, shear, |
    perspective (2). Coordinates are in half widths from the centre, so that every parameter is
    in pixels at the left and right edge of the image.
    """
    half = size[1] / 2
    x = (points[:, 0] - (size[1] - 1) / 2) / half
    y = (points[:, 1] - (size[0] - 1) / 2) / half
    one, zero = np.ones_like(x), np.zeros_like(x)
    return (
        np.stack([one, zero, x, -y, x, y, x * x, x * y], axis=1),
        np.stack([zero, one, y, x, -y, x, x * y, y * y], axis=1),
    )


def _homography(parameters: Floats, size: tuple[int, int]) -> Floats:
    """The homography that moves the four corners as the parameters say."""
    corners = _corners(size)
    across, down = _basis(corners, size)
    moved = corners + np.stack([across @ parameters, down @ parameters], axis=1)
    found = cv2.getPerspectiveTransform(corners.astype(np.float32), moved.astype(np.float32))
    return np.asarray(found, np.float64)


def _parameters(homography: Floats, size: tuple[int, int]) -> Floats:
    """Inverse of `_homography`."""
    corners = _corners(size)
    step = _move(homography, corners) - corners
    solution = np.linalg.solve(np.concatenate(_basis(corners, size)), step.T.ravel())
    return np.asarray(solution, np.float64)


def _warp(field: Field, homography: Floats) -> Field:
    """The field seen through the homography, its directions turned with it; 0 outside."""
    moved = cv2.warpPerspective(_as_channels(field), homography, field.shape[::-1])
    turn = np.arctan2(homography[1, 0] - homography[0, 1], homography[0, 0] + homography[1, 1])
    turned: Field = _as_field(moved) * np.complex64(np.exp(2j * turn))
    return turned


def _search(
    pairs: Sequence[_Pair],
    scales: Floats,
    turns: Floats,
    half: Array | None = None,
) -> Floats:
    """Agreement, -1 to 1, of the coarsest fields over scale, turn, y and x shift.

    Returns (scales, turns, 2 * reach + 1, 2 * reach + 1), the mean over the pairs. `half`, (H, W)
    of 0 and 1, limits the RGB side to a part of the image.
    """
    first = pairs[0].rgb[_COARSE]
    size = (first.shape[0], first.shape[1])
    padded = tuple(cv2.getOptimalDFTSize(side + _REACH) for side in size)
    span = 2 * _REACH + 1
    volume = np.zeros((len(scales), len(turns), span, span))
    for pair in pairs:
        rgb, thermal = pair.rgb[_COARSE], pair.thermal[_COARSE]
        rgb = rgb if half is None else rgb * half
        spectrum = np.conj(np.fft.fft2(rgb, padded))
        for i, scale in enumerate(scales):
            for j, turn in enumerate(turns):
                moved = _warp(thermal, _similarity(float(scale), float(turn), size))
                product = np.fft.ifft2(spectrum * np.fft.fft2(moved, padded)).real
                near = np.roll(product, (_REACH, _REACH), (0, 1))[:span, :span]
                volume[i, j] += near / (_norm(rgb) * _norm(moved) + 1e-9)
    return volume / len(pairs)


def _norm(field: Field) -> float:
    return float(np.linalg.norm(field))


def _peak(volume: Floats, scales: Floats, turns: Floats, size: tuple[int, int]) -> Floats:
    """The homography on the coarsest level at the largest agreement."""
    i, j, y, x = np.unravel_index(int(volume.argmax()), volume.shape)
    back = _shift(_REACH - float(x), _REACH - float(y))
    return back @ _similarity(float(scales[i]), float(turns[j]), size)


def _block_surfaces(rgb: Field, thermal: Field, reach: int, block: int) -> Floats:
    """Agreement of each block with its shifted surroundings, (2 reach + 1, 2 reach + 1, blocks)."""
    height, width = rgb.shape
    rows, columns = height // block, width // block
    fixed, margin = _as_channels(rgb), np.pad(thermal, reach)
    span = 2 * reach + 1
    surfaces = np.empty((span, span, rows * columns))
    for y in range(span):
        for x in range(span):
            product = fixed * _as_channels(margin[y : y + height, x : x + width])
            whole = product[: rows * block, : columns * block]
            means = cv2.resize(whole, (columns, rows), interpolation=cv2.INTER_AREA)
            surfaces[y, x] = means.sum(axis=2).ravel()
    return surfaces


def _block_centres(size: tuple[int, int], block: int) -> Floats:
    """(blocks, 2) x and y, in the order of `_block_surfaces`."""
    y, x = np.mgrid[: size[0] // block, : size[1] // block]
    return (np.stack([x.ravel(), y.ravel()], axis=1) + 0.5) * block - 0.5


def _in_half(points: Floats, size: tuple[int, int], half: int) -> npt.NDArray[np.bool_]:
    """Which (N, 2) points lie on the fields of one colour of a 4 x 4 chessboard."""
    column = np.floor(4 * (points[:, 0] + 0.5) / size[1])
    row = np.floor(4 * (points[:, 1] + 0.5) / size[0])
    chosen: npt.NDArray[np.bool_] = (row + column) % 2 == half
    return chosen


def _refine(
    pairs: Sequence[_Pair],
    parameters: Floats,
    free: int,
    half: int | None = None,
    plan: Sequence[tuple[int, int, int, float]] = _PLAN,
) -> Floats:
    """Parameters (8,) in working pixels that the blocks, all or of one half, agree on best.

    Each block says how well every small shift suits it, and the parameters are chosen to please
    all blocks together. A block that is torn between two shifts, as a row of railings is, does no
    harm; matching it alone and fitting to the matches would.
    """
    for step, reach, block, blur in plan:
        shape = pairs[0].rgb[step].shape
        size = (shape[0], shape[1])
        whole = (size[0] * step, size[1] * step)
        resize = _stretch(1 / step, 1 / step)
        to_level = resize @ _homography(parameters, whole) @ np.linalg.inv(resize)
        surfaces = np.zeros((2 * reach + 1, 2 * reach + 1, 1))
        for pair in pairs:
            rgb, moved = pair.rgb[step], _warp(pair.thermal[step], to_level)
            found = _block_surfaces(rgb, moved, reach, block)
            surfaces = surfaces + found / (_norm(rgb) * _norm(moved) + 1e-9)
        centres = _block_centres(size, block)
        if half is not None:
            chosen = _in_half(centres, size, half)
            surfaces, centres = surfaces[..., chosen], centres[chosen]
        basis = _basis(centres, size)
        smooth = _smooth_surfaces(surfaces / len(pairs), blur)
        delta = _climb(smooth, basis, parameters / step, free, _PRIOR / len(pairs))
        parameters = parameters - delta * step
    return parameters


def _smooth_surfaces(surfaces: Floats, sigma: float) -> Floats:
    """Gaussian blur over both shift axes."""
    place = np.arange(len(surfaces))
    kernel = np.exp(-0.5 * ((place[:, None] - place) / sigma) ** 2)
    kernel /= kernel.sum(axis=1, keepdims=True)
    smooth: Floats = np.einsum("ij,jkb,lk->ilb", kernel, surfaces, kernel, optimize=True)
    return smooth


def _climb(
    surfaces: Floats, basis: tuple[Floats, Floats], held: Floats, free: int, firmness: float
) -> Floats:
    """The displacement parameters (8,) at which the sum of the surfaces is largest.

    Levenberg's damped Newton steps from 0; per block, only downward curvature counts. `held` are
    the parameters so far: those beyond a similarity are pulled towards 0, by `firmness` times the
    curvature of the shift.
    """
    reach = len(surfaces) // 2
    by_y, by_x = np.gradient(surfaces, axis=(0, 1))
    by_yy, by_xy = np.gradient(by_y, axis=(0, 1))
    by_xx = np.gradient(by_x, axis=1)
    table = np.stack([surfaces, by_x, by_y, by_xx, by_xy, by_yy], axis=-1)
    bend = -(by_xx + by_yy)[reach, reach].sum() / 2
    prior = np.repeat([0.0, firmness * max(bend, 1e-12)], 4)

    def look(delta: Floats) -> tuple[Floats, float]:
        at = _sample(table, basis[0] @ delta, basis[1] @ delta)
        return at, float(at[:, 0].sum() - 0.5 * (prior * (held - delta) ** 2).sum())

    best = np.zeros(8)
    at, height = look(best)
    damping = 1e-3
    for _ in range(12):
        slope = basis[0].T @ at[:, 1] + basis[1].T @ at[:, 2] + prior * (held - best)
        curve = _curvature(at, basis) + np.diag(prior)
        curve += (damping * np.trace(curve) / 8 + 1e-12) * np.eye(8)
        step = np.zeros(8)
        step[:free] = np.linalg.solve(curve[:free, :free], slope[:free])
        step /= max(1.0, float(np.abs(step).max()) / 1.5)
        new_at, new_height = look(best + step)
        if new_height > height:
            gain, best, at, height = new_height - height, best + step, new_at, new_height
            damping *= 0.3
            if gain < 1e-5 * abs(height):
                break
        else:
            damping *= 8
    return best


def _sample(table: Floats, x: Floats, y: Floats) -> Floats:
    """Row b of (blocks, 6): table[:, :, b] at shift x[b], y[b], held at the border.

    Between grid points the parabolas around the four neighbours are mixed. Mere bilinear values
    have a crest at every grid point, on which the climb would get stuck.
    """
    reach = len(table) // 2
    x, y = (np.clip(axis + reach, 0, 2 * reach - 1e-6) for axis in (x, y))
    left, top = np.floor(x).astype(int), np.floor(y).astype(int)
    block = np.arange(table.shape[2])
    total = np.zeros(table.shape[2:])
    for down in (0, 1):
        for across in (0, 1):
            near = table[top + down, left + across, block]
            dx, dy = x - left - across, y - top - down
            value, by_x, by_y, by_xx, by_xy, by_yy = near.T
            slope_x, slope_y = by_x + by_xx * dx + by_xy * dy, by_y + by_xy * dx + by_yy * dy
            value = value + ((by_x + slope_x) * dx + (by_y + slope_y) * dy) / 2
            parabola = np.stack([value, slope_x, slope_y, by_xx, by_xy, by_yy], axis=1)
            total += ((1 - np.abs(dx)) * (1 - np.abs(dy)))[:, None] * parabola
    return total


def _curvature(at: Floats, basis: tuple[Floats, Floats]) -> Floats:
    """(8, 8) downward curvature of the sum over blocks, from `_climb`'s table rows (blocks, 6)."""
    across, down = basis
    tensor = at[:, [3, 4, 4, 5]].reshape(-1, 2, 2)
    values, vectors = np.linalg.eigh(tensor)
    clipped = np.einsum("bij,bj,bkj->bik", vectors, np.maximum(-values, 0), vectors)
    cross = (across.T * clipped[:, 0, 1]) @ down
    own = (across.T * clipped[:, 0, 0]) @ across + (down.T * clipped[:, 1, 1]) @ down
    total: Floats = own + cross + cross.T
    return total


def _mirrored(pair: _Pair) -> list[_Pair]:
    """The pair with its coarsest thermal field mirrored left-right, up-down and both ways.

    No true place exists for these, yet they have the statistics of the scene: how well they can
    be made to agree by chance says what a peak is worth.
    """
    field = pair.thermal[_COARSE]
    mirrors = (np.conj(field[:, ::-1]), np.conj(field[::-1]), field[::-1, ::-1])
    return [_Pair(pair.rgb, {_COARSE: np.ascontiguousarray(mirror)}) for mirror in mirrors]


def _strength(volume: Floats, chance: Sequence[Floats]) -> float:
    """How far the peak stands above other shifts and above what chance gives; 1 is not at all.

    Of the mirrored scenes the middle one counts: a corridor looks like its own mirror image.
    """
    surface = volume.max(axis=(0, 1))
    y, x = np.unravel_index(int(surface.argmax()), surface.shape)
    peak = float(surface[y, x])
    around = surface.copy()
    around[max(0, int(y) - 4) : int(y) + 5, max(0, int(x) - 4) : int(x) + 5] = 0
    rival = max(float(around.max()), 1e-6)
    mirror = max(float(np.median([found.max() for found in chance])), 1e-6)
    return peak / float(np.sqrt(rival * mirror)) if peak > 1e-3 else 0.0


def _subpixel_peak(surface: Floats) -> tuple[float, float]:
    """x and y of the maximum by a parabola through its neighbours."""
    y, x = np.unravel_index(int(surface.argmax()), surface.shape)
    place = []
    for line, at in ((surface[y], int(x)), (surface[:, x], int(y))):
        if not 0 < at < len(line) - 1:
            place.append(float(at))
            continue
        before, peak, after = line[at - 1 : at + 2]
        place.append(
            at + 0.5 * float(before - after) / min(float(before - 2 * peak + after), -1e-9)
        )
    return place[0], place[1]


def _agreement(pairs: Sequence[_Pair], parameters: Floats) -> float:
    """Share of the blocks, by their evidence, that match best within a pixel of the estimate.

    On the middle level, so a pixel is 2 of the working grid; chance gives about 0.1.
    """
    step, reach, block = 2, 5, 32
    resize = _stretch(1 / step, 1 / step)
    shape = pairs[0].rgb[step].shape
    whole = (shape[0] * step, shape[1] * step)
    to_level = resize @ _homography(parameters, whole) @ np.linalg.inv(resize)
    surfaces = np.zeros((2 * reach + 1, 2 * reach + 1, 1))
    for pair in pairs:
        moved = _warp(pair.thermal[step], to_level)
        surfaces = surfaces + _block_surfaces(pair.rgb[step], moved, reach, block)
    best = surfaces.max(axis=(0, 1))
    near = surfaces[reach - 1 : reach + 2, reach - 1 : reach + 2].max(axis=(0, 1))
    return float(best[near >= best].sum() / max(float(best.sum()), 1e-9))


@dataclass(frozen=True, eq=False)
class _Found:
    """An estimate on the working grid and what speaks for it."""

    homography: Floats
    quality: float
    reason: str
    spread: float
    """In pixels of the working grid."""


def _align(pairs: Sequence[_Pair], grid: tuple[int, int], free: int) -> _Found:
    """Search, refine, and judge by three independent signs; the weakest decides."""
    if any(_norm(field) == 0 for pair in pairs for field in (pair.rgb[1], pair.thermal[1])):
        return _Found(np.eye(3), 0.0, "an image is constant or shows no edges", float("inf"))
    shape = pairs[0].rgb[_COARSE].shape
    volume = _search(pairs, _SCALES, _TURNS)
    mirrors = zip(*(_mirrored(pair) for pair in pairs), strict=True)
    chance = [_search(mirror, _SCALES[1::4], _TURNS[1::2]) for mirror in mirrors]
    strength = _strength(volume, chance)
    start = _peak(volume, _SCALES, _TURNS, (shape[0], shape[1]))
    enlarge = _stretch(_COARSE, _COARSE)
    first = _parameters(enlarge @ start @ np.linalg.inv(enlarge), grid)
    parameters = _refine(pairs, first, free)
    halves = [_refine(pairs, parameters, free, half, _HALF_PLAN) for half in (0, 1)]
    ends = [_move(_homography(half, grid), _corners(grid)) for half in halves]
    spread = float(np.linalg.norm(ends[0] - ends[1], axis=1).mean())
    agreement = _agreement(pairs, parameters)
    signs = (
        (strength / _STRENGTH, "the images share too little structure, or show different scenes"),
        (agreement / _AGREEMENT, "too few edges coincide at the best alignment"),
        (_SPREAD / max(spread, 1e-6), "independent halves of the image disagree"),
        (_inside(volume), "the best match is at the limit of the search; align roughly first"),
    )
    weakest, reason = min(signs)
    quality = weakest**4 / (1 + weakest**4)
    return _Found(_homography(parameters, grid), quality, "" if weakest >= 1 else reason, spread)


def _inside(volume: Floats) -> float:
    """Below 1 when the peak lies on the rim of the search, where a better one may lie beyond."""
    scale, _turn, y, x = np.unravel_index(int(volume.argmax()), volume.shape)
    place = ((scale, volume.shape[0]), (y, volume.shape[2]), (x, volume.shape[3]))
    rim = any(int(at) in (0, length - 1) for at, length in place)
    return 0.8 if rim else 10.0


def _working_grid(
    rgb: tuple[int, ...], thermal: tuple[int, ...]
) -> tuple[tuple[int, int], Floats, list[Floats]]:
    """The working (height, width), RGB to it, and guesses of thermal to it.

    Where the two images differ in shape, the thermal one may fill the RGB one or lie within it, or
    anything between: guesses 15 % apart, so that the search over scale covers the gaps.
    """
    factor = _WIDTH / max(rgb)
    height, width = (max(round(side * factor / 4) * 4, 4) for side in rgb[:2])
    to_grid = _stretch(width / rgb[1], height / rgb[0])
    down, across = height / thermal[0], width / thermal[1]
    ratio = max(down, across) / min(down, across)
    if ratio < 1.02:
        return (height, width), to_grid, [_stretch(across, down)]
    count = min(int(np.ceil(np.log(ratio) / np.log(1.15))) + 1, 6)
    places = []
    for scale in np.geomspace(min(down, across), max(down, across), count):
        rest = ((width - thermal[1] * scale) / 2, (height - thermal[0] * scale) / 2)
        places.append(_shift(*rest) @ _stretch(float(scale), float(scale)))
    return (height, width), to_grid, places


def _finish(found: _Found, to_grid: Floats, place: Floats, model: Model) -> Alignment:
    """From the working grid to the pixels of the two images."""
    homography = np.linalg.inv(to_grid) @ found.homography @ place
    return Alignment(
        homography=homography / homography[2, 2],
        quality=found.quality,
        accepted=not found.reason,
        reason=found.reason,
        spread=found.spread / float(to_grid[0, 0]),
        method=model,
    )


def _by(image: Array) -> str:
    return f"{image.shape[1]} x {image.shape[0]} pixels"


def _check_images(rgb: Array, thermal: Array) -> None:
    if rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.dtype != np.uint8:
        raise InputError(
            f"RGB image must be uint8 (height, width, 3), found {rgb.dtype} {rgb.shape}; "
            f"convert it to 8-bit colour"
        )
    _check_thermal(thermal)
    if min(*rgb.shape[:2], *thermal.shape) < 1:
        raise InputError(f"empty image: RGB {rgb.shape}, thermal {thermal.shape}; check the files")


def _check_thermal(thermal: Array) -> None:
    if thermal.ndim != 2 or thermal.dtype.kind not in "biuf":
        raise InputError(
            f"thermal image must be numbers of shape (height, width), found {thermal.dtype} "
            f"{thermal.shape}; give one channel of raw values"
        )


def estimate_alignment(rgb: Array, thermal: Array, *, model: Model = "homography") -> Alignment:
    """Find where the thermal image lies in the RGB image, from one pair.

    Args:
        rgb: uint8 (H, W, 3).
        thermal: (H, W) of any real type; another size is taken to show about the same view.
            Non-finite pixels and a constant fill left by an earlier warp are ignored.
        model: what may differ. A weak prior holds the part beyond a similarity near 0.

    Looks for shifts to 56 pixels per 640 of the longer side, scales 0.9 to 1.1 and turns to 4
    degrees, relative to both images showing the same view. Never raises for lack of evidence:
    that is an Alignment not accepted, with the reason. InputError for arrays of the wrong kind.
    """
    return estimate_rig_alignment([(rgb, thermal)], model=model)


def estimate_rig_alignment(
    pairs: Sequence[tuple[Array, Array]], *, model: Model = "homography", most: int = 40
) -> Alignment:
    """One alignment for all (rgb, thermal) pairs of two cameras that never moved on their mount.

    The evidence of all pairs is summed before anything is decided, so scenes that show little and
    near objects that pull one pair aside do not matter. Uses `most` pairs spread over the
    sequence, read one after the other (a sequence that loads on access stays small in memory;
    each pair used keeps about 7 MB). Sizes must not change. Otherwise as `estimate_alignment`.
    """
    if model not in _FREE:
        raise InputError(f"alignment model is {model!r}; choose one of {', '.join(_FREE)}")
    if not pairs:
        raise InputError("no pair to align; give at least one RGB and thermal image")
    chosen = np.unique(np.linspace(0, len(pairs) - 1, min(len(pairs), max(most, 1))).astype(int))
    sizes: set[tuple[tuple[int, ...], tuple[int, ...]]] = set()
    candidates: list[list[_Pair]] = []
    for index in chosen:
        rgb, thermal = pairs[int(index)]
        _check_images(rgb, thermal)
        sizes.add((rgb.shape[:2], thermal.shape))
        if len(sizes) > 1:
            raise InputError(
                f"image sizes change within the rig: {sorted(sizes)}; align folders of one size "
                f"each, or every pair by itself"
            )
        grid, to_grid, places = _working_grid(rgb.shape[:2], thermal.shape)
        if min(grid) < _SMALLEST:
            nothing = f"an RGB image of {_by(rgb)} is too small or too narrow to align"
            return _finish(_Found(np.eye(3), 0.0, nothing, np.inf), to_grid, places[0], model)
        rgb_fields = _pyramid(rgb, grid, to_grid)
        candidates.append(
            [_Pair(rgb_fields, _pyramid(thermal[..., None], grid, place)) for place in places]
        )
    found = [
        _align(fields, grid, _FREE[model]) for fields in zip(*candidates, strict=True)
    ]  # one result per guess at the nominal size of the thermal image
    best = max(range(len(found)), key=lambda index: found[index].quality)
    return _finish(found[best], to_grid, places[best], model)


def estimate_offset(rgb: Array, thermal: Array) -> tuple[float, float]:
    """Shift (dx, dy) in RGB pixels that brings the thermal image onto the RGB image; quick.

    Shift only, at a quarter of the working resolution: right to about a pixel per 640, meant for
    the median over many pairs. (nan, nan) where nothing stands out. Shapes and errors as in
    `estimate_alignment`.
    """
    _check_images(rgb, thermal)
    grid, to_grid, places = _working_grid(rgb.shape[:2], thermal.shape)
    if min(grid) < _SMALLEST:
        return float("nan"), float("nan")
    level = _LEVELS[0]
    small = (grid[0] // level.step, grid[1] // level.step)
    shrink = _stretch(1 / level.step, 1 / level.step)
    fields = []
    for image, place in ((rgb, to_grid), (thermal[..., None], places[0])):
        values, valid = _prepare(image, small, shrink @ place, margin=2)
        fields.append({_COARSE: _gradient_field(values, valid, level)})
    pair = _Pair(*fields)
    still = np.array([1.0]), np.array([0.0])
    volume = _search([pair], *still)
    if _strength(volume, [_search([mirror], *still) for mirror in _mirrored(pair)]) < 1.15:
        return float("nan"), float("nan")
    x, y = _subpixel_peak(volume[0, 0])
    return (
        -level.step * (x - _REACH) / to_grid[0, 0],
        -level.step * (y - _REACH) / to_grid[1, 1],
    )


def apply_alignment(
    thermal: Array,
    homography: Array,
    size: tuple[int, int],
    *,
    interpolation: Literal["linear", "nearest"] = "linear",
    fill: float = 0,
) -> tuple[Array, npt.NDArray[np.bool_]]:
    """The thermal image on the pixels of the RGB image.

    Args:
        thermal: (H, W) of any real type.
        homography: (3, 3), thermal pixel to RGB pixel.
        size: (height, width) of the RGB image.
        interpolation: `nearest` keeps values that were measured, `linear` is smoother.
        fill: value where the thermal camera does not see.

    Returns the warped image, (height, width) of the thermal's type, and where it is valid: bool,
    true where the thermal image has a pixel and, for floats, that pixel is finite. Everything
    else holds `fill`. InputError for a singular homography, a bad size, or a `fill` that the type
    cannot hold.
    """
    _check_thermal(thermal)
    if interpolation not in ("linear", "nearest"):
        raise InputError(f"interpolation is {interpolation!r}; choose linear or nearest")
    homography = _checked_homography(homography, "alignment")
    height, width = (int(side) for side in size)
    # OpenCV addresses pixels in 16 bits when it warps.
    if min(height, width, *thermal.shape) < 1 or max(height, width, *thermal.shape) > 32766:
        raise InputError(
            f"cannot warp thermal {thermal.shape} to {(height, width)}; sides must be 1 to 32766"
        )
    filled = _as_type(np.array(fill), thermal.dtype)
    if filled != fill and not (np.isnan(filled) and np.isnan(fill)):
        raise InputError(f"fill {fill!r} does not fit thermal values of type {thermal.dtype}")
    native = thermal.dtype.newbyteorder("=")
    work = native if native in (np.uint8, np.uint16, np.float32) else np.dtype(np.float64)
    flags = cv2.INTER_LINEAR if interpolation == "linear" else cv2.INTER_NEAREST
    warped = cv2.warpPerspective(
        thermal.astype(work),
        homography,
        (width, height),
        flags=flags,
        borderMode=cv2.BORDER_REPLICATE,
    )
    valid = _seen(homography, (height, width), (thermal.shape[0], thermal.shape[1]))
    valid &= np.isfinite(warped)
    result = np.full((height, width), filled, thermal.dtype)
    result[valid] = _as_type(warped[valid], thermal.dtype)
    return result, valid


def _as_type(values: Array, kind: np.dtype[Any]) -> Array:
    """Values as `kind`; rounded for integers, and unequal to what they were if out of range."""
    if kind.kind in "iu":
        limits = np.iinfo(kind)
        values = np.clip(np.nan_to_num(np.rint(values)), limits.min, limits.max)
    return values.astype(kind)


def _seen(
    homography: Floats, size: tuple[int, int], source: tuple[int, int]
) -> npt.NDArray[np.bool_]:
    """Which pixels of a (height, width) grid look at a pixel of the source, (height, width) bool.

    To half a pixel beyond the outer pixel centres: a pixel is an area.
    """
    inverse = np.linalg.inv(homography)
    x = np.arange(size[1], dtype=np.float64)[None, :]
    y = np.arange(size[0], dtype=np.float64)[:, None]
    across, down, depth = (row[0] * x + row[1] * y + row[2] for row in inverse)
    # Points beyond the vanishing line of the homography would come back mirrored.
    middle = inverse[2] @ homography @ [(source[1] - 1) / 2, (source[0] - 1) / 2, 1.0]
    front = depth * np.sign(middle) > 1e-12
    with np.errstate(divide="ignore", invalid="ignore"):
        column, row = across / depth, down / depth
        inside = (column >= -0.5) & (column <= source[1] - 0.5)
        inside &= (row >= -0.5) & (row <= source[0] - 0.5)
    seen: npt.NDArray[np.bool_] = inside & front
    return seen


def read_calibration(path: Path) -> Floats:
    """The (3, 3) homography, thermal pixel to RGB pixel, that a JSON file gives in one of 3 ways.

    {"homography": 3 x 3}
    {"points_thermal": [[x, y], ...], "points_rgb": [[x, y], ...]}   4 or more, same order
    {"K_rgb": 3 x 3, "K_thermal": 3 x 3, "R": 3 x 3}                 thermal to RGB camera axes

    The last is K_rgb R K_thermal^-1, exact for what is far away compared with the distance
    between the cameras; lens distortion must have been removed. InputError for anything else.
    """
    content = _read_json(path)
    keys = set(content)
    if keys == {"homography"}:
        return _checked_homography(_matrix(content, "homography", path), str(path))
    if keys == {"points_thermal", "points_rgb"}:
        return _from_points(content, path)
    if keys == {"K_rgb", "K_thermal", "R"}:
        return _from_cameras(content, path)
    raise InputError(
        f"{path} has the keys {', '.join(map(repr, sorted(keys)))[:200] or 'none'}; give either "
        f"homography, or points_thermal and points_rgb, or K_rgb, K_thermal and R"
    )


def write_calibration(path: Path, homography: Array) -> None:
    """Write a homography as `read_calibration` reads it."""
    rows = _checked_homography(homography, "alignment").tolist()
    _write(path, (json.dumps({"homography": rows}, indent=1) + "\n").encode())


def _read_json(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > _LARGEST_CALIBRATION:
            raise InputError(f"{path} is larger than 1 MB; a calibration is a few numbers")
        content = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise InputError(f"cannot read calibration {path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path} is not JSON: {str(error)[:120]}") from None
    if not isinstance(content, dict):
        raise InputError(f"{path} holds a {type(content).__name__}; a calibration is a JSON object")
    return content


def _numbers(content: dict[str, Any], key: str, columns: int, path: Path) -> Floats:
    """The value as finite (N, columns)."""
    rows = content[key]
    good = isinstance(rows, list) and all(
        isinstance(row, list)
        and len(row) == columns
        and all(type(value) in (int, float) and abs(value) < 1e12 for value in row)
        for row in rows
    )
    if not good:
        raise InputError(f"{path}: {key} must be rows of {columns} finite numbers")
    return np.array(rows, np.float64).reshape(-1, columns)


def _matrix(content: dict[str, Any], key: str, path: Path) -> Floats:
    matrix = _numbers(content, key, 3, path)
    if matrix.shape != (3, 3):
        raise InputError(f"{path}: {key} must have 3 rows of 3 numbers, found {len(matrix)} rows")
    return matrix


def _from_points(content: dict[str, Any], path: Path) -> Floats:
    thermal, rgb = (_numbers(content, key, 2, path) for key in ("points_thermal", "points_rgb"))
    if len(thermal) != len(rgb) or len(rgb) < 4:
        raise InputError(
            f"{path} has {len(thermal)} thermal and {len(rgb)} RGB points; give 4 or more of each"
        )
    found, _ = cv2.findHomography(thermal, rgb, 0)
    if found is None or found.size == 0:
        raise InputError(f"{path}: the points fix no homography; 3 of every 4 lie on one line")
    homography = _checked_homography(np.asarray(found, np.float64), str(path))
    missed = np.linalg.norm(_move(homography, thermal) - rgb, axis=1)
    extent = float(np.linalg.norm(np.ptp(rgb, axis=0)))
    worst = int(missed.argmax())
    if not missed[worst] <= 0.05 * extent:
        raise InputError(
            f"{path}: point {worst + 1} is {missed[worst]:.0f} pixels off what all points give; "
            f"check its coordinates and that both lists have one order"
        )
    return homography


def _from_cameras(content: dict[str, Any], path: Path) -> Floats:
    cameras = {}
    for key in ("K_rgb", "K_thermal"):
        cameras[key] = camera = _matrix(content, key, path)
        below = camera[[1, 2, 2], [0, 0, 1]]
        if below.any() or camera[2, 2] != 1 or min(camera[0, 0], camera[1, 1]) <= 0:
            raise InputError(
                f"{path}: {key} must be [[fx, s, cx], [0, fy, cy], [0, 0, 1]] with fx, fy above 0"
            )
    turn = _matrix(content, "R", path)
    if np.abs(turn @ turn.T - np.eye(3)).max() > 1e-3 or np.linalg.det(turn) < 0:
        raise InputError(f"{path}: R is no rotation; its rows must be orthonormal, determinant 1")
    product = cameras["K_rgb"] @ turn @ np.linalg.inv(cameras["K_thermal"])
    return _checked_homography(product, str(path))


def _checked_homography(homography: Array, where: str) -> Floats:
    """As float64 (3, 3) with [2, 2] = 1, or InputError."""
    matrix = np.asarray(homography)
    if matrix.shape != (3, 3) or matrix.dtype.kind not in "iuf" or not np.isfinite(matrix).all():
        raise InputError(f"{where}: a homography is 3 x 3 finite numbers, found {matrix.shape}")
    matrix = matrix.astype(np.float64)
    # In units of 1000 pixels all nine numbers are of one order, so the condition tells.
    unit = np.diag([1e-3, 1e-3, 1.0])
    condition = np.linalg.cond(unit @ matrix @ np.linalg.inv(unit)) if matrix.any() else np.inf
    if not condition < 1e7 or abs(matrix[2, 2]) < 1e-9 * np.abs(matrix).max():
        raise InputError(f"{where}: the homography is singular; check the numbers or the points")
    scaled: Floats = matrix / matrix[2, 2]
    return scaled


def write_comparison(rgb: Array, thermal: Array, aligned: Array, path: Path) -> None:
    """Write a picture by which to judge an alignment: above before it, below after it.

    Left: a chessboard of RGB and thermal, where edges must run on across the fields. Right: the
    edges of the thermal image in red on the grey RGB image.

    Args:
        rgb: uint8 (H, W, 3).
        thermal: the thermal image as it came; resized to (H, W) for the picture.
        aligned: (H, W), from `apply_alignment`.
        path: ends in .png or .jpg; the folder exists.
    """
    _check_images(rgb, thermal)
    _check_images(rgb, aligned)
    if aligned.shape != rgb.shape[:2]:
        raise InputError(f"aligned thermal is {_by(aligned)} but RGB {_by(rgb)}; warp it first")
    if path.suffix.lower() not in (".png", ".jpg", ".jpeg"):
        raise InputError(f"{path}: a comparison is written as .png or .jpg")
    rows = [
        np.concatenate([_chessboard(rgb, shown), _edges_on(rgb, shown)], axis=1)
        for shown in (_as_grey(thermal, rgb.shape[:2]), _as_grey(aligned, rgb.shape[:2]))
    ]
    rule = np.full((max(rgb.shape[0] // 120, 1), rows[0].shape[1], 3), 255, np.uint8)
    picture = np.concatenate([rows[0], rule, rows[1]])
    done, encoded = cv2.imencode(path.suffix.lower(), picture[..., ::-1])
    if not done:
        raise InputError(f"{path}: a picture of {_by(picture)} cannot be encoded; use .png")
    _write(path, encoded.tobytes())


def _as_grey(thermal: Array, size: tuple[int, ...]) -> npt.NDArray[np.uint8]:
    """For the eye: local contrast raised, so that a dark scene shows its structure."""
    values = thermal.astype(np.float32)
    known = np.isfinite(values) & (_valid_region(thermal[..., None]) > 0)
    low, high = np.percentile(values[known], [1, 99]) if known.any() else (0.0, 1.0)
    level = np.clip((np.where(known, values, low) - low) / max(high - low, 1e-6), 0, 1)
    contrast = cv2.createCLAHE(clipLimit=3.0, tileGridSize=(8, 8))
    grey = np.where(known, contrast.apply(np.rint(255 * level).astype(np.uint8)), 0)
    return np.asarray(cv2.resize(grey.astype(np.uint8), (size[1], size[0])), np.uint8)


def _chessboard(rgb: Array, grey: Array) -> Array:
    side = max(max(rgb.shape) // 10, 1)
    y, x = np.arange(grey.shape[0])[:, None], np.arange(grey.shape[1])[None, :]
    return np.where(((y // side + x // side) % 2 == 0)[..., None], rgb, grey[..., None])


def _edges_on(rgb: Array, grey: Array) -> Array:
    smooth = cv2.GaussianBlur(grey, (0, 0), 1.5)
    inside = cv2.erode(_valid_region(grey[..., None]), np.ones((13, 13), np.uint8))
    edges = (cv2.Canny(smooth, 40, 90) > 0) & (inside > 0)  # the fill's own outline is no edge
    base = cv2.cvtColor(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    base[edges] = (255, 40, 40)
    return np.asarray(base)


def _write(path: Path, content: bytes) -> None:
    """Whole or not at all: an interruption leaves no half-written file under the name."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}") from None
    finally:
        temporary.unlink(missing_ok=True)


__all__ = [
    "Alignment",
    "apply_alignment",
    "estimate_alignment",
    "estimate_offset",
    "estimate_rig_alignment",
    "read_calibration",
    "write_calibration",
    "write_comparison",
]
