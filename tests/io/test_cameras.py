"""Thermal cameras: radiometric JPEG, borders, dead pixels, and one field in three number types."""

import struct
from dataclasses import replace

import cv2
import numpy as np
import pytest
from conftest import TINY, build
from draw_flir import CALIBRATION, counts_of, field, write_flir

from sartm.config import ThermalRule
from sartm.data.pairs import PairDataset, read_pair
from sartm.data.sets import Pair
from sartm.errors import InputError
from sartm.inference.predictor import Predictor
from sartm.io.cameras import (
    Camera,
    border_bands,
    dead_pixels,
    enhance_display,
    read_raw,
    repair_thermal,
)
from sartm.io.decode import read_rgb, read_thermal
from sartm.io.flir import read_radiometric, to_celsius
from sartm.io.holes import fill_holes


@pytest.mark.parametrize("kind", ["png little", "png big", "tiff", "plain"])
@pytest.mark.parametrize("order", ["<", ">"])
def test_a_radiometric_jpeg_gives_the_temperatures_it_was_made_from(tmp_path, kind, order):
    path = write_flir(tmp_path / "a.jpg", counts_of(field()), kind, order=order)
    celsius = read_radiometric(path)
    assert celsius.dtype == np.float32
    assert np.abs(celsius - field()).max() < 0.05  # one count is about 0.03 degrees


def test_a_mirror_like_surface_is_hotter_than_it_looks():
    """Emissivity, reflection and air are worth degrees; without them a black body is exact."""
    counts = counts_of(field(), replace(CALIBRATION, emissivity=0.6))
    as_stored = to_celsius(counts, replace(CALIBRATION, emissivity=0.6))
    assert np.abs(as_stored - field()).max() < 0.08
    assert np.abs(to_celsius(counts, CALIBRATION) - field()).max() > 3


def test_counts_below_every_temperature_do_not_become_nan():
    celsius = to_celsius(np.array([[0, 14000, 15000]], np.uint16), CALIBRATION)
    assert np.isfinite(celsius).all()
    assert celsius[0, 2] > celsius[0, 1] == celsius[0, 0]


