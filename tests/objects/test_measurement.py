"""What is said of an object: against a slow reading of the definitions, one object at a time."""

import math

import numpy as np
import pytest

from sartm.classes import Classes
from sartm.errors import InputError
from sartm.objects.measurement import Measuring, find_objects, measure_objects

CLASSES = Classes(("background", "car", "person"))


def measure(label, confidence, celsius=None, unseen=None, min_area=20, accuracy=2.0, edge=1.0):
    parts = find_objects(label, CLASSES, min_area)
    return measure_objects(parts, CLASSES, confidence, celsius, unseen, accuracy, edge)


def drawn(seed: int, size=(48, 64)):
    """Some rectangles of two classes, a confidence, and temperatures."""
    draw = np.random.default_rng(seed)
    label = np.zeros(size, np.uint8)
    for _ in range(12):
        top, left = draw.integers(0, size[0] - 4), draw.integers(0, size[1] - 4)
        height, width = draw.integers(1, 12, 2)
        label[top : top + height, left : left + width] = draw.integers(1, 3)
    celsius = draw.normal(15, 20, size).astype(np.float32)
    return label, draw.random(size).astype(np.float16), celsius


def slowly(label, confidence, celsius, seen, accuracy, edge):
    """Each object by itself, from the definitions."""
    ndimage = pytest.importorskip("scipy.ndimage", reason="SciPy is the oracle")
    eight = np.ones((3, 3))
    found, order = [], []
    for id_ in (1, 2):
        numbers, count = ndimage.label(label == id_, eight)
        away = ndimage.distance_transform_edt(label != id_)
        for number in range(1, count + 1):
            mask = numbers == number
            own = ndimage.distance_transform_edt(~mask)
            values = celsius[mask & seen].astype(np.float64)
            mean = values.mean()
            near = (own == away) & (label != id_) & seen  # no other of its class is nearer
            outline = mask & ~ndimage.binary_erosion(mask, eight, border_value=1)
            deep = (
                ndimage.distance_transform_edt(~outline) if outline.any() else np.full_like(own, 99)
            )
            inner = celsius[mask & seen & (deep > edge - 0.5)]
            outer = celsius[(mask & seen) | (near & (own < edge + 0.5))]
            ring = celsius[near & (own > 2.1) & (own <= 5.9)]  # the library's distance is rounded
            wider = abs(mean - outer.mean())
            both = wider + (abs(mean - inner.mean()) if inner.size else wider)
            rows, columns = np.nonzero(mask)
            order.append((id_, rows.min(), columns.min()))
            camera = accuracy * max(1, abs(mean) / 100)
            found.append((mask, values, mean, ring, np.hypot(camera, both)))
    return [found[place] for place in sorted(range(len(found)), key=order.__getitem__)]


@pytest.mark.parametrize(("seed", "edge"), [(0, 1), (1, 1), (2, 3), (3, 3), (4, 8)])
def test_every_figure_is_that_of_its_definition(seed, edge):
    label, confidence, celsius = drawn(seed, (48, 64) if edge == 1 else (96, 128))
    unseen = np.random.default_rng(seed + 100).random(label.shape) < 0.1
    rows = measure(label, confidence, celsius, unseen, min_area=9, accuracy=1.5, edge=edge)
    expected = [one for one in slowly(label, confidence, celsius, ~unseen, 1.5, edge)
                if one[0].sum() >= 9]  # fmt: skip
    assert len(rows) == len(expected) > 3
    shared = 0
    for number, (row, (mask, values, mean, ring, error)) in enumerate(
        zip(rows, expected, strict=True), 1
    ):
        assert (row["id"], row["area"]) == (number, mask.sum())
        assert row["class"] == CLASSES.names[label[mask][0]]
        rows_, columns = np.nonzero(mask)
        box = (columns.min(), rows_.min(), np.ptp(columns) + 1, np.ptp(rows_) + 1)
        assert (row["left"], row["top"], row["width"], row["height"]) == box
        assert (row["x"], row["y"]) == pytest.approx((columns.mean(), rows_.mean()), abs=0.006)
        assert row["confidence"] == pytest.approx(confidence[mask].mean(dtype=float), abs=1e-4)
        assert row["lowest_confidence"] == pytest.approx(float(confidence[mask].min()), abs=1e-4)
        for name, share in (("min", 0), ("p5", 5), ("median", 50), ("p95", 95), ("max", 100)):
            found = row[f"celsius_{name}"]
            assert found == pytest.approx(np.percentile(values, share), abs=0.006), name
        assert row["celsius_mean"] == pytest.approx(mean, abs=0.006)
        hottest = celsius[row["hottest_y"], row["hottest_x"]]
        assert hottest == values.max()
        if ring.size > 20:
            assert row["contrast"] == pytest.approx(mean - ring.mean(), abs=4)
        shared += row["celsius_error"] == pytest.approx(error, abs=0.02)
    # A pixel as near to two objects of a class goes to one of them.
    assert shared >= 0.7 * len(rows)


