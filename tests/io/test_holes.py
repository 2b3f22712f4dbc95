"""Pixels that no thermal camera saw stay known: in a file, when read, and for a thermal rule."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from sartm.config import ThermalRule
from sartm.data.pairs import Sample, read_pair
from sartm.data.sets import Pair
from sartm.errors import InputError
from sartm.io.cameras import Camera
from sartm.io.decode import read_thermal
from sartm.io.holes import UsedValues, fill_holes, find_holes, mark_holes
from sartm.io.thermal import apply_thermal_rule, thermal_levels
from sartm.registration.calibration import apply_alignment
from sartm.registration.estimate import align_thermal
from sartm.training.augmentation import AugmentationConfig, TrainingSet

SIZE = (60, 80)
AWAY = np.array([[1, 0, 24], [0, 1, 9], [0, 0, 1.0]])
"""A thermal camera that sees neither the left 30 % nor the top 15 % of RGB."""
RULE = ThermalRule("percentile", 1.0, 99.0)
SHIFT = {"uint8": 40, "uint16": 29_000, "float32": -12.5}


def scene(kind: str, steps: float = 1.0) -> np.ndarray:
    """180 levels of warmth from a value on that is typical of the number type."""
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    warmth = 90 + 60 * np.sin(x / 9) + 29 * np.cos(y / 7)
    return (SHIFT[kind] + np.rint(warmth * steps)).astype(kind)


def align_to_file(raw: np.ndarray, path: Path) -> tuple[np.ndarray, float]:
    """As `sartm data align` writes a thermal image; where it sees, and the value of holes."""
    used = UsedValues()
    used.add(raw)
    moved, seen = apply_alignment(raw, AWAY, SIZE)
    cv2.imwrite(str(path), mark_holes(moved, ~seen, used.free()))
    return seen, used.free()


@pytest.mark.parametrize("kind", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("black_hot", [False, True])
def test_an_aligned_file_keeps_its_contrast_after_the_percentile_rule(
    kind: str, black_hot: bool, tmp_path: Path
) -> None:
    raw, path = scene(kind), tmp_path / "x.tiff"
    seen, holes = align_to_file(raw, path)
    camera = Camera(black_hot=black_hot, holes=holes)
    sample = read_pair(Pair("x", None, path), camera=camera)
    assert sample.thermal is not None
    assert sample.unseen is not None
    assert np.array_equal(sample.unseen, ~seen)
    part = apply_alignment(raw, AWAY, SIZE)[0][seen]
    moved = part.astype(float) if not black_hot else -part.astype(float)
    low, high = np.percentile(moved, (1, 99))
    expected = ((moved - low) / (high - low)).clip(0, 1)
    scaled = apply_thermal_rule(sample.thermal, RULE, "x", sample.unseen)
    assert np.abs(scaled[seen] - expected).max() < 1e-5
    assert scaled.std() > 0.8 * expected.std()
    assert scaled[~seen].std() > 0  # continued from its surroundings, not one value
    # Black-hot or not, nothing foreign is hotter or colder than the scene.
    assert sample.thermal[seen].min() <= sample.thermal.min()
    assert sample.thermal.max() <= sample.thermal[seen].max()


def test_zeros_of_unseen_pixels_would_take_the_contrast_of_counts(tmp_path: Path) -> None:
    """What the fault was: the reader was not told, so 0 was taken for the coldest pixel."""
    raw, path = scene("uint16"), tmp_path / "x.png"
    align_to_file(raw, path)
    scaled = apply_thermal_rule(read_thermal(path), RULE)
    untold = scaled[scaled > 0.5].std()
    seen = apply_thermal_rule(raw, RULE).std()
    assert untold < 0.02 * seen


@pytest.mark.parametrize(
    ("values", "kind", "free"),
    [
        ([5, 9], "uint8", 0),
        ([0, 9], "uint8", 255),
        ([0, 255, 9], "uint8", 254),
        (range(256), "uint8", 0),
        ([7000, 9000], "uint16", 0),
        ([0, 9000], "uint16", 65535),
        ([0, 65534, 65535], "uint16", 65533),
        ([-40.0, 120.5], "float32", -9999),
        ([-9999.0, 0.0], "float32", -99990),
    ],
)
def test_the_mark_is_a_value_that_no_pixel_holds(values: list[float], kind: str, free: int) -> None:
    used = UsedValues()
    for value in values:
        used.add(np.full((2, 3), value, kind))
    assert used.free() == free


def test_what_is_no_measurement_takes_no_value_away() -> None:
    used = UsedValues()
    used.add(np.array([[0, 7]], np.uint16), np.array([[True, False]]))
    assert used.free() == 0
    with pytest.raises(InputError, match="uint16 and uint8"):
        used.add(np.zeros((2, 2), np.uint8))


def test_a_measured_pixel_that_holds_the_mark_moves_by_one_step() -> None:
    raw = np.arange(256, dtype=np.uint8).reshape(16, 16)
    unseen = np.zeros((16, 16), bool)
    unseen[3] = True
    marked = mark_holes(raw, unseen, 0.0)
    assert np.array_equal(find_holes(marked, 0), unseen)
    assert marked[0, 0] == 1
    assert np.array_equal(np.delete(marked.ravel()[1:], slice(47, 63)), np.delete(
        raw.ravel()[1:], slice(47, 63)))  # fmt: skip
    assert mark_holes(raw, unseen, 255.0)[-1, -1] == 254
    assert raw[0, 0] == 0


def test_holes_stay_holes_when_an_image_is_moved() -> None:
    raw = scene("uint16")
    holed = raw.copy()
    holed[20:30, 20:30] = 0
    unseen = find_holes(holed, 0)
    assert unseen is not None
    moved, seen = apply_alignment(fill_holes(holed, 0), AWAY, SIZE, unseen=unseen)
    assert not seen[29:39, 44:54].any()
    assert seen[10:28, 25:].all()
    assert moved[seen].min() >= raw.min()


def test_a_pair_that_is_aligned_to_be_labelled_keeps_its_contrast(tmp_path: Path) -> None:
    raw = scene("uint16")
    cv2.imwrite(str(tmp_path / "t.png"), raw)
    cv2.imwrite(str(tmp_path / "v.png"), np.zeros((*SIZE, 3), np.uint8))
    sample = read_pair(
        Pair("x", tmp_path / "v.png", tmp_path / "t.png"),
        align=lambda images: align_thermal(images.rgb, images.thermal, AWAY, unseen=images.unseen),
    )
    assert sample.thermal is not None
    assert sample.unseen is not None
    assert sample.unseen[:, :23].all()
    low, high = thermal_levels(sample.thermal, RULE, "x", sample.unseen)
    measured = sample.thermal[~sample.unseen]
    assert (low, high) == tuple(np.percentile(measured, (1, 99)))


def test_training_takes_its_levels_from_what_was_measured() -> None:
    raw = scene("uint16")
    unseen = np.zeros(SIZE, bool)
    unseen[:, :50] = True
    raw[unseen] = raw[:, 50:].min()
    plain = raw[:, 50:]
    levels = thermal_levels(raw, RULE, "x", unseen)
    assert levels == pytest.approx(np.percentile(plain, (1, 99)))

    class OnePair:
        classes = type("Classes", (), {"ignore": 255})

        def __len__(self) -> int:
            return 1

        def __getitem__(self, _: int) -> Sample:
            return Sample("x", None, raw, np.zeros(SIZE, np.uint8), unseen=unseen)

    drawn = TrainingSet(OnePair(), RULE, AugmentationConfig.none(SIZE), 0)[0, 0]
    expected = apply_thermal_rule(raw, RULE, "x", unseen)
    assert np.abs(drawn.thermal[0].numpy() - expected).max() < 1e-5


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_holes_that_no_reader_lets_through_are_refused_with_the_remedy(value: float) -> None:
    with pytest.raises(InputError, match="-9999"):
        Camera(holes=value)