def test_files_without_or_with_damaged_flir_data_are_refused_with_a_remedy(tmp_path):
    whole = write_flir(tmp_path / "a.jpg", counts_of(field())).read_bytes()
    picture = tmp_path / "picture.jpg"
    cv2.imwrite(str(picture), np.zeros((8, 8, 3), np.uint8))
    with pytest.raises(InputError, match="raw data are missing"):
        read_radiometric(picture)
    with pytest.raises(InputError, match="check the path"):
        read_radiometric(tmp_path / "none.jpg")
    with pytest.raises(InputError, match="limit"):
        read_radiometric(write_flir(tmp_path / "b.jpg", counts_of(field())), max_pixels=100)
    odd = write_flir(
        tmp_path / "odd.jpg", counts_of(field()), calibration=replace(CALIBRATION, emissivity=0.0)
    )
    with pytest.raises(InputError, match="emissivity 0"):
        read_radiometric(odd)
    damaged = tmp_path / "damaged.jpg"
    last = whole.rindex(b"FLIR\0\x01")  # what comes after is the picture, which nobody needs
    for end in range(40, last, last // 60):
        damaged.write_bytes(whole[:end])
        with pytest.raises(InputError):
            read_radiometric(damaged)


def test_random_damage_costs_a_message_and_never_a_crash(tmp_path):
    whole = write_flir(tmp_path / "a.jpg", counts_of(field())).read_bytes()
    draw = np.random.default_rng(5)
    path, outcomes = tmp_path / "b.jpg", set()
    for _ in range(150):
        broken = bytearray(whole)
        for place in draw.integers(0, min(len(whole), 300), 4):
            broken[place] = int(draw.integers(256))
        path.write_bytes(broken)
        try:
            outcomes.add("read" if np.isfinite(read_radiometric(path)).all() else "not finite")
        except InputError as error:
            outcomes.add("named" if str(path) in str(error) else "which file?")
    assert "named" in outcomes
    assert outcomes <= {"read", "named"}


def test_a_pair_and_a_data_set_in_celsius_read_radiometric_files(tmp_path):
    rgb = tmp_path / "rgb.png"
    cv2.imwrite(str(rgb), np.zeros((48, 64, 3), np.uint8))
    pair = Pair("a", rgb, write_flir(tmp_path / "a.jpg", counts_of(field())))
    with pytest.raises(InputError, match="false colour"):
        read_pair(pair)
    sample = read_pair(pair, camera=Camera(radiometric=True))
    assert np.abs(sample.thermal - field()).max() < 0.05
    of_set = PairDataset([pair], TINY.classes, thermal_unit="celsius")[0]
    assert np.array_equal(of_set.thermal, sample.thermal)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_bands_and_dead_pixels_are_filled_and_nothing_else_changes(dtype):
    scale = {np.uint8: 5, np.uint16: 100, np.float32: 1}[dtype]
    clean = (field() * scale + (0 if dtype is np.float32 else 0.5)).astype(dtype)
    broken = clean.copy()
    broken[:3] = 0
    broken[:, -5:] = 0
    dead = [(20, 20), (40, 8), (15, 58), (3, 0), (47, 30)]
    for index, place in enumerate(dead):
        broken[place] = 0 if index % 2 else scale * 50
    assert border_bands(broken) == (3, 0, 0, 5)
    mended = repair_thermal(broken)
    assert mended.dtype == dtype
    kept = np.ones(clean.shape, bool)
    kept[:3], kept[:, -5:] = False, False
    for place in dead:
        kept[place] = False
    assert np.array_equal(mended[kept], clean[kept])
    difference = np.abs(mended.astype(float) - clean) / scale
    assert difference[3:, :-5].max() < 1.5  # degrees
    assert difference.max() < 4
    assert np.array_equal(repair_thermal(clean), clean)


def test_holes_take_the_nearest_measured_value_and_nothing_else_changes():
    counts = counts_of(field()).astype(np.uint16)
    holed = counts.copy()
    holed[:4] = holed[:, -6:] = holed[20:23, 30:33] = 0
    filled = fill_holes(holed, 0)
    assert filled.dtype == np.uint16
    assert np.array_equal(filled[holed > 0], counts[holed > 0])
    assert np.array_equal(filled[:4, :50], np.tile(counts[4, :50], (4, 1)))
    assert np.array_equal(filled[30:, -6:], np.tile(counts[30:, [57]], (1, 6)))
    assert filled[21, 30] == counts[21, 29]
    nothing = np.zeros((5, 5), np.uint16)
    assert np.array_equal(fill_holes(nothing, 0), nothing)


def test_what_belongs_to_the_scene_is_not_repaired():
    sky = field()
    sky[:20] = 0.0  # clipped: far more than an eighth
    assert border_bands(sky) == (0, 0, 0, 0)
    assert border_bands(np.full((9, 9), 3)) == (0, 0, 0, 0)
    person = field()
    person[30:32, 50:51] = 60.0  # two pixels are an object
    assert not dead_pixels(person).any()
    noise = np.random.default_rng(0).normal(size=(60, 60)).astype(np.float32)
    assert np.array_equal(repair_thermal(noise), noise)


def test_black_hot_files_are_turned_and_display_contrast_grows(tmp_path):
    grey = (field() * 5).astype(np.uint8)
    path = tmp_path / "a.png"
    cv2.imwrite(str(path), 255 - grey)
    sample = read_pair(Pair("a", None, path), camera=Camera(black_hot=True))
    assert np.array_equal(sample.thermal, grey)
    assert np.array_equal(read_thermal(path), 255 - grey)
    flat = (100 + field() / 4).astype(np.uint8)
    assert np.ptp(enhance_display(flat)) > 1.5 * np.ptp(flat)


def test_one_field_as_counts_degrees_and_8_bit_gives_the_same_labels():
    """The fixed range is what makes them equal: a range per image would not."""
    celsius = field(96, 128)
    forms = {
        "celsius": (celsius.astype(np.float32), ThermalRule("range", 0.0, 50.0)),
        "counts": (
            np.rint((celsius + 273.15) * 100).astype(np.uint16),
            ThermalRule("range", 27315.0, 32315.0),
        ),
        "display": (np.rint(celsius * 5.1).astype(np.uint8), ThermalRule("range", 0.0, 255.0)),
        "uint8": (np.rint(celsius * 5.1).astype(np.uint8), ThermalRule("uint8")),
    }
    rgb = np.random.default_rng(2).integers(0, 256, (96, 128, 3), np.uint8)
    labels = {}
    for name, (thermal, rule) in forms.items():
        predictor = Predictor(build(replace(TINY, thermal=rule)), device="cpu", precision="fp32")
        labels[name] = [predictor(rgb, thermal).labels, predictor(None, thermal).labels]
    for found in labels.values():
        for ours, theirs in zip(found, labels["celsius"], strict=True):
            assert (ours != theirs).mean() <= 0.01
    assert len(np.unique(labels["celsius"][1])) > 1


# --- DJI R-JPEG ----------------------------------------------------------------------------------


def r_jpeg(make: bytes = b"DJI\0", raw: int = 40_000) -> bytes:
    """A grey JPEG with EXIF that names the maker, and the maker's data in APP3 segments."""
    grey = np.tile(np.arange(64, dtype=np.uint8), (48, 1))
    picture = cv2.imencode(".jpg", cv2.merge([grey] * 3))[1].tobytes()

    def segment(marker: int, body: bytes) -> bytes:
        return bytes([0xFF, marker]) + (len(body) + 2).to_bytes(2, "big") + body

    tags = struct.pack("<HHHI4sI", 1, 0x010F, 2, 4, make, 0)
    exif = b"Exif\0\0II*\0" + struct.pack("<I", 8) + tags
    parts = [segment(0xE1, exif), segment(0xE3, bytes(raw)), segment(0xE3, bytes(raw))]
    return picture[:2] + b"".join(parts) + picture[2:]


@pytest.mark.parametrize("radiometric", [False, True])
def test_a_dji_r_jpeg_is_never_taken_for_grey_and_says_how_to_convert_it(radiometric, tmp_path):
    (tmp_path / "DJI_0001_T.JPG").write_bytes(r_jpeg())
    with pytest.raises(InputError, match="dji_irp") as raised:
        read_raw(tmp_path / "DJI_0001_T.JPG", Camera(radiometric=radiometric))
    assert "camera-to-table" in str(raised.value)
    assert read_rgb(tmp_path / "DJI_0001_T.JPG").shape == (48, 64, 3)  # as a picture it is one


@pytest.mark.parametrize(("make", "raw"), [(b"CAM\0", 40_000), (b"DJI\0", 10)])
def test_other_cameras_and_plain_pictures_of_dji_are_read(make, raw, tmp_path):
    (tmp_path / "a.jpg").write_bytes(r_jpeg(make, raw))
    assert read_raw(tmp_path / "a.jpg", Camera()).shape == (48, 64)
