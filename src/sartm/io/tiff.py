"""TIFF: tifffile decodes, and every structure that it would not decode as meant is refused here."""

import logging
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
from tifffile import COMPRESSION, PHOTOMETRIC, TIFF, TiffFile, TiffPage

from sartm.errors import InputError
from sartm.io.streams import MAX_SCANS, describe_jpeg

Array = npt.NDArray[Any]

_REMEDY = "save it as a grey or RGB picture, uncompressed or with Deflate"
_MOST_DIRECTORIES = 16  # what follows cannot change how the file is read
_MOST_TAGS = 1024
_LARGEST_TILE = 2**22  # unless the image is larger
_SMALLEST_TILE = 64  # smaller ones take minutes, and the format prescribes 16 x 16
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8,
          17: 8, 18: 8}  # fmt: skip
_WHOLE = {3, 4, 16}  # data types of unsigned numbers; of bytes tifffile makes no number

# Tags that say where the samples lie and what they mean: there once, and of whole numbers.
_STRUCTURE = {254, 255, 256, 257, 258, 259, 262, 266, 273, 274, 277, 278, 279, 284, 292, 317, 320,
              322, 323, 324, 325, 338, 339, 530, 32997, 32998, 50674}  # fmt: skip
_LISTS = {258, 273, 279, 320, 324, 325, 338, 339, 530, 50674}  # the others are single numbers
_VENDORS = {33628: "a MetaMorph stack", 34412: "a Zeiss LSM stack", 65420: "a Hamamatsu NDPI slide"}

_GREY, _RGB, _PALETTE, _YCBCR = 1, 2, 3, 6
_WHITE_IS_ZERO = 0
_PREMULTIPLIED, _ALPHA = 1, 2
_JPEG, _LERC = 7, 34887
_FAX = {2, 3, 4}
_PREDICTED = {5, 8, 32946, 34925, 50000}  # compressions for which predictors are defined
_BYTES = {1, 32773, 34926, 50013} | _FAX | _PREDICTED
_JPEG_2000 = {33004, 33005, 34712}
_WEBP = {50001, 34927}
# PNG and JPEG XL besides: codecs that store a picture of their own per strip or tile.
_PICTURES = {_LERC, 34933, 50002, 52546} | _JPEG_2000 | _WEBP
_BITS = {1: {*range(1, 17), 32, 64}, 2: {8, 16, 32, 64}, 3: {16, 24, 32, 64}}

# What tifffile logs about a file is either refused here or of no consequence.
logging.getLogger("tifffile").addHandler(logging.NullHandler())


@dataclass(frozen=True)
class Structure:
    """What the tags say about the picture that `read` returns."""

    height: int
    """As stored, before `orientation` is applied."""
    width: int
    orientation: int
    """EXIF 1-8."""
    white: int
    """The largest value that a sample can have; 0 if that says nothing: 16 bits are often the
    container of fewer, and signed and floating-point samples have no such value."""
    palette: bool
    lossy: bool
    """Whether the pixels are those of a JPEG."""
    left_out: int
    """Pages that are not read."""


def describe(file: BinaryIO, name: str) -> Structure:
    """Read the tags of a TIFF.

    The first page is the picture, without reduced copies and masks. Four pages of one band, one
    size and one number type are red, green, blue and thermal; other pages of one band and one size
    may be bands or a film, and are refused.

    Raises:
        InputError: a structure that is not read, by its name.
    """
    pages, left_out = _pages(file, name)
    first = pages[0]
    orientation = first.tags.valueof(274, 1)
    return Structure(
        int(first.imagelength),
        int(first.imagewidth),
        int(orientation) if orientation in range(1, 9) else 1,
        2**first.bitspersample - 1 if first.sampleformat == 1 and first.bitspersample < 16 else 0,
        first.photometric == _PALETTE,
        first.compression == _JPEG,
        left_out,
    )


def read(data: bytes, name: str, as_colours: bool = True) -> Array:
    """Samples (H, W), (H, W, 3) or (H, W, 4) in the file's own number type and orientation.

    WhiteIsZero is inverted, the alpha of a grey image dropped; of a palette image its colours are
    returned, or its indices.

    Raises:
        InputError: as `describe`, or pixels that cannot be decoded.
    """
    pages, _ = _pages(BytesIO(data), name)
    bands = [_samples(page, data, name) for page in pages]
    if len(bands) > 1:
        return np.dstack(bands)
    return _meaning(bands[0], pages[0], name, as_colours)


