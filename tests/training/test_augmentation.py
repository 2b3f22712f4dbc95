"""Augmentation moves RGB, thermal and label together, repeats exactly and keeps its contracts."""

from dataclasses import replace

import cv2
import draw_layouts
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from sartm.classes import MFNET, Classes
from sartm.config import RGB_MEAN, ThermalRule
from sartm.data.pairs import PairDataset, Sample
from sartm.data.sets import Pair
from sartm.errors import InputError
from sartm.training.augmentation import TrainingItem, TrainingSet, augment, collate, paste
from sartm.training.settings import AugmentationConfig

LEVELS, MEAN = (0.0, 255.0), 0.25
GEOMETRY = replace(AugmentationConfig.none((48, 64)), scale=(0.5, 2.0), flip=0.5)
EVERYTHING = AugmentationConfig(
    crop=(48, 64), rotate=10, rare_crop=1, colour=1, darken=1, blur=1, noise=1, thermal=1, invert=1,
    dead_columns=1, misregister=2, weather=1, drop_rgb=0, drop_thermal=0,
)  # fmt: skip


def square(top: int = 20, left: int = 30, side: int = 24) -> Sample:
    """A bright, hot square of class 1 on a dark, cold ground of class 0, 80x100."""
    where = np.zeros((80, 100), bool)
    where[top : top + side, left : left + side] = True
    rgb = np.where(where[..., None], 250, 5).astype(np.uint8).repeat(3, 2)
    return Sample("square", rgb, np.where(where, 240, 10).astype(np.uint8), where.astype(np.uint8))


def noise() -> Sample:
    rng = np.random.default_rng(0)
    shape = (80, 100)
    return Sample(
        "noise",
        rng.integers(0, 256, (*shape, 3), dtype=np.uint8),
        rng.integers(0, 256, shape, dtype=np.uint8),
        rng.integers(0, 9, shape, dtype=np.uint8),
    )


def draw(sample: Sample, options: AugmentationConfig, seed: int) -> TrainingItem:
    return augment(sample, LEVELS, MEAN, options, np.random.default_rng(seed))


def same(a: TrainingItem, b: TrainingItem) -> bool:
    tensors = (torch.equal(getattr(a, n), getattr(b, n)) for n in ("rgb", "thermal", "label"))
    return all(tensors) and (a.has_rgb, a.has_thermal) == (b.has_rgb, b.has_thermal)


@pytest.fixture
def dataset(tmp_path):
    draw_layouts.mfnet_flipped(tmp_path)
    return PairDataset.open(tmp_path, "train")


@pytest.mark.parametrize("rotate", [0, 15])
def test_label_rgb_and_thermal_follow_the_same_square(rotate):
    options = replace(GEOMETRY, rotate=rotate)
    moved = set()
    for seed in range(40):
        item = draw(square(), options, seed)
        inside = item.label != 255
        # A pixel either way at the edge of the square: interpolation against nearest.
        for image in (item.rgb.mean(0), item.thermal[0]):
            agree = ((image > 0.5) == (item.label == 1))[inside]
            assert agree.float().mean() > 0.95
            assert not ((image > 0.9) & (item.label == 0)).any()
        moved.add((int((item.label == 1).sum()), int((item.label == 1).sum(0).argmax())))
    assert len(moved) > 20  # and it really moves and grows


def test_geometry_is_exact_where_pixels_map_to_pixels():
    sample = noise()
    for seed in range(20):
        item = draw(sample, replace(GEOMETRY, scale=(1, 1)), seed)
        label = item.label.numpy()
        found = [
            (top, left, flip)
            for flip in (False, True)
            for top in range(33)
            for left in range(37)
            if np.array_equal(window(sample.label, top, left, flip), label)
        ]
        assert len(found) == 1
        np.testing.assert_allclose(
            item.rgb.permute(1, 2, 0), window(sample.rgb, *found[0]) / 255, atol=1e-6
        )
        np.testing.assert_allclose(
            item.thermal[0], window(sample.thermal, *found[0]) / 255, atol=1e-6
        )


def window(image: np.ndarray, top: int, left: int, flip: bool) -> np.ndarray:
    crop = image[top : top + 48, left : left + 64]
    return crop[:, ::-1] if flip else crop


def test_a_flip_of_the_whole_image_is_its_mirror_image():
    item = draw(noise(), replace(AugmentationConfig.none((80, 100)), flip=1), 0)
    np.testing.assert_array_equal(item.label, noise().label[:, ::-1])
    np.testing.assert_allclose(item.thermal[0] * 255, noise().thermal[:, ::-1], atol=1e-3)


