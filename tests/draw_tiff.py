"""TIFF files written tag by tag from the specification, so that the reader is checked from outside:
any bits, bands, planes, tiles, byte order and predictor, wrong or twice where a test wants it."""

import math
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import imagecodecs
import numpy as np

SHORT, LONG = 3, 4
NONE, LZW, DEFLATE, OLD_DEFLATE, PACKBITS, LZMA, ZSTD = 1, 5, 8, 32946, 32773, 34925, 50000
JPEG_2000, WEBP, JPEG_XL, PNG, LERC = 34712, 50001, 50002, 34933, 34887
CODECS = {
    NONE: bytes,
    LZW: imagecodecs.lzw_encode,
    DEFLATE: zlib.compress,
    OLD_DEFLATE: zlib.compress,
    PACKBITS: imagecodecs.packbits_encode,
    LZMA: imagecodecs.lzma_encode,
    ZSTD: imagecodecs.zstd_encode,
}
PICTURE_CODECS = {
    JPEG_2000: lambda part: imagecodecs.jpeg2k_encode(part, level=0, reversible=True),
    WEBP: lambda part: imagecodecs.webp_encode(part, lossless=True),
    JPEG_XL: lambda part: imagecodecs.jpegxl_encode(part, lossless=True),
    PNG: imagecodecs.png_encode,
    LERC: imagecodecs.lerc_encode,
}


@dataclass
class Page:
    """The samples of a page (H, W, bands) as stored, and how they are stored."""

    samples: np.ndarray
    bits: int
    kind: int = 1
    """1 unsigned, 2 signed, 3 floating-point."""
    photometric: int = 1
    extra: tuple[int, ...] | None = None
    planar: int = 1
    compression: int = NONE
    predictor: int = 1
    fill_order: int = 1
    orientation: int = 1
    tile: tuple[int, int] | None = None
    rows: int = 1_000_000
    """Per strip."""
    subfile: int | None = None
    palette: np.ndarray | None = None
    """(2**bits, 3), 16 bits."""
    change: dict[int, tuple[int, Sequence[int]] | None] = field(default_factory=dict)
    """Tags that replace what belongs there, or leave it out."""
    twice: dict[int, tuple[int, Sequence[int]]] = field(default_factory=dict)
    """Tags that come again."""


def tiff(pages: Sequence[Page], big_endian: bool = False, large: bool = False) -> bytes:
    """A file of these pages; `large` is BigTIFF."""
    order = ">" if big_endian else "<"
    pointer, count, entry = ("Q", "Q", "HHQ") if large else ("I", "H", "HHI")
    out = bytearray(b"MM" if big_endian else b"II")
    out += struct.pack(order + ("HHH" if large else "H"), *((43, 8, 0) if large else (42,)))
    link = len(out)
    out += bytes(struct.calcsize(pointer))
    for page in pages:
        offsets, lengths = [], []
        for segment in segments(page, order):
            offsets.append(len(out))
            lengths.append(len(segment))
            out += segment + bytes(len(segment) % 2)
        tags = sorted(
            [*(_tags(page, offsets, lengths) | page.change).items(), *page.twice.items()],
            key=lambda tag: tag[0],
        )
        rows = []
        for code, tag in tags:
            if tag is not None:
                kind, values = tag
                number = {1: "B", 2: "B", SHORT: "H", LONG: "I", 11: "f"}[kind]
                data = struct.pack(f"{order}{len(values)}{number}", *values)
                if len(data) > struct.calcsize(pointer):
                    place = struct.pack(order + pointer, len(out))
                    out += data + bytes(len(data) % 2)
                    data = place
                data = data.ljust(struct.calcsize(pointer), b"\0")
                rows.append(struct.pack(order + entry, code, kind, len(values)) + data)
        struct.pack_into(order + pointer, out, link, len(out))
        out += struct.pack(order + count, len(rows)) + b"".join(rows)
        link = len(out)
        out += bytes(struct.calcsize(pointer))
    return bytes(out)


