"""The first bytes of an image: what it is, how large, and everything that is refused unread."""

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import ImageFile
from PIL.BmpImagePlugin import BmpImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.PpmImagePlugin import PpmImageFile
from PIL.WebPImagePlugin import WebPImageFile

from sartm.errors import InputError, explain_refusal, unreadable
from sartm.files import require_plain
from sartm.io import tiff
from sartm.io.sources import File

MAX_PIXELS = 250_000_000
"""Default largest height x width that is decoded, so that a small file cannot fill the memory."""

MAX_SIDE = 65_500
"""Largest height or width: what a JPEG of the overlay can hold."""

_GRID = 32  # networks pad both sides to multiples of this: a line of pixels costs as a strip
_SMALL = 2**20  # pixels that are no burden, whatever the limit

SUFFIXES = frozenset(
    {".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp", ".ppm", ".pgm", ".npy"}
)
"""Lower-case endings that folders are searched for; what a file is, its first bytes decide."""

_MAGIC = (
    (b"\x89PNG\r\n\x1a\n", "png"), (b"\xff\xd8\xff", "jpeg"), (b"II*\0", "tiff"),
    (b"MM\0*", "tiff"), (b"II+\0", "tiff"), (b"MM\0+", "tiff"), (b"BM", "bmp"),
    (b"P5", "ppm"), (b"P6", "ppm"), (b"\x93NUMPY", "npy"),
)  # fmt: skip
PLUGINS: dict[str, type[ImageFile.ImageFile]] = {
    "png": PngImageFile, "jpeg": JpegImageFile, "bmp": BmpImageFile, "webp": WebPImageFile,
    "ppm": PpmImageFile,
}  # fmt: skip
BMP_16 = "BMP;16"  # a mode of ours: 5 or 6 bits per colour
# What people pass by mistake, and what helps.
_FOREIGN = (
    (b"version https://git-lfs", "a Git LFS pointer: fetch the image itself with `git lfs pull`"),
    (b"<svg", "an SVG drawing: export it as PNG"),
    (b"<!doctype html", "a web page, not the image it shows: download the file itself"),
    (b"<html", "a web page, not the image it shows: download the file itself"),
    (b"GIF8", "a GIF: convert it to PNG"),
    (b"%PDF", "a PDF: export the picture as PNG"),
    (b"PK\x03\x04", "a zip archive: unpack it first"),
    (b"ftyp", "HEIC, AVIF or a video: convert it to PNG or JPEG, or pass a video as such"),
)


@dataclass(frozen=True)
class Header:
    """What the first bytes of an image say, before anything is decoded."""

    kind: str
    height: int
    width: int
    orientation: int = 1
    """EXIF 1-8, what is still to be applied to the decoded pixels."""
    mode: str = ""
    """Pillow's mode, `P` for a palette; empty where Pillow is not asked."""
    grey_bits: int = 8
    """Bits per sample of a grey PNG: decoders stretch 1, 2 and 4 bits to 0-255."""
    white: int = 0
    """The value of a sample at full brightness, where the file says it; 0: its type's largest."""
    lossy: bool = False
    """Whether compression changed the values of the pixels."""
    left_out: int = 0
    """Pages that are not read."""


def probe(path: File, max_pixels: int) -> Header:
    """Read and check the header; everything that is not a supported image is refused here."""
    try:
        if isinstance(path, Path):
            require_plain(path)
        with path.open("rb") as file:
            start = file.read(512)
            kind = _kind(path, start)
            file.seek(0)
            header = _parse(path, kind, start, file)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; check the path") from None
    except IsADirectoryError:
        raise InputError(f"{path}: is a folder, expected an image file") from None
    except InputError:
        raise
    except OSError as error:
        raise (unreadable(path, error) if error.errno else _broken_header(path)) from None
    except (
        Exception
    ) as error:  # parsers of hostile headers fail in many ways, and say nothing of use
        refused = isinstance(error, ValueError) and explain_refusal(error)  # such as a NUL
        raise (unreadable(path, error) if refused else _broken_header(path)) from None
    check_limits(path, header.height, header.width, max_pixels)
    return header


