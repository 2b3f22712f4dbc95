"""Draws the files of `cases.toml` anew: `python tests/field/draw_files.py`, from the repository.

A file that a user sent is put into `files/` as it is and needs nothing here.
"""

import io
import struct
import sys
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1]))
from draw_flir import counts_of, field, write_flir
from draw_tiff import DEFLATE, LZW, SHORT, Page, tiff

FILES = Path(__file__).parent / "files"
COLOURS = np.array(
    [[[255, 0, 0], [0, 255, 0], [0, 0, 255]], [[10, 20, 30], [128, 129, 130], [250, 240, 230]]],
    np.uint8,
)
DEEP = np.array([[0, 1, 256], [30000, 40000, 65535]], np.uint16)
GREY = np.array([[0, 1, 100], [128, 254, 255]], np.uint8)
IDS = np.array([[0, 1, 2], [2, 1, 0]], np.uint8)
MASK = np.array([[0, 1, 1], [1, 0, 0]], np.uint8)


def picture(kind: str, image: Image.Image, **options: Any) -> bytes:
    """What Pillow writes."""
    data = io.BytesIO()
    image.save(data, kind, **options)
    return data.getvalue()


def png(image: np.ndarray) -> bytes:
    """(H, W) or (H, W, 3 or 4) in RGB(A) order, of 8 or 16 bits, as OpenCV writes it."""
    if image.ndim == 3:
        four = image.shape[2] == 4
        image = cv2.cvtColor(image, cv2.COLOR_RGBA2BGRA if four else cv2.COLOR_RGB2BGR)
    return cv2.imencode(".png", image)[1].tobytes()


def npy(array: np.ndarray) -> bytes:
    """What NumPy writes."""
    data = io.BytesIO()
    np.save(data, array)
    return data.getvalue()


def page(samples: np.ndarray, bits: int = 16, **options: Any) -> Page:
    """A page of a TIFF of (H, W) or (H, W, bands)."""
    return Page(samples if samples.ndim == 3 else samples[..., None], bits, **options)


def with_palette(kind: str = "PNG") -> bytes:
    """Three indices whose colours are red, white and dark blue."""
    image = Image.fromarray(IDS, "P")
    image.putpalette([200, 0, 0, 255, 255, 255, 0, 0, 90])
    return picture(kind, image)


def upright_marked(orientation: int) -> bytes:
    """A JPEG whose left half is white, with the orientation in its EXIF data."""
    exif = Image.Exif()
    exif[274] = orientation
    pixels = np.zeros((16, 32, 3), np.uint8)
    pixels[:, :16] = 255
    return picture("JPEG", Image.fromarray(pixels), exif=exif, quality=95)


def apng_of_grey_and_opacity() -> bytes:
    return picture("PNG", Image.fromarray(np.dstack([GREY, GREY[::-1]]), "LA"))


def bmp_of_five_bits() -> bytes:
    """16 bits per pixel, 5 for each colour; rows from below, each of whole four bytes."""
    five = COLOURS.astype(int) >> 3
    words = (five[..., 0] << 10) | (five[..., 1] << 5) | five[..., 2]
    rows = b"".join(struct.pack("<4H", *row, 0) for row in words[::-1].tolist())
    head = struct.pack("<IiiHHIIiiII", 40, 3, 2, 1, 16, 0, len(rows), 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 54 + len(rows), 0, 0, 54) + head + rows


