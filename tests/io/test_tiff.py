"""Every TIFF is read exactly as it is meant, or refused by the name of its structure."""

import io
import struct
import time
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from draw_tiff import (
    DEFLATE,
    JPEG_2000,
    JPEG_XL,
    LERC,
    LZMA,
    LZW,
    NONE,
    OLD_DEFLATE,
    PACKBITS,
    PNG,
    SHORT,
    WEBP,
    ZSTD,
    Page,
    number_type,
    tiff,
    turn,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from tifffile import imwrite

from sartm.errors import InputError
from sartm.io.decode import image_size, read_four_channel, read_rgb, read_rgb_alone, read_thermal
from sartm.io.labels import read_label
from sartm.io.sources import Upload

READERS = (read_rgb, read_thermal, read_label, read_four_channel, image_size)


def noise(
    random: np.random.Generator,
    bands: int = 1,
    bits: int = 8,
    kind: int = 1,
    size: tuple[int, int] = (20, 30),
) -> np.ndarray:
    """(H, W, bands) of values that these bits can have and float32 and float16 hold exactly."""
    top = 2 ** min(bits, 10 if kind == 3 else 24) - 1
    low = -(2 ** min(bits - 1, 23)) if kind == 2 else 0
    values = random.integers(low, -low - 1 if kind == 2 else top, (*size, bands), endpoint=True)
    return values.astype(number_type(bits, kind))


def upload(data: bytes) -> Upload:
    return Upload("x.tif", data)


def by_tifffile(pixels: np.ndarray, **options: Any) -> Upload:
    file = io.BytesIO()
    imwrite(file, pixels, **options)
    return upload(file.getvalue())


# ---- what a file of random structure shall give


@dataclass
class Meant:
    """What a file holds: pixels (H, W) or (H, W, C), or why it is refused."""

    pixels: np.ndarray | None = None
    bits: int = 8
    kind: int = 1
    colours: np.ndarray | None = None
    """A palette's colours, whose indices `pixels` are."""
    words: str = ""


PLAIN = [(1, 1, None), (0, 1, None), (2, 3, None), (1, 3, None), (1, 3, (0, 0)), (2, 4, None),
         (2, 4, (0,)), (2, 4, (2,)), (2, 4, (1,)), (1, 4, (0, 0, 0)), (1, 4, (0, 0, 2)),
         (1, 2, (2,)), (1, 2, (1,)), (3, 1, None)]  # fmt: skip
"""PhotometricInterpretation, bands and ExtraSamples that have a meaning here."""
FOREIGN = [(2, 5, (0, 0), "5 bands"), (1, 6, None, "6 bands"), (1, 2, None, "2 bands"),
           (1, 2, (0,), "2 bands"), (2, 2, None, "2 bands"), (2, 1, None, "1 bands"),
           (0, 3, None, "3 bands"), (3, 2, (2,), "2 bands"), (2, 4, (0, 0), "4 bands"),
           (1, 3, (2, 0), "3 bands"), (4, 1, None, "MASK"), (5, 4, None, "CMYK"),
           (6, 3, None, "YCbCr"), (8, 3, None, "CIELAB"), (32803, 1, None, "CFA"),
           (34892, 1, None, "LINEAR_RAW"), (77, 1, None, "77")]  # fmt: skip
NUMBERS = [*[(bits, 1) for bits in (1, 2, 3, 4, 6, 7, 9, 10, 12, 14, 32, 64)], *[(8, 1)] * 6,
           *[(16, 1)] * 5, *[(bits, 2) for bits in (8, 16, 32, 64)],
           *[(bits, 3) for bits in (16, 24, 32, 64)]]  # fmt: skip
ODD_NUMBERS = [(20, 1, "20-bit unsigned"), (24, 1, "24-bit unsigned"), (12, 2, "12-bit signed")]
BYTES = [NONE, NONE, LZW, DEFLATE, OLD_DEFLATE, PACKBITS, LZMA, ZSTD]
PREDICTED = [LZW, DEFLATE, OLD_DEFLATE, LZMA, ZSTD]


def picture_codecs(page: Page) -> list[int]:
    """Compressions that can hold such strips and tiles without loss."""
    bands = page.samples.shape[2] if page.planar == 1 else 1
    bits, kind = page.bits, page.kind
    found = [JPEG_2000, JPEG_XL] if (bits, kind) in ((8, 1), (16, 1)) and bands != 2 else []
    found += [PNG] if (bits, kind) in ((8, 1), (16, 1)) else []
    found += [WEBP] if (bits, kind) == (8, 1) and bands > 2 else []
    return found + ([LERC] if (bits, kind) in ((8, 1), (16, 1), (32, 3), (64, 3)) else [])


@st.composite
def files(draw: st.DrawFn) -> tuple[bytes, Meant]:
    """A TIFF of random structure, and what it means."""
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    page, meant = draw(pictures(random))
    pages = [page]
    others = draw(st.sampled_from(["none"] * 6 + ["reduced", "mask", "larger", "bands", "film"]))
    size = page.samples.shape[:2]
    if others in ("reduced", "mask"):
        copy = Page(noise(random, size=(3, 5)), 8, subfile=1 if others == "reduced" else 4)
        pages.insert(draw(st.integers(0, 1)), copy)
    elif others == "larger":
        pages.append(Page(noise(random, 3, size=(size[0] + 1, size[1])), 8, photometric=2))
    elif others != "none" and page.photometric in (0, 1) and page.samples.shape[2] == 1:
        number = 4 if others == "bands" else draw(st.sampled_from([2, 3, 5, 40]))
        pages += [replace(page, samples=draw(values(random, page))) for _ in range(number - 1)]
        if others == "film":
            meant = Meant(words=f"{meant.words or 'film'}|bands or a film")
        elif not meant.words:
            stored = np.concatenate([each.samples for each in pages], axis=2)
            meant = replace(meant, pixels=upright(stored, page))
    return tiff(pages, draw(st.booleans()), draw(st.booleans())), meant


@st.composite
def pictures(draw: st.DrawFn, random: np.random.Generator) -> tuple[Page, Meant]:
    odd = draw(st.sampled_from(["no"] * 12 + ["colours", "numbers", "predictor", "fill order"]))
    photometric, bands, extra = draw(st.sampled_from(PLAIN))
    bits, kind = draw(st.sampled_from(NUMBERS))
    words = ""
    if odd == "colours":
        photometric, bands, extra, words = draw(st.sampled_from(FOREIGN))
    if photometric in (0, 3) or words:
        bits, kind = (bits if bits < 16 and photometric == 0 else 8), 1
    if odd == "numbers" and photometric != 3:
        bits, kind, words = draw(st.sampled_from(ODD_NUMBERS))
    shape = (draw(st.integers(1, 40)), draw(st.integers(1, 40)), bands)
    page = Page(np.zeros(shape), bits, kind, photometric, extra)
    page.planar = draw(st.sampled_from([1, 2])) if bands > 1 else 1
    page.orientation = draw(st.sampled_from([1, 1, 2, 3, 4, 5, 6, 7, 8]))
    page.tile = draw(st.sampled_from([None, None, (16, 16), (16, 32), (64, 16)]))
    page.rows = draw(st.sampled_from([1, 3, 8, 1_000_000]))
    words = draw(compressions(page, odd, words))
    page.samples = draw(values(random, page))
    if photometric == 3:
        page.palette = random.integers(0, 256, (2**bits, 3)) * draw(st.sampled_from([1, 256, 257]))
    if 1 in (extra or ()) and not words:
        if draw(st.booleans()) and kind == 1:
            page.samples[..., -1] = np.iinfo(page.samples.dtype).max >> -bits % 8
        opaque = kind == 1 and all(int(each) == 2**bits - 1 for each in page.samples[..., -1].flat)
        words = "" if opaque else "associated alpha"
    if words:
        return page, Meant(words=words)
    meant = Meant(upright(page.samples[..., : 1 if bands == 2 else bands], page), bits, kind)
    if page.palette is not None:
        eight = page.palette // 256 if page.palette.max() > 255 else page.palette
        meant.colours = eight.astype(np.uint8)[meant.pixels]
    return page, meant


@st.composite
def compressions(draw: st.DrawFn, page: Page, odd: str, words: str) -> str:
    """Give the page a compression and a predictor; why it is refused, if it is."""
    page.compression = draw(st.sampled_from([*BYTES, *([] if words else picture_codecs(page))]))
    whole = page.bits in (8, 16, 32, 64) and page.kind != 3
    right = 2 if whole else 3
    defined = page.compression in PREDICTED and (whole or (page.kind == 3 and page.bits != 24))
    if defined:
        page.predictor = draw(st.sampled_from([1, right]))
    if odd == "fill order" and page.compression == NONE:
        page.fill_order = 2
    if odd == "predictor" and page.compression in BYTES and not words:
        page.change = {317: (SHORT, [5 - right if defined else 2])}
        return "predictor"
    return words


@st.composite
def values(draw: st.DrawFn, random: np.random.Generator, page: Page) -> np.ndarray:
    """Any values, or few bits in a larger container; sometimes of equal bands."""
    found = noise(random, page.samples.shape[2], page.bits, page.kind, page.samples.shape[:2])
    most = draw(st.sampled_from([None, None, 8, 255, 4095]))
    if most and page.kind == 1 and 2**page.bits > most + 1:
        found %= found.dtype.type(most + 1)
    if draw(st.integers(0, 3)) == 0:
        found[...] = found[..., :1]
    return found


def upright(samples: np.ndarray, page: Page) -> np.ndarray:
    samples = 2**page.bits - 1 - samples if page.photometric == 0 else samples
    samples = samples.astype(number_type(page.bits, page.kind))
    return turn(samples[..., 0] if samples.shape[2] == 1 else samples, page.orientation)


def meant_rgb(meant: Meant) -> np.ndarray | str:
    if meant.colours is not None:
        return meant.colours
    if meant.kind != 1 or meant.bits > 16:
        return "8 or 16 bits per channel"
    three = np.dstack([meant.pixels] * 3) if meant.pixels.ndim == 2 else meant.pixels[..., :3]
    white = 2**meant.bits - 1
    if meant.bits == 16 and three.max() <= 4095:
        white = 255 if three.max() <= 255 else 4095
    return np.floor(three * 255.0 / white + 0.5).astype(np.uint8)


def meant_thermal(pixels: np.ndarray) -> np.ndarray | str:
    if pixels.ndim == 3:
        three = pixels[..., :3].astype(np.float64)
        spread = three.max(axis=2) - three.min(axis=2)
        allowed = (12, 2) if pixels.dtype == np.uint8 else (0, 0)
        if spread.max() > allowed[0] or spread.mean() > allowed[1]:
            return "false colour"
        pixels = pixels[..., 1]
    return pixels if pixels.dtype in (np.uint8, np.uint16) else pixels.astype(np.float32)


def meant_label(meant: Meant) -> np.ndarray | str:
    ids = meant.pixels
    if ids.ndim == 3:
        if (ids[..., :3] != ids[..., :1]).any():
            return "colour picture"
        ids = ids[..., 0]
    ids = np.where(ids < 0, 255, ids)
    if float(ids.max()) > 65535:
        return "65535 is the largest"
    return ids.astype(np.uint8 if ids.max() <= 255 else np.uint16)


def meant_four(meant: Meant) -> tuple[Any, ...] | str:
    if meant.colours is not None or meant.pixels.ndim == 2 or meant.pixels.shape[2] != 4:
        return "expected RGB"
    rgb = meant_rgb(meant)
    return rgb if isinstance(rgb, str) else (rgb, meant_thermal(meant.pixels[..., 3]))


def compare(data: bytes, meant: Meant) -> None:
    if meant.words:
        for read in READERS[:4] if meant.words == "associated alpha" else READERS:
            with pytest.raises(InputError, match=rf"x\.tif.*({meant.words})"):
                read(upload(data))
        return
    shown = meant.pixels if meant.colours is None else meant.colours
    size = np.array(meant.pixels.shape[:2])
    wanted = (meant_rgb(meant), meant_thermal(shown), meant_label(meant), meant_four(meant), size)
    for read, right in zip(READERS, wanted, strict=True):
        if isinstance(right, str):
            with pytest.raises(InputError, match=right):
                read(upload(data))
            continue
        found = read(upload(data))
        if not isinstance(right, tuple):
            found, right = (found,), (right,)
        for one, other in zip(found, right, strict=True):
            np.testing.assert_array_equal(one, other, read.__name__)
            assert read is image_size or one.dtype == other.dtype


def fuzz(number: int) -> Any:
    return settings(
        max_examples=number,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )


@fuzz(60)
@given(files())
def test_a_sample_of_structures_is_read_exactly_or_refused_by_name(file):
    compare(*file)


@pytest.mark.slow
@fuzz(600)
@given(files())
def test_structures_are_read_exactly_or_refused_by_name(file):
    compare(*file)


# ---- the cases that people meet, each with its right value

PICTURE = np.random.default_rng(1).integers(0, 65536, (20, 30, 4), np.uint16)
EIGHT = (PICTURE >> 8).astype(np.uint8)


def to_eight(pixels: np.ndarray, white: int = 65535) -> np.ndarray:
    return np.floor(pixels * 255.0 / white + 0.5).astype(np.uint8)


def test_sixteen_bit_rgb_stored_in_bands_is_the_picture_each_time():
    file = by_tifffile(
        PICTURE[..., :3].transpose(2, 0, 1), photometric="rgb", planarconfig="separate"
    )
    for _ in range(3):
        np.testing.assert_array_equal(read_rgb(file), to_eight(PICTURE[..., :3]))


def test_colours_of_rgba_are_not_multiplied_by_their_opacity():
    file = io.BytesIO()
    Image.fromarray(EIGHT).save(file, "TIFF")
    np.testing.assert_array_equal(read_rgb(upload(file.getvalue())), EIGHT[..., :3])
    np.testing.assert_array_equal(read_four_channel(upload(file.getvalue()))[1], EIGHT[..., 3])


@pytest.mark.parametrize("pixels", [EIGHT, PICTURE])
def test_four_pages_of_one_band_are_red_green_blue_and_thermal(pixels):
    file = by_tifffile(pixels.transpose(2, 0, 1), photometric="minisblack")
    rgb, thermal = read_four_channel(file)
    np.testing.assert_array_equal(rgb, to_eight(pixels[..., :3], np.iinfo(pixels.dtype).max))
    np.testing.assert_array_equal(thermal, pixels[..., 3])
    assert "taken as thermal" in read_rgb_alone(file)[2]


def test_four_pages_of_unlike_bands_and_films_are_refused():
    bands = [Page(EIGHT[..., i : i + 1], 8) for i in range(3)]
    for pages in ([*bands, Page(PICTURE[..., :1], 16)], bands, bands[:2], bands * 2, bands * 9):
        with pytest.raises(InputError, match="one band each, which may be bands or a film"):
            read_thermal(upload(tiff(pages)))


def test_of_other_pages_the_first_is_read_and_an_image_alone_says_so():
    file = upload(tiff([Page(EIGHT[..., :3], 8, photometric=2), Page(EIGHT[..., 3:], 8)]))
    rgb, thermal, note = read_rgb_alone(file)
    np.testing.assert_array_equal(rgb, EIGHT[..., :3])
    assert thermal is None
    assert note == "x.tif: of 2 pages the first is read"
    with pytest.raises(InputError, match="found 3"):
        read_four_channel(file)


@pytest.mark.parametrize("bits", [4, 10, 12, 14])
def test_packed_bits_are_counts_for_thermal_and_shares_of_white_for_rgb(bits):
    counts = PICTURE >> (16 - bits)
    file = upload(tiff([Page(counts, bits, photometric=2)]))
    rgb, thermal = read_four_channel(file)
    np.testing.assert_array_equal(rgb, to_eight(counts[..., :3], 2**bits - 1))
    np.testing.assert_array_equal(thermal, counts[..., 3])


def test_white_is_zero_is_inverted_in_sixteen_bits():
    file = upload(tiff([Page(PICTURE[..., :1], 16, photometric=0)]))
    np.testing.assert_array_equal(read_thermal(file), 65535 - PICTURE[..., 0])


@pytest.mark.parametrize("kind", ["TIFF", "BMP", "PNG"])
def test_masks_of_one_bit_are_the_ids_0_and_1(kind):
    mask = EIGHT[..., 0] > 127
    file = io.BytesIO()
    Image.fromarray(mask).save(file, kind)
    found = read_label(upload(file.getvalue()))
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, mask)
    assert set(np.unique(read_rgb(upload(file.getvalue())))) == {0, 255}