def read_tags(file: BinaryIO, name: str, codes: tuple[int, ...]) -> list[tuple[int, int, int, Any]]:
    """Code, data type, count and value of the tags of `describe`'s page that are there."""
    tags = _pages(file, name)[0][0].tags
    found = [tags[code] for code in codes if code in tags]
    return [(tag.code, int(tag.dtype), tag.count, tag.value) for tag in found]


def _refuse(name: str, what: str, remedy: str = _REMEDY) -> InputError:
    return InputError(f"{name}: a TIFF {what}; {remedy}")


def _damaged(name: str, what: str) -> InputError:
    return InputError(f"{name}: damaged or cut off TIFF, {what}; copy or export the file again")


def _pages(file: BinaryIO, name: str) -> tuple[list[TiffPage], int]:
    """The page that is the picture, or the four that are its bands; how many are left out."""
    offsets = _directories(file, name)
    file.seek(0)
    # Microscope formats change what the tags mean.
    tiff = TiffFile(file, is_lsm=False, is_ndpi=False, is_scanimage=False, is_stk=False)
    pages = []
    for number, offset in enumerate(offsets):
        tiff.filehandle.seek(offset)
        pages.append(TiffPage(tiff, number))
    full = [page for page in pages if not page.subfiletype & 0b101]  # no reduced copy, no mask
    if not full:
        if any(330 in page.tags for page in pages):
            raise _refuse(name, "whose picture lies behind its thumbnail (a camera's raw file?)")
        full = pages[:1]
    chosen = full[:1]
    if _may_be_bands(full):
        chosen = full
        if len(full) != 4 or not _have_one_type(full):
            more = " or more" if len(pages) == _MOST_DIRECTORIES else ""
            raise _refuse(
                name,
                f"of {len(full)}{more} pages with one band each, which may be bands or a film",
                "save the bands as one page, or the page that you mean as a file of its own",
            )
    for page in chosen:
        _check(page, tiff.filehandle.size, name)
    return chosen, len(full) - len(chosen)


def _may_be_bands(pages: list[TiffPage]) -> bool:
    plain = (_GREY, _WHITE_IS_ZERO)
    grey = all(page.samplesperpixel == 1 and page.photometric in plain for page in pages)
    return grey and len(pages) > 1 and len({page.shape for page in pages}) == 1


def _have_one_type(pages: list[TiffPage]) -> bool:
    kinds = {
        (page.bitspersample, page.sampleformat, page.photometric, page.tags.valueof(274, 1))
        for page in pages
    }
    return len(kinds) == 1


def _directories(file: BinaryIO, name: str) -> list[int]:
    """Where the pages' tags lie, after checks that tifffile does not make.

    It takes the first of two tags with one code and leaves out tags that it cannot read, so that
    their defaults hold; and it would read a tag that claims the whole file a thousand times.
    """
    start = file.read(16)
    order, large = "<" if start[:2] == b"II" else ">", 43 in start[2:4]
    number, entry, pointer = ("Q", "HHQ8s", "Q") if large else ("H", "HHI4s", "I")
    (offset,) = struct.unpack_from(order + pointer, start, 8 if large else 4)
    size = file.seek(0, 2)
    offsets: list[int] = []
    while offset and len(offsets) < _MOST_DIRECTORIES:
        if offset in offsets:
            raise _damaged(name, "its pages form a circle")
        offsets.append(offset)
        file.seek(offset)
        (count,) = struct.unpack(order + number, file.read(struct.calcsize(number)))
        if not 0 < count <= _MOST_TAGS:
            raise _damaged(name, f"a page has {count} tags")
        length = struct.calcsize(order + entry)
        table = file.read(count * length)
        (offset,) = struct.unpack(order + pointer, file.read(struct.calcsize(pointer)))
        entries = list(struct.iter_unpack(order + entry, table))
        _check_tags(entries, order + pointer, size, name)
    if not offsets:
        raise _damaged(name, "it has no page")
    return offsets


