"""What users rely on when the two cameras do not line up: the way back is found, or refused."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from draw_rig import SIZE, draw_pair, shift_and_scale

from sartm.errors import InputError
from sartm.registration.estimate import align_thermal, estimate_alignment, estimate_rig_alignment
from sartm.registration.offset import ShiftEvidence, find_offset, measure_shift

SHARED = Path(__file__).resolve().parents[3] / "shared"


def warp(image: np.ndarray, homography: np.ndarray) -> np.ndarray:
    return cv2.warpPerspective(image, homography, image.shape[1::-1])


def corner_error(first: np.ndarray, second: np.ndarray, size: tuple[int, int] = SIZE) -> float:
    right, bottom = size[1] - 1, size[0] - 1
    corners = np.array([[[0, 0], [right, 0], [right, bottom], [0, bottom]]], np.float64)
    ends = [cv2.perspectiveTransform(corners, homography) for homography in (first, second)]
    return float(np.linalg.norm(ends[0] - ends[1], axis=2).mean())


def test_a_pair_that_lines_up_stays_where_it_is() -> None:
    found = estimate_alignment(*draw_pair(0))
    assert found.accepted
    assert found.reason == ""
    assert found.quality > 0.5
    assert corner_error(found.homography, np.eye(3)) < 0.7


@pytest.mark.parametrize(
    "moved",
    [
        shift_and_scale(10, -7),
        shift_and_scale(-14, 15, 1.05),
        shift_and_scale(3, 4, 0.95),
        np.array([[1.0, -0.03, 4.0], [0.03, 1.0, -6.0], [0, 0, 1.0]]),
        np.array([[1.02, 0.01, -5.0], [-0.015, 0.99, 4.0], [6e-5, -4e-5, 1.0]]),
    ],
    ids=["shift", "larger", "smaller", "turned", "perspective"],
)
def test_a_known_warp_is_undone_despite_its_black_border(moved: np.ndarray) -> None:
    rgb, thermal = draw_pair(1)
    found = estimate_alignment(rgb, warp(thermal, moved))
    assert found.accepted, found.reason
    assert corner_error(found.homography @ moved, np.eye(3)) < 1.0


def test_reversed_contrast_floats_and_dead_pixels_change_little() -> None:
    rgb, thermal = draw_pair(2)
    celsius = 300.0 - thermal.astype(np.float32) / 100
    celsius[:40, :60] = np.nan
    celsius[100, 100] = np.inf
    found = estimate_alignment(rgb, celsius)
    assert found.accepted, found.reason
    assert corner_error(found.homography, np.eye(3)) < 0.7


@pytest.mark.parametrize("shape", [(120, 160), (200, 320)], ids=["half size", "other shape"])
@pytest.mark.slow
def test_a_thermal_image_of_another_size_is_placed(shape: tuple[int, int]) -> None:
    rgb, thermal = draw_pair(3)
    cut = (
        thermal[20:220]
        if shape[0] == 200
        else cv2.resize(thermal, shape[::-1], interpolation=cv2.INTER_AREA)
    )
    truth = np.array([[1.0, 0, 0], [0, 1, 20], [0, 0, 1]])
    if shape[0] == 120:
        truth = np.array([[2.0, 0, 0.5], [0, 2, 0.5], [0, 0, 1]])
    found = estimate_alignment(rgb, cut)
    assert found.accepted, found.reason
    assert corner_error(found.homography, truth, shape) < 1.0


def wrong_thermals() -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    blotches = cv2.GaussianBlur(random.normal(0, 1, SIZE), (0, 0), 4.0)
    slope = np.indices(SIZE).sum(axis=0).astype(np.uint16)
    return {
        "noise": random.integers(0, 65536, SIZE, dtype=np.uint16),
        "smooth noise": blotches.astype(np.float32),
        "constant": np.full(SIZE, 7000, np.uint16),
        "slope": slope,
        "all unknown": np.full(SIZE, np.nan, np.float32),
        "another scene": draw_pair(11)[1],
        "mirrored scene": draw_pair(10)[1][:, ::-1],
    }


@pytest.mark.parametrize("kind", wrong_thermals())
def test_what_does_not_belong_together_is_refused_with_a_reason(kind: str) -> None:
    found = estimate_alignment(draw_pair(10)[0], wrong_thermals()[kind])
    assert not found.accepted
    assert found.quality < 0.5
    assert found.reason
    assert np.isfinite(found.homography).all()


def test_too_far_off_is_refused_rather_than_guessed() -> None:
    rgb, thermal = draw_pair(4)
    found = estimate_alignment(rgb, warp(thermal, shift_and_scale(0, 0, 1.3)))
    assert not found.accepted


def test_an_image_too_narrow_to_align_is_refused() -> None:
    found = estimate_alignment(np.zeros((4, 400, 3), np.uint8), np.zeros((4, 400), np.uint8))
    assert not found.accepted
    assert "400 x 4" in found.reason


@pytest.mark.slow
def test_many_weak_pairs_of_one_rig_make_one_good_alignment() -> None:
    moved = shift_and_scale(6, -4, 1.02)
    random = np.random.default_rng(1)
    pairs = []
    for seed in range(20, 23):
        rgb, thermal = draw_pair(seed)
        heat = cv2.GaussianBlur(thermal.astype(np.float32), (0, 0), 2.0)
        pairs.append((rgb, warp(heat, moved) + random.normal(0, 60, SIZE).astype(np.float32)))
    alone, together = estimate_alignment(*pairs[0]), estimate_rig_alignment(pairs)
    assert together.accepted, together.reason
    assert together.quality > alone.quality
    assert corner_error(together.homography @ moved, np.eye(3)) < 0.7


def test_a_rig_must_not_change_its_image_size() -> None:
    small = draw_pair(1, (120, 160))
    with pytest.raises(InputError, match="sizes change"):
        estimate_rig_alignment([draw_pair(0), small])
    with pytest.raises(InputError, match="no pair"):
        estimate_rig_alignment([])


def test_the_model_limits_what_may_differ() -> None:
    rgb, thermal = draw_pair(1)
    found = estimate_alignment(rgb, warp(thermal, shift_and_scale(5, 2)), model="similarity")
    (a, b, _), (c, d, _), bottom = found.homography
    assert a == pytest.approx(d, abs=1e-4)
    assert b == pytest.approx(-c, abs=1e-4)
    assert bottom == pytest.approx([0, 0, 1], abs=1e-7)
    with pytest.raises(InputError, match="similarity, affine, homography"):
        estimate_alignment(rgb, thermal, model="rigid")  # type: ignore[arg-type]


def test_the_quick_offset_says_which_way_to_move_the_thermal_image() -> None:
    rgb, thermal = draw_pair(5)
    shifted = warp(thermal, shift_and_scale(8, -12))
    nothing = np.zeros(SIZE, np.uint8)
    still, moved, blank = (measure_shift(rgb, image) for image in (thermal, shifted, nothing))
    assert still is not None
    assert moved is not None
    assert blank is not None
    assert still.offset == pytest.approx((0, 0), abs=1.0)
    assert moved.offset == pytest.approx((-8, 12), abs=1.5)
    assert np.isnan(blank.offset).all()


def evidence(thermals: list[np.ndarray]) -> list[ShiftEvidence]:
    found = [measure_shift(draw_pair(seed)[0], heat) for seed, heat in enumerate(thermals)]
    return [one for one in found if one is not None]


def test_pairs_of_one_rig_agree_on_a_shift_whichever_of_them_are_asked() -> None:
    moved = [warp(draw_pair(seed)[1], shift_and_scale(9, -6)) for seed in range(12)]
    each = evidence(moved)
    for some in (slice(0, 6), slice(6, 12), slice(0, 12)):
        found = find_offset(each[some])
        assert found is not None
        assert found.agreed
        assert (found.dx, found.dy) == pytest.approx((-9, 6), abs=1.0)
        assert found.spread is not None
        assert found.spread < 2
        assert "spread" in found.describe()


def test_pairs_that_show_nothing_in_common_name_no_shift() -> None:
    """Each by itself may show one by chance, and another one each time."""
    others = evidence([draw_pair(seed + 50)[1] for seed in range(12)])
    for count in (5, 8, 12):
        found = find_offset(others[:count])
        assert found is not None
        assert not found.related
        assert not found.agreed
        assert "unknown" in found.describe()
    assert find_offset(others[:4]) is None


def test_a_rig_that_is_scaled_and_turned_is_no_reason_to_give_up() -> None:
    turned = cv2.getRotationMatrix2D((160, 120), 4, 0.93)
    away = [cv2.warpAffine(draw_pair(seed)[1], turned, SIZE[::-1]) for seed in range(6)]
    found = find_offset(evidence(away))
    assert found is not None
    assert found.related


@pytest.mark.parametrize(
    ("rgb", "thermal"),
    [
        (np.zeros((64, 64), np.uint8), np.zeros((64, 64), np.uint8)),
        (np.zeros((64, 64, 3), np.float32), np.zeros((64, 64), np.uint8)),
        (np.zeros((64, 64, 3), np.uint8), np.zeros((64, 64, 3), np.uint8)),
        (np.zeros((64, 64, 3), np.uint8), np.zeros((64, 64), np.complex64)),
        (np.zeros((0, 64, 3), np.uint8), np.zeros((64, 64), np.uint8)),
    ],
)
def test_wrong_arrays_are_named(rgb: np.ndarray, thermal: np.ndarray) -> None:
    for estimate in (estimate_alignment, measure_shift):
        with pytest.raises(InputError, match="image"):
            estimate(rgb, thermal)


@pytest.mark.parametrize("given", [True, False])
@pytest.mark.parametrize("kind", ["uint8", "uint16", "float32"])
def test_thermal_comes_onto_the_pixels_of_rgb_with_nothing_foreign_beside(
    given: bool, kind: str
) -> None:
    rgb, thermal = draw_pair(4)
    thermal = (thermal / (40 if kind == "uint8" else 1)).astype(kind)
    way_back = shift_and_scale(14, -6)
    away = cv2.warpPerspective(thermal, np.linalg.inv(way_back), SIZE[::-1], borderMode=1)
    aligned = align_thermal(rgb, away, way_back if given else None)
    assert aligned.image.dtype == thermal.dtype
    assert aligned.image.shape == SIZE
    assert (aligned.quality is None) == given
    assert aligned.seen == pytest.approx((1 - 14 / 320) * (1 - 6 / 240), abs=0.02)
    inner = np.s_[12:-12, 20:-12]
    wrong = np.abs(aligned.image[inner].astype(float) - thermal[inner]).mean()
    assert wrong < 0.25 * np.abs(away[inner].astype(float) - thermal[inner]).mean()
    assert thermal.min() <= aligned.image.min()
    assert aligned.image.max() <= thermal.max()


def test_a_pair_that_cannot_be_aligned_is_named_with_the_reason_and_a_remedy() -> None:
    rgb, thermal = draw_pair(4)
    with pytest.raises(InputError, match=r"night/7: .*\(quality 0\.\d\d.*predict --align"):
        align_thermal(rgb, np.full_like(thermal, 7), name="night/7")
    with pytest.raises(InputError, match=r"night/7: .*outside the RGB image"):
        align_thermal(rgb, thermal, shift_and_scale(900, 0), name="night/7")


@pytest.mark.skipif(not (SHARED / "data/msrs268").is_dir(), reason="needs shared/data/msrs268")
@pytest.mark.slow
def test_a_real_pair_follows_a_known_warp_and_refuses_another_scene() -> None:
    folder = SHARED / "data/msrs268"
    rgb = cv2.imread(str(folder / "rgb/00103D.jpg"))[..., ::-1]
    thermal, other = (
        cv2.imread(str(folder / f"thermal/{name}.jpg"), cv2.IMREAD_GRAYSCALE)
        for name in ("00103D", "00613D")
    )
    moved = np.array([[1.03, 0, -22.0], [0, 1.03, 5.0], [0, 0, 1.0]])
    before, after = estimate_alignment(rgb, thermal), estimate_alignment(rgb, warp(thermal, moved))
    assert before.accepted
    assert after.accepted
    assert corner_error(after.homography @ moved, before.homography, (480, 640)) < 2
    assert not estimate_alignment(rgb, other).accepted