def bomb() -> bytes:
    """A PNG of 60,000 x 60,000 pixels in a few bytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        checked = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + checked

    start = chunk(b"IHDR", struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + start + chunk(b"IDAT", zlib.compress(b"0")) + chunk(b"IEND", b"")


def image_files() -> dict[str, bytes]:
    """Name -> content of the files that are one image."""
    deep_rgb = COLOURS.astype(np.uint16) * 257
    opacity = np.array([[0, 128, 255], [1, 2, 254]], np.uint8)
    celsius = np.array([[-20.5, 0.0, 36.6], [1e-3, 99.25, 400.0]], np.float32)
    missing = celsius.copy()
    missing[0, 0] = np.nan
    holes = np.where(np.isnan(missing), np.float32(-9999), missing)
    heat = cv2.applyColorMap(np.tile(np.arange(0, 256, 8, np.uint8), (16, 1)), cv2.COLORMAP_JET)
    photo = np.repeat(np.repeat(COLOURS, 8, 0), 8, 1)
    jpeg = picture("JPEG", Image.fromarray(photo), quality=95, subsampling=0)
    return {
        "bands-apart-16bit.tif": tiff([page(deep_rgb, photometric=2, planar=2)]),
        "rgba.tif": tiff([page(np.dstack([COLOURS, opacity]), 8, photometric=2, extra=(2,))]),
        "rgb-and-thermal.tif": tiff(
            [page(np.dstack([COLOURS, GREY]), 8, photometric=2, extra=(0,))]
        ),
        "four-pages.tif": tiff([page(band, 8) for band in (*np.moveaxis(COLOURS, 2, 0), GREY)]),
        "five-bands.tif": tiff(
            [page(np.dstack([COLOURS, GREY, GREY]), 8, photometric=2, extra=(0, 0))]
        ),
        "packed-12bit.tif": tiff([page(DEEP >> 4, 12)]),
        "packed-14bit-big-endian.tif": tiff([page(DEEP >> 2, 14)], big_endian=True),
        "white-is-zero-16bit.tif": tiff([page(65535 - DEEP, photometric=0)]),
        "big-endian-bigtiff.tif": tiff([page(DEEP)], big_endian=True, large=True),
        "lzw-predictor-tiles.tif": tiff([page(DEEP, compression=LZW, predictor=2, tile=(16, 16))]),
        "signed-16bit.tif": tiff([page((DEEP.astype(np.int32) - 32768).astype(np.int16), kind=2)]),
        "counts-32bit.tif": tiff([page(DEEP.astype(np.uint32) + 100_000, 32)]),
        "float16.tif": tiff([page(celsius.astype(np.float16), 16, kind=3)]),
        "float32-deflate.tif": tiff([page(celsius, 32, kind=3, compression=DEFLATE, predictor=3)]),
        "float64.tif": tiff([page(celsius.astype(np.float64), 64, kind=3)]),
        "not-a-number.tif": tiff([page(missing, 32, kind=3)]),
        "no-data-minus-9999.tif": tiff([page(holes, 32, kind=3)]),
        "mask-1bit.tif": tiff([page(MASK, 1)]),
        "mask-1bit.bmp": picture("BMP", Image.fromarray(MASK * 255).convert("1")),
        "mask-1bit.png": picture("PNG", Image.fromarray(MASK * 255).convert("1")),
        "ids-4bit.tif": tiff([page(IDS, 4)]),
        "ids-negative-32bit.tif": tiff([page(IDS.astype(np.int32) - 1, 32, kind=2)]),
        "ids-thrice.png": png(np.dstack([IDS] * 3)),
        "ids-beyond-255.png": png(IDS.astype(np.uint16) * 300),
        "ids.jpg": picture("JPEG", Image.fromarray(IDS)),
        "palette.png": with_palette(),
        "palette.bmp": with_palette("BMP"),
        "palette.tif": with_palette("TIFF"),
        "8-in-16bit.png": png(COLOURS.astype(np.uint16)),
        "12-in-16bit.tif": tiff([page(COLOURS.astype(np.uint16) * 16, photometric=2)]),
        "16bit.png": png(deep_rgb),
        "thermal-16bit.png": png(DEEP),
        "grey-and-opacity.png": apng_of_grey_and_opacity(),
        "grey-as-rgb.png": png(np.dstack([GREY] * 3)),
        "10-bit.ppm": b"P6 3 2 1023\n"
        + (COLOURS.astype(np.uint32) * 1023 // 255).astype(">u2").tobytes(),
        "5-bit.bmp": bmp_of_five_bits(),
        "lossless.webp": picture("WEBP", Image.fromarray(COLOURS), lossless=True),
        "orientation-6.jpg": upright_marked(6),
        "orientation-3.jpg": upright_marked(3),
        "cmyk.jpg": picture("JPEG", Image.fromarray(photo).convert("CMYK"), quality=95),
        "photo.jpg": jpeg,
        "false-colour.png": png(cv2.cvtColor(heat, cv2.COLOR_BGR2RGB)),
        "big-endian.npy": npy(DEEP.astype(">u2")),
        "floats-of-a-picture.npy": npy(COLOURS.astype(np.float64)),
        "six-channels.npy": npy(np.dstack([COLOURS, GREY, GREY, GREY])),
        "tags-twice.tif": tiff([Page(DEEP[..., None], 16, twice={257: (SHORT, [60_000])})]),
        "cut-off.jpg": jpeg[: len(jpeg) // 2],
        "cut-off.png": png(photo)[:-20],
        "bomb.png": bomb(),
        "lfs-pointer.png": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
        "web-page.jpg": b"<!DOCTYPE html>\n<html><body>Sign in to download</body></html>\n",
        "phone.jpg": b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(40),
        "empty.png": b"",
    }


def draw_set(folder: Path, rgb: np.ndarray, thermal: np.ndarray, label: np.ndarray,
             more: str = "") -> None:  # fmt: skip
    """A data set of one pair."""
    text = (
        'name = "field"\nclasses = ["road", "car", "person"]\n'
        + more
        + '[files]\nrgb = "rgb/{name}.png"\nthermal = "thermal/{name}.png"\n'
        'label = "labels/{name}.png"\n[splits]\ntrain = "*"\n'
    )
    (folder / "dataset.toml").parent.mkdir(parents=True, exist_ok=True)
    (folder / "dataset.toml").write_text(text)
    add_pair(folder, "a", rgb, thermal, label)


def add_pair(
    folder: Path, name: str, rgb: np.ndarray, thermal: np.ndarray, label: np.ndarray
) -> None:
    for kind, image in (("rgb", rgb), ("thermal", thermal), ("labels", label)):
        (folder / kind).mkdir(exist_ok=True)
        (folder / kind / f"{name}.png").write_bytes(png(image))


def draw_sets() -> None:
    """The data sets, of one pair or two."""
    row, column = np.mgrid[:16, :24]
    grow = (20 + 4 * row + 5 * column).astype(np.uint8)
    rgb = np.dstack([grow, grow[:, ::-1], grow[::-1]])
    halves = np.zeros((16, 24), np.uint8)
    halves[:, 12:] = 1
    draw_set(FILES / "mask-0-255", rgb, grow, halves * 255)
    draw_set(FILES / "labels-all-255", rgb, grow, np.full_like(grow, 255))
    draw_set(FILES / "mixed-types", rgb, grow, halves)
    add_pair(FILES / "mixed-types", "b", rgb, grow.astype(np.uint16) * 200, halves)
    palette = np.array([[0, 0, 0], [64, 0, 128], [64, 64, 0]], np.uint8)
    colours = "palette = [[0, 0, 0], [64, 0, 128], [64, 64, 0]]\n"
    draw_set(FILES / "colour-masks", rgb, grow, palette[halves * 2], colours)
    draw_set(FILES / "unknown-id", rgb, grow, halves * 7)
    draw_set(FILES / "turned", np.ascontiguousarray(rgb.swapaxes(0, 1)), grow,
             np.ascontiguousarray(halves.T))  # fmt: skip
    draw_set(FILES / "other-size", rgb, grow[:8, :12], halves)


if __name__ == "__main__":
    FILES.mkdir(exist_ok=True)
    for name, data in image_files().items():
        (FILES / name).write_bytes(data)
    write_flir(FILES / "radiometric.jpg", counts_of(field()))
    draw_sets()
