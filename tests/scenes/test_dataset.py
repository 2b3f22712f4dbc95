"""Drawn scenes: the same pixels for a seed, exact labels, and the physics users rely on."""

import hashlib
import re
import subprocess
import sys
from dataclasses import replace
from functools import cache

import cv2
import numpy as np
import pytest

from sartm.classes import MFNET
from sartm.data.layouts import open_layout
from sartm.data.pairs import PairDataset
from sartm.errors import InputError
from sartm.io.decode import read_rgb, read_thermal
from sartm.io.labels import read_label
from sartm.language import word_vectors
from sartm.scenes.dataset import (
    SUFFIXES,
    Scene,
    SceneOptions,
    draw_scene,
    pair_seed,
    write_dataset,
)  # fmt: skip
from sartm.scenes.sensors import misalign
from sartm.scenes.things import FULL

SMALL = SceneOptions(size=(120, 160))
PERSON = MFNET.names.index("person")


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    """Forty small scenes of mixed conditions."""
    return [draw_scene(seed, SMALL) for seed in range(40)]


@cache
def draw_one(condition: str, seed: int) -> Scene:
    return draw_scene(seed, replace(SMALL, condition=condition))


def draw(condition: str, count: int) -> list[Scene]:
    return [draw_one(condition, seed) for seed in range(100, 100 + count)]


def same(one: Scene, other: Scene) -> bool:
    return one.condition == other.condition and all(
        np.array_equal(getattr(one, name), getattr(other, name))
        for name in ("rgb", "thermal", "celsius", "label")
    )


