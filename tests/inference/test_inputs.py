"""Python callers are held to what files are held to: the same pixels, or the same refusal."""

import copy
from pathlib import Path

import numpy as np
import pytest
from conftest import TINY, build
from PIL import Image

from sartm.data.pairs import Sample
from sartm.errors import InputError
from sartm.inference.predictor import Predictor
from sartm.inference.tiles import Tiling

RGB = np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8)
HEAT = np.random.default_rng(1).integers(0, 256, (64, 96), np.uint8)


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return Predictor(build(TINY).eval(), device="cpu", precision="fp32")


def broken(value: float) -> np.ndarray:
    heat = HEAT.astype(np.float32)
    heat[3, 4] = value
    return heat


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_one_value_that_is_no_number_is_refused(predictor: Predictor, value: float) -> None:
    heat = broken(value)
    for call in (
        lambda: predictor(RGB, heat),
        lambda: predictor(None, heat),
        lambda: predictor(RGB, Image.fromarray(heat)),
        lambda: predictor.predict(Sample("x", RGB, heat)),
        lambda: predictor.predict_batch([Sample("x", RGB, HEAT), Sample("x", RGB, heat)]),
        lambda: predictor.inputs(Sample("x", RGB, heat)),
    ):
        with pytest.raises(InputError, match="1 of 6144 thermal values are NaN"):
            call()


def test_a_large_image_is_held_to_the_same() -> None:
    model = build(TINY).eval()
    predictor = Predictor(model, device="cpu", tiling=Tiling(above=1000, side=64, overlap=32))
    with pytest.raises(InputError, match="NaN"):
        predictor.predict(Sample("x", RGB, broken(np.nan)))


@pytest.mark.parametrize(
    ("rgb", "thermal", "message"),
    [
        (RGB[:0], HEAT[:0], "no pixels"),
        (RGB[:, :0], None, "no pixels"),
        (None, HEAT[5:5], "no pixels"),
        (RGB / 255, HEAT, "float64"),
        (RGB.astype(np.int32), HEAT, "int32"),
        (RGB[..., 0], HEAT, r"\(64, 96\) uint8"),
        (RGB, HEAT.astype(complex), "complex128"),
        (RGB, HEAT.astype(object), "object"),
        (RGB, HEAT[..., None], r"\(64, 96, 1\)"),
        (RGB, HEAT[:32], "RGB is 64x96 but thermal is 32x96"),
        (RGB, HEAT.T, "turned by a quarter"),
        (None, None, "neither|no input"),
    ],
)
def test_what_is_no_pair_is_refused_by_what_it_is(
    predictor: Predictor, rgb: np.ndarray, thermal: np.ndarray, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        predictor(rgb, thermal)
    with pytest.raises(InputError, match=message):
        predictor.predict(Sample("x", rgb, thermal))


@pytest.mark.filterwarnings("error")
def test_views_and_locked_arrays_are_labelled_as_their_copies(predictor: Predictor) -> None:
    locked = RGB.copy()
    locked.setflags(write=False)
    for rgb, heat in ((RGB[:, ::-1], HEAT[:, ::-1]), (RGB[::2], HEAT[::2]), (locked, HEAT)):
        found = predictor(rgb, heat)
        assert np.array_equal(found.labels, predictor(rgb.copy(), heat.copy()).labels)


def test_a_number_type_that_files_make_floats_of_is_the_same_pair(predictor: Predictor) -> None:
    heat = np.random.default_rng(2).random((64, 96)).astype(np.float32)
    config = predictor.config
    assert config.thermal.rule == "uint8"
    strict = copy.copy(predictor)
    strict.thermal_range = "model"
    for raw, same in (
        (heat, heat), (heat.astype(np.float64), heat),
        (HEAT.astype(np.int64), HEAT.astype(np.float32)),
    ):  # fmt: skip
        with pytest.raises(InputError, match="thermal rule is uint8"):
            strict(RGB, raw)
        found, expected = predictor(RGB, raw), predictor(RGB, same)
        assert found.levels == expected.levels
        assert np.array_equal(found.labels, expected.labels)


@pytest.mark.parametrize("mode", ["P", "RGBA", "L", "LA", "1", "CMYK"])
@pytest.mark.parametrize("orientation", [1, 8])
def test_a_path_and_its_opened_image_are_one_input(
    predictor: Predictor, mode: str, orientation: int, tmp_path: Path
) -> None:
    y, x = np.mgrid[:64, :96]
    colour = np.dstack([2 * y, 2 * x, y + x]).astype(np.uint8)
    image = Image.fromarray(colour)
    image = image.quantize(32) if mode == "P" else image.convert(mode)
    path = tmp_path / ("x.jpg" if mode == "CMYK" else "x.png")
    exif = Image.Exif()
    exif[274] = orientation
    image.save(path, exif=exif)
    by_path = predictor(path, None)
    with Image.open(path) as opened:
        by_image = predictor(opened, None)
    assert by_path.labels.shape == ((64, 96) if orientation == 1 else (96, 64))
    assert np.array_equal(by_image.image, by_path.image)
    assert np.array_equal(by_image.labels, by_path.labels)