def test_a_warm_square_on_cold_ground_is_read_exactly():
    label = np.zeros((40, 40), np.uint8)
    label[15:25, 15:25] = 2
    celsius = np.full((40, 40), 10, np.float32)
    celsius[15:25, 15:25] = 36.5
    (row,) = measure(label, np.ones((40, 40), np.float16), celsius)
    assert (row["celsius_min"], row["celsius_max"], row["contrast"]) == (36.5, 36.5, 26.5)
    assert row["class"] == "person"
    larger = (36.5 * 100 + 10 * 44) / 144  # one pixel more around it
    assert row["celsius_error"] == pytest.approx(math.hypot(2, 36.5 - larger), abs=0.01)


def test_an_outline_that_is_right_to_three_pixels_widens_the_error_bar_by_both_its_sides():
    """A cold rim of two pixels around a warm middle, on ground of 10 degrees."""
    label, celsius = np.zeros((40, 40), np.uint8), np.full((40, 40), 10, np.float32)
    label[14:26, 14:26] = 2
    celsius[14:26, 14:26], celsius[16:24, 16:24] = 22, 40
    (row,) = measure(label, np.ones((40, 40)), celsius, accuracy=0.5, edge=3)
    mean = (64 * 40 + 80 * 22) / 144
    inner = 40 - mean  # without three pixels: 6 x 6, all warm
    # Three rows on each of four sides, and in each corner the 6 pixels nearer than 3.5.
    outer = mean - (144 * mean + (4 * 12 * 3 + 4 * 6) * 10) / (144 + 168)
    assert row["celsius_mean"] == 30
    assert row["celsius_error"] == pytest.approx(math.hypot(0.5, inner + outer), abs=0.01)
    thin = measure(label[:, 11:17], np.ones((40, 6)), celsius[:, 11:17], accuracy=0, edge=3)
    assert thin[0]["celsius_error"] > 0  # nothing of it is sure


def test_a_per_cent_of_hot_things_is_more_than_the_degrees():
    label = np.full((20, 20), 1, np.uint8)
    celsius = np.full((20, 20), 300, np.float32)
    (row,) = measure(label, np.ones((20, 20)), celsius)
    assert row["celsius_error"] == 6
    assert row["contrast"] is None  # nothing is around it


def test_what_was_not_measured_has_no_degrees_and_does_not_count():
    label = np.zeros((20, 30), np.uint8)
    label[2:8, 2:8] = label[2:8, 20:26] = 1
    celsius = np.full((20, 30), 20, np.float32)
    celsius[2, 2] = np.nan
    celsius[2:8, 20:26] = -9999
    unseen = celsius == -9999
    first, second = measure(label, np.ones((20, 30)), celsius, unseen)
    assert (first["celsius_mean"], first["contrast"]) == (20, 0)
    assert {second[name] for name in second if "celsius" in name or "hot" in name} == {None}
    assert second["area"] == 36
    for row in measure(label, np.ones((20, 30))):
        assert row["celsius_mean"] is row["contrast"] is None


def test_degrees_below_zero_are_in_order():
    label = np.full((3, 3), 1, np.uint8)
    celsius = np.array([[-40, -5, 0], [0.5, 3, -0.25], [7, 8, 9]], np.float32)
    (row,) = measure(label, np.ones((3, 3)), celsius, min_area=1)
    assert (row["celsius_min"], row["celsius_median"], row["celsius_max"]) == (-40, 0.5, 9)


def test_ten_thousand_objects_are_all_there():
    label = np.zeros((700, 700), np.uint8)
    for top in range(2, 7):
        for left in range(2, 7):
            label[top::7, left::7] = 1
    label[:7] = label[:, :7] = 0
    draw = np.random.default_rng(0)
    rows = measure(label, draw.random(label.shape), draw.normal(20, 3, label.shape))
    assert len(rows) == 99 * 99
    assert len({row["id"] for row in rows}) == len(rows)


@pytest.mark.parametrize("wrong", [{"min_area": 0}, {"accuracy": -1}, {"accuracy": float("nan")}])
def test_settings_without_sense_are_refused(wrong):
    with pytest.raises(InputError, match="give"):
        Measuring(**wrong)
