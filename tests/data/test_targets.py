"""Objects in label maps, and where a simulated annotator clicks."""

import numpy as np
import pytest

from sartm.classes import Classes
from sartm.data.targets import find_targets, inside_click, iou, middle, next_click, noisy_box

CLASSES = Classes(("unlabeled", "car", "person"), prompts=("", "car", "person"))


def label() -> np.ndarray:
    found = np.zeros((40, 60), np.uint8)
    found[5:15, 5:25] = 1
    found[20:30, 5:25] = 1
    found[20:30, 25:30] = 2  # beside the car
    found[35, 50] = 2
    found[0, :] = 255
    return found


def test_objects_are_connected_parts_of_a_class_and_the_rest_is_none():
    objects = find_targets(label(), CLASSES)
    assert [(thing.class_id, thing.area) for thing in objects] == [
        (1, 200),
        (1, 200),
        (2, 50),
        (2, 1),
    ]
    assert objects[2].box == (25, 20, 30, 30)
    assert objects[0].mask.sum() == 200
    assert len(find_targets(label(), CLASSES, smallest=100)) == 2


def test_instances_part_what_touches_and_join_what_something_hides():
    instances = np.zeros((40, 60), np.uint16)
    instances[5:15, 5:25] = 7
    instances[20:30, 5:25] = 7  # one car behind something
    instances[20:30, 25:27], instances[20:30, 27:30] = 8, 9  # two persons side by side
    objects = find_targets(label(), CLASSES, instances=instances)
    areas = [(thing.class_id, thing.area) for thing in objects]
    assert areas == [(1, 400), (2, 20), (2, 30), (2, 1)]


def test_the_first_click_is_the_middle_and_the_next_where_the_mask_is_wrong_the_farthest():
    truth = np.zeros((40, 60), bool)
    truth[10:31, 10:31] = True
    assert middle(truth) == ((20, 20), 11.0)
    assert next_click(None, truth) == ((20, 20), 1)
    half = truth.copy()
    half[:, 20:] = False
    (x, y), label = next_click(half, truth)
    assert label == 1
    assert 20 <= x <= 30
    assert 10 <= y <= 30
    assert truth[y, x]
    spilt = truth.copy()
    spilt[10:31, 31:56] = True
    (x, y), label = next_click(spilt, truth)
    assert label == 0
    assert not truth[y, x]
    assert spilt[y, x]
    assert next_click(truth, truth) is None
    assert next_click(spilt, truth, ignored=~truth) is None


def test_an_object_at_the_rim_of_the_image_is_clicked_in_its_middle_not_at_the_rim():
    truth = np.zeros((40, 60), bool)
    truth[:9, :9] = True
    assert middle(truth)[0] == (4, 4)


@pytest.mark.parametrize("seed", range(20))
def test_clicks_of_a_training_lie_inside_and_boxes_around(seed):
    draw = np.random.default_rng(seed)
    thing = find_targets(label(), CLASSES)[0]
    x, y = inside_click(thing.mask, draw)
    assert thing.mask[y, x]
    x0, y0, x1, y1 = noisy_box(thing, draw, (40, 60))
    assert 0 <= x0 < x1 <= 60
    assert 0 <= y0 < y1 <= 40
    assert abs(x0 - 5) <= 20
    assert abs(x1 - 25) <= 20


def test_iou_leaves_out_what_nobody_judges():
    truth = np.array([[True, True, False, False]])
    mask = np.array([[True, False, True, False]])
    assert iou(mask, truth) == pytest.approx(1 / 3)
    assert iou(mask, truth, np.array([[False, True, True, False]])) == 1
    assert iou(np.zeros_like(mask), np.zeros_like(mask)) == 1
