"""A quick look says whether thermal lies on RGB, how far off it is, and when it cannot tell."""

import cv2
import numpy as np
import pytest
from draw_rig import SIZE, draw_pair, shift_and_scale

from sartm.errors import InputError
from sartm.registration.displacement import (
    compare_images,
    find_displacement,
    measure_displacement,
    to_homography,
)


def warp(image: np.ndarray, homography: np.ndarray) -> np.ndarray:
    size = image.shape[1::-1]
    return cv2.warpPerspective(image, homography, size, borderMode=cv2.BORDER_REFLECT_101)


def turned(degrees: float) -> np.ndarray:
    """Clockwise as one sees it."""
    x, y = (SIZE[1] - 1) / 2, (SIZE[0] - 1) / 2
    return np.vstack([cv2.getRotationMatrix2D((x, y), -degrees, 1), [0, 0, 1]])


@pytest.mark.parametrize("seed", range(4))
def test_a_pair_that_lies_well_raises_nothing(seed: int) -> None:
    found = measure_displacement(*draw_pair(seed))
    assert not found.misaligned
    assert found.evidence < 0
    assert found.distance < 1.5
    assert found.confidence > 0.5


@pytest.mark.parametrize(("dx", "dy"), [(9, -4), (-6, 6), (0, 12), (-14, 0)])
def test_a_shift_is_found_with_its_way_back(dx: int, dy: int) -> None:
    rgb, thermal = draw_pair(1)
    found = measure_displacement(rgb, warp(thermal, shift_and_scale(dx, dy)))
    assert found.misaligned
    assert (found.dx, found.dy) == pytest.approx((-dx, -dy), abs=1)
    assert found.turn == 0
    assert found.distance == pytest.approx(np.hypot(dx, dy), abs=1)


@pytest.mark.parametrize("degrees", [-4, 4])
def test_a_turn_is_found_though_the_middle_stays(degrees: int) -> None:
    rgb, thermal = draw_pair(2)
    found = measure_displacement(rgb, warp(thermal, turned(degrees)))
    assert found.misaligned
    assert found.turn == -degrees
    assert np.hypot(found.dx, found.dy) < 2
    assert found.distance > 4


def test_the_homography_of_what_was_found_brings_thermal_back() -> None:
    rgb, thermal = draw_pair(3)
    moved = warp(warp(thermal, turned(4)), shift_and_scale(7, -5))
    found = measure_displacement(rgb, moved)
    back = warp(moved, to_homography(found, SIZE))
    assert found.misaligned
    assert not measure_displacement(rgb, back).misaligned
    inner = slice(40, -40)
    assert np.corrcoef(back[inner, inner].ravel(), thermal[inner, inner].ravel())[0, 1] > 0.9


def test_inverted_counts_and_floats_with_gaps_say_the_same() -> None:
    rgb, thermal = draw_pair(1)
    moved = warp(thermal, shift_and_scale(9, -4))
    celsius = 300 - moved.astype(np.float32) / 100
    celsius[50:60, 80:90] = np.nan
    found, other = measure_displacement(rgb, moved), measure_displacement(rgb, celsius)
    assert other.misaligned
    assert (other.dx, other.dy) == pytest.approx((found.dx, found.dy), abs=1)


def test_what_shows_nothing_is_no_alarm() -> None:
    rgb, thermal = draw_pair(0)
    noise = np.random.default_rng(0).integers(0, 255, SIZE, np.uint8)
    for heat in (np.zeros_like(thermal), np.full(SIZE, np.nan, np.float32)):
        found = measure_displacement(rgb, heat)
        assert not found.misaligned
    assert measure_displacement(rgb, np.zeros_like(thermal)).confidence == 0
    assert np.isnan(measure_displacement(np.zeros_like(rgb), thermal).dx)
    assert (
        measure_displacement(rgb, noise).confidence < measure_displacement(rgb, thermal).confidence
    )


def test_the_agreement_of_many_frames_is_surer_than_of_one() -> None:
    evidence = []
    mixed = None
    for seed in range(8):
        rgb, thermal = draw_pair(seed)
        noise = np.random.default_rng(seed).normal(0, 400, SIZE)  # hides much of the scene
        seen = np.clip(warp(thermal, shift_and_scale(8, 6)) + noise, 0, 65535).astype(np.uint16)
        one = compare_images(rgb, seen)
        assert one is not None
        evidence.append(find_displacement(one).confidence)
        mixed = one if mixed is None else mixed.mixed(one, 1 / (seed + 1))
    assert mixed is not None
    found = find_displacement(mixed)
    assert found.misaligned
    assert (found.dx, found.dy) == pytest.approx((-8, -6), abs=1.5)
    assert found.confidence > np.mean(evidence)


def test_arrays_of_the_wrong_kind_are_refused() -> None:
    with pytest.raises(InputError, match="uint8"):
        measure_displacement(np.zeros((90, 90, 3)), np.zeros((90, 90)))