def _check_tags(entries: list[tuple[Any, ...]], pointer: str, size: int, name: str) -> None:
    seen: set[int] = set()
    total = 0
    for code, kind, count, value in entries:
        length = count * _SIZES.get(kind, 1)
        outside = length > struct.calcsize(pointer)
        total += length if outside else 0
        if code in _VENDORS:
            raise _refuse(name, f"that is {_VENDORS[code]}")
        if code not in _STRUCTURE:
            continue
        tag = f"tag {code} ({TIFF.TAGS.get(code, 'unknown')})"
        if code in seen:
            raise _refuse(name, f"with {tag} more than once, so that its structure is uncertain")
        seen.add(code)
        if kind not in _WHOLE or not count or (count > 1 and code not in _LISTS):
            raise _damaged(name, f"{tag} is not {'numbers' if code in _LISTS else 'a number'}")
        if outside and struct.unpack(pointer, value)[0] + length > size:
            raise _damaged(name, f"{tag} lies beyond its end")
    if total > size:
        raise _damaged(name, "its tags are larger than the file")


def _check(page: TiffPage, size: int, name: str) -> None:
    """Refuse every structure that is not certain to be read as it is meant."""
    for faults in (_numbers, _colours, _layout, _compression):
        for what in faults(page):
            raise _refuse(name, what)
    for what in _places(page, size):
        raise _damaged(name, what)


def _numbers(page: TiffPage) -> Iterator[str]:
    bits, kind = page.bitspersample, page.sampleformat
    for code in (258, 339):
        if code in page.tags and page.tags[code].count not in (1, page.samplesperpixel):
            yield f"of {page.samplesperpixel} bands with the {TIFF.TAGS[code]} of others"
    if not isinstance(bits, int) or not isinstance(kind, int):
        yield f"with bands of different number types (bits {bits}, formats {kind})"
    elif bits not in _BITS.get(kind, ()):
        names = {1: "unsigned", 2: "signed", 3: "floating-point", 4: "untyped"}
        yield f"of {bits}-bit {names.get(kind, 'complex')} samples"


def _colours(page: TiffPage) -> Iterator[str]:
    bands, extra = page.samplesperpixel, tuple(int(kind) for kind in page.extrasamples)
    kind = int(page.photometric)
    colours = {_WHITE_IS_ZERO: 1, _GREY: 1, _RGB: 3, _PALETTE: 1, _YCBCR: 3}.get(kind, 0)
    if 262 not in page.tags:
        yield "that does not say what its values mean (no PhotometricInterpretation)"
    elif kind == PHOTOMETRIC.SEPARATED:
        yield "in CMYK colours"
    elif not colours:
        yield f"with the colours {_name(PHOTOMETRIC, kind)} (PhotometricInterpretation)"
    elif bands > 4:
        yield f"of {bands} bands"
    elif extra and colours + len(extra) != bands:
        yield f"of {bands} bands and {len(extra)} extra samples"
    # Some writers call the bands of a colour picture grey and extra samples without a meaning.
    elif (kind, bands) in ((_GREY, 3), (_GREY, 4)) and not any(extra[:2]):
        pass
    elif bands != colours and not (kind == _RGB and bands == 4) and not _grey_with_alpha(page):
        yield f"of {bands} bands with the colours {_name(PHOTOMETRIC, kind)}, extra {extra}"
    if kind == _WHITE_IS_ZERO and page.sampleformat != 1:
        yield "in which white is zero, of values without a largest one"
    if kind == _PALETTE:
        yield from _palette(page)


def _grey_with_alpha(page: TiffPage) -> bool:
    extra = [int(kind) for kind in page.extrasamples]
    return int(page.photometric) == _GREY and extra in ([_PREMULTIPLIED], [_ALPHA])


def _palette(page: TiffPage) -> Iterator[str]:
    if page.sampleformat != 1 or page.bitspersample > 16:
        yield f"with a palette for {page.bitspersample}-bit indices"
    elif 320 not in page.tags or page.tags[320].count != 3 * 2**page.bitspersample:
        yield "with a palette of another size than its indices have"


