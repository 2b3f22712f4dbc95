"""Label maps: class ids from grey, palette and colour pictures, and back to PNG."""

import struct
import zlib
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import tifffile

from sartm.classes import Colour
from sartm.errors import InputError
from sartm.files import write_atomic
from sartm.io.decode import Array, load_palette, load_pixels
from sartm.io.header import MAX_PIXELS, probe
from sartm.io.sources import File, Source, as_file


def read_label(
    path: Source,
    ignore: int = 255,
    colours: tuple[Colour, ...] = (),
    max_pixels: int = MAX_PIXELS,
    coloured: bool | None = True,
) -> Array:
    """Read class ids as (H, W), uint8, or uint16 where an id exceeds 255.

    Palette images give their indices and small bit depths their values. Negative ids mean `ignore`.
    With `colours` (RGB, position = id) a colour picture is read, stored in RGB or in BGR order.
    `coloured` says whether the label shows them; None: where it is a picture of three channels
    whose colours are among them, or that are not equal.

    Raises:
        InputError: not a readable image, lossy (JPEG), a colour picture without `colours`, or a
            colour that is not among them.
    """
    colours = () if coloured is False else colours
    strict = bool(coloured and colours)
    path = as_file(path)
    header = probe(path, max_pixels)
    if header.lossy:
        raise InputError(
            f"{path}: a label cannot be JPEG, whose compression mixes ids along edges; use the "
            f"original PNG"
        )
    bitmap = header.mode == "1" and header.kind == "bmp"  # which OpenCV stretches to 0 and 255
    if (header.mode == "P" and not strict) or bitmap:
        pixels = load_palette(path, header, as_colours=False)
    else:
        pixels = load_pixels(path, header)  # refuses a file that is cut off
        if header.mode == "P":
            pixels = load_palette(path, header, as_colours=True)
    if pixels.ndim == 2 and header.grey_bits < 8:
        pixels = pixels // (255 // (2**header.grey_bits - 1))
    if strict and pixels.ndim == 2:
        pixels = np.dstack([pixels] * 3)
    if pixels.ndim == 3:
        pixels = _colours_to_ids(pixels[..., :3], colours, path, strict)
    return _as_ids(pixels, ignore, path)


def write_label(path: str | Path, label: Array, palette: Sequence[Colour] = ()) -> None:
    """Write (H, W) class ids as PNG, as `encode_label` says. Atomic."""
    write_atomic(Path(path), encode_label(label, str(path), palette))


def encode_label(label: Array, name: str = "label", palette: Sequence[Colour] = ()) -> bytes:
    """(H, W) class ids as PNG of 8 bits, or 16 where an id exceeds 255.

    With a `palette` (RGB, position = id, the rest white) of up to 256 colours programs show those
    for the ids, which are in the file as without it; with 16 bits there is none. `name` says in
    messages which label it is.
    """
    if label.ndim != 2 or label.dtype.kind not in "iu":
        raise InputError(
            f"{name}: a label map is (H, W) integers, found {label.dtype} {label.shape}"
        )
    low, high = (int(label.min()), int(label.max())) if label.size else (0, 0)
    if low < 0 or high > 65535:
        raise InputError(f"{name}: ids of a label map lie in 0-65535, found {low} to {high}")
    done, data = cv2.imencode(".png", label.astype(np.uint8 if high <= 255 else np.uint16))
    if not done:
        raise InputError(f"{name}: cannot encode a label map of {label.shape}")
    png = data.tobytes()
    return _add_palette(png, palette) if palette and high <= 255 and len(palette) <= 256 else png


def encode_geotiff(
    label: Array, tags: Sequence[tuple[int, int, int, Any]], palette: Sequence[Colour] = ()
) -> bytes:
    """(H, W) class ids as TIFF with the tags that place its pixels (`places.Grid.tags`)."""
    stream = BytesIO()
    extra = [(*tag, True) for tag in tags]
    shown: dict[str, Any] = {}
    if palette and label.dtype == np.uint8 and len(palette) <= 256:
        colours = np.full((3, 256), 65535, np.uint16)
        colours[:, : len(palette)] = np.array(palette, np.uint16).T * 257
        shown = {"photometric": "palette", "colormap": colours}
    tifffile.imwrite(
        stream, label, compression="zlib", metadata=None, extratags=extra, software=False, **shown
    )
    return stream.getvalue()