def surroundings(mask: np.ndarray, label: np.ndarray) -> np.ndarray:
    """A rim of unlabelled pixels around a region."""
    near = cv2.dilate(mask.astype(np.uint8), np.ones((9, 9), np.uint8)) > 0
    touching = cv2.dilate(mask.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    return near & ~touching & (label == 0)


@pytest.mark.parametrize("size", [(64, 64), (96, 128), (120, 333), (480, 640)])
def test_a_scene_has_the_size_and_types_that_were_asked_for(size):
    scene = draw_scene(3, SceneOptions(size=size))
    assert scene.rgb.shape == (*size, 3)
    assert scene.rgb.dtype == np.uint8
    for field, dtype in ((scene.thermal, np.uint8), (scene.label, np.uint8)):
        assert field.shape == size
        assert field.dtype == dtype
    assert scene.celsius.shape == size
    assert scene.celsius.dtype == np.float32
    assert scene.label.max() < len(MFNET)
    assert -80 < scene.celsius.min() < scene.celsius.max() < 120


def test_a_seed_gives_the_same_pixels_again_whatever_was_drawn_before(scenes):
    np.random.seed(1)  # the global state must not matter
    draw_scene(1234, SceneOptions(size=(64, 80)))
    assert same(draw_scene(7, SMALL), scenes[7])


def test_another_process_draws_the_same_pixels(scenes):
    code = (
        "import hashlib; from sartm.scenes.dataset import *; "
        "s = draw_scene(5, SceneOptions(size=(120, 160))); "
        "print(hashlib.sha256(b''.join(a.tobytes() for a in "
        "(s.rgb, s.thermal, s.celsius, s.label))).hexdigest())"
    )
    ours = scenes[5]
    arrays = (ours.rgb, ours.thermal, ours.celsius, ours.label)
    expected = hashlib.sha256(b"".join(array.tobytes() for array in arrays)).hexdigest()
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert printed.stdout.strip() == expected, printed.stderr


def test_seeds_give_different_scenes(scenes):
    assert len({scene.label.tobytes() for scene in scenes}) == len(scenes)


def test_a_random_condition_equals_the_same_condition_by_name(scenes):
    scene = scenes[11]
    assert same(draw_scene(11, replace(SMALL, condition=scene.condition)), scene)


def test_the_size_does_not_change_what_is_in_the_scene():
    small, large = (draw_scene(21, SceneOptions(size=size)) for size in ((120, 160), (360, 480)))
    shrunk = cv2.resize(large.label, (160, 120), interpolation=cv2.INTER_NEAREST)
    assert (shrunk == small.label).mean() > 0.97


def test_every_class_occurs_and_unlabeled_dominates(scenes):
    counts = sum(np.bincount(scene.label.ravel(), minlength=len(MFNET)) for scene in scenes)
    assert (counts > 0).all()
    assert 0.75 < counts[0] / counts.sum() < 0.95


def test_many_small_scenes_hold_five_classes():
    tiny = SceneOptions(size=(96, 128))
    found = [len(np.unique(draw_scene(seed, tiny).label)) for seed in range(24)]
    assert np.mean(np.array(found) >= 5) > 0.5


def test_night_is_darker_than_dusk_and_dusk_than_day():
    day, dusk, night = (
        np.mean([scene.rgb.mean() for scene in draw(condition, 8)])
        for condition in ("day", "dusk", "night")
    )
    assert night < 0.6 * dusk
    assert dusk < 0.9 * day


def test_fog_takes_contrast_from_rgb_and_little_from_thermal():
    # The lower image half: what is far and near alike stands there, and no sky.
    day, fog = (
        [scene.rgb[30:70].astype(float).std() for scene in draw(condition, 12)]
        for condition in ("day", "fog")
    )
    assert np.mean(fog) < 0.7 * np.mean(day)
    warm = [
        scene.celsius[scene.label == PERSON].mean() - np.median(scene.celsius[60:])
        for scene in draw("fog", 12)
        if (scene.label == PERSON).sum() > 30
    ]
    assert np.median(warm) > 2


def test_glare_saturates_the_rgb_image():
    def blinded(condition):
        return np.mean([(scene.rgb.min(axis=2) > 225).mean() for scene in draw(condition, 12)])

    assert blinded("glare") > 3 * blinded("night")


def test_persons_are_warmer_than_what_is_around_them(scenes):
    gaps = []
    for scene in scenes:
        person = scene.label == PERSON
        rim = surroundings(person, scene.label)
        if person.sum() > 40 and rim.any():
            gaps.append(scene.celsius[person].mean() - scene.celsius[rim].mean())
    assert len(gaps) > 12
    assert np.mean(np.array(gaps) > 0) > 0.95
    assert np.median(gaps) > 3


def test_some_persons_at_night_are_seen_by_the_thermal_camera_alone():
    hidden = 0
    for scene in draw("night", 20):
        count, regions = cv2.connectedComponents((scene.label == PERSON).astype(np.uint8))
        for index in range(1, count):
            person = regions == index
            rim = surroundings(person, scene.label)
            if person.sum() < 40 or rim.sum() < 20:
                continue
            seen = abs(scene.rgb[person].mean() - scene.rgb[rim].mean())
            warm = scene.celsius[person].mean() - scene.celsius[rim].mean()
            hidden += bool(seen < 4 and scene.rgb[person].mean() < 16 and warm > 3)
    assert hidden >= 3


def test_cones_have_the_temperature_of_the_air_around_them_and_another_colour():
    cone = MFNET.names.index("color_cone")
    warmth, colour = [], []
    for scene in draw("day", 24):
        mask = scene.label == cone
        rim = surroundings(mask, scene.label)
        if mask.sum() > 40 and rim.sum() > 40:
            warmth.append(abs(scene.celsius[mask].mean() - scene.celsius[rim].mean()))
            means = [scene.rgb[region].mean(axis=0) for region in (mask, rim)]
            colour.append(np.abs(means[0] - means[1]).max())
    assert len(warmth) >= 5
    assert np.median(warmth) < 4
    assert np.median(colour) > 20


def test_without_misregistration_thermal_edges_lie_on_label_edges():
    """Moving the field by 4 pixels either way must fit the persons worse than leaving it."""
    gain = {shift: 0.0 for shift in (-4, 0, 4)}
    for scene in draw("night", 20):
        person = scene.label == PERSON
        if person.sum() < 60:
            continue
        for shift in gain:
            moved = np.roll(scene.celsius, shift, axis=1)
            gain[shift] += float(moved[person].mean() - scene.celsius.mean())
    assert gain[0] > 1.1 * max(gain[-4], gain[4])


def test_misregistration_moves_the_thermal_image_alone():
    options = replace(SMALL, condition="day")
    plain, moved = draw_scene(31, options), draw_scene(31, replace(options, misregistration=6.0))
    assert np.array_equal(plain.rgb, moved.rgb)
    assert np.array_equal(plain.label, moved.label)
    difference = np.abs(plain.celsius - moved.celsius)
    assert difference.max() > 1
    assert np.median(difference) < 1


def test_misregistration_stays_within_its_limit():
    rows, columns = (axis.astype(np.float32) for axis in np.mgrid[:120, :160])
    for seed in range(20):
        # The same generator twice: the same shift for both coordinates.
        moved = [misalign(np.random.default_rng(seed), axis, 5.0) for axis in (columns, rows)]
        off = np.hypot(moved[0] - columns, moved[1] - rows)
        assert off.max() <= 5.1
        assert off.max() > 0.1


def test_a_data_set_reads_back_as_it_was_drawn(tmp_path):
    described = write_dataset(tmp_path / "set", 6, seed=4, options=SMALL, rgb_format="png")
    layout = open_layout(described)
    assert layout.classes.names == MFNET.names
    assert layout.thermal_unit == "display"
    assert set(layout.subsets) == set(SUFFIXES)
    assert [len(layout.splits[split]) for split in ("train", "val")] == [5, 1]
    for index, pair in enumerate([*layout.splits["train"], *layout.splits["val"]]):
        scene = draw_scene(pair_seed(4, index), SMALL)
        assert np.array_equal(read_rgb(pair.rgb), scene.rgb)
        assert np.array_equal(read_thermal(pair.thermal), scene.thermal)
        assert pair.label is not None
        assert np.array_equal(read_label(pair.label), scene.label)
        assert re.search(layout.subsets[scene.condition], pair.name)
    assert not list((tmp_path / "set").rglob("*.tmp"))


def test_a_data_set_can_hold_degrees(tmp_path):
    options = replace(SMALL, thermal="celsius", condition="smoke")
    described = write_dataset(tmp_path / "set", 2, seed=1, options=options, validation=0.5)
    layout = open_layout(described)
    assert layout.thermal_unit == "celsius"
    (pair,) = layout.splits["val"]
    degrees = read_thermal(pair.thermal)
    assert degrees.dtype == np.float32
    assert -80 < degrees.min() < degrees.max() < 120
    assert pair.name.endswith("S")


def test_a_longer_data_set_begins_like_a_shorter_one(tmp_path):
    options = SceneOptions(size=(64, 64))
    for name, pairs in (("short", 2), ("long", 3)):
        write_dataset(tmp_path / name, pairs, seed=2, options=options, validation=0)
    for path in sorted((tmp_path / "short" / "labels").iterdir()):
        assert path.read_bytes() == (tmp_path / "long" / "labels" / path.name).read_bytes()


def test_a_folder_with_files_is_refused_and_left_alone(tmp_path):
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(InputError, match="not an empty folder"):
        write_dataset(tmp_path, 1, options=SMALL)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"condition": "rain"}, "choose random or one of day"),
        ({"size": (32, 640)}, "64 to 8192"),
        ({"misregistration": -1.0}, "misregistration"),
        ({"misregistration": 500.0}, "quarter"),
        ({"thermal": "kelvin"}, "display or celsius"),
    ],
)
def test_wrong_options_are_refused_with_the_remedy(options, words):
    with pytest.raises(InputError, match=words):
        SceneOptions(**options)


