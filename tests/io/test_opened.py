"""A PIL image or an array gives the pixels that its file gives, or the same refusal."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sartm.errors import InputError
from sartm.io.decode import read_rgb, read_thermal
from sartm.io.opened import take_rgb, take_thermal

SIZE = (20, 30)


def smooth(seed: int) -> np.ndarray:
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    return (120 + 90 * np.sin(x / (4 + seed)) + 40 * np.cos(y / (3 + seed))).clip(0, 255)


def picture(mode: str) -> Image.Image:
    colour = np.stack([smooth(seed) for seed in range(4)], axis=2).astype(np.uint8)
    grey = Image.fromarray(colour[..., 0])
    if mode == "P":
        return Image.fromarray(colour[..., :3]).quantize(16)
    if mode == "P grey":
        return grey.convert("P")
    if mode == "CMYK":
        return Image.frombytes("CMYK", SIZE[::-1], colour.tobytes())
    if mode == "I;16":
        return Image.fromarray(29_000 + colour[..., 0].astype(np.uint16))
    if mode == "F":
        return Image.fromarray(colour[..., 0].astype(np.float32) / 7 - 10)
    if mode in ("RGB", "RGBA"):
        return Image.fromarray(colour[..., : len(mode)])
    if mode == "RGB grey":
        return grey.convert("RGB")
    if mode == "RGBA grey":
        image = grey.convert("RGB")
        image.putalpha(Image.fromarray(colour[..., 3]))
        return image
    return grey.convert(mode)


CASES = [
    ("RGB", "png"), ("RGB", "jpg"), ("RGB", "bmp"), ("RGB", "tiff"), ("RGBA", "png"),
    ("RGBA", "tiff"), ("L", "png"), ("L", "jpg"), ("LA", "png"), ("P", "png"), ("P", "tiff"),
    ("P", "bmp"), ("1", "png"), ("1", "tiff"), ("1", "bmp"), ("I;16", "png"), ("I;16", "tiff"),
    ("I;16", "ppm"), ("CMYK", "jpg"),
]  # fmt: skip
THERMAL = [
    ("L", "png"), ("L", "jpg"), ("LA", "png"), ("1", "png"), ("I;16", "png"), ("I;16", "tiff"),
    ("I;16", "ppm"), ("F", "tiff"), ("P grey", "png"), ("RGB grey", "png"), ("RGBA grey", "png"),
]  # fmt: skip


@pytest.mark.parametrize(("mode", "suffix"), CASES)
@pytest.mark.parametrize("orientation", [1, 6])
def test_an_opened_image_is_the_file_it_comes_from(
    mode: str, suffix: str, orientation: int, tmp_path: Path
) -> None:
    path = save(picture(mode), tmp_path / f"x.{suffix}", orientation)
    expected = read_rgb(path)
    with Image.open(path) as image:
        found = take_rgb(image, "rgb")
    assert found.dtype == np.uint8
    assert np.array_equal(found, expected)
    if orientation == 6 and suffix in ("png", "jpg", "tiff"):
        assert found.shape == (SIZE[1], SIZE[0], 3)


@pytest.mark.parametrize(("mode", "suffix"), THERMAL)
@pytest.mark.parametrize("orientation", [1, 6])
def test_an_opened_thermal_image_keeps_its_raw_values(
    mode: str, suffix: str, orientation: int, tmp_path: Path
) -> None:
    path = save(picture(mode), tmp_path / f"x.{suffix}", orientation)
    expected = read_thermal(path)
    with Image.open(path) as image:
        found = take_thermal(image, "thermal")
    assert found.dtype == expected.dtype
    assert np.array_equal(found, expected)


def save(image: Image.Image, path: Path, orientation: int) -> Path:
    exif = Image.Exif()
    exif[274] = orientation
    options = {} if path.suffix in (".bmp", ".ppm") else {"exif": exif.tobytes()}
    if path.suffix == ".tiff":  # plain ones that are turned, Pillow 12 maps with sides exchanged
        options["compression"] = "tiff_lzw"
    image.save(path, **options)
    return path


def test_an_image_made_in_memory_needs_no_file() -> None:
    grey = np.arange(256, dtype=np.uint8).reshape(16, 16)
    assert np.array_equal(take_thermal(Image.fromarray(grey), "t"), grey)
    assert np.array_equal(take_rgb(Image.fromarray(grey), "v")[..., 1], grey)


def test_false_colour_and_floats_are_refused_as_in_files() -> None:
    with pytest.raises(InputError, match="false colour"):
        take_thermal(picture("RGB"), "t")
    with pytest.raises(InputError, match="false colour"):
        take_thermal(picture("P"), "t")
    with pytest.raises(InputError, match="float32"):
        take_rgb(picture("F"), "v")


def test_an_image_whose_file_is_cut_off_is_named(tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 90, 3), np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:9000])
    with Image.open(path) as image, pytest.raises(InputError, match=r"rgb: .*decoded"):
        take_rgb(image, "rgb")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_no_number_is_counted(value: float) -> None:
    raw = np.ones((4, 6))
    raw[1, 2] = value
    for image in (raw, raw.astype(np.float32), raw.astype(np.float16), Image.fromarray(raw)):
        with pytest.raises(InputError, match="1 of 24 thermal values"):
            take_thermal(image, "thermal")


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (">u2", "uint16"), ("<u2", "uint16"), ("u1", "uint8"), (">f4", "float32"),
        ("f8", "float32"), ("f2", "float32"), ("i4", "float32"), ("i2", "float32"),
        ("u4", "float32"), ("?", "float32"),
    ],
)  # fmt: skip
def test_arrays_of_numbers_keep_their_values(kind: str, expected: str) -> None:
    raw = (np.arange(24) % 2 if kind == "?" else np.arange(24)).reshape(4, 6).astype(kind)
    raw.setflags(write=False)
    for view in (raw, raw[:, ::-1], raw.T, raw[::2, 1:]):
        found = take_thermal(view, "thermal")
        assert found.dtype == np.dtype(expected)
        assert found.flags.c_contiguous
        assert np.array_equal(found, view)


@pytest.mark.parametrize("kind", ["c8", "O", "U3", "S2", "M8[s]"])
def test_arrays_of_what_are_no_numbers_are_refused_by_their_type(kind: str) -> None:
    with pytest.raises(InputError, match="thermal is an array of"):
        take_thermal(np.zeros((4, 6)).astype(kind), "thermal")


@pytest.mark.parametrize("shape", [(0, 6), (4, 0), (0, 0)])
def test_an_empty_crop_is_said(shape: tuple[int, int]) -> None:
    with pytest.raises(InputError, match="no pixels"):
        take_thermal(np.zeros(shape, np.uint16), "thermal")
    with pytest.raises(InputError, match="no pixels"):
        take_rgb(np.zeros((*shape, 3), np.uint8), "rgb")
    with pytest.raises(InputError, match="no pixels"):
        take_rgb(Image.new("RGB", shape), "rgb")


@pytest.mark.parametrize(
    "image",
    [np.zeros((4, 6, 3), np.float32), np.zeros((4, 6), np.uint8), np.zeros((4, 6, 4), np.uint8)],
)
def test_other_arrays_than_rgb_are_refused_by_shape_and_type(image: np.ndarray) -> None:
    with pytest.raises(InputError, match=r"rgb must be \(H, W, 3\) uint8, found \(4, 6"):
        take_rgb(image, "rgb")