def _layout(page: TiffPage) -> Iterator[str]:
    if page.planarconfig not in (1, 2):
        yield f"with the PlanarConfiguration {page.planarconfig}"
    if page.imagedepth != 1 or page.tiledepth != 1:
        yield f"with a volume of {page.imagedepth} slices"
    stack = re.match(r"ImageJ=.*^images=(\d+)", page.description, re.DOTALL | re.MULTILINE)
    if stack and int(stack[1]) > 1 and not page.parent.pages.is_multipage:
        yield f"with an ImageJ stack of {stack[1]} pictures in one page"
    if page.is_tiled:
        area = page.tilelength * page.tilewidth
        largest = max(_LARGEST_TILE, page.imagelength * page.imagewidth)
        if 324 not in page.tags or not _SMALLEST_TILE <= area <= largest:
            yield f"with tiles of {page.tilelength}x{page.tilewidth}"
    elif page.rowsperstrip < 1 or 273 not in page.tags:
        yield f"with strips of {page.rowsperstrip} rows"


def _compression(page: TiffPage) -> Iterator[str]:
    kind, name = int(page.compression), _name(COMPRESSION, page.compression)
    if kind not in _BYTES | _PICTURES | {_JPEG}:
        yield f"with the compression {name}"
    if kind in _FAX and (page.bitspersample, page.samplesperpixel) != (1, 1):
        yield f"with the compression {name} of more than 1 bit"
    if page.photometric == _YCBCR and (kind != _JPEG or page.planarconfig != 1):
        yield f"in YCbCr colours with the compression {name}"
    if kind == _JPEG:
        yield from _jpeg_colours(page)
    if page.predictor != 1:
        whole = page.bitspersample in (8, 16, 32, 64) and page.sampleformat in (1, 2)
        if kind not in _PREDICTED or page.predictor != (2 if whole else 3) or not (
            whole or (page.sampleformat == 3 and page.bitspersample != 24)
        ):  # fmt: skip
            yield (
                f"with the predictor {page.predictor} for {page.bitspersample}-bit samples and "
                f"the compression {name}"
            )
    if page.fillorder != 1 and not (page.fillorder == 2 and kind in {1} | _FAX):
        yield f"with the FillOrder {page.fillorder} and the compression {name}"
    if kind == _LERC and any((page.tags.valueof(50674) or (0, 0))[1:]):
        yield f"with the compression {name} and another around it"


def _jpeg_colours(page: TiffPage) -> Iterator[str]:
    bands = page.samplesperpixel if page.planarconfig == 1 else 1
    colours = int(page.photometric)
    if colours == _PALETTE or (bands > 1 and (bands, colours) not in ((3, _RGB), (3, _YCBCR))):
        yield f"of {bands} bands with the colours {_name(PHOTOMETRIC, colours)} as JPEG"
    if bands == 3 and colours == _RGB and page.is_jfif:
        yield "in RGB colours whose JPEG strips are in YCbCr (JFIF)"


def _places(page: TiffPage, size: int) -> Iterator[str]:
    """Strips and tiles are all there: tifffile leaves memory as it was where they are missing."""
    rows, columns = _segment_size(page)
    expected = -(-page.imagelength // rows) * -(-page.imagewidth // columns)
    if page.planarconfig == 2:
        expected *= page.samplesperpixel
    kind = "tiles" if page.is_tiled else "strips"
    codes = (324, 325) if page.is_tiled else (273, 279)
    for code in codes:
        found = page.tags[code].count if code in page.tags else 0
        if found != expected:
            yield f"{TIFF.TAGS[code]} names {found} {kind} of {expected}"
    for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True):
        if not offset or not count:
            yield f"some of its {kind} are empty"
        if offset + count > size:
            yield f"some of its {kind} lie beyond its end"


def _segment_size(page: TiffPage) -> tuple[int, int]:
    if page.is_tiled:
        return page.tilelength, page.tilewidth
    return min(page.rowsperstrip, page.imagelength), page.imagewidth


def _name(kinds: Any, value: int) -> str:
    return f"{kinds(value).name} ({int(value)})" if value in set(kinds) else str(value)