def test_numbers_out_of_range_are_refused(tmp_path):
    for wrong in (
        lambda: draw_scene(-1),
        lambda: write_dataset(tmp_path / "a", 0),
        lambda: write_dataset(tmp_path / "a", 1, seed=-1),
        lambda: write_dataset(tmp_path / "a", 1, validation=1.5),
    ):
        with pytest.raises(InputError, match="found"):
            wrong()
    assert not (tmp_path / "a").exists()


def test_the_full_vocabulary_labels_what_mfnet_leaves_out_and_nothing_else_changes():
    seen: set[int] = set()
    for seed in range(8):
        plain = draw_scene(seed, SceneOptions(size=(120, 160)))
        full = draw_scene(seed, SceneOptions(size=(120, 160), classes="full"))
        for kind in ("rgb", "thermal", "celsius"):
            assert np.array_equal(getattr(plain, kind), getattr(full, kind))
        known = plain.label > 0
        assert np.array_equal(full.label[known], plain.label[known])
        assert (full.label[~known] >= len(MFNET)).all()  # every pixel has a word
        seen |= set(np.unique(full.label).tolist())
    names = {FULL.names[index] for index in seen}
    assert {"sky", "road", "pavement", "building", "tree", "lane_marking", "pole"} <= names
    assert len(FULL) - len(MFNET) >= 18
    assert len(set(FULL.palette)) == len(FULL)


