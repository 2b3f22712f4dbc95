"""One file to one array: RGB, thermal and four-channel images, all checked."""

import struct
from io import BytesIO
from typing import Any, Literal

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from sartm.errors import InputError, unreadable
from sartm.io import tiff
from sartm.io.header import BMP_16, MAX_PIXELS, PLUGINS, Header, probe
from sartm.io.sources import File, Source, as_file, read_bytes
from sartm.io.streams import check_stream

Array = npt.NDArray[Any]
FourChannel = Literal["auto", "yes", "no"]


def read_rgb(path: Source, max_pixels: int = MAX_PIXELS) -> npt.NDArray[np.uint8]:
    """Read a visible image as uint8 (H, W, 3) in RGB order, EXIF orientation applied.

    Grey becomes three equal channels, transparency (and a thermal 4th channel) is dropped, other
    bit depths are scaled to 8 with rounding (16 bits: value / 257). A 16-bit image whose largest
    value is 255 or 4095 at most holds 8 or 12 bits and is scaled by that; 10 or 14 cannot be told
    from a dark image. Of several pages of a TIFF the first is read; four pages of one band, one
    size and one number type are red, green, blue and thermal.

    Raises:
        InputError: not a readable image, larger than `max_pixels`, or floating-point.
    """
    path = as_file(path)
    pixels, header = _decode(path, max_pixels)
    return as_rgb(pixels, path, header.white)


def read_thermal(path: Source, max_pixels: int = MAX_PIXELS) -> Array:
    """Read a thermal image as raw (H, W) uint8, uint16 or float32; values are not scaled.

    Three equal channels become one (JPEG rounding is forgiven up to 12 levels, 2 on average).

    Raises:
        InputError: not a readable image, larger than `max_pixels`, false colour, NaN or infinity.
    """
    path = as_file(path)
    return as_thermal(_decode(path, max_pixels)[0], path)


def read_four_channel(
    path: Source, max_pixels: int = MAX_PIXELS
) -> tuple[npt.NDArray[np.uint8], Array]:
    """Read RGB + thermal in one file: uint8 (H, W, 3) and raw (H, W).

    Four channels as MFNet ships them, a TIFF of four pages with one band each, or an .npy of four
    or six channels (RGB, then thermal three times).

    Raises:
        InputError: as `read_rgb` and `read_thermal`, or another number of channels.
    """
    path = as_file(path)
    pixels, header = _decode(path, max_pixels)
    if pixels.ndim != 3 or pixels.shape[2] not in (4, 6):
        found = 1 if pixels.ndim == 2 else pixels.shape[2]
        raise InputError(
            f"{path}: expected RGB + thermal in one file (4 channels), found {found}; "
            f"give the thermal image as a file of its own"
        )
    thermal = np.ascontiguousarray(pixels[..., 3] if pixels.shape[2] == 4 else pixels[..., 3:])
    return as_rgb(pixels, path, header.white), as_thermal(thermal, path)


def read_rgb_alone(
    path: Source, four_channel: FourChannel = "auto", max_pixels: int = MAX_PIXELS
) -> tuple[npt.NDArray[np.uint8], Array | None, str]:
    """Read an image given without a thermal partner, which may carry thermal as 4th channel.

    With `auto` a 4th channel of more than 16 distinct values is thermal, of one or two values
    transparency; between the two it is dropped as well. `yes` and `no` decide without looking.

    Returns:
        RGB uint8 (H, W, 3), thermal raw (H, W) or None, and a sentence to show ("" if none needed).

    Raises:
        InputError: as `read_rgb`; with `yes` also when the file does not have a 4th channel.
    """
    path = as_file(path)
    pixels, header = _decode(path, max_pixels)
    rgb = as_rgb(pixels, path, header.white)
    if pixels.ndim != 3 or pixels.shape[2] < 4:
        if four_channel == "yes":
            raise InputError(
                f"{path}: --four-channel yes, but the file has no 4th channel; "
                f"give the thermal image with --thermal"
            )
        more = f"{path}: of {header.left_out + 1} pages the first is read"
        return rgb, None, more if header.left_out else ""
    if four_channel == "no":
        return rgb, None, ""
    thermal = pixels[..., 3] if pixels.shape[2] == 4 else pixels[..., 3:]
    distinct = np.unique(thermal).size
    if four_channel == "yes":
        return rgb, as_thermal(np.ascontiguousarray(thermal), path), ""
    found = f"{path}: the 4th channel has {distinct} distinct value{'s' * (distinct != 1)} and is"
    if distinct <= 16:
        note = f"{found} dropped as transparency; predict --four-channel yes takes it as thermal"
        return rgb, None, note
    note = f"{found} taken as thermal; predict --four-channel no drops it"
    return rgb, as_thermal(np.ascontiguousarray(thermal), path), note


