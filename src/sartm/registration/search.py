"""The search for the homography between two cameras: arithmetic on fields of edge direction."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from sartm.registration.calibration import move_points
from sartm.registration.edge_fields import (
    COARSE,
    Array,
    Field,
    FieldPair,
    Floats,
    as_channels,
    shift,
    stretch,
    warp_field,
)

_SCALES: Floats = np.linspace(0.9, 1.1, 11)
_TURNS: Floats = np.array([-4.0, -2.0, 0.0, 2.0, 4.0])
"""Degrees."""
_STRENGTH, _AGREEMENT, _SPREAD = 1.55, 0.27, 8.0
"""Least strength and agreement, largest spread in working pixels, of an accepted estimate."""


REACH = 14
"""Largest shift looked at, in pixels of the coarsest level: 56 on the working grid."""


_PRIOR = 0.1
"""How firmly the four parameters beyond a similarity are held at 0, as a share of the evidence
that one pair has for its shift. Weaker, and near objects bend the whole image: on the day pairs of
MSRS the 95th percentile of the error is 0.8 pixels at 0.3, 1.0 at 0.1 and 1.5 at 0.05, while a
true perspective is followed the better the weaker it is."""


_PLAN = ((4, 4, 8, 1.0), (2, 5, 16, 1.2), (2, 4, 16, 0.8), (1, 4, 32, 0.8))
"""Refinement: step of the level, largest block shift, side of a block, blur of its surface."""


_HALF_PLAN = ((2, 5, 16, 1.2), (2, 4, 16, 0.8))


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
    step = move_points(homography, corners) - corners
    solution = np.linalg.solve(np.concatenate(_basis(corners, size)), step.T.ravel())
    return np.asarray(solution, np.float64)


def correlate(
    pairs: Sequence[FieldPair],
    scales: Floats,
    turns: Floats,
    half: Array | None = None,
) -> Floats:
    """Agreement, -1 to 1, of the coarsest fields over scale, turn, y and x shift.

    Returns (scales, turns, 2 * reach + 1, 2 * reach + 1), the mean over the pairs. `half`, (H, W)
    of 0 and 1, limits the RGB side to a part of the image.
    """
    first = pairs[0].rgb[COARSE]
    size = (first.shape[0], first.shape[1])
    padded = tuple(cv2.getOptimalDFTSize(side + REACH) for side in size)
    span = 2 * REACH + 1
    volume = np.zeros((len(scales), len(turns), span, span))
    for pair in pairs:
        rgb, thermal = pair.rgb[COARSE], pair.thermal[COARSE]
        rgb = rgb if half is None else rgb * half
        spectrum = np.conj(np.fft.fft2(rgb, padded))
        for i, scale in enumerate(scales):
            for j, turn in enumerate(turns):
                moved = warp_field(thermal, _similarity(float(scale), float(turn), size))
                product = np.fft.ifft2(spectrum * np.fft.fft2(moved, padded)).real
                near = np.roll(product, (REACH, REACH), (0, 1))[:span, :span]
                volume[i, j] += near / (_norm(rgb) * _norm(moved) + 1e-9)
    return volume / len(pairs)


def _norm(field: Field) -> float:
    return float(np.linalg.norm(field))


def _peak(volume: Floats, scales: Floats, turns: Floats, size: tuple[int, int]) -> Floats:
    """The homography on the coarsest level at the largest agreement."""
    i, j, y, x = np.unravel_index(int(volume.argmax()), volume.shape)
    back = shift(REACH - float(x), REACH - float(y))
    return back @ _similarity(float(scales[i]), float(turns[j]), size)


def _block_surfaces(rgb: Field, thermal: Field, reach: int, block: int) -> Floats:
    """Agreement of each block with its shifted surroundings, (2 reach + 1, 2 reach + 1, blocks)."""
    height, width = rgb.shape
    rows, columns = height // block, width // block
    fixed, margin = as_channels(rgb), np.pad(thermal, reach)
    span = 2 * reach + 1
    surfaces = np.empty((span, span, rows * columns))
    for y in range(span):
        for x in range(span):
            product = fixed * as_channels(margin[y : y + height, x : x + width])
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
    pairs: Sequence[FieldPair],
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
        resize = stretch(1 / step, 1 / step)
        to_level = resize @ _homography(parameters, whole) @ np.linalg.inv(resize)
        surfaces = np.zeros((2 * reach + 1, 2 * reach + 1, 1))
        for pair in pairs:
            rgb, moved = pair.rgb[step], warp_field(pair.thermal[step], to_level)
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


def mirrored(pair: FieldPair) -> list[FieldPair]:
    """The pair with its coarsest thermal field mirrored left-right, up-down and both ways.

    No true place exists for these, yet they have the statistics of the scene: how well they can
    be made to agree by chance says what a peak is worth.
    """
    field = pair.thermal[COARSE]
    mirrors = (np.conj(field[:, ::-1]), np.conj(field[::-1]), field[::-1, ::-1])
    return [FieldPair(pair.rgb, {COARSE: np.ascontiguousarray(mirror)}) for mirror in mirrors]


def peak_strength(volume: Floats, chance: Sequence[Floats]) -> float:
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


def subpixel_peak(surface: Floats) -> tuple[float, float]:
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


def _agreement(pairs: Sequence[FieldPair], parameters: Floats) -> float:
    """Share of the blocks, by their evidence, that match best within a pixel of the estimate.

    On the middle level, so a pixel is 2 of the working grid; chance gives about 0.1.
    """
    step, reach, block = 2, 5, 32
    resize = stretch(1 / step, 1 / step)
    shape = pairs[0].rgb[step].shape
    whole = (shape[0] * step, shape[1] * step)
    to_level = resize @ _homography(parameters, whole) @ np.linalg.inv(resize)
    surfaces = np.zeros((2 * reach + 1, 2 * reach + 1, 1))
    for pair in pairs:
        moved = warp_field(pair.thermal[step], to_level)
        surfaces = surfaces + _block_surfaces(pair.rgb[step], moved, reach, block)
    best = surfaces.max(axis=(0, 1))
    near = surfaces[reach - 1 : reach + 2, reach - 1 : reach + 2].max(axis=(0, 1))
    return float(best[near >= best].sum() / max(float(best.sum()), 1e-9))


@dataclass(frozen=True, eq=False)
class Found:
    """An estimate on the working grid and what speaks for it."""

    homography: Floats
    quality: float
    reason: str
    spread: float
    """In pixels of the working grid."""


def search_alignment(pairs: Sequence[FieldPair], grid: tuple[int, int], free: int) -> Found:
    """Search, refine, and judge by three independent signs; the weakest decides."""
    if any(_norm(field) == 0 for pair in pairs for field in (pair.rgb[1], pair.thermal[1])):
        return Found(np.eye(3), 0.0, "an image is constant or shows no edges", float("inf"))
    shape = pairs[0].rgb[COARSE].shape
    volume = correlate(pairs, _SCALES, _TURNS)
    mirrors = zip(*(mirrored(pair) for pair in pairs), strict=True)
    chance = [correlate(mirror, _SCALES[1::4], _TURNS[1::2]) for mirror in mirrors]
    strength = peak_strength(volume, chance)
    start = _peak(volume, _SCALES, _TURNS, (shape[0], shape[1]))
    enlarge = stretch(COARSE, COARSE)
    first = _parameters(enlarge @ start @ np.linalg.inv(enlarge), grid)
    parameters = _refine(pairs, first, free)
    halves = [_refine(pairs, parameters, free, half, _HALF_PLAN) for half in (0, 1)]
    ends = [move_points(_homography(half, grid), _corners(grid)) for half in halves]
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
    return Found(_homography(parameters, grid), quality, "" if weakest >= 1 else reason, spread)


def _inside(volume: Floats) -> float:
    """Below 1 when the peak lies on the rim of the search, where a better one may lie beyond."""
    scale, _turn, y, x = np.unravel_index(int(volume.argmax()), volume.shape)
    place = ((scale, volume.shape[0]), (y, volume.shape[2]), (x, volume.shape[3]))
    rim = any(int(at) in (0, length - 1) for at, length in place)
    return 0.8 if rim else 10.0