def test_sky_is_above_and_road_below():
    full = draw_scene(3, SceneOptions("day", (120, 160), classes="full")).label
    rows = {name: np.nonzero(full == FULL.names.index(name))[0].mean() for name in ("sky", "road")}
    assert rows["sky"] < 60 < rows["road"]


def test_a_data_set_of_the_full_vocabulary_says_so(tmp_path):
    options = SceneOptions(size=(64, 96), classes="full")
    write_dataset(tmp_path / "drawn", 2, 0, options, validation=0.5)
    dataset = PairDataset.open(tmp_path / "drawn", "train")
    assert dataset.classes == FULL
    assert all(word_vectors((word,)).values.any() for word in FULL.prompts if word)
    assert max(sample.label.max() for sample in dataset) >= len(MFNET)


def test_a_moment_later_people_and_cars_have_moved_and_the_street_has_not():
    options = SceneOptions(size=(120, 160), condition="day")
    moved = still = 0
    for seed in range(8):
        now, later = draw_scene(seed, options), draw_scene(seed, options, 0.5)
        again = draw_scene(seed, options, 0.5)
        assert np.array_equal(later.label, again.label)
        assert np.array_equal(later.rgb, again.rgb)
        movers = np.isin(now.label, (1, 2, 3)) | np.isin(later.label, (1, 2, 3))
        # What stands is where it was, but where something that moved hid it or hides it now.
        assert np.array_equal(now.label[~movers], later.label[~movers])
        moved += int((now.label != later.label).sum())
        still += int((now.label == later.label).sum())
        assert not np.array_equal(now.rgb, later.rgb)  # noise at least
    assert 0 < moved < 0.2 * still


def test_a_moment_before_the_beginning_is_refused():
    with pytest.raises(InputError, match="moment"):
        draw_scene(0, moment=-1)


def test_things_have_numbers_and_what_is_unlabelled_or_goes_on_has_none(scenes):
    cars = {MFNET.names.index(name) for name in ("car", "person", "bike", "color_cone")}
    for scene in scenes:
        assert not scene.instances[scene.label == 0].any()
        alone = np.isin(scene.label, list(cars))
        assert (scene.instances[alone] > 0).all()
        assert not scene.instances[scene.label == MFNET.names.index("guardrail")].any()


def test_a_written_data_set_gives_back_its_instances(tmp_path):
    write_dataset(tmp_path / "set", 3, 5, SMALL, validation=0.4)
    dataset = PairDataset.open(tmp_path / "set")
    drawn = draw_scene(pair_seed(5, 0), SMALL)
    found = dataset.instances(0)
    assert found is not None
    assert np.array_equal(found, drawn.instances)
    dataset.pairs[0].instances.unlink()
    assert dataset.instances(0) is None