def _add_palette(png: bytes, palette: Sequence[Colour]) -> bytes:
    """An 8-bit grey PNG as palette image of the same indices.

    OpenCV writes none, and Pillow takes several times as long. The header (PNG specification, 11.2)
    says 3 for grey's 0, and a chunk PLTE comes behind it; pixels are filtered and packed alike.
    """
    header, rest = png[12:29], png[33:]  # IHDR from its name on; signature and length before it
    header = header[:13] + b"\x03" + header[14:]
    colours = np.full((256, 3), 255, np.uint8)
    colours[: len(palette)] = palette
    chunks = (header, b"PLTE" + colours.tobytes())
    written = [
        struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
        for chunk in chunks
    ]
    return png[:8] + b"".join(written) + rest


def _as_ids(pixels: Array, ignore: int, path: File) -> Array:
    if pixels.dtype in (np.uint8, np.uint16):
        small = pixels.dtype == np.uint16 and (pixels.size == 0 or pixels.max() <= 255)
        return np.ascontiguousarray(pixels, dtype=np.uint8 if small else pixels.dtype)
    if pixels.dtype.kind == "f" and not np.array_equal(pixels, np.rint(pixels)):
        raise InputError(
            f"{path}: a label holds whole class ids, found fractions such as "
            f"{pixels[pixels != np.rint(pixels)][0]:g}; is this the thermal image?"
        )
    ids = np.where(pixels < 0, ignore, pixels)
    if ids.size and float(ids.max()) > 65535:
        raise InputError(f"{path}: label ids reach {ids.max():g}; 65535 is the largest supported")
    return ids.astype(np.uint8 if ids.max(initial=0) <= 255 else np.uint16)


def _colours_to_ids(pixels: Array, colours: tuple[Colour, ...], path: File, strict: bool) -> Array:
    """(H, W, 3) RGB to (H, W) ids by exact colour; three equal channels are ids stored thrice."""
    equal = not strict and bool((pixels == pixels[..., :1]).all())
    if not colours:
        if equal:
            return np.ascontiguousarray(pixels[..., 0])
        raise InputError(
            f"{path}: a label holds class ids, but this is a colour picture; use the id images "
            f"(for FMB the folder Label, not color), or list the colours of the classes as "
            f"palette in dataset.toml"
        )
    if pixels.dtype != np.uint8 and not equal:
        raise InputError(f"{path}: a colour label has 8 bits per channel, found {pixels.dtype}")
    best, unknown = _look_up(pixels, colours)
    if unknown.any():  # some sets store the same palette in BGR order
        other, still_unknown = _look_up(pixels[..., ::-1], colours)
        if still_unknown.sum() < unknown.sum():
            best, unknown = other, still_unknown
    if not unknown.any():
        return best
    if equal:
        return np.ascontiguousarray(pixels[..., 0])
    colour = tuple(int(value) for value in pixels[unknown][0])
    raise InputError(
        f"{path}: {int(unknown.sum())} label pixels have a colour that is not in the palette, "
        f"e.g. {colour}; add it to the palette of dataset.toml or use the id images"
    )


def _look_up(pixels: Array, colours: tuple[Colour, ...]) -> tuple[Array, npt.NDArray[np.bool_]]:
    """Ids (H, W) and where no colour fits."""
    packed, table = _pack(pixels), _pack(np.asarray(colours))
    order = np.argsort(table, kind="stable")
    place = np.searchsorted(table[order], packed).clip(max=len(colours) - 1)
    ids = order[place]
    return ids.astype(np.uint8 if len(colours) <= 256 else np.uint16), table[ids] != packed


def _pack(colours: Array) -> npt.NDArray[np.int32]:
    """(..., 3) values 0-255 to (...) one number each."""
    red, green, blue = (colours[..., channel].astype(np.int32) for channel in range(3))
    return (red << 16) + (green << 8) + blue
