"""Connected parts of label maps: what hangs together, against another library."""

import numpy as np
import pytest

from sartm.objects.parts import find_parts


def test_parts_are_what_hangs_together():
    label = np.zeros((10, 10), np.uint8)
    label[1:3, 1:3] = label[5:9, 5:9] = 2
    label[3, 3] = 2  # at a corner
    label[9, 0] = 1
    parts = find_parts(label, (1, 2))
    assert parts.ids.tolist() == [1, 2, 2]
    assert parts.areas.tolist() == [1, 5, 16]
    assert parts.boxes.tolist() == [[0, 9, 1, 1], [1, 1, 3, 3], [5, 5, 4, 4]]
    assert parts.centres.tolist() == [[0, 9], [1.8, 1.8], [6.5, 6.5]]
    assert find_parts(label, (1, 2), min_area=5).areas.tolist() == [5, 16]


def test_a_hole_is_kept_open_and_a_part_within_it_is_another():
    label = np.zeros((9, 9), np.uint8)
    label[1:8, 1:8] = 3
    label[2:7, 2:7] = 0
    label[4, 4] = 3
    parts = find_parts(label, (3,))
    assert parts.areas.tolist() == [24, 1]
    assert not parts.mask(1)[3, 3]
    assert parts.mask(2).tolist() == [[True]]


def test_no_class_and_no_pixel_make_no_part():
    parts = find_parts(np.zeros((4, 4), np.uint8), (1, 2))
    assert len(parts) == 0
    assert not parts.where.any()


@pytest.mark.parametrize("seed", range(4))
def test_counts_are_those_of_scipy(seed):
    ndimage = pytest.importorskip("scipy.ndimage", reason="SciPy is the oracle")
    label = np.random.default_rng(seed).integers(0, 4, (60, 80)).astype(np.uint8)
    parts = find_parts(label, (1, 2, 3), min_area=3)
    for id_ in (1, 2, 3):
        found, count = ndimage.label(label == id_, np.ones((3, 3)))
        areas = np.bincount(found.ravel(), minlength=count + 1)[1:]
        assert sorted(parts.areas[parts.ids == id_]) == sorted(areas[areas >= 3])
    for number in range(1, len(parts) + 1):
        assert parts.mask(number).shape == tuple(parts.boxes[number - 1, [3, 2]])
        assert parts.mask(number).sum() == parts.areas[number - 1]
        assert (label[parts.where == number] == parts.ids[number - 1]).all()
