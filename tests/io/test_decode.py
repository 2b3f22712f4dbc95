"""Files become the arrays they hold, upright and unscaled; what cannot be used says why."""

import contextlib
import resource
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from sartm.classes import FMB
from sartm.config import ThermalRule
from sartm.errors import InputError
from sartm.io.decode import image_size, read_four_channel, read_rgb, read_rgb_alone, read_thermal
from sartm.io.labels import read_label, write_label
from sartm.io.thermal import apply_thermal_rule

SHARED = Path(__file__).resolve().parents[3] / "shared"
needs_shared = pytest.mark.skipif(
    not SHARED.is_dir(), reason="no folder shared beside the checkout"
)


def scene(channels: int = 3) -> np.ndarray:
    """(20, 30, channels) uint8, no two corners alike; smooth, so that JPEG keeps it."""
    y, x = np.mgrid[:20, :30]
    planes = [8 * x, 12 * y, 4 * (x + y), 6 * x + 3 * y]
    return np.dstack(planes[:channels]).astype(np.uint8)


def png(height: int, width: int) -> bytes:
    """A PNG that claims a size and holds no pixels of it."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    start = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + start + chunk(b"IDAT", zlib.compress(b"0")) + chunk(b"IEND", b"")


@pytest.mark.parametrize("suffix", [".png", ".tif", ".bmp", ".ppm"])
def test_lossless_rgb_comes_back_exactly_in_rgb_order(suffix, tmp_path):
    path = tmp_path / f"x{suffix}"
    Image.fromarray(scene()).save(path)
    np.testing.assert_array_equal(read_rgb(path), scene())
    assert image_size(path) == (20, 30)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".webp"])
def test_exif_orientation_is_applied_to_every_format(suffix, orientation, tmp_path):
    path = tmp_path / f"x{suffix}"
    exif = Image.Exif()
    exif[274] = orientation
    quality = {} if suffix in (".png", ".tif") else {"quality": 100}
    Image.fromarray(scene()).save(path, exif=exif, **quality)
    with Image.open(path) as image:
        upright = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    found = read_rgb(path)
    assert found.shape == upright.shape == (*image_size(path), 3)
    assert np.abs(found.astype(int) - upright).max() <= 6


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_keeps_16_bits_and_the_indices_of_a_palette(orientation, tmp_path):
    exif = Image.Exif()
    exif[274] = orientation
    counts = scene()[..., 2].astype(np.uint16) * 256 + scene()[..., 0]
    Image.fromarray(counts).save(tmp_path / "counts.png", exif=exif)
    indices = Image.fromarray(scene()[..., 2]).convert("P")
    indices.save(tmp_path / "indices.png", exif=exif)
    with Image.open(tmp_path / "indices.png") as image:
        upright = np.asarray(ImageOps.exif_transpose(image))
    np.testing.assert_array_equal(read_label(tmp_path / "indices.png"), upright)
    with Image.open(tmp_path / "counts.png") as image:
        upright = np.asarray(ImageOps.exif_transpose(image))
    found = read_thermal(tmp_path / "counts.png")
    assert found.dtype == np.uint16
    np.testing.assert_array_equal(found, upright)


def test_sixteen_bit_rgb_is_scaled_with_rounding_and_alpha_is_dropped(tmp_path):
    wide = scene(4).astype(np.uint16) * 257
    wide[0, 0] = (128 + 257 * 7, 129 + 257 * 7, 65535, 65535)  # B, G, R, A: below and above half
    cv2.imwrite(str(tmp_path / "wide.png"), wide)
    found = read_rgb(tmp_path / "wide.png")
    assert found.dtype == np.uint8
    assert found[0, 0].tolist() == [255, 8, 7]
    np.testing.assert_array_equal(found[1:], scene(4)[1:, :, 2::-1])


def test_a_grey_image_is_rgb_with_equal_channels_and_a_palette_its_colours(tmp_path):
    Image.fromarray(scene()[..., 0]).save(tmp_path / "grey.png")
    np.testing.assert_array_equal(read_rgb(tmp_path / "grey.png")[..., 2], scene()[..., 0])
    blocks = scene() // 128 * 255
    Image.fromarray(blocks).quantize(8).save(tmp_path / "palette.png")
    np.testing.assert_array_equal(read_rgb(tmp_path / "palette.png"), blocks)


@pytest.mark.parametrize(
    ("suffix", "dtype"),
    [
        *[
            (suffix, dtype)
            for suffix in (".png", ".tif", ".npy")
            for dtype in (np.uint8, np.uint16)
        ],
        (".tif", np.float32),
        (".npy", np.float32),
    ],
)
def test_thermal_keeps_its_raw_values_and_number_type(suffix, dtype, tmp_path):
    raw = scene()[..., 0].astype(dtype) * (200 if dtype != np.uint8 else 1)
    raw = raw - np.float32(40.25) if dtype == np.float32 else raw
    path = tmp_path / f"x{suffix}"
    np.save(path, raw) if suffix == ".npy" else Image.fromarray(raw).save(path)
    found = read_thermal(path)
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, raw)
    assert image_size(path) == raw.shape


def test_negative_and_double_precision_tiffs_become_floats(tmp_path):
    for dtype in (np.int16, np.float64):
        raw = scene()[..., 0].astype(dtype) - 30
        cv2.imwrite(str(tmp_path / "x.tif"), raw)
        found = read_thermal(tmp_path / "x.tif")
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, raw)


def test_thermal_with_three_channels_is_taken_if_they_are_equal(tmp_path):
    grey = scene()[..., 0]
    Image.fromarray(np.dstack([grey] * 3)).save(tmp_path / "equal.png")
    np.testing.assert_array_equal(read_thermal(tmp_path / "equal.png"), grey)
    near = np.dstack([grey, grey, np.clip(grey.astype(int) + 2, 0, 255)]).astype(np.uint8)
    Image.fromarray(near).save(tmp_path / "near.png")
    np.testing.assert_array_equal(read_thermal(tmp_path / "near.png"), grey)


@pytest.mark.parametrize("spot", [(13, 1), (3, 600)], ids=["one pixel by 13", "all by 3"])
def test_false_colour_thermal_is_refused_with_the_remedy(spot, tmp_path):
    colours = np.full((20, 30, 3), 100, np.uint8)
    colours.reshape(-1, 3)[: spot[1], 2] += spot[0]
    Image.fromarray(colours).save(tmp_path / "jet.png")
    with pytest.raises(InputError, match=r"jet\.png.*false colour.*Export it in grey"):
        read_thermal(tmp_path / "jet.png")


def test_false_colour_stored_with_a_palette_is_refused_too(tmp_path):
    Image.fromarray(scene()).quantize(16).save(tmp_path / "iron.png")
    with pytest.raises(InputError, match="false colour"):
        read_thermal(tmp_path / "iron.png")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_thermal_without_a_number_is_refused_and_counted(value, tmp_path):
    raw = np.ones((20, 30), np.float32)
    raw[3, 4:6] = value
    Image.fromarray(raw).save(tmp_path / "hole.tif")
    with pytest.raises(InputError, match=r"hole\.tif: 2 of 600"):
        read_thermal(tmp_path / "hole.tif")


def test_four_channels_are_rgb_and_thermal(tmp_path):
    Image.fromarray(scene(4)).save(tmp_path / "four.png")
    six = np.dstack([scene(), *[scene(4)[..., 3]] * 3])
    np.save(tmp_path / "six.npy", six.astype(np.float64))
    for name in ("four.png", "six.npy"):
        rgb, thermal = read_four_channel(tmp_path / name)
        np.testing.assert_array_equal(rgb, scene())
        np.testing.assert_array_equal(thermal, scene(4)[..., 3])
    Image.fromarray(scene()).save(tmp_path / "three.png")
    with pytest.raises(InputError, match=r"three\.png.*found 3"):
        read_four_channel(tmp_path / "three.png")


@pytest.mark.parametrize(
    ("values", "is_thermal"), [(1, False), (2, False), (16, False), (17, True)]
)
def test_a_fourth_channel_is_thermal_when_it_has_many_values(values, is_thermal, tmp_path):
    path = tmp_path / "x.png"
    fourth = (np.arange(600) % values * 15).reshape(20, 30)
    Image.fromarray(np.dstack([scene(), fourth.astype(np.uint8)])).save(path)
    _, thermal, note = read_rgb_alone(path)
    assert (thermal is not None) == is_thermal
    assert ("taken as thermal" if is_thermal else "dropped as transparency") in note
    np.testing.assert_array_equal(read_rgb_alone(path, "yes")[1], fourth)
    assert read_rgb_alone(path, "no")[1:] == (None, "")


def test_asking_for_a_fourth_channel_that_is_not_there_is_refused(tmp_path):
    Image.fromarray(scene()).save(tmp_path / "x.png")
    assert read_rgb_alone(tmp_path / "x.png")[1:] == (None, "")
    with pytest.raises(InputError, match="no 4th channel"):
        read_rgb_alone(tmp_path / "x.png", "yes")


def test_labels_keep_their_ids_in_every_storage(tmp_path):
    ids = (np.arange(600) % 9).reshape(20, 30).astype(np.uint8)
    ids[0, 0] = 255
    Image.fromarray(ids).save(tmp_path / "grey.png")
    palette = Image.fromarray(ids).convert("P")
    palette.putpalette([7 * value % 256 for value in range(768)])
    palette.save(tmp_path / "palette.png")
    palette.save(tmp_path / "palette.tif")
    Image.fromarray(ids.astype(np.uint16)).save(tmp_path / "wide.png")
    Image.fromarray(np.dstack([ids] * 3)).save(tmp_path / "thrice.png")
    Image.fromarray(np.where(ids == 255, -1, ids).astype(np.int32)).save(tmp_path / "long.tif")
    for name in ("grey.png", "palette.png", "palette.tif", "wide.png", "thrice.png", "long.tif"):
        found = read_label(tmp_path / name)
        assert found.dtype == np.uint8, name
        np.testing.assert_array_equal(found, ids, name)


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_labels_of_few_bits_are_not_stretched_to_255(bits, tmp_path):
    ids = (np.arange(600) % 2**bits).reshape(20, 30).astype(np.uint8)
    cells = np.zeros((20, -(-30 * bits // 8)), np.uint8)
    for column in range(30):
        cells[:, column * bits // 8] |= ids[:, column] << (8 - bits - column * bits % 8)
    rows = b"".join(b"\0" + row.tobytes() for row in cells)
    parts = [(b"IHDR", struct.pack(">IIBBBBB", 30, 20, bits, 0, 0, 0, 0))]
    parts += [(b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    data = b"\x89PNG\r\n\x1a\n"
    for kind, body in parts:
        data += struct.pack(">I", len(body)) + kind + body
        data += struct.pack(">I", zlib.crc32(kind + body))
    (tmp_path / "small.png").write_bytes(data)
    np.testing.assert_array_equal(read_label(tmp_path / "small.png"), ids)


def test_more_than_255_ids_survive_writing_and_reading(tmp_path):
    for top, dtype in ((8, np.uint8), (255, np.uint8), (300, np.uint16)):
        ids = np.full((20, 30), top, np.int64)
        write_label(tmp_path / "new" / "x.png", ids)
        found = read_label(tmp_path / "new" / "x.png")
        assert found.dtype == dtype
        np.testing.assert_array_equal(found, ids)
    assert [file.name for file in (tmp_path / "new").iterdir()] == ["x.png"]
    with pytest.raises(InputError, match="0-65535, found -1"):
        write_label(tmp_path / "x.png", np.full((2, 2), -1))


@pytest.mark.parametrize("most", [1, 15, 200, 255, 1023, 4095, 65535])
def test_ppm_is_a_share_of_its_maximum_for_rgb_and_counts_for_thermal(most, tmp_path):
    counts = np.random.default_rng(0).integers(0, most, (20, 30, 3), endpoint=True)
    data = counts.astype(">u2" if most > 255 else np.uint8)
    (tmp_path / "x.ppm").write_bytes(b"P6 # 7 7 7\n30 20\n%d\n" % most + data.tobytes())
    (tmp_path / "x.pgm").write_bytes(b"P5\n30 20\n%d\n" % most + data[..., 0].tobytes())
    shares = counts * 255 / most  # a half may go either way
    assert np.abs(read_rgb(tmp_path / "x.ppm") - shares).max() < 0.501
    assert np.abs(read_rgb(tmp_path / "x.pgm")[..., 1] - shares[..., 0]).max() < 0.501
    np.testing.assert_array_equal(read_thermal(tmp_path / "x.pgm"), counts[..., 0])


def test_white_in_a_16_bit_bmp_is_white(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 2**16, (20, 30)).astype("<u2")
    pixels[0, 0] = 0xFFFF
    data = struct.pack("<IiiHHIIiiII", 40, 30, 20, 1, 16, 3, pixels.nbytes, 0, 0, 0, 0)
    data += struct.pack("<III", 0xF800, 0x7E0, 0x1F) + pixels.tobytes()
    path = tmp_path / "x.bmp"
    path.write_bytes(b"BM" + struct.pack("<IHHI", 14 + len(data), 0, 0, 66) + data)
    with Image.open(path) as image:
        right = np.asarray(image)
    found = read_rgb(path)
    np.testing.assert_array_equal(found, right)
    assert found[-1, 0].tolist() == [255, 255, 255]


def test_three_channels_of_long_integers_are_thermal_or_a_label_if_they_are_equal(tmp_path):
    counts = np.dstack([scene()[..., 0].astype(np.int64)] * 3)
    np.save(tmp_path / "x.npy", counts)
    np.testing.assert_array_equal(read_thermal(tmp_path / "x.npy"), counts[..., 0])
    np.testing.assert_array_equal(read_label(tmp_path / "x.npy"), counts[..., 0])
    counts[0, 0, 1] += 1
    np.save(tmp_path / "x.npy", counts)
    with pytest.raises(InputError, match="false colour"):
        read_thermal(tmp_path / "x.npy")


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path):
    path = tmp_path / "x.png"
    write_label(path, np.ones((4, 4), np.uint8))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20, limits[1]))  # bytes of a file, as on a full disk
    try:
        with pytest.raises(OSError, match="File too large"):
            write_label(path, np.zeros((4, 4), np.uint8))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [file.name for file in tmp_path.iterdir()] == ["x.png"]
    assert read_label(path).all()


@pytest.mark.parametrize("order", ["RGB", "BGR"])
def test_colour_labels_become_ids_by_the_table(order, tmp_path):
    ids = (np.arange(600) % len(FMB)).reshape(20, 30)
    colours = np.array(FMB.palette, np.uint8)[ids]
    shown = colours if order == "RGB" else colours[..., ::-1]
    Image.fromarray(np.ascontiguousarray(shown)).save(tmp_path / "x.png")
    Image.fromarray(np.ascontiguousarray(shown)).quantize(32).save(tmp_path / "p.png")
    for name in ("x.png", "p.png"):
        np.testing.assert_array_equal(read_label(tmp_path / name, colours=FMB.palette), ids)


def test_colour_labels_without_a_table_or_with_a_strange_colour_are_refused(tmp_path):
    shown = np.zeros((20, 30, 3), np.uint8)
    shown[3, 4] = (1, 2, 3)
    Image.fromarray(shown).save(tmp_path / "x.png")
    with pytest.raises(InputError, match=r"x\.png.*colour picture.*Label"):
        read_label(tmp_path / "x.png")
    with pytest.raises(InputError, match=r"x\.png: 1 label pixels.*\(1, 2, 3\)"):
        read_label(tmp_path / "x.png", colours=FMB.palette)


def test_lossy_and_fractional_labels_are_refused(tmp_path):
    Image.fromarray(scene()[..., 0]).save(tmp_path / "x.jpg")
    with pytest.raises(InputError, match=r"x\.jpg.*JPEG"):
        read_label(tmp_path / "x.jpg")
    Image.fromarray(np.full((20, 30), 1.5, np.float32)).save(tmp_path / "x.tif")
    with pytest.raises(InputError, match=r"x\.tif.*1\.5"):
        read_label(tmp_path / "x.tif")


BAD_FILES = {
    "empty.png": (b"", "empty"),
    "text.png": (b"hello", "not an image"),
    "drawing.svg": (b'<?xml version="1.0"?><svg xmlns="x"/>', "SVG"),
    "page.jpg": (b"<!DOCTYPE html><html>", "web page"),
    "pointer.png": (b"version https://git-lfs.github.com/spec/v1\noid", "git lfs pull"),
    "magic.png": (b"\x89PNG\r\n\x1a\n", "header"),
    "magic.jpg": (b"\xff\xd8\xff", "header"),
    "magic.tif": (b"II*\0\x08\0\0\0", "header"),
    "bomb.png": (png(60_000, 60_000), "3600 million pixels"),
    "hollow.png": (png(20, 30), "damaged"),
}


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's, about the TIFF
@pytest.mark.parametrize("read", [read_rgb, read_thermal, read_label, read_four_channel])
@pytest.mark.parametrize("name", BAD_FILES)
def test_what_is_no_image_is_refused_by_name(read, name, tmp_path):
    data, reason = BAD_FILES[name]
    (tmp_path / name).write_bytes(data)
    with pytest.raises(InputError) as error:
        read(tmp_path / name)
    assert name in str(error.value)
    assert reason in str(error.value)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".bmp", ".webp", ".ppm", ".npy"])
@pytest.mark.parametrize("share", [0.5, 0.98])
def test_a_file_cut_off_is_refused_by_name(suffix, share, tmp_path):
    path = tmp_path / f"cut{suffix}"
    noise = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    np.save(path, noise) if suffix == ".npy" else Image.fromarray(noise).save(path)
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(InputError, match=f"cut\\{suffix}"):
        read_rgb(path)


def test_a_jpeg_cut_off_after_its_thumbnail_is_refused(tmp_path):
    path = tmp_path / "x.jpg"
    Image.fromarray(scene()).save(path, exif=b"Exif\0\0MM\0*\0\0\0\x08\0\0\0\0\0\0\xff\xd8\xff\xd9")
    data = path.read_bytes()
    read_rgb(path)
    path.write_bytes(data[:-40])
    with pytest.raises(InputError, match="cut off"):
        read_rgb(path)


def test_folders_missing_files_and_the_pixel_limit_are_refused_by_name(tmp_path):
    with pytest.raises(InputError, match="is a folder"):
        read_rgb(tmp_path)
    with pytest.raises(InputError, match=r"none\.png: no such file"):
        read_rgb(tmp_path / "none.png")
    Image.fromarray(scene()).save(tmp_path / "x.png")
    read_rgb(tmp_path / "x.png", max_pixels=600)
    with pytest.raises(InputError, match=r"x\.png: 20x30"):
        read_rgb(tmp_path / "x.png", max_pixels=599)


def test_limits_count_what_the_network_makes_of_an_image(tmp_path):
    """It pads both sides to multiples of 32, so a line of pixels costs as much as a strip."""
    for height, width, padded in ((33, 50_000, 3.201), (1, 65_500, 2.096), (50_000, 33, 3.201)):
        array = np.zeros((height, width), np.uint8)
        for path in (tmp_path / "x.png", tmp_path / "x.npy"):
            np.save(path, array) if path.suffix == ".npy" else Image.fromarray(array).save(path)
            with pytest.raises(InputError, match=rf"{height}x{width} is {padded} million.*padded"):
                read_thermal(path, max_pixels=2_000_000)
            assert read_thermal(path, max_pixels=3_300_000).shape == (height, width)
    Image.fromarray(np.zeros((1, 65_501), np.uint8)).save(tmp_path / "x.png")
    with pytest.raises(InputError, match="a side of more than 65500"):
        read_thermal(tmp_path / "x.png")


def test_an_array_file_that_would_run_code_is_not_loaded(tmp_path):
    np.save(tmp_path / "x.npy", np.full((4, 4), None, dtype=object))
    with pytest.raises(InputError, match=r"x\.npy"):
        read_thermal(tmp_path / "x.npy")


def test_random_damage_never_ends_in_anything_but_an_input_error(tmp_path):
    rng = np.random.default_rng(0)
    for suffix in (".png", ".jpg", ".bmp", ".ppm"):
        path = tmp_path / f"x{suffix}"
        Image.fromarray(scene()).save(path)
        whole = path.read_bytes()
        for _ in range(60):
            data = bytearray(whole)
            for place in rng.integers(0, min(len(data), 300), 4):
                data[place] = rng.integers(256)
            path.write_bytes(data)
            for read in (read_rgb, read_label, image_size):
                with contextlib.suppress(InputError):
                    read(path, max_pixels=10**6)


def test_rule_uint8_is_a_share_of_255_and_refuses_more_bits():
    raw = np.array([[0, 51, 255]], np.uint8)
    np.testing.assert_allclose(apply_thermal_rule(raw, ThermalRule()), [[0, 0.2, 1]], rtol=1e-6)
    with pytest.raises(InputError, match=r"frame 7.*7000 to 9000.*model\.thermal\.rule=range"):
        apply_thermal_rule(np.array([[7000, 9000]], np.uint16), ThermalRule(), "frame 7")


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_rule_range_clips_and_keeps_small_steps(dtype):
    rule = ThermalRule("range", 100, 150)
    raw = np.array([[20, 100, 101, 125, 150, 250]], dtype)
    found = apply_thermal_rule(raw, rule)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, [[0, 0, 0.02, 0.5, 1, 1]], rtol=1e-6)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_rule_percentile_is_that_of_numpy_over_the_whole_image(dtype):
    raw = np.random.default_rng(0).gamma(2, 30, (37, 41)).clip(0, 255).astype(dtype)
    low, high = np.percentile(raw, (2.5, 97))
    expected = ((raw.astype(np.float64) - low) / (high - low)).clip(0, 1)
    found = apply_thermal_rule(raw, ThermalRule("percentile", 2.5, 97))
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_rule_percentile_of_a_constant_image_is_zero():
    for dtype in (np.uint8, np.uint16, np.float32):
        found = apply_thermal_rule(np.full((5, 5), 30, dtype), ThermalRule("percentile", 1, 99))
        assert not found.any()


@needs_shared
def test_the_original_mfnet_files_hold_thermal_as_fourth_channel():
    for path in sorted((SHARED / "data" / "mfnet_raw").glob("*.png")):
        rgb, thermal, note = read_rgb_alone(path)
        assert rgb.shape == (480, 640, 3)
        assert thermal.shape == (480, 640)
        assert "taken as thermal" in note