@pytest.mark.parametrize("method", ["tiff_ccitt", "group3", "group4"])
def test_masks_as_fax_are_read(method):
    mask = np.repeat(EIGHT[..., 0] > 127, 3, axis=1)
    file = io.BytesIO()
    Image.fromarray(mask).save(file, "TIFF", compression=method)
    np.testing.assert_array_equal(read_label(upload(file.getvalue())), mask)


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("big_endian", [False, True])
def test_either_byte_order_and_bigtiff_are_read(big_endian, large):
    half = (PICTURE[..., :1] % 2000).astype(np.float16)
    file = upload(tiff([Page(half, 16, 3)], big_endian, large))
    found = read_thermal(file)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, half[..., 0])


def test_what_is_not_understood_is_refused_by_its_name_and_not_called_damaged():
    file = by_tifffile(np.zeros((20, 30, 5), np.uint8), photometric="rgb")
    for read in READERS:
        with pytest.raises(InputError, match=r"x\.tif: a TIFF of 5 bands; save it as") as error:
            read(file)
        assert "damaged" not in str(error.value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({262: None}, "no PhotometricInterpretation"),
        ({284: (SHORT, [3])}, "PlanarConfiguration 3"),
        ({259: (SHORT, [34661])}, "compression JBIG"),
        ({259: (SHORT, [6])}, "compression OJPEG"),
        ({259: (SHORT, [4711])}, "compression 4711"),
        ({266: (SHORT, [2]), 259: (SHORT, [5])}, "FillOrder 2"),
        ({339: (SHORT, [4])}, "8-bit untyped"),
        ({339: (SHORT, [6])}, "8-bit complex"),
        ({258: (SHORT, [5, 6, 5])}, "BitsPerSample of others"),
        ({32997: (SHORT, [4])}, "volume of 4 slices"),
        ({322: (SHORT, [1]), 323: (SHORT, [1])}, "tiles of 1x1"),
        ({322: (SHORT, [50000]), 323: (SHORT, [50000])}, "tiles of 50000x50000"),
        ({33628: (SHORT, [4])}, "MetaMorph"),
        ({270: (2, b"ImageJ=1.5\nimages=4\nchannels=4\n")}, "ImageJ stack of 4 pictures"),
        ({273: None}, "strips"),
        ({279: None}, "StripByteCounts names 0 strips of 1"),
        ({279: (SHORT, [0])}, "some of its strips are empty"),
        ({279: (SHORT, [60000])}, "some of its strips lie beyond its end"),
        ({279: (SHORT, [599])}, "pixels cannot be decoded"),
        ({278: (SHORT, [5])}, "names 1 strips of 4"),
        ({256: (11, [30.0])}, "tag 256 .* is not a number"),
        ({257: (1, [20])}, "tag 257 .* is not a number"),
        ({257: (4, [30000, 30000, 30000])}, "tag 257 .* is not a number"),
    ],
)
def test_structures_that_are_refused(change, words):
    with pytest.raises(InputError, match=rf"x\.tif: .*{words}"):
        read_rgb(upload(tiff([Page(EIGHT[..., :1], 8, change=change)])))