def _tags(page: Page, offsets: list[int], lengths: list[int]) -> dict[int, Any]:
    height, width, bands = page.samples.shape
    tags: dict[int, Any] = {
        256: (LONG, [width]),
        257: (LONG, [height]),
        258: (SHORT, [page.bits] * bands),
        259: (SHORT, [page.compression]),
        262: (SHORT, [page.photometric]),
        274: (SHORT, [page.orientation]),
        277: (SHORT, [bands]),
        284: (SHORT, [page.planar]),
        339: (SHORT, [page.kind] * bands),
    }
    if page.tile:
        tags |= {322: (SHORT, [page.tile[1]]), 323: (SHORT, [page.tile[0]])}
        tags |= {324: (LONG, offsets), 325: (LONG, lengths)}
    else:
        tags |= {273: (LONG, offsets), 278: (LONG, [page.rows]), 279: (LONG, lengths)}
    if page.extra is not None:
        tags[338] = (SHORT, page.extra)
    if page.predictor != 1:
        tags[317] = (SHORT, [page.predictor])
    if page.fill_order != 1:
        tags[266] = (SHORT, [page.fill_order])
    if page.subfile is not None:
        tags[254] = (LONG, [page.subfile])
    if page.palette is not None:
        tags[320] = (SHORT, page.palette.T.ravel().tolist())
    return tags


def segments(page: Page, order: str) -> list[bytes]:
    """The strips or tiles, plane after plane; what lies beyond the edges of a tile is noise."""
    samples = page.samples
    height, width, bands = samples.shape
    planes = [samples] if page.planar == 1 else [samples[..., i : i + 1] for i in range(bands)]
    tall, wide = page.tile or (min(page.rows, height), width)
    found = []
    for plane in planes:
        for top in range(0, height, tall):
            for left in range(0, width, wide):
                part = plane[top : top + tall, left : left + wide]
                if page.tile:
                    rest = (tall - part.shape[0], wide - part.shape[1])
                    part = np.pad(part, ((0, rest[0]), (0, rest[1]), (0, 0)), "wrap")
                found.append(_encode(part.copy(), page, order))
    return found


def _encode(part: np.ndarray, page: Page, order: str) -> bytes:
    if page.compression in PICTURE_CODECS:
        return bytes(PICTURE_CODECS[page.compression](part if part.shape[2] > 1 else part[..., 0]))
    if page.predictor == 2:
        unsigned = part.view(f"u{part.dtype.itemsize}").copy()
        unsigned[:, 1:] -= part.view(unsigned.dtype)[:, :-1]
        part = unsigned.view(part.dtype)
    data = _predicted_floats(part) if page.predictor == 3 else pack(part, page, order)
    if page.fill_order == 2:
        data = bytes(int(f"{byte:08b}"[::-1], 2) for byte in data)
    return bytes(CODECS[page.compression](data))


def pack(part: np.ndarray, page: Page, order: str) -> bytes:
    """Whole bytes in the file's order; other depths as a stream of bits, each row from a byte."""
    if page.kind == 3 and page.bits == 24:
        return bytes(imagecodecs.float24_encode(part.astype(np.float32), byteorder=order))
    if page.bits in (8, 16, 32, 64):
        return part.astype(part.dtype.newbyteorder(order)).tobytes()
    rows = part.reshape(part.shape[0], -1).astype(np.uint64)
    shifts = np.arange(page.bits - 1, -1, -1, dtype=np.uint64)
    bits = (rows[..., None] >> shifts & np.uint64(1)).astype(np.uint8)
    return np.packbits(bits.reshape(part.shape[0], -1), axis=1).tobytes()


def _predicted_floats(part: np.ndarray) -> bytes:
    """Adobe's note 3: the bytes of a row by significance, then their differences."""
    rows, columns, bands = part.shape
    data = np.frombuffer(part.astype(part.dtype.newbyteorder(">")).tobytes(), np.uint8)
    planes = data.reshape(rows, columns * bands, part.dtype.itemsize).transpose(0, 2, 1)
    line = planes.reshape(rows, -1).copy()
    line[:, bands:] -= planes.reshape(rows, -1)[:, :-bands]
    return line.tobytes()


def turn(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Upright, by the specification's words for where row 0 and column 0 are."""
    rows, columns = pixels.shape[:2]
    upright = np.empty_like(pixels if orientation < 5 else pixels.swapaxes(0, 1))
    tall, wide = upright.shape[:2]
    for row in range(rows):
        for column in range(columns):
            place = {
                1: (row, column), 2: (row, wide - 1 - column),
                3: (tall - 1 - row, wide - 1 - column), 4: (tall - 1 - row, column),
                5: (column, row), 6: (column, wide - 1 - row),
                7: (tall - 1 - column, wide - 1 - row), 8: (tall - 1 - column, row),
            }[orientation]  # fmt: skip
            upright[place] = pixels[row, column]
    return upright


def number_type(bits: int, kind: int) -> np.dtype[Any]:
    """The smallest NumPy type that holds the samples."""
    size = max(8, 2 ** math.ceil(math.log2(bits)))
    return np.dtype({1: "u", 2: "i", 3: "f"}[kind] + str(size // 8))
