"""What thermal cameras do to their pictures: radiometric JPEG, borders, dead pixels, display."""

import math
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from sartm.errors import InputError
from sartm.io.decode import read_thermal
from sartm.io.flir import jpeg_segments, read_radiometric
from sartm.io.header import MAX_PIXELS
from sartm.io.holes import fill_holes
from sartm.io.sources import Source, as_file

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Camera:
    """How thermal files of a camera are read beyond decoding them; the defaults change nothing."""

    radiometric: bool = False
    """Thermal files are FLIR radiometric JPEG: degrees Celsius instead of the picture."""
    black_hot: bool = False
    """Warm is dark: the values are inverted."""
    repair: bool = False
    """Constant border bands and single dead pixels are filled from their surroundings."""
    holes: float | None = None
    """Raw value of pixels without a measurement, which are filled; None: there are none."""

    def __post_init__(self) -> None:
        if self.holes is not None and not math.isfinite(self.holes):
            raise InputError(
                f"holes is {self.holes}, but thermal files with NaN or infinity are refused; write "
                f"a number that does not occur in their place, such as -9999, and name that"
            )

    def as_stored(self) -> "Camera":
        """Reads the values as the file holds them: holes stay, and nothing is inverted."""
        return Camera(self.radiometric)


def read_raw(path: Source, camera: Camera, max_pixels: int = MAX_PIXELS) -> Array:
    """`read_thermal`, or Celsius of a radiometric JPEG; `prepare_thermal` does the rest."""
    _refuse_dji(path)
    read = read_radiometric if camera.radiometric else read_thermal
    return read(path, max_pixels)


def prepare_thermal(raw: Array, camera: Camera) -> Array:
    """Raw thermal (H, W) as decoded: filled, repaired and white-hot where the camera says so."""
    if camera.holes is not None:
        raw = fill_holes(raw, camera.holes)
    if camera.repair:
        raw = repair_thermal(raw)
    return invert_thermal(raw) if camera.black_hot else raw


def invert_thermal(raw: Array) -> Array:
    """Black-hot to white-hot: the largest value of the number type minus raw; floats are negated.

    A rule `range` on 16-bit counts or floats then counts from the other end.
    """
    if raw.dtype.kind == "u":
        return np.asarray(np.iinfo(raw.dtype).max - raw)
    return np.asarray(-raw)


def border_bands(raw: Array) -> tuple[int, int, int, int]:
    """Rows and columns of one single value along the edges of (H, W): top, bottom, left, right.

    A band wider than an eighth of its side is part of the scene (a sky clipped to black, say), and
    so is one that hardly differs from what is beside it: both count as 0.
    """
    low, high = np.percentile(raw, (1, 99))
    step = 0.05 * float(high - low)
    top, bottom, left, right = 0, 0, 0, 0
    for _ in range(2):  # rows that vary only where they cross the bands on the left and right
        inner = raw[:, left : raw.shape[1] - right]
        top, bottom = _band(inner, step), _band(inner[::-1], step)
        inner = raw[top : raw.shape[0] - bottom].T
        left, right = _band(inner, step), _band(inner[::-1], step)
    return top, bottom, left, right


def _band(image: Array, step: float) -> int:
    """Constant rows at the top of (H, W) that differ from the next row by more than `step`."""
    most = image.shape[0] // 8
    flat = np.ptp(image[: most + 1], axis=1) == 0
    count = int(flat.argmin())
    if flat.all() or count == 0:
        return 0
    beside = np.abs(image[count].astype(np.float64) - float(image[count - 1, 0]))
    return count if beside.mean() > step else 0


def dead_pixels(raw: Array) -> npt.NDArray[np.bool_]:
    """(H, W) true where one pixel alone stands out of all its eight neighbours.

    By more than a twentieth of the image's range and eight times its usual grain. None where more
    than one in 200 would be dead: that is texture. Two dead neighbours hide each other.
    """
    if min(raw.shape) < 3:
        return np.zeros(raw.shape, bool)
    image = raw.astype(np.float32)
    ring = np.ones((3, 3), np.uint8)
    ring[1, 1] = 0
    grain = float(np.median(np.abs(image - cv2.medianBlur(image, 3))))
    low, high = np.percentile(image, (1, 99))
    margin = max(8 * grain, 0.05 * float(high - low), 1e-6)
    # What lies outside never decides: the borders of both filters are neutral.
    found = (image > cv2.dilate(image, ring) + margin) | (image < cv2.erode(image, ring) - margin)
    dead = np.asarray(found, bool)
    return dead if dead.mean() <= 1 / 200 else np.zeros_like(dead)


def repair_thermal(raw: Array) -> Array:
    """Fill border bands and dead pixels of raw thermal (H, W); the number type stays.

    Bands take the nearest row or column, dead pixels the median of their 3x3 surroundings.
    """
    top, bottom, left, right = border_bands(raw)
    height, width = raw.shape
    inner = np.ascontiguousarray(raw[top : height - bottom, left : width - right])
    dead = dead_pixels(inner)
    if dead.any():
        around = cv2.medianBlur(cv2.copyMakeBorder(inner, 1, 1, 1, 1, cv2.BORDER_REFLECT_101), 3)
        inner = np.where(dead, around[1:-1, 1:-1], inner)
    if not (top or bottom or left or right):
        return inner
    return np.asarray(cv2.copyMakeBorder(inner, top, bottom, left, right, cv2.BORDER_REPLICATE))


def enhance_display(grey: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Local contrast (CLAHE) of an 8-bit grey picture (H, W), to look at; models never see it."""
    return np.asarray(cv2.createCLAHE(clipLimit=3.0, tileGridSize=(8, 8)).apply(grey), np.uint8)


def is_dji(data: bytes) -> bool:
    """Whether a file's bytes are a DJI R-JPEG: a picture with the maker's own raw data behind it.

    They lie in APP3, by segments of 64 KiB, where other cameras have nothing; EXIF names the maker.
    """
    made, raw = False, 0
    for marker, body in jpeg_segments(data):
        made = made or (marker == 0xE1 and body[:4] == b"Exif" and b"DJI\0" in body[:4096])
        raw += len(body) if marker == 0xE3 else 0
    return made and raw > 4096


def _refuse_dji(path: Source) -> None:
    """Its picture is in colours or grey levels of the moment, which say nothing about degrees."""
    file = as_file(path)
    try:
        with file.open("rb") as stream:
            start = stream.read(2)
            data = start + stream.read(2**22) if start == b"\xff\xd8" else b""
    except (OSError, ValueError):  # reading it will say why
        return
    if is_dji(data):
        raise InputError(
            f"{file}: a DJI R-JPEG, whose temperatures only the maker's tool reads: DJI Thermal "
            f"SDK, dji_irp -a measure --measurefmt float32 -s IMAGE.JPG -o IMAGE.raw; then save "
            f"the floats as NumPy file, which predict --degrees celsius reads "
            f"(docs/camera-to-table.md). For its grey picture alone save it again as PNG"
        )