def test_enlarging_keeps_pixels_where_a_resize_puts_them():
    item = draw(noise(), replace(AugmentationConfig.none((160, 200)), scale=(2, 2)), 0)
    np.testing.assert_array_equal(item.label, noise().label.repeat(2, 0).repeat(2, 1))
    resized = cv2.resize(noise().rgb, (200, 160), interpolation=cv2.INTER_LINEAR)
    np.testing.assert_allclose(item.rgb.permute(1, 2, 0) * 255, resized, atol=1.01)


def test_crops_reach_every_border_and_never_miss_by_one():
    sample = noise()
    column = np.tile(np.arange(100, dtype=np.uint8), (80, 1))
    sample = replace(sample, label=column)
    options = replace(GEOMETRY, scale=(1, 1), flip=0)
    lefts = {int(draw(sample, options, seed).label[0, 0]) for seed in range(400)}
    assert (min(lefts), max(lefts)) == (0, 100 - 64)
    for seed in range(100):
        assert not (draw(sample, options, seed).label == 255).any()


def test_a_small_image_is_padded_with_means_and_ignored_there():
    for seed in range(10):
        item = draw(noise(), replace(EVERYTHING, crop=(96, 128), scale=(0.5, 0.8)), seed)
        outside = item.label == 255
        assert 0.3 < outside.float().mean() < 0.9
        for channel, mean in enumerate(RGB_MEAN):
            assert (item.rgb[channel][outside] == np.float32(mean)).all()
        assert (item.thermal[0][outside] == MEAN).all()
        assert (item.rgb[0][~outside] == np.float32(RGB_MEAN[0])).float().mean() < 0.1


def test_the_ignore_id_of_the_data_set_pads_the_label():
    options = AugmentationConfig.none((96, 128))
    item = augment(noise(), LEVELS, MEAN, options, np.random.default_rng(0), ignore=65535)
    assert set(item.label.unique().tolist()) == {*range(9), 65535}


def test_values_stay_in_range_and_types_are_fixed():
    for seed in range(30):
        item = draw(noise(), EVERYTHING, seed)
        assert item.rgb.shape == (3, 48, 64)
        assert item.thermal.shape == (1, 48, 64)
        assert item.label.shape == (48, 64)
        assert (item.rgb.dtype, item.label.dtype) == (torch.float32, torch.int64)
        for image in (item.rgb, item.thermal):
            assert image.isfinite().all()
            assert 0 <= image.min() <= image.max() <= 1


@pytest.mark.parametrize(
    "name",
    [
        "colour", "darken", "blur", "noise", "thermal", "invert", "dead_columns", "rotate",
        "misregister", "scale", "flip", "weather",
    ],
)  # fmt: skip
def test_every_option_changes_what_it_names_and_nothing_else(name):
    crop = (80, 100)
    on = {"scale": (1.5, 1.5), "rotate": 20, "misregister": 6}.get(name, 1)
    options = replace(AugmentationConfig.none(crop), **{name: on})
    still, item = draw(noise(), AugmentationConfig.none(crop), 3), draw(noise(), options, 3)
    changed = {
        "rgb": not torch.equal(still.rgb, item.rgb),
        "thermal": not torch.equal(still.thermal, item.thermal),
        "label": not torch.equal(still.label, item.label),
    }
    rgb = name in {"colour", "darken", "blur", "noise", "rotate", "scale", "flip", "weather"}
    label = name in {"rotate", "scale", "flip"}
    thermal = name not in {"colour", "darken"}
    assert changed == {"rgb": rgb, "thermal": thermal, "label": label}


def test_colour_changes_leave_grey_pictures_grey_and_darkening_darkens():
    grey = replace(square(), rgb=np.full((80, 100, 3), 120, np.uint8))
    options = AugmentationConfig.none((48, 64))
    for seed in range(10):
        rgb = draw(grey, replace(options, colour=1, hue=0.5), seed).rgb
        assert (rgb.amax(0) - rgb.amin(0)).max() <= 2 / 255
        assert draw(grey, replace(options, darken=1), seed).rgb.max() <= 0.6 * 120 / 255 + 1e-6


def test_turning_the_hue_keeps_brightness_and_strength_of_colour():
    colours = np.random.default_rng(0).integers(100, 150, (80, 100, 3), dtype=np.uint8)
    options = AugmentationConfig.none((80, 100))
    options = replace(options, colour=1, hue=0.5, brightness=0, contrast=0, saturation=0, gamma=0)
    expected = colours / 255 - colours.mean(2, keepdims=True) / 255
    for seed in range(5):
        rgb = draw(replace(noise(), rgb=colours), options, seed).rgb.permute(1, 2, 0).numpy()
        mean = rgb.mean(2, keepdims=True)
        np.testing.assert_allclose(mean[..., 0] * 255, colours.mean(2), atol=1)
        strength = np.linalg.norm(rgb - mean, axis=2)
        np.testing.assert_allclose(strength, np.linalg.norm(expected, axis=2), atol=1 / 255)
        assert np.abs(rgb - colours / 255).max() > 0.02