def _broken_header(path: File) -> InputError:
    return InputError(
        f"{path}: damaged or cut off, its header cannot be read; copy or export the file again"
    )


def check_limits(name: str | File, height: int, width: int, max_pixels: int) -> None:
    """Refuse sides of 0 or above `MAX_SIDE`, and more than `max_pixels`, also once padded."""
    if height < 1 or width < 1:
        raise InputError(f"{name}: the image has no pixels ({height}x{width})")
    if max(height, width) > MAX_SIDE:
        raise InputError(
            f"{name}: {height}x{width} has a side of more than {MAX_SIDE} pixels; cut it into tiles"
        )
    padded = math.prod(-(-side // _GRID) * _GRID for side in (height, width))
    if height * width > max_pixels or padded > max(max_pixels, _SMALL):
        why = f" with both sides padded to multiples of {_GRID}" * (height * width <= max_pixels)
        raise InputError(
            f"{name}: {height}x{width} is {padded / 1e6:.4g} million pixels{why}, more than the "
            f"limit of {max_pixels / 1e6:g}; cut it into tiles"
        )


def _kind(path: File, start: bytes) -> str:
    if not start:
        raise InputError(f"{path}: the file is empty (0 bytes); copy or export it again")
    for magic, kind in _MAGIC:
        if start.startswith(magic):
            return kind
    if start[:4] == b"RIFF" and start[8:12] == b"WEBP":
        return "webp"
    for sign, remedy in _FOREIGN:
        if sign.lower() in start.lower():
            raise InputError(f"{path}: this is {remedy}")
    raise InputError(
        f"{path}: not an image; readable are PNG, JPEG, TIFF, BMP, WebP, PPM and NumPy .npy"
    )


def _parse(path: File, kind: str, start: bytes, file: BinaryIO) -> Header:
    if kind == "npy":
        shape = _numpy_shape(path, file)
        return Header(kind, shape[0], shape[1])
    if kind == "tiff":
        page = tiff.describe(file, str(path))
        mode = "P" if page.palette else ""
        return Header(kind, page.height, page.width, page.orientation, mode, white=page.white,
                      lossy=page.lossy, left_out=page.left_out)  # fmt: skip
    # The plugin classes directly: `Image.open` has a process-wide pixel limit of its own.
    image = PLUGINS[kind](file)
    orientation = 1
    if "exif" in image.info:
        found = image.getexif().get(274, 1)
        orientation = found if isinstance(found, int) and 1 <= found <= 8 else 1
    grey_bits = start[24] if kind == "png" and start[25] == 0 else 8
    white = _netpbm_white(start) if kind == "ppm" else 0
    mode = BMP_16 if kind == "bmp" and start[14] >= 40 and start[28] == 16 else image.mode
    return Header(kind, image.height, image.width, orientation, mode, grey_bits, white,
                  lossy=kind == "jpeg")  # fmt: skip


def _netpbm_white(start: bytes) -> int:
    """The third number of the header, after the width and the height; 65535 is often a default."""
    plain = re.sub(rb"#[^\n]*", b" ", start)
    numbers = re.match(rb"P[56]\s+\d+\s+\d+\s+(\d+)", plain)
    return int(numbers[1]) % 65535 if numbers else 0


def _numpy_shape(path: File, file: BinaryIO) -> tuple[int, ...]:
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else (
        np.lib.format.read_array_header_2_0
    )  # fmt: skip
    shape, _, dtype = read(file)
    if len(shape) not in (2, 3) or (len(shape) == 3 and shape[2] not in (3, 4, 6)):
        raise InputError(f"{path}: an array of shape {shape} is not (H, W) or (H, W, 3, 4 or 6)")
    if dtype.kind not in "buif":  # a text type of a gigabyte per value would be allocated
        raise InputError(f"{path}: an array of {dtype} holds no pixels; save it as numbers")
    return tuple(int(side) for side in shape)
