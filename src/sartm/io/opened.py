"""Images that a program holds already, PIL's and arrays: checked and read as their files are."""

from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from sartm.errors import InputError
from sartm.io.decode import as_rgb, as_thermal, upright

Array = npt.NDArray[Any]
Opened = Image.Image | Array

_DEPTHS = {"I;16", "I;16L", "I;16B", "I;16N"}
"""Modes of 16-bit grey."""


def take_rgb(image: Opened, name: str) -> npt.NDArray[np.uint8]:
    """uint8 (H, W, 3) of a PIL image of any mode, as `read_rgb` reads its file, or of an array.

    Raises:
        InputError: an array that is not (H, W, 3) uint8, a PIL image that cannot be decoded or
            holds floats, or no pixels.
    """
    if isinstance(image, Image.Image):
        return as_rgb(_pixels_of(image, name), name)
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise InputError(
            f"{name} must be (H, W, 3) uint8, found {image.shape} {image.dtype}; convert it first"
        )
    _refuse_empty(image.shape, name)
    return image


def take_thermal(image: Opened, name: str) -> Array:
    """Raw (H, W) uint8, uint16 or float32 of a PIL image or of an array of real numbers.

    Raises:
        InputError: as `read_thermal`; an array that is not (H, W); or values that are no numbers.
    """
    if isinstance(image, Image.Image):
        return as_thermal(_pixels_of(image, name), name)
    if image.dtype.kind not in "buif":
        raise InputError(f"{name} is an array of {image.dtype}; raw values are integers or floats")
    if image.ndim != 2:
        raise InputError(f"{name} must be (H, W) raw values, found {image.shape}; give one channel")
    _refuse_empty(image.shape, name)
    return as_thermal(image.astype(image.dtype.newbyteorder("="), copy=False), name)


def _refuse_empty(shape: tuple[int, ...], name: str) -> None:
    if 0 in shape:
        raise InputError(f"{name} has no pixels ({shape[0]}x{shape[1]}); is a crop empty?")


def _pixels_of(image: Image.Image, name: str) -> Array:
    """Pixels (H, W) or (H, W, 3) as `decode.load_pixels` gives them of the same file, upright."""
    _refuse_empty((image.height, image.width), name)
    try:
        image.load()
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        raise InputError(f"{name}: the image cannot be decoded ({error}); open it again") from None
    if image.mode == "CMYK":
        pixels = _from_cmyk(np.asarray(image))
    elif image.mode in _DEPTHS or (image.mode == "I" and image.format in ("PNG", "PPM")):
        # Pillow holds 16 bits of some formats as 32.
        pixels = np.asarray(image).astype(np.uint16)
    elif image.mode in ("L", "RGB", "I", "F"):
        pixels = np.asarray(image)
    else:  # transparency is dropped, palettes become their colours, and 1 bit 0 or 255
        pixels = np.asarray(image.convert("L" if image.mode in ("1", "LA", "La") else "RGB"))
    # Of a TIFF, Pillow applies the orientation by itself.
    turned = image.getexif().get(274, 1) if "exif" in image.info else 1
    return upright(pixels, turned if isinstance(turned, int) and 1 <= turned <= 8 else 1)


def _from_cmyk(inks: Array) -> npt.NDArray[np.uint8]:
    """(H, W, 4) ink to (H, W, 3) light, by the arithmetic with which OpenCV reads a JPEG."""
    black = 255 - inks[..., 3:].astype(np.int32)
    return (black - (inks[..., :3] * black >> 8)).astype(np.uint8)