def test_misregistration_moves_thermal_by_no_more_than_asked():
    hot = np.zeros((96, 128), np.uint8)
    spots = np.array([(8, 8), (8, 120), (88, 8), (88, 120), (48, 64)])
    for y, x in spots:
        hot[y - 1 : y + 2, x - 1 : x + 2] = 255
    sample = Sample("spots", np.zeros((96, 128, 3), np.uint8), hot, None)
    options = replace(AugmentationConfig.none((96, 128)), misregister=5)
    furthest = 0.0
    for seed in range(40):
        heat = draw(sample, options, seed).thermal[0].numpy()
        for y, x in spots:
            near = heat[max(y - 8, 0) : y + 9, max(x - 8, 0) : x + 9]
            rows, columns = np.indices(near.shape)
            cy = (rows * near).sum() / near.sum() + max(y - 8, 0)
            cx = (columns * near).sum() / near.sum() + max(x - 8, 0)
            furthest = max(furthest, float(np.hypot(cy - y, cx - x)))
    assert 2 < furthest < 5.3


def test_thermal_alone_is_never_out_of_register_with_its_label():
    options = replace(AugmentationConfig.none((80, 100)), misregister=6)
    alone = replace(noise(), rgb=None)
    still = draw(alone, AugmentationConfig.none((80, 100)), 0)
    assert torch.equal(draw(alone, options, 0).thermal, still.thermal)


def test_rare_crops_hold_a_class_that_is_not_the_commonest():
    label = np.zeros((400, 600), np.uint8)
    label[390:394, 3:7] = 2  # in a corner
    sample = Sample("x", np.zeros((400, 600, 3), np.uint8), None, label)
    options = AugmentationConfig(crop=(64, 64), rare_crop=1)
    assert all((draw(sample, options, seed).label == 2).any() for seed in range(50))
    usual = replace(options, rare_crop=0)
    assert sum(bool((draw(sample, usual, seed).label == 2).any()) for seed in range(50)) < 10


def item_of(label: list[list[int]], value: float, has_rgb: bool = True) -> TrainingItem:
    where = torch.tensor(label)
    shape = where.shape
    rgb, thermal = torch.full((3, *shape), value), torch.full((1, *shape), value + 0.1)
    return TrainingItem(rgb, thermal, where, has_rgb, True, True, True)


def test_mixing_pastes_classes_whole_in_both_modalities_and_in_the_label():
    below, above = item_of([[0, 0, 3, 3]], 0.2), item_of([[1, 0, 0, 2]], 0.7)
    seen = set()
    for seed in range(20):
        mixed = paste(below, above, np.random.default_rng(seed))
        pasted = mixed.rgb[0] == 0.7
        assert torch.equal(pasted, mixed.thermal[0] == above.thermal[0])
        assert torch.equal(mixed.label, torch.where(pasted, above.label, below.label))
        seen.add(tuple(mixed.label[0].tolist()))
    assert seen == {(1, 0, 3, 3), (0, 0, 3, 2)}  # half of the classes, never the commonest


def test_mixing_leaves_out_what_one_camera_would_not_see_and_what_has_no_label():
    below, above = item_of([[0, 0, 3, 3]], 0.2), item_of([[1, 0, 0, 2]], 0.7)
    for other in (
        replace(above, given_rgb=False),
        replace(above, label=torch.full((1, 4), 255)),
        replace(above, label=torch.zeros(1, 4, dtype=torch.int64)),
    ):
        assert same(paste(below, other, np.random.default_rng(0)), below)


def test_mixing_is_the_same_for_the_same_seed_and_happens_as_often_as_asked(tmp_path):
    draw_layouts.mfnet_original(tmp_path)
    data = PairDataset.open(tmp_path, "train")
    rule = ThermalRule(mean=MEAN)
    plain = replace(GEOMETRY, drop_rgb=0, drop_thermal=0)
    sets = [TrainingSet(data, rule, replace(plain, mix=mix), 1) for mix in (0.0, 0.5, 0.5)]
    keys = [(epoch, index) for epoch in range(100) for index in range(len(data))]
    items = [[one[key] for key in keys] for one in sets]
    assert all(map(same, items[1], items[2]))
    changed = sum(not same(x, y) for x, y in zip(items[0], items[1], strict=True))
    assert 0.35 * len(keys) < changed < 0.6 * len(keys)


def test_modality_dropout_is_fifteen_percent_each_and_never_both():
    options = AugmentationConfig(crop=(4, 4))
    items = [draw(noise(), options, seed) for seed in range(1000)]
    without_rgb = [item for item in items if not item.has_rgb]
    without_thermal = [item for item in items if not item.has_thermal]
    assert 110 < len(without_rgb) < 190
    assert 110 < len(without_thermal) < 190
    assert all(item.has_rgb or item.has_thermal for item in items)
    # a teacher still sees what was dropped
    assert all(item.given_rgb and item.given_thermal for item in items)
    assert all(item.rgb.std() > 0 and item.thermal.std() > 0 for item in items)


