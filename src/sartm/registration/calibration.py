"""A homography from the thermal to the RGB camera that is known: its file, its use, its picture.

Coordinates: pixel centres are integers, x right, y down; a homography maps thermal (x, y, 1) to
RGB. A plane explains the whole image only as far as the scene is far away or the cameras close
together: near objects keep their parallax.
"""

import json
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import numpy.typing as npt

from sartm.errors import InputError
from sartm.files import read_json, write_atomic
from sartm.registration.edge_fields import Array, Floats, valid_region

_LARGEST_CALIBRATION = 2**20
"""Bytes."""


def apply_alignment(
    thermal: Array,
    homography: Array,
    size: tuple[int, int],
    *,
    interpolation: Literal["linear", "nearest"] = "linear",
    fill: float = 0,
    unseen: npt.NDArray[np.bool_] | None = None,
) -> tuple[Array, npt.NDArray[np.bool_]]:
    """The thermal image on the pixels of the RGB image.

    Args:
        thermal: (H, W) of any real type.
        homography: (3, 3), thermal pixel to RGB pixel.
        size: (height, width) of the RGB image.
        interpolation: `nearest` keeps values that were measured, `linear` is smoother.
        fill: value where the thermal camera does not see. A file needs one that no pixel holds
            (`io.holes.mark_holes`), a thermal rule one from within the scene (`align_thermal`).
        unseen: (H, W), pixels of `thermal` that are no measurements (`Sample.unseen`).

    Returns the warped image, (height, width) of the thermal's type, and where it is valid: bool,
    true where the thermal image has a measured pixel and, for floats, that pixel is finite.
    Everything else holds `fill`. InputError for a singular homography, a bad size, or a `fill`
    that the type cannot hold.
    """
    _check_thermal(thermal)
    if interpolation not in ("linear", "nearest"):
        raise InputError(f"interpolation is {interpolation!r}; choose linear or nearest")
    homography = checked_homography(homography, "alignment")
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
    if unseen is not None:
        moved = cv2.warpPerspective(
            unseen.astype(np.uint8),
            homography,
            (width, height),
            flags=cv2.INTER_NEAREST,
            borderMode=cv2.BORDER_REPLICATE,
        )
        valid &= moved == 0
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
    content = read_json(path, _LARGEST_CALIBRATION)
    keys = set(content)
    if keys == {"homography"}:
        return checked_homography(_matrix(content, "homography", path), str(path))
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
    rows = checked_homography(homography, "alignment").tolist()
    _write(path, (json.dumps({"homography": rows}, indent=1) + "\n").encode())


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
    homography = checked_homography(np.asarray(found, np.float64), str(path))
    missed = np.linalg.norm(move_points(homography, thermal) - rgb, axis=1)
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
    return checked_homography(product, str(path))


def checked_homography(homography: Array, where: str) -> Floats:
    """The matrix as float64 (3, 3) with [2, 2] = 1; InputError, naming `where`, if it is none."""
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


def move_points(homography: Floats, points: Floats) -> Floats:
    """(N, 2) points, x and y, as the (3, 3) homography maps them."""
    return np.asarray(cv2.perspectiveTransform(points[None], homography)[0], np.float64)


def write_comparison(rgb: Array, thermal: Array, aligned: Array, path: Path) -> None:
    """Write a picture by which to judge an alignment: above before it, below after it.

    Left: a chessboard of RGB and thermal, where edges must run on across the fields. Right: the
    edges of the thermal image in red on the grey RGB image.

    Args:
        rgb: uint8 (H, W, 3).
        thermal: the thermal image as it came; resized to (H, W) for the picture.
        aligned: (H, W), from `apply_alignment`.
        path: ends in .png or .jpg.
    """
    check_images(rgb, thermal)
    check_images(rgb, aligned)
    if aligned.shape != rgb.shape[:2]:
        raise InputError(
            f"aligned thermal is {describe_size(aligned)} but RGB {describe_size(rgb)}; "
            f"warp it first"
        )
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
        raise InputError(
            f"{path}: a picture of {describe_size(picture)} cannot be encoded; use .png"
        )
    _write(path, encoded.tobytes())


def _as_grey(thermal: Array, size: tuple[int, ...]) -> npt.NDArray[np.uint8]:
    """For the eye: local contrast raised, so that a dark scene shows its structure."""
    values = thermal.astype(np.float32)
    known = np.isfinite(values) & (valid_region(thermal[..., None]) > 0)
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
    inside = cv2.erode(valid_region(grey[..., None]), np.ones((13, 13), np.uint8))
    edges = (cv2.Canny(smooth, 40, 90) > 0) & (inside > 0)  # the fill's own outline is no edge
    base = cv2.cvtColor(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    base[edges] = (255, 40, 40)
    return np.asarray(base)


def describe_size(image: Array) -> str:
    """Width x height in words, for messages."""
    return f"{image.shape[1]} x {image.shape[0]} pixels"


def check_images(rgb: Array, thermal: Array) -> None:
    """Refuse anything but RGB uint8 (H, W, 3) and thermal (H, W) numbers with an InputError."""
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


def _write(path: Path, content: bytes) -> None:
    try:
        write_atomic(path, content)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}") from None
