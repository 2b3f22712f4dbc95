"""Which raw thermal values become black and white at prediction, in images and over time."""

import numpy as np
import pytest

from sartm.config import ThermalRule
from sartm.data.pairs import Sample
from sartm.errors import InputError
from sartm.inference.slow_levels import SlowLevels
from sartm.io.cameras import invert_thermal
from sartm.io.thermal import (
    choose_levels,
    describe_levels,
    format_range,
    read_range,
    scale_thermal,
    stretch_levels,
)

UINT8 = ThermalRule()


def scene(seed=0, low=29000, high=31000, shape=(60, 80)):
    return np.random.default_rng(seed).integers(low, high, shape, np.uint16)


@pytest.mark.parametrize("text", ["auto", "model", "15:40", "-20:0.5", "28000:31000"])
def test_what_is_read_is_written_again(text):
    assert format_range(read_range(text)) == text


@pytest.mark.parametrize(
    "text", ["", "5", "40:15", "3:3", "1:2:3", "a:b", "nan:5", "0:inf", "Auto"]
)
def test_what_is_no_range_is_refused(text):
    with pytest.raises(InputError, match="auto, model, or LOW:HIGH"):
        read_range(text)


def test_a_model_keeps_its_rule_for_what_it_takes():
    grey = np.arange(256, dtype=np.uint8).reshape(16, 16)
    assert choose_levels(grey, UINT8, "auto") == (0, 255)
    assert choose_levels(grey, UINT8, (10, 20)) == (10, 20)
    counts = ThermalRule("range", 27000, 32000)
    assert choose_levels(scene(), counts, "auto") == (27000, 32000)
    with pytest.raises(InputError, match=r"uint16 thermal values .* --thermal-range auto"):
        choose_levels(scene(), UINT8, "model", "x")


@pytest.mark.parametrize(
    ("kind", "mark"),
    [
        *((kind, mark) for kind in (np.uint16, np.float32) for mark in (0, 65535)),
        (np.float32, -9999),
        (np.float32, -32768),
        (np.float32, -3.4e38),
    ],
)
def test_what_was_not_measured_does_not_count(kind, mark):
    raw = scene().astype(kind)
    plain = stretch_levels(raw)
    assert 29000 < plain[0] < 29100 < 30900 < plain[1] < 31000
    holed = raw.copy()
    holed[:20] = mark  # a third of the image, of which nobody said that it is no measurement
    low, high = stretch_levels(holed)
    assert low == pytest.approx(plain[0], abs=30)
    assert high == pytest.approx(plain[1], abs=30)
    holed[:20] = 30500  # filled, and said so
    unseen = np.zeros(raw.shape, bool)
    unseen[:20] = True
    assert stretch_levels(holed, unseen) == pytest.approx(plain, abs=30)


def test_a_warm_thing_on_an_even_ground_is_seen():
    """Where both percentiles meet, all of the image counts."""
    raw = np.full((100, 100), 21.0, np.float32)
    raw[0, :5] = 36
    raw[1, 0] = 30
    assert stretch_levels(raw) == (21.0, 36.0)
    assert (
        scale_thermal(np.full((4, 4), 7, np.uint16), stretch_levels(np.full((4, 4), 7))).max() < 1
    )


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.float32])
def test_a_range_counts_in_the_values_of_a_black_hot_file(kind):
    file = np.linspace(10, 250, 48).reshape(6, 8).astype(kind)
    raw = invert_thermal(file)
    levels = choose_levels(raw, UINT8, (60, 160), black_hot=True)
    scaled = scale_thermal(raw, levels)
    np.testing.assert_allclose(scaled, 1 - scale_thermal(file, (60, 160)), atol=1e-5)
    used = describe_levels(levels, raw, UINT8, (60, 160), black_hot=True)
    assert (used.low, used.high, used.by) == (60, 160, "option")
    assert used.unit == {1: "display", 2: "counts", 4: "values"}[raw.itemsize]


# --- films ---------------------------------------------------------------------------------------


def follow(frames, rate=25.0):
    levels = SlowLevels(UINT8, "auto")
    return np.array([levels.fix(Sample("f", None, frame), index / rate).levels
                     for index, frame in enumerate(frames)])  # fmt: skip


def hot(frame, value, rows=20):
    frame = frame.copy()
    frame[:rows] = value
    return frame


def test_a_film_does_not_flicker_when_something_hot_blinks():
    """Each image's own percentiles would jump by four times their width."""
    frames = [hot(scene(i), 40000) if i // 2 % 2 else scene(i) for i in range(100)]
    found = follow(frames)
    width = found[:, 1] - found[:, 0]
    steps = np.abs(np.diff(found, axis=0)).max(1) / width[1:]
    assert steps.max() <= 0.021
    own = np.array([stretch_levels(frame) for frame in frames])
    assert (np.abs(np.diff(own, axis=0)).max(1) / width[1:]).max() > 1


def test_a_film_follows_a_drift():
    frames = [scene(i, 29000 + 10 * i, 31000 + 10 * i) for i in range(400)]
    found = follow(frames)
    assert found[-1, 0] > 30500  # the last frame begins at 33000, the first at 29000
    assert np.all(np.diff(found[50:, 1]) > 0)


def test_a_frame_that_is_no_numbers_is_refused_and_pulls_nothing():
    levels = SlowLevels(UINT8, "auto")
    good = scene().astype(np.float32)
    bad = good.copy()
    bad[0, :3] = np.nan
    for moment in (0, 2):
        with pytest.raises(InputError, match="frame f: thermal holds NaN"):
            levels.fix(Sample("f", None, bad), moment)
        found = levels.fix(Sample("f", None, good), moment + 1).levels
        assert found == pytest.approx(stretch_levels(good))


def test_a_closed_shutter_pulls_nothing_and_another_scene_begins_anew_once():
    shutter = [np.full((60, 80), 30200, np.uint16)] * 12  # half a second
    frames = [scene(i) for i in range(20)] + shutter + [scene(i) for i in range(20)]
    found = follow(frames)
    assert np.abs(found - found[0]).max() < 30
    frames = [scene(i) for i in range(20)] + [scene(i, 9000, 9400) for i in range(60)]
    found = follow(frames)
    jumps = np.flatnonzero(np.abs(np.diff(found, axis=0)).max(1) > 100)
    assert len(jumps) == 1
    assert 40 <= jumps[0] <= 50  # a second after it changed
    assert found[-1] == pytest.approx((9004, 9399), abs=8)


def test_films_that_the_rule_takes_and_fixed_ranges_stay_as_they_are():
    grey = np.arange(256, dtype=np.uint8).reshape(16, 16)
    assert SlowLevels(UINT8, "auto").fix(Sample("f", None, grey), 0.0).levels == (0, 255)
    fixed = SlowLevels(UINT8, (28000.0, 32000.0))
    assert [fixed.fix(Sample("f", None, scene(i)), i).levels for i in range(3)] == [
        (28000, 32000)
    ] * 3
    assert fixed.used["last"].by == "option"
    with pytest.raises(InputError, match="frame f"):
        SlowLevels(UINT8, "model").fix(Sample("f", None, scene()), 0.0)