def test_a_modality_that_is_alone_is_never_dropped():
    options = AugmentationConfig(crop=(4, 4), drop_rgb=0.5, drop_thermal=0.5)
    for missing in ("rgb", "thermal"):
        sample = replace(noise(), **{missing: None}, label=None)
        for seed in range(20):
            item = draw(sample, options, seed)
            assert (item.has_rgb, item.has_thermal) == (missing != "rgb", missing != "thermal")
            assert (item.given_rgb, item.given_thermal) == (item.has_rgb, item.has_thermal)
            mean = torch.tensor(RGB_MEAN).view(3, 1, 1)
            assert missing != "rgb" or torch.equal(item.rgb, mean.expand(3, 4, 4))
            assert missing != "thermal" or (item.thermal == MEAN).all()
            assert (item.label == 255).all()


def test_the_same_seed_epoch_and_index_give_the_same_item_and_others_do_not(dataset):
    rule = ThermalRule("percentile", 1, 99)
    first = TrainingSet(dataset, rule, EVERYTHING, seed=5)
    again = TrainingSet(dataset, rule, EVERYTHING, seed=5)
    for key in ((3, 1), (0, 0), (3, 2), (3, 1)):
        assert same(first[key], again[key])
    assert not same(first[3, 1], first[4, 1])
    assert not same(first[3, 1], TrainingSet(dataset, rule, EVERYTHING, seed=6)[3, 1])


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
def test_batches_do_not_depend_on_the_number_of_workers(dataset):
    training = TrainingSet(dataset, ThermalRule(), replace(EVERYTHING, drop_rgb=0.5), seed=1)
    keys = [[(0, 3), (0, 1)], [(0, 0), (1, 2)], [(1, 1), (1, 3)]]
    alone = DataLoader(training, batch_sampler=keys, collate_fn=collate)
    workers = DataLoader(training, batch_sampler=keys, collate_fn=collate, num_workers=2)
    for expected, batch in zip(alone, workers, strict=True):
        assert torch.equal(expected.rgb, batch.rgb)
        assert torch.equal(expected.thermal, batch.thermal)
        assert torch.equal(expected.label, batch.label)
        assert torch.equal(expected.has_rgb, batch.has_rgb)


def test_a_batch_stacks_items_in_order_and_moves(dataset):
    training = TrainingSet(dataset, ThermalRule(), EVERYTHING)
    items = [training[0, index] for index in range(3)]
    batch = collate(items).to("cpu")
    assert len(batch) == 3
    assert (batch.rgb.shape, batch.thermal.shape) == ((3, 3, 48, 64), (3, 1, 48, 64))
    assert torch.equal(batch.label[2], items[2].label)
    assert batch.has_rgb.dtype == batch.has_thermal.dtype == torch.bool


def test_thermal_levels_are_those_of_the_whole_image_not_of_the_crop(tmp_path):
    ramp = np.tile(np.arange(8000, 8100, dtype=np.uint16), (80, 1))
    draw_layouts.save(tmp_path / "t.png", ramp)
    pairs = [Pair("ramp", None, tmp_path / "t.png")]
    dataset = PairDataset(pairs, MFNET)
    options = AugmentationConfig.none((8, 8))
    training = TrainingSet(dataset, ThermalRule("percentile", 0, 100), options)
    for epoch in range(5):
        spread = training[epoch, 0].thermal
        assert spread.max() - spread.min() == pytest.approx(7 / 99, abs=1e-5)
    with pytest.raises(InputError, match=r"'ramp'.*model\.thermal\.rule=range"):
        TrainingSet(dataset, ThermalRule(), options)[0, 0]


def test_a_table_of_many_classes_keeps_its_ids():
    classes = Classes(tuple(f"c{i}" for i in range(300)), ignore=65535)
    label = np.arange(8000, dtype=np.uint16).reshape(80, 100) % 300
    sample = replace(noise(), label=label)
    options = replace(AugmentationConfig.none((80, 100)), rare_crop=1)
    item = augment(sample, LEVELS, MEAN, options, np.random.default_rng(0), classes.ignore)
    np.testing.assert_array_equal(item.label, label)


@pytest.mark.parametrize(
    "wrong",
    [
        {"crop": (0, 5)}, {"scale": (2.0, 1.0)}, {"scale": (0.0, 1.0)}, {"flip": 1.5},
        {"noise_level": -1.0}, {"drop_rgb": 0.6, "drop_thermal": 0.6},
    ],
)  # fmt: skip
def test_impossible_options_are_refused_by_name(wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        AugmentationConfig(**wrong)