def test_bands_of_unlike_bits_are_refused():
    page = Page(EIGHT[..., :3], 8, photometric=2, change={258: (SHORT, [5, 6, 5])})
    with pytest.raises(InputError, match=r"different number types \(bits \(5, 6, 5\)"):
        read_rgb(upload(tiff([page])))


@pytest.mark.parametrize("code", [256, 257, 258, 259, 262, 273, 277, 278, 279])
def test_tags_that_come_twice_are_refused(code):
    """Readers disagree which of them counts, so that limits could be passed."""
    page = Page(EIGHT[..., :1], 8, twice={code: (SHORT, [30000])})
    for read in READERS:
        with pytest.raises(InputError, match=f"tag {code} .* more than once"):
            read(upload(tiff([page])))


def test_a_picture_behind_its_thumbnail_is_named_and_thumbnails_alone_are_read():
    thumbnail = Page(EIGHT[..., :1], 8, subfile=1)
    np.testing.assert_array_equal(read_thermal(upload(tiff([thumbnail]))), EIGHT[..., 0])
    thumbnail.change = {330: (4, [8])}
    with pytest.raises(InputError, match="behind its thumbnail"):
        read_rgb(upload(tiff([thumbnail])))


def test_pages_in_a_circle_are_refused():
    data = bytearray(tiff([Page(EIGHT[..., :1], 8)]))
    data[-4:] = data[4:8]
    with pytest.raises(InputError, match="circle"):
        read_rgb(upload(bytes(data)))