def _samples(page: TiffPage, data: bytes, name: str) -> Array:
    """What the page stores: (H, W) or (H, W, bands)."""
    try:
        stored = _decode(page, data)
    except InputError:
        raise
    except Exception:  # codecs fail in many ways, and say nothing of use
        compression = _name(COMPRESSION, page.compression)
        what = f"its pixels cannot be decoded (compression {compression})"
        raise _damaged(name, what) from None
    pixels = np.moveaxis(stored[:, 0, :, :, 0], 0, -1) if page.planarconfig == 2 else stored[0, 0]
    pixels = pixels[..., 0] if pixels.shape[2] == 1 else pixels
    pixels = pixels.astype(np.uint8) if pixels.dtype == np.bool_ else pixels
    if page.photometric == _WHITE_IS_ZERO:
        pixels = pixels.dtype.type(2**page.bitspersample - 1) - pixels
    return np.ascontiguousarray(pixels)


def _decode(page: TiffPage, data: bytes) -> Array:
    """All strips or tiles, in tifffile's (planes, depth, height, width, samples)."""
    stored = np.zeros(page.shaped, page.dtype)
    tallest, columns = _segment_size(page)
    for index, (offset, count) in enumerate(
        zip(page.dataoffsets, page.databytecounts, strict=True)
    ):
        segment = data[offset : offset + count]
        _, (plane, _, top, left, _), (_, rows, _, bands) = page.decode(None, index)
        if page.compression in _PICTURES:
            part = _decode_picture(page, segment, (rows, columns, bands))
        else:
            if page.compression == _JPEG:
                _check_jpeg(page, segment, rows, tallest)
            decoded, _, _ = page.decode(segment, index, jpegtables=page.jpegtables)
            part = np.asarray(decoded)[0]
        place = stored[plane, 0, top : top + rows, left : left + columns]
        place[...] = part[: place.shape[0], : place.shape[1]]
    return stored


def _decode_picture(page: TiffPage, segment: bytes, shape: tuple[int, int, int]) -> Array:
    """A strip or tile that says its size itself: decoded into an array of the size it shall have.

    tifffile would make room for what the segment claims.
    """
    part = np.empty(shape if shape[2] > 1 else shape[:2], page.dtype)
    decode = TIFF.DECOMPRESSORS[page.compression]
    if page.compression in _JPEG_2000:  # its decoder makes room before it compares
        _, width, height, left, top = struct.unpack_from(
            ">H4I", segment, segment.index(b"\xff\x4f\xff\x51") + 6
        )
        if (height - top, width - left) != shape[:2]:
            raise ValueError("a strip or tile of another size")
    if page.compression in _WEBP:
        decode(segment, hasalpha=shape[2] == 4, out=part)
    elif page.compression == _LERC:
        _, seen = decode(segment, masks=True, out=part)
        if seen is not None and not seen.all():
            raise ValueError("pixels without a value")
    else:
        decode(segment, out=part)
    return part.reshape(shape)


def _check_jpeg(page: TiffPage, segment: bytes, rows: int, tallest: int) -> None:
    """The frame is the strip or tile; the last one may be padded to the height of the others."""
    found = describe_jpeg(segment)
    frame = (found.width, found.bits, found.bands)
    bands = page.samplesperpixel if page.planarconfig == 1 else 1
    fits = frame == (_segment_size(page)[1], page.bitspersample, bands)
    if not fits or not rows <= found.height <= tallest:
        raise ValueError("a strip or tile of another size")
    if not found.ends or found.scans > MAX_SCANS:
        raise ValueError("a strip or tile cut off")


def _meaning(pixels: Array, page: TiffPage, name: str, as_colours: bool) -> Array:
    extra = [int(kind) for kind in page.extrasamples]
    if _PREMULTIPLIED in extra:
        alpha = pixels[..., extra.index(_PREMULTIPLIED) - len(extra)]
        if page.sampleformat != 1 or alpha.min() != 2**page.bitspersample - 1:
            raise _refuse(name, "with associated alpha (colours multiplied by their opacity)")
    if _grey_with_alpha(page):
        return np.ascontiguousarray(pixels[..., 0])
    if page.photometric == _PALETTE and as_colours:
        palette = np.asarray(page.tags[320].value, np.uint16).reshape(3, -1).T
        # The format prescribes 16 bits, but some writers store 8.
        return (palette >> 8 if palette.max() > 255 else palette).astype(np.uint8)[pixels]
    return pixels