def image_size(path: Source, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """(height, width) as the readers would return it, from the header alone."""
    header = probe(as_file(path), max_pixels)
    swapped = header.orientation >= 5
    return (header.width, header.height) if swapped else (header.height, header.width)


def has_deep_channels(path: Source, max_pixels: int = MAX_PIXELS) -> bool:
    """Whether an image is stored with 16 bits per channel, of which `read_rgb` keeps 8."""
    path = as_file(path)
    header = probe(path, max_pixels)
    if header.kind == "png":
        with path.open("rb") as file:
            return file.read(25)[24] == 16
    deep = header.kind in ("tiff", "npy", "ppm")
    return deep and load_pixels(path, header).dtype == np.uint16


def as_rgb(pixels: Array, path: str | File, white: int = 0) -> npt.NDArray[np.uint8]:
    """Decoded pixels as uint8 (H, W, 3); InputError, which names `path`, for floats.

    `white` is the value of full brightness; 0: what the values let guess.
    """
    if pixels.dtype not in (np.uint8, np.uint16):
        raise InputError(
            f"{path}: an RGB image has 8 or 16 bits per channel, found {pixels.dtype}; "
            f"convert it to 8-bit PNG (is it the thermal image?)"
        )
    if pixels.ndim == 2:
        pixels = cv2.cvtColor(pixels, cv2.COLOR_GRAY2RGB)
    elif pixels.shape[2] == 4:
        pixels = cv2.cvtColor(pixels, cv2.COLOR_RGBA2RGB)
    elif pixels.shape[2] > 4:
        pixels = np.ascontiguousarray(pixels[..., :3])
    white = white or _white(pixels)
    if white != 255:
        pixels = cv2.convertScaleAbs(pixels, alpha=255 / white)  # rounds
    return pixels.astype(np.uint8, copy=False)


def _white(pixels: Array) -> int:
    """The value of full brightness: many recorders put 8 or 12 bits into 16 as they are."""
    if pixels.dtype == np.uint8:
        return 255
    largest = pixels.max(initial=0)
    return next((white for white in (255, 4095) if largest <= white), 65535)


def as_thermal(pixels: Array, path: str | File) -> Array:
    """Decoded pixels as raw thermal (H, W) uint8, uint16 or float32.

    Raises InputError, which names `path`, for false colour, NaN and infinity.
    """
    if pixels.ndim == 3:
        pixels = _one_channel(pixels[..., :3], path)
    if pixels.dtype.kind == "f":
        pixels = pixels.astype(np.float32, copy=False)
        bad = int(pixels.size - np.isfinite(pixels).sum())
        if bad:
            raise InputError(
                f"{path}: {bad} of {pixels.size} thermal values are NaN or infinite; write a "
                f"number that does not occur in their place, such as -9999, and name it: predict "
                f"and video --holes -9999, or holes = -9999 under [thermal] of dataset.toml"
            )
    elif pixels.dtype not in (np.uint8, np.uint16):
        # Signed or 32-bit integers: float32 is exact up to 2**24, far beyond any camera's counts.
        pixels = pixels.astype(np.float32)
    return np.ascontiguousarray(pixels)


def _one_channel(pixels: Array, path: str | File) -> Array:
    if pixels.dtype == np.uint8:
        first, second, third = cv2.split(pixels)
        most = cv2.max(cv2.max(cv2.absdiff(first, second), cv2.absdiff(second, third)),
                       cv2.absdiff(first, third))  # fmt: skip
        largest, mean = int(most.max()), float(most.mean())
        differ = largest > 12 or mean > 2
    else:  # more bits are stored without loss, so equal channels are exactly equal
        spread = pixels.max(axis=2).astype(np.float64) - pixels.min(axis=2)
        largest, mean = spread.max(), float(spread.mean())
        differ = largest > 0
    if differ:
        raise InputError(
            f"{path}: the thermal image is in false colour or is a visible image (channels differ "
            f"by up to {largest:g}, {mean:.1f} on average). Export it in grey, or as 16-bit or "
            f"radiometric TIFF; predict takes RGB + thermal in one file as --rgb alone"
        )
    return pixels[..., 1]


def _decode(path: File, max_pixels: int) -> tuple[Array, Header]:
    """Pixels (H, W) or (H, W, C) in RGB(A) order, upright, in the file's own number type."""
    header = probe(path, max_pixels)
    return load_pixels(path, header), header


def load_pixels(path: File, header: Header) -> Array:
    """Pixels (H, W) or (H, W, C) in RGB(A) order, upright, in the number type of the file."""
    if header.kind == "npy":
        return _load_numpy(path)
    data = read_bytes(path)
    if header.kind == "tiff":
        return upright(tiff.read(data, str(path)), header.orientation)
    check_stream(data, header.kind, str(path))
    if header.mode == BMP_16:  # OpenCV makes 248 of white
        return np.array(_load_by_pillow(path, header))
    flags = cv2.IMREAD_UNCHANGED | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error:
        pixels = None
    if pixels is None or pixels.shape[:2] != (header.height, header.width):
        raise _damaged(path, header)
    if pixels.ndim == 3:
        four = pixels.shape[2] == 4
        pixels = cv2.cvtColor(pixels, cv2.COLOR_BGRA2RGBA if four else cv2.COLOR_BGR2RGB)
    return upright(pixels, header.orientation)


def _not_an_array(path: File) -> InputError:
    return InputError(f"{path}: damaged or not a plain array; write it again with np.save")


def _load_numpy(path: File) -> Array:
    try:
        with path.open("rb") as file:
            pixels: Array = np.load(file, allow_pickle=False)
    except OSError as error:
        raise (unreadable(path, error) if error.errno else _not_an_array(path)) from None
    except (ValueError, EOFError):
        raise _not_an_array(path) from None
    # Some tools store 8-bit pictures as floats: the values say so.
    if pixels.dtype.kind == "f" and pixels.ndim == 3 and pixels.size:
        small = pixels.min() >= 0 and pixels.max() <= 255
        if small and np.array_equal(pixels, np.rint(pixels)):
            return pixels.astype(np.uint8)
    return pixels.astype(pixels.dtype.newbyteorder("="), copy=False)


def load_palette(path: File, header: Header, as_colours: bool) -> Array:
    """A palette image as (H, W, 3) colours or as indices (H, W), for which OpenCV has no way."""
    if header.kind == "tiff":
        return upright(tiff.read(read_bytes(path), str(path), as_colours), header.orientation)
    image = _load_by_pillow(path, header)
    return upright(np.asarray(image.convert("RGB") if as_colours else image), header.orientation)


def _load_by_pillow(path: File, header: Header) -> Image.Image:
    data = read_bytes(path)
    try:
        image = PLUGINS[header.kind](BytesIO(data))
        image.load()
    except (OSError, SyntaxError, ValueError, struct.error, EOFError, OverflowError):
        raise _damaged(path, header) from None
    return image


def upright(pixels: Array, orientation: int) -> Array:
    """Apply an EXIF orientation to (H, W) or (H, W, C); Pillow has no pictures of 16-bit colour."""
    if orientation == 1:
        return pixels
    if orientation >= 5:
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


def _damaged(path: File, header: Header) -> InputError:
    return InputError(
        f"{path}: damaged {header.kind.upper()} file, its pixels cannot be decoded; "
        f"copy or export it again"
    )