# Smooth, because JPEG halves the colours' resolution.
SMOOTH = np.dstack(
    [np.mgrid[:64, :80][1] * 3, np.mgrid[:64, :80][0] * 3, np.mgrid[:64, :80].sum(0)]
)
SMOOTH = SMOOTH.astype(np.uint8)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"rowsperstrip": 16},
        {"tile": (16, 16)},
        {"planarconfig": "separate"},
        {"compressionargs": {"level": 95, "outcolorspace": "rgb"}},
    ],
)
def test_jpeg_in_a_tiff_gives_its_colours_but_no_labels(options):
    apart = options.get("planarconfig") == "separate"
    pixels = SMOOTH.transpose(2, 0, 1) if apart else SMOOTH
    level = {"compressionargs": {"level": 95}}
    file = by_tifffile(pixels, **{"photometric": "rgb", "compression": "jpeg"} | level | options)
    assert np.abs(read_rgb(file).astype(int) - SMOOTH).max() <= 6
    with pytest.raises(InputError, match="a label cannot be JPEG"):
        read_label(file)


def test_jpeg_of_pillow_is_read_as_pillow_reads_it():
    file = io.BytesIO()
    Image.fromarray(SMOOTH).save(file, "TIFF", compression="jpeg", quality=90)
    with Image.open(file) as image:
        right = np.asarray(image.convert("RGB"))
    assert np.abs(read_rgb(upload(file.getvalue())).astype(int) - right).max() <= 2


