"""Where a thermal pixel lies in the RGB image: the homography between two cameras, estimated.

The fields of both images (see edge_fields) are made to agree from coarse to fine:

    agreement of two fields       Re(sum z_rgb * conj(z_thermal)): +1 parallel, -1 at right angles

What is found is judged by signs that do not depend on each other, and refused if one is bad. For
coordinates and for what a homography cannot do, see calibration.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt

from sartm.errors import InputError
from sartm.registration.calibration import apply_alignment, check_images, describe_size, move_points
from sartm.registration.edge_fields import (
    COARSE,
    LEVELS,
    Array,
    Field,
    FieldPair,
    Floats,
    as_channels,
    gradient_field,
    make_pyramid,
    prepare,
    shift,
    stretch,
    warp_field,
    working_grid,
)

Model = Literal["similarity", "affine", "homography"]

_SMALLEST = 48
"""Shorter side of the working grid below which there is nothing to correlate."""

_SCALES: Floats = np.linspace(0.9, 1.1, 11)

_TURNS: Floats = np.array([-4.0, -2.0, 0.0, 2.0, 4.0])
"""Degrees."""

_REACH = 14
"""Largest shift looked at, in pixels of the coarsest level: 56 on the working grid."""

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


_PLAN = ((4, 4, 8, 1.0), (2, 5, 16, 1.2), (2, 4, 16, 0.8), (1, 4, 32, 0.8))
"""Refinement: step of the level, largest block shift, side of a block, blur of its surface."""

_HALF_PLAN = ((2, 5, 16, 1.2), (2, 4, 16, 0.8))

_STRENGTH, _AGREEMENT, _SPREAD = 1.55, 0.27, 8.0
"""Least strength and agreement, largest spread in working pixels, of an accepted estimate."""


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


def _search(
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
    padded = tuple(cv2.getOptimalDFTSize(side + _REACH) for side in size)
    span = 2 * _REACH + 1
    volume = np.zeros((len(scales), len(turns), span, span))
    for pair in pairs:
        rgb, thermal = pair.rgb[COARSE], pair.thermal[COARSE]
        rgb = rgb if half is None else rgb * half
        spectrum = np.conj(np.fft.fft2(rgb, padded))
        for i, scale in enumerate(scales):
            for j, turn in enumerate(turns):
                moved = warp_field(thermal, _similarity(float(scale), float(turn), size))
                product = np.fft.ifft2(spectrum * np.fft.fft2(moved, padded)).real
                near = np.roll(product, (_REACH, _REACH), (0, 1))[:span, :span]
                volume[i, j] += near / (_norm(rgb) * _norm(moved) + 1e-9)
    return volume / len(pairs)


def _norm(field: Field) -> float:
    return float(np.linalg.norm(field))


def _peak(volume: Floats, scales: Floats, turns: Floats, size: tuple[int, int]) -> Floats:
    """The homography on the coarsest level at the largest agreement."""
    i, j, y, x = np.unravel_index(int(volume.argmax()), volume.shape)
    back = shift(_REACH - float(x), _REACH - float(y))
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


def _mirrored(pair: FieldPair) -> list[FieldPair]:
    """The pair with its coarsest thermal field mirrored left-right, up-down and both ways.

    No true place exists for these, yet they have the statistics of the scene: how well they can
    be made to agree by chance says what a peak is worth.
    """
    field = pair.thermal[COARSE]
    mirrors = (np.conj(field[:, ::-1]), np.conj(field[::-1]), field[::-1, ::-1])
    return [FieldPair(pair.rgb, {COARSE: np.ascontiguousarray(mirror)}) for mirror in mirrors]


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
class _Found:
    """An estimate on the working grid and what speaks for it."""

    homography: Floats
    quality: float
    reason: str
    spread: float
    """In pixels of the working grid."""


def _align(pairs: Sequence[FieldPair], grid: tuple[int, int], free: int) -> _Found:
    """Search, refine, and judge by three independent signs; the weakest decides."""
    if any(_norm(field) == 0 for pair in pairs for field in (pair.rgb[1], pair.thermal[1])):
        return _Found(np.eye(3), 0.0, "an image is constant or shows no edges", float("inf"))
    shape = pairs[0].rgb[COARSE].shape
    volume = _search(pairs, _SCALES, _TURNS)
    mirrors = zip(*(_mirrored(pair) for pair in pairs), strict=True)
    chance = [_search(mirror, _SCALES[1::4], _TURNS[1::2]) for mirror in mirrors]
    strength = _strength(volume, chance)
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
    return _Found(_homography(parameters, grid), quality, "" if weakest >= 1 else reason, spread)


def _inside(volume: Floats) -> float:
    """Below 1 when the peak lies on the rim of the search, where a better one may lie beyond."""
    scale, _turn, y, x = np.unravel_index(int(volume.argmax()), volume.shape)
    place = ((scale, volume.shape[0]), (y, volume.shape[2]), (x, volume.shape[3]))
    rim = any(int(at) in (0, length - 1) for at, length in place)
    return 0.8 if rim else 10.0


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
    candidates: list[list[FieldPair]] = []
    for index in chosen:
        rgb, thermal = pairs[int(index)]
        check_images(rgb, thermal)
        sizes.add((rgb.shape[:2], thermal.shape))
        if len(sizes) > 1:
            raise InputError(
                f"image sizes change within the rig: {sorted(sizes)}; align folders of one size "
                f"each, or every pair by itself"
            )
        grid, to_grid, places = working_grid(rgb.shape[:2], thermal.shape)
        if min(grid) < _SMALLEST:
            nothing = f"an RGB image of {describe_size(rgb)} is too small or too narrow to align"
            return _finish(_Found(np.eye(3), 0.0, nothing, np.inf), to_grid, places[0], model)
        rgb_fields = make_pyramid(rgb, grid, to_grid)
        candidates.append(
            [
                FieldPair(rgb_fields, make_pyramid(thermal[..., None], grid, place))
                for place in places
            ]
        )
    found = [
        _align(fields, grid, _FREE[model]) for fields in zip(*candidates, strict=True)
    ]  # one result per guess at the nominal size of the thermal image
    best = max(range(len(found)), key=lambda index: found[index].quality)
    return _finish(found[best], to_grid, places[best], model)


@dataclass(frozen=True, eq=False)
class AlignedThermal:
    """A thermal image on the pixels of its RGB image, and how it came there."""

    image: Array
    """(H, W) of the RGB image, type of the raw values; their median where nothing is seen."""
    valid: npt.NDArray[np.bool_]
    """(H, W) true where the thermal camera sees."""
    homography: Floats
    """(3, 3), thermal pixel to RGB pixel."""
    quality: float | None
    """0 to 1 where the homography was estimated, None where it was given."""
    seen: float
    """Share of the RGB image that the thermal camera sees, 0 to 1."""


def align_thermal(
    rgb: Array,
    thermal: Array,
    homography: Array | None = None,
    name: str = "pair",
    unseen: npt.NDArray[np.bool_] | None = None,
) -> AlignedThermal:
    """Bring raw thermal (h, w) onto the pixels of RGB uint8 (H, W, 3), to be labelled.

    Args:
        homography: (3, 3), thermal pixel to RGB pixel; None: estimated from this pair alone.
        name: which pair it is, for messages.
        unseen: (h, w), pixels of thermal that are no measurements (`Sample.unseen`).

    What the thermal camera does not see gets the median of what it sees: a value from outside the
    scene would shift thermal rules that go by the image's own range.

    Raises:
        InputError: no estimate is good enough, or the homography leads out of the RGB image.
    """
    quality = None
    if homography is None:
        found = estimate_alignment(rgb, thermal)
        if not found.accepted:
            raise InputError(
                f"{name}: thermal could not be aligned: {found.reason} (quality "
                f"{found.quality:.2f} of at least 0.5). Give --align FILE: sartm data align writes "
                f"one from many pairs, calibration.json"
            )
        homography, quality = found.homography, found.quality
    check_images(rgb, thermal)
    fill = float(np.median(thermal[np.isfinite(thermal)])) if np.isfinite(thermal).any() else 0.0
    if thermal.dtype.kind in "biu":
        fill = float(int(fill))
    fill = float(thermal.dtype.type(fill))
    moved, valid = apply_alignment(
        thermal, homography, (rgb.shape[0], rgb.shape[1]), fill=fill, unseen=unseen
    )
    if not valid.any():
        raise InputError(
            f"{name}: the alignment puts the thermal image ({describe_size(thermal)}) outside the "
            f"RGB image ({describe_size(rgb)}); was it made for images of other sizes?"
        )
    homography = np.asarray(homography, np.float64)
    return AlignedThermal(moved, valid, homography, quality, float(valid.mean()))


def estimate_offset(rgb: Array, thermal: Array) -> tuple[float, float]:
    """Shift (dx, dy) in RGB pixels that brings the thermal image onto the RGB image; quick.

    Shift only, at a quarter of the working resolution: right to about a pixel per 640, meant for
    the median over many pairs. (nan, nan) where nothing stands out. Shapes and errors as in
    `estimate_alignment`.
    """
    check_images(rgb, thermal)
    grid, to_grid, places = working_grid(rgb.shape[:2], thermal.shape)
    if min(grid) < _SMALLEST:
        return float("nan"), float("nan")
    level = LEVELS[0]
    small = (grid[0] // level.step, grid[1] // level.step)
    shrink = stretch(1 / level.step, 1 / level.step)
    fields = []
    for image, place in ((rgb, to_grid), (thermal[..., None], places[0])):
        values, valid = prepare(image, small, shrink @ place, margin=2)
        fields.append({COARSE: gradient_field(values, valid, level)})
    pair = FieldPair(*fields)
    still = np.array([1.0]), np.array([0.0])
    volume = _search([pair], *still)
    if _strength(volume, [_search([mirror], *still) for mirror in _mirrored(pair)]) < 1.15:
        return float("nan"), float("nan")
    x, y = _subpixel_peak(volume[0, 0])
    return (
        -level.step * (x - _REACH) / to_grid[0, 0],
        -level.step * (y - _REACH) / to_grid[1, 1],
    )


__all__ = [
    "AlignedThermal",
    "Alignment",
    "Model",
    "align_thermal",
    "estimate_alignment",
    "estimate_offset",
    "estimate_rig_alignment",
]
