"""RGB and raw thermal of one decoded picture of a film or a camera."""

from typing import Any, Literal

import cv2
import numpy as np
import numpy.typing as npt

from sartm.data.pairs import RawImages
from sartm.errors import InputError
from sartm.io.cameras import Camera, prepare_thermal
from sartm.io.decode import as_thermal
from sartm.io.holes import find_holes

Array = npt.NDArray[Any]
Arrangement = Literal["left-right", "right-left", "top-bottom", "bottom-top", "four-channel"]
"""Where RGB (first word) and thermal lie in one video; `four-channel`: thermal is alpha."""
Role = Literal["rgb", "thermal"] | Arrangement


def convert_picture(picture: Any, role: Role, camera: Camera, name: str) -> RawImages:
    """RGB and thermal of a decoded frame, upright."""
    turns = round(picture.rotation / 90) % 4
    if role == "rgb":
        rgb, thermal = picture.to_ndarray(format="rgb24"), None
    elif role == "thermal":
        rgb, thermal = None, _extract_thermal(picture, name)
    elif role == "four-channel":
        rgb, thermal = _split_channels(picture, name)
    else:
        return _split_halves(_turn(picture.to_ndarray(format="rgb24"), turns), role, camera, name)
    rgb = None if rgb is None else _turn(rgb, turns)
    if thermal is None:
        return RawImages(rgb, None)
    return _join(rgb, _turn(thermal, turns), camera, name)


def _join(rgb: Array | None, raw: Array, camera: Camera, name: str) -> RawImages:
    raw = as_thermal(raw, name)
    thermal, unseen = prepare_thermal(raw, camera), find_holes(raw, camera.holes)
    return RawImages(rgb, thermal, unseen, black_hot=camera.black_hot)


def _turn(image: Array, turns: int) -> Array:
    return np.ascontiguousarray(np.rot90(image, turns)) if turns else image


def _extract_thermal(picture: Any, name: str) -> Array:
    """Raw (H, W): grey of any depth keeps its values, of YUV the luma is taken at full range."""
    kind = picture.format.name
    if kind.startswith("gray") and kind not in ("gray", "gray8"):
        raw = picture.to_ndarray(format="gray16le") if kind == "gray16be" else picture.to_ndarray()
        return np.asarray(raw)
    if kind in ("gray", "gray8"):
        return np.asarray(picture.to_ndarray())
    if kind.startswith(("yuv", "nv")) and picture.format.components[0].bits == 8:
        if kind.startswith("yuv") and not kind.startswith("yuyv"):
            _refuse_colour(_measure_chroma(picture), 12.0, 2.0, name)
        else:
            _extract_grey(picture.to_ndarray(format="rgb24"), name)
        return np.asarray(picture.to_ndarray(format="gray"))
    return _extract_grey(picture.to_ndarray(format="rgb24"), name)


def _measure_chroma(picture: Any) -> Array:
    """How far the two colour planes of planar YUV are from grey."""
    planes = []
    for plane in picture.planes[1:3]:
        lines = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)
        planes.append(lines[: plane.height, : plane.width].ravel())
    return np.abs(np.concatenate(planes).astype(np.int16) - 128)


def _extract_grey(rgb: Array, name: str, largest: float = 24.0, mean: float = 4.0) -> Array:
    """One channel of three nearly equal ones (H, W, 3)."""
    spread = rgb.max(axis=2).astype(np.int16) - rgb.min(axis=2)
    _refuse_colour(spread, largest, mean, name)
    return np.ascontiguousarray(rgb[..., 1])


def _refuse_colour(spread: Array, largest: float, mean: float, name: str) -> None:
    if spread.size and (spread.max() > largest or spread.mean() > mean):
        raise InputError(
            f"{name}: the thermal video is in false colour or is a visible one (channels differ by "
            f"up to {spread.max()}, {spread.mean():.1f} on average); record it in "
            f"grey, or exchange --rgb and --thermal"
        )


def _split_channels(picture: Any, name: str) -> tuple[Array, Array]:
    if not any(component.is_alpha for component in picture.format.components):
        raise InputError(
            f"{name}: {picture.format.name} has no 4th channel; choose another --one-file"
        )
    if picture.format.components[0].bits > 8:
        pixels = picture.to_ndarray(format="rgba64le")
        rgb = np.asarray(cv2.convertScaleAbs(pixels[..., :3], alpha=1 / 257), np.uint8)
        return rgb, pixels[..., 3].copy()
    pixels = picture.to_ndarray(format="rgba")
    return np.ascontiguousarray(pixels[..., :3]), np.ascontiguousarray(pixels[..., 3])


def _split_halves(image: Array, role: Arrangement, camera: Camera, name: str) -> RawImages:
    """Both halves of (H, W, 3); colours bleed over the seam a little, so only the mean counts."""
    axis = 1 if role in ("left-right", "right-left") else 0
    middle = image.shape[axis] // 2
    first, second = np.split(image, (middle, 2 * middle), axis=axis)[:2]
    if role in ("right-left", "bottom-top"):
        first, second = second, first
    grey = _extract_grey(second, name, largest=255.0)
    return _join(np.ascontiguousarray(first), grey, camera, name)


def convert_camera_picture(image: Array, role: Role, camera: Camera, name: str) -> RawImages:
    """RGB and thermal of what OpenCV gives of a camera: grey, BGR, or YUYV as two channels."""
    if role == "thermal":
        if image.ndim == 3 and image.shape[2] == 2:  # luma, then colour
            raw = np.ascontiguousarray(image[..., 0])
        else:
            raw = image if image.ndim == 2 else _extract_grey(image, name)
        return _join(None, raw, camera, name)
    to_rgb = cv2.COLOR_GRAY2RGB if image.ndim == 2 else cv2.COLOR_BGR2RGB
    rgb = np.asarray(cv2.cvtColor(image, to_rgb), np.uint8)
    if role == "rgb":
        return RawImages(rgb, None)
    if role == "four-channel":
        raise InputError(f"{name}: a camera has no 4th channel; choose another --one-file")
    return _split_halves(rgb, role, camera, name)