def test_a_strip_that_claims_another_size_is_refused_before_room_is_made_for_it():
    for compression in (JPEG_2000, JPEG_XL, PNG, LERC):
        page = Page(np.zeros((3000, 3000, 1), np.uint8), 8, compression=compression)
        page.change = {256: (SHORT, [30]), 257: (SHORT, [20])}
        with pytest.raises(InputError, match="pixels cannot be decoded"):
            read_thermal(upload(tiff([page])))
    strip = by_tifffile(np.zeros((64, 64), np.uint8), compression="jpeg").data
    start, end = strip.index(b"\xff\xd8"), strip.index(b"\xff\xd9") + 2
    page = Page(np.frombuffer(strip[start:end], np.uint8)[None, :, None], 8)
    page.change = {256: (SHORT, [30]), 257: (SHORT, [20]), 259: (SHORT, [7])}
    with pytest.raises(InputError, match="pixels cannot be decoded"):
        read_thermal(upload(tiff([page])))


def test_a_palette_is_colours_for_rgb_and_ids_for_labels(tmp_path):
    ids = EIGHT[..., :1] % 9
    for scale in (1, 256, 257):  # 8 bits as they are, shifted, or spread over 16
        palette = np.random.default_rng(2).integers(0, 256, (256, 3)) * scale
        file = upload(tiff([Page(ids, 8, photometric=3, palette=palette)]))
        np.testing.assert_array_equal(read_rgb(file), (palette // scale)[ids[..., 0]])
        np.testing.assert_array_equal(read_label(file), ids[..., 0])
        colours = tuple(tuple(int(part) for part in row) for row in palette[:9] // scale)
        np.testing.assert_array_equal(read_label(file, colours=colours), ids[..., 0])


# ---- 8 and 12 bits in the container of 16


@pytest.mark.parametrize(
    ("largest", "white"), [(200, 255), (255, 255), (256, 4095), (4095, 4095), (4096, 65535)]
)
def test_sixteen_bits_that_hold_eight_or_twelve_are_scaled_by_those(largest, white, tmp_path):
    wide = PICTURE % largest
    wide[0, 0, :3] = largest
    wide[0, 0, 3] = 65535  # a 4th channel has no say
    np.save(tmp_path / "x.npy", wide)
    Image.fromarray(wide[..., 0]).save(tmp_path / "x.png")
    right = to_eight(wide, white)
    for file in (upload(tiff([Page(wide, 16, photometric=2)])), tmp_path / "x.npy"):
        np.testing.assert_array_equal(read_rgb(file), right[..., :3])
    np.testing.assert_array_equal(read_rgb(tmp_path / "x.png"), np.dstack([right[..., 0]] * 3))
    np.testing.assert_array_equal(read_thermal(tmp_path / "x.png"), wide[..., 0])


# ---- files that are damaged or made to harm


def damaged_files() -> list[bytes]:
    random = np.random.default_rng(3)
    whole = [
        tiff([Page(PICTURE, 16, photometric=2, compression=c, rows=7)], bool(c % 2), c == ZSTD)
        for c in (NONE, LZW, PACKBITS, OLD_DEFLATE, LZMA, ZSTD)
    ]
    whole += [
        tiff([Page(EIGHT, 8, photometric=2, planar=p, compression=c, tile=(16, 16))])
        for c in (NONE, DEFLATE, JPEG_2000, PNG, JPEG_XL, WEBP)
        for p in ((1,) if c in (JPEG_2000, JPEG_XL, WEBP) else (1, 2))
    ]
    whole.append(tiff([Page(EIGHT[..., i : i + 1], 8) for i in range(4)]))
    whole.append(by_tifffile(SMOOTH, compression="jpeg", rowsperstrip=16).data)
    found = []
    for data in whole:
        for _ in range(24):
            changed = bytearray(data)
            place = int(random.integers(4, len(data)))
            if random.random() < 0.3:
                del changed[place:]
            for place in random.integers(0, len(changed), int(random.integers(0, 5))):
                changed[place] = random.integers(256)
            tags = max(data.rfind(b"\0\1\3\0"), data.rfind(b"\0\1\4\0"), data.rfind(b"\1\0\0\4"))
            if tags < len(changed) and random.random() < 0.6:
                for place in random.integers(tags, min(len(changed), tags + 240), 2):
                    changed[place] = random.choice([0, 1, 2, 3, 7, 127, 255])
            found.append(bytes(changed))
    return found


@pytest.mark.slow
def test_damage_ends_in_an_input_error_within_its_time():
    refused = 0
    for data in damaged_files():
        for read in READERS:
            begin = time.process_time()
            try:
                found = read(upload(data), max_pixels=10**6)
            except InputError:
                refused += 1
            else:
                if read is read_rgb:
                    assert found.shape[:2] == image_size(upload(data))
            assert time.process_time() - begin < 2
    assert refused > 500


def test_a_file_cut_off_anywhere_is_refused():
    data = tiff([Page(PICTURE, 16, photometric=2, rows=7)])
    for end in range(4, len(data), 97):
        with pytest.raises(InputError, match=r"x\.tif"):
            read_rgb(upload(data[:end]))


def test_tags_that_claim_the_whole_file_many_times_are_refused_at_once():
    data = bytearray(tiff([Page(np.zeros((1000, 1000, 1), np.uint8), 8)]))
    place = struct.unpack_from("<I", data, 4)[0]
    tags = bytes(data[place + 2 : -4])
    claims = b"".join(struct.pack("<HHII", 40000 + i, 1, 1_000_000, 8) for i in range(900))
    count = struct.pack("<H", len(tags) // 12 + 900)
    data[place:] = count + tags + claims + bytes(4)
    with pytest.raises(InputError, match="tags are larger than the file"):
        read_rgb(upload(bytes(data)))


def test_sides_and_thin_pictures_are_limited_by_what_they_cost(tmp_path):
    for side, limit, words in (
        (65_501, 250_000_000, "a side of more than 65500"),
        (1_000_000, 250_000_000, "a side of more than 65500"),
        (60_000, 1_500_000, r"60000x1 is 1\.92 million pixels with both sides padded"),
    ):
        page = Page(np.zeros((1, 1, 1), np.uint8), 8, change={257: (4, [side]), 278: (4, [side])})
        Image.fromarray(np.zeros((side, 1), np.uint8)).save(tmp_path / "x.png")
        for file in (upload(tiff([page])), tmp_path / "x.png"):
            for read in READERS:
                with pytest.raises(InputError, match=words):
                    read(file, max_pixels=limit)


def test_a_jpeg_of_endless_scans_is_refused(tmp_path):
    path = tmp_path / "x.jpg"
    Image.fromarray(SMOOTH).save(path, progressive=True)
    read_rgb(path)
    data = path.read_bytes()
    scan = data[data.rfind(b"\xff\xda") : data.rfind(b"\xff\xd9")]
    path.write_bytes(data[:-2] + 200 * scan + data[-2:])
    with pytest.raises(InputError, match=r"x\.jpg: a JPEG of 21\d scans"):
        read_rgb(path)
